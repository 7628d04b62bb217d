"""Records of the ERP as facts: what the key names, which times are whose, and what is held with the reason."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from adapters.tryton_records import ITEM, LOCATION, MAPPING, ORDER, PARTY
from events import canonical
from events.base import Fact
from events.procurement import PurchaseOrderIssued
from hub.intake.mapping import Context, Held, Line, Partner

AT, LATER = "2026-01-05T06:00:00.123456Z", "2026-02-01T00:00:00Z"
STAMPS = {"create_date": AT, "write_date": None}
UNIT = {"id": 1, "unece_code": "EA", "symbol": "u", "digits": 0, **STAMPS}
BERLIN = {"tryton:erp": Partner(zone=ZoneInfo("Europe/Berlin"), units={"bag": "BG"})}


def line(**more: Any) -> dict[str, Any]:
    return {"id": 17, "type": "line", "quantity": "100", "product.": {"id": 1, "code": "M"}, "unit.": UNIT, **more}


def order(**more: Any) -> dict[str, Any]:
    head = {"id": 3, "number": "PO3", "revision": 0, "purchase_date": "2026-01-05", "party.": {"id": 2, "code": "S1"}}
    return {**head, "lines.": [line()], "amendments.": [], **more}


def item(**more: Any) -> dict[str, Any]:
    row = {"id": 1, "code": "M", "name": "Motor", "lot_required": ["supplier"], "template.": {"id": 1, **STAMPS}, "default_uom.": UNIT}
    return {**row, **STAMPS, **more}


def read(model: str, record: object, partners: dict[str, Partner] | None = None, source: str = "tryton:erp") -> Fact | Held:
    body = canonical.dumps({"tryton": model, "source": source, "record": record})
    assert MAPPING.recognises(body)
    (part,) = MAPPING.read(body, Context(raw="0" * 64, partners=partners or {}))
    (found,) = part.lines
    if isinstance(found, Held):
        return found
    assert isinstance(found, Line)
    (fact,) = found.facts
    return fact


def fact(model: str, record: object, partners: dict[str, Partner] | None = None) -> Fact:
    found = read(model, record, partners)
    assert isinstance(found, Fact), found
    return found


def test_an_order_is_effective_on_its_day_where_it_was_made() -> None:
    found = fact(ORDER, order()).envelope
    assert (found.key, found.effective_at, found.time_quality) == ("purchase/PO3", datetime(2026, 1, 5, tzinfo=UTC), "assumed_utc")
    found = fact(ORDER, order(), BERLIN).envelope
    assert (found.effective_at, found.time_quality) == (datetime(2026, 1, 4, 23, tzinfo=UTC), "partner_zone")


def test_a_revision_is_effective_when_its_last_amendment_was_validated() -> None:
    amendments = [
        {"id": 1, "state": "validated", "create_date": AT, "write_date": "2026-01-07T00:00:00Z"},
        {"id": 2, "state": "validated", "create_date": AT, "write_date": "2026-01-06T00:00:00Z"},
        {"id": 3, "state": "draft", "create_date": LATER, "write_date": LATER},
    ]
    found = fact(ORDER, order(revision=2, **{"amendments.": amendments})).envelope
    assert (found.key, found.effective_at, found.time_quality) == ("purchase/PO3/2", datetime(2026, 1, 7, tzinfo=UTC), "offset")


@pytest.mark.parametrize(
    ("said", "digits", "means"), [("12.5", 3, "12.5"), ("0.30000000000000004", 1, "0.3"), ("100.0", 0, "100"), ("0.0", 0, "0")]
)
def test_a_quantity_has_the_digits_of_its_unit(said: str, digits: int, means: str) -> None:
    event = fact(ORDER, order(**{"lines.": [line(quantity=said, **{"unit.": {**UNIT, "digits": digits}})]})).event
    assert isinstance(event, PurchaseOrderIssued)
    assert event.lines[0].quantity.value == Decimal(means)


def test_lines_of_no_item_are_no_lines() -> None:
    text, service = {**line(), "id": 18, "type": "comment"}, {**line(), "id": 19, "product.": None}
    event = fact(ORDER, order(**{"lines.": [text, line(), service]})).event
    assert isinstance(event, PurchaseOrderIssued)
    assert [found.line for found in event.lines] == ["17"]


def test_a_version_is_the_last_writing_of_all_that_it_is_made_of() -> None:
    assert fact(ITEM, item()).envelope.key == f"item/M@{AT}"
    for change in ({"write_date": LATER}, {"template.": {**STAMPS, "write_date": LATER}}, {"default_uom.": {**UNIT, "write_date": LATER}}):
        found = fact(ITEM, item(**change)).envelope
        assert (found.key, found.effective_at) == (f"item/M@{LATER}", datetime(2026, 2, 1, tzinfo=UTC))


@pytest.mark.parametrize(("categories", "role"), [([], "supplier"), (["Carrier"], "carrier"), (["Good", "CUSTOMER"], "customer")])
def test_a_category_says_what_a_partner_is(categories: list[str], role: str) -> None:
    record = {"id": 1, "code": "S1", "name": None, "categories.": [{"id": n, "name": name} for n, name in enumerate(categories)], **STAMPS}
    found = fact(PARTY, record)
    assert (found.envelope.key, found.event.data()) == (f"partner/S1@{AT}", {"partner": "S1", "name": "", "role": role})


def test_a_place_is_our_own() -> None:
    found = fact(LOCATION, {"id": 1, "code": "DOCK", "name": "Goods in", **STAMPS})
    assert found.event.data() == {"location": "DOCK", "description": "Goods in", "owner": "own"}


def test_a_unit_of_its_own_is_named_by_the_configuration() -> None:
    bag = {**UNIT, "unece_code": None, "symbol": "bag"}
    assert fact(ITEM, item(**{"default_uom.": bag}), BERLIN).event.data()["base_unit"] == "BG"


@pytest.mark.parametrize(
    ("model", "record", "words"),
    [
        (ITEM, item(**{"default_uom.": {**UNIT, "unece_code": None}}), "the unit 'u' has no UN/ECE code"),
        (ITEM, item(**{"default_uom.": {**UNIT, "unece_code": "XYZ"}}), "'XYZ' is not a UN/ECE Rec 20 unit code"),
        (ORDER, order(**{"lines.": [line(**{"product.": {"id": 1, "code": None}})]}), "line 17 is of a product without a code"),
        (ORDER, order(**{"lines.": [line(quantity="-1")]}), "line 17 sends M back"),
        (ORDER, order(**{"lines.": []}), "lines"),
        (ORDER, order(purchase_date=None), "not a record as Tryton 8.0 gives it"),
        (ORDER, order(**{"lines.": [line(quantity="Infinity")]}), "not a record as Tryton 8.0 gives it"),
        (PARTY, {}, "not a record as Tryton 8.0 gives it"),
        ("res.user", {}, "res.user is no model whose records are facts"),
        (ORDER, {}, "KeyError: 'number'"),
    ],
)
def test_what_cannot_be_a_fact_is_held_with_the_reason(model: str, record: object, words: str) -> None:
    found = read(model, record)
    assert isinstance(found, Held)
    assert words in found.reason
    assert found.source == "tryton:erp"


def test_what_is_no_record_is_not_recognised() -> None:
    for body in (b"{}", b'{"record":{}}', b'{"facts":[]}', b'{"tryton":"x","record":{}}', b""):
        assert not MAPPING.recognises(body)
