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
from projections.base import EXCEPTION_TABLE, Rows, Table, TableView
from projections.movements import amount
from projections.naming import identity, subject_sql
from projections.undone import REVERSAL, mark_undone, reversals

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
    {
        **_FACT,
        "n": "int",
        **dict.fromkeys(_THING, "text not null"),
        "quantity": "numeric not null",
        **_STATE,
        "identity": "uuid not null",  # of shipment and thing
    },
    key=("fact", "n"),
    indexes=("shipment, kind, undone, effective_at", "position"),
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
        "heard": "text[] not null",  # the facts that the columns above are told by
        "position": "bigint not null",
    },
    key=("shipment",),
)
LINE = Table(
    "line",
    {
        "shipment": "text not null",
        **dict.fromkeys(_THING, "text not null"),
        **dict.fromkeys(("dispatched", "delivered", "returned"), "numeric not null"),
        "position": "bigint not null",
        "identity": "uuid",
    },
    key=("shipment", *_THING),
    unique="identity",
    indexes=("shipment", "item, lot"),
)


class Shipments(TableView):
    """Where each shipment is: see the module's docstring."""

    name = "shipments"
    tables = (REPORT, MOVED, SHIPMENT, LINE, REVERSAL, EXCEPTION_TABLE)

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """Reports and what they moved."""
        yield reversals(facts)
        yield REPORT, (row for fact in facts for row in _reports(fact))
        yield MOVED, (row for fact in facts for row in _moved(fact))

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """The shipments that were touched: those of which something was undone are told anew from all their facts, the others by what is new."""
        window: dict[str, Any] = {"first": first, "last": last}
        for table in ("report", "moved"):
            mark_undone(cursor, table, first, last)
        window["again"] = [name for (name,) in cursor.execute(_AGAIN, window)]
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
                yield *_head(fact, event.shipment), n, *what, *_state(fact), identity(event.shipment, *what[:4])


def _head(fact: Recorded, name: str) -> tuple[Any, ...]:
    e = fact.envelope
    return receipt_key(e.source, e.key), e.source, e.key, _KINDS[type(fact.event)], name


def _state(fact: Recorded) -> tuple[Any, ...]:
    return fact.envelope.effective_at, False, fact.position


_AGAIN = "select distinct shipment from report where undone and position between %(first)s and %(last)s"  # each fact has a report
_THING_SQL = ", ".join(_THING)
_SUBJECT = subject_sql("shipment", *_THING)

_CLEAR = f"""
with gone as (delete from line where shipment = any(%(again)s) returning shipment, {_THING_SQL}),
named as (select * from gone union select shipment, {_THING_SQL} from moved where position between %(first)s and %(last)s)
delete from exception e using (select {_SUBJECT} as name from named) n where e.kind = 'delivery_variance' and e.subject = n.name
"""  # noqa: S608 - made of the names above


def _sum(kind: str) -> str:
    return f"trim_scale(coalesce(sum(quantity) filter (where not undone and kind = '{kind}'), 0))"


def _news(table: str) -> str:
    """The rows of the batch, and all of shipments that are told anew."""
    return f"""select * from {table} where position between %(first)s and %(last)s
  union all select * from {table} where shipment = any(%(again)s) and position < %(first)s"""  # noqa: S608 - a table of ours


_LINES = f"""
insert into line as l
select shipment, {_THING_SQL}, {_sum("dispatched")}, {_sum("delivered")}, {_sum("returned")}, max(position), identity
from ({_news("moved")}) news group by identity, shipment, {_THING_SQL}
on conflict (identity) do update set dispatched = trim_scale(l.dispatched + excluded.dispatched),
  delivered = trim_scale(l.delivered + excluded.delivered), returned = trim_scale(l.returned + excluded.returned), position = excluded.position
"""  # noqa: S608 - made of the names above


def _heard(column: str, kinds: str, *, last: bool = False) -> str:
    """The first (last) thing that the reports of some kinds say in a column, and the fact that says it."""
    way = "desc" if last else "asc"
    order = f'effective_at {way}, source collate "C" {way}, business_key collate "C" {way}'
    said = f"filter (where not undone and kind in ({kinds}) and {column} is not null)"
    return f"(array_agg({column} order by {order}) {said})[1], (array_agg(fact::text order by {order}) {said})[1]"


