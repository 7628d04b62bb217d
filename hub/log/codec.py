"""Facts to rows of `log.event` and back."""

import base64
import hashlib
import struct
import uuid
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from events import canonical
from events.base import Envelope, Event, Fact, Recorded, decoded, microseconds
from events.errors import Corrupt
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


class Row(msgspec.Struct, gc=False):
    """A fact on its way to the log. `digest` and `body` are made when they are needed (`encode`), so that the server works meanwhile."""

    fact: Fact
    key: bytes  # the receipt
    stream: str
    version: int | None = None  # None lets the log give the next one of its stream
    digest: bytes = b""
    body: bytes = b""  # the fields from key on, in the format and order of `COPY`
    position: int = 0  # what the log gave it, and the version
    given: int = 0


def receipt_bytes(source: str, business_key: str) -> bytes:
    """What makes two deliveries of a fact the same: 16 bytes of sha256 over source and business key."""
    return hashlib.sha256(f"{source}\x00{business_key}".encode()).digest()[:16]


@lru_cache(maxsize=4096)  # views ask for each fact of a batch several times
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
    data, key = event.json(), e.key.encode()
    named, names, meta = _shared(event.type, e)
    row.digest = digest = row.fact.digest(data, (occurred, effective), b"%b%b\x00" % (named, key))
    row.body = b"".join(
        (
            _FIXED(16, row.key, 8, occurred, 8, effective, 4, event.version, len(digest)), digest,
            names,
            _LENGTH(len(key)), key,
            meta,
            _LENGTH(len(data)), data,
        )
    )  # fmt: skip
    return row


def _shared(type_: str, e: Envelope) -> tuple[bytes, bytes, bytes]:
    """What the facts of a type and delivery have alike: type and source as the digest takes them and as fields, and meta as a field."""
    said = type_, e.source, _meta_values(e)
    if (known := None if e.details else _known.get(said)) is None:
        fields = (
            type_.encode(),
            e.source.encode(),
            canonical.dumps({name: value for name in (*_META, "details") if (value := getattr(e, name))})
            if e.details
            else _json({name: value for name in _META if (value := getattr(e, name))}),
        )
        type_field, source_field, meta = (_LENGTH(len(field)) + field for field in fields)
        known = b"%b\x00%b\x00" % fields[:2], type_field + source_field, meta
        if not e.details:
            if len(_known) > 1000:
                _known.clear()
            _known[said] = known
    return known


_json = msgspec.json.Encoder(order="sorted").encode
_meta_values = attrgetter(*_META)
_known: dict[tuple[Any, ...], tuple[bytes, bytes, bytes]] = {}


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


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    """What `_meta` writes, with the envelope's own defaults."""

    time_quality: str = "offset"
    correlation: str | None = None
    causation: str | None = None
    actor: str | None = None
    mapping: str = ""
    raw: str = ""
    traceparent: str = ""
    details: dict[str, Any] = msgspec.field(default_factory=dict)


_said = msgspec.json.Decoder(_Said, float_hook=Decimal).decode


def decode(row: tuple[Any, ...]) -> Recorded:
    """The recorded fact of a row that was selected as `COLUMNS`. Raises `Corrupt` where it does not fit its type."""
    position, stream, version, type_, schema_version, source, key, occurred_at, effective_at, recorded_at, meta, data = row
    try:
        said = _said(meta)
        envelope = Envelope(
            source=source, key=key, occurred_at=occurred_at, effective_at=effective_at, time_quality=said.time_quality,
            correlation=said.correlation, causation=said.causation, actor=said.actor, mapping=said.mapping, raw=said.raw,
            traceparent=said.traceparent, details=said.details,
        )  # fmt: skip
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise Corrupt(f"the envelope of the fact at position {position} does not decode: {error}") from error
    if stream.startswith(AGGREGATE):
        return Recorded(position, stream, version, recorded_at, Fact(envelope, AggregateEvent(stream, type_, bytes(data))))
    return Recorded(position, stream, version, recorded_at, Fact(envelope, decoded(type_, schema_version, bytes(data))))
