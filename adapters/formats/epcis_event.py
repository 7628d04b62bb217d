"""One EPCIS 2.0 event in JSON, checked and normalised; what is wrong is told with its place.

The checks are those of the standard (EPCIS 2.0, section 7 and its JSON binding): required fields, actions, identifiers, quantities, times, the
Core Business Vocabulary, and namespaces of extensions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from adapters.formats import epcis_vocabulary as voc
from adapters.formats.epcis_vocabulary import COMMENT, Names, Vocabulary
from events import canonical, gs1

Json = dict[str, Any]
Epcs = tuple[str, ...]

_COMMON = frozenset({
    "@context", "type", "eventID", "eventTime", "recordTime", "eventTimeZoneOffset", "errorDeclaration", "certificationInfo", "bizStep",
    "disposition", "persistentDisposition", "readPoint", "bizLocation", "bizTransactionList", "sourceList", "destinationList",
    "sensorElementList",
})  # fmt: skip
# What each event type may have besides: lists of instances, lists of quantities, other fields.
TYPES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]] = {
    "ObjectEvent": (("epcList",), ("quantityList",), frozenset({"action", "ilmd"})),
    "AggregationEvent": (("childEPCs",), ("childQuantityList",), frozenset({"action", "parentID"})),
    "AssociationEvent": (("childEPCs",), ("childQuantityList",), frozenset({"action", "parentID"})),
    "TransactionEvent": (("epcList",), ("quantityList",), frozenset({"action", "parentID"})),
    "TransformationEvent": (
        ("inputEPCList", "outputEPCList"),
        ("inputQuantityList", "outputQuantityList"),
        frozenset({"transformationID", "ilmd"}),
    ),
}
_ACTIONS = ("ADD", "OBSERVE", "DELETE")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,12}))?(Z|[+-]\d\d:\d\d)?")
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)")
_NUMBER = re.compile(r"[+-]?\d{1,38}(\.\d{1,38})?([eE][+-]?\d{1,3})?")
_NUMBERS = ("value", "minValue", "maxValue", "meanValue", "sDev", "percRank", "percValue")


class Wrong(Exception):
    """Something in a document or event is not as the standard wants it. `place` is a path such as `eventList[3].action`."""

    def __init__(self, reason: str, place: str) -> None:
        super().__init__(f"{place}: {reason}" if place else reason)
        self.reason, self.place = reason, place


@dataclass(frozen=True, slots=True)
class Quantity:
    """An element of a quantity list; `value` None where the element states none, `unit` None where it counts pieces."""

    epc_class: str
    value: Decimal | None
    unit: str | None
    place: str


@dataclass(frozen=True, slots=True)
class Declaration:
    """An errorDeclaration: when and why an event was declared wrong, and what corrects it."""

    time: datetime
    reason: str
    corrective: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """A checked event. `time` is aware where the event says an offset; `rest` is all else that it says, in canonical form."""

    type: str
    action: str
    id: str
    time: datetime
    error: Declaration | None
    parent: str
    epcs: Mapping[str, Epcs]
    quantities: Mapping[str, tuple[Quantity, ...]]
    transformation: str
    step: str
    disposition: str
    place: str
    transactions: tuple[tuple[str, str], ...]
    sources: tuple[tuple[str, str], ...]
    destinations: tuple[tuple[str, str], ...]
    rest: Json


@dataclass(frozen=True, slots=True)
class Raw:
    """An event as it stands in its document: its number from 1, its place, and the names that hold there."""

    number: int
    where: str
    value: Any
    names: Names


def check(raw: Raw, ignored: frozenset[str]) -> Event:
    """The event of a raw one. Raises `Wrong` with the first thing that is not as it should be."""
    if isinstance(raw.value, Wrong):
        raise raw.value
    if not isinstance(raw.value, dict):
        raise Wrong("an event must be a JSON object", raw.where)
    return _Check(raw).event(ignored)


class _Check:
    """Checks one event, field by field."""

    def __init__(self, raw: Raw) -> None:
        self._value: Json = raw.value
        self._names = raw.names
        self._where = raw.where

    def _at(self, *path: str | int) -> str:
        text = self._where
        for part in path:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        return text

    def event(self, ignored: frozenset[str]) -> Event:
        v = self._value
        type_ = v.get("type")
        if not isinstance(type_, str) or type_ not in TYPES:
            raise Wrong(f"the event type {shown(type_)} is not known: the types are {', '.join(TYPES)}", self._at("type"))
        instances, quantities, more = TYPES[type_]
        self._fields(v, _COMMON | set(instances) | set(quantities) | more)
        self._fields(v.get("ilmd", {}), frozenset(), "ilmd")
        action = self._action(type_)
        epcs = {name: self._uris(v[name], name) for name in instances if name in v}
        counted = {name: self._quantities(name) for name in quantities if name in v}
        places = self._place("bizLocation"), self._place("readPoint")
        event = Event(
            type=type_,
            action=action,
            id=self._uri(v, "eventID"),
            time=self._event_time(),
            error=self._error(),
            parent=self._uri(v, "parentID"),
            epcs=epcs,
            quantities=counted,
            transformation=self._uri(v, "transformationID"),
            step=self._word(v, "bizStep", voc.STEP),
            disposition=self._word(v, "disposition", voc.DISPOSITION),
            place=places[0] or places[1],
            transactions=self._typed("bizTransactionList", "bizTransaction", voc.TRANSACTION),
            sources=self._typed("sourceList", "source", voc.PARTY),
            destinations=self._typed("destinationList", "destination", voc.PARTY),
            rest=self._rest(ignored, {*instances, *quantities}),
        )
        self._sensors()
        self._certification()
        self._persistent()
        self._enough(event)
        return event

    def _enough(self, e: Event) -> None:
        """Whether the event names what its type needs."""
        named = [name for found in (e.epcs, e.quantities) for name, entries in found.items() if entries]
        if e.type == "ObjectEvent" and not named and not self._value.get("sensorElementList"):
            raise Wrong("the event names no objects: it needs an epcList or a quantityList", self._where)
        if e.type in ("AggregationEvent", "AssociationEvent"):
            if not e.parent and e.action != "OBSERVE":
                raise Wrong(f"parentID is missing: {e.action} needs it", self._at("parentID"))
            if not named and e.action != "DELETE":
                raise Wrong("the event names no children: it needs childEPCs or a childQuantityList", self._where)
        if e.type == "TransactionEvent" and not e.transactions:
            raise Wrong("bizTransactionList is missing or empty", self._at("bizTransactionList"))
        if e.type == "TransformationEvent":
            sides = {name.startswith("input") for name in named}
            if not sides or (len(sides) < 2 and not e.transformation):
                raise Wrong("the event needs inputs and outputs, or one of them and a transformationID", self._where)

    def _fields(self, value: Any, known: frozenset[str] | set[str], *path: str | int) -> None:
        if not isinstance(value, dict):
            raise Wrong(f"must be a JSON object, not {shown(value)}", self._at(*path))
        for name in value:
            if name not in known and not self._names.known(name):
                raise Wrong(f"the field {name!r} is not of the standard and has no namespace", self._at(*path, name))

    def _action(self, type_: str) -> str:
        action = self._value.get("action")
        if type_ == "TransformationEvent":
            return ""
        if action is None:
            raise Wrong("action is missing", self._at("action"))
        if action not in _ACTIONS:
            raise Wrong(f"the action {shown(action)} is none of {', '.join(_ACTIONS)}", self._at("action"))
        return str(action)

    def _text(self, value: Json, name: str, *path: str | int) -> str:
        found = value.get(name)
        if found is None:
            return ""
        if not isinstance(found, str) or not found.strip():
            raise Wrong(f"must be text, not {shown(found)}", self._at(*path, name))
        return found

    def _uri(self, value: Json, name: str, *path: str | int) -> str:
        found = self._text(value, name, *path)
        if found and not voc.is_uri(found):
            raise Wrong(f"must be a URI, not {shown(found)}", self._at(*path, name))
        return found

    def _uris(self, value: Any, *path: str | int) -> Epcs:
        if not isinstance(value, list):
            raise Wrong("must be a list of URIs", self._at(*path))
        for n, entry in enumerate(value):
            if not voc.is_uri(entry):
                raise Wrong(f"must be a URI, not {shown(entry)}", self._at(*path, n))
        return tuple(value)

    def _word(self, value: Json, name: str, vocabulary: Vocabulary, *path: str | int) -> str:
        found = self._text(value, name, *path)
        word = vocabulary.standard(found) if found else ""
        if word is None:
            raise Wrong(f"{shown(found)} is no {vocabulary.name} of the Core Business Vocabulary and no URI", self._at(*path, name))
        return word

    def _time_of(self, value: Json, name: str, *path: str | int) -> datetime:
        found = value.get(name)
        if found is None:
            raise Wrong(f"{name} is missing", self._at(*path, name))
        time = parse_time(found) if isinstance(found, str) else None
        if time is None:
            raise Wrong(f"must be a time such as 2026-01-05T06:00:00Z, not {shown(found)}", self._at(*path, name))
        return time

    def _event_time(self) -> datetime:
        """The event's time; one without an offset is read at the eventTimeZoneOffset."""
        time = self._time_of(self._value, "eventTime")
        found = self._value.get("eventTimeZoneOffset")
        if found is None:
            raise Wrong("eventTimeZoneOffset is missing", self._at("eventTimeZoneOffset"))
        offset = _OFFSET.fullmatch(found) if isinstance(found, str) else None
        if offset is None or int(offset[2]) > 14 or int(offset[3]) > 59:
            raise Wrong(f"must be an offset such as +01:00, not {shown(found)}", self._at("eventTimeZoneOffset"))
        if "recordTime" in self._value:
            self._time_of(self._value, "recordTime")
        if time.tzinfo is not None:
            return time
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return time.replace(tzinfo=timezone(ahead if offset[1] == "+" else -ahead))

    def _error(self) -> Declaration | None:
        if "errorDeclaration" not in self._value:
            return None
        found, path = self._value["errorDeclaration"], "errorDeclaration"
        self._fields(found, {"declarationTime", "reason", "correctiveEventIDs"}, path)
        time = self._time_of(found, "declarationTime", path)
        corrective = self._uris(found.get("correctiveEventIDs", []), path, "correctiveEventIDs")
        return Declaration(time if time.tzinfo else time.replace(tzinfo=UTC), self._word(found, "reason", voc.ERROR, path), corrective)

    def _quantities(self, name: str) -> tuple[Quantity, ...]:
        found = self._value[name]
        if not isinstance(found, list):
            raise Wrong("must be a list of quantities", self._at(name))
        return tuple(self._quantity(entry, name, n) for n, entry in enumerate(found))

    def _quantity(self, entry: Any, name: str, n: int) -> Quantity:
        self._fields(entry, {"epcClass", "quantity", "uom"}, name, n)
        if "epcClass" not in entry:
            raise Wrong("epcClass is missing", self._at(name, n, "epcClass"))
        value = entry.get("quantity")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | Decimal)):
            raise Wrong(f"must be a number, not {shown(value)}", self._at(name, n, "quantity"))
        if value is not None and value < 0:
            raise Wrong(f"{value} is negative", self._at(name, n, "quantity"))
        unit = self._text(entry, "uom", name, n) or None
        return Quantity(self._uri(entry, "epcClass", name, n), None if value is None else Decimal(value), unit, self._at(name, n))

    def _place(self, name: str) -> str:
        found = self._value.get(name)
        if found is None:
            return ""
        self._fields(found, {"id"}, name)
        if "id" not in found:
            raise Wrong("id is missing", self._at(name, "id"))
        return self._uri(found, "id", name)

    def _typed(self, name: str, what: str, vocabulary: Vocabulary) -> tuple[tuple[str, str], ...]:
        """(type, identifier) of the entries of a list; the type of a business transaction may be left out."""
        found = self._value.get(name, [])
        if not isinstance(found, list):
            raise Wrong("must be a list", self._at(name))
        pairs = []
        for n, entry in enumerate(found):
            self._fields(entry, {"type", what}, name, n)
            if what not in entry:
                raise Wrong(f"{what} is missing", self._at(name, n, what))
            type_ = self._word(entry, "type", vocabulary, name, n)
            if not type_ and vocabulary is not voc.TRANSACTION:
                raise Wrong("type is missing", self._at(name, n, "type"))
            pairs.append((type_, self._uri(entry, what, name, n)))
        return tuple(pairs)

    def _sensors(self) -> None:
        elements = self._value.get("sensorElementList", [])
        if not isinstance(elements, list):
            raise Wrong("must be a list", self._at("sensorElementList"))
        for n, element in enumerate(elements):
            path = ("sensorElementList", n)
            self._fields(element, {"sensorMetadata", "sensorReport"}, *path)
            if not isinstance(element.get("sensorMetadata", {}), dict):
                raise Wrong("must be a JSON object", self._at(*path, "sensorMetadata"))
            reports = element.get("sensorReport")
            if not isinstance(reports, list) or not reports:
                raise Wrong("sensorReport must be a list with at least one report", self._at(*path, "sensorReport"))
            for m, report in enumerate(reports):
                if not isinstance(report, dict):
                    raise Wrong("must be a JSON object", self._at(*path, "sensorReport", m))
                for name in _NUMBERS:
                    if name in report and not _numeric(report[name]):
                        raise Wrong(f"must be a number, not {shown(report[name])}", self._at(*path, "sensorReport", m, name))

    def _certification(self) -> None:
        found = self._value.get("certificationInfo", [])
        uris = voc.texts(found)
        if uris is None or not all(voc.is_uri(uri) for uri in uris):
            raise Wrong(f"must be a URI or a list of URIs, not {shown(found)}", self._at("certificationInfo"))

    def _persistent(self) -> None:
        found = self._value.get("persistentDisposition", {})
        self._fields(found, {"set", "unset"}, "persistentDisposition")
        for name in ("set", "unset"):
            words = voc.texts(found.get(name, []))
            if words is None or any(voc.DISPOSITION.standard(word) is None for word in words):
                raise Wrong(f"{shown(found.get(name))} are no dispositions", self._at("persistentDisposition", name))

    def _rest(self, ignored: frozenset[str], listed: set[str]) -> Json:
        """What the event says besides its identity, time and objects: names in their namespaces, words and GS1 keys in one spelling."""
        gone = {"@context", "type", "action", "eventID", "eventTime", "recordTime", "errorDeclaration", "parentID", "transformationID"}
        rest = {}
        for name, value in self._value.items():
            full = self._names.expand(name)
            if name not in gone and name not in listed and full not in ignored and full != COMMENT:
                rest[full] = _sorted(self._expanded(value)) if name in _UNORDERED else self._expanded(value)
        for name, vocabulary in (("bizStep", voc.STEP), ("disposition", voc.DISPOSITION)):
            if name in rest:
                rest[name] = self._word(self._value, name, vocabulary)
        for name, vocabulary in (("bizTransactionList", voc.TRANSACTION), ("sourceList", voc.PARTY), ("destinationList", voc.PARTY)):
            entries = [e | ({"type": vocabulary.standard(e["type"])} if e.get("type") else {}) for e in rest.get(name, ())]
            if entries:
                rest[name] = _sorted(entries)
        return {"event": self._value["type"], **rest}

    def _expanded(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._names.expand(name): self._expanded(entry) for name, entry in value.items()}
        if isinstance(value, str):
            key = gs1.parse(value)
            return key.link if key else value
        return [self._expanded(entry) for entry in value] if isinstance(value, list) else value


_UNORDERED = ("bizTransactionList", "sourceList", "destinationList", "sensorElementList", "certificationInfo")


def _numeric(value: Any) -> bool:
    """A number, or a text that is one: sensors move no stock, and many gateways quote what they measure."""
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _sorted(value: Any) -> Any:
    return sorted(value, key=canonical.dumps) if isinstance(value, list) else value


def parse_time(text: str) -> datetime | None:
    """A time in ISO 8601, aware where it says an offset; fractions of a microsecond are cut off."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    try:
        local = datetime.fromisoformat(f"{found[1]}.{(found[2] or '0')[:6]:0<6}{found[3] or ''}")
        return local.astimezone(UTC) if local.tzinfo else local
    except (ValueError, OverflowError):
        return None


def shown(value: Any) -> str:
    text = canonical.dumps(value).decode() if not isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
