"""The quick ways of reading say what the slow ones say, or nothing: `canonical.quick`, and rows that `events.quick` takes at once."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import canonical_json
from adapters.canonical_json import MAPPING
from events import canonical, event_types, quick
from events.base import OWN
from events.errors import Refused
from hub.intake.mapping import Context, Held, Line, Part
from tests.histories import golden

CONTEXT = Context(raw="0" * 64, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
ROWS: list[dict[str, Any]] = []  # one at least of each type that a source may send


def _rows() -> list[dict[str, Any]]:
    if not ROWS:
        for fact in (fact for name in golden.names() for fact in golden.facts(name)):
            e = fact.envelope
            ROWS.append(
                {
                    "type": fact.event.type,
                    "source": e.source,
                    "key": e.key,
                    "occurred_at": canonical.time_text(e.occurred_at),
                    "data": fact.event.data(),
                }
            )
    return ROWS


ODD: list[Any] = [
    None, True, False, 0, 1, -1, 7, 1.5, 12345678901234567890123, "", " ", "a", " a", "a ", "\u00a0a", "a\u2003", "\u0085", "é", "a\x7fb", "a\nb",
    'a"b', "\x00", "\ud800", "x" * 200, "x" * 201, "é" * 200, "x" * 601, "x" * 4001, "1", "-1", "-0", "+1", "1.50", "007", "1e5", "1_0", " 1", "1 ",
    "NaN", "Infinity", "٣", "1" * 20, "1" * 21, "0." + "1" * 12, "0." + "1" * 13, "EA", "ea", "KGM", [], {}, [{}], [[]], {"value": "1", "unit": "EA"},
    {"item": "A"}, {"lot": "L"}, [{"item": "A", "lot": "L"}], ["a", "b"], "2026-01-05T06:00:00Z", "2026-01-05t06:00:00z", "2026-01-05 06:00:00Z",
    "2026-01-05T06:00:00+01:00", "2026-01-05T06:00:00.123456789Z", "2026-13-05T06:00:00Z", "1799-12-31T23:59:59Z", "9000-12-31T23:59:59-01:00",
    "2026-01-05", "integration.delivery_quarantined", "security.access_granted", "person/0a1b2c3d4e5f6071",
    " person/0a1b2c3d4e5f6071", "production.output_produced", "00-" + "a" * 32 + "-" + "b" * 16 + "-00",
]  # fmt: skip
NAMES = [*canonical_json._FIELDS, "specversion", "lot", "item", "quantity", "things", "status", "x"]


def _changed(chance: random.Random, row: dict[str, Any]) -> Any:
    """A row with one thing changed, anywhere in it."""
    row = json.loads(json.dumps(row))
    places: list[Any] = [row]
    for place in places:  # grows
        places += [one for one in (place.values() if isinstance(place, dict) else place) if isinstance(one, dict | list)]
    place = chance.choice(places)
    how = chance.randrange(5)
    if isinstance(place, list):
        if place and how:
            place[chance.randrange(len(place))] = chance.choice(ODD)
        else:
            place.append(chance.choice(ODD))
        return row
    name = chance.choice([*place, chance.choice(NAMES)])
    if how == 0:
        place.pop(name, None)
    elif how == 1 and name in place:
        place[name + "!"] = chance.choice([place[name], chance.choice(ODD)])
    else:
        place[name] = chance.choice(ODD)
    return row


def _text(chance: random.Random, value: Any, escapes: bool) -> str:
    """As JSON; a name that ends in `!` is written without it, so that it may stand twice."""
    blank = chance.choice(["", "", " "])
    if isinstance(value, dict):
        members = list(value.items())
        chance.shuffle(members)
        said = [json.dumps(n.removesuffix("!"), ensure_ascii=escapes) + blank + ":" + blank + _text(chance, v, escapes) for n, v in members]
        return "{" + blank + ("," + blank).join(said) + "}"
    if isinstance(value, list):
        return "[" + ("," + blank).join(_text(chance, one, escapes) for one in value) + blank + "]"
    return json.dumps(value, ensure_ascii=escapes)


def _judged(body: bytes) -> tuple[Any, Any]:
    """What the mapping makes of a body with the quick way, and without."""
    with pytest.MonkeyPatch.context() as patch:
        found = MAPPING.read(body, CONTEXT)
        patch.setattr(canonical_json, "_quick", lambda *_: None)
        patch.setattr(canonical, "quick", lambda raw: None)
        return found, MAPPING.read(body, CONTEXT)


def _said(parts: list[Part]) -> list[Any]:
    return [
        (fact.digest(), fact.event.json(), fact.event.stream())
        for part in parts
        for line in part.lines
        if isinstance(line, Line)
        for fact in line.facts
    ]


@settings(max_examples=1500)
@given(st.integers(0, 2**64))
def test_a_row_is_read_as_it_is_judged(seed: int) -> None:
    chance = random.Random(seed)
    rows = [chance.choice(_rows()) for _ in range(chance.choice([1, 1, 1, 2, 3]))]
    for _ in range(chance.randrange(3)):
        n = chance.randrange(len(rows))
        rows[n] = _changed(chance, rows[n])
    value: Any = rows[0] if len(rows) == 1 and chance.randrange(2) else rows
    body = _text(chance, value, chance.randrange(4) == 0).encode("utf-8", "surrogatepass")
    quickly, slowly = _judged(body)
    assert quickly == slowly
    assert _said(quickly) == _said(slowly)


@pytest.mark.parametrize("name", sorted({row["type"] for row in _rows()}))
def test_each_odd_value_in_each_place_is_read_as_it_is_judged(name: str) -> None:
    whole = max((row for row in _rows() if row["type"] == name), key=lambda row: len(row["data"]))
    whole = json.loads(json.dumps(whole | {"effective_at": "2026-01-06T06:00:00Z"}))
    for place in _objects(whole):
        for field in {*place, *NAMES}:
            kept = dict(place)
            for odd in ODD:
                for said in (field, field + "!") if field in kept else (field,):
                    place[said] = odd
                    body = json.dumps(whole, ensure_ascii=False).replace('!": ', '": ').encode("utf-8", "surrogatepass")
                    quickly, slowly = _judged(body)
                    assert quickly == slowly, body
                    assert _said(quickly) == _said(slowly), body
                    place.clear()
                    place.update(kept)


def _objects(value: Any) -> list[dict[str, Any]]:
    """An object and all that are within it; of a list the first."""
    found = [value] if isinstance(value, dict) else []
    for one in value.values() if isinstance(value, dict) else value[:1]:
        if isinstance(one, dict | list):
            found += _objects(one)
    return found


def test_facts_of_the_hub_itself_are_not_taken_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where their type has a reader."""
    row = next(row for row in _rows() if row["type"] == "procurement.goods_received")
    reader = quick.reader(row["type"])
    monkeypatch.setattr(quick, "reader", lambda name: reader)
    assert canonical_json._quick(json.dumps(row).encode(), CONTEXT, "m") is not None
    for area in OWN:
        assert canonical_json._quick(json.dumps(row | {"type": f"{area}goods_received"}).encode(), CONTEXT, "m") is None


