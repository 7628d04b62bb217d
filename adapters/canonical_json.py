"""Canonical JSON and CloudEvents 1.0 JSON to facts: one, an array, `{"facts": […]}`, or newline-delimited.

A row that is wrong is held alone. Facts of the hub's own (`integration.…`, `security.…`) are not taken from outside.
"""

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from events import canonical, quick
from events.base import OWN, PERSON, Envelope, Fact, envelope_of, event_class, validated
from events.errors import Refused, Unmappable
from events.traces import traceparent
from events.vocabulary import TIME_CHARS_MAX, read_time
from hub.intake.mapping import Context, Held, Line, Part

_FIELDS = {
    "type",
    "schema_version",
    "source",
    "key",
    "occurred_at",
    "effective_at",
    "correlation",
    "causation",
    "actor",
    "traceparent",
    "data",
}
_NEEDED = ("type", "source", "key", "occurred_at", "data")
_OTHERS = ("correlation", "causation", "actor")
_FACTS = {"facts"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_TYPE = re.compile(rb'"type"\s*:\s*"[a-z]+\.[a-z_]+"')
_START = re.compile(rb"\s*[\[{]")
_BOM = b"\xef\xbb\xbf"
UNKNOWN = "unknown"


class CanonicalJson:
    """The mapping; see the module's docstring."""

    name = "canonical-json/1"
    priority = 30

    def recognises(self, body: bytes) -> bool:
        """JSON with a type such as ours, most of the members that a fact needs, `specversion` or `facts`; EPCIS was asked before."""
        head = body.removeprefix(_BOM)
        if not _START.match(head) or b'"$schema"' in head[:2000]:
            return False
        if b'"specversion"' in head or b'"facts"' in head or _TYPE.search(head):
            return True
        return sum(f'"{name}"'.encode() in head for name in _NEEDED) > 2

    def read(self, body: bytes, context: Context) -> Sequence[Part]:
        """One part; a line a row."""
        if (facts := _quick(body, context, self.name)) is not None:
            single = len(facts) == 1
            found = [Line("" if single else str(n), [fact]) for n, fact in enumerate(facts, 1)]
            return [Part(1, "canonical-json", facts[0].envelope.source, found)]
        try:
            rows = list(_rows(body))
        except Refused as error:
            return [Part(1, "canonical-json", UNKNOWN, [Held("", str(error), "")])]
        cloud = any(isinstance(row, dict) and "specversion" in row for _, row in rows)
        single = len(rows) == 1
        lines = [_line("" if single else str(number), row, context, self.name) for number, row in rows]
        source = next((f.envelope.source for line in lines if isinstance(line, Line) for f in line.facts), UNKNOWN)
        return [Part(1, "cloudevents-json" if cloud else "canonical-json", source, lines)]


class _Row(msgspec.Struct, omit_defaults=True):
    """A row that may be right."""

    type: str
    source: quick.NAME
    key: Annotated[str, Meta(min_length=1, max_length=600)]
    occurred_at: str
    data: msgspec.Raw
    effective_at: str | UnsetType = UNSET
    schema_version: int | UnsetType = UNSET
    correlation: quick.NAME | UnsetType = UNSET
    causation: quick.NAME | UnsetType = UNSET
    actor: quick.NAME | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Row | list[_Row]).decode
_encode = msgspec.json.Encoder().encode


def _quick(body: bytes, context: Context, mapping: str) -> list[Fact] | None:
    """The facts of a body that is right in every row, as most are; None for any other, which is then judged row by row."""
    if not quick.clean(body):
        return None
    try:
        value = _decode(body)
        rows = value if isinstance(value, list) else [value]
        facts = [_fact_of(row, context, mapping) for row in rows]
        # as many quotes as there were: no text has one within, so no key stood twice
        return facts if facts and None not in facts and _encode(value).count(b'"') == body.count(b'"') else None  # type: ignore[return-value]
    except (ValueError, RecursionError):
        return None


def _fact_of(row: Any, context: Context, mapping: str) -> Fact | None:
    """The fact of a row that is right; the twin of its data takes their place."""
    reader = quick.reader(row.type)
    if reader is None or row.type.startswith(OWN) or row.schema_version not in (UNSET, reader.version):
        return None
    occurred = _moment(row.occurred_at)
    effective = occurred if row.effective_at is UNSET or row.effective_at == row.occurred_at else _moment(row.effective_at)
    twin = reader.twin(row.data)
    if occurred is None or effective is None or row.source.strip() != row.source or not reader.right(twin):
        return None
    said = {name: value for name in _OTHERS if (value := getattr(row, name)) is not UNSET}
    if said and (any(value.strip() != value for value in said.values()) or PERSON.fullmatch(said.get("actor", ""))):
        return None
    event, row.data = reader.event(row.data), twin
    trace = (traceparent(row.traceparent) if row.traceparent is not UNSET else "") or context.traceparent
    envelope = Envelope(
        source=row.source,
        key=row.key,
        occurred_at=occurred,
        effective_at=effective,
        mapping=mapping,
        raw=context.raw,
        traceparent=trace,
        **said,
    )
    return Fact(envelope, event)


def _moment(text: str) -> datetime | None:
    read = read_time(text) if len(text) <= TIME_CHARS_MAX and _TIME.fullmatch(text) else None
    return read if isinstance(read, datetime) else None


