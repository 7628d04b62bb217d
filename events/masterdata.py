"""Master data: what an item, a partner and a location are. Sent by the ERP; nothing is refused because master data is missing."""

from typing import ClassVar, Literal

from events.base import Event, event
from events.vocabulary import Item, Name, Text, Unit


@event
class ItemDefined(Event):
    """An item exists, with its base unit and how it is tracked. B2MML MaterialDefinition."""

    type: ClassVar[str] = "masterdata.item_defined"
    item: Item
    description: Text = ""
    base_unit: Unit
    tracking: Literal["none", "lot", "serial"] = "lot"

    def stream(self) -> str:
        return f"item/{self.item}"


@event
class PartnerDefined(Event):
    """A supplier, customer or carrier exists. OAGIS PartyMaster."""

    type: ClassVar[str] = "masterdata.partner_defined"
    partner: Name
    name: Text = ""
    role: Literal["supplier", "customer", "carrier"]

    def stream(self) -> str:
        return f"partner/{self.partner}"


@event
class LocationDefined(Event):
    """A storage location exists; `owner` says whose stock stands there. B2MML OperationalLocation."""

    type: ClassVar[str] = "masterdata.location_defined"
    location: Name
    description: Text = ""
    owner: Literal["own", "supplier", "customer", "carrier"] = "own"

    def stream(self) -> str:
        return f"location/{self.location}"
