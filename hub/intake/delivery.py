"""What adapters hand to intake: deliveries with their acknowledgement, and what they get back: outcomes.

`done` is called once, by intake alone, after every fact and every held line of the delivery is durable.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from events.traces import traceparent

OutcomeName = Literal["quarantined", "conflict", "accepted", "duplicate"]
TRACEPARENT = "traceparent"  # the header of a delivery that names the source's trace
WORST_FIRST: tuple[OutcomeName, ...] = ("quarantined", "conflict", "accepted", "duplicate")


@dataclass(frozen=True, slots=True)
class LineOutcome:
    """What became of one fact or one held line. `position` is its place in the log, for a conflict that of the fact that stays."""

    path: str
    outcome: OutcomeName
    source: str
    business_key: str | None = None
    position: int | None = None
    reason: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """What became of one transaction set, document or batch."""

    number: int
    format: str
    lines: Sequence[LineOutcome]

    @property
    def outcome(self) -> OutcomeName:
        """The worst of its lines; a part without lines is a duplicate of nothing: it changed nothing."""
        found = {line.outcome for line in self.lines}
        return next((name for name in WORST_FIRST if name in found), "duplicate")

    @property
    def first_trouble(self) -> LineOutcome | None:
        """The first line that was not taken as it was meant."""
        worst = self.outcome
        return next((line for line in self.lines if line.outcome == worst and line.reason), None)

    def as_json(self) -> dict[str, Any]:
        """The row of `hub intake --json` but for path and sha256 (contracts.md, Commands)."""
        trouble = self.first_trouble
        return {
            "part": self.number,
            "format": self.format,
            "outcome": self.outcome,
            "facts": sum(line.outcome == "accepted" for line in self.lines),
            "lines": dict(Counter(line.outcome for line in self.lines)),
            "reason": trouble.reason if trouble else None,
            "where": trouble.place if trouble else None,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one delivery, durably."""

    sha256: str
    parts: Sequence[PartOutcome]

    @property
    def outcome(self) -> OutcomeName:
        """The worst of its parts."""
        found = {part.outcome for part in self.parts}
        return next((name for name in WORST_FIRST if name in found), "duplicate")


def trace_header(said: str | bytes | None) -> dict[str, str]:
    """The header of a delivery for a `traceparent` of its transport; none where it is not one."""
    found = traceparent(said)
    return {TRACEPARENT: found} if found else {}


@dataclass(slots=True)
class Delivery:
    """Bytes handed over by a source, with what its transport said and the way to acknowledge them.

    `transport` is mqtt, http, folder, kafka, cli. `headers` may hold topic, content_type, file_name, partition, offset: kept, never trusted;
    and traceparent, by `trace_header`.
    """

    body: bytes
    transport: str
    received_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)
    done: Callable[[Outcome], None] = lambda outcome: None


class Adapter(Protocol):
    """A road by which deliveries come. Driven by one thread; `receive` pulls a bounded batch at our pace, so a full hub makes the source wait.

    An adapter acknowledges to its source in a delivery's `done` and never sooner; what was not acknowledged comes again.
    """

    @property
    def name(self) -> str: ...
    def open(self) -> None:
        """Connect. Raises `Unavailable`; intake tries again with back-off."""
        ...

    def receive(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        """At most `limit` deliveries, waiting at most `wait_s` for the first. Raises `Unavailable` when the connection is lost."""
        ...

    def close(self) -> None:
        """Disconnect; what is not acknowledged stays with the source."""
        ...
