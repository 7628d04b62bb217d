"""Readings over MQTT: JSON or plain values on topics that the plant chose; each topic, or its beginning, is a producer.

A message that the broker sends again after a cut or a kill (DUP) was perhaps spooled already: the last ones are remembered by packet number and
content, together with what was spooled, so that none is taken twice. A retained message says nothing of now: its readings are historical.
What cannot be read as JSON is kept as a text, or as bytes in hex; nothing is refused.
"""

import hashlib
import json
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import msgspec
import paho.mqtt.client as mqtt

from adapters.mqtt import SESSION_S, MqttAdapter
from hub import limits
from hub.intake.delivery import Delivery, Outcome
from hub.intake.readings import Observed, Reading, Value

DEPTH_MAX = 8  # levels of a JSON payload that are looked into
VALUES_MAX = 1000  # readings of one message
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?")


@dataclass(frozen=True, kw_only=True)
class Topics:
    """How the messages of some topics are read.

    `producer`: how many levels of the topic name the producer, 0 for all. `value`: dotted path of what holds the values, "" for all of the payload.
    `at` and `sequence`: dotted paths of the source's time (RFC 3339, or seconds, milliseconds … since 1970) and of the producer's own number.
    """

    filter: str
    producer: int = 0
    value: str = ""
    at: str | None = None
    sequence: str | None = None

    def __post_init__(self) -> None:
        if not self.filter or not _sound(self.filter):
            raise ValueError(f"{self.filter[:80]!r} is no topic filter: + stands alone in its level, # alone in the last")
        if self.producer < 0:
            raise ValueError("producer is a number of levels, 0 for all")


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


class MqttReadings:
    """The source; see the module's docstring."""

    def __init__(self, settings: MqttReadingsSettings) -> None:
        self._settings = settings
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
        )
        self._memory = f"mqtt/{settings.name}"
        self._seen: dict[bytes, None] = {}

    @property
    def name(self) -> str:
        return self._adapter.name

    def open(self, remembered: Callable[[str], bytes | None]) -> None:
        """Connect and subscribe."""
        stored = remembered(self._memory)
        self._seen = dict.fromkeys(msgspec.msgpack.decode(stored, type=list[bytes])) if stored else {}
        self._adapter.open()

    def receive(self, limit: int, wait_s: float) -> Sequence[Observed]:
        """What came, in its order; messages of one producer that follow one another are one observation."""
        deliveries = self._adapter.receive(min(limit, limits.MQTT_WAITING_MAX), wait_s)
        found: list[Observed] = []
        acknowledge: list[Delivery] = []
        for delivery in deliveries:
            acknowledge.append(delivery)
            mark = _mark(delivery)
            if mark in self._seen and delivery.headers.get("dup"):
                continue
            self._seen[mark] = None
            producer, readings = self._read(delivery)
            if found and found[-1].producer == producer and len(found[-1].readings) < limit:
                found[-1].readings = [*found[-1].readings, *readings]
            else:
                found.append(Observed(producer, delivery.received_at, readings, numbered=True))
        while len(self._seen) > limits.MQTT_WAITING_MAX * 2:  # twice what the broker may have under way
            del self._seen[next(iter(self._seen))]
        if not deliveries:
            return []
        if not found:
            found = [Observed(_producer(_topic(deliveries[-1]), self._rule(_topic(deliveries[-1]))), deliveries[-1].received_at)]
        found[-1] = replace(
            found[-1],
            memory={self._memory: msgspec.msgpack.encode(list(self._seen))},
            done=lambda: _acknowledge(acknowledge),
        )
        return found

    def close(self) -> None:
        """Disconnect; the broker keeps the session."""
        self._adapter.close()

    def check(self) -> Sequence[str]:
        """Connect under a name of its own, so that a running edge keeps its session."""
        settings = self._settings
        tried = MqttReadings(replace(settings, client_id=f"{settings.client_id}-check", session_expiry_s=0))
        try:
            tried.open(lambda name: None)
            found = tried.receive(100, 2.0)
        finally:
            tried.close()
        heard = f"{sum(len(one.readings) for one in found)} readings in two seconds"
        return [f"connected with MQTT {settings.version}, subscribed to {', '.join(one.filter for one in settings.topics)}", heard]

    def _read(self, delivery: Delivery) -> tuple[str, list[Reading]]:
        topic = _topic(delivery)
        rule = self._rule(topic)
        historical = delivery.headers.get("retained") == "True"
        try:
            payload = json.loads(delivery.body, parse_float=_number, parse_constant=lambda text: text)
        except (ValueError, RecursionError):
            return _producer(topic, rule), [_raw(topic, delivery.body, historical)]
        at = _moment(_dig(payload, rule.at)) if rule.at else None
        number = _dig(payload, rule.sequence) if rule.sequence else None
        sequence = number if isinstance(number, int) and not isinstance(number, bool) else None
        skip = {rule.at, rule.sequence}
        leaves = _leaves(_dig(payload, rule.value) if rule.value else payload, topic, rule.value, skip)
        readings = [
            Reading(tag, value, at, type=type_, sequence=sequence, historical=historical)
            for _, (tag, value, type_) in zip(range(VALUES_MAX), leaves, strict=False)
        ]
        if not readings:  # an empty object says that the producer is there, and its number counts
            readings = [Reading(topic, None, at, sequence=sequence, historical=historical)]
        return _producer(topic, rule), readings

    def _rule(self, topic: str) -> Topics:
        return next((one for one in self._settings.topics if mqtt.topic_matches_sub(one.filter, topic)), self._settings.topics[0])


