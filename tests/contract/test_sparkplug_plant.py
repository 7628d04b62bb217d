"""The simulated packing machine behind its edge node: it keeps to the specification, waits for its host, and keeps what it says while that is away."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.formats.sparkplug import decode, value_of
from adapters.sparkplug import SparkplugSettings, SparkplugSource
from hub.app.demo.plant.sparkplug_node import PackingMachine, SparkplugNode
from tests.contract.sparkplug_peer import HOST, HOST_ID, WAIT_S, Mosquitto, Observer, Running

STATE = f"spBv1.0/STATE/{HOST_ID}"


@pytest.fixture
def brokers(mosquitto: str, tmp_path: Path) -> Iterator[list[Mosquitto]]:
    found = [Mosquitto(mosquitto, tmp_path / f"{n}") for n in range(2)]
    yield found
    for one in found:
        one.stop()


def _say(observer: Observer, *, online: bool, timestamp: int) -> None:
    observer.publish(STATE, json.dumps({"online": online, "timestamp": timestamp}).encode(), qos=1, retain=True)


def _kinds(observer: Observer) -> list[str]:
    return [m.topic.split("/")[2] for m in observer.heard if "/STATE/" not in m.topic]


def _until(reached: object) -> None:
    end = time.monotonic() + WAIT_S
    while not reached():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_same_seed_makes_the_same_day() -> None:
    one, two = PackingMachine(7), PackingMachine(7)
    days = [[one.step() for _ in range(3000)], [two.step() for _ in range(3000)]]
    assert days[0] == days[1]
    assert {day.get("Status/State") for day in days[0]} >= {"Execute", "Held", "Suspended", "Aborted"}
    counts = [day["Counters/Good"] for day in days[0] if "Counters/Good" in day]
    assert counts == sorted(counts)
    assert counts[-1] > 2000
    assert [day["Diagnostics/Seq"] for day in days[0]] == list(range(1, 3001))


def test_it_waits_for_its_host_and_keeps_what_it_says_meanwhile(brokers: list[Mosquitto]) -> None:
    observer = Observer(brokers[0].port, "spBv1.0/#")
    node = SparkplugNode([(HOST, brokers[0].port)], "G", "N", "D", PackingMachine(), host_id=HOST_ID)
    for _ in range(5):
        node.step()
    assert _kinds(observer) == []
    _say(observer, online=True, timestamp=1000)
    _until(node._host_says)
    node.step()
    node.step()
    _until(lambda: len(_kinds(observer)) == 4)
    assert _kinds(observer) == ["NBIRTH", "DBIRTH", "DDATA", "DDATA"]
    history = decode(bytes(observer.heard[-2].payload))
    assert all(metric.historical for metric in history.metrics)
    seqs = [value_of(m) for m in history.metrics if m.alias == 7]
    assert seqs == [1, 2, 3, 4, 5, 6]
    live = decode(bytes(observer.heard[-1].payload))
    assert not any(metric.historical for metric in live.metrics)
    assert [decode(bytes(m.payload)).seq for m in observer.heard if "/STATE/" not in m.topic] == [0, 1, 2, 3]
    _say(observer, online=False, timestamp=500)  # of an older session of the host: nothing changes
    time.sleep(0.2)
    node.step()
    assert "NDEATH" not in _kinds(observer)
    _say(observer, online=False, timestamp=1000)
    _until(lambda: node._gone)
    node.step()
    _until(lambda: "NDEATH" in _kinds(observer))
    death = decode(bytes(next(m.payload for m in observer.heard if "/NDEATH/" in m.topic)))
    assert death.seq is None
    assert [(m.name, value_of(m)) for m in death.metrics] == [("bdSeq", 0)]
    _say(observer, online=True, timestamp=2000)
    _until(node._host_says)
    node.step()
    _until(lambda: _kinds(observer).count("NBIRTH") == 2)
    birth = decode(bytes([m.payload for m in observer.heard if "/NBIRTH/" in m.topic][-1]))
    assert next(value_of(m) for m in birth.metrics if m.name == "bdSeq") == 1
    node.die()
    observer.close()


def test_what_a_broker_held_over_its_absence_is_no_word_of_a_host_that_is_back(brokers: list[Mosquitto]) -> None:
    """The broker and what it retains come back before the host; without a newer word of that the node goes on after a while."""
    node = SparkplugNode([(HOST, brokers[0].port)], "G", "N", "D", PackingMachine(), host_id=HOST_ID, patience_s=3.0)
    observer = Observer(brokers[0].port, "spBv1.0/#")
    _say(observer, online=True, timestamp=1000)

    def cut() -> None:
        assert node._client is not None
        node._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]  # it is one of Python's
        _until(lambda: node._gone)
        node.step()
        _until(node._host_says)

    node.step()
    node.step()
    assert node.born, "the first word is as good as any"
    cut()
    for _ in range(3):
        node.step()
    assert not node.born
    _say(observer, online=True, timestamp=2000)
    _until(lambda: node._host == (True, 2000))
    node.step()
    _until(lambda: _kinds(observer)[-2:] == ["DBIRTH", "DDATA"])
    history = decode(bytes(observer.heard[-1].payload))
    assert [value_of(m) for m in history.metrics if m.alias == 7] == [3, 4, 5, 6, 7]
    cut()
    begun = time.monotonic()
    _until(lambda: node.step() or node.born)
    assert 1 < time.monotonic() - begun < 5
    node.die()
    observer.close()


def test_the_oldest_goes_when_there_is_no_more_room(brokers: list[Mosquitto]) -> None:
    observer = Observer(brokers[0].port, "spBv1.0/#")
    node = SparkplugNode([(HOST, brokers[0].port)], "G", "N", "D", PackingMachine(), host_id=HOST_ID, stored_max=10)
    for _ in range(50):
        node.step()
    _say(observer, online=True, timestamp=1000)
    _until(node._host_says)
    node.step()
    _until(lambda: "DDATA" in _kinds(observer))
    (history,) = [decode(bytes(m.payload)) for m in observer.heard if "/DDATA/" in m.topic]
    assert len(history.metrics) == 10
    assert [value_of(m) for m in history.metrics if m.alias == 7][-1] == 51
    node.die()
    observer.close()


def test_it_walks_to_the_broker_where_its_host_is(brokers: list[Mosquitto]) -> None:
    running = Running(SparkplugSource(SparkplugSettings([brokers[1].url], HOST_ID))).open()
    node = SparkplugNode([(HOST, one.port) for one in brokers], "G", "N", "D", PackingMachine(), host_id=HOST_ID)
    for _ in range(4):
        node.step()
        running.step()
    running.until(lambda: running.values("G/N/D/Diagnostics/Seq"))
    assert node._at == 1
    running.source.close()
    node.die()


def test_the_program_ends_in_order_and_logs_what_it_did(brokers: list[Mosquitto], tmp_path: Path) -> None:
    observer = Observer(brokers[0].port, "spBv1.0/#")
    log = tmp_path / "log"
    argv = [
        sys.executable,
        "-m",
        "hub.app.demo.plant.sparkplug_node",
        "--broker",
        f"{HOST}:{brokers[0].port}",
        "--period",
        "0.05",
        "--log",
        str(log),
    ]
    child = subprocess.Popen(argv)
    _until(lambda: _kinds(observer).count("DDATA") >= 5)
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0
    _until(lambda: _kinds(observer)[-1] == "NDEATH")
    seqs = [json.loads(line)["changed"]["Diagnostics/Seq"] for line in log.read_text().splitlines()]
    assert seqs == list(range(1, len(seqs) + 1))
    observer.close()
