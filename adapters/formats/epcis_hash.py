"""The event hash of the Core Business Vocabulary 2.0 (section 8.9): the id of an EPCIS event that brings none.

The same event gives the same hash however its fields are ordered, its identifiers and vocabulary are spelled and its extensions' prefixes are
called. When it was recorded, its own id, an errorDeclaration and comments do not count.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from adapters.formats import epcis_vocabulary as voc
from adapters.formats.epcis_event import parse_time
from adapters.formats.epcis_vocabulary import COMMENT, Names
from events import gs1
from events.canonical import decimal_text

_QUANTITY = ("epcClass", "quantity", "uom")
_METADATA = ("time", "startTime", "endTime", "deviceID", "deviceMetadata", "rawData", "dataProcessingMethod", "bizRules")
_REPORT = (
    "type", "exception", "deviceID", "deviceMetadata", "rawData", "dataProcessingMethod", "time", "microorganism", "chemicalSubstance", "value",
    "component", "stringValue", "booleanValue", "hexBinaryValue", "uriValue", "minValue", "maxValue", "meanValue", "sDev", "percRank",
    "percValue", "uom", "coordinateReferenceSystem",
)  # fmt: skip
# Fields in the order of the standard, each with the name of its list's members ("": they have none) and the order within a member.
_ORDER: Sequence[tuple[str, str | None, Sequence[str]]] = (
    ("eventTime", None, ()),
    ("eventTimeZoneOffset", None, ()),
    ("epcList", "epc", ()),
    ("parentID", None, ()),
    ("inputEPCList", "epc", ()),
    ("childEPCs", "epc", ()),
    ("quantityList", "quantityElement", _QUANTITY),
    ("childQuantityList", "quantityElement", _QUANTITY),
    ("inputQuantityList", "quantityElement", _QUANTITY),
    ("outputEPCList", "epc", ()),
    ("outputQuantityList", "quantityElement", _QUANTITY),
    ("action", None, ()),
    ("transformationID", None, ()),
    ("bizStep", None, ()),
    ("disposition", None, ()),
    ("persistentDisposition", None, ("set", "unset")),
    ("readPoint", None, ("id",)),
    ("bizLocation", None, ("id",)),
    ("bizTransactionList", "", ("type", "bizTransaction")),
    ("destinationList", "", ("type", "destination")),
    ("sourceList", "", ("type", "source")),
    ("sensorElementList", "sensorElement", ("sensorMetadata", "sensorReport")),
)
_ORDERED = {name for name, _, _ in _ORDER}
_NOT_COUNTED = {"@context", "type", "eventID", "recordTime", "errorDeclaration", "certificationInfo"}
_WITHIN: Mapping[str, Sequence[str]] = {"sensorMetadata": _METADATA, "sensorReport": _REPORT}
_WORDS: Mapping[str, tuple[str, frozenset[str]]] = {
    "bizStep": ("BizStep", voc.STEPS),
    "disposition": ("Disp", voc.DISPOSITIONS),
    "set": ("Disp", voc.DISPOSITIONS),
    "unset": ("Disp", voc.DISPOSITIONS),
}
_TYPES = {
    "bizTransactionList": ("BTT", voc.TRANSACTIONS),
    "sourceList": ("SDT", voc.PARTIES),
    "destinationList": ("SDT", voc.PARTIES),
}


def event_id(event: Mapping[str, Any], names: Names, ignored: frozenset[str] = frozenset()) -> str:
    """The hash id of a checked event as it stands in its document, `ni:///sha-256;…?ver=CBV2.0`; `ignored` are expanded names left out."""
    return f"ni:///sha-256;{hashlib.sha256(pre_hash(event, names, ignored).encode()).hexdigest()}?ver=CBV2.0"


def pre_hash(event: Mapping[str, Any], names: Names, ignored: frozenset[str] = frozenset()) -> str:
    """The canonical text that is hashed."""
    text = _Text(names)
    found = [f"eventType={event['type']}"]
    found += [text.field(name, event[name], member, order) for name, member, order in _ORDER if event.get(name) is not None]
    rest = {names.expand(name): value for name, value in event.items() if name not in _ORDERED and name not in _NOT_COUNTED}
    found += text.rest((name, value) for name, value in rest.items() if name != COMMENT and name not in ignored)
    return "".join(found)


class _Text:
    """Makes the canonical text of values, with the names that hold in one event."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def field(self, name: str, value: Any, member: str | None, order: Sequence[str]) -> str:
        """A field of an event: `name=value`, or the name and its members in order; nothing where it is empty."""
        if member is None and not order:
            return self._one(name, self._value(name, value))
        entries = value if isinstance(value, list) else [value]
        if member == "epc":
            return name + "".join(sorted(self._one("epc", self._value("epc", entry)) for entry in entries)) if entries else ""
        said = sorted((member or "") + inside for entry in entries if (inside := self._inside(entry, order, name)))
        return name + "".join(said) if said else ""

    def _inside(self, value: Mapping[str, Any], order: Sequence[str], within: str) -> str:
        """The fields of an object: those of the standard in their order, then extensions."""
        found = []
        for name in order:
            if name in value:
                entries = value[name] if isinstance(value[name], list) else [value[name]]
                if name in _WITHIN:
                    said = [name + inside for entry in entries if (inside := self._inside(entry, _WITHIN[name], name))]
                else:
                    said = [self._one(name, self._value(name, entry, within)) for entry in entries]
                found += sorted(said)
        found += self.rest((self._names.expand(name), entry) for name, entry in value.items() if name not in order)
        return "".join(found)

    def rest(self, fields: Iterable[tuple[str, Any]]) -> list[str]:
        """Extensions, sorted by their text."""
        found = []
        for name, value in fields:
            for entry in value if isinstance(value, list) else [value]:
                if isinstance(entry, dict):
                    inside = self.rest((self._names.expand(key), one) for key, one in entry.items() if not key.startswith("@"))
                    found.append(name + "".join(inside))
                elif isinstance(entry, list):
                    found += self.rest([(name, entry)])
                elif (text := self._scalar(entry)) != "":
                    found.append(f"{name}={_link(text)}")
        return sorted(found)

    @staticmethod
    def _one(name: str, text: str) -> str:
        return f"{name}={text}" if text else ""

    def _value(self, name: str, value: Any, within: str = "") -> str:
        text = self._scalar(value)
        if ("time" in name.lower()[1:] and "offset" not in name.lower()) or name == "time":
            time = parse_time(text)
            return time.isoformat(timespec="milliseconds").replace("+00:00", "Z") if time is not None else text
        mark, words = _TYPES.get(within, ("", frozenset())) if name == "type" else _WORDS.get(name, ("", frozenset()))
        if mark:
            return self._word(text, mark, words)
        if within == "sensorReport" and name in ("type", "exception"):
            return text if ":" in text and not text.startswith("gs1:") else f"https://gs1.org/voc/{text.removeprefix('gs1:')}"
        if within == "sensorReport" and name == "component":
            return self._curie(text) if ":" in text else f"https://ref.gs1.org/cbv/Comp-{text}"
        return _link(text)

    def _word(self, text: str, mark: str, words: frozenset[str]) -> str:
        vocabulary = voc.Vocabulary(
            "", words, mark, {"BizStep": "urn:epcglobal:cbv:bizstep:"}.get(mark, f"urn:epcglobal:cbv:{mark.lower()}:")
        )
        word = vocabulary.standard(text) or text
        return f"https://ref.gs1.org/cbv/{mark}-{word}" if word in words else self._curie(word)

    def _curie(self, text: str) -> str:
        expanded = self._names.expand(text)
        return expanded[1:].replace("}", "", 1) if expanded.startswith("{") else text

    @staticmethod
    def _scalar(value: Any) -> str:
        """A JSON value as text: numbers, and texts that are numbers, without needless zeros."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if value is None:
            return ""
        text = decimal_text(value) if isinstance(value, Decimal) else str(value).strip()
        try:
            number = Decimal(text)
        except InvalidOperation:
            return text
        return decimal_text(number) if number.is_finite() and abs(number.adjusted()) < 40 else text


def _link(text: str) -> str:
    key = gs1.parse(text)
    return key.link if key else text
