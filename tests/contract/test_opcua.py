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
        self._begin = self._next = server.do("last") + 1

    def source(self) -> OpcUaSource:
        return OpcUaSource(settings(self.proxy.port, **self._changed))

    def nowhere(self) -> OpcUaSource:
        return OpcUaSource(settings(free_port(), **self._changed))

    def say(self, count: int, every_s: float = 0.005) -> Sequence[int]:
        first, self._next = self._next, self._next + count
        said = self.server.do("say", first=first, count=count, every_s=every_s)
        self._at |= {int(n): datetime.fromisoformat(at) for n, at in said.items()}
        return range(first, first + count)

    def number(self, reading: Reading) -> int | None:
        value = reading.value
        return value if reading.tag == "Line1/Count" and isinstance(value, int) and value >= self._begin else None

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
    """A plant of its own for the time of a block."""
    with PlantServer(folder / "plant.log", **server) as running, Proxy(running.port) as proxy:
        yield Line1(running, proxy, forgets, **(changed or {}))


@pytest.fixture(scope="module", params=["patient", "forgetful", "forgetful, counted", "forgetful, with history"])
def ways(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, PlantServer, Proxy]]:
    """A server of each kind, shared by the laws: to start one takes longer than most of them."""
    way = str(request.param)
    log = tmp_path_factory.mktemp("plant") / "plant.log"
    with PlantServer(log, history="history" in way) as server, Proxy(server.port) as proxy:
        yield way, server, proxy


def of_way(way: str, server: PlantServer, proxy: Proxy) -> Line1:
    """A line to a server of a kind, which has forgotten what was before."""
    proxy.mend()
    server.do("forget")
    counted = {"sequences": (Counting("Line1/Count"),)} if "counted" in way else {}
    return Line1(server, proxy, "forgetful" in way, **counted)


@pytest.fixture
def plant(ways: tuple[str, PlantServer, Proxy]) -> Line1:
    return of_way(*ways)


class TestLaws(ReadingLaws):
    """Against a server that keeps a subscription through a cut, and one that forgets it, without and with numbers and history."""
