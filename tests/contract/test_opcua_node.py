"""OPC UA against node-opcua, which shares nothing with asyncua: our source against its server, and its client against our simulated machines."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.opcua import OpcUaSource
from events.errors import Unavailable
from hub import limits
from tests.contract.opcua_plant import PlantServer
from tests.contract.reading_suite import Edge, ReadingLaws, edge  # noqa: F401 the fixture
from tests.contract.tcp_proxy import Proxy
from tests.contract.test_opcua import Line1, of_way, settings
from tests.contract.test_opcua_cuts import cut
from tests.contract.test_opcua_ways import PASSWORD, USER, VARIABLE, behind, pair, renewed_while_values_flow, secure
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
    given: dict[str, Any] = {"pki": str(folder / "pki"), "history": "history" in way}
    with PlantServer(folder / "plant.log", program, **given) as server, Proxy(server.port) as proxy:
        yield way, server, proxy


@pytest.fixture
def plant(ways: tuple[str, PlantServer, Proxy]) -> Line1:
    return of_way(*ways)


class TestLaws(ReadingLaws):
    """Against a server that keeps a subscription through a cut, and one that forgets it, without and with numbers and history."""


@pytest.mark.parametrize(
    "given",
    [
        {"limits": {"maxNodesPerBrowse": 5}},
        {"limits": {"maxNodesPerRead": 5}},
        {"limits": {"maxMonitoredItemsPerCall": 5}},
        {"references": 7, "points": 1},  # three folders that have more need a continuation point each
    ],
    ids=["browse", "read", "watch", "continue"],
)
def test_a_server_that_takes_few_nodes_in_a_request_is_read_whole(program: list[str], tmp_path: Path, given: dict[str, Any]) -> None:
    with PlantServer(tmp_path / "plant.log", program, pki=str(tmp_path / "pki"), **given) as server:
        folders = ("A", "B", "C")
        for folder in folders:
            server.do("add_many", names=10, below=folder)
        source = OpcUaSource(settings(server.port))
        source.open(lambda name: None)
        found: set[str] = set()
        until = time.monotonic() + 20
        while len(found) < 32 and time.monotonic() < until:
            found |= {reading.tag for one in source.receive(500, 0.2) for reading in one.readings}
        source.close()
    assert found == {"Line1/Count", "Line1/Idle", *(f"Line1/{folder}/V{n}" for folder in folders for n in range(10))}


@pytest.mark.parametrize("down", [False, True])
def test_a_variable_that_is_made_anew_is_watched_anew(
    program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: bool
) -> None:
    """Also when both happened in a cut that the subscription outlived."""
    monkeypatch.setattr(limits, "OPCUA_AGAIN_S", 0.3)
    with PlantServer(tmp_path / "plant.log", program, pki=str(tmp_path / "pki")) as server, Proxy(server.port) as proxy:
        plant = Line1(server, proxy)
        edge = Edge(plant)
        edge.open()
        edge.until(lambda: len(edge.readings) == 2)
        server.do("forget")
        edge.settle()  # a subscription that follows a cut
        if down:
            plant.down()
        server.do("remove", name="Idle")
        time.sleep(0.5)
        server.do("put_back", name="Idle", value=8)
        plant.up()
        edge.until(lambda: edge.readings[-1].value == 8)
        server.do("write", name="Idle", value=9, kind="Int32")
        edge.until(lambda: edge.readings[-1].value == 9)
        edge.close()
    assert [(reading.value, reading.quality) for reading in edge.readings[2:]] == [(None, "bad"), (8, "good"), (9, "good")]
    gone, missing = edge.gaps
    assert (gone.until, gone.reason) == (None, "the server has it no more")
    assert [filled.gap for filled in edge.filled] == [gone.id]
    assert (missing.reason, missing.since, missing.until) == ("it was not watched", edge.readings[2].at, edge.readings[3].at)


def test_many_variables_are_watched_by_one_subscription_and_accounted_for(program: list[str], tmp_path: Path) -> None:
    count = 1000
    with PlantServer(tmp_path / "plant.log", program, pki=str(tmp_path / "pki")) as server, Proxy(server.port) as proxy:
        server.do("add_many", names=count)
        edge = Edge(Line1(server, proxy))
        edge.open()
        edge.until(lambda: len(edge.readings) == count + 2)
        edge.kill()
        server.do("forget")
        for value in (1, 2):
            server.do("many", names=count, value=value)
        edge.until(lambda: len(edge.readings) == 2 * count + 2)
        edge.close()
    tags = {f"Line1/V{n}" for n in range(count)}
    assert {reading.tag for reading in edge.readings[count + 2 :] if reading.value == 2} == tags
    assert sorted(tag for gap in edge.gaps for tag in gap.tags) == sorted(tags)
    assert len(edge.gaps) < 30  # values of about one time in one


def test_the_overflow_bit_of_the_servers_queue_is_a_gap(program: list[str], tmp_path: Path) -> None:
    changed: dict[str, Any] = {"queue": 2, "publishing_s": 0.5}
    with PlantServer(tmp_path / "plant.log", program, pki=str(tmp_path / "pki")) as server, Proxy(server.port) as proxy:
        plant = Line1(server, proxy, **changed)
        edge = Edge(plant)
        edge.open()
        said = plant.say(100)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.close()
        assert edge.gaps
        assert {(gap.kind, gap.tags) for gap in edge.gaps} == {("overflow", ("Line1/Count",))}
        edge.accounted(said)


def test_history_that_does_not_reach_back_is_a_gap(program: list[str], tmp_path: Path) -> None:
    given: dict[str, Any] = {"pki": str(tmp_path / "pki"), "history": True, "history_count": 15}
    with PlantServer(tmp_path / "plant.log", program, **given) as server, Proxy(server.port) as proxy:
        plant = Line1(server, proxy, forgets=True)
        edge = Edge(plant)
        said = cut(plant, edge)
        assert {gap.kind for gap in edge.gaps} == {"history"}
        edge.accounted(said)
        assert 10 <= len([reading for reading in edge.readings if reading.historical]) <= 15


@pytest.mark.parametrize("hidden", [False, True])
def test_signed_and_encrypted_with_user_and_password(
    program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    """node-opcua compares our certificate's application URI, trusts nobody whom it was not told to, and may tell strangers nothing (`hidden`)."""
    ours, other = (pair(tmp_path, name, f"urn:plant.example:{name}", pem=False) for name in ("hub", "other"))
    monkeypatch.setenv(VARIABLE, PASSWORD)
    given: dict[str, Any] = {
        "pki": str(tmp_path / "pki"),
        "security": True,
        "strict": True,
        "hidden": hidden,
        "trusted": str(ours[0]),
        "user": USER,
        "password": PASSWORD,
    }
    with PlantServer(tmp_path / "plant.log", program, **given) as server, Proxy(server.port) as proxy:
        keys = {"server": (tmp_path / "pki" / "own" / "certs" / "certificate.pem", None), "hub": ours, "other": other}
        plant = Line1(server, proxy)
        plant.source = lambda: OpcUaSource(secure(proxy.port, keys))  # type: ignore[method-assign]
        edge = Edge(plant)
        said = cut(plant, edge)
        edge.kill()
        said += plant.say(10)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.close()
        assert edge.numbers == said
        assert not edge.gaps
        with pytest.raises(Unavailable, match=r"refuses our certificate .*: let the server trust it"):
            OpcUaSource(secure(proxy.port, keys, "other")).open(lambda name: None)
        monkeypatch.setenv(VARIABLE, "wrong")
        with pytest.raises(Unavailable, match=f"does not let the user {USER} in"):
            OpcUaSource(secure(proxy.port, keys)).open(lambda name: None)


