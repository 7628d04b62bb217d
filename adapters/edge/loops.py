"""The edge's loops: each drives one source, makes what it said durable in the spool, and only then lets it be acknowledged.

They know no protocol: a source is an `Adapter` (deliveries, spooled as they are) or a `ReadingSource` (readings, gaps and what is to be
remembered, spooled as one document with the facts that rules make of them).
"""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from adapters.edge.spool import Addition, Entry, Spool
from events.errors import Unavailable
from events.integration import GapDetected, GapFilled
from hub import limits
from hub.intake.delivery import Adapter, Delivery, LineOutcome, Outcome, PartOutcome
from hub.intake.edge_document import EdgeDocument, EdgeFact
from hub.intake.readings import Observed, ReadingSource
from hub.points import reach

DOCUMENT = "edge"  # the transport of what the edge says itself
READINGS_MAX = 2000  # of one pull
RULES = "rules:"  # state names under which lanes' rules remember


class Rules(Protocol):
    """What turns readings into facts; pure, its state is kept with the readings."""

    def fold(self, observed: Observed, state: bytes | None) -> tuple[Sequence[EdgeFact], bytes | None]: ...


class NoRules:
    """Readings are kept and nothing is made of them."""

    def fold(self, observed: Observed, state: bytes | None) -> tuple[Sequence[EdgeFact], bytes | None]:
        return [], state


@dataclass
class Seen:
    """What is known of a source, for people."""

    name: str
    connected: bool = False
    trouble: str = "not tried yet"
    last_at: datetime | None = None  # when it last said something
    taken: int = 0  # deliveries or readings since the start


class EdgeLoop:
    """What both loops have in common; `step()` for tests."""

    def __init__(self, name: str, spool: Spool, report: Callable[[str], None]) -> None:
        self.seen = Seen(name)
        self._spool, self._report = spool, report
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

    def _connect(self) -> None:
        raise NotImplementedError

    def _disconnect(self) -> None:
        raise NotImplementedError

    def _pull(self, stop: threading.Event, wait_s: float) -> int:
        raise NotImplementedError

    def _close(self) -> None:
        if self._open:
            self._open = False
            self.seen.connected = False
            self._disconnect()

    def _until_durable(self, additions: Sequence[Addition], stop: threading.Event) -> list[int] | None:
        """The numbers of the first entries once all is durable; None where the edge ends before. Meanwhile the source waits."""
        wait_s = limits.RETRY_FIRST_S
        while True:
            try:
                firsts = self._spool.append_all(additions)
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
    """Spools deliveries as they are; the hub maps them."""

    def __init__(self, adapter: Adapter, lane: str, spool: Spool, report: Callable[[str], None]) -> None:
        super().__init__(adapter.name, spool, report)
        self._adapter, self._lane = adapter, lane

    def _connect(self) -> None:
        self._adapter.open()

    def _disconnect(self) -> None:
        self._adapter.close()

    def _pull(self, stop: threading.Event, wait_s: float) -> int:
        deliveries = self._adapter.receive(limits.INTAKE_BATCH_MAX, wait_s)
        if not deliveries:
            return 0
        entries = [Entry(d.body, d.transport, d.received_at, d.headers) for d in deliveries]
        firsts = self._until_durable([Addition(self._lane, lambda first: entries)], stop)
        if firsts is None:
            self._close()
            return 0
        for n, delivery in enumerate(deliveries, firsts[0]):
            delivery.done(_spooled(delivery, f"{self._spool.epoch}/{self._lane}/{n}"))
            reach("edge acknowledged")
        self.seen.last_at, self.seen.taken = deliveries[-1].received_at, self.seen.taken + len(deliveries)
        return len(deliveries)


def _spooled(delivery: Delivery, key: str) -> Outcome:
    """What a source is told: it is durable here; what becomes of it the hub will say."""
    line = LineOutcome("", "accepted", "edge", key, None, "spooled at the edge")
    return Outcome(hashlib.sha256(delivery.body).hexdigest(), [PartOutcome(1, "spooled", [line])])


class ReadingLoop(EdgeLoop):
    """Spools what a source of readings observed, each producer in a lane of its own, with the facts that rules make of it."""

    def __init__(
        self,
        source: ReadingSource,
        spool: Spool,
        report: Callable[[str], None],
        rules: Rules | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(source.name, spool, report)
        self._source, self._rules, self._now = source, rules or NoRules(), now
        self._states: dict[str, bytes | None] = {}
        self._run = secrets.token_hex(4)

    def _connect(self) -> None:
        self._states.clear()
        self._source.open(self._spool.state)

    def _disconnect(self) -> None:
        self._source.close()

    def _pull(self, stop: threading.Event, wait_s: float) -> int:
        found = self._source.receive(READINGS_MAX, wait_s)
        if not found:
            return 0
        states = dict(self._states)
        additions = [self._addition(one, states) for one in found]
        if self._until_durable(additions, stop) is None:
            self._close()
            return 0
        self._states = states
        for one in found:
            one.done()
            reach("edge acknowledged")
        count = sum(len(one.readings) for one in found)
        self.seen.last_at, self.seen.taken = found[-1].received_at, self.seen.taken + count
        return max(count, 1)

    def _addition(self, observed: Observed, states: dict[str, bytes | None]) -> Addition:
        lane, name = observed.producer, RULES + observed.producer
        before = states[name] if name in states else self._spool.state(name)
        made, after = self._rules.fold(observed, before)
        states[name] = after
        facts = [*gap_facts(observed, self._spool.edge), *made]
        memory = dict(observed.memory)
        if after is not None and after != before:
            memory[name] = after
        if not (observed.readings or facts):
            return Addition(lane, lambda first: [], memory)
        document = EdgeDocument(
            self._spool.edge, self._spool.epoch, lane, 0, self._run, observed.producer, observed.received_at, observed.readings, facts
        )

        def make(first: int) -> list[Entry]:
            numbered = replace(document, epoch=self._spool.epoch, n=first)
            return [Entry(numbered.json(), DOCUMENT, observed.received_at)]

        return Addition(lane, make, memory)


def gap_facts(observed: Observed, edge: str) -> list[EdgeFact]:
    """What a source says is missing, or has come after all, as facts."""
    found: list[EdgeFact] = []
    for gap in observed.gaps:
        event = GapDetected.of(
            {
                "gap": gap.id,
                "edge": edge,
                "producer": gap.producer,
                "kind": gap.kind,
                "reason": gap.reason,
                "first": gap.first,
                "last": gap.last,
                "since": gap.since,
                "until": gap.until,
                "tags": list(gap.tags),
            }
        )
        found.append(EdgeFact(event, observed.received_at, "gap/1"))
    for filled in observed.filled:
        event_ = GapFilled.of({"gap": filled.gap, "edge": edge, "producer": filled.producer, "how": filled.how})
        found.append(EdgeFact(event_, observed.received_at, "gap/1"))
    return found


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
