"""An edge's own documents to facts: one for the batch of readings, and those that its rules made.

Taken only over the edges' own road: the listener names the edge whose certificate was shown in the header `edge`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from events import canonical
from events.base import Envelope, Fact, envelope_of, validated
from events.equipment import ReadingsRecorded
from events.errors import Refused
from hub.intake.edge_document import MARK
from hub.intake.mapping import Context, Held, Line, Part

FORMAT = "millwright-edge"
_OWN = ("equipment.", "integration.gap_", "integration.clock_skew_", "integration.edge_")


class EdgeDocuments:
    """The mapping; see the module's docstring."""

    name = "millwright-edge/1"
    priority = 5

    def recognises(self, body: bytes) -> bool:
        """A document begins with its mark."""
        return body.startswith(MARK)

    def read(self, body: bytes, context: Context) -> Sequence[Part]:
        """One part; a line for the batch of readings and one for each fact."""
        try:
            said = canonical.loads(body)
            edge, epoch, lane, n, producer = said["edge"], said["epoch"], said["lane"], said["n"], said["producer"]
            if not context.headers.get("edge") or context.headers["edge"] != edge:
                raise Refused("an edge's document came by another road than the edge's own: only its listener takes them (docs/edge.md)")
            source, key = f"edge:{edge}", f"{epoch}/{lane}/{n}/{said['run']}"
            lines: list[Line | Held] = []
            if said["readings"]:
                lines.append(Line("readings", [self._readings(said, source, key, context)]))
            for number, fact in enumerate(said["facts"], 1):
                lines.append(self._line(fact, number, source, f"{key}#{number}", producer, context))
        except (Refused, KeyError, TypeError, ValueError, IndexError) as error:
            why = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}: not the shape of docs/edge.md"
            return [Part(1, FORMAT, "unknown", [Held("", why, "")])]
        return [Part(1, FORMAT, source, lines)]

    def _readings(self, said: dict[str, Any], source: str, key: str, context: Context) -> Fact:
        times = [row[2] for row in said["readings"] if row[2]] or [said["received_at"]]
        data = {name: said[name] for name in ("edge", "epoch", "lane", "producer")}
        first, last = min(times, key=datetime.fromisoformat), max(times, key=datetime.fromisoformat)
        event = ReadingsRecorded.of({**data, "number": said["n"], "readings": len(said["readings"]), "first_at": first, "last_at": last})
        return Fact(self._envelope(source, key, last, last, "offset", self.name, context), event)

    def _line(self, fact: dict[str, Any], number: int, source: str, key: str, producer: str, context: Context) -> Line | Held:
        try:
            if not fact["type"].startswith(_OWN):
                raise Refused(f"{fact['type'][:80]} is not for an edge to say")
            event = validated(fact["type"], fact["schema_version"], fact["data"])
            times = fact["occurred_at"], fact["effective_at"], fact["time_quality"]
            return Line(f"facts/{number}", [Fact(self._envelope(source, key, *times, fact["rule"], context), event)])
        except (Refused, KeyError, TypeError, AttributeError) as error:
            return Held(f"facts/{number}", str(error), f"fact {number} of {producer}", source)

    def _envelope(self, source: str, key: str, occurred: str, effective: str, quality: str, rule: str, context: Context) -> Envelope:
        return envelope_of(
            {
                "source": source,
                "key": key,
                "occurred_at": occurred,
                "effective_at": effective,
                "time_quality": quality,
                "mapping": rule,
                "raw": context.raw,
                "traceparent": context.traceparent,
            }
        )


MAPPING = EdgeDocuments()