class _Numbered(MqttAdapter):
    """Keeps packet numbers and the mark of a repetition with each delivery."""

    def _delivery(self, session: int, message: mqtt.MQTTMessage) -> Delivery:
        delivery = super()._delivery(session, message)
        delivery.headers = {**delivery.headers, "mid": str(message.mid), **({"dup": "1"} if message.dup else {})}
        return delivery


_TAKEN = Outcome("", [])


def _acknowledge(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        delivery.done(_TAKEN)


def _topic(delivery: Delivery) -> str:
    return delivery.headers.get("topic", "")


def _mark(delivery: Delivery) -> bytes:
    """What a repetition has alike: packet number, topic and payload."""
    said = f"{delivery.headers.get('mid')}\x00{_topic(delivery)}\x00".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(said + delivery.body, digest_size=12).digest()


def _producer(topic: str, rule: Topics) -> str:
    levels = topic.split("/")
    return "/".join(levels[: rule.producer] if rule.producer else levels)[:200] or "/"


def _dig(payload: Any, path: str | None) -> Any:
    for name in (path or "").split("."):
        if not isinstance(payload, dict) or name not in payload:
            return None
        payload = payload[name]
    return payload


def _leaves(value: Any, tag: str, path: str, skip: set[str | None], depth: int = 0) -> Iterator[tuple[str, Value, str]]:
    if isinstance(value, dict | list) and depth < DEPTH_MAX:
        items = value.items() if isinstance(value, dict) else ((str(n), one) for n, one in enumerate(value))
        for name, one in items:
            inner = f"{path}.{name}" if path else str(name)
            if inner not in skip:
                yield from _leaves(one, f"{tag}/{name}", inner, skip, depth + 1)
    elif isinstance(value, dict | list):
        yield tag, json.dumps(value, default=str), "json"
    elif isinstance(value, Decimal):
        yield tag, str(value), "number"
    else:
        yield tag, value, _TYPES.get(type(value), "")


_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def _number(text: str) -> float | Decimal:
    """A number with a point: as a float where that is the same number, else exactly as it stands."""
    found = float(text)
    return found if found - found == 0 and Decimal(repr(found)) == Decimal(text) else Decimal(text)


def _raw(topic: str, body: bytes, historical: bool) -> Reading:
    try:
        return Reading(topic, body.decode(), None, type="string", historical=historical)
    except UnicodeDecodeError:
        return Reading(topic, body.hex(), None, type="bytes", historical=historical)


def _moment(value: Any) -> datetime | None:
    """A time with its offset; one without stays without (the plant's zone is asked later); a number is counted from 1970."""
    try:
        if isinstance(value, str) and _TIME.fullmatch(value):
            return datetime.fromisoformat(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            units = next((u for bound, u in ((1e11, 1), (1e14, 1000), (1e17, 10**6), (1e20, 10**9)) if abs(value) < bound), None)
            return None if units is None else _EPOCH + timedelta(microseconds=round(value * (10**6 / units)))
    except (ValueError, OverflowError):
        return None
    return None


def _sound(filter_: str) -> bool:
    levels = filter_.split("/")
    return all(
        ("+" not in level or level == "+") and ("#" not in level or (level == "#" and n == len(levels) - 1))
        for n, level in enumerate(levels)
    )
