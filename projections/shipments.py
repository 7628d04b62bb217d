"""Shipments: where each one is, and what of it was dispatched, delivered and returned.

A reversed or retracted fact counts nowhere. Where several facts say the same thing, the first by effective time, source and key is heard,
of milestones the last.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from events.base import Recorded
from events.logistics import DeliveryProved, MilestoneReported, ReturnReceived, ShipmentDispatched
from hub.log.codec import receipt_key
from hub.log.follow import Cursor
from projections.base import EXCEPTION_TABLE, Table, TableView, insert
from projections.movements import amount
from projections.naming import subject_sql
from projections.undone import REVERSAL, keep_reversals, mark_undone

_FACT = {"fact": "uuid", "source": "text not null", "business_key": "text not null", "kind": "text not null", "shipment": "text not null"}
_STATE = {"effective_at": "timestamptz not null", "undone": "boolean not null", "position": "bigint not null"}
_THING = ("item", "lot", "serial", "unit")

REPORT = Table(
    "report",
    {
        **_FACT,  # kind: dispatched | milestone | delivered | returned
        **dict.fromkeys(("customer", "carrier", "sales_order", "from_location", "code", "place"), "text"),
        **_STATE,
    },
    key=("fact",),
    indexes=("shipment", "position"),
)
MOVED = Table(
    "moved",
    {**_FACT, "n": "int", **dict.fromkeys(_THING, "text not null"), "quantity": "numeric not null", **_STATE},
    key=("fact", "n"),
    indexes=("shipment", "position"),
)
SHIPMENT = Table(
    "shipment",
    {
        "shipment": "text",
        "status": "text not null",  # planned | in_transit | delivered | returned
        **dict.fromkeys(("customer", "carrier", "sales_order", "from_location"), "text"),
        "dispatched_at": "timestamptz",
        "milestone_code": "text",
        "milestone_place": "text",
        "milestone_at": "timestamptz",
        "delivered_at": "timestamptz",
        "position": "bigint not null",
    },
    key=("shipment",),
)
LINE = Table(
    "line",
    {
        "shipment": "text",
        **dict.fromkeys(_THING, "text"),
        **dict.fromkeys(("dispatched", "delivered", "returned"), "numeric not null"),
        "position": "bigint not null",
    },
    key=("shipment", *_THING),
    indexes=("item, lot",),
)


class Shipments(TableView):
    """Where each shipment is: see the module's docstring."""

    name = "shipments"
    tables = (REPORT, MOVED, SHIPMENT, LINE, REVERSAL, EXCEPTION_TABLE)

    def fold(self, cursor: Cursor, facts: Sequence[Recorded]) -> None:
        """Reports of the batch and what they moved, then the shipments that they touched."""
        window = {"first": facts[0].position, "last": facts[-1].position}
        keep_reversals(cursor, facts)
        insert(cursor, "report", list(REPORT.columns), (row for fact in facts for row in _reports(fact)))
        insert(cursor, "moved", list(MOVED.columns), (row for fact in facts for row in _moved(fact)))
        for table in ("report", "moved"):
            mark_undone(cursor, table, window["first"], window["last"])
        for statement in (_CLEAR, _LINES, _SHIPMENTS, _VARIANCE):
            cursor.execute(statement, window)


def shipment(cursor: Cursor, name: str) -> dict[str, Any] | None:
    """A shipment of the live view with its lines; None for an unknown one."""
    found = cursor.execute(f"select {', '.join(SHIPMENT.columns)} from view_shipments.shipment where shipment = %s", [name])  # noqa: S608
    row = found.fetchone()
    if row is None:
        return None
    order = ", ".join(f'{column} collate "C"' for column in _THING)
    cursor.execute(f"select {', '.join(LINE.columns)} from view_shipments.line where shipment = %s order by {order}", [name])  # noqa: S608
    lines = [dict(zip(LINE.columns, line, strict=True)) for line in cursor.fetchall()]
    return {**dict(zip(SHIPMENT.columns, row, strict=True)), "lines": lines}


_KINDS = {ShipmentDispatched: "dispatched", MilestoneReported: "milestone", DeliveryProved: "delivered", ReturnReceived: "returned"}


