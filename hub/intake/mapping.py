"""What a mapping is: a pure function from the bytes of a delivery to facts and held lines. Adapters provide them, intake runs them.

A delivery holds parts (transaction sets, documents, batches), a part holds lines. A fault of syntax or envelope holds its part, a fault of a
line holds the line. Keys of facts come from the document, never from the transport, so that the same document over another road is the same.
"""

from collections.abc import Mapping as MappingABC
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from zoneinfo import ZoneInfo

from events.base import Fact


@dataclass(frozen=True, slots=True)
class Partner:
    """What configuration says of a source: the zone of its local times, and units of its own mapped to UN/ECE Rec 20 codes."""

    zone: ZoneInfo | None = None
    units: MappingABC[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """What a mapping may know besides the bytes: their sha256 (hex), transport headers, configured partners by source, the source's trace."""

    raw: str
    headers: MappingABC[str, str] = field(default_factory=dict)
    partners: MappingABC[str, Partner] = field(default_factory=dict)
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A line, or with `path` "" a whole part, that cannot be mapped. `source` as far as it is known, else the transport's default.

    `reason` says what is wrong in one sentence, `place` where in the input ("segment 17 (SN1), line 18", "eventList[3].quantityList[0]").
    """

    path: str
    reason: str
    place: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One transaction set, document or batch: its format and, for each line in order, its facts or why it is held.

    `format` is what contracts.md fixes: x12-856, epcis-2.0-json, canonical-json, cloudevents-json, unsupported:NAME, unknown.
    A line's facts have distinct keys: K, or K#1, K#2, … where one line makes several.
    """

    number: int
    format: str
    source: str
    lines: Sequence["Line | Held"]


@dataclass(frozen=True, slots=True)
class Line:
    """One mapped line: its path in the document ("" for the header or the only one) and the facts it makes (may be none)."""

    path: str
    facts: Sequence[Fact]


class Mapping(Protocol):
    """One format. `adapters/` modules offer theirs as a module attribute `MAPPING`; the wiring finds it by that name."""

    @property
    def name(self) -> str:
        """Its name and version, `x12-856/1`: goes into every fact it makes."""
        ...

    @property
    def priority(self) -> int:
        """Mappings are asked in rising order; the last (100) takes what no other wants."""
        ...

    def recognises(self, body: bytes) -> bool:
        """Whether this mapping is the one for a body, told from its content alone; quick, never raises."""
        ...

    def read(self, body: bytes, context: Context) -> Sequence[Part]:
        """All parts of a body it recognises. Pure: no clock, no I/O, no random. Bad input becomes `Held`, never an exception."""
        ...
