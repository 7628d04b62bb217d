"""Sparkplug B payloads and topics: what is written is read back, exactly, and nothing but `Refused` rises whatever comes."""

import math
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.formats.sparkplug import (
    Metric,
    Payload,
    Property,
    Topic,
    decode,
    encode,
    identifier,
    metric_of,
    plain,
    state,
    state_of,
    topic_of,
    value_of,
)
from adapters.formats.sparkplug_values import DataSet, DataType
from events.errors import Refused
from hub import limits
from hub.app.demo.plant import sparkplug_node as plant

T = DataType
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_no_null = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
_single = st.floats(width=32)


def _whole(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)


_SIMPLE: dict[DataType, st.SearchStrategy[Any]] = {
    **{T(n): _whole(8 << n - 1, signed=True) for n in range(1, 5)},
    **{T(n): _whole(8 << n - 5, signed=False) for n in range(5, 9)},
    T.Float: _single,
    T.Double: st.floats(),
    T.Boolean: st.booleans(),
    T.String: _text,
    T.DateTime: _whole(64, signed=True),
    T.Text: _text,
}


@st.composite
def _tables(draw: st.DrawFn) -> DataSet:
    types = tuple(draw(st.lists(st.sampled_from(list(_SIMPLE)), max_size=4)))
    rows = draw(st.lists(st.tuples(*(st.none() | _SIMPLE[kind] for kind in types)), max_size=4))
    return DataSet(tuple(f"c{n}" for n in range(len(types))), types, tuple(rows))


_ALL: dict[DataType, st.SearchStrategy[Any]] = {
    **_SIMPLE,
    T.UUID: st.uuids().map(str),
    T.DataSet: _tables(),
    T.Bytes: st.binary(max_size=40),
    T.File: st.binary(max_size=40),
    **{T(22 + n): st.lists(_SIMPLE[T(n + 1)], max_size=6) for n in range(8)},
    T.FloatArray: st.lists(_single, max_size=6),
    T.DoubleArray: st.lists(st.floats(), max_size=6),
    T.BooleanArray: st.lists(st.booleans(), max_size=20),
    T.StringArray: st.lists(_no_null, max_size=6),
    T.DateTimeArray: st.lists(_whole(64, signed=True), max_size=6),
}
_typed = st.sampled_from(list(_ALL)).flatmap(lambda kind: st.tuples(st.just(kind), st.none() | _ALL[kind]))


@st.composite
def _properties(draw: st.DrawFn, depth: int = 2) -> dict[str, Property]:
    kinds: list[DataType] = [*_SIMPLE, *([T.PropertySet, T.PropertySetList] if depth else [])]
    found = {}
    for key in draw(st.lists(_text, max_size=3, unique=True)):
        kind = draw(st.sampled_from(kinds))
        if kind == T.PropertySet:
            value: Any = draw(_properties(depth - 1))
        elif kind == T.PropertySetList:
            value = tuple(draw(st.lists(_properties(depth - 1), max_size=2)))
        else:
            value = draw(st.none() | _SIMPLE[kind])
        found[key] = Property(kind, value)
    return found


@st.composite
def _metrics(draw: st.DrawFn) -> Metric:
    kind, value = draw(_typed)
    return metric_of(
        value,
        kind,
        draw(st.none() | _text),
        alias=draw(st.none() | _whole(64, signed=False)),
        timestamp=draw(st.none() | _whole(64, signed=False)),
        historical=draw(st.booleans()),
        transient=draw(st.booleans()),
        properties=draw(_properties()),
        meta=draw(
            st.fixed_dictionaries({}, optional={"content_type": _text, "size": _whole(64, signed=False), "is_multi_part": st.booleans()})
        ),
    )


def _bits(value: Any) -> Any:
    """Comparable also where a number is none."""
    if isinstance(value, float):
        return ("f", struct.pack("<d", value) if not math.isnan(value) else b"nan")
    if isinstance(value, list | tuple):
        return [_bits(one) for one in value]
    if isinstance(value, DataSet):
        return (value.columns, value.types, _bits(value.rows))
    if isinstance(value, dict):
        return {key: (one.type, _bits(one.value)) if isinstance(one, Property) else one for key, one in value.items()}
    return (type(value), value)


@given(st.none() | _whole(64, signed=False), st.none() | _whole(64, signed=False), st.lists(_metrics(), max_size=4))
def test_what_is_written_is_read_back(timestamp: int | None, seq: int | None, metrics: list[Metric]) -> None:
    read = decode(encode(Payload(timestamp, seq, metrics)))
    assert (read.timestamp, read.seq) == (timestamp, seq)
    for before, after in zip(metrics, read.metrics, strict=True):
        for field in ("name", "alias", "timestamp", "datatype", "historical", "transient", "null", "meta"):
            assert getattr(after, field) == getattr(before, field)
        assert _bits(dict(after.properties)) == _bits(dict(before.properties))


