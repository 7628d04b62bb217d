"""What opens and what closes each exception, and what the views answer, fact by fact; whatever comes first, the end is the same."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import permutations
from typing import Any

import psycopg
import pytest

from events.base import Envelope, Fact, event_class
from hub.app.wiring import named_views
from hub.log.codec import receipt_key
from tests.conftest import new_database
from tests.contract import view_suite
from tests.histories.strategy import START, recorded

Connection = psycopg.Connection[tuple[Any, ...]]
EACH = {"unit": "EA"}


@pytest.fixture(scope="module")
def connection(pg_owner_url: str) -> Iterator[Connection]:
    with new_database(pg_owner_url) as url, view_suite.prepared(url) as connection:
        yield connection


def fact(key: str, type_: str, hour: int = 0, source: str = "erp", **data: Any) -> Fact:
    at = START + timedelta(hours=hour)
    return Fact(Envelope(source=source, key=key, occurred_at=at, effective_at=at), event_class(type_).of(data))


def lot(value: str, name: str = "L1") -> dict[str, Any]:
    return {"item": "A", "lot": name, "quantity": {"value": value, **EACH}}


def received(key: str, value: str, hour: int = 1, **more: Any) -> Fact:
    given = {"receipt": key, "things": [lot(value)], "location": "WH", "supplier": "ACME", **more}
    return fact(key, "procurement.goods_received", hour, **given)


def undo(original: str, hour: int = 5, key: str = "undo") -> Fact:
    return fact(key, "inventory.movement_reversed", hour, reversal=key, original=original)


def retract(original: str) -> Fact:
    return fact("retract", "inventory.fact_retracted", 9, original=original)


ORDER = fact(
    "po", "procurement.purchase_order_issued", purchase_order="PO", supplier="ACME",
    lines=[{"line": "10", "item": "A", "quantity": {"value": "10", **EACH}, "over_tolerance_percent": "10"}],
)  # fmt: skip
NOTICE = fact("asn", "procurement.asn_line_received", asn="N", partner="ACME", line="1", thing=lot("10"))
SHIP = fact("ship", "logistics.shipment_dispatched", 2, shipment="S", things=[lot("5")], from_location="WH", customer="BOLT")
SHIP_MORE = fact("more", "logistics.shipment_dispatched", 3, shipment="S", line="2", things=[lot("2", "L2")], from_location="WH")
PROVE = fact("prove", "logistics.delivery_proved", 4, shipment="S", customer="BOLT", things=[lot("4")])
PROVE_REST = fact("rest", "logistics.delivery_proved", 6, shipment="S", customer="BOLT", things=[lot("1")])
USE = fact("use", "production.material_issued", 3, order="W", things=[lot("1")], location="WH")
ITEM = fact("item", "masterdata.item_defined", item="A", base_unit="EA")
PLACE = fact("place", "masterdata.location_defined", location="WH")
SUPPLIER = fact("acme", "masterdata.partner_defined", partner="ACME", role="supplier")
CONFLICT = fact(
    "held", "integration.content_conflicted", raw_sha256="aa", part=1, format="x", refused_source="erp", refused_key="k", refused_type="t",
    refused_data={"a": 1}, stored_digest="0", refused_digest="1", reason="at position 7",
)  # fmt: skip
REDRIVE = fact("again", "integration.quarantine_redriven", raw_sha256="aa", quarantined_key="held", outcome="accepted", facts=1)

# view, facts, open exceptions {(kind, subject): business key of the cause}
CASES = {
    "within tolerance": ("receipts", [ORDER, received("r1", "11", purchase_order="PO", purchase_order_line="10")], {}),
    "over tolerance, cause is the later receipt": (
        "receipts",
        [ORDER, received("r1", "6", 1, purchase_order="PO"), received("r2", "6", 2, purchase_order="PO", purchase_order_line="10")],
        {("over_receipt", "PO/10"): "r2"},
    ),
    "over, then more: the cause stays": (
        "receipts",
        [ORDER, received("r1", "12", 1, purchase_order="PO"), received("r2", "3", 2, purchase_order="PO")],
        {("over_receipt", "PO/10"): "r1"},
    ),
    "over without what came before it": (
        "receipts",
        [ORDER, received("r1", "3", 1, purchase_order="PO"), received("r2", "12", 2, purchase_order="PO")],
        {("over_receipt", "PO/10"): "r2"},
    ),
    "over, then announced": (
        "receipts",
        [
            ORDER,
            received("r1", "12", 1, purchase_order="PO"),
            fact("asn", "procurement.asn_line_received", asn="N", partner="ACME", line="1", thing=lot("12"), purchase_order="PO"),
        ],
        {("over_receipt", "PO/10"): "r1"},
    ),
    "over, then reversed": ("receipts", [ORDER, received("r1", "12", purchase_order="PO"), undo("r1")], {}),
    "over, one of two retracted": (
        "receipts",
        [ORDER, received("r1", "12", purchase_order="PO"), received("r2", "3", 2, purchase_order="PO"), retract("r2")],
        {("over_receipt", "PO/10"): "r1"},
    ),
    "no order": ("receipts", [received("r1", "1", purchase_order="PO")], {("receipt_without_order", "PO"): "r1"}),
    "order retracted": (
        "receipts",
        [ORDER, received("r1", "1", purchase_order="PO"), retract("po")],
        {("receipt_without_order", "PO"): "r1"},
    ),
    "announced and received differ": (
        "receipts",
        [NOTICE, received("r1", "9", asn="N")],
        {("quantity_variance", "ACME/N/A/L1"): "r1"},
    ),
    "announced in full by two receipts": ("receipts", [NOTICE, received("r1", "9", asn="N"), received("r2", "1", 2, asn="N")], {}),
    "only announced": ("receipts", [NOTICE], {}),
    "delivered short": ("shipments", [SHIP, PROVE], {("delivery_variance", "S/A/L1//EA"): "prove"}),
    "delivered in two": ("shipments", [SHIP, PROVE, PROVE_REST], {}),
    "one proof opens all lines": (
        "shipments",
        [SHIP, SHIP_MORE, PROVE],
        {("delivery_variance", "S/A/L1//EA"): "prove", ("delivery_variance", "S/A/L2//EA"): "prove"},
    ),
    "the proof undone, the next one opens all lines": (
        "shipments",
        [SHIP, SHIP_MORE, PROVE, PROVE_REST, undo("prove", 7)],
        {("delivery_variance", "S/A/L1//EA"): "rest", ("delivery_variance", "S/A/L2//EA"): "rest"},
    ),
    "delivered and dispatch undone": (
        "shipments",
        [SHIP, PROVE, PROVE_REST, undo("ship")],
        {("delivery_variance", "S/A/L1//EA"): "prove"},
    ),
    "nothing defined": (
        "references",
        [USE],
        {("unknown_item", "A"): "use", ("unknown_location", "WH"): "use", ("unknown_lot", "A/L1"): "use"},
    ),
    "all defined": ("references", [USE, ITEM, PLACE, SUPPLIER, received("r1", "1")], {}),
    "origin undone": ("references", [USE, ITEM, PLACE, SUPPLIER, received("r1", "1"), undo("r1")], {("unknown_lot", "A/L1"): "use"}),
    "use undone": ("references", [USE, ITEM, PLACE, undo("use")], {}),
    "announced only, lot not used": ("references", [NOTICE, ITEM, SUPPLIER], {}),
    "reversal without original": ("timeline", [undo("r1")], {("reversal_without_original", "erp/r1"): "undo"}),
    "reversal with original": ("timeline", [undo("r1"), received("r1", "1")], {}),
    "reversal repeated": (
        "timeline",
        [undo("r1", 6, "later"), undo("r1", 5, "sooner"), received("r1", "1")],
        {("reversal_repeated", "erp/r1"): "later"},
    ),
    "conflict": ("quarantine", [CONFLICT], {("content_conflict", str(receipt_key("erp", "held"))): "k"}),
    "conflict settled": ("quarantine", [CONFLICT, REDRIVE], {}),
    "negative stock": ("stock", [USE, received("r1", "1", 4)], {("negative_stock", "location/WH|unrestricted|A|L1||EA"): "use"}),
    "stock in time": ("stock", [USE, received("r1", "1", 1)], {}),
    "negative by reversal": (
        "stock",
        [USE, received("r1", "1", 1), undo("r1", 5)],
        {("negative_stock", "location/WH|unrestricted|A|L1||EA"): "undo"},
    ),
    "reversed twice, the sooner counts": (
        "stock",
        [received("r1", "1"), undo("r1", 6, "b"), undo("r1", 2, "a"), received("r2", "1", 7)],
        {},
    ),
    "reversed twice counts once": ("stock", [received("r1", "1", 1), received("r2", "1", 1), undo("r1", 5), undo("r1", 6, "b"), USE], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_open_exceptions(connection: Connection, name: str) -> None:
    view_name, facts, expected = CASES[name]
    (view,) = named_views([view_name])
    for order in permutations(facts) if len(facts) < 5 else (facts, facts[::-1]):
        view_suite.check_batch_sizes(connection, view, order)
        with view_suite.folded(connection, view, recorded(order), 2) as cursor:
            cursor.execute("select kind, subject, business_key from exception")
            found = {(kind, subject): key for kind, subject, key in cursor}
        assert found == expected, [f.envelope.key for f in order]


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ([fact("m", "logistics.milestone_reported", shipment="S", code="AF")], "planned"),
        ([SHIP], "in_transit"),
        ([SHIP, undo("ship")], "planned"),
        ([SHIP, PROVE], "delivered"),
        ([SHIP, PROVE, retract("prove")], "in_transit"),
    ],
)
def test_status_of_a_shipment(connection: Connection, facts: list[Fact], status: str) -> None:
    (view,) = named_views(["shipments"])
    with view_suite.folded(connection, view, recorded(facts), 1) as cursor:
        assert cursor.execute("select shipment, status from shipment").fetchall() == [("S", status)]


@pytest.mark.parametrize("hostile", ["|", "/", "%s", "%%", "'", "\\", '"', "💧" * 100], ids=str)
def test_names_with_any_characters_stop_no_view(connection: Connection, hostile: str) -> None:
    """Names meet separators, quotes and formats; a view that stumbled would stop the hub for ever."""
    name = hostile[:100]
    things = [{"item": name, "lot": name, "quantity": {"value": "1", **EACH}}]
    facts = [
        received("r" + name, "20", location=name, purchase_order=name, purchase_order_line=name, asn=name, supplier=name, things=things),
        fact("s" + name, "logistics.delivery_proved", shipment=name, customer=name, things=things),
        fact("u" + name, "production.material_issued", order=name, things=things * 2, location=name),
        undo(name * 4, key="x" + name),
        undo(name * 4, key="y" + name),
        retract(("💧" + hostile) * 500 if len(hostile) == 1 else name),
        received("p" + name, "1", location="WH", purchase_order="PO"),
    ]
    for view in (view for view in named_views(()) if not view.by_arrival):  # those read the log, which is empty here: test_workflows
        with view_suite.folded(connection, view, recorded(facts), 3):
            pass
