"""The laws that every adapter obeys, run on all transports against their real far sides; `adapter_sources.py` has these.

What arrived is counted in the database, what is acknowledged at the source.
"""

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.app.servers.kafka import Kafka
from hub.app.servers.process import wait_until
from hub.intake.door import Loop
from tests.contract.adapter_http import Http
from tests.contract.adapter_mqtt import mosquitto_source, nats_source
from tests.contract.adapter_sources import WAIT_S, Folder, KafkaTopic, Source
from tests.contract.adapter_suite import Store, Witness, child, drain, facts, receive, running, settle

DIALLED = ["mosquitto", "nats", "folder", pytest.param("kafka", marks=pytest.mark.kafka)]
BROKERS = ["mosquitto", "nats", pytest.param("kafka", marks=pytest.mark.kafka)]
ALL = [*DIALLED, "http"]


@pytest.fixture
def store(fresh_database: str) -> Store:
    return Store(fresh_database)


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    match request.param:
        case "mosquitto":
            with mosquitto_source(request.getfixturevalue("mosquitto"), tmp_path) as broker:
                yield broker
        case "nats":
            with nats_source(tmp_path) as broker:
                yield broker
        case "folder":
            yield Folder(tmp_path / "watched")
        case "kafka":
            kafka: Kafka = request.getfixturevalue("kafka")
            yield KafkaTopic(kafka)
        case "http":
            clients = Http()
            yield clients
            clients.close()


every_source = pytest.mark.parametrize("source", ALL, indirect=True)
every_dialled_source = pytest.mark.parametrize("source", DIALLED, indirect=True)
every_broker = pytest.mark.parametrize("source", BROKERS, indirect=True)


def in_lanes(keys: list[str], lanes: int) -> list[list[str]]:
    return [[key for key in keys if int(key[1:]) % lanes == lane] for lane in range(lanes)]


@every_source
def test_each_delivery_arrives_once_whole_and_in_its_order(source: Source, store: Store) -> None:
    sent = facts(0, 80)
    source.send(sent[:40])
    drain(source, store, 40)
    source.send(sent[40:])  # after the end of one connection, before the beginning of the next
    drain(source, store, 80)
    assert sorted(store.bodies()) == sorted(sent)
    keys = store.keys()
    assert in_lanes(keys, source.lanes) == in_lanes([f"K{n}" for n in range(80)], source.lanes)


@every_source
def test_nothing_is_acknowledged_before_it_is_durable(source: Source, store: Store) -> None:
    store.down()
    source.send(facts(0, 12))
    with running(source.road.adapter(), store) as loop:
        assert wait_until(lambda: len(loop.said) >= 2, WAIT_S), "the log is out of reach and nobody says so"
    assert loop.witness.outcomes == []
    assert source.held() == 12
    store.up()
    assert store.keys() == []
    drain(source, store, 12)
    assert sorted(store.keys()) == sorted(f"K{n}" for n in range(12))


@every_source
def test_a_log_that_comes_back_is_found_by_the_same_connection(source: Source, store: Store) -> None:
    store.down()
    source.send(facts(0, 12))
    with running(source.road.adapter(), store) as loop:
        assert wait_until(lambda: len(loop.said) >= 2, WAIT_S)
        store.up()
        assert wait_until(lambda: len(store.keys()) == 12, WAIT_S, every=0.05)
        settle(loop)
    assert source.held() == 0


@every_source
@pytest.mark.parametrize("durable", [False, True], ids=["not durable", "durable"])
def test_what_was_received_and_not_acknowledged_comes_again(source: Source, store: Store, durable: bool) -> None:
    source.send(facts(0, 12))
    adapter = source.road.adapter()
    adapter.open()
    received = receive(adapter, min(12, source.lanes if not source.takes_empty else 12))  # an HTTP client waits for one answer at a time
    if durable:
        witness = Witness(store)
        witness.take(received)
        witness.log.close()
    adapter.close()
    assert source.held() == 12
    outcomes = drain(source, store, 12)
    assert sorted(store.keys()) == sorted(f"K{n}" for n in range(12))
    again = [o for o in outcomes if o.sha256 in {hashlib.sha256(d.body).hexdigest() for d in received}]
    assert len(again) >= len(received)
    assert not durable or {o.outcome for o in again} == {"duplicate"}


@every_source
@pytest.mark.parametrize("how", ["error", "stop"])
def test_a_batch_that_was_given_up_comes_again_to_the_same_loop(source: Source, store: Store, how: str) -> None:
    source.send(facts(0, 12))
    witness = Witness(store, faults=1 if how == "error" else 0)
    said: list[str] = []
    loop = Loop(source.road.adapter(), witness, said.append)
    stop = threading.Event()
    if how == "error":
        with pytest.raises(ArithmeticError):
            loop.run(stop)
    else:
        store.down()
        stepping = threading.Thread(target=_step, args=(loop, stop), daemon=True)
        stepping.start()
        assert wait_until(lambda: bool(said), WAIT_S)
        stop.set()
        stepping.join(WAIT_S)
        store.up()
        stop.clear()
    thread = threading.Thread(target=loop.run, args=(stop,), daemon=True)  # as the worker goes on after an error
    thread.start()
    assert wait_until(lambda: len(store.keys()) == 12, WAIT_S, every=0.05), len(store.keys())
    time.sleep(0.2)
    stop.set()
    thread.join(WAIT_S)
    witness.log.close()
    assert wait_until(lambda: source.held() == 0, WAIT_S)


