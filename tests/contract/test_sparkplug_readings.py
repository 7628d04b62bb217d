"""The laws of every source of readings, for Sparkplug: with an edge node that waits for its primary host and one that does not."""

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.sparkplug import SparkplugSettings, SparkplugSource
from hub.app.demo.plant.sparkplug_node import UINT64, PackingMachine, SparkplugNode
from hub.intake.readings import Reading
from tests.contract.reading_suite import ReadingLaws, edge
from tests.contract.sparkplug_peer import HOST, HOST_ID, Edge, Mosquitto, Tap, now_ms

__all__ = ["edge"]


def _at(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


class _Plant:
    exact = timedelta(milliseconds=1)
    tag = ""

    def __init__(self, broker: Mosquitto) -> None:
        self.tap, self.last, self._said = Tap(broker.port), 0, dict[int, datetime]()

    def source(self) -> SparkplugSource:
        return SparkplugSource(SparkplugSettings([self.tap.url], HOST_ID, reorder_s=0.5))

    def nowhere(self) -> SparkplugSource:
        return SparkplugSource(SparkplugSettings([f"mqtt://{HOST}:1"], HOST_ID))

    def number(self, reading: Reading) -> int | None:
        if reading.tag != self.tag or reading.quality != "good" or not isinstance(reading.value, int) or not reading.value:
            return None
        return reading.value if reading.at == self._said.get(reading.value) else None  # a birth repeats it at a time of its own

    def said_at(self, number: int) -> datetime:
        return self._said[number]

    def down(self) -> None:
        self.tap.cut()

    def up(self) -> None:
        self.tap.mend()


class _Careless(_Plant):
    """Knows of no host: says what it says to the broker, once, and gives a birth when it is asked."""

    tag = "G1/E1/D1/n"

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__(broker)
        self._edge = Edge(broker.port, devices={"D1": {"n": (UINT64, 0)}})
        self._edge.birth()

    def say(self, count: int) -> Sequence[int]:
        numbers = range(self.last + 1, self.last + 1 + count)
        for n in numbers:
            at = now_ms()
            self._said[n] = _at(at)
            self._edge.say("n", n, "D1", at=at)
            time.sleep(0.001)
        self.last = numbers[-1] if count else self.last
        return numbers

    def close(self) -> None:
        self._edge.observer.close()
        self.tap.close()


class _Counting(PackingMachine):
    TYPES = {"n": UINT64}  # noqa: RUF012
    numbers: Any = None

    def __post_init__(self) -> None:
        self.values = {"n": 0}

    def step(self) -> dict[str, Any]:
        if not self.numbers:
            return {}
        self.values["n"] = self.numbers.pop(0)
        return dict(self.values)


class _Careful(_Plant):
    """The demo's edge node: keeps what it says while its primary host is away, and sends it as history."""

    tag = "G1/E2/D1/n"

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__(broker)
        self._machine = _Counting()
        self._machine.numbers = []
        self._now = now_ms()
        self._node = SparkplugNode([(HOST, broker.port)], "G1", "E2", "D1", self._machine, host_id=HOST_ID, clock=self._clock)
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._node.step()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _clock(self) -> int:
        self._now = max(now_ms(), self._now + 1)
        return self._now

    def _run(self) -> None:  # it looks after its connection while nobody has it say anything
        while not self._stop.is_set():
            with self._lock:
                self._node.step()
            self._stop.wait(0.02)

    def say(self, count: int) -> Sequence[int]:
        numbers = range(self.last + 1, self.last + 1 + count)
        for n in numbers:
            with self._lock:
                self._machine.numbers.append(n)
                before = self._now
                self._node._log = lambda row, n=n: self._said.__setitem__(n, _at(row["at"])) if row["changed"] else None  # type: ignore[misc]
                self._node.step()
                assert self._now > before
            time.sleep(0.001)
        self.last = numbers[-1] if count else self.last
        return numbers

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._node.die()
        self.tap.close()


@pytest.fixture
def broker(mosquitto: str, tmp_path: Path) -> Iterator[Mosquitto]:
    found = Mosquitto(mosquitto, tmp_path)
    yield found
    found.stop()


class TestCarelessNode(ReadingLaws):
    @pytest.fixture
    def plant(self, broker: Mosquitto) -> Iterator[_Careless]:
        found = _Careless(broker)
        yield found
        found.close()


class TestCarefulNode(ReadingLaws):
    @pytest.fixture
    def plant(self, broker: Mosquitto) -> Iterator[_Careful]:
        found = _Careful(broker)
        yield found
        found.close()
