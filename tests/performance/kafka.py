"""The Kafka rows, with one real broker for the whole run: the relay out against a plain producer of the same bytes, intake against a plain consumer.

Timed with everybody connected: from the first fact after a few that went before, to the last report (out) or the last durable fact (in).
"""

import contextlib
import gc
import json
import os
import tempfile
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, Producer

from adapters.kafka import KafkaAdapter
from adapters.kafka_relay import Relay, messages
from events import canonical
from hub.app.servers import kafka
from hub.app.wiring import mappings
from hub.intake.door import Intake, Loop
from hub.log.group import GroupLog
from hub.log.store import Log, read_rows
from tests.crash.roads import make_topic
from tests.crash.topic import read_raw
from tests.facts import as_role
from tests.performance import append
from tests.performance.intake import posted_row
from tests.performance.report import Against, Row, Sample, measure

PARTITIONS = 3
WARM = 10  # facts that go before
WAIT_S = 60.0
SETTINGS = f"Apache Kafka {kafka.VERSION}, one node, {PARTITIONS} partitions, each append flushed before it is acknowledged"


def rows(bench: append.Bench, only: str, kept: contextlib.ExitStack) -> Iterator[list[Row]]:
    """The rows of this file whose name begins with `only`."""
    names = [name for name in ("kafka-in", "kafka-out") if name.startswith(only)]
    if not names:
        return
    if reason := kafka.available():
        if os.environ.get("HUB_CI") == "1":
            raise RuntimeError(f"Kafka: {reason}")
        print(f"{' and '.join(names)}: not measured, {reason}", flush=True)
        return
    b = Bench(bench, kept.enter_context(kafka.Kafka(Path(kept.enter_context(tempfile.TemporaryDirectory())) / "kafka")).brokers)
    if "kafka-in" in names:
        topic, relayed = b.filled_topic(), Against("consume and decode JSON", ">=", 0.15)
        yield measure("kafka-in", "facts/s", lambda: b.taken_in(topic), {relayed: lambda: b.consumed(topic)}, bench.rounds, SETTINGS)
    if "kafka-out" in names:
        with bench.log_url() as url:
            sent, plain = b.fill(url), Against("plain idempotent producer", ">=", 0.4)
            yield measure("kafka-out", "facts/s", lambda: b.relayed(url), {plain: lambda: b.produced(sent)}, bench.rounds, SETTINGS)


class Bench:
    """What the rows share: the facts, and a broker."""

    def __init__(self, bench: append.Bench, brokers: str) -> None:
        self.bench, self.brokers, self.facts = bench, brokers, append.facts(WARM, 99) + bench.facts
        gc.freeze()  # as the hub's processes do when they start: these facts are no part of what is measured

    def topic(self) -> str:
        """An empty topic."""
        name = f"bench-{uuid.uuid4().hex[:12]}"
        make_topic(self.brokers, name, PARTITIONS)
        return name

    # -- out ---------------------------------------------------------------------------------------------------------------------------

    def fill(self, url: str) -> list[tuple[bytes, bytes, Any]]:
        """Append all facts to a log; their messages."""
        with Log(as_role(url, "hub_door")) as log:
            for part in append.batches(self.facts, 1000):
                log.append(part)
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            return list(map(messages(), read_rows(cursor, 0, len(self.facts))))

    def relayed(self, url: str) -> Sample:
        """The shipped relay, from the log to the last position."""
        with psycopg.connect(url) as connection:
            connection.execute("drop schema if exists relay cascade")
        topic = self.topic()
        relay = Relay(as_role(url, "hub_follow"), self.brokers, topic)
        relay.ensure()
        assert relay._session is not None
        warm = messages()(relay._run(lambda cursor: read_rows(cursor, 0, 1))[0])
        self._send(relay._session._producer, topic, [warm] * WARM)
        begun = time.perf_counter()
        while relay.step():
            pass
        took = time.perf_counter() - begun
        assert relay.position() == len(self.facts)
        relay._leave()
        relay.close()
        self._check(topic, len(self.facts) + WARM)
        return Sample(len(self.facts) / took)

    def produced(self, sent: list[tuple[bytes, bytes, Any]]) -> Sample:
        """A producer that is handed the same messages, made beforehand."""
        topic = self.topic()
        producer = Producer({"bootstrap.servers": self.brokers, "enable.idempotence": True, "acks": "all", "linger.ms": 5})
        self._send(producer, topic, sent[:1] * WARM)
        begun = time.perf_counter()
        self._send(producer, topic, sent)
        took = time.perf_counter() - begun
        self._check(topic, len(sent) + WARM)
        return Sample(len(sent) / took)

    def _send(self, producer: Producer, topic: str, sent: list[tuple[bytes, bytes, Any]]) -> None:
        for key, value, headers in sent:
            while True:
                try:
                    producer.produce(topic, value, key, zlib.crc32(key) % PARTITIONS, headers=headers)
                    break
                except BufferError:
                    producer.poll(0.01)
        assert producer.flush(WAIT_S) == 0

    def _check(self, topic: str, count: int) -> None:
        found = len(read_raw(self.brokers, topic))
        assert found == count, f"{found} messages are on the topic, {count} were sent"

    # -- in ----------------------------------------------------------------------------------------------------------------------------

    def filled_topic(self) -> str:
        """A topic with all facts as canonical JSON, one a message."""
        topic = self.topic()
        producer = Producer({"bootstrap.servers": self.brokers, "enable.idempotence": True})
        self._send(producer, topic, [(one.event.stream().encode(), canonical.dumps(posted_row(one)), None) for one in self.facts])
        return topic

    def taken_in(self, topic: str) -> Sample:
        """The shipped loop with the Kafka adapter: mapped, durable and acknowledged."""
        stop = threading.Event()
        with self.bench.log_url() as url, GroupLog(Log(as_role(url, "hub_door"))) as log:
            said: list[str] = []
            loop = Loop(KafkaAdapter(self.brokers, [topic], group=f"g-{uuid.uuid4().hex}"), Intake(log, mappings()), said.append)
            took = _timed(lambda: loop.step(stop), len(self.facts))
            stop.set()
            loop.run(stop)
            assert not said, said
            with psycopg.connect(url) as connection:
                (count,) = connection.execute("select count(*) from log.event where type not like 'integration.%'").fetchone() or (0,)
        assert count == len(self.facts), f"{count} facts are in the log, {len(self.facts)} were on the topic"
        return took

    def consumed(self, topic: str) -> Sample:
        """A consumer that takes as much as it can get and decodes it."""
        settings = {"bootstrap.servers": self.brokers, "group.id": f"g-{uuid.uuid4().hex}", "auto.offset.reset": "earliest"}
        consumer = Consumer(settings)
        consumer.subscribe([topic])

        def step() -> int:
            found = consumer.consume(1, 1.0)
            found += consumer.consume(499, 0) if found else []
            for one in found:
                json.loads(one.value() or b"")
            return len(found)

        try:
            return _timed(step, len(self.facts))
        finally:
            consumer.close()


def _timed(step: Callable[[], int], count: int) -> Sample:
    """The rate from the end of the first step that brought something to the end of all."""
    until, first = time.monotonic() + 10 * WAIT_S, 0
    while not first and time.monotonic() < until:
        first = step()
    begun, done = time.perf_counter(), first
    while done < count and time.monotonic() < until:
        done += step()
    assert done == count, f"{done} of {count} came"
    return Sample((count - first) / (time.perf_counter() - begun))
