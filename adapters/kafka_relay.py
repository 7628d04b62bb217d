"""Kafka out: publishes the whole log on one topic as CloudEvents 1.0 (Kafka binding, binary mode), keyed by stream, in order in each stream.

A fact is published as it is stored: its data are the bytes that the log holds, in the schema version that they were written in, so what
comes twice is the same twice. The position (schema `relay`, with the key of the fact there, as views have it) moves when the brokers have
reported everything up to it; so after any death what was not reported comes again, with the same `id` and `position`, and nothing is left
out. Every producer begins at or before the first fact that is not reported and leaves none out, so the first of each fact is in order,
however many producers an accident lets overlap.

Nothing but its own position holds it up, and it holds up nobody: it reads, sends and waits outside of any transaction.
"""

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from adapters.kafka import DEAD, client_log, said
from events import canonical
from events.canonical import time_text
from events.errors import Corrupt, HubError, Refused, Unavailable
from hub import limits
from hub.log.codec import AGGREGATE
from hub.log.follow import RELAY, Cursor, Following, check_whole, enter, make
from hub.points import reach

_OWN = {"correlation": "correlationid", "causation": "causationid"}  # what intake calls them when it reads CloudEvents
_URI = "/:?@!$&'()*+,;=~"  # what a URI reference may hold besides letters, digits and -._ (no # and no brackets: they have one place only)
_META_MAX = 1000  # envelopes that are remembered: the facts of one delivery have the same

Headers = list[tuple[str, str | bytes | None]]


