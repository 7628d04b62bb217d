"""Timeline: all facts about any object in the order in which they count, and reversals whose original is missing or was reversed before.

An object is (kind, id): lot, serial, handling_unit, item, order, purchase_order, asn, shipment, partner, location, equipment, and each
fact's own document. A reversal stands in the timelines of all that its original names.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from events.base import Recorded
from events.vocabulary import bounded
from hub.log.codec import receipt_key
from hub.log.follow import Cursor
from projections.base import EXCEPTION_TABLE, Rows, Table, TableView
from projections.naming import named, subject_sql
from projections.undone import REVERSAL, reversals

ENTRY = Table(
    "entry",
    {
        "kind": "text",
        "id": "text",
        "position": "bigint",
        "type": "text not null",
        "effective_at": "timestamptz",  # null where the hub's own clock made it: no part of what the fact says
        "at": "timestamptz not null",
        "fact": "uuid not null",
        "source": "text not null",
        "business_key": "text not null",
        "beside": "boolean not null",  # a reversal in a timeline of its original
    },
    key=("kind", "id", "position"),
    technical=("position", "at"),
    indexes=("fact", "position"),
)


class Timeline(TableView):
    """Everything about everything: see the module's docstring."""

    name = "timeline"
    tables = (ENTRY, REVERSAL, EXCEPTION_TABLE)

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """Entries."""
        yield reversals(facts)
        yield ENTRY, (row for fact in facts for row in _entries(fact))

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """Reversals beside their originals, exceptions of the reversals that were touched."""
        for statement in (_BESIDE, _CLEAR, _ORPHANS, _REPEATED):
            cursor.execute(statement, {"first": first, "last": last})


def timeline(cursor: Cursor, kind: str, id_: str) -> list[dict[str, Any]]:
    """All facts about an object in the live view, in effective order: position, type, effective_at, source, business_key."""
    cursor.execute(
        """select position, type, at, source, business_key from view_timeline.entry where (kind, id) = (%s, %s)
           order by at, source collate "C", business_key collate "C" """,
        [kind, bounded(id_)],
    )
    names = ("position", "type", "effective_at", "source", "business_key")
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _entries(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    e, event = fact.envelope, fact.event
    effective_at = None if event.keyed_only else e.effective_at
    for kind, id_ in sorted({(kind, bounded(id_)) for kind, id_ in named(event)}):
        yield kind, id_, fact.position, event.type, effective_at, e.effective_at, receipt_key(e.source, e.key), e.source, e.key, False


# Originals of which this batch brought a reversal, or which it brought itself after their reversal.
_TOUCHED = """touched as (
  select original from reversal where position between %(first)s and %(last)s
  union select original from reversal join entry on entry.fact = original where entry.position between %(first)s and %(last)s)"""

# Lateral, here and below: reversals are few, and a planner that thinks otherwise reads all entries for one of them.
_BESIDE = f"""
with {_TOUCHED}
insert into entry
select o.kind, o.id, r.position, s.type, s.effective_at, s.at, s.fact, s.source, s.business_key, true
from touched join reversal r using (original)
cross join lateral (select distinct kind, id from entry where fact = r.original and not beside) o
cross join lateral (select * from entry where fact = r.fact limit 1) s
on conflict do nothing
"""  # noqa: S608 - made of the names above

_SUBJECT = subject_sql("source", "original_key")

_CLEAR = f"""
with {_TOUCHED}, subject as (select distinct {_SUBJECT} as name from reversal join touched using (original))
delete from exception using subject s where kind in ('reversal_without_original', 'reversal_repeated') and subject = s.name
"""  # noqa: S608 - made of the names above

_RANKED = """ranked as (
  select r.*, row_number() over (partition by original order by effective_at nulls first, business_key collate "C") as n,
         max(position) over (partition by original) as latest
  from reversal r join touched using (original)),
said as (select ranked.fact, e.at, exists (select from entry o where o.fact = ranked.original) as found
         from ranked cross join lateral (select at from entry where fact = ranked.fact limit 1) e)"""

_ORPHANS = f"""
insert into exception
with {_TOUCHED}, {_RANKED}
select 'reversal_without_original', {_SUBJECT}, source, business_key, source,
       format('%%s of %%s takes back %%s, which is not known', business_key, source, left(original_key, 200)), said.at, latest
from ranked join said using (fact) where n = 1 and not found
"""  # noqa: S608 - made of the names above

_REPEATED = f"""
insert into exception
with {_TOUCHED}, {_RANKED}
select 'reversal_repeated', {_SUBJECT}, source, business_key, source,
       format('%%s of %%s takes back %%s, which is taken back already; it counts once', business_key, source, left(original_key, 200)),
       said.at, greatest(latest, (select max(position) from entry o where o.fact = ranked.original))
from ranked join said using (fact) where n = 2
"""  # noqa: S608 - made of the names above
