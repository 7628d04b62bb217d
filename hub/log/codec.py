"""Facts to rows of `log.event` and back."""

import base64
import hashlib
import struct
import uuid
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from events import canonical
from events.base import Envelope, Event, Fact, Recorded, decoded, microseconds
from events.errors import Corrupt, Refused
from events.vocabulary import bounded

_META = ("time_quality", "correlation", "causation", "actor", "mapping", "raw", "traceparent")

COLUMNS = "position, stream, version, type, schema_version, source, business_key, occurred_at, effective_at, recorded_at, meta, data"


AGGREGATE = "aggregate/"  # streams of the eventsourcing library's aggregates (hub/log/recorder.py)


@dataclass(frozen=True, slots=True)
class AggregateEvent(Event):
    """An event of an aggregate, as the library's mapper wrote it: no view knows what is in it."""

    name: str
    topic: str
    state: bytes

    @property
    def type(self) -> str:  # type: ignore[override]
        return self.topic

    def stream(self) -> str:
        return self.name

    def data(self) -> dict[str, Any]:
        """Its state as text in base 64."""
        return {"state": base64.b64encode(self.state).decode()}

    def json(self) -> bytes:
        return self.state


@dataclass(slots=True)
class Row:
    """A fact encoded for the log; `version` None lets the log give the next one of its stream."""

    stream: str
    version: int | None
    type: str
    schema_version: int
    key: bytes
    digest: bytes
    source: str
    business_key: str
    occurred: int  # times in PostgreSQL's binary format
    effective: int
    meta: bytes
    data: bytes


def receipt_bytes(source: str, business_key: str) -> bytes:
    """What makes two deliveries of a fact the same: 16 bytes of sha256 over source and business key."""
    return hashlib.sha256(f"{source}\x00{business_key}".encode()).digest()[:16]


def receipt_key(source: str, business_key: str) -> uuid.UUID:
    """The same as the uuid that PostgreSQL keeps."""
    return uuid.UUID(bytes=receipt_bytes(source, business_key))


@dataclass(slots=True)
class Unencoded:
    """A fact with as much of its row as must be known before the rest is worth making."""

    fact: Fact
    key: bytes
    stream: str
    version: int | None = None


def unencoded(fact: Fact) -> Unencoded:
    """A fact on its way to the log."""
    return Unencoded(fact, receipt_bytes(fact.envelope.source, fact.envelope.key), bounded(fact.event.stream()))


def encode(fact: Fact, key: bytes = b"", stream: str = "") -> Row:
    """The row of a fact, all but position and version; `key` and `stream` where they are known already."""
    e, event = fact.envelope, fact.event
    occurred = microseconds(e.occurred_at)
    effective = occurred if e.effective_at is e.occurred_at else microseconds(e.effective_at)
    data = event.json()
    return Row(
        stream or bounded(event.stream()), None, event.type, event.version, key or receipt_bytes(e.source, e.key), fact.digest(data), e.source, e.key, occurred,
        effective, _meta(e), data,
    )  # fmt: skip


def _meta(e: Envelope) -> bytes:
    if e.details:
        return canonical.dumps({name: value for name in (*_META, "details") if (value := getattr(e, name))})
    said = _meta_values(e)
    known = _metas.get(said)
    if known is None:  # the facts of one delivery have the same
        if len(_metas) > 1000:
            _metas.clear()
        known = _metas[said] = canonical.dumps({name: value for name, value in zip(_META, said, strict=True) if value})
    return known


_meta_values = attrgetter(*_META)
_metas: dict[tuple[Any, ...], bytes] = {}


COPY = """copy log.event (position, stream, version, type, schema_version, key, digest, source, business_key, occurred_at, effective_at,
          recorded_at, meta, data) from stdin (format binary)"""
COPY_BEGIN, COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_POSITION = struct.Struct("!hiqi").pack  # 14 fields; int8; the length of the stream
_VERSION = struct.Struct("!iqi").pack
_SCHEMA = struct.Struct("!iii16si").pack
_LENGTH = struct.Struct("!i").pack
_TIMES = struct.Struct("!iqiqiqi").pack


def packed(row: Row, position: int, version: int, recorded: int) -> bytes:
    """A row of `log.event` in PostgreSQL's binary COPY format, its fields in the order of `COPY`."""
    stream, type_, source, key = row.stream.encode(), row.type.encode(), row.source.encode(), row.business_key.encode()
    return b"".join(
        (
            _POSITION(14, 8, position, len(stream)), stream,
            _VERSION(8, version, len(type_)), type_,
            _SCHEMA(4, row.schema_version, 16, row.key, len(row.digest)), row.digest,
            _LENGTH(len(source)), source,
            _LENGTH(len(key)), key,
            _TIMES(8, row.occurred, 8, row.effective, 8, recorded, len(row.meta)), row.meta,
            _LENGTH(len(row.data)), row.data,
        )
    )  # fmt: skip


def decode(row: tuple[Any, ...]) -> Recorded:
    """The recorded fact of a row that was selected as `COLUMNS`. Raises `Corrupt` where it does not fit its type."""
    position, stream, version, type_, schema_version, source, key, occurred_at, effective_at, recorded_at, meta, data = row
    try:
        said = canonical.loads(bytes(meta))
        envelope = Envelope(source=source, key=key, occurred_at=occurred_at, effective_at=effective_at, **said)
    except (Refused, TypeError) as error:
        raise Corrupt(f"the envelope of the fact at position {position} does not decode: {error}") from error
    if stream.startswith(AGGREGATE):
        return Recorded(position, stream, version, recorded_at, Fact(envelope, AggregateEvent(stream, type_, bytes(data))))
    return Recorded(position, stream, version, recorded_at, Fact(envelope, decoded(type_, schema_version, bytes(data))))
