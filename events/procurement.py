"""Procure to receipt: purchase orders, advance ship notices and goods receipts."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from events.base import Event, event
from events.vocabulary import MANY_MAX, Count, Item, Name, Quantity, Text, Thing, Things, Time

Status = Name  # stock status: unrestricted, quality, blocked (domain.md, rule 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseOrderLine:
    """One ordered line; `over_tolerance_percent` is how much more than ordered may come before it is an over-receipt.

    `requested_at` is when all of it is to be delivered, as far as one time was said.
    """

    line: Name
    item: Item
    quantity: Quantity
    over_tolerance_percent: Count | None = None
    requested_at: Time | None = None


@event
class PurchaseOrderIssued(Event):
    """We ordered from a supplier. X12 850, OAGIS PurchaseOrder. Version 1 had no `requested_at`."""

    type: ClassVar[str] = "procurement.purchase_order_issued"
    version: ClassVar[int] = 2
    purchase_order: Name
    supplier: Name
    lines: Annotated[tuple[PurchaseOrderLine, ...], Field(min_length=1, max_length=MANY_MAX)]

    def stream(self) -> str:
        return f"purchase_order/{self.purchase_order}"


# What a supplier says of an order or a line: taken as ordered, taken otherwise (quantity, date, item, price), later than the rest, not taken, not decided.
Answer = Literal["accepted", "changed", "backordered", "rejected", "held"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineAnswer:
    """One answer to a line; a line can get several: 60 accepted, 40 backordered. `code` is the source's own, `item` another one that will come."""

    status: Answer
    code: Name
    quantity: Quantity | None = None
    ship_at: Time | None = None
    deliver_at: Time | None = None
    item: Item | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgedLine:
    """A line of an order as its supplier answers it.

    `status` is that of all its `answers`, changed where they differ, and that of the whole acknowledgement where there are none; then the line's
    own quantity and dates are what the supplier means.
    """

    line: Name
    status: Answer
    item: Item | None = None
    quantity: Quantity | None = None
    ship_at: Time | None = None
    deliver_at: Time | None = None
    answers: tuple[LineAnswer, ...] = ()


@event
class PurchaseOrderAcknowledged(Event):
    """A supplier answered our order. X12 855, EDIFACT ORDRSP. Without lines it is about the whole order; prices are not told.

    `acknowledgement` is the supplier's own number; `code` says besides whether all lines are named or only those that differ.
    """

    type: ClassVar[str] = "procurement.purchase_order_acknowledged"
    purchase_order: Name
    supplier: Name
    status: Answer
    code: Name
    purpose: Name = "00"
    release: Name | None = None
    acknowledgement: Name | None = None
    ship_at: Time | None = None
    deliver_at: Time | None = None
    lines: Annotated[tuple[AcknowledgedLine, ...], Field(max_length=MANY_MAX)] = ()

    def stream(self) -> str:
        return f"purchase_order/{self.purchase_order}"


@event
class AsnReceived(Event):
    """A supplier announced a shipment: the header of an advance ship notice. X12 856, EDIFACT DESADV.

    `content` is the sha256 (hex) over all of the notice but its transport numbers, so that the same number with other content is a conflict
    even where no line that both have differs.
    """

    type: ClassVar[str] = "procurement.asn_received"
    asn: Name
    partner: Name
    purpose: Name = "00"
    content: Name
    ship_at: Time | None = None
    expected_at: Time | None = None
    carrier: Name | None = None
    ship_from: Text = ""
    ship_to: Text = ""
    purchase_orders: tuple[Name, ...] = ()
    references: dict[str, Text] = field(default_factory=dict)

    def stream(self) -> str:
        return f"asn/{self.partner}/{self.asn}"


@event
class AsnLineReceived(Event):
    """One line of an advance ship notice: what is coming, and in which handling units (outermost first). HL level I of an X12 856."""

    type: ClassVar[str] = "procurement.asn_line_received"
    asn: Name
    partner: Name
    line: Name
    thing: Thing
    purchase_order: Name | None = None
    purchase_order_line: Name | None = None
    handling_units: tuple[Item, ...] = ()
    item_numbers: dict[str, Text] = field(default_factory=dict)
    references: dict[str, Text] = field(default_factory=dict)

    def stream(self) -> str:
        return f"asn/{self.partner}/{self.asn}"


@event
class AsnHandlingUnitReceived(Event):
    """A handling unit that a ship notice announces, and the unit or notice that holds it. HL levels T and P of an X12 856."""

    type: ClassVar[str] = "procurement.asn_handling_unit_received"
    asn: Name
    partner: Name
    handling_unit: Item
    parent: Item | None = None

    def stream(self) -> str:
        return f"asn/{self.partner}/{self.asn}"


@event
class GoodsReceived(Event):
    """Goods arrived and were put at a location. X12 861, EDIFACT RECADV, EPCIS bizStep receiving."""

    type: ClassVar[str] = "procurement.goods_received"
    receipt: Name
    line: Name = "1"
    things: Things
    location: Name
    status: Status = "unrestricted"
    supplier: Name | None = None
    purchase_order: Name | None = None
    purchase_order_line: Name | None = None
    asn: Name | None = None
    asn_partner: Name | None = None
    asn_line: Name | None = None

    def stream(self) -> str:
        return f"receipt/{self.receipt}"
