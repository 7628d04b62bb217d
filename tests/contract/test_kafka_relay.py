"""The Kafka relay: what is on the topic, in which order, what happens when topic, broker, log or position are not as they should be."""

import contextlib
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from confluent_kafka import KafkaError
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from eventsourcing.persistence import StoredEvent

from adapters.kafka_relay import Relay, _Session, restart
from events.base import Envelope, Fact
from events.errors import Corrupt, Refused, Unavailable
from hub import limits, points
from hub.app import answers
from hub.app.cli.health import _relay as checked
from hub.app.servers.kafka import Kafka
from hub.app.servers.postgres import Database
from hub.app.servers.process import free_port, wait_until
from hub.app.settings import Settings
from hub.app.wiring import Hub, views
from hub.log.migrate import migrate
from hub.log.recorder import LogRecorder
from hub.log.store import Log
from replay.promote import promote
from replay.rebuild import rebuild
from tests.crash.topic import Account, account, read_raw, read_topic
from tests.facts import as_role, fact, received, thing

pytestmark = pytest.mark.kafka
WAIT_S = 30.0


class Stand:
    """A log, a topic and the relay between them."""

    def __init__(self, owner_url: str, kafka: Kafka, partitions: int = 3) -> None:
        self.owner, self.kafka, self.topic = owner_url, kafka, f"relay-{uuid.uuid4().hex[:12]}"
        self.admin = AdminClient({"bootstrap.servers": kafka.brokers})
        self.create(partitions)
        migrate(owner_url)
        self.log = Log(as_role(owner_url, "hub_door"))
        self.relay = self.new()

    def new(self) -> Relay:
        return Relay(as_role(self.owner, "hub_follow"), self.kafka.brokers, self.topic)

    def create(self, partitions: int = 3, **config: str) -> None:
        self.admin.create_topics([NewTopic(self.topic, partitions, 1, config=config)], operation_timeout=WAIT_S)[self.topic].result(WAIT_S)

    def remove(self) -> None:
        self.admin.delete_topics([self.topic], operation_timeout=WAIT_S)[self.topic].result(WAIT_S)
        assert wait_until(lambda: self.topic not in self.admin.list_topics(timeout=WAIT_S).topics, WAIT_S)

    def set(self, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self.topic, incremental_configs=[entry])
        self.admin.incremental_alter_configs([resource])[resource].result(WAIT_S)

    def fill(self, count: int, first: int = 0, streams: int = 7) -> None:
        """Facts of so many streams."""
        self.log.append(
            [received(f"R{n}", "A", f"L{n % streams}", "1", n, receipt=f"R-{n % streams}") for n in range(first, first + count)]
        )

    def publish(self) -> None:
        """Until all is reported."""
        self.relay.ensure()
        while self.relay.step():
            pass

    def account(self) -> Account:
        rows = self.ask("select position, key::text, stream, version, type, data from log.event order by position")
        return account(rows, read_topic(self.kafka.brokers, self.topic))

    def position(self) -> int:
        return int(self.ask("select position from relay.position")[0][0])

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.owner, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def restart(self, first: int) -> int:
        with psycopg.connect(as_role(self.owner, "hub_follow")) as connection, connection.cursor() as cursor:
            return restart(cursor, first)

    def end(self) -> None:
        self.relay._leave()
        self.relay.close()
        self.log.close()


@pytest.fixture
def stand(fresh_database: str, kafka: Kafka) -> Iterator[Stand]:
    made = Stand(fresh_database, kafka)
    yield made
    made.end()


@contextlib.contextmanager
def running(relay: Relay) -> Iterator[list[str]]:
    """The relay's own loop in a thread; what it reports."""
    said: list[str] = []
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=(stop, said.append))
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()


@contextlib.contextmanager
def dies_at(point: str, nth: int = 1) -> Iterator[None]:
    """As if the process were killed when it reaches a point: nothing of it is done after that."""
    left = nth

    def act(name: str) -> None:
        nonlocal left
        left -= name == point
        if left == 0:
            raise KeyboardInterrupt(point)

    points.arm(act)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        points.arm(None)


