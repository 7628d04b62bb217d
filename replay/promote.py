"""Promote: catches the rebuilt shadows up to the live views and swaps them by rename, all in one transaction."""

from collections.abc import Sequence

import psycopg
from psycopg import sql

from events.errors import Refused, Unavailable
from hub import limits
from hub.log.follow import Cursor, enter, live_schema, position, shadow_schema, step
from projections.base import TableView
from replay.rebuild import connect


def promote(url: str, views: Sequence[TableView]) -> tuple[int, list[str]]:
    """Make the shadows of views the live ones; the lowest position and their names. Raises `Refused` where a view has no finished shadow."""
    for view in views:
        with connect(url) as connection:
            _need_shadow(connection.cursor(), view)
    try:
        with connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(f"set local lock_timeout = '{limits.LOCK_TIMEOUT_S}s'")
            reached = [_swap(cursor, view) for view in views]
    except psycopg.errors.LockNotAvailable as error:
        raise Unavailable(f"somebody reads or writes the live views without end: {error}. Nothing was swapped; try again") from error
    return min(reached, default=0), [view.name for view in views]


def _need_shadow(cursor: Cursor, view: TableView) -> None:
    schema = shadow_schema(view.name)
    row = cursor.execute("select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s", [schema]).fetchone()
    if row is None:
        raise Refused(f"view {view.name} has no shadow to promote: run `hub replay rebuild {view.name}` first")
    if row[0] != "rebuilt":
        raise Refused(
            f"the rebuild of view {view.name} is not finished: run `hub replay rebuild {view.name}` again, it goes on where it stopped"
        )


def _swap(cursor: Cursor, view: TableView) -> int:
    live, shadow, old = live_schema(view.name), shadow_schema(view.name), f"old_{view.name}"
    row = cursor.execute("select to_regclass(%s)", [f"{live}.position"]).fetchone()
    if row and row[0] is not None:
        # the follower's own lock: it finishes its batch first, and finds the new tables when it comes back
        cursor.execute(sql.SQL("lock table {}.position in access exclusive mode").format(sql.Identifier(live)))
        target = max(position(cursor, live), position(cursor, shadow))
        while step(cursor, view, shadow, limits.FOLLOW_BATCH_MAX, target):
            pass
        cursor.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(old)))
        cursor.execute(sql.SQL("alter schema {} rename to {}").format(sql.Identifier(live), sql.Identifier(old)))
    cursor.execute(sql.SQL("alter schema {} rename to {}").format(sql.Identifier(shadow), sql.Identifier(live)))
    cursor.execute(sql.SQL("comment on schema {} is null").format(sql.Identifier(live)))
    cursor.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(old)))
    enter(cursor, live)
    return position(cursor, live)