class Relay(Following):
    """Publishes one log on one topic. `step()` makes it drivable; `run()` is the loop of the program."""

    def __init__(self, url: str, brokers: str, topic: str) -> None:
        super().__init__(url, "the Kafka relay", RELAY)
        self._brokers, self._topic = brokers, topic
        self._session: _Session | None = None
        self._at = self._read = 0  # the position that is stored; the last one that was read to be sent
        self._told: str | None = ""  # trouble that the database holds; "": perhaps

    def ensure(self) -> None:
        """See that position and topic are there, are of one another, and that nobody else publishes. Raises `Unavailable`, `Corrupt`."""
        self._run(self._ensure_tables)
        try:
            topic = self._session.topic if self._session else self._describe()
            partitions = int(self._run(lambda cursor: self._ensure_target(cursor, topic)))
            if self._session is None:
                self._at = self._read = self.position()
                self._session = _Session(self._settings(topic), topic, partitions)
        except (Unavailable, Corrupt) as error:
            self._tell(error)
            raise

    def step(self) -> int:
        """Hand facts over, take reports, move the position; 0 when the log has nothing new and all is reported."""
        session = self._session
        if session is None:
            raise Unavailable("the Kafka relay is not connected: ensure comes first")
        try:
            handed = self._hand_over(session)
            session.poll(0 if handed else 0.05 if session.waiting else 0)
            moved = self._move(session)
            if trouble := session.trouble():
                raise Unavailable(f"{self._place} takes no more facts ({trouble}): connecting again; what was not reported comes again")
        except (Unavailable, Corrupt) as error:
            self._tell(error)
            if session.dead or isinstance(error, Corrupt):
                self._leave()
            raise
        if not (handed or moved or session.waiting or self._told is None):
            self._run(self._clear)
        return handed + moved + len(session.waiting)

    def run(self, stop: threading.Event, report: Callable[[str], None]) -> None:
        """Publish until `stop` is set; what is on its way then has a moment to be reported."""
        try:
            super().run(stop, report)
        finally:
            try:
                if session := self._session:
                    session.finish()
                    self._move(session)
            except HubError as error:
                report(f"the Kafka relay ends without its last position, some facts will come again: {error}")
            self._leave()
            self.close()

    # -- from the log to the topic -------------------------------------------------------------------------------------------------------

    def _hand_over(self, session: "_Session") -> int:
        """Read what comes next, if there is room for it, and hand over as much as the client takes; how many facts it took."""
        if not session.waiting and self.position() != self._at:
            raise self._set_by_hand(session)
        if not session.rest and session.in_flight < limits.RELAY_IN_FLIGHT_MAX:
            rows = self._run(lambda cursor: self._tables(cursor).rows(self._read, limits.READ_BATCH_MAX))
            check_whole(self._read, [row[1] for row in rows])
            if rows:
                session.take(rows)
                self._read = rows[-1][1]
        handed = session.hand_over()
        if session.too_large and not session.in_flight:
            position, size = session.too_large
            session.dead = True
            raise Unavailable(
                f"{self._place} takes messages of at most {session.topic.bytes_max} bytes, and the fact at position {position} makes {size}: raise "
                f"max.message.bytes of the topic (kafka-configs.sh --alter --topic {self._topic} --add-config max.message.bytes=…). Nothing "
                f"behind it is published before; `hub relay restart --from {position + 1}` leaves it out"
            )
        if handed:
            reach("relay handed over")
        return handed

    def _move(self, session: "_Session") -> int:
        """Let the position be that of the last fact up to which all are reported; by how much it moved."""
        to = session.reported()
        if to is None or to <= self._at:
            return 0
        reach("relay reported")

        def work(cursor: Cursor) -> bool:
            tables = self._tables(cursor)
            tables.lock(self.schema)
            if self._told is not None:
                cursor.execute("delete from trouble")
            return tables.move(self._at, to)

        if not self._run(work):
            raise self._set_by_hand(session)
        moved, self._at, self._told = to - self._at, to, None
        reach("relay moved")
        return moved

    def _set_by_hand(self, session: "_Session") -> Unavailable:
        session.dead = True
        return Unavailable(f"the relay's position is not {self._at} any more, somebody set it: it goes on from where it is now")

    def _leave(self) -> None:
        """Give up the producer; what it has not reported comes again."""
        if self._session is not None:
            self._session.close()
            self._session = None

    # -- what it is bound to -------------------------------------------------------------------------------------------------------------

    @property
    def _place(self) -> str:
        return f"the topic {self._topic} of Kafka at {self._brokers}"

    def _describe(self) -> "_Topic":
        """The topic as it is now. Raises `Unavailable` where it cannot be published to as it must."""
        admin = AdminClient({"bootstrap.servers": self._brokers, "client.id": "millwright-relay"}, logger=client_log)
        resource = ConfigResource(ResourceType.TOPIC, self._topic)
        try:
            admin.list_topics(self._topic, timeout=limits.KAFKA_ANSWER_S)
        except KafkaException as error:
            raise Unavailable(f"Kafka at {self._brokers} cannot be reached ({said(error)}): start it or correct HUB_RELAY") from error
        try:
            found = admin.describe_topics(TopicCollection([self._topic]), request_timeout=limits.KAFKA_ANSWER_S)[self._topic].result()
        except KafkaException as error:
            raise Unavailable(
                f"{self._place} cannot be written ({said(error)}): create it, with as many partitions as it is ever to have, "
                "give the hub the right to write and describe it, or correct HUB_RELAY_TOPIC"
            ) from error
        try:
            config = admin.describe_configs([resource], request_timeout=limits.KAFKA_ANSWER_S)[resource].result()
        except KafkaException as error:
            raise Unavailable(
                f"{self._place} does not tell its settings ({said(error)}): give the hub the right DescribeConfigs"
            ) from error
        if "compact" in config["cleanup.policy"].value:
            raise Unavailable(
                f"{self._place} is compacted, it would forget all but the last fact of each stream: set cleanup.policy=delete"
            )
        return _Topic(self._topic, str(found.topic_id), len(found.partitions), int(config["max.message.bytes"].value))

    def _settings(self, topic: "_Topic") -> dict[str, Any]:
        return {
            "bootstrap.servers": self._brokers,
            "client.id": "millwright-relay",
            "enable.idempotence": True,
            "acks": "all",
            "enable.gapless.guarantee": True,  # a message that is given up ends the producer: none behind it may come first
            "message.timeout.ms": 0,  # and none is given up for its age
            "max.in.flight.requests.per.connection": 5,
            "linger.ms": 5,
            "message.max.bytes": topic.bytes_max,  # a larger one is refused when it is handed over
            "batch.size": min(limits.RELAY_BATCH_BYTES, topic.bytes_max),
            "queue.buffering.max.kbytes": limits.RELAY_QUEUE_BYTES_MAX // 1024,
            "queue.buffering.max.messages": 2 * (limits.RELAY_IN_FLIGHT_MAX + limits.READ_BATCH_MAX),
            "allow.auto.create.topics": False,
        }

    # -- what the database holds ---------------------------------------------------------------------------------------------------------

    def _ensure_tables(self, cursor: Cursor) -> None:
        _ensure_tables(cursor)
        (alone,) = cursor.execute("select pg_try_advisory_lock(hashtext(%s))", [f"{RELAY} publishes"]).fetchone() or (False,)
        if not alone:  # held by the session, so by whoever is connected
            raise Unavailable("another relay publishes this log already: one is enough, end this hub's or unset its HUB_RELAY")

    def _ensure_target(self, cursor: Cursor, topic: "_Topic") -> int:
        """See that the position is of this topic; over how many of its partitions streams are spread."""
        enter(cursor, self.schema)
        ((bound,),) = cursor.execute("select shape from position for update").fetchall() or (("",),)
        name, _, rest = bound.partition(" ")
        id_, _, partitions = rest.partition(" ")
        if not bound:
            cursor.execute("update position set shape = %s", [f"{topic.name} {topic.id} {topic.partitions}"])
            return topic.partitions
        again = f"run `hub relay restart --from 1` to publish all facts to {topic.name}, or from another position what it lacks"
        if name != topic.name:
            raise Corrupt(f"the relay's position is one in the topic {name}, not in {topic.name}: set HUB_RELAY_TOPIC back, or {again}")
        if id_ != topic.id or int(partitions) > topic.partitions:
            raise Corrupt(f"the topic {topic.name} was made anew since the relay wrote to it, what it had published is gone: {again}")
        return int(partitions)

    def _tell(self, error: HubError) -> None:
        """Leave word of trouble for `hub status`; that the database cannot take it is told by others."""
        text = str(error)
        if text == self._told:
            return

        def work(cursor: Cursor) -> None:
            enter(cursor, self.schema)
            cursor.execute("delete from trouble")
            cursor.execute("insert into trouble (reason) values (%s)", [text])

        try:
            self._run(work)
            self._told = text
        except Unavailable:
            self._told = ""

    def _clear(self, cursor: Cursor) -> None:
        enter(cursor, self.schema)
        cursor.execute("delete from trouble")
        self._told = None


