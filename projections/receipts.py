"""Receipts: what was ordered, announced and received of each purchase order line, and where the three do not agree.

A reversed or retracted fact counts nowhere. Of several issues of one order the last by effective time counts. A receipt that names no line
belongs to the first line of its order with that item; quantities are compared in one unit only.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from events.base import Recorded
from events.procurement import AsnLineReceived, GoodsReceived, PurchaseOrderIssued
from events.vocabulary import Thing
from hub.log.codec import receipt_key
from hub.log.follow import Cursor
from projections.base import EXCEPTION_TABLE, ZERO, Rows, Table, TableView
from projections.movements import amount
from projections.naming import subject_sql
from projections.undone import REVERSAL, mark_undone, reversals

_FACT = {"fact": "uuid", "n": "int", "source": "text not null", "business_key": "text not null"}
_STATE = {"effective_at": "timestamptz not null", "undone": "boolean not null", "position": "bigint not null"}

ORDERED = Table(
    "ordered",
    {
        **_FACT,
        "purchase_order": "text not null",
        "line": "text not null",
        "supplier": "text not null",
        "item": "text not null",
        "quantity": "numeric not null",
        "unit": "text not null",
        "tolerance": "numeric not null",
        **_STATE,
    },
    key=("fact", "n"),
    indexes=("purchase_order, n", "position"),
)
ANNOUNCED = Table(
    "announced",
    {
        **_FACT,
        "partner": "text not null",
        "asn": "text not null",
        "purchase_order": "text",
        "line": "text",
        "item": "text not null",
        "lot": "text not null",
        "quantity": "numeric",
        "unit": "text not null",
        **_STATE,
    },
    key=("fact", "n"),
    indexes=("purchase_order", "partner, asn, item", "position"),
)
RECEIVED = Table(
    "received",
    {**ANNOUNCED.columns, "partner": "text", "asn": "text"},
    key=("fact", "n"),
    indexes=("purchase_order, effective_at", "partner, asn, item", "position"),
)
LINE = Table(
    "line",
    {
        "purchase_order": "text",
        "line": "text",
        "unit": "text",
        "item": "text not null",
        "supplier": "text",
        "ordered": "numeric",  # null: the order, or this line of it, is not known
        "tolerance": "numeric",
        "announced": "numeric not null",
        "received": "numeric not null",
        "position": "bigint not null",
    },
    key=("purchase_order", "line", "unit"),
)


class Receipts(TableView):
    """Ordered, announced and received: see the module's docstring."""

    name = "receipts"
    tables = (ORDERED, ANNOUNCED, RECEIVED, LINE, REVERSAL, EXCEPTION_TABLE)

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """Orders, notices and receipts."""
        yield reversals(facts)
        yield ORDERED, (row for fact in facts for row in _ordered(fact))
        yield ANNOUNCED, (row for fact in facts for row in _announced(fact))
        yield RECEIVED, (row for fact in facts for row in _received(fact))

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """Lines and exceptions of the orders and notices that were touched.

        A notice or receipt is added to its line; an order is told anew from all its rows only where an issue or something undone changed
        what counts.
        """
        window: dict[str, Any] = {"first": first, "last": last}
        for table in ("ordered", "announced", "received"):
            mark_undone(cursor, table, first, last)
        window["again"] = [order for (order,) in cursor.execute(_AGAIN, window)]
        for statement in (_CLEAR, _LINES, _OVER, _OVER_ANNOUNCED, _UNORDERED, _CLEAR_VARIANCE, _VARIANCE):
            cursor.execute(statement, window)


def lines(cursor: Cursor, purchase_order: str) -> list[dict[str, Any]]:
    """The lines of a purchase order as they stand in the live view."""
    columns = ", ".join(LINE.columns)
    query = f'select {columns} from view_receipts.line where purchase_order = %s order by line collate "C", unit collate "C"'  # noqa: S608
    cursor.execute(query, [purchase_order])
    return [dict(zip(LINE.columns, row, strict=True)) for row in cursor.fetchall()]


