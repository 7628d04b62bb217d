"""The edge's loops: each drives one source, makes what it said durable in the spool, and only then lets it be acknowledged.

They know no protocol: a source is an `Adapter` (deliveries, spooled as they are) or a `ReadingSource` (readings, gaps and what is to be
remembered, spooled as one document with the facts that rules make of them).
"""

import hashlib
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice

from adapters.edge.gaps import Sequences, told
from adapters.edge.plant import Plant
from adapters.edge.rules import Rules
from adapters.edge.spool import Addition, Entry, Spool
from events.canonical import time_text
from events.errors import Unavailable
from hub import limits
from hub.intake.delivery import Adapter, Delivery, LineOutcome, Outcome, PartOutcome
from hub.intake.edge_document import EdgeDocument, EdgeFact
from hub.intake.readings import Gap, Observed, Reading, ReadingSource, session_lost, too_large
from hub.points import reach

DOCUMENT = "edge"  # the transport of what the edge says itself
READINGS_MAX = 2000  # of one pull
GAP_RULE = "gap/1"


@dataclass
class Seen:
    """What is known of a source, for people."""

    name: str
    connected: bool = False
    trouble: str = "not tried yet"
    last_at: datetime | None = None  # when it last said something
    taken: int = 0  # deliveries or readings since the start


class EdgeLoop(ABC):
    """What both loops have in common; `step()` for tests."""

    def __init__(self, name: str, meaning: "Meaning", spool: Spool, report: Callable[[str], None]) -> None:
        self.seen = Seen(name)
        self._meaning, self._spool, self._report = meaning, spool, report
        self._open = False

    def step(self, stop: threading.Event, wait_s: float = 0.5) -> int:
        """One pull; how many deliveries or readings are durable now. An unreachable source or a full spool is waited for, visibly."""
        try:
            if not self._open:
                self._connect()
                self._open = True
                self.seen.connected, self.seen.trouble = True, ""
            return self._pull(stop, wait_s)
        except Unavailable as error:
            self.seen.connected, self.seen.trouble = False, str(error)
            self._report(f"{self.seen.name}: {error}")
            self._close()
            stop.wait(limits.RETRY_FIRST_S * 10)
            return 0
        except BaseException:
            self._close()
            raise

    def run(self, stop: threading.Event) -> None:
        """Step until `stop` is set."""
        while not stop.is_set():
            self.step(stop)
        self._close()

    @abstractmethod
    def _connect(self) -> None: ...

    @abstractmethod
    def _disconnect(self) -> None: ...

    @abstractmethod
    def _pull(self, stop: threading.Event, wait_s: float) -> int: ...

    def _close(self) -> None:
        if self._open:
            self._open = False
            self.seen.connected = False
            self._disconnect()

    def _keep(self, found: Sequence[Observed], stop: threading.Event) -> bool:
        """Whether what was observed is durable, with the facts that it led to; else the edge ends, and the source is closed."""
        kept = self._meaning.keep(found, lambda additions, memory: self._until_durable(additions, stop, memory) is not None)
        if not kept:
            self._close()
        return kept

    def _until_durable(
        self, additions: Sequence[Addition], stop: threading.Event, memory: Mapping[str, bytes] | None = None
    ) -> list[int] | None:
        """The numbers of the first entries once all is durable; None where the edge ends before. Meanwhile the source waits."""
        wait_s = limits.RETRY_FIRST_S
        while True:
            try:
                firsts = self._spool.append_all(additions, memory or {})
            except Unavailable as error:
                self.seen.trouble = str(error)
                self._report(f"{self.seen.name} waits {wait_s:.1f} s: {error}")
                if stop.wait(wait_s):
                    return None
                wait_s = min(wait_s * 2, limits.RETRY_MAX_S)
            else:
                self.seen.trouble = ""
                return firsts


