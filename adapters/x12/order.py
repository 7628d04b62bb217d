"""X12 850 purchase orders to facts: one `procurement.purchase_order_issued` an order, key `850/{BEG03}`.

An order is one fact with all its lines, so a line that cannot be mapped holds the order: a fact with the others alone would say that only they
were ordered. What no field says is kept in the words of the standard in the envelope's details, with a digest over all of the document, so that
the same number with any other content is a conflict.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from adapters.formats import x12_names, x12_orders
from adapters.formats.x12 import NOT_YET, Broken, Fault, party_of
from adapters.formats.x12_dates import dated, scheduled
from adapters.formats.x12_items import quantity_at
from adapters.formats.x12_orders import Document
from adapters.x12.common import Set, content, faulty, filled, line_details, parties
from events.errors import Refused
from events.procurement import PurchaseOrderIssued
from hub.intake.mapping import Held, Line

_AGAIN = ("00", "06", "07")  # an original, one that was ordered by word before, and a copy of either: all say that this was ordered


def lines(said: Set, most: int) -> Sequence[Line | Held]:
    """The order as one line, or why it is held."""
    try:
        document = x12_orders.read(said.one, "BEG")
        number, at = _header(document, said)
        event = PurchaseOrderIssued.of(
            {"purchase_order": number, "supplier": _supplier(said), "lines": [_line(line, document, said) for line in document.lines]}
        )
    except Broken as error:
        return [faulty("", said.source, error.fault)]
    except Refused as error:
        return [faulty("", said.source, Fault.at(f"the order: {error}", said.one.segments[0], "8"))]
    return [Line("", [said.fact(f"850/{number}", event, *said.day(at), _details(document, said))])]


def _header(document: Document, said: Set) -> tuple[str, datetime]:
    """The order's number and date. Raises `Broken` for what is not an order by itself."""
    beg = document.first
    number = x12_orders.number_of(beg, 3, 22, "the number of the order")
    if beg[1] not in _AGAIN:
        what = f"BEG01 is {beg[1][:20]!r}" + (f" ({x12_orders.PURPOSES[beg[1]]})" if beg[1] in x12_orders.PURPOSES else "")
        why = f"{what}: it says more of order {number} than that it was issued, and only an original (00), its confirmation (06) or copy (07) is taken yet"
        raise Broken(why, beg, "7" if beg[1] else "1", 1, NOT_YET)
    if beg[2] not in x12_orders.ORDERS:
        what = f" ({x12_orders.NO_ORDERS[beg[2]]})" if beg[2] in x12_orders.NO_ORDERS else ""
        why = f"BEG02 is {beg[2][:20]!r}{what}, which is not known as an order to deliver each line once"
        raise Broken(why, beg, "7" if beg[2] else "1", 2, NOT_YET)
    at = x12_orders.date_of(beg, 5)
    if not document.lines:
        raise Broken(f"the order {number} has no line (PO1)", beg, "3")
    return number, at


def _supplier(said: Set) -> str:
    """Who was ordered from: the receiver of the interchange, by the name that its ship notices have as senders."""
    if receiver := party_of(said.one.isa, 7):
        return receiver.partition(":")[2]
    raise Broken("the receiver's id (ISA08) is not there: it names the supplier", said.one.isa)


def _line(line: x12_orders.Line, document: Document, said: Set) -> dict[str, Any]:
    item = x12_names.name_of(x12_orders.numbers(line.po1))
    if not item:
        raise Broken("PO1 names no item: a number with its qualifier (such as UP, BP, VP) is missing", line.po1, "2", 7)
    value, unit = quantity_at(line.po1, 2, said.unit)
    return {"line": line.number, "item": item, "quantity": {"value": value, "unit": unit}, "requested_at": _requested(line, document, said)}


def _requested(line: x12_orders.Line, document: Document, said: Set) -> datetime | None:
    """When the line is to be delivered: what it says itself, the one time of its schedules, or the header. Of several schedules none is the line's."""
    if own := dated(line.own, x12_orders.REQUESTED, said.zone):
        return own
    if times := scheduled(line.schedules, x12_orders.REQUESTED, said.zone):
        return times.pop() if len(times) == 1 else None
    return dated(document.head, x12_orders.REQUESTED, said.zone)


def _details(document: Document, said: Set) -> dict[str, Any]:
    beg = document.first
    return {
        "content": content(said.one, {1: "00"}),
        "type": beg[2],
        **filled(release=beg[4], contract=beg[6]),
        **filled(ship_to=parties(document.parties, "ST"), seller=parties(document.parties, "SE", "SU", "VN")),
        **line_details(document),
    }
