"""Verify: folds a shadow to the live view's position and compares the two, table by table, every column, naming the rows that differ.

The comparison sees one snapshot: the live position, the live rows and the shadow folded to that position belong together, while live
traffic goes on. The live view is followed to the head as any follower would, and otherwise left as it is: one that cannot be followed is
judged as it stands, against the log up to the head.
"""

from collections import Counter
from collections.abc import Sequence

from events.errors import Corrupt
from hub import limits
from hub.log.follow import live_schema, position, step
from projections.base import TableView
from replay.shadow import Shadow
from replay.tables import GONE, Ground, ReplayTables, Session, TableDifference, ground_of


def verify(place: str | Ground, views: Sequence[TableView]) -> tuple[int, dict[str, dict[str, TableDifference]]]:
    """Compare live views with the log folded anew; the position and, for each view, the differences of its tables.

    The table `position` is compared too: it has one row, with a position that the log knows.
    """
    ground = ground_of(place)
    head = ground.head()
    found: dict[str, dict[str, TableDifference]] = {}
    lowest = head
    for view in views:
        at, found[view.name] = _verify_one(ground, view, head)
        lowest = min(lowest, at)
    return lowest, found


def _verify_one(ground: Ground, view: TableView, head: int) -> tuple[int, dict[str, TableDifference]]:
    with ground.alone([view]) as session:
        shadow = Shadow(session, view)
        if shadow.flaw():
            shadow.restart()
        else:
            shadow.resume()
        target = max(head, shadow.position())
        _follow(session, view, target)
        for _ in shadow.fill(limits.FOLLOW_BATCH_MAX, target):
            pass
        with session.transaction(snapshot=True) as tables:
            at, difference = _compare_position(tables, live_schema(view.name), target)
            while step(tables, view, shadow.schema, limits.FOLLOW_BATCH_MAX, at):
                pass
            found = {table.name: tables.compare(view, table, at) for table in view.tables}
            shadow.seal_in(tables)
            return at, {**found, "position": difference}


def _follow(session: Session, view: TableView, target: int) -> None:
    """Whoever follows, this view is at the head before it is judged, if it can be."""
    folded = 1
    while folded:
        try:
            with session.transaction() as tables:
                folded = step(tables, view, live_schema(view.name), limits.FOLLOW_BATCH_MAX, target)
        except (Corrupt, *GONE):
            return


def _compare_position(tables: ReplayTables, schema: str, target: int) -> tuple[int, TableDifference]:
    """The position that a view should be at, which is its own if that is sound, and how its position differs from that."""
    try:
        with tables.attempt():
            at = position(tables, schema)
        if at >= target:
            return at, TableDifference(1)
    except (Corrupt, *GONE):
        pass
    try:
        with tables.attempt():
            found = sorted((at for at, _ in tables.positions(schema)), key=lambda at: (at != target, at))
    except GONE:
        found = []
    keys = [{"position": at, "is": "extra" if n else "differing", "expected": target} for n, at in enumerate(found)]
    if len(found) > 1 and found[0] == target:
        del keys[0]
    if not found and target:  # before anything happened a view need not be there
        keys = [{"position": target, "is": "missing"}]
    kinds = Counter(key["is"] for key in keys)
    return target, TableDifference(len(found), kinds["differing"], kinds["missing"], kinds["extra"], keys[: limits.EXPORT_KEYS_MAX])
