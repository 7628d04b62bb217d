"""Promote: catches the rebuilt shadows up to the log and puts them in the place of the live views, all in one transaction."""

from collections.abc import Sequence

from events.errors import Refused
from hub import limits
from hub.log.follow import live_schema, shadow_schema, step
from projections.base import TableView
from replay.shadow import Shadow
from replay.tables import Ground, Session, ground_of


def promote(place: str | Ground, views: Sequence[TableView]) -> tuple[int, list[str]]:
    """Make the shadows of views the live ones; the position they are at and their names.

    Raises `Refused` where a shadow is not whole, `Unavailable` where somebody holds the tables; then nothing was swapped.
    """
    ground = ground_of(place)
    head = ground.head()
    with ground.alone(views) as session:
        for view in views:
            _catch_up(Shadow(session, view), view.name, head)
        return _swap(session, sorted(views, key=lambda view: view.name)), [view.name for view in views]


def _catch_up(shadow: Shadow, name: str, head: int) -> None:
    """Bring a whole shadow near the head before anybody has to wait for it."""
    if flaw := shadow.flaw():
        raise Refused(f"the shadow of view {name} {flaw}: run `hub replay rebuild {name}` first (one that was interrupted goes on)")
    if shadow.position() < head:
        shadow.resume()
        for _ in shadow.fill(limits.FOLLOW_BATCH_MAX, head):
            pass
        shadow.seal()


def _swap(session: Session, views: Sequence[TableView]) -> int:
    # Readers and followers take the positions first, in this order: nobody who reads several views waits for us while we wait for them.
    with session.transaction() as tables:
        for view in views:
            tables.hold(live_schema(view.name))
        head = tables.head()
        for view in views:
            while step(tables, view, shadow_schema(view.name), limits.FOLLOW_BATCH_MAX, head):
                pass
            tables.swap(view.name)
        return head
