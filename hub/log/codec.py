"""Facts to rows of `log.event` and back."""

import base64
import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from events import canonical
from events.base import Envelope, Event, Fact, Recorded, decoded
from events.vocabulary import bounded

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
    key: uuid.UUID
    digest: bytes
    source: str
    business_key: str
    occurred_at: datetime
    effective_at: datetime
    meta: bytes
    data: bytes


def receipt_key(source: str, business_key: str) -> uuid.UUID:
    """What makes two deliveries of a fact the same: 16 bytes of sha256 over source and business key."""
    return uuid.UUID(bytes=hashlib.sha256(f"{source}\x00{business_key}".encode()).digest()[:16])


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
        key=receipt_key(e.source, e.key),
        digest=fact.digest(data),
        source=e.source,
        business_key=e.key,
        occurred_at=e.occurred_at,
        effective_at=e.effective_at,
        meta=canonical.dumps(meta),
        data=data,
    )


def decode(row: tuple[Any, ...]) -> Recorded:
    """The recorded fact of a row that was selected as `COLUMNS`. Raises `Corrupt` where it does not fit its type."""
    position, stream, version, type_, schema_version, source, key, occurred_at, effective_at, recorded_at, meta, data = row
    envelope = Envelope(source=source, key=key, occurred_at=occurred_at, effective_at=effective_at, **canonical.loads(bytes(meta)))
    if stream.startswith(AGGREGATE):
        return Recorded(position, stream, version, recorded_at, Fact(envelope, AggregateEvent(stream, type_, bytes(data))))
    return Recorded(position, stream, version, recorded_at, Fact(envelope, decoded(type_, schema_version, bytes(data))))
