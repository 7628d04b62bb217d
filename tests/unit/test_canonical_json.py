"""Canonical JSON: a row that is wrong is held alone, in whatever form its batch comes; `canonical.loads` itself takes nothing doubtful."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.canonical_json import MAPPING
from events import canonical
from events.errors import Refused
from hub.intake.mapping import Context, Held, Line

BOM = b"\xef\xbb\xbf"
BAD = {  # what stands for the quantity of a row, or more of it, and why the row is held
    r'"\ud800"': "half of a surrogate pair",
    r'"a\u0000b"': "NUL",
    "9" * 60: "more than 38 digits",
    "1e99999": "more than 38 digits",
    "NaN": "not a JSON number",
    '{"a": 1, "a": 2}': "stands twice",
    '1, "key": "other"': "stands twice",
    "[" * 70 + "]" * 70: "nested deeper",
}


def row(key: str) -> str:
    data: dict[str, Any] = {"receipt": key, "things": [{"item": "A", "lot": "L"}], "location": "WH", "supplier": "ACME"}
    said = {"type": "procurement.goods_received", "source": "erp:main", "key": key, "occurred_at": "2026-01-05T06:00:00Z", "data": data}
    return json.dumps(said)


def batches(rows: list[str]) -> list[bytes]:
    """The same rows in each form that a batch has."""
    array, lines = "[" + ",".join(rows) + "]", "\n".join(rows)
    texts = [array, '{"facts": ' + array + "}", lines]
    return [head + text.encode() for text in texts for head in (b"", BOM)]


def read(body: bytes) -> list[Line | Held]:
    assert MAPPING.recognises(body)
    (part,) = MAPPING.read(body, Context(raw="0" * 64))
    assert part.format == "canonical-json"
    return list(part.lines)


@pytest.mark.parametrize("bad", BAD, ids=BAD.values())
def test_a_bad_row_is_held_alone(bad: str) -> None:
    for body in batches([row("R1"), row("R2")[:-1] + f', "x": {bad}}}', row("R3")]):
        first, second, third = read(body)
        assert [line.facts[0].envelope.key for line in (first, third) if isinstance(line, Line)] == ["R1", "R3"]
        assert isinstance(second, Held)
        assert (second.path, second.place) == ("2", "row 2")
        assert BAD[bad] in second.reason
    (alone,) = read((row("R2")[:-1] + f', "x": {bad}}}').encode())
    assert isinstance(alone, Held)
    assert (alone.path, alone.place) == ("", "")
    assert BAD[bad] in alone.reason


def test_what_is_no_json_as_a_whole_is_held_whole() -> None:
    for body in (b'[{"type": "a.b"}, {"type": ', b'{"facts": [], "facts": [{"type": "a.b"}]}', b'{"facts": [NaN'):
        (held,) = read(body)
        assert isinstance(held, Held)
        assert held.path == ""


@pytest.mark.parametrize("bad", BAD, ids=BAD.values())
def test_loads_takes_nothing_doubtful(bad: str) -> None:
    for text in ('{"key": 0, "a": BAD}', '[1, {"key": 0, "a": BAD}]'):
        for raw in (said := text.replace("BAD", bad), said.encode()):
            with pytest.raises(Refused, match=BAD[bad]):
                canonical.loads(raw)


@pytest.mark.parametrize("key", [r'"\ud800"', r'"a\u0000"'])
def test_keys_are_texts_too(key: str) -> None:
    for raw in (said := "[{" + key + ": 1}]", said.encode()):
        with pytest.raises(Refused):
            canonical.loads(raw)
    assert canonical.loads('{"a": 1.50, "b": [true, null]}') == {"a": canonical.loads("1.5"), "b": [True, None]}


@given(
    st.sampled_from(["", "-"]),
    st.integers(1, 10**40).map(str) | st.integers(36, 40).map(lambda n: "9" * n),
    st.sampled_from(["", ".0", ".5", "." + "0" * 37 + "1"]),
    st.sampled_from(["", "e0", "E-1", "e36", "e37", "e38", "e-37", "e-38", "e-39"]),
)
def test_a_number_has_as_many_digits_as_it_takes_to_write_it_plainly(sign: str, whole: str, decimals: str, exponent: str) -> None:
    text = sign + whole + decimals + exponent
    plain = format(Decimal(text), "f").lstrip("-").removeprefix("0.")
    if len(plain.replace(".", "")) > canonical.DIGITS_MAX:
        with pytest.raises(Refused, match="more than 38 digits"):
            canonical.loads(text)
    else:
        assert canonical.loads(text) == Decimal(text)


@pytest.mark.parametrize("version", ["9" * 5000, "9" * 10, "x", ""])
def test_a_version_that_is_no_version_is_held(version: str) -> None:
    """Thousands of digits are more than Python makes a number of."""
    event = json.loads(row("R1"))
    said = {
        "specversion": "1.0",
        "id": "1",
        "source": "erp:main",
        "type": event["type"],
        "time": event["occurred_at"],
        "data": event["data"],
    }
    (part,) = MAPPING.read(json.dumps(said | {"schemaversion": version}).encode(), Context(raw="0" * 64))
    (held,) = part.lines
    assert isinstance(held, Held)
    assert (held.reason, held.place) == ("must be a whole number", "schema_version")
