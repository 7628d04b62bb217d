"""EPCIS 2.0 JSON: documents, query results and single events, taken apart into events with the names that hold in each.

Nothing that a document points to is ever fetched.
"""

import re
from dataclasses import dataclass
from typing import Any

from adapters.formats import epcis_vocabulary as voc
from adapters.formats.epcis_event import TYPES, Json, Raw, Wrong, parse_time, shown
from adapters.formats.epcis_vocabulary import Names


@dataclass(frozen=True, slots=True)
class Document:
    """A document: who sent it ("" where it does not say), its events, and the extension fields that are to be left out of account."""

    sender: str
    events: tuple[Raw, ...]
    ignored: frozenset[str]
    single: bool


def looks_like(body: bytes) -> bool:
    """Whether bytes are JSON that speaks of EPCIS: a document, a query result, or one bare event."""
    head = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.startswith(b"{"):
        return False
    return (
        b'"epcisBody"' in head
        or b'"EPCISDocument"' in head
        or (b'"eventTime"' in head and any(f'"{name}"'.encode() in head for name in TYPES))
    )


def read(value: Any) -> Document:
    """The document of a JSON value. Raises `Wrong` for a fault of the document as a whole."""
    if not isinstance(value, dict):
        raise Wrong("an EPCIS document must be a JSON object", "")
    type_ = value.get("type")
    if type_ not in ("EPCISDocument", "EPCISQueryDocument"):
        if "epcisBody" in value or not isinstance(type_, str) or type_ not in TYPES:
            raise Wrong(f"type must be EPCISDocument, EPCISQueryDocument or an event type, not {shown(type_)}", "type")
        return Document("", (Raw(1, "", value, _names(value, Names(), "")),), frozenset(), True)
    if "@context" not in value:
        raise Wrong("the document has no @context, so its terms have no meaning: send the one of EPCIS 2.0", "@context")
    names = _names(value, Names(), "")
    version = value.get("schemaVersion")
    if not isinstance(version, str) or not re.fullmatch(r"2(\.\d+)*", version):
        raise Wrong(f"schemaVersion {shown(version)} is not supported in JSON: send 2.0", "schemaVersion")
    created = value.get("creationDate")
    if not isinstance(created, str) or parse_time(created) is None:
        raise Wrong(f"creationDate must be a time such as 2026-01-05T06:00:00Z, not {shown(created)}", "creationDate")
    events, where = _event_list(value, type_)
    raws = []
    for n, event in enumerate(events):
        place = f"{where}[{n}]"
        try:
            raws.append(Raw(n + 1, place, event, _names(event, names, place) if isinstance(event, dict) else names))
        except Wrong as wrong:
            raws.append(Raw(n + 1, place, wrong, names))
    return Document(_sender(value), tuple(raws), _ignored(value, names), False)


def _event_list(value: Json, type_: str) -> tuple[list[Any], str]:
    at: Any = value
    path = ("epcisBody", "eventList") if type_ == "EPCISDocument" else ("epcisBody", "queryResults", "resultsBody", "eventList")
    for depth, name in enumerate(path):
        if not isinstance(at, dict) or name not in at:
            raise Wrong(f"{name} is missing", ".".join(path[: depth + 1]))
        at = at[name]
    if not isinstance(at, list):
        raise Wrong("eventList must be a list", ".".join(path))
    if not at:
        raise Wrong("eventList is empty: the document says nothing", ".".join(path))
    return at, "eventList"


def _sender(value: Json) -> str:
    sender = value.get("sender")
    if sender is None:
        return ""
    if not isinstance(sender, str) or not sender.strip() or len(sender) > 150 or not sender.isprintable():
        raise Wrong(f"sender must be a name of at most 150 printable characters, not {shown(sender)}", "sender")
    return sender.strip()


def _ignored(value: Json, names: Names) -> frozenset[str]:
    """Fields that a document tells receivers to leave out when they compare events: an extension `…:ignoreFields` that lists them."""
    found = next((voc.texts(value[name]) for name in value if name.endswith(":ignoreFields")), None)
    return frozenset(names.expand(name) for name in found or ())


def _names(value: Json, outer: Names, place: str) -> Names:
    if "@context" not in value:
        return outer
    try:
        return outer.within(value["@context"])
    except ValueError:
        raise Wrong(
            f"@context must be a URI, an object, or a list of these, with namespaces of at most {voc.IRI_CHARS_MAX} characters",
            f"{place}.@context".lstrip("."),
        ) from None
