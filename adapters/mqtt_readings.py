"""Readings over MQTT: JSON or plain values on topics that the plant chose; each topic, or its beginning, is a producer.

A message that the broker sends again after a cut or a kill (DUP) was perhaps spooled already: what last came under each packet number is remembered
together with what was spooled, so that none is taken twice. It is not enough to remember as many as a broker may have under way: some send more, and
a kill loses acknowledgements that wait in buffers. A packet number that comes anew shows that the broker knows the one before as acknowledged.

A retained message says nothing of now: its readings are historical. Nothing is refused: what is no JSON that everybody reads alike is kept as the
text it is, bytes that are no text in hex.
"""

import hashlib
import json
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

import msgspec
import paho.mqtt.client as mqtt

from adapters.formats.mqtt_filters import covers
from adapters.formats.mqtt_payload import Topics, read
from adapters.mqtt import SESSION_S, MqttAdapter
from hub import limits
from hub.intake.delivery import Delivery, Outcome
from hub.intake.readings import Gap, Observed, Reading, session_lost, too_large

_BLOCK = 128  # packet numbers whose marks are remembered together
_FRESH = 32768  # messages; an older mark is of a packet number that was used again since
_BATCH_BYTES = 4 * 1024 * 1024  # payloads of one pull, overshot by one
PRODUCER_CHARS_MAX = 200  # what the log takes as a name


@dataclass(frozen=True, kw_only=True)
class MqttReadingsSettings:
    """One broker of a plant."""

    name: str
    host: str
    port: int
    topics: tuple[Topics, ...]
    client_id: str
    version: Literal["3.1.1", "5"] = "5"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | bool = field(default=False, repr=False)
    session_expiry_s: int = SESSION_S


class _Head(msgspec.Struct, array_like=True):
    """What goes with what was spooled: when the last of it came, and how many messages that makes."""

    heard: datetime
    count: int = 0


