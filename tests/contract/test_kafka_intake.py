"""What Kafka alone can do to intake: rebalances, the poll interval, offsets out of order, transactions, tombstones, a consumer that goes deaf."""

import json
import threading
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from adapters import kafka as adapter_module
from adapters.kafka import KafkaAdapter, asyncapi_document
from events.errors import Unavailable
from hub.app import settings
from hub.app.servers.kafka import Kafka
from hub.app.servers.process import free_port, wait_until
from hub.intake.delivery import Delivery, Outcome
from tests.contract.adapter_sources import WAIT_S, KafkaRoad, KafkaTopic
from tests.contract.adapter_suite import Store, child, drain, facts, receive, running

pytestmark = pytest.mark.kafka
DONE = Outcome("", [])


@pytest.fixture
def store(fresh_database: str) -> Store:
    return Store(fresh_database)


@pytest.fixture
def topic(kafka: Kafka) -> KafkaTopic:
    return KafkaTopic(kafka, 1)


@pytest.fixture
def opened(topic: KafkaTopic) -> Iterator[KafkaAdapter]:
    adapter = topic.road.adapter()
    adapter.open()
    yield adapter
    adapter.close()


def committed(topic: KafkaTopic, offset: int) -> bool:
    return wait_until(lambda: topic.places()[0][0] == offset, 3, every=0.1)


def test_an_offset_is_committed_when_all_before_it_are_done(topic: KafkaTopic, opened: KafkaAdapter) -> None:
    topic.send(facts(0, 10))
    received = receive(opened, 10)
    for n in (3, 4, 9):
        received[n].done(DONE)
    opened.receive(1, 0.6)  # longer than the commit interval
    assert topic.places() == [(0, 10)]
    for n in (1, 0, 2):
        received[n].done(DONE)
    opened.receive(1, 0)
    assert committed(topic, 5), topic.places()
    opened.close()
    assert topic.places() == [(5, 10)]
    opened.open()
    assert [d.headers["offset"] for d in receive(opened, 5)] == ["5", "6", "7", "8", "9"]


def test_a_partition_that_comes_back_within_a_batch_starts_anew() -> None:
    place = adapter_module._Place()
    for offset in (5, 6, 3, 4):
        place.hand_over(offset)
    reached = []
    for offset in (5, 6, 4, 3):
        place.finish(offset)
        reached.append(place.reached)
    assert reached == [None, None, None, 5]


def test_done_after_the_end_of_its_connection_commits_nothing(topic: KafkaTopic, opened: KafkaAdapter) -> None:
    topic.send(facts(0, 4))
    old = receive(opened, 4)
    opened.close()
    opened.open()
    new = receive(opened, 4)
    for delivery in old:
        delivery.done(DONE)
    opened.receive(1, 0.6)
    assert topic.places() == [(0, 4)]
    new[0].done(DONE)
    opened.receive(1, 0)
    assert committed(topic, 1), topic.places()


def test_bytes_key_and_place_are_kept_as_they_are(topic: KafkaTopic, opened: KafkaAdapter) -> None:
    bodies = [b"\x00\xff not json", b'{"a": 1}']
    topic.send(bodies)
    Producer({"bootstrap.servers": topic.road.brokers}).produce(topic.road.topic, b"x", b"\xff\x00")
    received = receive(opened, 2)
    assert [d.body for d in received[:2]] == bodies
    assert [d.transport for d in received[:2]] == ["kafka"] * 2
    name = topic.road.topic
    assert dict(received[1].headers) == {"topic": name, "partition": "0", "offset": "1", "key": "key 1"}


def test_a_tombstone_is_held_and_stops_nothing(topic: KafkaTopic, store: Store) -> None:
    topic.send([facts(0, 1)[0], None, facts(1, 1)[0]])
    drain(topic, store, 2)
    assert store.keys() == ["K0", "K1"]
    assert store.quarantined() == [b""]