def _ensure_tables(cursor: Cursor) -> None:
    cursor.execute("select pg_advisory_xact_lock(hashtext(%s))", [RELAY])
    if cursor.execute("select to_regclass(%s)", [f"{RELAY}.position"]).fetchone() != (None,):
        return
    # from the first fact: a topic that lacks some looks whole to who reads it
    make(cursor, RELAY, "create table trouble (reason text not null, since timestamptz not null default now())", "")


def restart(cursor: Cursor, first: int) -> int:
    """Let the relay publish from a position on, to whatever topic is configured when it goes on; where it was. Raises `Refused`."""
    _ensure_tables(cursor)
    enter(cursor, RELAY)
    before = cursor.execute("select position from position").fetchall()
    fact = cursor.execute("select key from log.event where position = %s", [first - 1]).fetchone()
    if fact is None and first > 1:
        raise Refused(f"the log has no fact at position {first - 1}: --from takes 1 to one more than the head")
    cursor.execute("delete from position")
    cursor.execute("delete from trouble")
    cursor.execute("insert into position (position, fact, shape) values (%s, %s, '')", [first - 1, fact[0] if fact else None])
    return int(before[0][0]) if before else 0


@dataclass(frozen=True, slots=True)
class _Topic:
    """A topic as its brokers describe it; `id` is another one when it was deleted and made anew."""

    name: str
    id: str
    partitions: int
    bytes_max: int


@dataclass(slots=True)
class _Batch:
    """Facts that were read together: those that the client has not taken yet, how many it has not reported, the last one that it took."""

    rest: deque[tuple[Any, ...]]
    left: int = 0
    last: int = 0


