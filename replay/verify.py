"""Verify: folds a shadow to the live view's position and compares the two, table by table, every column, naming the rows that differ.

The comparison sees one snapshot: the live position, the live rows and the shadow folded to that position belong together, while live
traffic goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import IsolationLevel, sql

from hub import limits
from hub.log.follow import Cursor, Follower, live_schema, position, shadow_schema, step
from hub.log.store import Log
from projections.base import Table, TableView
from replay.rebuild import connect


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
    """Compare live views with the log folded anew; the position and, for each view, the differences of its tables."""
    with Log(url) as log:
        head = log.head()
    found: dict[str, dict[str, TableDifference]] = {}
    lowest = head
    for view in views:
        at, found[view.name] = _verify_one(url, view, head)
        lowest = min(lowest, at)
    return lowest, found


def _verify_one(url: str, view: TableView, head: int) -> tuple[int, dict[str, TableDifference]]:
    live, shadow = Follower(url, view), Follower(url, view, shadow_schema(view.name))
    try:
        live.ensure()
        shadow.ensure()
        while live.position() < max(head, shadow.position()):  # whoever follows, this view is at the head before it is judged
            live.step()
        while shadow.step(upto=live.position()):
            pass
        with connect(url) as connection:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            with connection.transaction(), connection.cursor() as cursor:
                at = position(cursor, live.schema)
                while step(cursor, view, shadow.schema, limits.FOLLOW_BATCH_MAX, at):
                    pass
                return at, {table.name: _compare(cursor, view.name, table) for table in view.tables}
    finally:
        live.close()
        shadow.close()


def _compare(cursor: Cursor, view: str, table: Table) -> TableDifference:
    live, shadow = sql.Identifier(live_schema(view), table.name), sql.Identifier(shadow_schema(view), table.name)
    (rows,) = cursor.execute(sql.SQL("select count(*) from {}").format(live)).fetchone() or (0,)
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