class DeliveryLoop(EdgeLoop):
    """Spools deliveries as they are; the hub maps them. `resumed` says of an open adapter whether its source still has the session of before; None:
    it keeps none."""

    def __init__(
        self,
        adapter: Adapter,
        lane: str,
        meaning: "Meaning",
        spool: Spool,
        report: Callable[[str], None],
        resumed: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(adapter.name, meaning, spool, report)
        self._adapter, self._lane, self._resumed = adapter, lane, resumed
        self._heard, self._gaps = f"heard/{lane}", list[Gap]()

    def _connect(self) -> None:
        self._adapter.open()
        if self._resumed and not self._resumed() and (heard := self._spool.state(self._heard)):
            self._gaps = [session_lost(self._lane, datetime.fromisoformat(heard.decode()), datetime.now(UTC))]

    def _disconnect(self) -> None:
        self._adapter.close()

    def _pull(self, stop: threading.Event, wait_s: float) -> int:
        if self._gaps and not self._keep([Observed(self._lane, datetime.now(UTC), gaps=self._gaps)], stop):
            return 0
        self._gaps = []
        deliveries = self._adapter.receive(limits.INTAKE_BATCH_MAX, wait_s)
        if not deliveries:
            return 0
        fit = [d for d in deliveries if len(d.body) <= limits.DELIVERY_BYTES_MAX]
        large = [
            d for d in deliveries if len(d.body) > limits.DELIVERY_BYTES_MAX
        ]  # the hub would never take it, and the lane wait for ever
        gaps = [too_large(self._lane, d.headers.get("topic", ""), d.body, limits.DELIVERY_BYTES_MAX, d.received_at) for d in large]
        if gaps and not self._keep([Observed(self._lane, datetime.now(UTC), gaps=gaps)], stop):
            return 0
        entries = [Entry(d.body, d.transport, d.received_at, d.headers) for d in fit]
        memory = {self._heard: time_text(deliveries[-1].received_at).encode()} if self._resumed else {}
        firsts = self._until_durable([Addition(self._lane, lambda first: entries)], stop, memory)
        if firsts is None:
            self._close()
            return 0
        for n, delivery in enumerate(fit, firsts[0]):
            delivery.done(_spooled(delivery, f"{self._spool.epoch}/{self._lane}/{n}"))
            reach("edge acknowledged")
        for delivery in large:
            delivery.done(Outcome("", []))
        self.seen.last_at, self.seen.taken = deliveries[-1].received_at, self.seen.taken + len(deliveries)
        return len(deliveries)


def _spooled(delivery: Delivery, key: str) -> Outcome:
    """What a source is told: it is durable here; what becomes of it the hub will say."""
    line = LineOutcome("", "accepted", "edge", key, None, "spooled at the edge")
    return Outcome(hashlib.sha256(delivery.body).hexdigest(), [PartOutcome(1, "spooled", [line])])


class ReadingLoop(EdgeLoop):
    """Spools what a source of readings observed, each producer in a lane of its own, with the facts that are made of it."""

    def __init__(self, source: ReadingSource, meaning: "Meaning", spool: Spool, report: Callable[[str], None]) -> None:
        super().__init__(source.name, meaning, spool, report)
        self._source = source

    def _connect(self) -> None:
        self._source.open(self._spool.state)

    def _disconnect(self) -> None:
        self._source.close()

    def _pull(self, stop: threading.Event, wait_s: float) -> int:
        found = self._source.receive(READINGS_MAX, wait_s)
        if not found:
            return 0
        if not self._keep(found, stop):
            return 0
        for one in found:
            one.done()
            reach("edge acknowledged")
        count = sum(len(one.readings) for one in found)
        self.seen.last_at, self.seen.taken = found[-1].received_at, self.seen.taken + count
        return max(count, 1)


Durable = Callable[[Sequence[Addition], Mapping[str, bytes]], bool]


class Meaning:
    """What all sources of an edge share: rules and producers' numbers, what they remember, and documents made of it.

    One call at a time, until what it led to is durable: what is remembered must never be ahead of what is kept.
    """

    def __init__(self, plant: Plant, spool: Spool) -> None:
        self._rules, self._sequences, self._spool = Rules(plant, spool.edge), Sequences(plant.sequences), spool
        self._state = spool.states("gaps/") | spool.states("rules/")
        self._run = secrets.token_hex(4)
        self._busy = threading.Lock()

    def keep(self, found: Sequence[Observed], durable: Durable) -> bool:
        """Make what was observed durable by `durable`, with the facts that it led to; whether that was done.

        Rules see it in its order; then what one producer said becomes one entry, because each entry costs as much as a hundred readings in it.
        """
        with self._busy:
            made: dict[str, bytes] = {}
            memory: dict[str, bytes] = {}
            said: dict[str, _Said] = {}
            for one, gaps in self._judged([self._rules.timed(one) for one in found], made):
                folded = self._rules.fold(one, ChainMap(made, self._state))
                made |= folded.state
                part = said.setdefault(one.producer, _Said(one.received_at))
                part.readings += one.readings
                part.facts += [*gaps, *folded.facts]
                memory |= one.memory
            return self._kept(said, made, durable, memory)

    def due(self, now: datetime, durable: Durable) -> bool:
        """The same for facts that time alone brings."""
        with self._busy:
            made: dict[str, bytes] = {}
            said: dict[str, _Said] = {}
            for producer, missed in self._sequences.due(now, self._state).items():
                made |= missed.state
                said.setdefault(producer, _Said(now)).facts += told(self._spool.edge, missed.gaps, missed.filled, now, GAP_RULE)
            for producer, folded in self._rules.due(now, self._state).items():
                made |= folded.state
                said.setdefault(producer, _Said(now)).facts += folded.facts
            return not made or self._kept(said, made, durable)

    def say(self, lane: str, facts: Sequence[EdgeFact], durable: Durable) -> bool:
        """Facts that the edge has to say of itself."""
        return durable([self._addition(lane, _Said(facts[0].occurred_at, facts=[*facts]))], {})

    def _kept(
        self, said: Mapping[str, "_Said"], made: Mapping[str, bytes], durable: Durable, memory: Mapping[str, bytes] | None = None
    ) -> bool:
        additions = [self._addition(lane, one) for lane, one in said.items() if one.readings or one.facts]
        if not durable(additions, {**(memory or {}), **made}):
            return False
        self._state |= made
        return True

    def _judged(self, found: Sequence[Observed], made: dict[str, bytes]) -> Iterator[tuple[Observed, list[EdgeFact]]]:
        """What was observed, late readings marked, with the facts about gaps. A producer's numbers are judged once: what is remembered of them may be long."""
        parts: dict[tuple[str, bool], list[Observed]] = {}
        for one in found:
            parts.setdefault((one.producer, one.numbered), []).append(one)
        missed, marked = {}, {}
        for key, of in parts.items():
            whole = replace(of[-1], readings=[reading for one in of for reading in one.readings])
            missed[key] = self._sequences.fold(whole, ChainMap(made, self._state))
            made |= missed[key].state
            if missed[key].observed is not whole:  # some are late
                marked[key] = iter(missed[key].observed.readings)
        for one in found:
            key = (one.producer, one.numbered)
            gaps, filled = [*one.gaps], [*one.filled]
            if one is parts[key][-1]:
                gaps, filled = [*gaps, *missed[key].gaps], [*filled, *missed[key].filled]
            facts = [*told(self._spool.edge, gaps, filled, one.received_at, GAP_RULE)]
            yield replace(one, readings=[*islice(marked[key], len(one.readings))]) if key in marked else one, facts

    def _addition(self, lane: str, said: "_Said") -> Addition:
        document = EdgeDocument(self._spool.edge, "", lane, 0, lane, said.at, said.readings, said.facts, self._run)
        return Addition(lane, lambda first: [Entry(replace(document, epoch=self._spool.epoch, n=first).json(), DOCUMENT, said.at)])


@dataclass
class _Said:
    """An entry in the making: what one producer said since `at`."""

    at: datetime
    readings: list[Reading] = field(default_factory=list)
    facts: list[EdgeFact] = field(default_factory=list)


class Numbers:
    """How much comes and goes, smoothed over about a minute; `look` is called every few seconds."""

    SPAN_S = 60.0

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._looks: list[tuple[float, int, int, int]] = []  # monotonic, entries ever, entries acknowledged ever, bytes waiting

    def look(self) -> None:
        """Count now."""
        lanes, now = self._spool.lanes(), time.monotonic()
        self._looks.append((now, sum(one.last for one in lanes), sum(one.acked for one in lanes), sum(one.bytes for one in lanes)))
        while len(self._looks) > 2 and now - self._looks[0][0] > self.SPAN_S:
            del self._looks[0]

    def rates(self) -> tuple[float, float, float | None]:
        """Entries that arrive and that are drained a second, and seconds until the spool is full, if it grows."""
        if len(self._looks) < 2:
            return 0.0, 0.0, None
        (then, last, acked, held), (now, last_, acked_, held_) = self._looks[0], self._looks[-1]
        passed = max(now - then, 1e-9)
        growth = (held_ - held) / passed
        full = (self._spool.bytes_max - held_) / growth if growth > 0 else None
        return max(0.0, (last_ - last) / passed), max(0.0, (acked_ - acked) / passed), full