class _Session:
    """One producer from its connection to its end, and what it was handed. Its callbacks run inside `poll`, so in the loop's own thread."""

    def __init__(self, settings: dict[str, Any], topic: _Topic, partitions: int) -> None:
        self.topic = topic
        self.dead = False
        self.in_flight = 0
        self.waiting: deque[_Batch] = deque()
        self.too_large: tuple[int, int] | None = None  # position and bytes of the fact that stops it
        self._partitions = partitions
        self._producer = Producer({**settings, "error_cb": self._on_error}, logger=client_log)
        self._message = messages()
        self._trouble = ""
        self._heard = time.monotonic()

    @property
    def rest(self) -> bool:
        """Whether something that was read was not taken yet."""
        return bool(self.waiting and self.waiting[-1].rest)

    def take(self, rows: list[tuple[Any, ...]]) -> None:
        """Facts to hand over next."""
        if not self.in_flight:
            self._heard = time.monotonic()
        self.waiting.append(_Batch(deque(rows)))

    def hand_over(self) -> int:
        """Hand over what was taken until the client's queue is full; how many."""
        if not self.waiting:
            return 0
        batch, handed = self.waiting[-1], 0
        rest, produce, topic, partitions = batch.rest, self._producer.produce, self.topic.name, self._partitions

        def reported(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._give_up(f"{error.str()} for a fact of stream {(message.key() or b'').decode('utf-8', 'replace')}")
            else:
                batch.left -= 1
                self.in_flight -= 1

        while rest:
            key, value, headers = self._message(rest[0])
            try:
                # by a number of our own: streams stay where they are when the topic gets more partitions
                produce(topic, value, key, zlib.crc32(key) % partitions, reported, headers=headers)
            except BufferError:
                break
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    self._give_up(said(error))
                    break
                self.too_large = rest[0][1], len(key) + len(value) + sum(len(name) + len(text or "") for name, text in headers)
                break
            batch.last = rest.popleft()[1]
            batch.left += 1
            self.in_flight += 1
            handed += 1
        return handed

    def poll(self, wait_s: float) -> None:
        """Take reports."""
        try:
            if self._producer.poll(wait_s):
                self._heard = time.monotonic()
        except KafkaException as error:  # fatal: it takes and reports nothing more
            self._give_up(said(error))

    def reported(self) -> int | None:
        """The last position up to which everything is reported; None if there is nothing new."""
        last = None
        while self.waiting and not self.waiting[0].left:
            last = self.waiting[0].last or last
            if self.waiting[0].rest:
                break
            self.waiting.popleft()
        return last

    def trouble(self) -> str:
        """Why nothing more is reported, if something is wrong."""
        if not self._trouble and self.in_flight and time.monotonic() - self._heard > limits.RELAY_SILENT_S:
            self._give_up(f"{self.in_flight} messages and no report for {limits.RELAY_SILENT_S:.0f} s")
        return self._trouble

    def finish(self) -> None:
        """Wait a moment for what is on its way."""
        try:
            self._producer.flush(limits.RELAY_FINISH_S)
        except KafkaException as error:
            self._give_up(said(error))

    def close(self) -> None:
        """End it without waiting: in a thread, because a client whose broker is silent may take its time."""
        producers = [self._producer]
        del self._producer
        threading.Thread(target=producers.clear, daemon=True).start()  # the last that knows it: its end drops what it still holds

    def _give_up(self, trouble: str) -> None:
        self._trouble, self.dead = self._trouble or trouble, True

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in DEAD or error.fatal():
            self._give_up(error.str())


def messages() -> Callable[[tuple[Any, ...]], tuple[bytes, bytes, Headers]]:
    """A function from a row of the log (the key as text and `COLUMNS`) to the key, value and headers of its message."""
    known: dict[bytes, Headers] = {}
    sources: dict[str, str] = {}
    last, last_text = datetime.min.replace(tzinfo=UTC), ""  # of the recorded times: those of one append are equal

    def message(row: tuple[Any, ...]) -> tuple[bytes, bytes, Headers]:
        nonlocal last, last_text
        id_, position, stream, version, type_, schema, source, key, occurred, effective, recorded, meta, data = row
        meta = bytes(meta)
        said = known.get(meta)
        if said is None:
            if len(known) >= _META_MAX:
                known.clear()
            said = known[meta] = _envelope(position, meta)
        uri = sources.get(source)
        if uri is None:
            if len(sources) >= _META_MAX:
                sources.clear()
            uri = sources[source] = quote(source, safe=_URI)
        if recorded != last:
            last, last_text = recorded, time_text(recorded)
        at = time_text(occurred)
        return (
            stream.encode(),
            bytes(data),
            [
                ("content-type", "application/octet-stream" if stream.startswith(AGGREGATE) else "application/json"),
                ("ce_specversion", "1.0"),
                ("ce_id", id_),
                ("ce_source", uri),
                ("ce_type", type_),
                ("ce_subject", stream),
                ("ce_time", at),
                ("ce_position", str(position)),
                ("ce_streamversion", str(version)),
                ("ce_schemaversion", str(schema)),
                ("ce_businesskey", key),
                ("ce_effectiveat", at if effective == occurred else time_text(effective)),
                ("ce_recordedat", last_text),
                *said,
            ],
        )

    return message


def _envelope(position: int, meta: bytes) -> Headers:
    """What the envelope says besides, as attributes: texts as they are, anything else as JSON."""
    try:
        values = canonical.loads(meta)
    except Refused as error:
        raise Corrupt(f"the envelope of the fact at position {position} does not decode: {error}") from error
    return [
        (f"ce_{_OWN.get(name) or name.replace('_', '')}", value if isinstance(value, str) else canonical.dumps(value))
        for name, value in values.items()
    ]
