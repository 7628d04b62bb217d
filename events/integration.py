"""What the hub itself records: deliveries that were held, content conflicts and re-drives. No source may send these."""

from typing import Any, ClassVar

from events.base import Event, event
from events.vocabulary import Name, Text


@event
class DeliveryQuarantined(Event):
    """A delivery, or a part or a line of one, could not be mapped and is kept whole. `raw_sha256` (hex) finds its bytes.

    `part` counts transaction sets, documents or batches in a delivery from 1; `line` is the line's path in its document, "" for all of the part.
    """

    type: ClassVar[str] = "integration.delivery_quarantined"
    keyed_only: ClassVar[bool] = True
    raw_sha256: Name
    part: int
    line: Text = ""
    format: Name
    reason: Text
    place: Text = ""

    def stream(self) -> str:
        return f"delivery/{self.raw_sha256}"


@event
class ContentConflicted(Event):
    """A fact came again under a business key that holds other content. The first stays; this one is kept whole and moved nothing."""

    type: ClassVar[str] = "integration.content_conflicted"
    keyed_only: ClassVar[bool] = True
    raw_sha256: Name
    part: int
    line: Text = ""
    format: Name
    refused_source: Name
    refused_key: Text
    refused_type: Name
    refused_data: dict[str, Any]
    stored_digest: Name
    refused_digest: Name
    reason: Text

    def stream(self) -> str:
        return f"delivery/{self.raw_sha256}"


@event
class QuarantineRedriven(Event):
    """A person sent a held delivery, part or line through the door again and it was mapped: the entry `quarantined_key` is settled."""

    type: ClassVar[str] = "integration.quarantine_redriven"
    keyed_only: ClassVar[bool] = True
    raw_sha256: Name
    quarantined_key: Text
    outcome: Name
    facts: int

    def stream(self) -> str:
        return f"delivery/{self.raw_sha256}"
