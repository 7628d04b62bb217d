"""Sparkplug B 3.0 on the wire: topics, payloads and the values of all data types, both ways. Pure and bounded; only `Refused` rises.

A metric of a data message names no type: its birth did. So `decode` keeps what the wire holds, and `value_of` reads it with the type. Values are
exact: signed integers come from the unsigned fields they travel in, a Float is the double of the same value, a UInt64 has all its digits.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError, EncodeError

from adapters.formats import sparkplug_wire as wire
from adapters.formats.sparkplug_values import ALL, SIMPLE, DataSet, DataType, held, read, type_of, utf8
from events.errors import Refused
from hub import limits

NAMESPACE = "spBv1.0"
BDSEQ = "bdSeq"
REBIRTH = "Node Control/Rebirth"
KINDS = frozenset({"NBIRTH", "NDEATH", "NDATA", "NCMD", "DBIRTH", "DDEATH", "DDATA", "DCMD"})


@dataclass(frozen=True, slots=True)
class Topic:
    """Who says what kind of thing: `kind` is NBIRTH, DDATA, …; `device` is None for the edge node itself."""

    kind: str
    group: str
    node: str
    device: str | None = None

    def __str__(self) -> str:
        return "/".join([NAMESPACE, self.group, self.kind, self.node, *([] if self.device is None else [self.device])])


@dataclass(frozen=True, slots=True)
class Property:
    """One property of a metric: its type and value; a property set is a dict of properties, a list of them a tuple of dicts."""

    type: DataType
    value: Any


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as the wire holds it: `held` is the field of its value and what is in it, None where there is no value. Times are ms since 1970."""

    name: str | None = None
    alias: int | None = None
    timestamp: int | None = None
    datatype: int | None = None
    historical: bool = False
    transient: bool = False
    null: bool = False
    held: tuple[str, Any] | None = None
    properties: Mapping[str, Property] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)  # by the wire's names: content_type, file_name, …
    refused: str = ""  # why its value or properties cannot be taken


@dataclass(frozen=True, slots=True)
class Payload:
    """One message: when it was sent (ms since 1970), its sequence number (0 to 255; a death has none), its metrics."""

    timestamp: int | None = None
    seq: int | None = None
    metrics: Sequence[Metric] = ()


# -- topics


def topic_of(text: str) -> Topic:
    """A topic's parts. Raises `Refused` for anything that is no topic of an edge node or device."""
    parts = text.split("/")
    if len(parts) not in (4, 5) or parts[0] != NAMESPACE or parts[2] not in KINDS or not all(parts):
        raise Refused(f"the topic {text[:200]!r} is none of Sparkplug's: {NAMESPACE}/group/kind/node or {NAMESPACE}/group/kind/node/device")
    if (parts[2][0] == "D") != (len(parts) == 5):
        raise Refused(f"the topic {text[:200]!r} names {'no' if len(parts) == 4 else 'a'} device, which {parts[2]} may not")
    return Topic(parts[2], parts[1], *parts[3:])


def identifier(what: str, text: str) -> str:
    """A group, node, device or host id that may stand in a topic. Raises `Refused`."""
    if not text or any(c in text for c in "+/#\x00") or any("\ud800" <= c <= "\udfff" for c in text):
        raise Refused(f"{what} {text[:80]!r} cannot stand in a topic: it may not be empty nor hold +, / or #")
    return text


def state_topic(host: str) -> str:
    """Where a host application says whether it is online."""
    return f"{NAMESPACE}/STATE/{host}"


def state(*, online: bool, timestamp: int) -> bytes:
    """What it says there; `timestamp` in ms since 1970."""
    return json.dumps({"online": online, "timestamp": timestamp}).encode()


