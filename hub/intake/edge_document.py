"""What an edge says itself: readings in batches, and the facts its rules and its gap detection made. One document is one entry of its spool.

{"millwright_edge": 1, "edge", "epoch", "lane", "n", "run", "producer", "received_at",
 "readings": [[tag, value, at | null, quality, type, sequence | null, historical], …],
 "facts": [{"type", "schema_version", "occurred_at", "effective_at", "time_quality", "rule", "data"}, …]}
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from events.base import Event
from events.canonical import time_text
from hub.intake.readings import Reading

MARK = b'{"millwright_edge":1,'


@dataclass(frozen=True, slots=True)
class EdgeFact:
    """A fact that an edge made: its event, times, and the name and version of the rule behind it."""

    event: Event
    occurred_at: datetime
    rule: str
    effective_at: datetime | None = None
    time_quality: str = "offset"


@dataclass(frozen=True, slots=True)
class EdgeDocument:
    """One entry: who says it, and what.

    Epoch, lane, number and `run` (a random name of the process that wrote it) together are its key: a spool that was put back from a copy may give a
    number twice before it hears of it.
    """

    edge: str
    epoch: str
    lane: str
    n: int
    producer: str
    received_at: datetime
    readings: Sequence[Reading] = ()
    facts: Sequence[EdgeFact] = field(default=())
    run: str = ""

    def json(self) -> bytes:
        """Its bytes, as they are spooled and kept."""
        return msgspec.json.encode(
            {
                "millwright_edge": 1,
                "edge": self.edge,
                "epoch": self.epoch,
                "lane": self.lane,
                "n": self.n,
                "run": self.run,
                "producer": _printable(self.producer),
                "received_at": time_text(self.received_at),
                "readings": [
                    [_printable(r.tag), _sayable(r.value), time_text(r.at) if r.at else None, r.quality, r.type, r.sequence, r.historical]
                    for r in self.readings
                ],
                "facts": [_fact(fact) for fact in self.facts],
            }
        )


def _sayable(value: Any) -> Any:
    """Fractions travel as texts, of which none is out of range; their type beside them says that they were numbers. So do bytes of no text."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str) and not _sound(value):
        return {"hex": value.encode("utf-8", "surrogatepass").hex()}
    return value


def _printable(name: str) -> str:
    return name if _sound(name) else name.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _sound(text: str) -> bool:
    """Whether the log takes a text as it is (events/canonical.py)."""
    return "\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def _fact(fact: EdgeFact) -> dict[str, Any]:
    return {
        "type": fact.event.type,
        "schema_version": fact.event.version,
        "occurred_at": time_text(fact.occurred_at),
        "effective_at": time_text(fact.effective_at or fact.occurred_at),
        "time_quality": fact.time_quality,
        "rule": fact.rule,
        "data": fact.event.data(),
    }