@given(_typed)
@example((T.Int8, -1))
@example((T.Int32, -2147483648))
@example((T.UInt64, 18446744073709551615))
@example((T.Int64, -9223372036854775808))
@example((T.String, "00123"))
@example((T.String, "1E5"))
@example((T.Double, math.nan))
@example((T.Double, -0.0))
@example((T.Float, math.inf))
@example((T.BooleanArray, []))
@example((T.StringArray, [""]))
def test_a_value_is_the_same_on_the_other_side(typed: tuple[DataType, Any]) -> None:
    kind, value = typed
    (metric,) = decode(encode(Payload(metrics=[metric_of(value, kind)]))).metrics
    assert _bits(value_of(metric)) == _bits(value)
    bare = Metric(held=metric.held, null=metric.null)  # of a data message: its type is in the birth
    assert _bits(value_of(bare, int(kind))) == _bits(value)


@pytest.mark.parametrize(
    ("kind", "wire", "value"),
    [
        (T.Int8, 0xFF, -1), (T.Int8, 0xFFFFFFFF, -1), (T.Int8, 0xFFFFFF80, -128), (T.Int8, 127, 127), (T.Int16, 0x8000, -32768),
        (T.Int16, 0xFFFF8000, -32768), (T.Int32, 0xFFFFFFFF, -1), (T.UInt8, 255, 255), (T.UInt32, 0xFFFFFFFF, 4294967295),
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["int_value", "long_value"])
def test_whole_numbers_come_in_the_ways_that_encoders_write_them(kind: DataType, wire: int, value: int, field: str) -> None:
    assert value_of(Metric(datatype=int(kind), held=(field, wire))) == value


def test_a_negative_number_in_the_wide_field() -> None:
    assert value_of(Metric(datatype=int(T.Int32), held=("long_value", (1 << 64) - 7))) == -7
    assert value_of(Metric(datatype=int(T.Int64), held=("long_value", (1 << 64) - 7))) == -7


@pytest.mark.parametrize(
    ("kind", "held"),
    [
        (T.Int8, ("int_value", 256)), (T.Int8, ("int_value", 0xFFFFFF00)), (T.UInt8, ("int_value", 0xFFFFFFFF)), (T.Int32, ("string_value", "1")),
        (T.Boolean, ("int_value", 1)), (T.String, ("bytes_value", b"a")), (T.Double, ("float_value", 1.0)), (T.Int16Array, ("bytes_value", b"abc")),
        (T.BooleanArray, ("bytes_value", b"\x09\x00\x00\x00\x00")), (T.StringArray, ("bytes_value", b"a")), (T.StringArray, ("bytes_value", b"\xff\x00")),
        (T.Unknown, ("int_value", 1)), (T.PropertySet, ("int_value", 1)), (T.Template, ("template_value", b"")), (T.Int8, None),
    ],
)  # fmt: skip
def test_a_value_that_is_none_of_its_type_is_refused(kind: DataType, held: tuple[str, Any] | None) -> None:
    with pytest.raises(Refused):
        value_of(Metric(datatype=int(kind), held=held))


def test_the_specifications_own_examples_of_arrays() -> None:
    bits = [False, False, True, True, False, True, False, False, True, True, False, True]
    assert metric_of(bits, T.BooleanArray).held == ("bytes_value", b"\x0c\x00\x00\x00\x34\xd0")
    assert metric_of(["ABC", "hello"], T.StringArray).held == ("bytes_value", b"ABC\x00hello\x00")
    assert metric_of([-23, 123], T.Int8Array).held == ("bytes_value", b"\xe9\x7b")
    assert metric_of([-30000, 30000], T.Int16Array).held == ("bytes_value", b"\xd0\x8a\x30\x75")
    assert metric_of([1.23, 89.341], T.FloatArray).held == ("bytes_value", b"\xa4\x70\x9d\x3f\x98\xae\xb2\x42")


def test_a_template_is_refused_by_name_and_takes_nothing_with_it() -> None:
    template = b"\x92\x01\x02\x28\x01"  # field 18, a definition
    body = b"\x12" + bytes([len(template)]) + template + b"\x12\x07" + b"\x0a\x01a\x20\x03\x50\x07"
    first, second = decode(body).metrics
    with pytest.raises(Refused, match=r"templates are not taken: .* members as metrics of their own"):
        value_of(first)
    assert value_of(second) == 7


def test_a_broken_data_set_takes_nothing_with_it() -> None:
    table = b"\x08\x02\x12\x01a\x18\x03"  # two columns are said, one is there
    metric = b"\x20\x10\x8a\x01" + bytes([len(table)]) + table
    first, second = decode(b"\x12" + bytes([len(metric)]) + metric + b"\x12\x04\x20\x03\x50\x07").metrics
    with pytest.raises(Refused, match="data set of 2 columns"):
        value_of(first)
    assert value_of(second) == 7


@given(st.binary(max_size=200))
def test_whatever_comes_only_refused_rises(body: bytes) -> None:
    try:
        payload = decode(body)
    except Refused:
        return
    for metric in payload.metrics:
        for kind in (None, *T):
            try:
                plain(value_of(metric, kind))
            except Refused:
                pass


@given(st.data())
def test_a_payload_that_was_damaged_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(encode(Payload(1, 2, [data.draw(_metrics())])))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    test_whatever_comes_only_refused_rises.hypothesis.inner_test(bytes(body))  # type: ignore[attr-defined]


def test_sizes_are_bounded() -> None:
    with pytest.raises(Refused, match="bytes, more than"):
        decode(b"\x00" * (limits.MQTT_BODY_BYTES_MAX + 1))
    with pytest.raises(Refused, match="metrics, more than"):
        decode(b"\x12\x00" * (limits.SPARKPLUG_METRICS_MAX + 1))
    with pytest.raises(Refused, match="turn compression off"):
        decode(b"\x22\x12SPBV1.0_COMPRESSED\x2a\x02\x1f\x8b")


def test_values_for_a_reading() -> None:
    assert plain(b"\x00\xff") == "00ff"
    assert plain([1, math.nan, -math.inf]) == '[1, "nan", "-inf"]'
    table = DataSet(("a", "ü"), (T.UInt64, T.Double), ((18446744073709551615, 0.1), (None, math.inf)))
    assert plain(table) == '{"columns": ["a", "ü"], "types": ["UInt64", "Double"], "rows": [[18446744073709551615, 0.1], [null, "inf"]]}'
    assert plain("00123") == "00123"
    assert plain(True) is True
    assert plain(None) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [(plant.INT32, -5), (plant.INT64, -5), (plant.UINT32, 4294967295), (plant.UINT64, 1 << 63), (plant.DOUBLE, 0.1), (plant.BOOLEAN, True), (plant.STRING, "ä"), (plant.INT32, None)],
)  # fmt: skip
def test_what_an_encoder_that_nobody_here_shares_writes(kind: int, value: Any) -> None:
    body = plant.payload(1234, 255, [plant.metric(kind, value, 99, name="n", alias=300, historical=True)])
    payload = decode(body)
    (metric,) = payload.metrics
    assert (payload.timestamp, payload.seq, metric.name, metric.alias, metric.timestamp, metric.historical) == (
        1234,
        255,
        "n",
        300,
        99,
        True,
    )
    assert value_of(metric) == value


