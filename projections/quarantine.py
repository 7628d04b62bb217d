"""Quarantine: what was held, whole deliveries or lines that could not be mapped and facts that came again with other content.

When something was received is told by the hub's clock and is no part of business content. How often the same bytes came again is counted
beside the log and joined when the list is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from events.base import Recorded
from events.integration import ContentConflicted, DeliveryQuarantined, QuarantineRedriven
from hub.log.codec import receipt_key
from hub.log.follow import Cursor
from projections.base import EXCEPTION_TABLE, Rows, Table, TableView

ENTRY = Table(
    "entry",
    {
        "receipt": "uuid",  # receipt key of the held entry, by which repetitions are counted
        "id": "text not null",  # the first 12 hex digits of it: what people type
        "kind": "text not null",  # quarantined | conflict
        "source": "text not null",
        "business_key": "text",  # of the fact that was refused; null where nothing could be mapped
        "held_key": "text not null",
        "sha256": "text not null",
        "part": "int not null",
        "line": "text not null",
        "format": "text not null",
        "place": "text not null",
        "reason": "text not null",
        "first_seen": "timestamptz not null",
        "settled": "boolean not null",
        "position": "bigint not null",
    },
    key=("receipt",),
    technical=("position", "first_seen"),
    indexes=("id", "md5(held_key)", "position"),
)
REDRIVE = Table(
    "redrive",
    {"fact": "uuid", "held_key": "text not null", "position": "bigint not null"},
    key=("fact",),
    indexes=("md5(held_key)", "position"),
)


class Quarantine(TableView):
    """What was held: see the module's docstring."""

    name = "quarantine"
    tables = (ENTRY, REDRIVE, replace(EXCEPTION_TABLE, technical=("position", "first_seen")))

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """Entries and re-drives."""
        yield ENTRY, (row for fact in facts for row in _held(fact))
        yield REDRIVE, (row for fact in facts for row in _redriven(fact))

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """What is settled, then the open conflicts."""
        for statement in (_SETTLE, _CLEAR, _CONFLICTS):
            cursor.execute(statement, {"first": first, "last": last})


def entries(cursor: Cursor, *, settled: bool = False) -> list[dict[str, Any]]:
    """What is held in the live view, oldest first, each with `times`; with `settled` also what was re-driven."""
    names = [name for name in ENTRY.columns if name not in ("receipt", "position")]
    cursor.execute(
        f"""select {", ".join(names)}, 1 + coalesce(times, 0), position from view_quarantine.entry left join intake.seen on key = receipt
            where %s or not settled order by first_seen, position""",  # noqa: S608 - the columns named above
        [settled],
    )
    return [dict(zip([*names, "times", "position"], row, strict=True)) for row in cursor.fetchall()]


def _held(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    e, event = fact.envelope, fact.event
    receipt = receipt_key(e.source, e.key)
    head = (receipt, receipt.hex[:12])
    if isinstance(event, DeliveryQuarantined):
        where = (e.key, event.raw_sha256, event.part, event.line, event.format, event.place)
        yield *head, "quarantined", e.source, None, *where, event.reason, e.effective_at, False, fact.position
    elif isinstance(event, ContentConflicted):
        where = (e.key, event.raw_sha256, event.part, event.line, event.format, event.line)
        # not the event's own words: they name a position, and the same facts in another order have others
        reason = f"{event.refused_key} of {event.refused_source} is known with other content: the first stays, this one is kept"
        yield *head, "conflict", event.refused_source, event.refused_key, *where, reason, e.effective_at, False, fact.position


def _redriven(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    if isinstance(fact.event, QuarantineRedriven):
        yield receipt_key(fact.envelope.source, fact.envelope.key), fact.event.quarantined_key, fact.position


# Held keys may be long: they are found by their md5 and compared whole.
_SETTLE = """
with touched as (
  select held_key from redrive where position between %(first)s and %(last)s
  union select r.held_key from redrive r join entry e on md5(e.held_key) = md5(r.held_key)
  where e.position between %(first)s and %(last)s),
latest as (select held_key, max(r.position) as position
           from redrive r join touched t using (held_key) where md5(r.held_key) = md5(t.held_key) group by held_key)
update entry e set settled = true, position = greatest(e.position, latest.position)
from latest where md5(e.held_key) = md5(latest.held_key) and e.held_key = latest.held_key
"""

_CLEAR = """
delete from exception using entry
where entry.position between %(first)s and %(last)s and exception.kind = 'content_conflict' and subject = receipt::text
"""

_CONFLICTS = """
insert into exception
select 'content_conflict', receipt::text, source, business_key, place, reason, first_seen, position
from entry where kind = 'conflict' and not settled and position between %(first)s and %(last)s
"""