_HEARD = {
    "customer": _heard("customer", "'dispatched'"),
    "other_customer": _heard("customer", "'delivered', 'returned'"),
    "carrier": _heard("carrier", "'dispatched'"),
    "other_carrier": _heard("carrier", "'milestone'"),
    "sales_order": _heard("sales_order", "'dispatched'"),
    "from_location": _heard("from_location", "'dispatched'"),
    "dispatched_at": _heard("effective_at", "'dispatched'"),
    "milestone_code": _heard("code", "'milestone'", last=True),
    "milestone_place": _heard("place", "'milestone'", last=True),
    "milestone_at": _heard("effective_at", "'milestone'", last=True),
    "delivered_at": _heard("effective_at", "'delivered'", last=True),
    "returned_at": _heard("effective_at", "'returned'"),
}
_COLUMNS = ", ".join(name for name in SHIPMENT.columns if name != "shipment")

# Of the reports before the batch only those that were heard can be heard again. Returned: all that left or arrived came back. What was
# dispatched or delivered in handling units alone has no quantity to compare.
_SHIPMENTS = f"""
insert into shipment
with known as (
  select s.shipment, h::uuid as fact
  from (select distinct shipment from report where position between %(first)s and %(last)s) touched
  join shipment s using (shipment) cross join unnest(s.heard) h where shipment <> all(%(again)s)),
told (shipment, position, {", ".join(f"{name}, {name}_by" for name in _HEARD)}) as (
  select shipment, max(position), {", ".join(_HEARD.values())}
  from ({_news("report")} union all select r.* from known join report r using (fact) where r.position < %(first)s) r
  group by shipment)
select shipment,
       case when returned_at is not null and not exists (
              select from line l where l.shipment = told.shipment and greatest(dispatched, delivered) > returned) then 'returned'
            when delivered_at is not null then 'delivered' when dispatched_at is not null then 'in_transit' else 'planned' end,
       coalesce(customer, other_customer), coalesce(carrier, other_carrier), sales_order, from_location, dispatched_at,
       milestone_code, milestone_place, milestone_at, delivered_at,
       array(select distinct h collate "C" from unnest(array[{", ".join(f"{name}_by" for name in _HEARD)}]) h where h is not null order by 1),
       position
from told
on conflict (shipment) do update set ({_COLUMNS}) = row({", ".join(f"excluded.{name}" for name in _COLUMNS.split(", "))})
"""  # noqa: S608 - made of the names above

# Its cause is the first proof of delivery that counts anything. One proof opens all lines; so does the next one where it was undone.
_VARIANCE = f"""
insert into exception
with proof as (
  select p.*, (select max(position) from moved u where u.shipment = p.shipment and u.kind = 'delivered' and u.undone) as undone
  from (select distinct shipment from report where position between %(first)s and %(last)s) touched cross join lateral (
    select shipment, source, business_key, effective_at, position from moved m
    where m.shipment = touched.shipment and kind = 'delivered' and not undone
    order by effective_at, source collate "C", business_key collate "C" limit 1) p),
open as (
  select line.* from line join moved using (identity) where moved.position between %(first)s and %(last)s
  union
  select all_lines.* from proof cross join lateral (select * from line where line.shipment = proof.shipment offset 0) all_lines
  where proof.position >= %(first)s or proof.shipment = any(%(again)s))
select 'delivery_variance', {_SUBJECT}, source, business_key, 'shipment ' || shipment,
       format('delivered %%s %%s of %%s, dispatched %%s',
              delivered, unit, concat_ws('/', item, nullif(lot, ''), nullif(serial, '')), dispatched),
       proof.effective_at, greatest(open.position, proof.position, proof.undone)
from open join proof using (shipment) where delivered <> dispatched
on conflict (kind, subject) do update set source = excluded.source, business_key = excluded.business_key, reason = excluded.reason,
  first_seen = excluded.first_seen, position = excluded.position
"""  # noqa: S608 - made of the names above
