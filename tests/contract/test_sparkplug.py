"""The Sparkplug host application with a real broker: what goes wrong on the way, several brokers, what it refuses, and how it goes on."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.formats.sparkplug import Payload, encode, metric_of
from adapters.formats.sparkplug_values import DataSet, DataType
from adapters.sparkplug import SparkplugSettings, SparkplugSource
from events.errors import Refused, Unavailable
from hub import limits
from hub.app.demo.plant.sparkplug_node import INT64, metric
from tests.contract.sparkplug_peer import HOST, HOST_ID, WAIT_S, Edge, Mosquitto, Observer, Running, Tap, now_ms
from tests.peers.npm import node, peer

STATE = f"spBv1.0/STATE/{HOST_ID}"
TAG = "G1/E1//count"


@pytest.fixture
def broker(mosquitto: str, tmp_path: Path) -> Iterator[Mosquitto]:
    found = Mosquitto(mosquitto, tmp_path)
    yield found
    found.stop()


@pytest.fixture
def tap(broker: Mosquitto) -> Iterator[Tap]:
    found = Tap(broker.port)
    yield found
    found.close()


def host(*urls: str, **more: Any) -> Running:
    return Running(SparkplugSource(SparkplugSettings(urls, HOST_ID, **{"reorder_s": 0.5, **more}))).open()


@pytest.fixture
def born(broker: Mosquitto) -> Iterator[tuple[Running, Edge]]:
    """A host, and an edge node whose birth it has heard."""
    running = host(broker.url)
    edge = Edge(broker.port, devices={"D1": {"a": (INT64, 1)}})
    edge.birth()
    running.until(lambda: running.values("G1/E1/D1/a"))
    yield running, edge
    running.source.close()
    edge.observer.close()


# -- what comes twice, broken or from nowhere


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_that_is_published_again_is_taken_once(born: tuple[Running, Edge], broker: Mosquitto, qos: int) -> None:
    running, edge = born
    body = edge.say("count", 7, qos=qos)
    edge.observer.publish(edge.topic("NDATA"), body, qos=qos)  # as a client does that did not see its PUBACK
    edge.say("count", 8, qos=qos)
    edge.observer.publish(edge.topic("NDATA"), body, qos=qos)
    running.until(lambda: 8 in running.values(TAG))
    running.run(0.7)
    assert running.values(TAG) == [0, 7, 8]
    assert not running.gaps
    assert not edge.rebirths


def test_a_message_that_is_published_again_after_a_kill_is_taken_once(born: tuple[Running, Edge], broker: Mosquitto) -> None:
    running, edge = born
    body = edge.say("count", 7, qos=1)
    running.until(lambda: 7 in running.values(TAG))
    again = Running(SparkplugSource(SparkplugSettings([broker.url], HOST_ID, reorder_s=0.5)), running.memory)
    again.source.open(running.memory.get)  # the same client id: the broker ends the first
    edge.observer.publish(edge.topic("NDATA"), body, qos=1)
    edge.say("count", 8, qos=1)
    again.until(lambda: 8 in again.values(TAG))
    again.run(0.3)
    assert [r for r in again.readings if r.tag == TAG and r.value == 7] == []
    again.source.close()


def test_garbage_is_named_and_stops_nothing(born: tuple[Running, Edge], caplog: pytest.LogCaptureFixture) -> None:
    running, edge = born
    missing = edge.skip()
    edge.observer.publish(edge.topic("NDATA"), b"\xff\xff garbage")
    edge.observer.publish("spBv1.0/G1/NDATA", b"")
    edge.observer.publish("spBv1.0/G1/WHAT/E1", b"")
    edge.observer.publish("spBv1.0/G1/NDATA/E1/D1", b"")
    edge.say("count", 5)
    running.until(lambda: 5 in running.values(TAG))
    running.until(lambda: running.gaps)
    assert (running.gaps[0].kind, running.gaps[0].first, running.gaps[0].last) == ("sequence", missing, missing)
    for said in ("no Sparkplug B payload", "none of Sparkplug's", "names a device, which NDATA may not"):
        assert said in caplog.text


def test_retained_messages_are_no_news(born: tuple[Running, Edge], broker: Mosquitto) -> None:
    running, edge = born
    running.source.close()
    body = edge.death()
    edge.observer.publish("spBv1.0/G1/NDATA/E9", edge.say("count", 3), retain=True)
    edge.observer.publish(edge.topic("NDEATH"), body, retain=True)  # what a client of the wrong kind leaves behind
    again = Running(running.source, running.memory).open()
    again.run(0.5)
    assert "G1/E9" not in again.source._nodes
    assert again.source._nodes["G1/E1"].status == "lost"
    again.source.close()


def test_a_template_is_refused_by_name_and_the_other_metrics_are_taken(
    born: tuple[Running, Edge], caplog: pytest.LogCaptureFixture
) -> None:
    running, edge = born
    template = b"\x0a\x04pump\x20\x13\x92\x01\x02\x28\x00"  # name, type 19, an instance
    edge.device_birth("D1")
    edge.send("DBIRTH", [template, metric(INT64, 3, now_ms(), name="speed")], "D2")
    running.until(lambda: running.values("G1/E1/D2/speed"))
    bad = [r for r in running.readings if r.tag == "G1/E1/D2/pump"]
    assert [(r.value, r.quality, r.type) for r in bad] == [(None, "bad", "Template")]
    assert "G1/E1/D2/pump: templates are not taken: have the edge node publish the members as metrics of their own" in caplog.text


def test_all_types_come_through_exactly(born: tuple[Running, Edge]) -> None:
    running, edge = born
    values: dict[str, tuple[DataType, Any, Any]] = {
        "int8": (DataType.Int8, -128, -128),
        "int64": (DataType.Int64, -(1 << 63), -(1 << 63)),
        "uint64": (DataType.UInt64, (1 << 64) - 1, (1 << 64) - 1),
        "float": (DataType.Float, 0.1, 0.10000000149011612),
        "double": (DataType.Double, float("-inf"), float("-inf")),
        "bool": (DataType.Boolean, False, False),
        "text": (DataType.String, "00123", "00123"),
        "exponent": (DataType.Text, "1E5", "1E5"),
        "time": (DataType.DateTime, 1_700_000_000_123, 1_700_000_000_123),
        "uuid": (DataType.UUID, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        "bytes": (DataType.Bytes, b"\x00\xff", "00ff"),
        "file": (DataType.File, b"PK", "504b"),
        "array": (DataType.Int16Array, [-1, 2], "[-1, 2]"),
        "texts": (DataType.StringArray, ["a", ""], '["a", ""]'),
        "table": (
            DataType.DataSet,
            DataSet(("n",), (DataType.UInt8,), ((1,), (None,))),
            '{"columns": ["n"], "types": ["UInt8"], "rows": [[1], [null]]}',
        ),
        "null": (DataType.Int32, None, None),
    }
    told = [metric_of(value, kind, name, timestamp=now_ms()) for name, (kind, value, _) in values.items()]
    edge.observer.publish(edge.topic("DBIRTH", "D3"), encode(Payload(now_ms(), edge.skip(), told)))
    running.until(lambda: [r for r in running.readings if r.tag == "G1/E1/D3/null"])
    for name, (kind, _, wanted) in values.items():
        (reading,) = [r for r in running.readings if r.tag == f"G1/E1/D3/{name}"]
        assert (reading.value, type(reading.value), reading.type, reading.quality) == (wanted, type(wanted), kind.name, "good")


def test_an_unknown_alias_asks_for_a_birth(born: tuple[Running, Edge]) -> None:
    running, edge = born
    edge.send("DDATA", [metric(INT64, 1, now_ms(), alias=999)], "D1")
    running.until(lambda: edge.rebirths)
    running.until(lambda: len(running.gaps) >= 1)
    assert running.gaps[0].tags == ("G1/E1/D1/alias 999",)


# -- the connection


def test_the_line_is_cut_and_everything_is_stale_until_it_is_back(broker: Mosquitto, tap: Tap) -> None:
    running = host(tap.url)
    edge = Edge(broker.port)
    edge.birth()
    running.until(lambda: running.values(TAG))
    tap.cut()
    running.until(lambda: [r for r in running.readings if r.tag == TAG][-1].quality == "bad")
    with pytest.raises(Unavailable, match=r"lost: connecting again"):
        running.run(5)
    tap.mend()
    running.open()
    running.until(lambda: [r for r in running.readings if r.tag == TAG][-1].quality == "good")
    assert edge.rebirths == 1  # asked for, though the node said nothing by itself
    assert [gap.kind for gap in running.gaps] == ["disconnected"]
    running.source.close()
    edge.observer.close()


def test_what_came_before_the_line_was_cut_is_taken_first(broker: Mosquitto, tap: Tap) -> None:
    running = host(tap.url)
    edge = Edge(broker.port)
    edge.birth()
    running.until(lambda: running.values(TAG))
    for n in range(1, 600):
        edge.say("count", n)
    while len(running.source._inbox._items) < 599:
        time.sleep(0.01)
    tap.cut()
    time.sleep(0.2)
    running.until(lambda: [r for r in running.readings if r.tag == TAG][-1].quality == "bad")
    assert running.values(TAG) == list(range(600))
    assert not running.gaps
    running.source.close()
    edge.observer.close()


def test_a_line_that_carries_nothing_is_noticed(broker: Mosquitto, tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.sparkplug.broker.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("adapters.sparkplug.broker.SILENT_S", 0.8)
    running = host(tap.url)
    running.run(1.5)  # it carries: nothing happens
    assert len(tap.sent("SUBSCRIBE")) > 3
    assert len(tap.sent("PUBLISH")) == 1  # nobody is told anything for it
    tap.silent = True
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="carries nothing"):
        running.run(10)
    assert time.monotonic() - begun < 4
    tap.silent = False
    running.open()
    running.source.close()


def test_a_host_that_was_busy_does_not_mistake_its_broker_for_dead(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.sparkplug.broker.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("adapters.sparkplug.broker.SILENT_S", 0.5)
    monkeypatch.setattr(limits, "MQTT_WAITING_MAX", 20)
    running = host(broker.url)
    edge = Edge(broker.port)
    edge.birth()
    running.until(lambda: running.values(TAG))
    running.run(0.4)
    for n in range(1, 200):
        edge.say("count", n)
    time.sleep(1.5)  # as long as the spool was out of reach; paho waits for room
    assert len(running.source._inbox._items) <= 20
    running.until(lambda: 199 in running.values(TAG))
    assert running.values(TAG) == list(range(200))
    assert not running.gaps
    running.source.close()
    edge.observer.close()


def test_closing_while_the_inbox_is_full_and_the_broker_is_frozen_does_not_hang(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    monkeypatch.setattr(limits, "MQTT_WAITING_MAX", 5)
    running = host(broker.url)
    edge = Edge(broker.port)
    edge.birth()
    for n in range(50):
        edge.say("count", n)
    time.sleep(0.2)
    assert broker.child is not None
    broker.child.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    running.source.close()
    assert time.monotonic() - begun < 6
    broker.child.send_signal(signal.SIGCONT)
    edge.observer.close()


def test_nothing_but_state_and_commands_is_ever_published(broker: Mosquitto, tap: Tap) -> None:
    running = host(tap.url, mqtt="5")
    edge = Edge(broker.port)
    edge.say("count", 1)
    running.until(lambda: 1 in running.values(TAG))
    running.source.close()
    assert {p.topic for p in tap.sent("PUBLISH")} == {STATE, "spBv1.0/G1/NCMD/E1"}
    assert tap.connects()[0].receive_maximum == limits.MQTT_WAITING_MAX
    edge.observer.close()


def test_a_broker_that_refuses_is_named(mosquitto: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text("topic read spBv1.0/#\n")
    rules.chmod(0o600)
    closed = Mosquitto(mosquitto, tmp_path / "a", "allow_anonymous false")
    with pytest.raises(Unavailable, match=r"refused the connection \(.*uthori.*\): look at its log, and at user, password and certificate"):
        host(closed.url)
    closed.stop()
    with pytest.raises(Unavailable, match="cannot be reached: start it, or correct brokers"):
        host(closed.url)
    silent = Mosquitto(mosquitto, tmp_path / "b", f"acl_file {rules}")
    with pytest.raises(Unavailable, match=rf"refused our STATE .*: allow this client to write {STATE}"):
        host(silent.url, mqtt="5")
    silent.stop()


def test_passwords_come_from_the_environment(mosquitto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["mosquitto_passwd", "-c", "-b", tmp_path / "passwords", "host one", "p@ss/w:rd%41"], check=True, timeout=10)
    broker = Mosquitto(mosquitto, tmp_path, f"password_file {tmp_path}/passwords", "allow_anonymous false")
    with pytest.raises(Refused, match="is not in the environment: set SP_PASSWORD"):
        SparkplugSettings([broker.url], HOST_ID, username="host one", password_env="SP_PASSWORD")
    monkeypatch.setenv("SP_PASSWORD", "p@ss/w:rd%41")
    settings = SparkplugSettings([broker.url], HOST_ID, username="host one", password_env="SP_PASSWORD")
    assert "p@ss" not in repr(settings)
    running = Running(SparkplugSource(settings)).open()
    running.source.close()
    broker.stop()


def test_check_disturbs_no_host_that_runs(born: tuple[Running, Edge], broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.sparkplug.source.CHECK_S", 1.0)
    running, edge = born
    observer = Observer(broker.port, STATE)
    said: list[str] = []
    looking = threading.Thread(target=lambda: said.extend(SparkplugSource(SparkplugSettings([broker.url], HOST_ID)).check()))
    looking.start()
    time.sleep(0.3)
    edge.say("count", 4)
    looking.join(WAIT_S)
    running.until(lambda: 4 in running.values(TAG))
    assert "connected with MQTT 3.1.1" in said[0]
    assert '"online": true' in said[0]
    assert "1 edge nodes were heard: G1/E1" in said[1]
    assert [m.payload for m in observer.on(STATE)] == [observer.on(STATE)[0].payload]
    observer.close()


# -- groups, roles, commands


def test_only_the_groups_that_are_named(broker: Mosquitto) -> None:
    running = host(broker.url, groups=("G1", "G3"))
    edges = [Edge(broker.port, group=group) for group in ("G1", "G2", "G3")]
    for edge in edges:
        edge.birth()
    running.until(lambda: running.values("G1/E1//count") and running.values("G3/E1//count"))
    running.run(0.3)
    assert {r.tag.split("/")[0] for r in running.readings} == {"G1", "G3"}
    assert {one.producer for one in running.observed} == {"G1/E1", "G3/E1"}
    running.source.close()
    for edge in edges:
        edge.observer.close()


def test_a_host_that_is_not_primary_only_listens(broker: Mosquitto, tap: Tap) -> None:
    running = host(tap.url, primary=False)
    edge = Edge(broker.port)
    edge.say("count", 1)
    running.run(0.5)
    assert not edge.rebirths
    edge.birth()
    running.until(lambda: running.values(TAG))
    with pytest.raises(Refused, match="only listens"):
        running.source.command("G1/E1//count", 1, "a test")
    running.source.close()
    assert {p.topic for p in tap.sent("PUBLISH")} == {STATE}
    edge.observer.close()


def test_commands_that_cannot_be_sent_are_refused(born: tuple[Running, Edge]) -> None:
    running, edge = born
    with pytest.raises(Unavailable, match="G1/E2 is not online"):
        running.source.command("G1/E2//count", 1, "a test")
    with pytest.raises(Refused, match="no metric 'Count': its birth names Node Control/Rebirth, count"):
        running.source.command("G1/E1//Count", 1, "a test")
    with pytest.raises(Refused, match="is no Int64"):
        running.source.command("G1/E1//count", 1 << 63, "a test")
    with pytest.raises(Refused, match="is no Int64"):
        running.source.command("G1/E1//count", "true", "a test")
    edge.die()
    running.until(lambda: running.source._nodes["G1/E1"].status == "offline")
    with pytest.raises(Unavailable, match="is not online"):
        running.source.command("G1/E1//count", 1, "a test")


def test_a_command_to_a_broker_that_has_just_gone_is_refused(
    born: tuple[Running, Edge], broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    running, edge = born
    broker.stop()
    until = time.monotonic() + WAIT_S
    while (client := running.source._brokers[0].client) is not None and client.is_connected():
        assert time.monotonic() < until
        time.sleep(0.01)
    with pytest.raises(Unavailable, match="may not have been sent"):  # the host has not looked at its connections yet
        running.source.command("G1/E1//count", 7, "a test")
    assert "what a test wrote to G1/E1//count was not taken by the connection" in caplog.text
    assert not edge.commands


def test_more_nodes_and_metrics_than_there_is_room_for_are_refused_loudly(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "SPARKPLUG_NODES_MAX", 1)
    monkeypatch.setattr(limits, "SPARKPLUG_TAGS_MAX", 3)
    running = host(broker.url)
    edges = [Edge(broker.port), Edge(broker.port, node="E2")]
    edges[0].birth()
    running.until(lambda: running.values(TAG))
    edges[1].birth()
    edges[0].devices = {"D1": {"a": (INT64, 1), "b": (INT64, 1)}}
    edges[0].device_birth("D1")
    running.run(0.5)
    assert not running.values("G1/E1/D1/a")
    edges[0].metrics["count"] = (INT64, 5)
    edges[0].birth(only="NBIRTH")  # what it tells is not counted twice
    running.until(lambda: 5 in running.values(TAG))
    assert "more than 1 edge nodes: name the groups that are wanted" in caplog.text
    assert "more than 3 metrics" in caplog.text
    running.source.close()
    for edge in edges:
        edge.observer.close()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"brokers": []}, "needs a broker"), ({"brokers": ["tcp://x"]}, "write mqtt://host:1883"), ({"brokers": ["mqtt://u:p@x"]}, "the user in username"),
        ({"groups": ["a/b"]}, "group 'a/b'"), ({"mqtt": "4"}, "choose 3.1.1 or 5"), ({"key": Path("k")}, "name both or none"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used_are_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        SparkplugSettings(**{"brokers": ["mqtt://x"], "host_id": HOST_ID, **more})


# -- several brokers


@pytest.fixture
def brokers(mosquitto: str, tmp_path: Path) -> Iterator[list[Mosquitto]]:
    found = [Mosquitto(mosquitto, tmp_path / f"{n}") for n in range(2)]
    yield found
    for one in found:
        one.stop()


def test_a_node_that_moves_to_another_broker_stays_one_producer(brokers: list[Mosquitto]) -> None:
    running = host(*[one.url for one in brokers])
    edge = Edge(brokers[0].port)
    edge.birth()
    running.until(lambda: running.values(TAG))
    edge.say("count", 1)
    running.until(lambda: 1 in running.values(TAG))
    left, late = edge.observer, edge.death()
    edge.port, edge.bd = brokers[1].port, 1
    edge.connect()
    edge.birth()
    edge.say("count", 2)
    running.until(lambda: 2 in running.values(TAG))
    left.publish(edge.topic("NDEATH"), late)  # of the session before, from the broker that it left
    running.run(0.3)
    edge.say("count", 3)
    running.until(lambda: 3 in running.values(TAG))
    assert running.source._nodes["G1/E1"].status == "online"
    assert {one.producer for one in running.observed} == {"G1/E1"}
    assert [n for n in running.values(TAG) if n] == sorted(n for n in running.values(TAG) if n)
    running.source.command("G1/E1//count", 9, "a test")  # goes where the node is now
    end = time.monotonic() + WAIT_S
    while not edge.commands and time.monotonic() < end:
        time.sleep(0.01)
    assert edge.commands
    brokers[0].stop()  # nothing of it is there any more
    running.run(0.5)
    edge.say("count", 4)
    running.until(lambda: 4 in running.values(TAG))
    assert not [r for r in running.readings if r.tag == TAG and r.quality == "bad"]
    running.source.close()
    left.close()
    edge.observer.close()


def test_a_broker_that_goes_takes_only_its_nodes_and_is_tried_again(brokers: list[Mosquitto]) -> None:
    running = host(*[one.url for one in brokers])
    edges = [Edge(brokers[n].port, node=f"E{n}") for n in range(2)]
    for edge in edges:
        edge.birth()
    running.until(lambda: running.values("G1/E0//count") and running.values("G1/E1//count"))
    brokers[0].stop()
    running.until(lambda: [r for r in running.readings if r.quality == "bad"])
    begun = time.monotonic()
    for n in range(1, 40):
        edges[1].say("count", n)
        running.step(0.01)
    running.until(lambda: 39 in running.values("G1/E1//count"))
    assert time.monotonic() - begun < 5  # connecting to one holds up nothing of the other
    assert {r.tag.split("/")[1] for r in running.readings if r.quality == "bad"} == {"E0"}
    brokers[0].start()
    observer = Observer(brokers[0].port, STATE)
    running.until(lambda: observer.on(STATE))
    assert json.loads(observer.on(STATE)[-1].payload)["online"] is True
    running.source.close()
    for edge in edges:
        edge.observer.close()
    observer.close()


# -- history


def test_history_fills_the_gap_and_what_it_leaves_out_stays(broker: Mosquitto, born: tuple[Running, Edge]) -> None:
    running, edge = born
    edge.say("count", 1)
    running.until(lambda: 1 in running.values(TAG))
    edge.die()
    running.until(lambda: [r for r in running.readings if r.tag == TAG][-1].quality == "bad")
    begun = now_ms()
    time.sleep(0.5)
    edge.again()
    edge.birth()
    edge.send("NDATA", [edge.datum("count", 10 + n, at=begun + 200 + n * 10, historical=True) for n in range(5)])
    edge.say("count", 99)
    running.until(lambda: running.filled)
    gap = next(gap for gap in running.gaps if gap.kind == "disconnected")
    assert [(f.gap, f.how) for f in running.filled] == [(gap.id, "history")]
    assert [r.value for r in running.readings if r.historical] == [10, 11, 12, 13, 14]
    rest = [one for one in running.gaps if one.kind == "history"]
    assert (rest[0].since, rest[0].until) == (gap.since, next(r.at for r in running.readings if r.historical))
    running.until(lambda: len(running.filled) == 2, limits.SPARKPLUG_HISTORY_QUIET_S + 3)
    assert running.filled[1].gap == rest[1].id  # after the history there was nothing


# -- a peer that nobody here wrote


class Peer:
    """Eclipse Tahu's JavaScript edge node."""

    def __init__(self, broker: Mosquitto) -> None:
        script = peer("sparkplug") / "node.mjs"
        argv = [node(), str(script), f"tcp://{HOST}:{broker.port}", "Plant", "JS", "Press"]
        self.child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.said.append(json.loads(line))

    def do(self, what: str, **more: Any) -> None:
        assert self.child.stdin is not None
        before = len([one for one in self.said if one.get("done") == what])
        self.child.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self.child.stdin.flush()
        self.until(lambda: len([one for one in self.said if one.get("done") == what]) > before)

    def until(self, reached: Any) -> None:
        end = time.monotonic() + WAIT_S
        while not reached():
            assert self.child.poll() is None
            assert time.monotonic() < end, self.said
            time.sleep(0.01)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        self._reader.join()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                pipe.close()


