"""Inventory: moves inside the house, splits, merges, objects that leave the books, business reversals, and facts declared wrong."""

from typing import ClassVar

from events.base import Event, event
from events.vocabulary import Name, Text, Things


@event
class StockTransferred(Event):
    """Stock moved between two own locations or two statuses. OAGIS MoveInventory, ERP 311."""

    type: ClassVar[str] = "inventory.stock_transferred"
    transfer: Name
    things: Things
    from_location: Name
    to_location: Name
    from_status: Name = "unrestricted"
    to_status: Name = "unrestricted"

    def stream(self) -> str:
        return f"transfer/{self.transfer}"


@event
class LotSplit(Event):
    """One lot became several. B2MML MaterialLot / SubLot."""

    type: ClassVar[str] = "inventory.lot_split"
    split: Name
    inputs: Things
    outputs: Things
    location: Name
    status: Name = "unrestricted"

    def stream(self) -> str:
        return f"split/{self.split}"


@event
class LotMerged(Event):
    """Several lots became one. B2MML MaterialLot / SubLot."""

    type: ClassVar[str] = "inventory.lot_merged"
    merge: Name
    inputs: Things
    outputs: Things
    location: Name
    status: Name = "unrestricted"

    def stream(self) -> str:
        return f"merge/{self.merge}"


@event
class ObjectsDecommissioned(Event):
    """Objects left the books without being scrapped or shipped. EPCIS ObjectEvent DELETE."""

    type: ClassVar[str] = "inventory.objects_decommissioned"
    document: Name
    things: Things
    location: Name | None = None
    status: Name = "unrestricted"
    reason: Text = ""

    def stream(self) -> str:
        return f"decommission/{self.document}"


@event
class MovementReversed(Event):
    """A fact of the same source was undone by a new posting at its own time: receipts, issues, outputs, transfers (domain.md, rule 13).

    `original` is the business key of the fact that is undone. Stock moves back when this is effective; nothing is deleted.
    """

    type: ClassVar[str] = "inventory.movement_reversed"
    reversal: Name
    original: Text
    reason: Text = ""

    def stream(self) -> str:
        return f"reversal/{self.reversal}"


@event
class FactRetracted(Event):
    """A source declared that a fact it sent never happened: its effects are taken back as of its own time. EPCIS errorDeclaration.

    `original` is the business key, at the same source, of the fact that is retracted; nothing is deleted.
    """

    type: ClassVar[str] = "inventory.fact_retracted"
    original: Text
    reason: Text = ""
    corrective: tuple[Text, ...] = ()

    def stream(self) -> str:
        return f"retraction/{self.original}"
