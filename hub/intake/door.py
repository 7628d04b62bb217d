"""Intake: takes deliveries through keep raw, recognise, map, append, acknowledge, and holds what cannot be mapped.

Nothing is acknowledged before every fact and every held line is durable. Each step can be repeated: raw bytes are kept by content, facts and
held lines by key, so a crash anywhere ends in the same log after the source sends again.
"""

import hashlib
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from events.base import Envelope, Fact
from events.errors import HubError, Refused, Unavailable
from events.integration import ContentConflicted, DeliveryQuarantined
from hub import limits, telemetry
from hub.backoff import Backoff
from hub.intake.delivery import TRACEPARENT, Adapter, Delivery, LineOutcome, Outcome, PartOutcome
from hub.intake.mapping import Context, Held, Line, Part, Partner
from hub.intake.mapping import Mapping as FormatMapping
from hub.log.store import Accepted, Conflict, Duplicate, Raw, Result
from hub.points import reach

_headers = msgspec.json.Encoder(order="sorted").encode


class Appender(Protocol):
    """The part of the log that intake needs."""

    def append(self, facts: Sequence[Fact]) -> list[Result]: ...
    def keep(self, deliveries: Sequence[Raw]) -> None: ...
    def flush(self) -> None: ...
    def count_again(self, keys: Sequence[tuple[str, str]]) -> None: ...


@dataclass(slots=True)
class _Mapped:
    """A delivery between mapping and outcome."""

    delivery: Delivery
    sha256: str
    parts: Sequence[Part]


