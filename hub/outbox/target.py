"""What the sender needs of a target: one file in adapters/ speaks to one kind of it.

The posting's key travels with the document. A target that `refuses_twice` lets no second document with one key come into being, also when the
first request lands later than the second; only there may something be sent again while its outcome is unknown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from events.errors import HubError


@dataclass(frozen=True, slots=True)
class Posting:
    """What is to be made: `key` is its idempotency key, `document` its kind in the target's words."""

    key: str
    document: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """A document of the target: `id` by which people find it there, `key` ours or "" for one that somebody else made, `says` what it says in our words
    (the body of a posting that would make it), `at` its effective time."""

    id: str
    key: str
    document: str
    says: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class Accepted:
    """The target made the document, or has had it already."""

    document_id: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The target will not have it, in its words; the same again would be rejected again."""

    reason: str


class OutcomeUnknown(HubError):
    """The request left and no answer came: the target may have it."""


class Target(Protocol):
    """One system that is told. Called by several threads. `Unavailable` means that nothing was sent."""

    @property
    def name(self) -> str: ...
    @property
    def refuses_twice(self) -> bool: ...
    def ready(self) -> None:
        """Whether it can be reached and lets us in. Raises `Unavailable` naming the remedy."""
        ...

    def send(self, posting: Posting) -> Accepted | Rejected:
        """Let it make the document. Raises `Unavailable`, `OutcomeUnknown`."""
        ...

    def find(self, posting: Posting) -> Document | None:
        """The document that has the posting's key. Raises `Unavailable`."""
        ...

    def documents(self, since: datetime, until: datetime) -> Iterator[Document]:
        """All documents of the kinds that we post, whoever made them, effective in a period. Raises `Unavailable`."""
        ...
