"""Payloads and filters of MQTT: what is said is kept exactly; by laws and by the cases that others got wrong."""

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.formats.mqtt_filters import covers, overlapping, sound, widest
from adapters.formats.mqtt_payload import VALUES_MAX, Topics, read
from hub import limits
from hub.intake.edge_document import EdgeDocument
from hub.intake.readings import Reading, Value

ALL = Topics(filter="#")
AT = datetime(2026, 1, 5, 6, tzinfo=UTC)


def said(body: bytes | str, rule: Topics = ALL) -> list[tuple[str, Value, str]]:
    found = read(body if isinstance(body, bytes) else body.encode(), "t", rule, historical=False)
    return [(one.tag, one.value, one.type) for one in found]


@pytest.mark.parametrize(
    ("body", "value", "kind"),
    [
        (b"", "", "text"),
        (b"00123", "00123", "text"),
        (b"1E5", "1E5", "text"),
        (b'"00123"', "00123", "string"),
        (b'"1E5"', "1E5", "string"),
        (b"1e-05", 1e-05, "number"),
        (b"-2147483648", -(2**31), "integer"),
        (b"18446744073709551615", 2**64 - 1, "integer"),
        (b"18446744073709551616", "18446744073709551616", "integer"),
        (b"-0", "-0", "integer"),
        (b"21.50", 21.5, "number"),
        (b"0.1234567890123456789", "0.1234567890123456789", "number"),
        (b"1" * 5000, "1" * 5000, "text"),
        (b"Infinity", math.inf, "number"),
        (b"true", True, "boolean"),
        (b"True", "True", "text"),
        (b"null", None, "null"),
        (b"1\x00", "1\x00", "text"),  # two bytes of an integer, and not UTF-16
        (b"\xff\xfe1\x00", "fffe3100", "bytes"),
        (b"\xef\xbb\xbf1", "\ufeff1", "text"),
        (b"{", "{", "text"),
        (b"[" * 50_000, "[" * 50_000, "text"),
        (b"{}", "{}", "json"),
    ],
)
def test_a_plain_payload_is_what_it_is(body: bytes, value: Value, kind: str) -> None:
    assert said(body) == [("t", value, kind)]
    assert type(said(body)[0][1]) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"b": [{"a": 1, "a": 1}]}',
        '{"a/b": 1, "a": {"b": 2}}',
        '{"\\u0000": 1}',
        '{"\\ud800": 1}',
        json.dumps(list(range(VALUES_MAX + 1))),
        "[" * 40 + "1" + "]" * 40,
    ],
)
def test_what_cannot_be_taken_apart_without_loss_is_kept_whole(text: str) -> None:
    assert said(text) == [("t", text, "json")]


def test_a_large_payload_is_kept_as_it_is() -> None:
    text = json.dumps(["x" * limits.MQTT_BODY_BYTES_MAX])
    assert said(text) == [("t", text, "text")]


def test_objects_and_lists_are_taken_apart_and_empty_ones_are_said() -> None:
    assert said('{"m": {"temp": 21.5, "on": true, "tags": ["a", null], "none": {}, "no": []}}') == [
        ("t/m/temp", 21.5, "number"),
        ("t/m/on", True, "boolean"),
        ("t/m/tags/0", "a", "string"),
        ("t/m/tags/1", None, "null"),
        ("t/m/none", "{}", "json"),
        ("t/m/no", "[]", "json"),
    ]


@pytest.mark.parametrize(
    ("stamp", "at", "kept"),
    [
        ('"2026-01-05T06:00:00Z"', AT, False),
        ('"2026-01-05 07:00:00.5+0100"', AT.replace(microsecond=500_000), False),
        ('"2026-01-05T06:00:00"', datetime(2026, 1, 5, 6), False),  # noqa: DTZ001 the plant's zone is asked later
        ('"2026-01-05T06:00:00.123456789Z"', AT.replace(microsecond=123456), True),
        ("1767592800", AT, False),
        ("1767592800.25", AT.replace(microsecond=250_000), False),
        ("1767592800123", AT.replace(microsecond=123_000), False),
        ("1767592800123456", AT.replace(microsecond=123456), False),
        ("1767592800123456789", AT.replace(microsecond=123457), True),
        ('"yesterday"', None, True),
        ('"2026-02-30T06:00:00Z"', None, True),
        ('"0001-01-01T00:00:00+14:00"', None, True),
        ("1e400", None, True),
        ("true", None, True),
        ("[]", None, True),
    ],
)
def test_a_time_is_read_and_kept_where_ours_is_less_exact(stamp: str, at: datetime | None, kept: bool) -> None:
    found = read(f'{{"v": 1, "h": {{"at": {stamp}}}}}'.encode(), "t", Topics(filter="#", at="h.at"), historical=False)
    assert (found[0].tag, found[0].at) == ("t/v", at)
    assert ([one.tag for one in found[1:]] == ["t/h/at"]) == kept


@pytest.mark.parametrize(("number", "sequence"), [("7", 7), ("-1", -1), ("7.0", None), ('"7"', None), ("true", None), (str(2**63), None)])
def test_a_sequence_is_an_integer_or_a_value_like_others(number: str, sequence: int | None) -> None:
    found = read(f'{{"v": 1, "n": {number}}}'.encode(), "t", Topics(filter="#", sequence="n"), historical=False)
    assert found[0].sequence == sequence
    assert [one.tag for one in found] == (["t/v"] if sequence is not None else ["t/v", "t/n"])