def _reports(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    event = fact.event
    if isinstance(event, ShipmentDispatched | MilestoneReported | DeliveryProved | ReturnReceived) and event.shipment:
        said = (getattr(event, name, None) for name in ("customer", "carrier", "sales_order", "from_location", "code", "place"))
        yield *_head(fact, event.shipment), *said, *_state(fact)


def _moved(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    event = fact.event
    if isinstance(event, ShipmentDispatched | DeliveryProved | ReturnReceived) and event.shipment:
        for n, thing in enumerate(event.things):
            if counted := amount(thing):
                what = (thing.item or "", thing.lot or "", thing.serial or "", counted[1], counted[0])
                yield *_head(fact, event.shipment), n, *what, *_state(fact)


def _head(fact: Recorded, name: str) -> tuple[Any, ...]:
    e = fact.envelope
    return receipt_key(e.source, e.key), e.source, e.key, _KINDS[type(fact.event)], name


def _state(fact: Recorded) -> tuple[Any, ...]:
    return fact.envelope.effective_at, False, fact.position


_TOUCHED = "touched as (select distinct shipment from report where position between %(first)s and %(last)s)"  # each fact has a report
_THING_SQL = ", ".join(_THING)
_SUBJECT = subject_sql("shipment", *_THING)

_CLEAR = f"""
with {_TOUCHED},
ship as (delete from shipment s using touched t where s.shipment = t.shipment),
gone as (delete from line l using touched t where l.shipment = t.shipment returning l.*)
delete from exception e using (select {_SUBJECT} as name from gone) g where e.kind = 'delivery_variance' and e.subject = g.name
"""  # noqa: S608 - made of the names above


def _sum(kind: str) -> str:
    return f"trim_scale(coalesce(sum(quantity) filter (where not undone and kind = '{kind}'), 0))"


_LINES = f"""
with {_TOUCHED}
insert into line
select shipment, {_THING_SQL}, {_sum("dispatched")}, {_sum("delivered")}, {_sum("returned")}, max(position)
from moved join touched using (shipment) group by shipment, {_THING_SQL}
"""  # noqa: S608 - made of the names above


def _heard(column: str, kinds: str, *, last: bool = False) -> str:
    """The first (last) thing that the reports of some kinds say in a column."""
    way = "desc" if last else "asc"
    order = f'effective_at {way}, source collate "C" {way}, business_key collate "C" {way}'
    return f"(array_agg({column} order by {order}) filter (where not undone and kind in ({kinds}) and {column} is not null))[1]"


# Returned: all that left or arrived came back. What was dispatched or delivered in handling units alone has no quantity to compare.
_SHIPMENTS = f"""
with {_TOUCHED},
open as (select shipment, bool_or(greatest(dispatched, delivered) > returned) as out
         from line join touched using (shipment) group by shipment)
insert into shipment
select shipment,
       case when bool_or(not undone and kind = 'returned') and not coalesce(bool_or(out), false) then 'returned'
            when bool_or(not undone and kind = 'delivered') then 'delivered'
            when bool_or(not undone and kind = 'dispatched') then 'in_transit' else 'planned' end,
       coalesce({_heard("customer", "'dispatched'")}, {_heard("customer", "'delivered', 'returned'")}),
       coalesce({_heard("carrier", "'dispatched'")}, {_heard("carrier", "'milestone'")}),
       {_heard("sales_order", "'dispatched'")}, {_heard("from_location", "'dispatched'")},
       {_heard("effective_at", "'dispatched'")},
       {_heard("code", "'milestone'", last=True)}, {_heard("place", "'milestone'", last=True)},
       {_heard("effective_at", "'milestone'", last=True)},
       {_heard("effective_at", "'delivered'", last=True)}, max(position)
from report join touched using (shipment) left join open using (shipment) group by shipment
"""  # noqa: S608 - made of the names above

# Its cause is the first proof of delivery that counts anything. One proof opens all lines, so its inputs are the shipment's.
_VARIANCE = f"""
insert into exception
with {_TOUCHED},
proof as (select distinct on (shipment) shipment, source, business_key, effective_at from moved join touched using (shipment)
          where not undone and kind = 'delivered'
          order by shipment, effective_at, source collate "C", business_key collate "C")
select 'delivery_variance', {_SUBJECT}, source, business_key, 'shipment ' || shipment,
       format('delivered %%s %%s of %%s, dispatched %%s',
              delivered, unit, concat_ws('/', item, nullif(lot, ''), nullif(serial, '')), dispatched),
       proof.effective_at, s.position
from line join proof using (shipment) join shipment s using (shipment) where delivered <> dispatched
"""  # noqa: S608 - made of the names above