def state_of(body: bytes) -> tuple[bool, int]:
    """Whether a host application says that it is online, and its timestamp. Raises `Refused`."""
    try:
        said = json.loads(body[:1000])
        online, timestamp = said["online"], said["timestamp"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refused(f"the STATE {body[:80]!r} is not JSON with online and timestamp") from error
    if not isinstance(online, bool) or not isinstance(timestamp, int) or isinstance(timestamp, bool):
        raise Refused(f"the STATE {body[:80]!r} names no online and timestamp of the right kind")
    return online, timestamp


# -- payloads


def decode(body: bytes) -> Payload:
    """A payload's parts. Raises `Refused`."""
    if len(body) > limits.MQTT_BODY_BYTES_MAX:
        raise Refused(f"the payload has {len(body)} bytes, more than {limits.MQTT_BODY_BYTES_MAX}: send fewer metrics in a message")
    try:
        said = wire.Payload.FromString(body)
    except DecodeError as error:
        raise Refused(f"the payload is no Sparkplug B payload ({error})") from error
    if said.HasField("body"):
        raise Refused(f"the payload is wrapped in another ({utf8(said.uuid)[:40]}): turn compression off at the edge node")
    if len(said.metrics) > limits.SPARKPLUG_METRICS_MAX:
        raise Refused(f"the payload has {len(said.metrics)} metrics, more than {limits.SPARKPLUG_METRICS_MAX}: send several messages")
    return Payload(_get(said, "timestamp"), _get(said, "seq"), tuple(_metric(metric) for metric in said.metrics))


def encode(payload: Payload) -> bytes:
    """A payload's bytes. Raises `Refused` for what the wire cannot hold."""
    said = wire.Payload()
    try:
        _set(said, timestamp=payload.timestamp, seq=payload.seq)
        for metric in payload.metrics:
            _put(said.metrics.add(), metric)
        return bytes(said.SerializeToString())
    except (ValueError, TypeError, EncodeError) as error:
        raise Refused(f"the payload cannot be said in Sparkplug B ({error})") from error


def _get(said: Any, name: str) -> Any:
    return getattr(said, name) if said.HasField(name) else None


def _metric(said: Any) -> Metric:
    which, refused = said.WhichOneof("value"), ""
    value: Any = None if which is None else getattr(said, which)
    properties: dict[str, Property] = {}
    try:  # one metric that is wrong in itself does not take the others with it
        if which == "dataset_value":
            value = None
            value = _data_set(said.dataset_value)
        elif which == "string_value":
            value = utf8(value)
        if said.HasField("properties"):
            properties = _properties(said.properties)
    except Refused as error:
        refused = str(error)
    return Metric(
        utf8(said.name) if said.HasField("name") else None,
        _get(said, "alias"),
        _get(said, "timestamp"),
        _get(said, "datatype"),
        said.is_historical,
        said.is_transient,
        said.is_null,
        None if which is None else (which, value),
        properties,
        {f.name: utf8(v) if isinstance(v, str | bytes) else v for f, v in said.metadata.ListFields()} if said.HasField("metadata") else {},
        refused,
    )


def _put(said: Any, metric: Metric) -> None:
    _set(said, name=metric.name, alias=metric.alias, timestamp=metric.timestamp, datatype=metric.datatype)
    _set(said, is_historical=metric.historical or None, is_transient=metric.transient or None, is_null=metric.null or None)
    if metric.meta:
        _set(said.metadata, **metric.meta)
    if metric.properties:
        _put_properties(said.properties, metric.properties)
    if metric.held is not None:
        which, value = metric.held
        if isinstance(value, DataSet):
            _put_data_set(said.dataset_value, value)
        else:
            setattr(said, which, value)


def _set(said: Any, **fields: Any) -> None:
    for name, value in fields.items():
        if value is not None:
            setattr(said, name, value)


def _properties(said: Any) -> dict[str, Property]:
    if len(said.keys) != len(said.values):
        raise Refused(f"a property set has {len(said.keys)} keys and {len(said.values)} values")
    return {utf8(key): _property(value) for key, value in zip(said.keys, said.values, strict=True)}


def _property(said: Any) -> Property:
    kind, which = type_of(said.type), said.WhichOneof("value")
    if said.is_null or which is None:
        return Property(kind, None)
    if kind == DataType.PropertySet and which == "propertyset_value":
        return Property(kind, _properties(said.propertyset_value))
    if kind == DataType.PropertySetList and which == "propertysets_value":
        return Property(kind, tuple(_properties(one) for one in said.propertysets_value.propertyset))
    return Property(kind, read(kind, (which, getattr(said, which)), SIMPLE))


def _put_properties(said: Any, properties: Mapping[str, Property]) -> None:
    for key, one in properties.items():
        said.keys.append(key)
        put = said.values.add(type=int(one.type))
        if one.value is None:
            put.is_null = True
        elif one.type == DataType.PropertySet:
            put.propertyset_value.SetInParent()
            _put_properties(put.propertyset_value, one.value)
        elif one.type == DataType.PropertySetList:
            put.propertysets_value.SetInParent()
            for each in one.value:
                _put_properties(put.propertysets_value.propertyset.add(), each)
        else:
            setattr(put, *held(one.type, one.value, SIMPLE))


def _data_set(said: Any) -> DataSet:
    columns, types = tuple(utf8(column) for column in said.columns), tuple(type_of(number) for number in said.types)
    if len(columns) != len(types) or (said.HasField("num_of_columns") and said.num_of_columns != len(columns)):
        raise Refused(f"a data set of {said.num_of_columns} columns names {len(columns)} of them and {len(types)} types")
    rows = []
    for row in said.rows:
        if len(row.elements) != len(columns):
            raise Refused(f"a data set of {len(columns)} columns has a row of {len(row.elements)}")
        rows.append(tuple(_cell(kind, cell) for kind, cell in zip(types, row.elements, strict=True)))
    return DataSet(columns, types, tuple(rows))


def _cell(kind: DataType, said: Any) -> Any:
    which = said.WhichOneof("value")
    return None if which is None else read(kind, (which, getattr(said, which)), SIMPLE)


def _put_data_set(said: Any, table: DataSet) -> None:
    if len(table.columns) != len(table.types) or any(len(row) != len(table.columns) for row in table.rows):
        raise Refused("a data set needs a type for each column and a cell for each in every row")
    said.num_of_columns = len(table.columns)
    said.columns.extend(table.columns)
    said.types.extend(int(kind) for kind in table.types)
    for row in table.rows:
        put = said.rows.add()
        for kind, value in zip(table.types, row, strict=True):
            cell = put.elements.add()
            if value is not None:
                setattr(cell, *held(kind, value, SIMPLE))


# -- values


def value_of(metric: Metric, datatype: int | None = None) -> Any:
    """The metric's value by its own type, or by the one its birth named: bool, int, float, str, bytes, a list of those, `DataSet`, or None.

    DateTime is an int, ms since 1970. Raises `Refused`: a template, an unknown type, a value that does not fit its type.
    """
    if metric.refused:
        raise Refused(metric.refused)
    kind = type_of(metric.datatype if metric.datatype is not None else datatype or 0)
    if kind == DataType.Template or (metric.held is not None and metric.held[0] == "template_value"):
        raise Refused("templates are not taken: have the edge node publish the members as metrics of their own")
    if metric.null:
        return None
    if metric.held is None:
        raise Refused(f"a {kind.name} has neither a value nor the mark that it is null")
    return read(kind, metric.held, ALL)


def metric_of(value: Any, datatype: DataType, name: str | None = None, **more: Any) -> Metric:
    """A metric with this value; None is null; `more` are fields of `Metric`. Raises `Refused` where the value is none of the type's."""
    if value is None:
        return Metric(name, datatype=int(datatype), null=True, **more)
    return Metric(name, datatype=int(datatype), held=held(datatype, value, ALL), **more)


def plain(value: Any) -> bool | int | float | str | None:
    """A value as one that a reading holds: bytes as hex text, arrays and data sets as JSON text (numbers that JSON has no name for as texts)."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return json.dumps([finite(one) for one in value], ensure_ascii=False)
    if isinstance(value, DataSet):
        rows = [[finite(cell) for cell in row] for row in value.rows]
        table = {"columns": value.columns, "types": [kind.name for kind in value.types], "rows": rows}
        return json.dumps(table, ensure_ascii=False)
    return value  # type: ignore[no-any-return]


def finite(value: Any) -> Any:
    """A value as one that JSON has a name for."""
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
