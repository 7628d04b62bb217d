"""Our start of Apache Kafka: what it acknowledged is there after kill -9, and nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from events.errors import Unavailable
from hub.app.servers import kafka as server
from hub.app.servers import process
from hub.app.servers.kafka import Kafka
from tests.conftest import need

pytestmark = pytest.mark.kafka
WAIT_S = 30.0


@pytest.fixture(autouse=True)
def _can_run() -> None:
    if reason := server.available():
        need("Kafka", reason)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Kafka]:
    with Kafka(tmp_path / "kafka") as running:
        yield running


def create_topic(brokers: str, topic: str, partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": brokers})  # kept until it has answered
    admin.create_topics([NewTopic(topic, partitions, 1)], operation_timeout=WAIT_S)[topic].result(WAIT_S)


def produce(brokers: str, topic: str, values: list[bytes]) -> None:
    """Returns once the broker has acknowledged every one."""
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 5})
    errors: list[KafkaError] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, message: errors.append(error) if error else None)
    assert producer.flush(WAIT_S) == 0
    assert errors == []


def consume(brokers: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": f"reads-{topic}", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[bytes] = []
        while len(found) < count and (batch := consumer.consume(count - len(found), WAIT_S)):
            for message in batch:
                assert message.error() is None
                found.append(message.value() or b"")
        return found
    finally:
        consumer.close()


def test_messages_and_committed_offsets_survive_kill_9(tmp_path: Path) -> None:
    values = [f"{n}".encode() for n in range(500)]
    folder = tmp_path / "kafka"
    with Kafka(folder) as broker:
        first = broker.brokers
        create_topic(first, "survives")
        produce(first, "survives", values)
        assert consume(first, "survives", len(values)) == values
        group = Consumer({"bootstrap.servers": first, "group.id": "group", "enable.auto.commit": False})
        group.commit(offsets=[TopicPartition("survives", 0, 123)], asynchronous=False)
        group.close()
        os.kill(broker.pid, signal.SIGKILL)
        assert process.wait_until(broker.ended, WAIT_S)
    with Kafka(folder) as broker:
        assert broker.brokers == first, "an address that clients were told stays the same"
        assert consume(broker.brokers, "survives", len(values)) == values
        group = Consumer({"bootstrap.servers": broker.brokers, "group.id": "group"})
        assert [one.offset for one in group.committed([TopicPartition("survives", 0)], timeout=WAIT_S)] == [123]
        group.close()
        produce(broker.brokers, "survives", [b"and goes on"])
        assert consume(broker.brokers, "survives", len(values) + 1)[-1] == b"and goes on"


def test_transactions_are_real(broker: Kafka) -> None:
    create_topic(broker.brokers, "transactions")
    producer = Producer({"bootstrap.servers": broker.brokers, "transactional.id": "t"})
    producer.init_transactions(WAIT_S)
    for value, end in ((b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce("transactions", value)
        assert producer.flush(WAIT_S) == 0
        end(WAIT_S)
    assert consume(broker.brokers, "transactions", 1) == [b"committed"]  # librdkafka reads committed records only


def test_an_unknown_topic_is_an_error_and_not_made(broker: Kafka) -> None:
    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": broker.brokers, "message.timeout.ms": 3000, "topic.metadata.propagation.max.ms": 500})
    try:
        producer.produce("misspelt", b"x", on_delivery=lambda error, message: errors.append(error))
        producer.flush(WAIT_S)
    except KafkaException as refused:
        errors.append(refused.args[0])
    assert [error and error.code() for error in errors] == [KafkaError.UNKNOWN_TOPIC_OR_PART]
    assert "misspelt" not in AdminClient({"bootstrap.servers": broker.brokers}).list_topics(timeout=WAIT_S).topics


def test_a_folder_has_one_broker(broker: Kafka) -> None:
    assert server.address(broker.folder) == broker.brokers
    with pytest.raises(Unavailable, match="run by another process"):
        Kafka(broker.folder).start()


def test_a_taken_port_is_named(broker: Kafka, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"port \d+ of 127\.0\.0\.1 is in use"):
        Kafka(tmp_path / "other", port=int(broker.brokers.rpartition(":")[2])).start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_foreground_command_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    command = server.argv(tmp_path)
    assert command[0] == sys.executable
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        assert running.stdout is not None
        assert "listens on 127.0.0.1:" in running.stdout.readline()
        address = server.address(tmp_path / "kafka")
        assert address
        assert server.answers(address)
        assert f"HUB_KAFKA={address}" in running.stdout.readline()
        running.send_signal(number)
        assert running.wait(WAIT_S) == (-number if number == signal.SIGKILL else 0)
    assert process.wait_until(lambda: server.address(tmp_path / "kafka") is None, WAIT_S)
    assert not server.answers(address)


def test_what_is_missing_is_said_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_LIB", str(tmp_path))
    assert "holds no kafka_*.jar" in (server.available() or "")
    monkeypatch.delenv("KAFKA_LIB")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no java: install Java 17" in (server.available() or "")
    with pytest.raises(Unavailable, match="apt-get install"):
        server.fetch()
