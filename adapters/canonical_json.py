"""Canonical JSON and CloudEvents 1.0 JSON to facts: one, an array, `{"facts": […]}`, or newline-delimited.

A row that is wrong is held alone. Facts of the hub's own (`integration.…`) are not taken from outside.
"""

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from events import canonical
from events.base import Envelope, Fact, envelope_of, event_class, validated
from events.errors import Refused, Unmappable
from events.traces import traceparent
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
_CLOUD = {"businesskey", "effectiveat", "schemaversion", "correlationid", "causationid", "actor"}
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
        try:
            rows = list(_rows(body))
        except Refused as error:
            return [Part(1, "canonical-json", UNKNOWN, [Held("", str(error), "")])]
        cloud = any(isinstance(row, dict) and "specversion" in row for _, row in rows)
        single = len(rows) == 1
        lines = [_line("" if single else path, row, context, self.name) for path, row in rows]
        source = next((f.envelope.source for line in lines if isinstance(line, Line) for f in line.facts), UNKNOWN)
        return [Part(1, "cloudevents-json" if cloud else "canonical-json", source, lines)]


def _rows(body: bytes) -> Iterator[tuple[str, Any]]:
    """Each row with its number; one that is refused as its `Refused`."""
    body = body.removeprefix(_BOM)
    try:
        value = canonical.parse(body)
    except Refused:
        lines = [(n, line) for n, line in enumerate(body.splitlines(), 1) if line.strip()]
        if len(lines) < 2 or not all(line.lstrip().startswith(b"{") for _, line in lines[:2]):
            raise
        yield from ((str(n), _judged(canonical.loads, line)) for n, line in lines)
        return
    if isinstance(value, dict) and set(value) == {"facts"}:
        value = value["facts"]
    if not isinstance(value, list):
        value = [value]
    if not value:
        raise Refused("the batch is empty")
    judge = partial(canonical.checked, escaped=canonical.escaped(body))
    yield from ((str(n), _judged(judge, row)) for n, row in enumerate(value, 1))


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
    if type_.startswith("integration."):
        raise Unmappable(f"{type_} is the hub's own to record", "type")
    version = row.get("schema_version")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        raise Unmappable("must be a whole number", "schema_version")
    return Fact(_envelope(row, context, mapping), validated(type_, event_class(type_).version if version is None else version, data))


def _envelope(row: dict[str, Any], context: Context, mapping: str) -> Envelope:
    for name in ("occurred_at", "effective_at"):
        value = row.get(name)
        if value is not None and not (isinstance(value, str) and _TIME.fullmatch(value)):
            raise Unmappable("must be an RFC 3339 time with an offset, such as 2026-01-05T06:00:00Z", name)
    said = {name: row[name] for name in ("source", "key", "correlation", "causation", "actor") if row.get(name) is not None}
    times = {"occurred_at": row["occurred_at"], "effective_at": row.get("effective_at") or row["occurred_at"]}
    said_trace = row.get("traceparent")  # a row's own is where it was made, the transport's only who passed it on
    trace = traceparent(said_trace if isinstance(said_trace, str) else None) or context.traceparent
    return envelope_of({**said, **times, "mapping": mapping, "raw": context.raw, "traceparent": trace})


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
