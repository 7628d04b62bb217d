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
from projections.base import EXCEPTION_TABLE, ZERO, Table, TableView, insert
from projections.movements import amount
from projections.naming import subject_sql
from projections.undone import REVERSAL, keep_reversals, mark_undone

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
    indexes=("purchase_order", "position"),
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
    indexes=("purchase_order", "partner, asn, item", "position"),
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

    def fold(self, cursor: Cursor, facts: Sequence[Recorded]) -> None:
        """Rows of the batch's orders, notices and receipts, then lines and exceptions of the orders and notices it touched."""
        window = {"first": facts[0].position, "last": facts[-1].position}
        keep_reversals(cursor, facts)
        insert(cursor, "ordered", list(ORDERED.columns), (row for fact in facts for row in _ordered(fact)))
        insert(cursor, "announced", list(ANNOUNCED.columns), (row for fact in facts for row in _announced(fact)))
        insert(cursor, "received", list(RECEIVED.columns), (row for fact in facts for row in _received(fact)))
        for table in ("ordered", "announced", "received"):
            mark_undone(cursor, table, window["first"], window["last"])
        for statement in (_CLEAR, _LINES, _OVER, _UNORDERED, _CLEAR_VARIANCE, _VARIANCE):
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


# Orders that the batch touched: named by a row that it wrote or marked.
_TOUCHED = """touched as (
  select purchase_order from ordered where position between %(first)s and %(last)s
  union select purchase_order from announced where position between %(first)s and %(last)s and purchase_order is not null
  union select purchase_order from received where position between %(first)s and %(last)s and purchase_order is not null)"""

_OF_LINE = subject_sql("purchase_order", "line")
_OF_ORDER = subject_sql("purchase_order")

_CLEAR = f"""
with {_TOUCHED},
gone as (delete from line using touched where line.purchase_order = touched.purchase_order returning line.purchase_order, line),
subject as (select 'over_receipt' as kind, {_OF_LINE} as subject from gone union select 'receipt_without_order', {_OF_ORDER} from touched)
delete from exception e using subject s where (e.kind, e.subject) = (s.kind, s.subject)
"""  # noqa: S608 - made of the names above

# `current`: the lines of the issue of each order that counts. `row`: the orders' receipts and notices with the line that each belongs to.
_RESOLVED = f"""{_TOUCHED},
issue as (select distinct on (purchase_order) purchase_order, fact from ordered join touched using (purchase_order)
          where not undone
          order by purchase_order, effective_at desc, source collate "C" desc, business_key collate "C" desc),
current as (select o.* from ordered o join issue using (purchase_order, fact)),
first_line as (select purchase_order, item, min(line collate "C") as line from current group by purchase_order, item),
row as (select r.*, coalesce(r.line, f.line, '') as of_line
        from (select *, true as here from received union all select *, false from announced) r
        join touched using (purchase_order) left join first_line f using (purchase_order, item) where quantity is not null)"""  # noqa: S608

# An order's own facts, superseded ones too, are inputs of all its lines.
_LINES = f"""
with {_RESOLVED},
known as (select purchase_order, max(position) as position from ordered join touched using (purchase_order) group by purchase_order),
part as (
  select purchase_order, line, unit, item, null as named, supplier, quantity as ordered, tolerance, 0 as announced, 0 as received, position
  from current
  union all
  select purchase_order, of_line, unit, null, item, null, null, null,
         case when here or undone then 0 else quantity end, case when here and not undone then quantity else 0 end, position from row)
insert into line
select purchase_order, line, unit, coalesce(min(item collate "C"), min(named collate "C")), min(supplier collate "C"),
       trim_scale(sum(ordered)), trim_scale(min(tolerance)), trim_scale(sum(announced)), trim_scale(sum(received)),
       greatest(max(part.position), max(known.position))
from part left join known using (purchase_order) group by purchase_order, line, unit
"""  # noqa: S608 - made of the names above

# Its cause is the receipt that went over, in effective order.
_OVER = f"""
insert into exception
with {_RESOLVED},
running as (select *, sum(quantity) over (partition by purchase_order, of_line, unit
                                          order by effective_at, source collate "C", business_key collate "C", n) as total
            from row where here and not undone),
over as (select l.*, r.source, r.business_key, r.effective_at, r.n
         from line l join running r on (r.purchase_order, r.of_line, r.unit) = (l.purchase_order, l.line, l.unit)
         where r.total > l.ordered * (1 + l.tolerance / 100) and l.received > l.ordered * (1 + l.tolerance / 100))
select distinct on (purchase_order, line) 'over_receipt', {_OF_LINE}, source, business_key,
       'purchase order ' || purchase_order || ', line ' || line,
       format('received %%s %%s of %%s, ordered %%s with %%s %%%% over allowed', received, unit, item, ordered, tolerance),
       effective_at, position
from over order by purchase_order, line, unit collate "C", effective_at, source collate "C", business_key collate "C", n
"""  # noqa: S608 - made of the names above

_UNORDERED = f"""
insert into exception
with {_TOUCHED},
input as (select purchase_order, max(position) as position
          from (select purchase_order, position from received union all select purchase_order, position from ordered) p
          join touched using (purchase_order) group by purchase_order)
select distinct on (purchase_order) 'receipt_without_order', {_OF_ORDER}, source, business_key, 'purchase order ' || purchase_order,
       format('goods were received for purchase order %%s, which is not known', purchase_order), effective_at, input.position
from received join input using (purchase_order)
where not undone and not exists (select from ordered o where o.purchase_order = input.purchase_order and not o.undone)
order by purchase_order, effective_at, source collate "C", business_key collate "C"
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