def _rows(body: bytes) -> Iterable[tuple[int, Any]]:
    """Each row with its number; one that is refused as its `Refused`."""
    body = body.removeprefix(_BOM)
    value = canonical.quick(body)
    if value is not None:
        return enumerate(_batch(value), 1)
    try:
        value = canonical.parse(body)
    except Refused:
        lines = [(n, line) for n, line in enumerate(body.splitlines(), 1) if line.strip()]
        if len(lines) < 2 or not all(line.lstrip().startswith(b"{") for _, line in lines[:2]):
            raise
        return [(n, _judged(canonical.loads, line)) for n, line in lines]
    judge = partial(canonical.checked, escaped=canonical.escaped(body))
    return [(n, _judged(judge, row)) for n, row in enumerate(_batch(value), 1)]


def _batch(value: Any) -> list[Any]:
    """The rows of a batch in any of its forms, or the only one."""
    if isinstance(value, dict) and value.keys() == _FACTS:
        value = value["facts"]
    rows = value if isinstance(value, list) else [value]
    if not rows:
        raise Refused("the batch is empty")
    return rows


def _judged(judge: Callable[[Any], Any], row: Any) -> Any:
    try:
        return judge(row)
    except Refused as error:
        return error


def _line(path: str, row: Any, context: Context, mapping: str) -> Line | Held:
    place = f"row {path}" if path else ""
    if isinstance(row, Refused):
        return Held(path, str(row), place)
    if not isinstance(row, dict):
        return Held(path, "a row must be a JSON object", place)
    source = row.get("source")
    known = source if isinstance(source, str) and 0 < len(source) <= 200 and source.isprintable() else UNKNOWN
    try:
        return Line(path, [_fact(_from_cloud(row) if "specversion" in row else row, context, mapping)])
    except Unmappable as error:
        return Held(path, error.reason, f"{place}.{error.where}" if place else error.where, known)
    except Refused as error:
        return Held(path, str(error), place, known)


def _fact(row: dict[str, Any], context: Context, mapping: str) -> Fact:
    if not row.keys() <= _FIELDS:
        unknown = sorted(row.keys() - _FIELDS)
        raise Unmappable(f"the field {unknown[0]!r} is not known; a fact has {', '.join(sorted(_FIELDS))}", unknown[0])
    for name in _NEEDED:
        if name not in row:
            raise Unmappable(f"the field {name!r} is missing", name)
    type_, data = row["type"], row["data"]
    if not isinstance(type_, str):
        raise Unmappable("must be text such as procurement.goods_received", "type")
    if not isinstance(data, dict):
        raise Unmappable("must be a JSON object", "data")
    if type_.startswith(OWN):
        raise Unmappable(f"{type_} is the hub's own to record", "type")
    version = row.get("schema_version")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        raise Unmappable("must be a whole number", "schema_version")
    return Fact(_envelope(row, context, mapping), validated(type_, event_class(type_).version if version is None else version, data))


def _envelope(row: dict[str, Any], context: Context, mapping: str) -> Envelope:
    occurred, effective = row["occurred_at"], row.get("effective_at")
    _check_time("occurred_at", occurred)
    if effective != occurred:
        _check_time("effective_at", effective)
    said = {name: row[name] for name in ("source", "key", *_OTHERS) if row.get(name) is not None}
    said |= {"occurred_at": occurred, "effective_at": effective or occurred}
    said_trace = row.get("traceparent")  # a row's own is where it was made, the transport's only who passed it on
    trace = traceparent(said_trace if isinstance(said_trace, str) else None) or context.traceparent
    found = envelope_of({**said, "mapping": mapping, "raw": context.raw, "traceparent": trace})
    if found.actor and PERSON.fullmatch(found.actor):
        raise Unmappable("names a person of the hub, whom the hub alone identifies: send the name that the source knows", "actor")
    return found


def _check_time(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and _TIME.fullmatch(value)):
        raise Unmappable("must be an RFC 3339 time with an offset, such as 2026-01-05T06:00:00Z", name)


def _from_cloud(row: dict[str, Any]) -> dict[str, Any]:
    """A CloudEvent as a canonical row."""
    if row["specversion"] != "1.0":
        raise Unmappable(f"CloudEvents version {row['specversion']!r}: send 1.0", "specversion")
    for name in ("id", "source", "type", "time"):
        if not isinstance(row.get(name), str) or not row[name]:
            raise Unmappable("a CloudEvent needs it, as text", name)
    data = row.get("data")
    if data is None and isinstance(row.get("data_base64"), str):
        try:
            data = canonical.loads(base64.b64decode(row["data_base64"], validate=True))
        except ValueError:
            raise Unmappable("is not base64", "data_base64") from None
    version = row.get("schemaversion")
    if isinstance(version, str) and version.isascii() and version.isdigit() and len(version) < 10:
        version = int(version)  # extension attributes are often text
    return {
        "type": row["type"],
        "source": row["source"],
        "key": row.get("businesskey", row["id"]),
        "occurred_at": row["time"],
        "effective_at": row.get("effectiveat"),
        "schema_version": version,
        "correlation": row.get("correlationid"),
        "causation": row.get("causationid"),
        "actor": row.get("actor"),
        "traceparent": row.get("traceparent"),
        "data": data,
    }


MAPPING = CanonicalJson()