def test_a_channel_that_lives_shortly_is_renewed_while_values_flow(
    program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """node-opcua closes a channel whose keys are over; its clock is a day behind."""
    monkeypatch.setenv(VARIABLE, PASSWORD)
    given: dict[str, Any] = {"pki": str(tmp_path / "pki"), "security": True, "user": USER, "password": PASSWORD, "lifetime_ms": 2500}
    with PlantServer(tmp_path / "plant.log", program, behind(tmp_path, 86400), **given) as server, Proxy(server.port) as proxy:
        plant = Line1(server, proxy)
        keys = {
            "server": (tmp_path / "pki" / "own" / "certs" / "certificate.pem", None),
            "hub": pair(tmp_path, "hub", "urn:plant.example:hub"),
        }
        plant.source = lambda: OpcUaSource(secure(proxy.port, keys))  # type: ignore[method-assign]
        renewed_while_values_flow(plant, 8.0)


def test_values_of_all_types_are_exact(program: list[str], tmp_path: Path) -> None:
    with PlantServer(tmp_path / "plant.log", program, pki=str(tmp_path / "pki")) as server, Proxy(server.port) as proxy:
        server.do("types")
        edge = Edge(Line1(server, proxy))
        edge.open()
        edge.until(lambda: len(edge.readings) >= 16)
        edge.close()
    found = {reading.tag.removeprefix("Line1/"): (reading.value, reading.type) for reading in edge.readings}
    assert found == {
        "Count": (0, "Int64"), "Idle": (7, "Int32"), "String": ("00123", "String"), "Boolean": (True, "Boolean"), "Int32": (-5, "Int32"),
        "UInt32": (2**32 - 1, "UInt32"), "Double": (1e300, "Double"), "Float": (0.10000000149011612, "Float"), "SByte": (-128, "SByte"),
        "Byte": (255, "Byte"), "Int16": (-32768, "Int16"), "UInt16": (65535, "UInt16"), "Int64": (-(2**63), "Int64"),
        "UInt64": (2**64 - 1, "UInt64"), "Bytes": ("00ff", "ByteString"), "Time": ("2026-03-29T01:30:00.123000Z", "DateTime"),
    }  # fmt: skip
