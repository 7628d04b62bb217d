"""What no view may do as names or histories grow: stop at the longest names there may be, or read a history again for each fact."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from events.base import Envelope, Fact, Recorded, event_types, json_schema, validated
from hub.app import queries
from hub.app.answers import trace
from hub.app.wiring import named_views, views
from hub.log.follow import Cursor
from hub.log.migrate import migrate
from hub.log.store import Accepted, Log
from projections.base import TableView
from tests.conftest import new_database
from tests.contract import view_suite
from tests.contract.replay.replay_suite import follow
from tests.facts import START, as_role, fact, received, thing
from tests.histories.strategy import recorded

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def connection(pg_owner_url: str) -> Iterator[Connection]:
    with new_database(pg_owner_url) as url, view_suite.prepared(url) as connection:
        yield connection


def longest(field: str, length: int) -> str:
    """A text of so many characters of four bytes that nothing compresses, the same each time for a field: the facts speak of the same things."""
    draw = random.Random(field)
    return "".join(chr(draw.randint(0x20000, 0x2A6DF)) for _ in range(length))


def filled(field: str, schema: dict[str, Any], defs: dict[str, Any]) -> Any:
    """A value of a JSON schema with every field given and every text as long as it may be."""
    schema = defs[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if of := schema.get("anyOf"):
        return filled(field, of[0], defs)
    if of := schema.get("enum"):
        return of[0]
    match schema.get("type"):
        case "string" if "pattern" in schema:
            return "EA" if "A-Z" in schema["pattern"] else "1"
        case "string" if schema.get("format") == "date-time":
            return "2026-01-05T06:00:00Z"
        case "string":
            return longest(field, schema["maxLength"])
        case "integer":
            return 1
        case "boolean":
            return True
        case "array" if "prefixItems" in schema:
            return [filled(f"{field}{n}", item, defs) for n, item in enumerate(schema["prefixItems"])]
        case "array":
            return [filled(field, schema["items"], defs)]
        case "object" if "properties" in schema:
            return {name: filled(name, value, defs) for name, value in schema["properties"].items()}
        case "object":
            return {longest(field, 200): longest(field, 4000)}
    raise AssertionError(f"{field}: {schema}")


def longest_facts() -> list[Fact]:
    """A fact of every type, its keys and texts at their longest, and reversals of them."""
    facts = []
    for cls in event_types():
        schema = json_schema(cls)
        data = filled("", schema, schema.get("$defs", {}))
        for n in range(2):  # the second time only what is required: a lot without a serial, an item without a handling unit
            key = longest(f"{cls.type} {n}", 600)
            envelope = Envelope(source=longest("source", 200), key=key, occurred_at=START, effective_at=START)
            facts.append(Fact(envelope, validated(cls.type, cls.version, data)))
            data = _without_serials(data)
    keys = [f.envelope.key for f in facts]
    for n, key in enumerate(keys[::3]):
        undo = {"reversal": longest(f"reversal {n}", 200), "original": key}
        envelope = Envelope(source=longest("source", 200), key=longest(f"undo {n}", 600), occurred_at=START, effective_at=START)
        facts.append(Fact(envelope, validated("inventory.movement_reversed", 1, undo)))
    return facts


def _without_serials(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_serials(v) for k, v in value.items() if k not in ("serial", "handling_unit") or "item" not in value}
    return [_without_serials(v) for v in value] if isinstance(value, list) else value


# a process reads its facts in the log, which is not there: test_workflows has its own
@pytest.mark.parametrize("view", [pytest.param(view, id=view.name) for view in views() if not view.by_arrival])
def test_the_longest_names_stop_no_view(connection: Connection, view: TableView) -> None:
    facts = longest_facts()
    for order in (facts, facts[::-1]):
        with view_suite.folded(connection, view, recorded(order), 7):
            pass


def test_the_longest_names_are_found(fresh_database: str) -> None:
    migrate(fresh_database)
    item, lot = longest("item", 200), longest("lot", 200)
    issue = {"order": "O", "things": [thing(item, lot, "1")], "location": longest("location", 200)}
    facts = [
        received("R", item, lot, "4", location=longest("location", 200)),
        fact("I", "production.material_issued", issue, 1),
        fact("P", "production.output_produced", {"output": "P", "order": "O", "things": [thing("B", "M")], "location": "WH"}, 2),
    ]
    with Log(as_role(fresh_database, "hub_door")) as log:
        assert all(isinstance(result, Accepted) for result in log.append(facts))
    follow(fresh_database)
    with psycopg.connect(as_role(fresh_database, "hub_read")) as connection, connection.cursor() as cursor:
        assert {(row["item"], row["lot"], row["quantity"]) for row in queries.stock(cursor)} == {(item, lot, "3"), ("B", "M", "1")}
        answer = trace(cursor, f"{item}/{lot}", "forward")
        assert answer["complete"], answer["because"]
        root = next(n for n in answer["nodes"] if n["id"] == answer["root"]["id"])
        assert (root["item"], root["lot"], root["origin_known"], root["used"]) == (item, lot, True, True)
        assert {place["quantity"] for place in root["now"]} == {"3", "1"}
        assert "B/M" in {n["id"] for n in answer["nodes"]}
        for words in (lot, f"lot:{item}/{lot}", answer["root"]["id"], f"lot:{answer['root']['id']}"):
            assert trace(cursor, words, "forward")["root"] == answer["root"], words[:20]


def _hot(name: str, n: int) -> Fact:
    """The n-th fact about the one balance, order, shipment or item that everything is about."""
    some = {"things": [thing("A", "L", "2")]}
    match name:
        case "stock":
            issue = fact(f"k{n}", "production.material_issued", {**some, "order": "W", "location": "WH"}, n)
            return received(f"k{n}", "A", "L", "2", n) if n % 2 else issue
        case "stock below zero":
            return fact(f"k{n}", "production.material_issued", {**some, "order": f"W{n}", "location": "WH"}, n)
        case "receipts" | "receipts, over" if n == 0:
            ordered = {"line": "10", "item": "A", "quantity": {"value": "9" if "over" in name else "99999", "unit": "EA"}}
            return fact("k0", "procurement.purchase_order_issued", {"purchase_order": "PO", "supplier": "ACME", "lines": [ordered]})
        case "receipts" | "receipts, over" | "receipts, no order":
            return received(f"k{n}", "A", f"L{n}", "2", n, purchase_order="PO")
        case "shipments" if n % 2:
            proof = {"shipment": "S", "customer": "C", "things": [thing("A", f"L{n // 2}", "1")]}
            return fact(f"k{n}", "logistics.delivery_proved", proof, n)
        case "shipments":
            data = {"shipment": "S", "line": str(n), "things": [thing("A", f"L{n // 2}", "2")], "from_location": "WH"}
            return fact(f"k{n}", "logistics.shipment_dispatched", data, n)
        case "shipments, milestones":
            return fact(f"k{n}", "logistics.milestone_reported", {"shipment": "S", "code": "X1"}, n)
        case "equipment, states":
            return fact(f"k{n}", "equipment.state_changed", {"equipment": "E", "state": f"S{n % 2}", "order": "W"}, n)
        case "equipment, counts":
            counted = {"equipment": "E", "counter": "C", "quantity": {"value": "1", "unit": "EA"}, "total": str(n), "order": "W"}
            return fact(f"k{n}", "equipment.count_reported", counted, n)
        case "equipment, gaps":
            said = {"gap": "g" if n % 2 else f"g{n}", "edge": "e", "producer": "p"}
            more = {"kind": "silent", "reason": "quiet"} if n % 2 == 0 else {"how": "late"}
            return fact(f"k{n}", f"integration.gap_{'filled' if n % 2 else 'detected'}", {**said, **more}, n)
        case "equipment, readings":
            batch = {"edge": "e", "epoch": "1", "lane": "l", "number": n, "producer": "p", "readings": 1}
            times = dict.fromkeys(("first_at", "last_at"), "2026-01-05T06:00:00Z")
            return fact(f"k{n}", "equipment.readings_recorded", {**batch, **times}, n)
        case "people":
            roles = ["buyer", "quality"][: 1 + n % 2]
            return fact(f"k{n}", "security.access_granted", {"person": "p", "name": "ann", "change": n, "roles": roles, "held": roles}, n)
        case "references":
            return fact(f"k{n}", "masterdata.item_defined", {"item": "A", "base_unit": "EA", "description": str(n)}, n)
        case _:
            return received(f"k{n}", "A", "L", "2", n)


def _rows_read(cursor: Cursor) -> int:
    """Rows that this transaction has read of all tables so far."""
    row = cursor.execute("select sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_user_tables").fetchone()
    return int(row[0]) if row else 0


@pytest.mark.parametrize("late", [0, 20], ids=["in order", "20 late"])
@pytest.mark.parametrize(
    "name",
    [
        "stock", "stock below zero", "receipts", "receipts, over", "receipts, no order", "shipments", "shipments, milestones", "references",
        "genealogy", "timeline", "equipment, states", "equipment, counts", "equipment, gaps", "equipment, readings", "people",
    ],
)  # fmt: skip
def test_a_fact_does_not_read_its_history_again(connection: Connection, name: str, late: int) -> None:
    """One more fact about what 3,000 facts are about reads what it changes, in order or as far back as it is late."""
    (view,) = named_views([name.partition(",")[0].partition(" ")[0]])
    history: list[Recorded] = recorded([*(_hot(name, n) for n in range(3000)), *(_hot(name, n) for n in range(3000, 3010))])
    if late:
        history[-1] = _moved(history[-1], -late)
    with view_suite.folded(connection, view, history[:3000]) as cursor:
        cursor.execute("analyze")
        for one in history[3000:-1]:
            view.fold(cursor, [one])
        before = _rows_read(cursor)
        view.fold(cursor, history[-1:])
        assert _rows_read(cursor) - before < 200


def _moved(r: Recorded, minutes: int) -> Recorded:
    """The same fact, effective some minutes later."""
    envelope = replace(r.envelope, effective_at=r.envelope.effective_at + timedelta(minutes=minutes))
    return replace(r, fact=replace(r.fact, envelope=envelope))
