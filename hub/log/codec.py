"""Facts to rows of `log.event` and back."""

import base64
import hashlib
import struct
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from events import canonical
from events.base import Envelope, Event, Fact, Recorded, decoded
from events.vocabulary import bounded

_encode_meta = msgspec.json.Encoder(order="sorted").encode
_META = ("time_quality", "correlation", "causation", "actor", "mapping", "raw", "details")

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
    occurred_at: datetime
    effective_at: datetime
    meta: bytes
    data: bytes


def receipt_bytes(source: str, business_key: str) -> bytes:
    """What makes two deliveries of a fact the same: 16 bytes of sha256 over source and business key."""
    return hashlib.sha256(f"{source}\x00{business_key}".encode()).digest()[:16]


def receipt_key(source: str, business_key: str) -> uuid.UUID:
    """The same as the uuid that PostgreSQL keeps."""
    return uuid.UUID(bytes=receipt_bytes(source, business_key))


def encode(fact: Fact) -> Row:
    """The row of a fact, all but position and version."""
    e = fact.envelope
    data = fact.event.json()
    meta = {name: value for name in _META if (value := getattr(e, name))}
    return Row(
        stream=bounded(fact.event.stream()),
        version=None,
        type=fact.event.type,
        schema_version=fact.event.version,
        key=receipt_bytes(e.source, e.key),
        digest=fact.digest(data),
        source=e.source,
        business_key=e.key,
        occurred_at=e.occurred_at,
        effective_at=e.effective_at,
        meta=canonical.dumps(meta) if e.details else _encode_meta(meta),
        data=data,
    )


COPY = """copy log.event (position, stream, version, type, schema_version, key, digest, source, business_key, occurred_at, effective_at,
          recorded_at, meta, data) from stdin (format binary)"""
COPY_BEGIN, COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's; its timestamps are microseconds from here
_US = timedelta(microseconds=1)
_POSITION = struct.Struct("!hiqi").pack  # 14 fields; int8; the length of the stream
_VERSION = struct.Struct("!iqi").pack
_SCHEMA = struct.Struct("!iii16si").pack
_LENGTH = struct.Struct("!i").pack
_TIMES = struct.Struct("!iqiqiqi").pack


def pg_time(time: datetime) -> int:
    """A time as PostgreSQL's binary format has it."""
    return (time - _EPOCH) // _US


def packed(row: Row, position: int, version: int, recorded: int) -> bytes:
    """A row of `log.event` in PostgreSQL's binary COPY format, its fields in the order of `COPY`."""
    stream, type_, source, key = row.stream.encode(), row.type.encode(), row.source.encode(), row.business_key.encode()
    occurred = pg_time(row.occurred_at)
    effective = occurred if row.effective_at is row.occurred_at else pg_time(row.effective_at)
    return b"".join(
        (
            _POSITION(14, 8, position, len(stream)), stream,
            _VERSION(8, version, len(type_)), type_,
            _SCHEMA(4, row.schema_version, 16, row.key, len(row.digest)), row.digest,
            _LENGTH(len(source)), source,
            _LENGTH(len(key)), key,
            _TIMES(8, occurred, 8, effective, 8, recorded, len(row.meta)), row.meta,
            _LENGTH(len(row.data)), row.data,
        )
    )  # fmt: skip


def decode(row: tuple[Any, ...]) -> Recorded:
    """The recorded fact of a row that was selected as `COLUMNS`. Raises `Corrupt` where it does not fit its type."""
    position, stream, version, type_, schema_version, source, key, occurred_at, effective_at, recorded_at, meta, data = row
    envelope = Envelope(source=source, key=key, occurred_at=occurred_at, effective_at=effective_at, **canonical.loads(bytes(meta)))
    if stream.startswith(AGGREGATE):
        return Recorded(position, stream, version, recorded_at, Fact(envelope, AggregateEvent(stream, type_, bytes(data))))
    return Recorded(position, stream, version, recorded_at, Fact(envelope, decoded(type_, schema_version, bytes(data))))