class Intake:
    """Runs deliveries through the door. Holds no state of its own; one instance may serve one thread."""

    def __init__(self, log: Appender, mappings: Sequence[FormatMapping], partners: Mapping[str, Partner] | None = None) -> None:
        self._log = log
        self._mappings = sorted(mappings, key=lambda m: (m.priority, m.name))
        self._partners = partners or {}

    def take(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Make deliveries durable, facts or held lines, and say what became of each. Does not acknowledge. Raises `Unavailable`."""
        sums = [hashlib.sha256(d.body).digest() for d in deliveries]
        self._log.keep([(s, d.body, d.transport, _headers(dict(d.headers)), d.received_at) for s, d in zip(sums, deliveries, strict=True)])
        reach("delivery kept")
        mapped = [
            _Mapped(d, (sha := s.hex()), self.map(d.body, sha, d.headers, d.transport)) for s, d in zip(sums, deliveries, strict=True)
        ]
        reach("mapped")
        outcomes = self._append(mapped)
        if all(outcome.outcome == "duplicate" for outcome in outcomes):
            self._log.flush()  # nothing was appended, which would have flushed what was kept
        return outcomes

    def take_part(self, body: bytes, sha256: str, part: int, received_at: datetime, source: str, headers: Mapping[str, str]) -> Outcome:
        """One part of a delivery that is kept already, mapped anew; for re-drive. `source` is whose it is where its mapping cannot tell."""
        parts = [p for p in self.map(body, sha256, headers, source) if p.number == part]
        return self._append([_Mapped(Delivery(body, "redrive", received_at, headers), sha256, parts)], arrived=False)[0]

    def map(self, body: bytes, sha256: str, headers: Mapping[str, str], transport: str) -> Sequence[Part]:
        """The parts of a body. A mapping that raises is a fault of ours: the delivery is held with its trace, and the hub goes on."""
        context = Context(raw=sha256, headers=headers, partners=self._partners, traceparent=headers.get(TRACEPARENT, ""))
        try:
            for mapping in self._mappings:
                if mapping.recognises(body):
                    return mapping.read(body, context)
        except Exception as error:  # noqa: BLE001 - the intake loop owns failure: one poison delivery must not stop the others
            reason = str(error) if isinstance(error, HubError) else f"the mapping failed: {error!r}"
            place = "" if isinstance(error, HubError) else traceback.format_exc(limit=-3)[-1500:]
            return [Part(1, "unknown", transport, [Held("", reason, place)])]
        return [Part(1, "unknown", transport, [Held("", "no format that the hub knows", "")])]

    def _append(self, mapped: Sequence[_Mapped], *, arrived: bool = True) -> list[Outcome]:
        """Append all together; where the log cannot hold something, the others alone, and what it cannot hold in quarantine."""
        try:
            return self._append_together(mapped, arrived=arrived)
        except Refused as error:
            if len(mapped) > 1:
                half = len(mapped) // 2
                return self._append(mapped[:half], arrived=arrived) + self._append(mapped[half:], arrived=arrived)
            (one,) = mapped
            held = [Part(p.number, p.format, p.source, [Held("", str(error), "", p.source)]) for p in one.parts]
            return self._append_together([_Mapped(one.delivery, one.sha256, held)], arrived=arrived)

    def _append_together(self, mapped: Sequence[_Mapped], *, arrived: bool) -> list[Outcome]:
        facts: list[Fact] = []
        for m in mapped:
            for part in m.parts:
                for line in part.lines:
                    facts.extend(line.facts if isinstance(line, Line) else [_quarantined(m, part, line)])
        results = iter(zip(facts, self._append_all(facts), strict=True))
        outcomes: list[Outcome] = []
        refused: list[Fact] = []
        again: list[tuple[str, str]] = []
        for m in mapped:
            parts = []
            for part in m.parts:
                lines: list[LineOutcome] = []
                for line in part.lines:
                    for _ in [None] if isinstance(line, Held) else line.facts:
                        fact, result = next(results)
                        if isinstance(line, Held):
                            lines.append(_held_outcome(line, fact))
                            if isinstance(result, Duplicate):
                                again.append((fact.envelope.source, fact.envelope.key))
                            continue
                        if isinstance(result, Conflict):
                            refused.append(_conflicted(m, part, line, fact, result))
                        lines.append(_line_outcome(line, fact, result))
                parts.append(PartOutcome(part.number, part.format, lines))
            outcomes.append(Outcome(m.sha256, parts))
        if refused:
            reach("conflict found")
        for fact, result in zip(refused, self._append_all(refused), strict=True):
            if isinstance(result, Duplicate):
                again.append((fact.envelope.source, fact.envelope.key))
        if again and arrived:
            self._log.count_again(again)
        return outcomes

    def _append_all(self, facts: Sequence[Fact]) -> list[Result]:
        results: list[Result] = []
        for start in range(0, len(facts), limits.FACTS_PER_APPEND_MAX):
            results += self._log.append(facts[start : start + limits.FACTS_PER_APPEND_MAX])
        return results


def held_key(sha256: str, part: int, line: str, refused_key: str = "") -> str:
    """The business key of a held entry; docs/keys.md publishes it."""
    return f"held:{sha256}:{part}:{line}" + (f":{refused_key}" if refused_key else "")


def _envelope(m: _Mapped, source: str, key: str) -> Envelope:
    at, trace = m.delivery.received_at, m.delivery.headers.get(TRACEPARENT, "")
    return Envelope(
        source=source, key=key, occurred_at=at, effective_at=at, actor="hub", mapping="intake/1", raw=m.sha256, traceparent=trace
    )


def _quarantined(m: _Mapped, part: Part, line: Held) -> Fact:
    event = DeliveryQuarantined(
        raw_sha256=m.sha256,
        part=part.number,
        line=line.path,
        format=part.format,
        reason=printable(line.reason),
        place=printable(line.place),
    )
    return Fact(_envelope(m, line.source or part.source, held_key(m.sha256, part.number, line.path)), event)


def _conflicted(m: _Mapped, part: Part, line: Line, fact: Fact, result: Conflict) -> Fact:
    event = ContentConflicted(
        raw_sha256=m.sha256,
        part=part.number,
        line=line.path,
        format=part.format,
        refused_source=fact.envelope.source,
        refused_key=fact.envelope.key,
        refused_type=fact.event.type,
        refused_data=fact.event.data(),
        stored_digest=result.stored.hex(),
        refused_digest=result.refused.hex(),
        reason=f"the key is taken by other content at position {result.position}",
    )
    key = held_key(m.sha256, part.number, line.path, fact.envelope.key)
    return Fact(_envelope(m, fact.envelope.source, key), event)


def _held_outcome(line: Held, fact: Fact) -> LineOutcome:
    return LineOutcome(line.path, "quarantined", fact.envelope.source, None, None, line.reason, line.place)


def _line_outcome(line: Line, fact: Fact, result: Result) -> LineOutcome:
    source, key = fact.envelope.source, fact.envelope.key
    if isinstance(result, Accepted):
        return LineOutcome(line.path, "accepted", source, key, result.position)
    if isinstance(result, Duplicate):
        return LineOutcome(line.path, "duplicate", source, key, result.position)
    reason = f"{key} of {source} is known with other content at position {result.position}: the first stays, this one is kept in quarantine"
    return LineOutcome(line.path, "conflict", source, key, result.position, reason, f"line {line.path}" if line.path else "")


def printable(text: str, most: int = 2000) -> str:
    """A text for the log made of any bytes a source sent: bounded, without NUL, control characters and half surrogates."""
    clean = "".join(c if c.isprintable() or c == " " else "\ufffd" for c in text.replace("\n", " ")[:most])
    return clean.encode("utf-8", "replace").decode()


class Loop:
    """Drives one adapter: receive, take, acknowledge; the same batch is tried again until it is durable. `step()` for tests."""

    def __init__(self, adapter: Adapter, intake: Intake, report: Callable[[str], None]) -> None:
        self.adapter = adapter
        self._intake = intake
        self._report = report
        self._kind = adapter.name.partition(" ")[0]  # in numbers, without the address
        self.name = f"intake {self._kind}"  # the same
        telemetry.CONNECTED.labels(self._kind).set(0)
        self._open = False
        self.trouble = ""  # why the log does not take the batch at hand

    def step(self, stop: threading.Event, wait_s: float = 0.5) -> int:
        """One batch; how many deliveries were acknowledged. An unreachable source or log is waited for with back-off, visibly.

        A batch that is given up (stopped, or an error) leaves the adapter closed: a source sends again what a connection did not acknowledge.
        """
        try:
            if not self._open:
                self.adapter.open()
                self._open = True
                telemetry.CONNECTED.labels(self._kind).set(1)
                telemetry.backs_off(self.name, 0)
            deliveries = self.adapter.receive(limits.INTAKE_BATCH_MAX, wait_s)
            if not deliveries:
                return 0
            reach("received")
            began = time.perf_counter()
            traces = (delivery.headers.get(TRACEPARENT, "") for delivery in deliveries)
            with telemetry.span("intake batch", traces, adapter=self._kind, deliveries=len(deliveries)):
                outcomes = self._until_durable(deliveries, stop)
            seconds = time.perf_counter() - began
            reach("before acknowledgement")
            for delivery, outcome in zip(deliveries, outcomes or (), strict=outcomes is not None):
                delivery.done(outcome)
                reach("after acknowledgement")
            if outcomes is not None:
                telemetry.taken(self._kind, Counter(outcome.outcome for outcome in outcomes), seconds)
        except Unavailable as error:
            self._report(f"{self.adapter.name}: {error}")
            self._close()
            telemetry.backs_off(self.name, limits.RETRY_FIRST_S * 10)
            stop.wait(limits.RETRY_FIRST_S * 10)
            return 0
        except BaseException:
            self._close()
            raise
        if outcomes is None:
            self._close()
            return 0
        return len(deliveries)

    def run(self, stop: threading.Event) -> None:
        """Step until `stop` is set. What was received and not acknowledged then comes again from its source."""
        while not stop.is_set():
            self.step(stop)
        self._close()

    def _until_durable(self, deliveries: Sequence[Delivery], stop: threading.Event) -> list[Outcome] | None:
        backoff = Backoff(self.name, self._report)
        while True:
            try:
                outcomes = self._intake.take(deliveries)
            except Unavailable as error:
                self.trouble = str(error)
                if backoff.wait(stop, f"{self.adapter.name}: {len(deliveries)} deliveries wait", error):
                    return None
            else:
                self.trouble = ""
                backoff.over()
                return outcomes

    def _close(self) -> None:
        if self._open:
            self._open = False
            telemetry.CONNECTED.labels(self._kind).set(0)
            self.adapter.close()
