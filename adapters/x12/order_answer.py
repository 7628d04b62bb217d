"""X12 855 purchase order acknowledgements to facts: one `procurement.purchase_order_acknowledged` each.

Key `855/{BAK03}/{BAK05}/{BAK08}/{BAK09}`: an order can be acknowledged several times, and nothing else tells one from another.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from adapters.formats import x12_names, x12_orders
from adapters.formats.x12 import NOT_YET, Broken, Fault, Segment
from adapters.formats.x12_dates import dated
from adapters.formats.x12_items import quantity_at
from adapters.x12.common import Set, content, escaped, faulty, filled, line_details
from events.errors import Refused
from events.procurement import PurchaseOrderAcknowledged
from hub.intake.mapping import Held, Line

_TAKEN = ("00", "04", "05", "06", "07")  # what the supplier said first, what he changes or puts in its place, and copies


def lines(said: Set, most: int) -> Sequence[Line | Held]:
    """The acknowledgement as one line, or why it is held."""
    try:
        document = x12_orders.read(said.one, "BAK")
        bak = document.first
        order = x12_orders.number_of(bak, 3, 22, "the number of the order")
        ordered = x12_orders.date_of(bak, 4)
        at = x12_orders.date_of(bak, 9) if bak[9] else ordered
        event = PurchaseOrderAcknowledged.of(_header(document, order, said))
    except Broken as error:
        return [faulty("", said.source, error.fault)]
    except Refused as error:
        return [faulty("", said.source, Fault.at(f"the acknowledgement: {error}", said.one.segments[0], "8"))]
    key = escaped("855", order, bak[5], bak[8], f"{at:%Y%m%d}" if bak[9] else "")
    details = {"content": content(said.one, {1: event.purpose}), **filled(request=bak[6]), **line_details(document)}
    return [Line("", [said.fact(key, event, *said.day(at), details)])]


def _header(document: x12_orders.Document, order: str, said: Set) -> dict[str, Any]:
    bak = document.first
    if bak[1] not in _TAKEN:
        what = f"BAK01 is {bak[1][:20]!r}" + (f" ({x12_orders.PURPOSES[bak[1]]})" if bak[1] in x12_orders.PURPOSES else "")
        raise Broken(f"{what}, which is not known as an answer to an order", bak, "7" if bak[1] else "1", 1, NOT_YET)
    status = x12_orders.ACKNOWLEDGED.get(bak[2])
    if status is None:
        why = f"BAK02 is {bak[2][:20]!r}, which says neither accepted, changed, rejected nor held"
        raise Broken(why, bak, "7" if bak[2] else "1", 2, NOT_YET)
    return {
        "purchase_order": order,
        "supplier": said.partner,
        "status": status,
        "code": bak[2],
        "purpose": "00" if bak[1] in ("06", "07") else bak[1],
        "release": bak[5] or None,
        "acknowledgement": bak[8] or None,
        **_dates(document.head, said),
        "lines": [_line(line, status, said) for line in document.lines],
    }


def _dates(dates: Sequence[Segment], said: Set) -> dict[str, datetime | None]:
    return {
        "ship_at": dated(dates, x12_orders.SHIPPED, said.zone),
        "deliver_at": dated(dates, x12_orders.DELIVERED, said.zone),
    }


def _line(line: x12_orders.Line, status: str, said: Set) -> dict[str, Any]:
    answers = [_answer(ack, dates, said) for ack, dates in line.answers]
    own = {answer["status"] for answer in answers}
    return {
        "line": line.number,
        "status": status if not own else own.pop() if len(own) == 1 else "changed",
        "item": x12_names.name_of(x12_orders.numbers(line.po1)) or None,
        "quantity": _quantity(line.po1, said),
        **_dates(line.own, said),
        "answers": answers,
    }


def _answer(ack: Segment, dates: Sequence[Segment], said: Set) -> dict[str, Any]:
    """An ACK with the dates that follow it."""
    status = x12_orders.ANSWERED.get(ack[1])
    if status is None:
        why = f"ACK01 is {ack[1][:20]!r}, which says neither accepted, changed, backordered, rejected nor held"
        raise Broken(why, ack, "7" if ack[1] else "1", 1, NOT_YET)
    if ack[5]:
        x12_orders.date_of(ack, 5)
        dates = [Segment(("DTM", ack[4], ack[5]), ack.number, ack.line), *dates]
    other = x12_names.name_of(x12_names.pairs(ack, 7, 26)) if ack[1] == "IS" else ""
    return {"status": status, "code": ack[1], "quantity": _quantity(ack, said), **_dates(dates, said), "item": other or None}


def _quantity(s: Segment, said: Set) -> dict[str, Any] | None:
    if not (s[2] or s[3]):
        return None
    value, unit = quantity_at(s, 2, said.unit)
    return {"value": value, "unit": unit}
