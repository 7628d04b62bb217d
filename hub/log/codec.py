"""Facts to rows of `log.event` and back."""

import base64
import hashlib
import struct
import uuid
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec

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
    """A fact on its way to the log. `digest` and `body` are made when they are needed (`encode`), so that the server works meanwhile."""

    fact: Fact
    key: bytes  # the receipt
    stream: str
    version: int | None = None  # None lets the log give the next one of its stream
    digest: bytes = b""
    body: bytes = b""  # the fields from key on, in the format and order of `COPY`


def receipt_bytes(source: str, business_key: str) -> bytes:
    """What makes two deliveries of a fact the same: 16 bytes of sha256 over source and business key."""
    return hashlib.sha256(f"{source}\x00{business_key}".encode()).digest()[:16]


def receipt_key(source: str, business_key: str) -> uuid.UUID:
    """The same as the uuid that PostgreSQL keeps."""
    return uuid.UUID(bytes=receipt_bytes(source, business_key))


def row_of(fact: Fact) -> Row:
    """A fact with as much of its row as the log must know first."""
    return Row(fact, receipt_bytes(fact.envelope.source, fact.envelope.key), bounded(fact.event.stream()))


def encode(row: Row) -> Row:
    """The same row with its digest and body."""
    e, event = row.fact.envelope, row.fact.event
    occurred = microseconds(e.occurred_at)
    effective = occurred if e.effective_at is e.occurred_at else microseconds(e.effective_at)
    data = event.json()
    row.digest = digest = row.fact.digest(data, (occurred, effective))
    type_, source, key, meta = event.type.encode(), e.source.encode(), e.key.encode(), _meta(e)
    row.body = b"".join(
        (
            _FIXED(16, row.key, 8, occurred, 8, effective, 4, event.version, len(digest)), digest,
            _LENGTH(len(type_)), type_,
            _LENGTH(len(source)), source,
            _LENGTH(len(key)), key,
            _LENGTH(len(meta)), meta,
            _LENGTH(len(data)), data,
        )
    )  # fmt: skip
    return row


def _meta(e: Envelope) -> bytes:
    if e.details:
        return canonical.dumps({name: value for name in (*_META, "details") if (value := getattr(e, name))})
    said = _meta_values(e)
    known = _metas.get(said)
    if known is None:  # the facts of one delivery have the same
        if len(_metas) > 1000:
            _metas.clear()
        known = _metas[said] = _json({name: value for name, value in zip(_META, said, strict=True) if value})
    return known


_json = msgspec.json.Encoder(order="sorted").encode
_meta_values = attrgetter(*_META)
_metas: dict[tuple[Any, ...], bytes] = {}


COPY = """copy log.event (position, version, recorded_at, stream, key, occurred_at, effective_at, schema_version, digest, type, source,
          business_key, meta, data) from stdin (format binary)"""
COPY_BEGIN, COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_HEAD = struct.Struct("!hiqiqiqi").pack  # 14 fields; position, version, recorded_at; the length of the stream
_FIXED = struct.Struct("!i16siqiqiii").pack  # key, occurred_at, effective_at, schema_version; the length of the digest
_LENGTH = struct.Struct("!i").pack


def packed(row: Row, position: int, version: int, recorded: int) -> bytes:
    """An encoded row of `log.event` in PostgreSQL's binary COPY format, its fields in the order of `COPY`; `recorded` in microseconds."""
    stream = row.stream.encode()
    return _HEAD(14, 8, position, 8, version, 8, recorded, len(stream)) + stream + row.body


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