def _ordered(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    event = fact.event
    if isinstance(event, PurchaseOrderIssued):
        for n, line in enumerate(event.lines):
            what = (event.purchase_order, line.line, event.supplier, line.item, line.quantity.value, line.quantity.unit)
            yield *_head(fact, n), *what, line.over_tolerance_percent or ZERO, *_state(fact)


def _announced(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    event = fact.event
    if isinstance(event, AsnLineReceived):
        order = (event.purchase_order, event.purchase_order_line)
        yield *_head(fact, 0), event.partner, event.asn, *order, *_counted(event.thing), *_state(fact)


def _received(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    event = fact.event
    if isinstance(event, GoodsReceived):
        order = (event.purchase_order, event.purchase_order_line)
        for n, thing in enumerate(event.things):
            yield *_head(fact, n), event.asn_partner or event.supplier, event.asn, *order, *_counted(thing), *_state(fact)


def _head(fact: Recorded, n: int) -> tuple[Any, ...]:
    e = fact.envelope
    return receipt_key(e.source, e.key), n, e.source, e.key


def _state(fact: Recorded) -> tuple[Any, ...]:
    return fact.envelope.effective_at, False, fact.position


def _counted(thing: Thing) -> tuple[Any, ...]:
    """item, lot, quantity, unit; no quantity for a handling unit whose content is not counted."""
    return thing.item or "", thing.lot or "", *(amount(thing) or (None, ""))


_AGAIN = """
select purchase_order from ordered where position between %(first)s and %(last)s
union select purchase_order from announced where position between %(first)s and %(last)s and undone and purchase_order is not null
union select purchase_order from received where position between %(first)s and %(last)s and undone and purchase_order is not null
"""

_OF_LINE = subject_sql("purchase_order", "line")
_OF_ORDER = subject_sql("purchase_order")

_CLEAR = f"""
with gone as (delete from line where purchase_order = any(%(again)s) returning purchase_order, line),
subject as (select 'over_receipt' as kind, {_OF_LINE} as subject from gone
            union select 'receipt_without_order', {_OF_ORDER} from unnest(%(again)s::text[]) again(purchase_order))
delete from exception e using subject s where (e.kind, e.subject) = (s.kind, s.subject)
"""  # noqa: S608 - made of the names above

# Orders that the batch touched, and from when on it added receipts to them; `current`: the lines of the issue of each that counts.
_TOUCHED = """touched as (
  select purchase_order, case when purchase_order = any(%(again)s) then '-infinity' else min(effective_at) filter (where here) end as at
  from (select purchase_order, effective_at, true as here from received where position between %(first)s and %(last)s
        union all select purchase_order, effective_at, false from announced where position between %(first)s and %(last)s
        union all select unnest(%(again)s::text[]), null, false) named
  where purchase_order is not null group by purchase_order),
issue as (
  select issue.* from touched cross join lateral (
    select purchase_order, fact from ordered o where o.purchase_order = touched.purchase_order and n = 0 and not undone
    order by effective_at desc, source collate "C" desc, business_key collate "C" desc limit 1) issue),
current as (select o.* from issue join ordered o using (purchase_order, fact)),
first_line as (select purchase_order, item, min(line collate "C") as line from current group by purchase_order, item)"""

# A line gets what the batch says of it, or all that was ever said; an order's own facts, superseded ones too, are inputs of all its lines.
_LINES = f"""
with {_TOUCHED},
known as (select purchase_order, max(position) as position from ordered where purchase_order = any(%(again)s) group by purchase_order),
said as (select *, true as here from received where position between %(first)s and %(last)s
         union all select *, false from announced where position between %(first)s and %(last)s
         union all select *, true from received where purchase_order = any(%(again)s) and position < %(first)s
         union all select *, false from announced where purchase_order = any(%(again)s) and position < %(first)s),
part as (
  select purchase_order, line, unit, item, null as named, supplier, quantity as ordered, tolerance, 0 as announced, 0 as received, position
  from current where purchase_order = any(%(again)s)
  union all
  select purchase_order, coalesce(said.line, f.line, ''), unit, null, item, null, null, null,
         case when here or undone then 0 else quantity end, case when here and not undone then quantity else 0 end, position
  from said left join first_line f using (purchase_order, item) where purchase_order is not null and quantity is not null)
insert into line as l
select purchase_order, line, unit, coalesce(min(item collate "C"), min(named collate "C")), min(supplier collate "C"),
       trim_scale(sum(ordered)), trim_scale(min(tolerance)), trim_scale(sum(announced)), trim_scale(sum(received)),
       greatest(max(part.position), max(known.position))
from part left join known using (purchase_order) group by purchase_order, line, unit
on conflict (purchase_order, line, unit) do update set
  item = case when l.ordered is null then least(l.item collate "C", excluded.item) else l.item end,
  announced = trim_scale(l.announced + excluded.announced), received = trim_scale(l.received + excluded.received),
  position = excluded.position
"""  # noqa: S608 - made of the names above

_IS_OVER = "received > ordered * (1 + tolerance / 100)"

# Its cause is the receipt that went over, in effective order: one of those from the first on that the batch added, or the known one where
# what came `before` them was over already.
_OVER = f"""
insert into exception
with {_TOUCHED},
counted as (
  select r.* from touched cross join lateral (
    select * from received r where r.purchase_order = touched.purchase_order and r.effective_at >= touched.at
      and not undone and quantity is not null offset 0) r
  where exists (select from line l where l.purchase_order = touched.purchase_order and {_IS_OVER})),
later as (select c.*, coalesce(c.line, f.line, '') as of_line from counted c left join first_line f using (purchase_order, item)),
running as (
  select *, sum(quantity) over w as together,
         sum(quantity) over (w order by effective_at, source collate "C", business_key collate "C", n) as total
  from later window w as (partition by purchase_order, of_line, unit)),
over as (
  select distinct on (purchase_order, line) *, ordered * (1 + tolerance / 100) as most
  from line where {_IS_OVER} and (purchase_order, line) in (select purchase_order, of_line from later)
  order by purchase_order, line, unit collate "C"),
cause as (
  select distinct on (o.purchase_order, o.line) o.*, o.received - together > most as before,
         r.source, r.business_key, r.effective_at
  from over o join running r on (r.purchase_order, r.of_line, r.unit) = (o.purchase_order, o.line, o.unit)
  where o.received - together + total > most
  order by o.purchase_order, o.line, r.effective_at, r.source collate "C", r.business_key collate "C", r.n)
select 'over_receipt', s.subject, case when before then e.source else c.source end,
       case when before then e.business_key else c.business_key end, 'purchase order ' || purchase_order || ', line ' || line,
       format('received %%s %%s of %%s, ordered %%s with %%s %%%% over allowed', received, unit, item, ordered, tolerance),
       case when before then e.first_seen else c.effective_at end, c.position
from cause c cross join lateral (select {_OF_LINE} as subject) s left join exception e on (e.kind, e.subject) = ('over_receipt', s.subject)
on conflict (kind, subject) do update set source = excluded.source, business_key = excluded.business_key, reason = excluded.reason,
  first_seen = excluded.first_seen, position = excluded.position
"""  # noqa: S608 - made of the names above

# What is announced of a line that is over already is an input of it too, though no receipt.
_OVER_ANNOUNCED = f"""
update exception e set position = o.position
from (select distinct on (purchase_order, line) * from line
      where {_IS_OVER} and purchase_order in (select purchase_order from announced where position between %(first)s and %(last)s)
      order by purchase_order, line, unit collate "C") o
where (e.kind, e.subject) = ('over_receipt', {_OF_LINE})
"""  # noqa: S608 - made of the names above

_UNORDERED = f"""
insert into exception
with input as (
  select purchase_order, max(position) as position
  from (select purchase_order, position from received where position between %(first)s and %(last)s
        union all select purchase_order, position from received where purchase_order = any(%(again)s)
        union all select purchase_order, position from ordered where purchase_order = any(%(again)s)) p
  where purchase_order is not null group by purchase_order)
select 'receipt_without_order', {_OF_ORDER}, source, business_key, 'purchase order ' || purchase_order,
       format('goods were received for purchase order %%s, which is not known', purchase_order), effective_at, position
from input cross join lateral (
  select source, business_key, effective_at from received r where r.purchase_order = input.purchase_order and not undone
  order by effective_at, source collate "C", business_key collate "C" limit 1) first
where not exists (select from ordered o where o.purchase_order = input.purchase_order and not o.undone)
on conflict (kind, subject) do update set source = excluded.source, business_key = excluded.business_key,
  first_seen = excluded.first_seen, position = excluded.position
"""  # noqa: S608 - made of the names above

_OF_LOT = subject_sql("partner", "asn", "item", "lot")
_FIRST = 'effective_at, source collate "C", business_key collate "C"'

# Items of notices that the batch touched, and all that was announced and received of them.
_NOTICED = """touched as (
  select partner, asn, item from announced where position between %(first)s and %(last)s
  union select partner, asn, item from received where position between %(first)s and %(last)s and partner is not null and asn is not null),
row as (select r.* from (select *, true as here from received union all select *, false from announced) r
        join touched using (partner, asn, item) where item <> '')"""

_CLEAR_VARIANCE = f"""
with {_NOTICED},
subject as (select distinct partner, asn, item, lot from row union select partner, asn, item, '' from touched)
delete from exception e using subject where e.kind = 'quantity_variance' and e.subject = {_OF_LOT}
"""  # noqa: S608 - made of the names above

# Lot by lot, or for the item as a whole where one of the two sides names no lots.
_VARIANCE = f"""
insert into exception
with {_NOTICED},
active as (select * from row where not undone and quantity is not null),
input as (select partner, asn, item, max(position) as position from row group by partner, asn, item),
level as (select partner, asn, item, bool_and(lot = '') filter (where here) or bool_and(lot = '') filter (where not here) as whole
          from active group by partner, asn, item),
total as (
  select partner, asn, item, case when whole then '' else lot end as lot, unit,
         sum(quantity) filter (where here) as received, sum(quantity) filter (where not here) as announced,
         (array_agg(source order by {_FIRST}) filter (where here))[1] as source,
         (array_agg(business_key order by {_FIRST}) filter (where here))[1] as business_key,
         min(effective_at) filter (where here) as since
  from active join level using (partner, asn, item) group by 1, 2, 3, 4, 5)
select distinct on (partner, asn, item, lot) 'quantity_variance', {_OF_LOT}, source, business_key, 'notice ' || asn || ' of ' || partner,
       format('received %%s %%s of %%s, announced %%s',
              trim_scale(received), unit, concat_ws('/', item, nullif(lot, '')), trim_scale(announced)),
       since, input.position
from total join input using (partner, asn, item) where received <> announced
order by partner, asn, item, lot, unit collate "C"
"""  # noqa: S608 - made of the names above
