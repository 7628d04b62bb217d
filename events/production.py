"""Order to production: orders, consumption, output, scrap, rework and transformations without an order."""

from typing import ClassVar

from events.base import Event, event
from events.vocabulary import Item, Name, Quantity, Text, Thing, Things, Time


@event
class OrderReleased(Event):
    """A production order may start. B2MML WorkSchedule, OAGIS ProductionOrder."""

    type: ClassVar[str] = "production.order_released"
    order: Name
    item: Item
    quantity: Quantity
    due_at: Time | None = None
    work_center: Name | None = None

    def stream(self) -> str:
        return f"order/{self.order}"


@event
class MaterialIssued(Event):
    """Material left stock and went into an order. B2MML material actual (consumed), EPCIS transformation input."""

    type: ClassVar[str] = "production.material_issued"
    order: Name
    things: Things
    location: Name
    status: Name = "unrestricted"
    operation: Name | None = None
    equipment: Name | None = None

    def stream(self) -> str:
        return f"order/{self.order}"


@event
class OutputProduced(Event):
    """An order made something and put it into stock. EPCIS ObjectEvent ADD, B2MML material actual (produced)."""

    type: ClassVar[str] = "production.output_produced"
    version: ClassVar[int] = 2
    output: Name
    order: Name | None = None
    things: Things
    location: Name
    status: Name = "unrestricted"
    operation: Name | None = None
    equipment: Name | None = None

    def stream(self) -> str:
        return f"order/{self.order}" if self.order else f"output/{self.output}"


@event
class ScrapReported(Event):
    """Material was destroyed or declared unusable: out of an order (`order`) or out of stock (`location`)."""

    type: ClassVar[str] = "production.scrap_reported"
    scrap: Name
    order: Name | None = None
    location: Name | None = None
    status: Name = "unrestricted"
    things: Things
    reason: Text = ""

    def stream(self) -> str:
        return f"order/{self.order}" if self.order else f"scrap/{self.scrap}"


@event
class LotReworked(Event):
    """Lots were reworked in place into new lot versions. Genealogy keeps both (domain.md, rule 10)."""

    type: ClassVar[str] = "production.lot_reworked"
    rework: Name
    inputs: Things
    outputs: Things
    location: Name
    status: Name = "unrestricted"
    reason: Text = ""

    def stream(self) -> str:
        return f"rework/{self.rework}"


@event
class LotTransformed(Event):
    """Inputs became outputs, any to any, in one or several reports of one transformation. EPCIS TransformationEvent.

    `transformation` is what joins the reports; either side may be empty in one of them.
    """

    type: ClassVar[str] = "production.lot_transformed"
    transformation: Name
    order: Name | None = None
    inputs: tuple[Thing, ...] = ()
    outputs: tuple[Thing, ...] = ()
    location: Name | None = None
    status: Name = "unrestricted"

    def stream(self) -> str:
        return f"transformation/{self.transformation}"
