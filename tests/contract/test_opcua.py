"""OPC UA: the laws of sources of readings against asyncua's server, and what is particular to OPC UA."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.opcua import OpcUaSettings, OpcUaSource, Start
from adapters.opcua import Sequence as Counting
from hub.app.servers.process import free_port
from hub.intake.readings import Reading
from tests.contract.opcua_plant import HOST, URI, PlantServer
from tests.contract.reading_suite import Edge, ReadingLaws, edge  # noqa: F401 the fixture
from tests.contract.tcp_proxy import Proxy

PUBLISHING_S = 0.1


def settings(port: int, **changed: Any) -> OpcUaSettings:
    """For the plant behind a port."""
    given: dict[str, Any] = {
        "url": f"opc.tcp://{HOST}:{port}/plant", "producer": "line1", "starts": (Start("p:Line1", "Line1"),), "namespaces": {"p": URI},
        "publishing_s": PUBLISHING_S, "rate_hz": 200.0, "outage_s": 30.0, "answer_s": 2.0, "keep_alive_s": 0.3,
    }  # fmt: skip
    return OpcUaSettings(**{**given, **changed})


class Line1:
    """The plant of the suite: a server and a proxy before it; the numbers are values of Line1/Count."""

    exact = timedelta(seconds=PUBLISHING_S)

    def __init__(self, server: PlantServer, proxy: Proxy, forgets: bool = False, **changed: Any) -> None:
        self.server, self.proxy, self._forgets, self._changed = server, proxy, forgets, changed
        self._at: dict[int, datetime] = {}

    def source(self) -> OpcUaSource:
        return OpcUaSource(settings(self.proxy.port, **self._changed))

    def nowhere(self) -> OpcUaSource:
        return OpcUaSource(settings(free_port(), **self._changed))

    def say(self, count: int, every_s: float = 0.005) -> Sequence[int]:
        first = len(self._at) + 1
        said = self.server.do("say", first=first, count=count, every_s=every_s)
        self._at |= {int(n): datetime.fromisoformat(at) for n, at in said.items()}
        return range(first, first + count)

    def number(self, reading: Reading) -> int | None:
        return reading.value or None if reading.tag == "Line1/Count" and isinstance(reading.value, int) else None

    def said_at(self, number: int) -> datetime:
        return self._at[number]

    def down(self) -> None:
        self.proxy.cut()
        if self._forgets:
            self.server.do("forget")

    def up(self) -> None:
        self.proxy.mend()


@contextlib.contextmanager
def line1(folder: Path, forgets: bool = False, changed: dict[str, Any] | None = None, **server: Any) -> Iterator[Line1]:
    """A plant for the time of a block."""
    with PlantServer(folder / "plant.log", **server) as running, Proxy(running.port) as proxy:
        yield Line1(running, proxy, forgets, **(changed or {}))


@pytest.fixture(params=["patient", "forgetful", "forgetful, counted", "forgetful, with history"])
def plant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Line1]:
    way = str(request.param)
    changed = {"sequences": (Counting("Line1/Count"),)} if "counted" in way else {}
    with line1(tmp_path, "forgetful" in way, changed, history="history" in way) as found:
        yield found


class TestLaws(ReadingLaws):
    """Against a server that keeps a subscription through a cut, and one that forgets it, without and with numbers and history."""
