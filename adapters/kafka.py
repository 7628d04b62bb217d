"""Kafka in: a member of a consumer group that commits an offset only when everything of its partition up to it is durable in the log.

Receipts in the log are the truth and offsets a hint: whatever becomes of a commit (a rebalance, a passed poll interval, a broker that is
gone), the worst is that messages come again and answer as duplicates. confluent-kafka's own loop receives, because FastStream's keeps the
consumer's errors to itself (docs/decisions/0005-kafka-intake.md); FastStream describes the interface as AsyncAPI.

The membership is static: under one `instance` name there is one member, so a hub that was killed gets its partitions back at once, and a
second hub under the same name is fenced, loudly. Further workers of one hub take names of their own.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from events.errors import Unavailable
from hub import limits
from hub.intake.delivery import Delivery, trace_header

GROUP = "millwright-hub"
TOPIC = "millwright.in"  # what HUB_KAFKA_TOPICS is when nobody sets it

_log = logging.getLogger(__name__)
client_log = _log.getChild("client")
# the client as a whole cannot go on; all other errors it mends by itself, and logs them
DEAD = {KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._FATAL}


class KafkaAdapter:
    """Reads topics as a member of the hub's consumer group."""

    def __init__(self, brokers: str, topics: Sequence[str], *, group: str = GROUP, instance: str = "intake") -> None:
        self._brokers, self._topics, self._group, self._instance = brokers, list(topics), group, f"{group}-{instance}"
        self._session: _Session | None = None

    @property
    def name(self) -> str:
        return f"kafka {self._brokers}"

    def open(self) -> None:
        """Connect, see that the topics are there, join the group."""
        self.close()
        session = _Session(self.name, self._settings())
        try:
            for topic in self._topics:  # one by one: a cluster may have thousands
                if error := session.ask(topic):
                    raise Unavailable(
                        f"the topic {topic} of Kafka at {self._brokers} cannot be read ({error}): create it, give the hub the right to read it, "
                        "or correct HUB_KAFKA_TOPICS"
                    )
            session.join(self._topics)
        except KafkaException as error:
            session.close()
            raise Unavailable(f"Kafka at {self._brokers} cannot be reached ({said(error)}): start it or correct HUB_KAFKA") from error
        except Unavailable:
            session.close()
            raise
        self._session = session

    def receive(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        """What came, in the order of each partition. Raises `Unavailable` when the client says, or asking the brokers shows, that it is dead."""
        if self._session is None:
            raise Unavailable(f"Kafka at {self._brokers} is not connected: open it first")
        try:
            found = self._session.poll(limit, wait_s)
            trouble = "" if found else self._session.trouble()  # what came before it is taken first, or one topic could starve the others
        except KafkaException as error:
            found, trouble = [], said(error)
        if trouble:
            raise Unavailable(f"Kafka at {self._brokers} gives no more messages ({trouble}): connecting again")
        return found

    def close(self) -> None:
        """Commit what is durable and disconnect; what is not acknowledged comes again."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _settings(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self._brokers,
            "client.id": self._instance,
            "group.id": self._group,
            "group.instance.id": self._instance,
            "auto.offset.reset": "earliest",
            "enable.auto.offset.store": False,  # what is done is stored with the next poll; the client commits what is stored, also when it loses a partition
            "enable.auto.commit": True,
            "auto.commit.interval.ms": int(limits.KAFKA_COMMIT_S * 1000),
            "session.timeout.ms": int(limits.KAFKA_SESSION_S * 1000),
            "heartbeat.interval.ms": int(limits.KAFKA_SESSION_S * 1000 / 4),
            "max.poll.interval.ms": int(limits.KAFKA_POLL_INTERVAL_S * 1000),
            "socket.timeout.ms": int(limits.KAFKA_ANSWER_S * 1000),
            "queued.max.messages.kbytes": limits.KAFKA_QUEUE_BYTES_MAX // 1024,
            "fetch.max.bytes": limits.KAFKA_QUEUE_BYTES_MAX,
            "fetch.queue.backoff.ms": 50,  # a full queue is looked at again after this; with the default of 1 s a long topic takes twice the time
            "receive.message.max.bytes": limits.DELIVERY_BYTES_MAX + 1024 * 1024,  # a message and what the protocol adds
            "allow.auto.create.topics": False,
        }


class _Place:
    """How far one assigned partition is durable: the offsets that were handed over, oldest first, and which of them are done."""

    __slots__ = ("_done", "_waiting", "reached")

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._done: set[int] = set()
        self.reached: int | None = None  # the offset to go on from, until the client is told

    def hand_over(self, offset: int) -> None:
        if self._waiting and offset <= self._waiting[-1]:  # the partition was lost and given back within one batch
            self._waiting.clear()
        self._waiting.append(offset)

    def finish(self, offset: int) -> None:
        """An offset is done, and with the last one that was held back all those behind it."""
        waiting, done = self._waiting, self._done
        done.add(offset)
        while waiting and waiting[0] in done:
            first = waiting.popleft()
            done.discard(first)
            self.reached = first + 1


class _Session:
    """One consumer from its connection to its end. Its callbacks run inside `poll` and `close`, so in the loop's own thread."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self._name = name
        self._consumer = Consumer({**settings, "error_cb": self._on_error, "on_commit": self._on_commit}, logger=client_log)
        self._places: dict[tuple[str, int], _Place] = {}
        self._trouble = ""
        self._settled = False
        self._settles_since = self._asked = time.monotonic()
        self._probe_topic = ""
        self._ends: dict[tuple[str, int], tuple[int, int]] = {}  # our position and the end of each partition, when they were last asked for

    def ask(self, topic: str) -> str:
        """What is wrong with a topic; empty if nothing is. Raises `KafkaException` if the brokers do not answer."""
        error = self._consumer.list_topics(topic, timeout=limits.KAFKA_ANSWER_S).topics[topic].error
        return "" if error is None else str(error.str())

    def join(self, topics: Sequence[str]) -> None:
        """Become a member of the group."""
        self._probe_topic = topics[0]
        self._consumer.subscribe(list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    def poll(self, limit: int, wait_s: float) -> list[Delivery]:
        """What came. In bytes it is bounded by what the client fetches ahead, since nothing is waited for after the first."""
        found: list[Delivery] = []
        if self._trouble:
            return found
        self._store()
        messages = self._consumer.consume(1, wait_s)
        if messages and limit > 1:
            messages += self._consumer.consume(limit - 1, 0)
        now = datetime.now(UTC)
        for message in messages:
            if (error := message.error()) is not None:  # what is behind it comes again, since this session ends
                self._trouble = error.str()
                break
            found.append(self._delivery(message, now))
        return found

    def close(self) -> None:
        """End it. A client whose broker is silent cannot be ended in time: it is left to end by itself, it can do no harm."""
        self._store()
        self._places = {}
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(limits.KAFKA_ANSWER_S)
        if closing.is_alive():
            _log.warning("%s: the brokers do not confirm the end of the connection: it is left to end by itself", self._name)

    def _delivery(self, message: Message, now: datetime) -> Delivery:
        topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0  # a message has them all
        place = self._places.get((topic, partition))
        if place is None:
            place = self._places[topic, partition] = _Place()
        place.hand_over(offset)
        headers = {"topic": topic, "partition": str(partition), "offset": str(offset)}
        if (key := message.key()) is not None:
            headers["key"] = bytes(key).decode("utf-8", "backslashreplace")
        if others := message.headers():
            headers |= trace_header(dict(others).get("traceparent"))
        return Delivery(message.value() or b"", "kafka", now, headers, lambda outcome: place.finish(offset))

    def _store(self) -> None:
        """Tell the client how far each partition is done; it commits that by itself.

        Of partitions that were lost nothing is told: the messages come again, and whoever gets them then commits.
        """
        for (topic, partition), place in self._places.items():
            if place.reached is None:
                continue
            try:
                self._consumer.store_offsets(offsets=[TopicPartition(topic, partition, place.reached)])
            except KafkaException as error:  # the partition was lost in this moment
                _log.info("%s: offset %d of %s[%d] is not stored: %s", self._name, place.reached, topic, partition, said(error))
            place.reached = None

    # -- is it alive? ----------------------------------------------------------------------------------------------------------------

    def trouble(self) -> str:
        """Why nothing comes, if something is wrong: what the client said, or, asked now and then, the brokers. Raises `KafkaException`."""
        now = time.monotonic()
        if self._trouble or now - self._asked < limits.KAFKA_ASK_S:
            return self._trouble
        self._asked = now
        if not self._settled and now - self._settles_since > limits.KAFKA_SETTLE_S:
            return f"the group gave it no partitions for {limits.KAFKA_SETTLE_S:.0f} s: another member or the coordinator is stuck"
        assigned = self._consumer.assignment() if self._settled else []
        return self._behind(assigned) if assigned else self.ask(self._probe_topic)

    def _behind(self, assigned: Sequence[TopicPartition]) -> str:
        """Which partition had messages when last asked and still has given none of them, though nothing waits in the client.

        Transactions give no false alarm: the client steps over what was taken back, and the end is before what is still open (seen with 2.16).
        """
        committed = {(c.topic, c.partition): c.offset for c in self._consumer.committed(list(assigned), timeout=limits.KAFKA_ANSWER_S)}
        before, self._ends = self._ends, {}
        for one in self._consumer.position(list(assigned)):
            key = (one.topic, one.partition)
            first, end = self._consumer.get_watermark_offsets(one, timeout=limits.KAFKA_ANSWER_S, cached=False)
            position = max(first, one.offset if one.offset >= 0 else committed.get(key, 0))
            self._ends[key] = (position, end)
            then, end_then = before.get(key, (position, position))
            if position == then < end_then:
                return f"{key[0]}[{key[1]}] has some from {position} to {end_then} and gave none for {limits.KAFKA_ASK_S:.0f} s"
        return ""

    # -- callbacks ---------------------------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._places, self._ends, self._settled = {}, {}, True
        _log.info("%s: reads %s", self._name, ", ".join(f"{p.topic}[{p.partition}]" for p in partitions) or "nothing: others read all")

    def _on_revoke(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._places, self._ends, self._settled, self._settles_since = {}, {}, False, time.monotonic()

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in DEAD or error.fatal():
            self._trouble = error.str()

    def _on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        for failed in filter(None, [error, *(p.error for p in partitions)]):
            if failed.code() != KafkaError._NO_OFFSET:  # nothing to commit
                _log.warning("%s: an offset was not committed (%s): those messages may come again", self._name, failed.str())
                return


def said(error: KafkaException) -> str:
    cause = error.args[0] if error.args else error
    return str(cause.str() if isinstance(cause, KafkaError) else cause)


def asyncapi_document() -> dict[str, Any]:
    """The interface as AsyncAPI 3.0, the same in every hub: needs no broker."""
    from faststream.confluent import KafkaBroker  # takes half a second to import, for a document that is asked for seldom
    from faststream.specification import AsyncAPI

    broker = KafkaBroker("kafka:9092", logger=None, description="Named by HUB_KAFKA; Apache Kafka 2.3 or newer.")

    @broker.subscriber(
        TOPIC,
        group_id=GROUP,
        title="Intake",
        description="Any format that the hub reads (docs/keys.md), told by its content: canonical JSON, CloudEvents, EPCIS 2.0, X12 856. Keys and "
        "headers are kept and never trusted; order is kept within a partition. Topics are named by HUB_KAFKA_TOPICS.",
    )
    async def take(body: bytes) -> None: ...

    document: dict[str, Any] = AsyncAPI(broker, title="Millwright Kafka intake", version="1").to_specification().to_jsonable()
    for message in document["components"]["messages"].values():
        message.pop("correlationId", None)  # FastStream's own habit; the hub looks for none
    return document
