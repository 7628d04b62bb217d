"""Postings: what other systems are to be told, and what became of it. A posting is intended once; everything else about it is a later fact.

Only the hub says these. `posting` names it for ever and travels with the document as its idempotency key. An `attempt` (1, 2, …) is one request;
it is claimed by `PostingSent` before anything leaves, and whoever finds the claim taken does not send.
"""

from typing import Any, ClassVar

from events.base import Event, event
from events.vocabulary import Name, Text


class _Posting(Event):
    __slots__ = ()
    posting: Name

    def stream(self) -> str:
        return f"posting/{self.posting}"


@event
class PostingIntended(_Posting):
    """A target is to have a document. Postings of one lane go out in the order of their intents, each when the one before is settled.

    `document` is its kind in the target's words (docs/erp.md), `body` what it says, `because_source` and `because_key` the fact that asks for it.
    """

    type: ClassVar[str] = "integration.posting_intended"
    posting: Name
    target: Name
    lane: Name
    document: Name
    body: dict[str, Any]
    because_source: Text = ""
    because_key: Text = ""


@event
class PostingSent(_Posting):
    """An attempt is about to leave; from here on it may have arrived."""

    type: ClassVar[str] = "integration.posting_sent"
    keyed_only: ClassVar[bool] = True
    posting: Name
    attempt: int


@event
class PostingUnsent(_Posting):
    """An attempt never left: the target could not be reached."""

    type: ClassVar[str] = "integration.posting_unsent"
    keyed_only: ClassVar[bool] = True
    posting: Name
    attempt: int
    reason: Text


@event
class PostingAccepted(_Posting):
    """The target has made a document of it: its answer, or what it said when it was asked by our key."""

    type: ClassVar[str] = "integration.posting_accepted"
    keyed_only: ClassVar[bool] = True
    posting: Name
    attempt: int
    document_id: Name


@event
class PostingRejected(_Posting):
    """The target will not have it, in its words. A person decides."""

    type: ClassVar[str] = "integration.posting_rejected"
    keyed_only: ClassVar[bool] = True
    posting: Name
    attempt: int
    reason: Text


@event
class PostingOutcomeUnknown(_Posting):
    """No answer came: the target may have it. It is asked before anything is sent again."""

    type: ClassVar[str] = "integration.posting_outcome_unknown"
    keyed_only: ClassVar[bool] = True
    posting: Name
    attempt: int
    reason: Text


@event
class PostingVerified(_Posting):
    """The target's own document was read back and says what was intended: the posting is complete (rule 17)."""

    type: ClassVar[str] = "integration.posting_verified"
    keyed_only: ClassVar[bool] = True
    posting: Name
    document_id: Name


@event
class PostingRetried(_Posting):
    """A person wants it sent once more after `attempt` was rejected, or stayed unknown where the target cannot tell."""

    type: ClassVar[str] = "integration.posting_retried"
    keyed_only: ClassVar[bool] = True
    posting: Name
    attempt: int
    reason: Text


@event
class PostingHeld(_Posting):
    """A person stops it, and with it its lane: the `number`th time."""

    type: ClassVar[str] = "integration.posting_held"
    keyed_only: ClassVar[bool] = True
    posting: Name
    number: int
    reason: Text


@event
class PostingResumed(_Posting):
    """A person lets it go on after the `number`th hold."""

    type: ClassVar[str] = "integration.posting_resumed"
    keyed_only: ClassVar[bool] = True
    posting: Name
    number: int
    reason: Text


@event
class PostingSkipped(_Posting):
    """A person settles it without the target; its lane goes on."""

    type: ClassVar[str] = "integration.posting_skipped"
    keyed_only: ClassVar[bool] = True
    posting: Name
    reason: Text
