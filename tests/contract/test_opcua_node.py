"""OPC UA against node-opcua, which shares nothing with asyncua: our source against its server, and its client against our simulated machines."""

from collections.abc import Iterator

import pytest

from adapters.opcua import Sequence as Counting
from tests.contract.opcua_plant import PlantServer
from tests.contract.reading_suite import ReadingLaws, edge  # noqa: F401 the fixture
from tests.contract.tcp_proxy import Proxy
from tests.contract.test_opcua import Line1
from tests.peers.npm import node, peer


@pytest.fixture(scope="module")
def program() -> list[str]:
    return [node(), str(peer("opcua") / "server.mjs")]


@pytest.fixture(scope="module", params=["patient", "forgetful, counted", "forgetful, with history"])
def ways(
    request: pytest.FixtureRequest, program: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, PlantServer, Proxy]]:
    """A server of each kind, shared by the laws."""
    way, folder = str(request.param), tmp_path_factory.mktemp("node-opcua")
    settings = {"pki": str(folder / "pki"), "history": "history" in way}
    with PlantServer(folder / "plant.log", program, **settings) as server, Proxy(server.port) as proxy:
        yield way, server, proxy


@pytest.fixture
def plant(ways: tuple[str, PlantServer, Proxy]) -> Line1:
    way, server, proxy = ways
    proxy.mend()
    server.do("forget")
    counted = {"sequences": (Counting("Line1/Count"),)} if "counted" in way else {}
    return Line1(server, proxy, "forgetful" in way, **counted)


class TestLaws(ReadingLaws):
    """Against a server that keeps a subscription through a cut, and one that forgets it, without and with numbers and history."""
