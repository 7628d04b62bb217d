"""Make to ship: handling units, shipments, milestones, proof of delivery, returns, and what partners saw on the way."""

from typing import Annotated, ClassVar

from pydantic import Field

from events.base import Event, event
from events.vocabulary import MANY_MAX, Item, Name, Text, Thing, Things

Contents = Annotated[tuple[Thing, ...], Field(max_length=MANY_MAX)]


@event
class HandlingUnitPacked(Event):
    """Contents were put into a container (an SSCC, a returnable asset or a parent serial). EPCIS AggregationEvent / AssociationEvent ADD."""

    type: ClassVar[str] = "logistics.handling_unit_packed"
    container: Thing
    contents: Contents = ()  # empty is allowed and is not stored, so the field must not be required
    location: Name | None = None

    def stream(self) -> str:
        kind, name = self.container.node() or ("container", str(self.container.item))
        return f"{kind}/{name}"


@event
class HandlingUnitUnpacked(Event):
    """Contents were taken out of a container; no contents means all of them. EPCIS AggregationEvent / AssociationEvent DELETE."""

    type: ClassVar[str] = "logistics.handling_unit_unpacked"
    container: Thing
    contents: Contents = ()
    location: Name | None = None

    def stream(self) -> str:
        kind, name = self.container.node() or ("container", str(self.container.item))
        return f"{kind}/{name}"


@event
class ShipmentDispatched(Event):
    """Goods left for a customer. X12 945, EPCIS bizStep shipping.

    Stock moves by the things that carry a quantity or a serial; a handling unit without them says only what travels in it.
    """

    type: ClassVar[str] = "logistics.shipment_dispatched"
    shipment: Name
    line: Name = "1"
    things: Things
    from_location: Name
    status: Name = "unrestricted"
    customer: Name | None = None
    carrier: Name | None = None
    sales_order: Name | None = None

    def stream(self) -> str:
        return f"shipment/{self.shipment}"


@event
class MilestoneReported(Event):
    """A carrier said where a shipment is. X12 214, EDIFACT IFTSTA."""

    type: ClassVar[str] = "logistics.milestone_reported"
    shipment: Name
    code: Name
    place: Text = ""
    carrier: Name | None = None

    def stream(self) -> str:
        return f"shipment/{self.shipment}"


@event
class DeliveryProved(Event):
    """The customer has the goods: what was in transit is the customer's. EPCIS bizStep accepting, X12 214 D1."""

    type: ClassVar[str] = "logistics.delivery_proved"
    shipment: Name
    customer: Name
    things: Things
    signed_by: Text = ""

    def stream(self) -> str:
        return f"shipment/{self.shipment}"


@event
class ReturnReceived(Event):
    """Shipped goods came back into stock. EPCIS disposition returned."""

    type: ClassVar[str] = "logistics.return_received"
    return_number: Name
    customer: Name
    shipment: Name | None = None
    things: Things
    location: Name
    status: Name = "quality"
    reason: Text = ""

    def stream(self) -> str:
        return f"return/{self.return_number}"


@event
class ObjectsObserved(Event):
    """Somebody saw objects in a business step that moves no stock of ours: inspecting, storing, transporting, a linked document.

    EPCIS ObjectEvent, AggregationEvent and TransactionEvent with such a bizStep; `transactions` maps a document type (po, desadv, …) to its number.
    """

    type: ClassVar[str] = "logistics.objects_observed"
    observation: Name
    action: Name
    things: Contents = ()
    step: Text = ""
    disposition: Text = ""
    location: Name | None = None
    container: Thing | None = None
    transactions: tuple[tuple[Item, Item], ...] = ()

    def stream(self) -> str:
        return f"observation/{self.observation}"