@pytest.mark.parametrize("cls", [cls for cls in event_types() if cls.type.startswith(OWN)], ids=lambda cls: cls.type)
def test_nor_judged_to_be_right(cls: Any) -> None:
    (row,) = [row for row in _rows() if row["type"] == cls.type][:1]
    ((line,),) = [part.lines for part in MAPPING.read(json.dumps(row).encode(), CONTEXT)]
    assert isinstance(line, Held)
    assert line.reason == f"{cls.type} is the hub's own to record"


@pytest.mark.parametrize(
    ("actor", "taken"), [("person/0a1b2c3d4e5f6071", False), (" person/0a1b2c3d4e5f6071\u2003", False), ("person/7", True), ("jo", True)]
)
def test_a_source_names_no_person_of_the_hub(actor: str, taken: bool) -> None:
    row = next(row for row in _rows() if row["type"] == "procurement.goods_received") | {"actor": actor}
    quickly, slowly = _judged(json.dumps(row, ensure_ascii=False).encode())
    assert quickly == slowly
    (line,) = quickly[0].lines
    assert isinstance(line, Line) == taken
    assert taken or "the hub alone identifies" in line.reason


def test_what_sources_send_is_read_quickly() -> None:
    for name in {row["type"] for row in _rows()}:
        if name.startswith("equipment."):  # machines speak through an edge
            continue
        rows = [row for row in _rows() if row["type"] == name]
        taken = [canonical_json._quick(json.dumps(row, ensure_ascii=False).encode(), CONTEXT, "m") is not None for row in rows]
        chosen = ("masterdata.", "procurement.purchase_order_acknowledged")  # with words of a choice
        assert any(taken) != name.startswith((*chosen, *OWN)), name  # and the hub's own


@pytest.mark.parametrize("cls", list(event_types()), ids=lambda cls: cls.type)
def test_every_type_has_a_reader(cls: Any) -> None:
    assert quick.reader(cls.type) is not None
    assert quick.reader("x" + cls.type) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**36, 10**40) | st.decimals(allow_nan=False).map(str) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(st.sampled_from(["a", "b", "ä", ""]), inner), max_size=4).map(tuple),
    max_leaves=12,
)


def _written(value: Any) -> str:
    """Tuples as objects, in which a key may stand twice; texts that are numbers as numbers."""
    if isinstance(value, tuple):
        return "{" + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {_written(one)}" for name, one in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, str):
        try:
            float(value)
            return value if value.isascii() and not value[0].isspace() else json.dumps(value)
        except ValueError:
            return json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


@settings(max_examples=500)
@given(JSON.map(_written) | st.text(alphabet='{}[]":,01.e-ab\\u \n'), st.binary(max_size=3))
def test_json_is_read_as_it_is_judged(text: str, dirt: bytes) -> None:
    for raw in (text.encode("utf-8", "surrogatepass"), text.encode("utf-8", "surrogatepass") + dirt):
        found = canonical.quick(raw)
        if found is not None:
            assert found == canonical.checked(canonical.parse(raw))
            assert repr(found) == repr(canonical.parse(raw))


@pytest.mark.parametrize(
    "raw", [b'{"a":1,"a":1}', b'{"a":{"b":"x","b":"y"}}', b"9" * 39, b"1e50", b"[" * 65 + b"]" * 65, b'"a\\u0000"', b"\xef\xbb\xbf1"]
)
def test_what_may_be_refused_is_not_read_quickly(raw: bytes) -> None:
    assert canonical.quick(raw) is None
    if not raw.startswith(b"\xef"):
        with pytest.raises(Refused):
            canonical.loads(raw)