NODE = [{"name": "Node Control/Rebirth", "type": "Boolean", "value": False}]
DEVICE = [
    {"name": "strokes", "type": "UInt64", "value": "18446744073709551615", "long": "u", "alias": 1},
    {"name": "delta", "type": "Int32", "value": -5, "alias": 2},
    {"name": "far", "type": "Int64", "value": "-9007199254740993", "long": "s", "alias": 3},
    {"name": "force", "type": "Double", "value": 0.1, "alias": 4},
    {"name": "serial", "type": "String", "value": "00123", "alias": 5},
    {"name": "small", "type": "Int8", "value": -1, "alias": 6},
    {"name": "wide", "type": "UInt32", "value": 4294967295, "alias": 7},
    {"name": "raw", "type": "Bytes", "value": "00ff", "bytes": True, "alias": 8},
    {"name": "on", "type": "Boolean", "value": True, "alias": 9, "properties": {"Quality": {"type": "Int32", "value": 500}}},
    {"name": "table", "type": "DataSet", "alias": 10,
     "value": {"numOfColumns": 2, "types": ["String", "UInt32"], "columns": ["a", "b"], "rows": [["x", 7]]}},
]  # fmt: skip


def test_a_javascript_edge_node_is_understood_and_understands(broker: Mosquitto) -> None:
    js = Peer(broker)
    try:
        js.until(lambda: {"connected": True} in js.said)
        js.do("births", node=NODE, device=DEVICE)
        js.do("birth")
        running = host(broker.url)
        js.do("device", metrics=[{"alias": 2, "type": "Int32", "value": -6}])
        running.until(lambda: running.values("Plant/JS/Press/serial"))  # after a rebirth that the JavaScript node read off our NCMD
        assert any("ncmd" in one for one in js.said)
        said = {r.tag.split("/")[-1]: (r.value, r.type) for r in running.readings if r.tag.startswith("Plant/JS/Press/")}
        assert said["strokes"] == (18446744073709551615, "UInt64")
        assert said["far"] == (-9007199254740993, "Int64")
        assert said["force"] == (0.1, "Double")
        assert said["serial"] == ("00123", "String")
        assert said["small"] == (-1, "Int8")
        assert said["wide"] == (4294967295, "UInt32")
        assert said["raw"] == ("00ff", "Bytes")
        assert said["table"] == ('{"columns": ["a", "b"], "types": ["String", "UInt32"], "rows": [["x", 7]]}', "DataSet")
        assert [r.quality for r in running.readings if r.tag == "Plant/JS/Press/on"] == ["bad"]
        assert -6 in running.values("Plant/JS/Press/delta")
        for n in range(300):  # through the end of its numbers
            js.do("device", metrics=[{"alias": 2, "type": "Int32", "value": n}])
            running.step(0.0)
        running.until(lambda: 299 in running.values("Plant/JS/Press/delta"))
        assert running.values("Plant/JS/Press/delta")[-300:] == list(range(300))
        running.source.command("Plant/JS/Press/force", "2.5", "a test")
        running.source.command("Plant/JS/Press/delta", -7, "a test")
        js.until(lambda: len([one for one in js.said if "dcmd" in one]) == 2)
        written = [one for one in js.said if "dcmd" in one]
        assert {one["device"] for one in written} == {"Press"}
        assert [(m["alias"], m["value"]) for one in written for m in one["dcmd"]] == [("4", 2.5), ("2", -7)]
        js.do("dead")
        running.until(lambda: [r for r in running.readings if r.tag == "Plant/JS/Press/serial"][-1].quality == "bad")
        assert not running.gaps
        running.source.close()
    finally:
        js.close()