def test_values_are_found_where_the_rule_says_and_nothing_is_lost_where_they_are_not() -> None:
    rule = Topics(filter="#", value="d.values", at="d.ts", sequence="n")
    text = '{"n": 5, "d": {"ts": "2026-01-05T06:00:00Z", "values": {"a": 1, "b": "x"}}}'
    found = read(text.encode(), "t", rule, historical=True)
    assert [(r.tag, r.value, r.at, r.sequence, r.historical) for r in found] == [("t/a", 1, AT, 5, True), ("t/b", "x", AT, 5, True)]
    assert said('{"other": 1}', rule) == [("t/other", 1, "integer")]
    assert said('{"n": 5}', rule) == [("t", None, "")]
    assert said('{"d.values": 1, "n": 2}', rule) == [("t/d.values", 1, "integer")]


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["00123", "1E5", "NaN", "2026-01-05T06:00:00Z", "\ud800"])
)
DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.sampled_from(["at", "n", "a/b", "a.b"]), inner, max_size=4)
)  # fmt: skip


def scalars(value: Any) -> list[Any]:
    if isinstance(value, dict | list) and value:
        return [one for inner in (value.values() if isinstance(value, dict) else value) for one in scalars(inner)]
    return ["{}" if value == {} and isinstance(value, dict) else "[]" if isinstance(value, list) else value]


def meant(reading: Reading) -> Any:
    """The value that a reading stands for."""
    if reading.type == "integer":
        return int(reading.value or 0)
    return Decimal(str(reading.value)) if reading.type == "number" else reading.value


@given(DOCUMENTS, st.booleans())
def test_every_document_gives_each_of_its_scalars_exactly(document: Any, ascii_: bool) -> None:
    rule = Topics(filter="#", at="at", sequence="n")
    text = json.dumps(document, ensure_ascii=ascii_)
    body = text.encode("utf-8", "surrogatepass")
    found = read(body, "t", rule, historical=False)
    assert found
    if (len(found) == 1 and found[0].type in ("text", "bytes")) or (found[0].type == "json" and found[0].value not in ("{}", "[]")):
        (whole,) = found
        assert (bytes.fromhex(str(whole.value)) if whole.type == "bytes" else str(whole.value).encode()) == body
    else:
        want = [Decimal(repr(one)) if isinstance(one, float) else one for one in scalars(document)]
        got = [meant(one) for one in found if one.type or one.value is not None]
        used = [v for v in (found[0].sequence,) if v is not None]  # the number and the time stand in the readings themselves
        if isinstance(document, dict) and found[0].at is not None and found[0].at.tzinfo and "t/at" not in {one.tag for one in found}:
            used.append(document["at"])
        assert sorted(map(repr, got + [Decimal(repr(v)) if isinstance(v, float) else v for v in used])) == sorted(map(repr, want))
    EdgeDocument("e", "e", "l", 1, "p", AT, found).json()  # whatever it is, it can be spooled


@given(st.binary(max_size=200))
def test_any_bytes_are_readings_that_can_be_spooled(body: bytes) -> None:
    found = read(body, "t", ALL, historical=False)
    assert found
    EdgeDocument("e", "e", "l", 1, "p", AT, found).json()


LEVEL = st.sampled_from(["a", "b", "", "+", "$x"])
TOPIC = st.lists(st.sampled_from(["a", "b", "", "$x"]), min_size=1, max_size=4).map("/".join)
FILTER = st.tuples(st.lists(LEVEL, min_size=1, max_size=4), st.sampled_from([[], ["#"]])).map(lambda p: "/".join([*p[0], *p[1]])) | st.just(
    "#"
)


@given(FILTER, TOPIC)
def test_a_topic_is_covered_as_paho_matches_it(filter_: str, topic: str) -> None:
    assert covers(filter_, topic) == mqtt.topic_matches_sub(filter_, topic)


@given(st.lists(FILTER, min_size=1, max_size=4), TOPIC)
def test_the_widest_filters_match_what_all_did_and_once_unless_they_overlap(filters: list[str], topic: str) -> None:
    found = widest(filters)
    assert any(covers(one, topic) for one in found) == any(covers(one, topic) for one in filters)
    if sum(covers(one, topic) for one in found) > 1:
        assert overlapping(filters)


@pytest.mark.parametrize(
    ("filter_", "right"),
    [("#", True), ("a/+/b/#", True), ("+", True), ("/", True), ("", False), ("a#", False), ("a/#/b", False), ("a/b+", False), ("++", False), ("a\x00", False)],
)  # fmt: skip
def test_which_filters_are_sound(filter_: str, right: bool) -> None:
    assert sound(filter_) == right
    if not right:
        with pytest.raises(ValueError, match="is no topic filter"):
            Topics(filter=filter_)


def test_filters_that_overlap_in_part_are_found() -> None:
    assert overlapping(["a/+/c", "a/b/+"]) == ("a/+/c", "a/b/+")
    assert overlapping(["a/#", "a/b/+", "b"]) is None
