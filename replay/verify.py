"""Verify: folds a shadow to the live view's position and compares the two, table by table, every column, naming the rows that differ.

The comparison sees one snapshot: the live position, the live rows and the shadow folded to that position belong together, while live
traffic goes on. The live view is followed to the head as any follower would, and otherwise left as it is: one that cannot be followed is
judged as it stands, against the log up to the head.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import IsolationLevel, sql

from events.errors import Corrupt
from hub import limits
from hub.log.follow import Cursor, live_schema, position, shadow_schema, step
from hub.log.store import Log
from projections.base import Table, TableView
from replay.shadow import GONE, Connection, Shadow, alone


@dataclass(slots=True)
class TableDifference:
    """How a live table differs from the rebuilt one: rows with other content, rows that live lacks, rows that only live has.

    `keys` holds the primary keys of the first of them, each with what is wrong with it."""

    rows: int
    differing: int = 0
    missing: int = 0
    extra: int = 0
    keys: list[dict[str, Any]] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return not (self.differing or self.missing or self.extra)


def verify(url: str, views: Sequence[TableView]) -> tuple[int, dict[str, dict[str, TableDifference]]]:
    """Compare live views with the log folded anew; the position and, for each view, the differences of its tables.

    The table `position` is compared too: it has one row, with a position that the log knows.
    """
    with Log(url) as log:
        head = log.head()
    found: dict[str, dict[str, TableDifference]] = {}
    lowest = head
    for view in views:
        at, found[view.name] = _verify_one(url, view, head)
        lowest = min(lowest, at)
    return lowest, found


def _verify_one(url: str, view: TableView, head: int) -> tuple[int, dict[str, TableDifference]]:
    with alone(url, [view]) as connection:
        shadow = Shadow(connection, view)
        if shadow.flaw():
            shadow.restart()
        else:
            shadow.resume()
        target = max(head, shadow.position())
        _follow(connection, view, target)
        while shadow.step(limits.FOLLOW_BATCH_MAX, target):
            pass
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        with connection.transaction(), connection.cursor() as cursor:
            at, difference = _compare_position(cursor, live_schema(view.name), target)
            while step(cursor, view, shadow.schema, limits.FOLLOW_BATCH_MAX, at):
                pass
            tables = {table.name: _compare(cursor, view.name, table, at) for table in view.tables}
            shadow.seal()
            return at, {**tables, "position": difference}


def _follow(connection: Connection, view: TableView, target: int) -> None:
    """Whoever follows, this view is at the head before it is judged, if it can be."""
    folded = 1
    while folded:
        try:
            with connection.transaction(), connection.cursor() as cursor:
                folded = step(cursor, view, live_schema(view.name), limits.FOLLOW_BATCH_MAX, target)
        except (Corrupt, *GONE):
            return


def _compare_position(cursor: Cursor, schema: str, target: int) -> tuple[int, TableDifference]:
    """The position that a view should be at, which is its own if that is sound, and how its position differs from that."""
    try:
        with cursor.connection.transaction():
            at = position(cursor, schema)
        if at >= target:
            return at, TableDifference(1)
    except (Corrupt, *GONE):
        pass
    try:
        with cursor.connection.transaction():
            query = sql.SQL("select position from {} order by position = %s desc, position").format(sql.Identifier(schema, "position"))
            found = [at for (at,) in cursor.execute(query, [target])]
    except GONE:
        found = []
    keys = [{"position": at, "is": "extra" if n else "differing", "expected": target} for n, at in enumerate(found)]
    if len(found) > 1 and found[0] == target:
        del keys[0]
    if not found and target:  # before anything happened a view need not be there
        keys = [{"position": target, "is": "missing"}]
    kinds = Counter(key["is"] for key in keys)
    return target, TableDifference(len(found), kinds["differing"], kinds["missing"], kinds["extra"], keys[: limits.EXPORT_KEYS_MAX])


def _compare(cursor: Cursor, view: str, table: Table, at: int) -> TableDifference:
    live, shadow = sql.Identifier(live_schema(view), table.name), sql.Identifier(shadow_schema(view), table.name)
    try:
        with cursor.connection.transaction():
            return _compare_rows(cursor, table, live, shadow)
    except GONE:  # of a table that is not there, or is another one, all rows are missing
        found = _compare_rows(cursor, table, sql.SQL("(select * from {} where false)").format(shadow), shadow)
        if found.equal and at:  # and so is a table that would be empty, once anything happened
            found.missing, found.keys = 1, [{"table": table.name, "is": "missing"}]
        return found


def _compare_rows(cursor: Cursor, table: Table, live: sql.Composable, shadow: sql.Composable) -> TableDifference:
    (rows,) = cursor.execute(sql.SQL("select count(*) from {} l").format(live)).fetchone() or (0,)
    keys = sql.SQL(", ").join(map(sql.Identifier, table.key))
    query = sql.SQL(
        """select case when l is null then 'missing' when s is null then 'extra' else 'differing' end as what,
                  to_jsonb(coalesce(l.k, s.k)) from
           (select l.*::text as l, jsonb_build_object({pairs}) as k, {keys} from {live} l) l full join
           (select s.*::text as s, jsonb_build_object({pairs}) as k, {keys} from {shadow} s) s using ({keys})
           where l.l is distinct from s.s order by {keys}"""
    ).format(
        pairs=sql.SQL(", ").join(sql.SQL("{}, {}").format(sql.Literal(k), sql.Identifier(k)) for k in table.key),
        keys=keys,
        live=live,
        shadow=shadow,
    )
    found = TableDifference(rows)
    with psycopg.ServerCursor(cursor.connection, "differing") as differing:
        for what, key in differing.execute(query):
            setattr(found, what, getattr(found, what) + 1)
            if len(found.keys) < limits.EXPORT_KEYS_MAX:
                found.keys.append({**key, "is": what})
    return found
