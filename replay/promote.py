"""Promote: catches the rebuilt shadows up to the log and puts them in the place of the live views, all in one transaction."""

from collections.abc import Sequence

from psycopg import sql

from events.errors import Refused
from hub import limits
from hub.log.follow import live_schema, shadow_schema, step
from hub.log.store import Log
from projections.base import TableView
from replay.shadow import Connection, Shadow, alone


def promote(url: str, views: Sequence[TableView]) -> tuple[int, list[str]]:
    """Make the shadows of views the live ones; the position they are at and their names.

    Raises `Refused` where a shadow is not whole, `Unavailable` where somebody holds the tables; then nothing was swapped.
    """
    with Log(url) as log:
        head = log.head()
    with alone(url, views) as connection:
        for view in views:
            _catch_up(Shadow(connection, view), view.name, head)
        return _swap(connection, sorted(views, key=lambda view: view.name)), [view.name for view in views]


def _catch_up(shadow: Shadow, name: str, head: int) -> None:
    """Bring a whole shadow near the head before anybody has to wait for it."""
    if flaw := shadow.flaw():
        raise Refused(f"the shadow of view {name} {flaw}: run `hub replay rebuild {name}` first (one that was interrupted goes on)")
    if shadow.position() < head:
        shadow.resume()
        while shadow.step(limits.FOLLOW_BATCH_MAX, head):
            pass
        shadow.seal()


def _swap(connection: Connection, views: Sequence[TableView]) -> int:
    # Readers and followers take the positions first, in this order: nobody who reads several views waits for us while we wait for them.
    with connection.transaction(), connection.cursor() as cursor:
        for view in views:
            (found,) = cursor.execute("select to_regclass(%s)", [f"{live_schema(view.name)}.position"]).fetchone() or (None,)
            if found is not None:
                cursor.execute(sql.SQL("lock table {} in access exclusive mode").format(sql.Identifier(live_schema(view.name), "position")))
        (head,) = cursor.execute("select coalesce(max(position), 0) from log.event").fetchone() or (0,)
        for view in views:
            live, shadow = live_schema(view.name), shadow_schema(view.name)
            while step(cursor, view, shadow, limits.FOLLOW_BATCH_MAX, head):
                pass
            cursor.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(live)))
            cursor.execute(sql.SQL("alter schema {} rename to {}").format(sql.Identifier(shadow), sql.Identifier(live)))
            cursor.execute(sql.SQL("comment on schema {} is null").format(sql.Identifier(live)))
        return int(head)
