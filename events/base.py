"""What every event type is made of: the `Event` base with its registry, the envelope, and the fact that joins them.

An event class is a frozen dataclass with a type name `area.noun_verbed` that is for ever and a schema version. pydantic validates data at
the door, once; what comes back from the log was validated when it was appended and is only decoded.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Self, TypeVar, dataclass_transform

import msgspec
from pydantic import ConfigDict, StringConstraints, TypeAdapter, ValidationError, with_config

from events import canonical, plain
from events.errors import Corrupt, Refused
from events.vocabulary import Name, Time

EventType = str
T = TypeVar("T", bound="Event")
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

_types: dict[EventType, type["Event"]] = {}
_upcasters: dict[tuple[EventType, int], Upcaster] = {}

OWN = ("integration.", "security.")  # areas of which the hub alone records facts: no source may send them
PERSON = re.compile(r"person/[0-9a-f]{16}", re.ASCII)  # how an envelope's actor names a person whom the hub identified; no source may
STRICT = ConfigDict(extra="forbid", strict=False)


class Event:
    """A fact in the past tense. Subclasses are frozen dataclasses decorated with `@event`."""

    __slots__ = ()
    type: ClassVar[EventType]
    version: ClassVar[int] = 1
    keyed_only: ClassVar[bool] = False  # True: the key says it all, a repeat with other words or times is the same fact

    def stream(self) -> str:
        """The history it belongs to, `kind/id`; versions count up within it."""
        raise TypeError(f"{type(self).__name__} must say which stream it belongs to")

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """The event of JSON-like data. Raises `Refused` naming each wrong field."""
        try:
            return _adapter(cls).validator.validate_python(data)  # type: ignore[no-any-return]
        except ValidationError as error:
            raise Refused(f"{cls.type}: {explain(error)}") from None

    def data(self) -> dict[str, Any]:
        """Its fields as plain JSON data without those that are None or empty."""
        return plain.plain(self)

    def json(self) -> bytes:
        """The same as canonical bytes: what is stored and digested."""
        return plain.encoded(self)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def event(cls: type[T]) -> type[T]:
    """Class decorator: makes a frozen, slotted dataclass of an event class and registers its type name; a second use of a name fails at import."""
    made: Any = with_config(STRICT)(dataclass(frozen=True, slots=True, kw_only=True)(cls))
    if made.type in _types:
        raise TypeError(f"the event type {made.type!r} is defined twice: {_types[made.type].__qualname__} and {cls.__qualname__}")
    _types[made.type] = made
    return made  # type: ignore[no-any-return]


def upcasts(type_name: EventType, *, from_version: int) -> Callable[[Upcaster], Upcaster]:
    """Decorator: registers a pure function that turns data of `from_version` into data of the next version."""

    def register(function: Upcaster) -> Upcaster:
        if (type_name, from_version) in _upcasters:
            raise TypeError(f"{type_name!r} version {from_version} has two upcasters")
        _upcasters[type_name, from_version] = function
        return function

    return register


def event_types() -> Iterator[type[Event]]:
    """All registered event classes in the order of their names."""
    return iter(sorted(_types.values(), key=lambda cls: cls.type))


def event_class(type_name: EventType) -> type[Event]:
    """The class of a type name. Raises `Refused` for an unknown one: names come from this registry only, never from an import path."""
    try:
        return _types[type_name]
    except KeyError:
        raise Refused(f"the event type {type_name[:80]!r} is not known: see docs/events.md for the types there are") from None


def upcast(type_name: EventType, version: int, data: dict[str, Any]) -> dict[str, Any]:
    """Data of any older version as data of the current one."""
    current = event_class(type_name).version
    if not 1 <= version <= current:
        raise Refused(f"{type_name} has versions 1 to {current}, not {version}")
    while version < current:
        data = _upcasters[type_name, version](data)
        version += 1
    return data


def validated(type_name: EventType, version: int, data: Mapping[str, Any]) -> Event:
    """The event that untrusted data of any known version describes."""
    try:
        current = upcast(type_name, version, dict(data))
    except (KeyError, TypeError, AttributeError) as error:
        raise Refused(
            f"{type_name} version {version}: {error} is missing or of the wrong kind, see schemas/{type_name}/{version}.json"
        ) from None
    return event_class(type_name).of(current)


def decoded(type_name: EventType, version: int, stored: bytes) -> Event:
    """The event of bytes that our own log holds; not validated twice. Raises `Corrupt` where they do not fit their type."""
    cls = _types.get(type_name)
    if cls is None or version > cls.version:
        raise Corrupt(f"the log holds a {type_name[:80]} version {version}, which this hub does not know: use the newer hub that wrote it")
    try:
        found = _decoders.get(cls) or decoder(cls)
        if version == cls.version:
            return found.decode(stored)
        return msgspec.convert(upcast(type_name, version, canonical.loads(stored)), cls)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Refused, KeyError, TypeError) as error:
        raise Corrupt(f"a stored {type_name} version {version} does not decode: {error}") from error


_decoders: dict[type[Event], "msgspec.json.Decoder[Event]"] = {}
_describing = threading.Lock()


def decoder(cls: type[Event]) -> "msgspec.json.Decoder[Event]":
    """The decoder of a class, made by one thread at a time: msgspec 0.22 ends the process where two meet a class for the first time at once."""
    with _describing:
        return _decoders.setdefault(cls, _decoders.get(cls) or msgspec.json.Decoder(cls))


_adapters: dict[EventType, TypeAdapter[Any]] = {}


def _adapter(cls: type[Event]) -> TypeAdapter[Any]:
    found = _adapters.get(cls.type)
    if found is None:
        found = _adapters[cls.type] = TypeAdapter(cls)
    return found


def json_schema(cls: type[Event]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of an event's data, as frozen under schemas/: its shape without words, which may be said better later."""
    shape = _wordless(_adapter(cls).json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": cls.type, **shape}


def _wordless(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _wordless(v) for k, v in schema.items() if k not in ("title", "description") or not isinstance(v, str)}
    return [_wordless(v) for v in schema] if isinstance(schema, list) else schema


def explain(error: ValidationError, most: int = 5) -> str:
    """A validation error as a sentence: field, what is wrong, for at most `most` fields."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    parts = [f"{'.'.join(str(p) for p in e['loc']) or 'data'}: {e['msg'].removeprefix('Value error, ')}" for e in found[:most]]
    if len(found) > most:
        parts.append(f"and {len(found) - most} more")
    return "; ".join(parts)


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Who, when and from where; never mixed into the fact.

    `source` and `key` (the business key) together name the fact for ever. `occurred_at` is the source's clock, `effective_at` the business
    time it counts from. `time_quality` says how sure the offset of a local time is. `mapping` names the mapping and its version, `raw` is the
    sha256 (hex) of the delivery it came in, `traceparent` the source's trace that brought it first (events/traces.py). `details` is what the
    source said besides and no event type has a field for, in the words of its standard (EPCIS bizStep, disposition, ilmd, sensors,
    extensions): part of what the fact says, so of its digest.
    """

    source: Name
    key: Annotated[str, StringConstraints(min_length=1, max_length=600)]
    occurred_at: Time
    effective_at: Time
    time_quality: str = "offset"  # offset | partner_zone | assumed_utc
    correlation: Name | None = None
    causation: Name | None = None
    actor: Name | None = None
    mapping: str = ""
    raw: str = ""
    traceparent: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fact:
    """An event with its envelope: what a mapping makes and `append` takes."""

    envelope: Envelope
    event: Event

    def digest(self, data: bytes | None = None, times: tuple[int, int] | None = None, named: bytes = b"") -> bytes:
        """sha256 over what the fact says; receive times, mapping, raw bytes, trace and transport numbers do not count.

        `data`: its JSON; `times`: when it occurred and is effective, in microseconds; `named`: type, source and key, each ended by NUL; where
        they are at hand.
        """
        e, event = self.envelope, self.event
        named = named or f"{event.type}\x00{e.source}\x00{e.key}\x00".encode()
        if event.keyed_only:
            return hashlib.sha256(named).digest()
        occurred, effective = times or (microseconds(e.occurred_at), microseconds(e.effective_at))
        said = b"%b%d %d\x00%b" % (named, occurred, effective, event.json() if data is None else data)
        return hashlib.sha256(said + canonical.dumps(e.details) if e.details else said).digest()


_EPOCH, _US = datetime(2000, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def microseconds(time: datetime) -> int:
    """Microseconds since the year 2000 began in UTC, as PostgreSQL counts them."""
    return (time - _EPOCH) // _US


@dataclass(frozen=True, slots=True)
class Recorded:
    """A fact as the log holds it."""

    position: int
    stream: str
    version: int
    recorded_at: datetime
    fact: Fact

    @property
    def event(self) -> Event:
        return self.fact.event

    @property
    def envelope(self) -> Envelope:
        return self.fact.envelope


def envelope_of(data: Mapping[str, Any]) -> Envelope:
    """The envelope of untrusted JSON-like data. Raises `Refused` naming each wrong field."""
    try:
        return _envelope.validator.validate_python(data)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise Refused(f"envelope: {explain(error)}") from None


_envelope: TypeAdapter[Envelope] = TypeAdapter(Envelope)
ENVELOPE_FIELDS = tuple(f.name for f in fields(Envelope))