def _step(loop: Loop, stop: threading.Event) -> None:
    while not stop.is_set():
        loop.step(stop)


@every_source
def test_garbage_is_held_and_acknowledged_and_stops_nothing(source: Source, store: Store) -> None:
    good = facts(0, 6)
    garbage = [b"\x00\xff\xfe garbage \x80", b"{]", "ÄÖÜ".encode("utf-16"), good[0][:-9]]
    empty = [b""]
    sent = [good[0], garbage[0], *empty, good[1], *garbage[1:], *empty, *good[2:]]
    source.send(sent)
    drain(source, store, len(good))
    assert sorted(store.keys()) == [f"K{n}" for n in range(6)]
    expected = garbage + (empty if source.takes_empty else [])
    assert wait_until(lambda: sorted(store.quarantined()) == sorted(expected), WAIT_S)
    assert sorted(store.bodies()) == sorted(good + expected)


@every_source
def test_a_receive_is_bounded_in_number_and_time(source: Source, store: Store) -> None:
    adapter = source.road.adapter()
    adapter.open()
    try:
        start = time.monotonic()
        while time.monotonic() - start < 0.5:  # a first connection may take a moment
            assert adapter.receive(3, 0.1) == []
        start = time.monotonic()
        assert adapter.receive(3, 0.2) == []
        assert time.monotonic() - start < 1.0
        source.send(facts(0, 1))
        start = time.monotonic()
        assert len(adapter.receive(3, 5.0)) == 1
        assert time.monotonic() - start < 3.0, "it waited for more than the first"
        source.send(facts(1, 3))
        time.sleep(0.3)  # all of them are there to be had
        assert len(adapter.receive(2, 5.0)) <= 2
        assert len(receive(adapter, 1, 2)) >= 1
    finally:
        adapter.close()


@every_dialled_source
def test_a_source_that_is_gone_is_named_and_found_again(source: Source, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.limits.KAFKA_ANSWER_S", 1.0)
    source.send(facts(0, 6))
    place = source.road.adapter().name.split()[-1]
    with running(source.road.adapter(), store) as loop:
        assert wait_until(lambda: len(store.keys()) == 6, WAIT_S, every=0.05)
        source.stop()
        try:
            assert wait_until(lambda: bool(loop.said), 5), "it is not noticed soon"
            assert wait_until(lambda: len(loop.said) >= 2, WAIT_S)  # the connection that was there, and a new one
        finally:
            source.start()
        source.send(facts(6, 6))
        assert wait_until(lambda: len(store.keys()) == 12, WAIT_S, every=0.05), loop.said[-1]
        settle(loop)
    assert source.held() == 0
    for said in loop.said:
        assert place in said.partition(": ")[2]  # the object
        assert "(" in said or "lost" in said or "no heartbeat" in said  # the cause
        assert any(word in said for word in ("start it", "bring it back", "connecting again"))  # the next step


@every_broker
def test_a_source_that_falls_silent_is_noticed(source: Source, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.mqtt.HEARTBEAT_S", 0.3)
    monkeypatch.setattr("adapters.mqtt.SILENT_S", 0.8)
    monkeypatch.setattr("adapters.mqtt.CONNECT_S", 1.0)
    monkeypatch.setattr("hub.limits.KAFKA_ASK_S", 0.5)
    monkeypatch.setattr("hub.limits.KAFKA_ANSWER_S", 1.0)
    source.send(facts(0, 2))
    with running(source.road.adapter(), store) as loop:
        assert wait_until(lambda: len(store.keys()) == 2, WAIT_S, every=0.05)
        time.sleep(1.2)
        assert loop.said == [], "a quiet source is not a dead one"
        source.freeze()
        try:
            assert wait_until(lambda: bool(loop.said), 8), "nobody noticed"
        finally:
            source.thaw()
        source.send(facts(2, 2))
        assert wait_until(lambda: len(store.keys()) == 4, WAIT_S, every=0.05), loop.said[-1]
        settle(loop)
    assert source.held() == 0


@pytest.mark.trial
@every_source
def test_kill_9_amid_traffic_loses_nothing_and_doubles_nothing(source: Source, store: Store) -> None:
    sent: list[bytes] = []
    ends = threading.Event()

    def send() -> None:
        while not ends.is_set():
            burst = facts(len(sent), 60)
            source.send(burst)
            sent.extend(burst)
            ends.wait(0.2)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    for delay_s in (0, 0.005, 0.02, 0.3, 0):
        before = store.count()
        with child(source.road, store):  # killed amid a burst, just after the first batch that it made durable
            assert wait_until(lambda before=before: store.count() > before, WAIT_S, every=0.001)  # type: ignore[misc]
            time.sleep(delay_s)
    ends.set()
    sender.join(WAIT_S)
    drain(source, store, len(sent))
    assert sorted(store.keys()) == sorted(f"K{n}" for n in range(len(sent)))
    assert sorted(store.bodies()) == sorted(sent)