def test_a_batch_is_bounded_in_bytes(topic: KafkaTopic, opened: KafkaAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.limits.KAFKA_QUEUE_BYTES_MAX", 1_000_000)
    opened.open()
    topic.send([bytes([n]) * 250_000 for n in range(60)])
    found: list[Delivery] = []
    while len(found) < 60:
        time.sleep(0.3)  # as much as may is there
        batch = opened.receive(200, 5)
        assert sum(len(d.body) for d in batch) < 4_000_000
        found += batch
    assert [d.body[0] for d in found] == list(range(60))


def test_a_topic_that_is_missing_is_named_and_read_when_it_is_there(kafka: Kafka, store: Store) -> None:
    later = KafkaTopic(kafka, 1)
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    admin.delete_topics([later.road.topic])[later.road.topic].result(WAIT_S)
    assert wait_until(lambda: later.road.topic not in admin.list_topics(timeout=WAIT_S).topics, WAIT_S)
    with running(later.road.adapter(), store) as loop:
        assert wait_until(lambda: bool(loop.said), WAIT_S)
        assert f"the topic {later.road.topic} of Kafka at {kafka.brokers} cannot be read" in loop.said[0]
        assert "Unknown topic" in loop.said[0]
        assert "create it" in loop.said[0]
        assert later.road.topic not in admin.list_topics(timeout=WAIT_S).topics, "asking for it must not make it"
        later.create()
        later.send(facts(0, 3))
        assert wait_until(lambda: store.keys() == ["K0", "K1", "K2"], WAIT_S, every=0.1)


def test_no_broker_at_the_address_is_said_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.limits.KAFKA_ANSWER_S", 1.0)
    address = f"127.0.0.1:{free_port()}"
    start = time.monotonic()
    with pytest.raises(Unavailable, match=rf"Kafka at {address} cannot be reached \(.+\): start it or correct HUB_KAFKA"):
        KafkaAdapter(address, ["t"]).open()
    assert time.monotonic() - start < 4


@pytest.mark.trial
def test_members_that_come_and_are_killed_lose_nothing(kafka: Kafka, store: Store) -> None:
    topic = KafkaTopic(kafka, 4)
    second = KafkaRoad(topic.road.brokers, topic.road.topic, "2")
    ends = threading.Event()

    def send() -> None:
        n = 0
        while not ends.is_set():
            topic.send(facts(n, 20))
            n += 20
            time.sleep(0.1)

    sender = threading.Thread(target=send, daemon=True)
    with running(topic.road.adapter(), store) as first:
        sender.start()
        assert wait_until(lambda: bool(store.keys()), WAIT_S)
        with child(second, store):
            assert wait_until(lambda: 0 < _partitions(kafka, topic, "2") < 4, WAIT_S, every=0.1), "the second never got a share"
            time.sleep(0.5)
        assert wait_until(lambda: _partitions(kafka, topic, "1") == 4, WAIT_S, every=0.2), "the first did not take over"
        ends.set()
        sender.join()
        count = topic.sent
        assert wait_until(lambda: len(store.keys()) >= count, WAIT_S, every=0.1), (len(store.keys()), count, first.said)
    assert sorted(store.keys()) == sorted(f"K{n}" for n in range(count))
    assert topic.held() == 0


def _partitions(kafka: Kafka, topic: KafkaTopic, instance: str) -> int:
    """How many partitions the coordinator has given to a member."""
    admin = AdminClient({"bootstrap.servers": kafka.brokers})  # kept until it has answered
    group = admin.describe_consumer_groups([topic.road.topic])[topic.road.topic].result(WAIT_S)
    return sum(
        len(m.assignment.topic_partitions)
        for m in group.members
        if m.group_instance_id == f"{topic.road.topic}-{instance}" and m.assignment
    )


@pytest.mark.trial
def test_a_batch_that_waits_longer_than_the_poll_interval_keeps_its_place(
    topic: KafkaTopic, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.limits.KAFKA_POLL_INTERVAL_S", 6.0)  # no shorter than the session
    store.down()
    topic.send(facts(0, 30))
    with running(topic.road.adapter(), store) as loop:
        assert wait_until(lambda: bool(loop.said), WAIT_S)
        time.sleep(7.5)
        assert topic.places() == [(0, 30)]
        store.up()
        topic.send(facts(30, 5))
        assert wait_until(lambda: len(store.keys()) == 35, WAIT_S, every=0.1), loop.said[-1]
        assert wait_until(lambda: topic.held() == 0, WAIT_S, every=0.1)
    assert store.keys() == [f"K{n}" for n in range(35)]
    assert any("maximum poll interval" in said.lower() for said in loop.said)


def test_a_consumer_that_gives_nothing_though_there_is_something_is_replaced(
    topic: KafkaTopic, opened: KafkaAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.limits.KAFKA_ASK_S", 0.3)
    topic.send(facts(0, 3))
    for delivery in receive(opened, 3):
        delivery.done(DONE)
    session = opened._session
    assert session is not None
    session._consumer.pause(session._consumer.assignment())  # connected, a member, and deaf
    topic.send(facts(3, 2))
    with pytest.raises(Unavailable, match=r"\[0\] has some from 3 to 5 and gave none"):
        receive(opened, 1)
    opened.close()
    opened.open()
    assert [d.headers["offset"] for d in receive(opened, 2)] == ["3", "4"]


def test_what_a_transaction_took_back_or_holds_open_is_neither_read_nor_waited_for(
    topic: KafkaTopic, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.limits.KAFKA_ASK_S", 0.3)
    producer = Producer({"bootstrap.servers": topic.road.brokers, "transactional.id": topic.road.topic})
    producer.init_transactions(WAIT_S)
    for first, end in ((0, producer.commit_transaction), (2, producer.abort_transaction)):
        producer.begin_transaction()
        for body in facts(first, 2):
            producer.produce(topic.road.topic, body, partition=0)
        end(WAIT_S)
    with running(topic.road.adapter(), store):
        assert wait_until(lambda: len(store.keys()) == 2, WAIT_S)
    producer.begin_transaction()
    producer.produce(topic.road.topic, facts(4, 1)[0], partition=0)
    assert producer.flush(WAIT_S) == 0
    with running(topic.road.adapter(), store) as loop:  # begins where what was taken back and what is still open is all there is
        time.sleep(2)
        assert loop.said == []
        producer.commit_transaction(WAIT_S)
        assert wait_until(lambda: len(store.keys()) == 3, WAIT_S)
    assert store.keys() == ["K0", "K1", "K4"]
    assert loop.said == []


def test_a_broker_that_falls_silent_does_not_hold_up_the_end(topic: KafkaTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.limits.KAFKA_ANSWER_S", 1.0)
    topic.send(facts(0, 2))
    adapter = topic.road.adapter()
    adapter.open()
    for delivery in receive(adapter, 2):
        delivery.done(DONE)
    topic.freeze()
    try:
        start = time.monotonic()
        adapter.close()
        assert time.monotonic() - start < 3
    finally:
        topic.thaw()


def test_two_hubs_under_one_name_are_told(topic: KafkaTopic, opened: KafkaAdapter) -> None:
    topic.send(facts(0, 1))
    receive(opened, 1)
    other = topic.road.adapter()
    other.open()
    receive(other, 1)
    try:
        with pytest.raises(Unavailable, match="fenced"):
            receive(opened, 1)
    finally:
        other.close()


def test_the_document_needs_no_broker_and_is_always_the_same() -> None:
    document = asyncapi_document()
    assert json.dumps(document) == json.dumps(asyncapi_document())
    assert [channel["address"] for channel in document["channels"].values()] == list(settings.DEFAULT_KAFKA_TOPICS)
    assert (adapter_module.TOPIC,) == settings.DEFAULT_KAFKA_TOPICS
