"""Every movement rule: from which account to which, with status, identity and quantity; and that other events move nothing."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.base import event_class, event_types
from events.vocabulary import Quantity, Thing
from projections.movements import EACH, Movement, amount, movements
from tests.histories.strategy import FIELDS, histories

LOT = {"item": "A", "lot": "L1", "quantity": {"value": "2.5", "unit": "KGM"}}
MADE = {"item": "A", "lot": "L2", "quantity": {"value": "2", "unit": "KGM"}}
WH = ("location/WH", "unrestricted")
QUALITY = ("location/WH", "quality")

# type, fields, [(from account, status), (to account, status), lot, quantity]
RULES: list[tuple[str, dict[str, Any], list[tuple[tuple[str, str], tuple[str, str], str, str]]]] = [
    ("procurement.goods_received", {"receipt": "1", "location": "WH", "things": [LOT], "supplier": "ACME", "status": "quality"},
     [(("supplier/ACME", ""), QUALITY, "L1", "2.5")]),
    ("procurement.goods_received", {"receipt": "1", "location": "WH", "things": [LOT]}, [(("supplier/unknown", ""), WH, "L1", "2.5")]),
    ("production.material_issued", {"order": "W", "location": "WH", "things": [LOT]}, [(WH, ("wip/W", ""), "L1", "2.5")]),
    ("production.output_produced", {"output": "1", "order": "W", "location": "WH", "things": [LOT]}, [(("wip/W", ""), WH, "L1", "2.5")]),
    ("production.output_produced", {"output": "1", "location": "WH", "things": [LOT]}, [(("production", ""), WH, "L1", "2.5")]),
    ("production.scrap_reported", {"scrap": "1", "location": "WH", "things": [LOT]}, [(WH, ("scrap", ""), "L1", "2.5")]),
    ("production.scrap_reported", {"scrap": "1", "order": "W", "things": [LOT]}, [(("wip/W", ""), ("scrap", ""), "L1", "2.5")]),
    ("production.scrap_reported", {"scrap": "1", "things": [LOT]}, [(("production", ""), ("scrap", ""), "L1", "2.5")]),
    *[
        (type_, {name: "1", "location": "WH", "inputs": [LOT], "outputs": [MADE]},
         [(WH, ("conversion", ""), "L1", "2.5"), (("conversion", ""), WH, "L2", "2")])
        for type_, name in (("production.lot_reworked", "rework"), ("inventory.lot_split", "split"), ("inventory.lot_merged", "merge"))
    ],
    ("production.lot_transformed", {"transformation": "1", "order": "W", "location": "WH", "inputs": [LOT], "outputs": [MADE]},
     [(WH, ("wip/W", ""), "L1", "2.5"), (("wip/W", ""), WH, "L2", "2")]),
    ("production.lot_transformed", {"transformation": "1", "outputs": [MADE]},
     [(("conversion", ""), ("location/unknown", "unrestricted"), "L2", "2")]),
    ("inventory.stock_transferred",
     {"transfer": "1", "things": [LOT], "from_location": "WH", "to_location": "WH", "from_status": "quality"},
     [(QUALITY, WH, "L1", "2.5")]),
    ("inventory.objects_decommissioned", {"document": "1", "location": "WH", "things": [LOT]}, [(WH, ("decommissioned", ""), "L1", "2.5")]),
    ("logistics.shipment_dispatched", {"shipment": "S", "from_location": "WH", "things": [LOT]}, [(WH, ("transit/S", ""), "L1", "2.5")]),
    ("logistics.delivery_proved", {"shipment": "S", "customer": "C", "things": [LOT]},
     [(("transit/S", ""), ("customer/C", ""), "L1", "2.5")]),
    ("logistics.return_received", {"return_number": "1", "customer": "C", "location": "WH", "things": [LOT]},
     [(("customer/C", ""), QUALITY, "L1", "2.5")]),
]  # fmt: skip
STILL = {cls.type for cls in event_types()} - {type_ for type_, _, _ in RULES}


@pytest.mark.parametrize(("type_", "data", "expected"), RULES)
def test_what_an_event_moves(type_: str, data: dict[str, Any], expected: list[Any]) -> None:
    found = movements(event_class(type_).of(data))
    assert found == [
        Movement(source, target, source_status, target_status, "A", lot, "", Decimal(quantity), "KGM")
        for (source, source_status), (target, target_status), lot, quantity in expected
    ]


@given(facts=histories(types=sorted(STILL)))
def test_all_other_events_move_nothing(facts: list[Any]) -> None:
    assert [m for fact in facts for m in movements(fact.event)] == []


def test_every_type_is_one_or_the_other() -> None:
    assert {type_ for type_, _, _ in RULES} | STILL == set(FIELDS)


@given(facts=st.deferred(histories))
def test_nothing_is_moved_to_where_it_came_from_with_no_quantity(facts: list[Any]) -> None:
    assert all(m.quantity > 0 and m.unit for fact in facts for m in movements(fact.event))


def test_amounts() -> None:
    quantity = Quantity(value=Decimal(0), unit="KGM")
    assert amount(Thing(item="A", serial="S")) == (Decimal(1), EACH)
    assert amount(Thing(item="A", serial="S", quantity=quantity)) == (Decimal(0), "KGM")
    assert amount(Thing(item="A", lot="L")) is None
    assert amount(Thing(handling_unit="U")) is None


def test_a_handling_unit_without_its_content_moves_nothing() -> None:
    data = {"shipment": "S", "from_location": "WH", "things": [{"handling_unit": "U"}, {"item": "A", "serial": "S1"}]}
    assert [m.serial for m in movements(event_class("logistics.shipment_dispatched").of(data))] == ["S1"]
