"""What a source of readings hands to an edge: values of tags with the source's clock, and what it knows to be missing.

A value change is no domain event: readings are spooled and kept in batches, rules of the edge turn them into events (adapters/edge/rules.py).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable

Value = bool | int | float | str | None
Quality = Literal["good", "uncertain", "bad"]
GapKind = Literal["sequence", "disconnected", "overflow", "history", "silent"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one tag.

    `tag` is its name within the source, an ISA-95 path where configuration maps it (site/area/work center/work unit/tag). `at` is the source's
    clock, None where it sent none (the edge's receive time counts then). `sequence` is the producer's own number, where it stamps one.
    `historical`: it was read back or sent late, and says nothing of now. `type` names the source's data type, so that "00123" stays a text.
    """

    tag: str
    value: Value
    at: datetime | None
    quality: Quality = "good"
    type: str = ""
    sequence: int | None = None
    historical: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """Readings that a source knows never came: which producer's, why, and between which numbers or times (both ends are missing or bound it).

    `id` is chosen by the source and the same when the gap is told to be filled. `first` and `last` are the missing sequence numbers, inclusive,
    where the producer stamps them; `since` and `until` the last time before and the first after, by the source's clock. `tags` names those it is
    about, none for all of the producer.
    """

    id: str
    producer: str
    kind: GapKind
    reason: str
    first: int | None = None
    last: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    tags: Sequence[str] = ()


def session_lost(producer: str, since: datetime, until: datetime) -> Gap:
    """A broker no longer had our session: what it held for us did not come."""
    reason = (
        "the broker no longer had the session: what was published meanwhile did not come; keep sessions longer there, or publish it again"
    )
    return Gap(f"session/{producer}/{since.isoformat()}", producer, "disconnected", reason, since=since, until=until)


def too_large(producer: str, where: str, body: bytes, most: int, at: datetime) -> Gap:
    """What came from somewhere (a topic) is larger than is kept."""
    name = hashlib.sha256(body).hexdigest()
    reason = f"a payload of {len(body)} bytes on {where[:200]} is larger than {most} and was not kept; sha256 {name}"
    return Gap(f"payload/{producer}/{at.isoformat()}/{name[:16]}", producer, "overflow", reason, since=at, until=at)


@dataclass(frozen=True, slots=True)
class Filled:
    """A gap, or what is left of it, has come after all: `how` says in which way (history read, late, sent again)."""

    gap: str
    producer: str
    how: str


@dataclass(slots=True)
class Observed:
    """What one producer said, in its order. `done` is called once, after all of it is durable; `memory` is what the source wants to know again.

    `numbered`: the producer's numbers in it count up by one, and the source has not judged itself whether one is missing (adapters/edge/gaps.py does).

    `memory` (name to bytes) is made durable in the same transaction, so that after a kill -9 the source finds exactly what goes with what was spooled;
    what one call of `receive` gives is made durable together, and the last memory of a name counts.
    """

    producer: str
    received_at: datetime
    readings: Sequence[Reading] = ()
    gaps: Sequence[Gap] = ()
    filled: Sequence[Filled] = ()
    memory: Mapping[str, bytes] = field(default_factory=dict)
    done: Callable[[], None] = lambda: None
    numbered: bool = False


class ReadingSource(Protocol):
    """A road by which readings come: one file in adapters/. Driven by one thread, like `hub.intake.delivery.Adapter`."""

    @property
    def name(self) -> str: ...
    def open(self, remembered: Callable[[str], bytes | None]) -> None:
        """Connect. `remembered` gives back what was said in `memory`, by name. Raises `Unavailable`; tried again with back-off."""
        ...

    def receive(self, limit: int, wait_s: float) -> Sequence[Observed]:
        """At most some `limit` readings, waiting at most `wait_s` for the first. Raises `Unavailable` when the connection is lost."""
        ...

    def close(self) -> None:
        """Disconnect; what is not acknowledged stays with the source, where it can."""
        ...

    def check(self) -> Sequence[str]:
        """Try the connection and say what is there, a line each, for `hub edge check`. Raises `Unavailable` naming the remedy."""
        ...


@runtime_checkable
class Commandable(ReadingSource, Protocol):
    """A source whose devices take commands; both may be called from any thread."""

    def devices(self, of: str = "") -> Sequence[Mapping[str, Any]]:
        """Devices whose name begins with `of`: device, status, since, metrics (how many), and if `of` names some, tags: tag, type, value, quality, at."""
        ...

    def command(self, tag: str, value: Any, by: str) -> str:
        """Write a value (of the tag's type, or as text) to a tag, at `by`'s word; where it went. At once or not at all. Raises `Refused`, `Unavailable`."""
        ...
