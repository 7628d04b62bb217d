"""Procure to receipt: a purchase order from its issue until what came of it is in the ERP.

An instance is a purchase order; its notices and receipts find it by its number, or by the notice. What was received is posted to the ERP receipt
line by receipt line, in one lane an order; what is beyond the ordered quantity and its tolerance is received in fact and posted as blocked
(rule 12). A receipt that is reversed is posted as reversed, if it was posted.
"""

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from typing import ClassVar

import msgspec

from events.base import Event, Recorded
from events.posting import PostingIntended
from events.procurement import AsnLineReceived, AsnReceived, GoodsReceived, PurchaseOrderIssued
from hub.workflows.process import Decision, Process

TARGET, RECEIPT = "erp", "stock.shipment.in"
BLOCKED = "blocked"
_HUNDRED = Decimal(100)


class Line(msgspec.Struct):
    """One line of the order, in its unit; None where the order did not say."""

    item: str
    unit: str
    ordered: Decimal
    tolerance_percent: Decimal
    received: Decimal = Decimal(0)

    @property
    def most(self) -> Decimal:
        """What may come without being too much."""
        return self.ordered * (_HUNDRED + self.tolerance_percent) / _HUNDRED


class Received(msgspec.Struct):
    """Something that was received and is to be posted; of a reversed receipt nothing is kept."""

    posting: str
    line: str
    item: str
    lot: str
    quantity: Decimal
    unit: str
    location: str
    status: str
    on: str  # the day it is effective, YYYY-MM-DD in UTC
    source: str
    key: str


class Order(msgspec.Struct):
    """What is known of a purchase order. What came before the order itself waits, since nobody knows yet what of it is too much."""

    order: str = ""
    lines: dict[str, Line] = {}
    notices: list[str] = []  # partner/number
    waiting: list[Received] = []
    postings: list[Received] = []  # that the last fact led to


class ProcureToReceipt(Process[Order]):
    """See the module's docstring."""

    name: ClassVar[str] = "procure_to_receipt"
    version: ClassVar[int] = 1
    state = Order

    def starts(self, event: Event) -> Iterable[str]:
        """An order begins with the first fact that names it."""
        match event:
            case PurchaseOrderIssued():
                yield f"po/{event.purchase_order}"
            case AsnReceived():
                yield from (f"po/{order}" for order in event.purchase_orders)
            case AsnLineReceived() | GoodsReceived() if event.purchase_order:
                yield f"po/{event.purchase_order}"

    def refs(self, event: Event) -> Iterable[str]:
        """A receipt that names no order is found by its notice."""
        if isinstance(event, GoodsReceived) and event.asn and not event.purchase_order:
            yield f"asn/{event.asn_partner or event.supplier}/{event.asn}"

    def names(self, state: Order) -> Iterable[str]:
        """Its notices."""
        return (f"asn/{notice}" for notice in state.notices)

    def evolve(self, state: Order, fact: Recorded) -> None:
        """Take it in."""
        event = fact.event
        state.postings = []
        match event:
            case PurchaseOrderIssued():
                state.order = event.purchase_order
                received = {number: line.received for number, line in state.lines.items()}
                state.lines = {
                    one.line: Line(
                        one.item,
                        one.quantity.unit,
                        one.quantity.value,
                        one.over_tolerance_percent or Decimal(0),
                        received.get(one.line, Decimal(0)),
                    )
                    for one in event.lines
                }
            case AsnReceived() | AsnLineReceived():
                if (notice := f"{event.partner}/{event.asn}") not in state.notices:
                    state.notices.append(notice)
            case GoodsReceived():
                state.waiting += self._received(fact, event)
        if state.order:
            waiting, state.waiting = state.waiting, []
            for one in waiting:
                state.postings += self._counted(state, one)

    def decide(self, state: Order, fact: Recorded) -> Iterable[Decision]:
        """What is to be posted now."""
        for one in state.postings:
            body = {
                "purchase_order": state.order,
                "location": one.location,
                "status": one.status,
                "effective_on": one.on,
                "reference": one.key[:100],
                "things": [
                    {
                        "item": one.item,
                        "quantity": {"value": f"{one.quantity.normalize():f}", "unit": one.unit},
                        **({"lot": one.lot} if one.lot else {}),
                        **({"purchase_order_line": one.line} if one.line else {}),
                    }
                ],
            }
            intent = PostingIntended(
                posting=one.posting,
                target=TARGET,
                lane=_name(f"po/{state.order}"),
                document=RECEIPT,
                body=body,
                because_source=one.source,
                because_key=one.key,
            )
            yield Decision(one.posting, intent, fact.envelope.effective_at)

    def _received(self, fact: Recorded, event: GoodsReceived) -> Iterable[Received]:
        e = fact.envelope
        for n, thing in enumerate(event.things):
            if thing.item and thing.quantity is not None:  # a unit whose content nobody counted is received when it is opened
                what = thing.item, thing.lot or "", thing.quantity.value, thing.quantity.unit
                yield Received(
                    _name(f"{e.source}/{e.key}/{n}"),
                    event.purchase_order_line or "",
                    *what,
                    event.location,
                    event.status,
                    f"{e.effective_at:%Y-%m-%d}",
                    e.source,
                    e.key,
                )

    def _counted(self, state: Order, one: Received) -> Iterable[Received]:
        """What of it is within the order, and what is too much."""
        number = one.line or next((no for no, line in sorted(state.lines.items()) if line.item == one.item), "")
        line = state.lines.get(number)
        surplus = Decimal(0)
        if line is not None and line.unit == one.unit:
            line.received += one.quantity
            surplus = min(one.quantity, max(Decimal(0), line.received - line.most))
        for suffix, quantity, status in (("", one.quantity - surplus, one.status), ("/over", surplus, BLOCKED)):
            if quantity:
                posting = _name(one.posting + suffix)
                yield msgspec.structs.replace(one, posting=posting, line=number, quantity=quantity, status=status)


def _name(said: str) -> str:
    """A posting's name: short enough for a field of any ERP."""
    return said if len(said) <= 100 else f"{said[:60]}~{hashlib.sha256(said.encode()).hexdigest()[:32]}"