def test_a_fact_is_a_cloudevent_for_an_outsider(stand: Stand) -> None:
    at, effective = datetime(2026, 1, 5, 6, tzinfo=UTC), datetime(2026, 1, 5, 7, 30, tzinfo=UTC)
    event = received("x", "A", "Lé", "2.50").event
    envelope = Envelope(
        source="erp süd:main", key="R/1", occurred_at=at, effective_at=effective, correlation="C-1", causation="Ca", actor="bob",
        mapping="m/1", raw="ab", details={"bizStep": "receiving"},
    )  # fmt: skip
    stand.log.append([Fact(envelope, event)])
    stand.publish()
    ((_, _, key, value, headers),) = read_raw(stand.kafka.brokers, stand.topic)
    found = from_binary(KafkaMessage(headers, key, value), JSONFormat())
    ((id_, recorded),) = stand.ask(
        "select key, to_char(recorded_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from log.event"
    )
    assert found.get_data() == json.loads(event.json())
    assert value == event.json()
    assert {name: text for name, text in found.get_attributes().items() if name != "recordedat"} == {
        "specversion": "1.0", "id": str(id_), "source": "erp%20s%C3%BCd:main", "type": "procurement.goods_received", "subject": event.stream(),
        "time": at, "datacontenttype": "application/json", "partitionkey": event.stream(), "position": "1", "streamversion": "1",
        "schemaversion": str(event.version), "businesskey": "R/1", "effectiveat": "2026-01-05T07:30:00Z", "timequality": "offset",
        "correlationid": "C-1", "causationid": "Ca", "actor": "bob", "mapping": "m/1", "raw": "ab", "details": '{"bizStep":"receiving"}',
    }  # fmt: skip
    assert datetime.fromisoformat(found.get_extension("recordedat")) == datetime.fromisoformat(str(recorded))


def test_the_whole_log_is_on_the_topic_in_the_order_of_each_stream(stand: Stand) -> None:
    stand.fill(5000)
    stand.fill(5000, 5000, 5000)
    stand.log.append([fact("L", "masterdata.item_defined", {"item": "A", "base_unit": "EA"})])
    with running(stand.relay) as said:
        assert wait_until(lambda: stand.log.head() == 10_001 and _at(stand) == 10_001, WAIT_S)
        stand.fill(10, 20_000)
        assert wait_until(lambda: _at(stand) == 10_011, WAIT_S)
    assert said == []
    assert stand.account() == Account()


def _at(stand: Stand) -> int:
    try:
        return stand.position()
    except psycopg.errors.UndefinedTable:
        return -1


def test_old_data_and_aggregates_are_published_as_they_are_stored(stand: Stand) -> None:
    old = {"order": "O", "things": [thing("B", "M")], "location": "FG"}
    stand.log.append([fact("P", "production.output_produced", {"output": "P", **old})])
    stand.ask("set session_replication_role = replica; update log.event set schema_version = 1, data = '{\"old\":1}'")
    LogRecorder(stand.log).insert_events([StoredEvent("order-7", 1, "decided", b"\x00\xff not JSON")])
    stand.publish()
    found = {headers["ce_position"]: (value, headers) for *_, value, headers in read_raw(stand.kafka.brokers, stand.topic)}
    assert (found[b"1"][0], found[b"1"][1]["ce_schemaversion"]) == (b'{"old":1}', b"1")
    assert (found[b"2"][0], found[b"2"][1]["content-type"]) == (b"\x00\xff not JSON", b"application/octet-stream")


