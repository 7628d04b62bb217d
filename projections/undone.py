"""Which facts were undone: business reversals and retractions, kept by each view that must leave such facts out of its totals.

A reversal names its original by (source, business key) and may come before it. Several of one original count once; the one that counts is
the first by rule (a retraction before a reversal, then by effective time and key), never the first to arrive.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import sql

from events.base import Recorded
from events.inventory import FactRetracted, MovementReversed
from hub.log.codec import receipt_key
from hub.log.follow import Cursor
from projections.base import Table

REVERSAL = Table(
    "reversal",
    {
        "original": "uuid",  # the receipt key of the fact that is undone, by which its rows are found
        "fact": "uuid",  # the receipt key of the reversal
        "source": "text not null",
        "original_key": "text not null",
        "business_key": "text not null",
        "effective_at": "timestamptz",  # null: a retraction, which counts as of the original's own time
        "position": "bigint not null",
    },
    key=("original", "fact"),
    indexes=("position",),
)


def reversals(facts: Sequence[Recorded]) -> tuple[Table, Iterable[tuple[Any, ...]]]:
    """The rows of `REVERSAL` that facts add."""
    return REVERSAL, (row for fact in facts if (row := _row(fact)))


def any_reversal(cursor: Cursor, first: int, last: int) -> bool:
    """Whether a span of positions has any."""
    row = cursor.execute("select exists (select from reversal where position between %s and %s)", [first, last]).fetchone()
    return bool(row and row[0])


def mark_undone(cursor: Cursor, table: str, first: int, last: int) -> None:
    """Set `undone` and the position in rows of `table` (fact, undone, position) whose fact was undone, whichever of the two came first."""
    values = {"first": first, "last": last}
    cursor.execute(sql.SQL(_MARK).format(table=sql.Identifier(table)), values)


def _row(fact: Recorded) -> tuple[Any, ...] | None:
    e, event = fact.envelope, fact.event
    if not isinstance(event, MovementReversed | FactRetracted):
        return None
    effective_at = e.effective_at if isinstance(event, MovementReversed) else None
    return receipt_key(e.source, event.original), receipt_key(e.source, e.key), e.source, event.original, e.key, effective_at, fact.position


_MARK = """
with touched as (
  select original from reversal where position between %(first)s and %(last)s
  union
  select original from reversal join {table} t on t.fact = original where t.position between %(first)s and %(last)s),
latest as (select original, max(position) as position from reversal join touched using (original) group by original)
update {table} t set undone = true, position = greatest(t.position, latest.position) from latest where t.fact = latest.original
"""
