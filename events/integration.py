"""What the hub and its edges record: deliveries that were held, conflicts, re-drives, gaps and clocks, and what partners' systems received of ours.

No source may send these as they are.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from events.base import Event, event
from events.vocabulary import MANY_MAX, Exact, Name, Text, Time


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementError:
    """An element that a partner's system did not like: its place in its segment, `element` in the data dictionary, its value. X12 AK4."""

    position: int
    component: int | None = None
    element: Name | None = None
    code: Name
    value: Text | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentError:
    """A segment that it did not like; `position` counts from ST, which is 1. X12 AK3."""

    segment: Name
    position: int
    loop: Name | None = None
    codes: tuple[Name, ...] = ()
    elements: Annotated[tuple[ElementError, ...], Field(max_length=MANY_MAX)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAcknowledged:
    """What became of one of our transaction sets: `set` its code (850), `control` its number in the group, `errors` codes for the whole. X12 AK2, AK5."""

    set: Name
    control: Name
    status: Literal["accepted", "accepted_with_errors", "rejected"]
    code: Name
    errors: tuple[Name, ...] = ()
    segments: Annotated[tuple[SegmentError, ...], Field(max_length=MANY_MAX)] = ()


@event
class FunctionalGroupAcknowledged(Event):
    """A partner's system says which transaction sets of a functional group of ours it could read. X12 997. It says nothing of what people decide.

    `functional_id` and `control` are those of our group; `included`, `received` and `accepted` count its sets as the partner does. A group of
    which no set is named was taken, or not, as a whole. Another answer to the same group is another fact: the stream of the group has both.
    """

    type: ClassVar[str] = "integration.functional_group_acknowledged"
    keyed_only: ClassVar[bool] = True
    partner: Name
    functional_id: Name
    control: Name
    status: Literal["accepted", "accepted_with_errors", "partially_accepted", "rejected"]
    code: Name
    errors: tuple[Name, ...] = ()
    included: int
    received: int
    accepted: int
    sets: Annotated[tuple[SetAcknowledged, ...], Field(max_length=MANY_MAX)] = ()

    def stream(self) -> str:
        return f"functional_group/{self.partner}/{self.functional_id}/{self.control}"


@event
class GapDetected(Event):
    """Something is known to be missing, with its bounds: `first` to `last` of the producer's own numbers, or what lies between `since` and `until`.

    `gap` names it, and the `gap_filled` that closes it. `kind`: sequence (numbers jump), disconnected (nothing could be heard), overflow (a queue before
    us was too short), history (what the server keeps did not reach back), silent (nothing came for longer than the rule allows).
    `tags` empty: all of the producer.
    """

    type: ClassVar[str] = "integration.gap_detected"
    gap: Name
    edge: Name
    producer: Text
    kind: Name
    reason: Text
    first: int | None = None
    last: int | None = None
    since: Time | None = None
    until: Time | None = None
    tags: tuple[Text, ...] = ()

    def stream(self) -> str:
        return f"gap/{self.gap}"


@event
class GapFilled(Event):
    """What was missing has come; `how`: history, late, again."""

    type: ClassVar[str] = "integration.gap_filled"
    gap: Name
    edge: Name
    producer: Text
    how: Text

    def stream(self) -> str:
        return f"gap/{self.gap}"


@event
class ClockSkewDetected(Event):
    """A clock is `seconds` ahead of the one it is compared with (negative: behind). It orders nothing; times that it gave are to be read with it."""

    type: ClassVar[str] = "integration.clock_skew_detected"
    edge: Name
    clock: Text
    seconds: Exact
    compared_with: Text

    def stream(self) -> str:
        return f"edge/{self.edge}"


@event
class EdgeEpochBegan(Event):
    """An edge counts from 1 again, because it cannot be sure of its numbers any more: its spool was lost or put back from a copy."""

    type: ClassVar[str] = "integration.edge_epoch_began"
    edge: Name
    epoch: Name
    previous: Name | None = None
    reason: Text

    def stream(self) -> str:
        return f"edge/{self.edge}"
