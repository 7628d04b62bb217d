"""Our facts as X12 documents: the segments of an 850 and of an 855, for `adapters.formats.x12_write` to put into an interchange.

What is written here and read by `order` and `order_answer` is the same event again, but for what the document has no place for (a tolerance is
ours). What cannot be said in X12 is `Refused`, naming the field.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, tzinfo

from adapters.formats import units, x12_orders
from adapters.formats.x12_dates import utc
from events.canonical import decimal_text
from events.errors import Refused
from events.procurement import AcknowledgedLine, LineAnswer, PurchaseOrderAcknowledged, PurchaseOrderIssued
from events.vocabulary import Quantity, gtin14
from hub.intake.mapping import Partner

_DELIVERED, _SHIPPED, _REQUESTED = x12_orders.DELIVERED[0], x12_orders.SHIPPED[0], x12_orders.REQUESTED[0]
Segments = list[list[str]]


def purchase_order(event: PurchaseOrderIssued, ordered: date, partner: Partner, *, kind: str = "SA") -> Segments:
    """The 850 of an order of that date (in the partner's zone) and kind (data element 92). Raises `Refused`."""
    if kind not in x12_orders.ORDERS:
        raise Refused(f"the kind of order {kind!r} (BEG02) is not one of {', '.join(sorted(x12_orders.ORDERS))}")
    out: Segments = [["BEG", "00", kind, event.purchase_order, "", f"{ordered:%Y%m%d}"]]
    for line in event.lines:
        where = f"line {line.line} of the order {event.purchase_order}"
        out.append(["PO1", line.line, *_quantity(line.quantity, partner, where), "", "", *_item(line.item)])
        out += _dates([(_REQUESTED, line.requested_at)], partner.zone, where)
    return [*out, ["CTT", str(len(event.lines))]]


def acknowledgement(event: PurchaseOrderAcknowledged, ordered: date, answered: date, partner: Partner) -> Segments:
    """The 855 of an answer to an order, with the dates of both (in the partner's zone). Raises `Refused`."""
    where = f"the answer to the order {event.purchase_order}"
    _same(event.status, x12_orders.ACKNOWLEDGED.get(event.code), event.code, where)
    if event.purpose not in ("00", "04", "05"):
        raise Refused(f"{where} has the purpose {event.purpose}: an 855 that says it again is written as the original (00)")
    header = ["BAK", event.purpose, event.code, event.purchase_order, f"{ordered:%Y%m%d}", event.release or "", "", ""]
    out: Segments = [[*header, event.acknowledgement or "", f"{answered:%Y%m%d}"]]
    out += _dates([(_SHIPPED, event.ship_at), (_DELIVERED, event.deliver_at)], partner.zone, where)
    for line in event.lines:
        out += _line(line, event, partner, f"line {line.line} of {where}")
    return [*out, ["CTT", str(len(event.lines))]] if event.lines else out


def _line(line: AcknowledgedLine, event: PurchaseOrderAcknowledged, partner: Partner, where: str) -> Iterator[list[str]]:
    said = {answer.status for answer in line.answers}
    read = event.status if not said else "changed" if len(said) > 1 else line.answers[0].status
    if line.status != read:
        raise Refused(f"{where} is {line.status}, but what is written of it would be read as {read}: give it answers that say so")
    quantity = _quantity(line.quantity, partner, where) if line.quantity else ["", ""]
    yield ["PO1", line.line, *quantity, "", "", *(_item(line.item) if line.item else [])]
    yield from _dates([(_SHIPPED, line.ship_at), (_DELIVERED, line.deliver_at)], partner.zone, where)
    for answer in line.answers:
        yield from _answer(answer, partner, where)


def _answer(answer: LineAnswer, partner: Partner, where: str) -> Iterator[list[str]]:
    _same(answer.status, x12_orders.ANSWERED.get(answer.code), answer.code, where)
    if (answer.item is not None) != (answer.code == "IS"):
        raise Refused(f"{where}: another item comes with the code IS (substitution) and only with it, the answer has {answer.code}")
    quantity = _quantity(answer.quantity, partner, where) if answer.quantity else ["", ""]
    yield ["ACK", answer.code, *quantity, "", "", "", *(_item(answer.item) if answer.item else [])]
    yield from _dates([(_SHIPPED, answer.ship_at), (_DELIVERED, answer.deliver_at)], partner.zone, where)


def _same(status: str, meant: str | None, code: str, where: str) -> None:
    if status != meant:
        raise Refused(f"{where} is {status}, but its code {code} " + (f"means {meant}" if meant else "is not known"))


def _item(item: str) -> list[str]:
    """The item by its GTIN-14, else by the buyer's number."""
    return ["UK", item] if len(item) == 14 and gtin14(item) == item else ["BP", item]


def _quantity(quantity: Quantity, partner: Partner, where: str) -> list[str]:
    unit = units.to_x12(quantity.unit, partner.units)
    if unit is None:
        raise Refused(f"{where}: the unit {quantity.unit} has no X12 code: name one for this partner in the configuration")
    return [decimal_text(quantity.value), unit]


def _dates(said: Sequence[tuple[str, datetime | None]], zone: tzinfo | None, where: str) -> Iterator[list[str]]:
    """Each as its date where it is a midnight of the partner's, else with its time in UTC."""
    for qualifier, at in said:
        if at is None:
            continue
        local = at.astimezone(zone or UTC).replace(tzinfo=None)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        if utc(midnight, zone or UTC) == at:
            yield ["DTM", qualifier, f"{local:%Y%m%d}"]
            continue
        if at.microsecond % 10_000:
            raise Refused(f"{where}: {at.isoformat()} is finer than the hundredths of a second that X12 has")
        fine = f"{at:%S}{at.microsecond // 10_000:02}" if at.microsecond else f"{at:%S}" if at.second else ""
        yield ["DTM", qualifier, f"{at:%Y%m%d}", f"{at:%H%M}{fine}", "UT"]