@pytest.mark.parametrize("point", points.RELAY)
def test_what_was_not_noted_comes_again_and_nothing_is_left_out(stand: Stand, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READ_BATCH_MAX", 40)
    monkeypatch.setattr(limits, "RELAY_IN_FLIGHT_MAX", 80)
    stand.fill(300)
    with dies_at(point, 2):
        stand.publish()
    noted = stand.position()
    stand.relay.close()
    stand.relay = stand.new()
    stand.publish()
    found = stand.account()
    assert (found.lost, found.left_out, found.misordered, found.different) == (0, 0, 0, 0)
    assert found.turns <= 3
    assert noted < 300
    assert stand.position() == 300
    if point != "relay moved":
        assert found.again


def test_the_position_never_runs_ahead_of_the_reports(stand: Stand, kafka: Kafka) -> None:
    stand.fill(50)
    stand.publish()
    os.kill(kafka.pid, signal.SIGSTOP)
    try:
        stand.fill(50, 50)
        for _ in range(20):
            stand.relay.step()
        assert stand.position() == 50
    finally:
        os.kill(kafka.pid, signal.SIGCONT)
    while stand.relay.step():
        pass
    assert stand.position() == 100
    assert stand.account() == Account()


def test_a_broker_that_reports_nothing_is_told(stand: Stand, kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KAFKA_ANSWER_S", 1.0)
    stand.fill(50)
    stand.publish()
    monkeypatch.setattr(limits, "RELAY_SILENT_S", 2.0)
    with running(stand.relay) as said:
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            stand.fill(50, 50)
            assert wait_until(lambda: any("no report for" in text for text in said), WAIT_S)
            assert wait_until(lambda: any("cannot be reached" in text for text in said), WAIT_S)
            assert "start it or correct HUB_RELAY" in str(stand.ask("select reason from relay.trouble"))
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
        assert wait_until(lambda: stand.position() == 100, WAIT_S)
    assert stand.ask("select reason from relay.trouble") == []
    found = stand.account()
    assert (found.lost, found.left_out, found.misordered, found.different) == (0, 0, 0, 0)


@pytest.mark.trial
def test_a_broker_that_is_killed_and_comes_back_gets_the_rest(fresh_database: str, tmp_path: Path) -> None:
    with Kafka(tmp_path / "kafka") as broker:
        stand = Stand(fresh_database, broker)
        stand.fill(500)
        with running(stand.relay) as said:
            assert wait_until(lambda: _at(stand) == 500, WAIT_S)
            broker.kill()
            stand.fill(500, 500)
            assert wait_until(lambda: bool(said), WAIT_S)
            broker.start()
            assert wait_until(lambda: stand.position() == 1000, WAIT_S), said
        found = stand.account()
        stand.end()
    assert (found.lost, found.left_out, found.misordered, found.different) == (0, 0, 0, 0)


# -- what is told ----------------------------------------------------------------------------------------------------------------------


def test_a_topic_that_is_missing_is_named_and_written_when_it_is_there(stand: Stand) -> None:
    stand.fill(5)
    stand.remove()
    with running(stand.relay) as said:
        assert wait_until(lambda: bool(said), WAIT_S)
        assert f"the topic {stand.topic} of Kafka at {stand.kafka.brokers} cannot be written" in said[0]
        assert "create it" in said[0]
        assert stand.topic not in stand.admin.list_topics(timeout=WAIT_S).topics, "asking for it must not make it"
        stand.create()
        assert wait_until(lambda: _at(stand) == 5, WAIT_S)
    assert stand.account() == Account()


def test_no_broker_at_the_address_is_said_soon(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KAFKA_ANSWER_S", 1.0)
    address = f"127.0.0.1:{free_port()}"
    relay = Relay(as_role(stand.owner, "hub_follow"), address, stand.topic)
    with pytest.raises(Unavailable, match=rf"Kafka at {address} cannot be reached \(.+\): start it or correct HUB_RELAY"):
        relay.ensure()
    relay.close()


def test_a_compacted_topic_is_refused(stand: Stand) -> None:
    stand.set("cleanup.policy", "compact,delete")
    with pytest.raises(Unavailable, match="is compacted"):
        stand.relay.ensure()
    stand.set("cleanup.policy", "delete")
    stand.publish()


def _large(n: int, size: int) -> Fact:
    data = {"receipt": f"R-{n % 7}", "things": [thing("A", f"L{k}") for k in range(size // 60)], "location": "WH", "supplier": "ACME"}
    return fact(f"R{n}", "procurement.goods_received", data, n)


def _blocked(stand: Stand) -> str:
    """Publish until it goes on no more; why."""
    with pytest.raises(Unavailable) as told:
        stand.publish()
    return str(told.value)


def test_a_fact_that_the_topic_does_not_take_holds_up_what_is_behind_it_and_is_named(stand: Stand) -> None:
    stand.set("max.message.bytes", "20000")
    stand.fill(100)
    stand.log.append([_large(100, 30_000)])
    stand.fill(100, 101)
    said = _blocked(stand)
    assert "takes messages of at most 20000 bytes, and the fact at position 101 makes" in said
    assert "raise max.message.bytes of the topic" in said
    assert stand.position() == 100
    assert stand.ask("select reason from relay.trouble") == [(said,)]
    _blocked(stand)
    assert stand.account().again == 0, "what was reported is not sent again by every attempt"
    stand.set("max.message.bytes", "100000")
    stand.publish()
    assert stand.account() == Account()
    assert stand.ask("select reason from relay.trouble") == []


def test_a_fact_is_left_out_only_by_a_person(stand: Stand) -> None:
    stand.set("max.message.bytes", "20000")
    stand.log.append([_large(0, 30_000)])
    stand.fill(20, 1)
    assert "`hub relay restart --from 2` leaves it out" in _blocked(stand)
    assert stand.restart(2) == 0
    stand.publish()
    assert stand.account().lost == 1
    assert stand.position() == 21


def test_a_message_that_the_broker_refuses_lets_none_of_its_stream_pass(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_BATCH_BYTES", 5_000)  # so that it goes alone, and others behind it
    poll = _Session.poll

    def late(self: _Session, wait_s: float) -> None:
        time.sleep(0.5)  # the client has time to go on by itself
        poll(self, wait_s)

    monkeypatch.setattr(_Session, "poll", late)
    stand.fill(7)
    stand.publish()
    stand.set("max.message.bytes", "20000")  # which the relay, being connected, does not know
    stand.log.append([_large(n, 30_000 if n % 3 == 0 else 300) for n in range(7, 70)])
    first = stand.ask("select min(position) from log.event where length(data) > 20000")[0][0]
    with pytest.raises(Unavailable, match=r"takes no more facts|makes"):
        stand.publish()
    assert stand.position() < int(first)
    stand.set("max.message.bytes", "100000")
    stand.publish()
    found = stand.account()
    assert (found.lost, found.misordered, found.different) == (0, 0, 0)


def test_a_topic_that_was_made_anew_is_not_written_on_as_if_nothing_were_missing(stand: Stand) -> None:
    stand.fill(20)
    stand.publish()
    stand.relay._leave()
    stand.remove()
    stand.create()
    with pytest.raises(Corrupt, match=r"was made anew since .*: run `hub relay restart --from 1`"):
        stand.publish()
    assert "made anew" in str(stand.ask("select reason from relay.trouble"))
    stand.restart(1)
    stand.publish()
    assert stand.account() == Account()


def test_another_topic_needs_a_word(stand: Stand) -> None:
    stand.fill(20)
    stand.publish()
    stand.end()
    stand.topic += "-2"
    stand.create()
    stand.relay = stand.new()
    with pytest.raises(Corrupt, match=r"is one in the topic relay-\w+, not in .*-2: set HUB_RELAY_TOPIC back, or run `hub relay restart"):
        stand.publish()
    assert stand.restart(1) == 20
    stand.publish()
    assert stand.account() == Account()


@pytest.mark.parametrize("grown", [0, 40])
def test_a_log_that_was_restored_is_noticed(stand: Stand, grown: int) -> None:
    stand.fill(100)
    stand.publish()
    stand.relay.close()
    stand.ask("set session_replication_role = replica; delete from log.event where position > 60")
    stand.log.close()
    stand.fill(grown, 200)
    with pytest.raises(Corrupt, match=r"the Kafka relay is at position 100, but the log .*`hub relay restart --from POSITION`"):
        stand.publish()
    assert len(read_topic(stand.kafka.brokers, stand.topic)) == 100


def test_a_position_that_is_lost_is_not_taken_for_a_new_relay(stand: Stand) -> None:
    stand.fill(10)
    stand.publish()
    stand.ask("delete from relay.position")
    with pytest.raises(Corrupt, match="the Kafka relay has lost its position"):
        stand.relay.step()
    with pytest.raises(Corrupt, match="the Kafka relay has lost its position"):
        stand.publish()


def test_a_running_relay_notices_that_it_is_to_begin_again(stand: Stand) -> None:
    stand.fill(30)
    with running(stand.relay) as said:
        assert wait_until(lambda: _at(stand) == 30, WAIT_S)
        stand.restart(11)
        assert wait_until(lambda: len(read_topic(stand.kafka.brokers, stand.topic)) == 50, WAIT_S, every=0.2), said
        assert wait_until(lambda: stand.position() == 30, WAIT_S)
    assert "somebody set it" in said[0]
    with pytest.raises(Refused, match="has no fact at position 31"):
        stand.restart(32)


def test_one_relay_a_log(stand: Stand) -> None:
    stand.fill(10)
    stand.publish()
    second = stand.new()
    with pytest.raises(Unavailable, match="another relay publishes this log already"):
        second.ensure()
    stand.relay.close()
    second.ensure()
    second._leave()
    second.close()


def test_partitions_that_are_added_move_no_stream(stand: Stand) -> None:
    stand.fill(50)
    stand.publish()
    stand.admin.create_partitions([NewPartitions(stand.topic, 9)])[stand.topic].result(WAIT_S)
    stand.end()
    stand.relay = stand.new()
    assert wait_until(lambda: len(stand.admin.list_topics(stand.topic, timeout=WAIT_S).topics[stand.topic].partitions) == 9, WAIT_S)
    stand.fill(50, 50)
    stand.publish()
    assert stand.account() == Account()


# -- beside the rest of the hub --------------------------------------------------------------------------------------------------------


def test_rebuilding_and_promoting_views_sends_nothing(stand: Stand) -> None:
    stand.fill(60)
    stand.publish()
    url = as_role(stand.owner, "hub_follow")
    rebuild(url, views())
    promote(url, views())
    stand.publish()
    assert stand.position() == 60
    assert len(read_topic(stand.kafka.brokers, stand.topic)) == 60


def test_status_and_doctor_tell_position_lag_and_trouble(stand: Stand, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, relay_brokers=stand.kafka.brokers, relay_topic=stand.topic)
    hub = Hub(settings, Database(stand.owner))

    def doctor() -> tuple[str, str]:
        ((_, seen, step),) = checked(hub, answers.status(hub))
        return seen, step

    try:
        assert answers.status(hub)["relay"] is None
        assert doctor()[0] == "not there yet"
        stand.fill(5)
        stand.publish()
        assert answers.status(hub)["relay"] == {"topic": stand.topic, "position": 5, "lag": 0, "lag_s": 0.0, "trouble": None}
        assert doctor() == (f"to {stand.topic}, at 5, 0 behind", "")
        stand.fill(5, 5)
        found = answers.status(hub)["relay"]
        assert (found["position"], found["lag"], found["trouble"]) == (5, 5, None)
        assert 0 < found["lag_s"] < WAIT_S
        stand.set("max.message.bytes", "1000")
        stand.log.append([_large(10, 3000)])
        stand.relay._leave()
        said = _blocked(stand)
        assert answers.status(hub)["relay"]["trouble"] == said
        assert doctor() == (f"to {stand.topic}, at 10, 1 behind", said)
        stand.ask("update relay.position set position = 4")
        assert "the log has another fact there" in answers.status(hub)["relay"]["trouble"]
    finally:
        hub.log.close()


def test_a_relay_that_does_not_run_is_wrong_when_it_is_late(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(Settings(home=tmp_path, relay_brokers=stand.kafka.brokers, relay_topic=stand.topic), Database(stand.owner))
    stand.publish()
    stand.fill(1)
    monkeypatch.setattr(limits, "READY_LAG_S", 0.0)
    ((_, _, step),) = checked(hub, answers.status(hub))
    assert "hub-relay does not run, start the hub" in step


def test_the_client_that_is_given_up_is_told_by_its_own_words(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.fill(5)
    stand.publish()
    session = stand.relay._session
    assert session is not None
    session._on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "2/2 brokers are down"))
    with pytest.raises(Unavailable, match=r"takes no more facts .*brokers are down"):
        stand.relay.step()
    stand.publish()