@pytest.mark.parametrize(
    ("kind", "value", "held"),
    [
        (plant.INT32, -5, 0xFFFFFFFB), (plant.INT64, -5, (1 << 64) - 5), (plant.UINT64, (1 << 64) - 1, (1 << 64) - 1),
        (plant.DOUBLE, 0.1, struct.pack("<d", 0.1)), (plant.BOOLEAN, True, 1), (plant.STRING, "ä", "ä".encode()),
    ],
)  # fmt: skip
def test_our_commands_are_read_by_others(kind: int, value: Any, held: Any) -> None:
    assert plant.commands(encode(Payload(5, None, [metric_of(value, T(kind), alias=7)]))) == [(7, held)]


@pytest.mark.parametrize("text", ["spBv1.0/G/NBIRTH/N", "spBv1.0/G 1/DDATA/N/D:1"])
def test_topics(text: str) -> None:
    assert str(topic_of(text)) == text


@given(
    st.text(max_size=40) | st.builds("/".join, st.lists(st.sampled_from(["spBv1.0", "STATE", "NDATA", "DDATA", "G", "", "ü"]), max_size=6))
)
def test_a_topic_is_read_or_refused(text: str) -> None:
    try:
        topic = topic_of(text)
    except Refused:
        return
    assert str(topic) == text
    assert (topic.device is None) == (topic.kind[0] == "N")
    assert isinstance(topic, Topic)


@pytest.mark.parametrize("text", ["", "a/b", "a+b", "#", "a\x00", "\ud800"])
def test_identifiers_that_cannot_stand_in_a_topic(text: str) -> None:
    with pytest.raises(Refused):
        identifier("the group", text)


@given(st.booleans(), st.integers(0, 1 << 62))
def test_state(online: bool, timestamp: int) -> None:
    assert state_of(state(online=online, timestamp=timestamp)) == (online, timestamp)


@given(
    st.binary(max_size=60)
    | st.sampled_from([b"ONLINE", b"[]", b'{"online": 1, "timestamp": 2}', b'{"online": true, "timestamp": true}', b"[" * 5000])
)
def test_a_state_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        state_of(body)