class MqttReadings:
    """The source; see the module's docstring."""

    def __init__(self, settings: MqttReadingsSettings) -> None:
        self._name, self._topics = settings.name, settings.topics
        self._adapter = _Numbered(
            settings.host,
            settings.port,
            [one.filter for one in settings.topics],
            settings.client_id,
            username=settings.username,
            password=settings.password,
            tls=settings.tls,
            version=settings.version,
            session_expiry_s=settings.session_expiry_s,
            where="the edge's configuration",
            label=f"{settings.name} readings",
        )
        self._key = f"mqtt/{settings.name}"
        self._head = _Head(datetime.now(UTC))
        self._marks: dict[int, bytes] = {}  # by packet number: the count then (6 bytes), and of the content
        self._touched: set[int] = set()  # blocks of packet numbers that changed since memory was made of them
        self._first: Observed | None = None
        self._rule = lru_cache(10_000)(self._rule_of)

    @property
    def name(self) -> str:
        return self._adapter.name

    def open(self, remembered: Callable[[str], bytes | None]) -> None:
        """Connect and subscribe. Where the broker has lost the session that we had, what it held is missing: a gap."""
        stored, now = remembered(self._key), datetime.now(UTC)
        self._head = msgspec.msgpack.decode(stored, type=_Head) if stored else _Head(now)
        self._marks, self._touched = {}, set()
        for block in range(65536 // _BLOCK):
            if kept := remembered(f"{self._key}/{block}"):
                self._marks |= msgspec.msgpack.decode(kept, type=dict[int, bytes])
        self._adapter.open()
        gaps = []
        if not self._adapter.resumed:  # the numbers begin anew
            if stored:
                gaps = [session_lost(self._name, self._head.heard, now)]
            self._head = _Head(now, self._head.count + _FRESH)  # no mark is fresh any more
        self._first = Observed(self._name, now, gaps=gaps, memory=self._kept()) if gaps or not stored else None

    def receive(self, limit: int, wait_s: float) -> Sequence[Observed]:
        """What came, in its order; messages of one producer that follow one another are one observation. The last has the memory of all."""
        if self._first is not None:
            first, self._first = self._first, None
            return [first]
        found: list[_Found] = []
        count = messages = size = 0
        while count < limit and messages < limits.MQTT_WAITING_MAX and size < _BATCH_BYTES:
            if not (deliveries := self._adapter.receive(1, 0 if found else wait_s)):
                break
            (delivery,) = deliveries
            messages, size = messages + 1, size + len(delivery.body)
            producer, readings, gaps = self._taken(delivery)
            if not found or found[-1].producer != producer:
                found.append(_Found(producer, delivery.received_at))
            self._note(delivery)
            found[-1].deliveries.append(delivery)
            found[-1].readings += readings
            found[-1].gaps += gaps
            count += max(1, len(readings))
        if found:
            found[-1].memory = self._kept()
        return [one.observed(self._key) for one in found]

    def close(self) -> None:
        """Disconnect; the broker keeps the session."""
        self._adapter.close()

    def check(self) -> Sequence[str]:
        """Connect under a name of its own, so that a running edge keeps its session."""
        return self._adapter.check()

    def _taken(self, delivery: Delivery) -> tuple[str, list[Reading], list[Gap]]:
        topic = delivery.headers["topic"]
        rule = self._rule(topic)
        producer = self._producer(topic, rule)
        if "dup" in delivery.headers and self._known(delivery):
            return producer, [], []
        if len(delivery.body) > (most := limits.MQTT_READINGS_BYTES_MAX):
            return producer, [], [too_large(producer, topic, delivery.body, most, delivery.received_at)]
        return producer, read(delivery.body, topic, rule, historical=delivery.headers["retained"] == "True"), []

    def _known(self, delivery: Delivery) -> bool:
        mark = self._marks.get(int(delivery.headers["mid"]), b"")
        return mark[6:] == _mark(delivery) and self._head.count - int.from_bytes(mark[:6]) < _FRESH

    def _note(self, delivery: Delivery) -> None:
        self._head.heard, self._head.count = delivery.received_at, self._head.count + 1
        if mid := int(delivery.headers["mid"]):  # 0: QoS 0, never sent again
            self._marks[mid] = self._head.count.to_bytes(6) + _mark(delivery)
            self._touched.add(mid // _BLOCK)

    def _kept(self) -> dict[str, bytes]:
        """What is to be remembered with what was noted since the last call: in blocks, so that one message does not write all marks anew."""
        kept = {self._key: msgspec.msgpack.encode(self._head)}
        for block in self._touched:
            mids = range(block * _BLOCK, (block + 1) * _BLOCK)
            kept[f"{self._key}/{block}"] = msgspec.msgpack.encode({mid: self._marks[mid] for mid in mids if mid in self._marks})
        self._touched = set()
        return kept

    def _producer(self, topic: str, rule: Topics) -> str:
        """The name of the part and the topic, or its first levels, as the log takes names; a long one ends in its digest, so that no two become one."""
        name = "/".join([self._name, *topic.split("/")[: rule.producer or None]])
        if not name.isprintable():
            name = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
        return name if len(name) <= PRODUCER_CHARS_MAX else f"{name[: PRODUCER_CHARS_MAX - 17]}~{_digest(name.encode()).hex()}"

    def _rule_of(self, topic: str) -> Topics:
        return next((one for one in self._topics if covers(one.filter, topic)), self._topics[0])


@dataclass
class _Found:
    """An observation in the making."""

    producer: str
    received_at: datetime
    readings: list[Reading] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    memory: dict[str, bytes] = field(default_factory=dict)

    def observed(self, key: str) -> Observed:
        return Observed(self.producer, self.received_at, self.readings, self.gaps, memory=self.memory, done=self._done, numbered=True)

    def _done(self) -> None:
        for delivery in self.deliveries:
            delivery.done(_TAKEN)


class _Numbered(MqttAdapter):
    """Keeps packet numbers and the mark of a repetition with each delivery."""

    def _delivery(self, session: int, message: mqtt.MQTTMessage) -> Delivery:
        delivery = super()._delivery(session, message)
        delivery.headers = {**delivery.headers, "mid": str(message.mid), **({"dup": "1"} if message.dup else {})}
        return delivery


_TAKEN = Outcome("", [])


def _digest(said: bytes) -> bytes:
    return hashlib.blake2b(said, digest_size=8).digest()


def _mark(delivery: Delivery) -> bytes:
    """What a repetition has alike, beside its number."""
    return _digest(json.dumps([delivery.headers["topic"], len(delivery.body)]).encode() + delivery.body)
