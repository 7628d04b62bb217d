"""Genealogy and trace: what a recall must find, and what it must not drag in."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, permutations
from typing import Any

import psycopg
import pytest

from events import Fact
from events.vocabulary import Thing
from hub.app.answers import trace
from hub.log.follow import Follower
from hub.log.migrate import migrate
from hub.log.store import Log
from projections.equipment import Equipment
from projections.genealogy import Genealogy
from projections.stock import Stock
from tests.facts import as_role, fact, received, thing

Ask = Callable[..., dict[str, Any]]
_minute = count()


@pytest.fixture
def ask(fresh_database: str) -> Iterator[Ask]:
    """Append facts, follow, trace."""
    migrate(fresh_database)
    log = Log(as_role(fresh_database, "hub_door"))
    followers = [Follower(as_role(fresh_database, "hub_follow"), view) for view in (Genealogy(), Stock(), Equipment())]
    for follower in followers:
        follower.ensure()

    def run(facts: Sequence[Fact], text: str, direction: str = "both") -> dict[str, Any]:
        log.append(facts)
        for follower in followers:
            while follower.step():
                pass
        with psycopg.connect(as_role(fresh_database, "hub_read")) as connection, connection.cursor() as cursor:
            return trace(cursor, text, direction)

    yield run
    log.close()
    for follower in followers:
        follower.close()


def issued(order: str, *lots: str, at: float = 0, quantity: str = "1") -> Fact:
    things = [lot(name, quantity) for name in lots]
    return fact(f"I{next(_minute)}", "production.material_issued", {"order": order, "things": things, "location": "WH"}, at)


def produced(order: str, *lots: str, at: float = 0) -> Fact:
    n = next(_minute)
    things = [lot(name) for name in lots]
    return fact(f"P{n}", "production.output_produced", {"output": f"P{n}", "order": order, "things": things, "location": "WH"}, at)


def packed(unit: str, *contents: dict[str, Any], at: float = 0) -> Fact:
    return fact(
        f"K{next(_minute)}", "logistics.handling_unit_packed", {"container": {"handling_unit": unit}, "contents": list(contents)}, at
    )


def unpacked(unit: str, *contents: dict[str, Any], at: float = 0) -> Fact:
    return fact(
        f"U{next(_minute)}", "logistics.handling_unit_unpacked", {"container": {"handling_unit": unit}, "contents": list(contents)}, at
    )


def shipped(shipment: str, *things: dict[str, Any], at: float = 0) -> Fact:
    data = {"shipment": shipment, "things": list(things), "from_location": "WH", "customer": "C1"}
    return fact(f"S{next(_minute)}", "logistics.shipment_dispatched", data, at)


def ids(answer: dict[str, Any]) -> set[str]:
    return {node["id"] for node in answer["nodes"]}


def lot(name: str, quantity: str = "1") -> dict[str, Any]:
    item, _, own = name.partition("/")
    return thing(item, own, quantity)


def unit(name: str) -> dict[str, Any]:
    return {"handling_unit": name}


def test_all_consumed_lots_of_ten_generations(ask: Ask) -> None:
    facts = [received(f"R{n}", f"RAW{n}", "L", "5") for n in range(3)]
    facts += [issued("O0", "RAW0/L", "RAW1/L", "RAW2/L"), produced("O0", "P0/L")]
    for n in range(1, 10):
        facts += [issued(f"O{n}", f"P{n - 1}/L"), produced(f"O{n}", f"P{n}/L")]
    answer = ask(facts, "P9/L", "backward")
    assert {"RAW0/L", "RAW1/L", "RAW2/L"} | {f"P{n}/L" for n in range(10)} | {f"O{n}" for n in range(10)} == ids(answer)
    assert answer["complete"], answer["because"]
    assert ids(ask([], "RAW1/L", "forward")) == {"RAW1/L"} | {f"P{n}/L" for n in range(10)} | {f"O{n}" for n in range(10)}


def test_split_merge_and_rework_keep_their_parents_with_quantities(ask: Ask) -> None:
    def change(type_: str, name: str, inputs: list[str], outputs: list[str]) -> Fact:
        data = {name: f"{name}1", "inputs": [lot(x, "4") for x in inputs], "outputs": [lot(x, "2") for x in outputs],
                "location": "WH"}  # fmt: skip
        return fact(f"{name}1", type_, data)

    facts = [
        received("R1", "A", "L1", "4"),
        change("inventory.lot_split", "split", ["A/L1"], ["A/L1a", "A/L1b"]),
        change("production.lot_reworked", "rework", ["A/L1a"], ["A/L1a-R1"]),
        change("inventory.lot_merged", "merge", ["A/L1a-R1", "A/L1b"], ["A/M"]),
    ]
    answer = ask(facts, "A/M", "backward")
    assert ids(answer) == {"A/M", "A/L1a-R1", "A/L1b", "A/L1a", "A/L1"}
    assert {(e["from"], e["to"], e["kind"], e["quantity"]) for e in answer["edges"]} == {
        ("A/L1", "A/L1a", "split", "2"),
        ("A/L1", "A/L1b", "split", "2"),
        ("A/L1a", "A/L1a-R1", "reworked", "2"),
        ("A/L1a-R1", "A/M", "merged", "4"),
        ("A/L1b", "A/M", "merged", "4"),
    }


def test_what_shared_a_box_is_not_related(ask: Ask) -> None:
    facts = [received("R1", "A", "L1", "4"), received("R2", "B", "L1", "4")]
    facts += [packed("BOX", lot("A/L1"), lot("B/L1"), at=1), packed("PALLET", unit("BOX"), at=2), shipped("S1", unit("PALLET"), at=3)]
    answer = ask(facts, "A/L1", "forward")
    assert ids(answer) == {"A/L1", "BOX", "PALLET", "S1"}
    facts = [unpacked("BOX", lot("A/L1"), lot("B/L1"), at=4)]
    facts += [
        fact(
            "RET",
            "logistics.return_received",
            {"return_number": "RET", "customer": "C1", "shipment": "S1", "things": [lot("B/L1")], "location": "WH"},
            5,
        )
    ]
    facts += [issued("O1", "B/L1", at=6), produced("O1", "C/L1", at=7)]
    assert ids(ask(facts, "A/L1", "forward")) == {"A/L1", "BOX", "PALLET", "S1"}
    assert "A/L1" not in ids(ask([], "C/L1", "backward"))
    assert {"B/L1", "O1"} <= ids(ask([], "C/L1", "backward"))
    assert {"O1", "C/L1", "S1"} <= ids(ask([], "B/L1", "forward"))


def test_asking_for_a_shipment_or_a_box_gives_all_that_is_in_it(ask: Ask) -> None:
    facts = [received("R1", "A", "L1", "4"), received("R2", "B", "L1", "4")]
    facts += [packed("BOX", lot("A/L1"), lot("B/L1"), at=1), packed("PALLET", unit("BOX"), at=2), shipped("S1", unit("PALLET"), at=3)]
    assert ids(ask(facts, "S1", "backward")) == {"S1", "PALLET", "BOX", "A/L1", "B/L1"}
    assert ids(ask([], "BOX")) == {"S1", "PALLET", "BOX", "A/L1", "B/L1"}


def test_a_box_that_is_used_again_carries_only_what_is_in_it_then(ask: Ask) -> None:
    facts = [
        received("R1", "A", "L1", "4"),
        received("R2", "B", "L1", "4"),
        packed("BOX", lot("A/L1"), at=1),
        shipped("S1", unit("BOX"), at=2),
    ]
    facts += [unpacked("BOX", at=3), packed("BOX", lot("B/L1"), at=4), shipped("S2", unit("BOX"), at=5)]
    assert ids(ask(facts, "A/L1", "forward")) == {"A/L1", "BOX", "S1"}
    assert ids(ask([], "B/L1", "forward")) == {"B/L1", "BOX", "S2"}


def test_a_shipment_dated_midnight_before_it_was_packed_is_found(ask: Ask) -> None:
    facts = [received("R1", "A", "L1", "4"), packed("BOX", lot("A/L1"), at=600), shipped("S1", unit("BOX"), at=0)]
    assert "S1" in ids(ask(facts, "A/L1", "forward"))


def _retracted_case() -> list[Fact]:
    wrong = packed("BOX", lot("A/L1"), at=1)
    return [
        received("R1", "A", "L1", "4"),
        wrong,
        fact("undo", "inventory.fact_retracted", {"original": wrong.envelope.key}, 9),
        shipped("S1", unit("BOX"), at=2),
    ]


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5])
def test_a_retracted_packing_never_happened_whatever_came_first(ask: Ask, order: tuple[int, ...]) -> None:
    facts = _retracted_case()
    assert ids(ask([facts[n] for n in order], "A/L1", "forward")) == {"A/L1"}


def test_any_identifier_is_found_and_an_ambiguous_one_asks(ask: Ask) -> None:
    notice = {"asn": "4711", "partner": "ACME"}
    facts = [
        received("R1", "A", "00123", "4"),
        received("R2", "B", "1E5", "4"),
        fact("H", "procurement.asn_received", {**notice, "content": "x", "purchase_orders": ["PO9"]}),
        fact("L", "procurement.asn_line_received", {**notice, "line": "HL3", "thing": thing("A", "00123", "4"), "purchase_order": "PO9",
                                                    "handling_units": ["106141412345678908"]}),
    ]  # fmt: skip
    assert ask(facts, "00123")["root"] == {"kind": "lot", "id": "A/00123"}
    for text, root in {
        "A/00123": ("lot", "A/00123"),
        "1E5": ("lot", "B/1E5"),
        "4711": ("asn", "ACME/4711"),
        "ACME/4711": ("asn", "ACME/4711"),
        "PO9": ("purchase_order", "PO9"),
        "106141412345678908": ("handling_unit", "106141412345678908"),
        "(00)106141412345678908": ("handling_unit", "106141412345678908"),
        "00106141412345678908": ("handling_unit", "106141412345678908"),
    }.items():
        assert ask([], text)["root"] == {"kind": root[0], "id": root[1]}, text
    assert ask([], "123")["root"] is None
    answer = ask([received("R3", "C", "00123", "1")], "00123")
    assert answer == {"candidates": [{"kind": "lot", "id": "A/00123"}, {"kind": "lot", "id": "C/00123"}]}
    assert ask([], "lot:C/00123")["root"]["id"] == "C/00123"
    assert ids(ask([], "4711", "forward")) == {"ACME/4711", "A/00123", "106141412345678908"}
    assert {"PO9", "ACME/4711"} <= ids(ask([], "A/00123", "backward"))


def test_a_slash_in_an_item_makes_no_lot_of_another_item(ask: Ask) -> None:
    facts = [
        received("R1", "A/B", "C", "4"),
        received("R2", "A", "B/C", "2"),
        received("R3", "50%", "X", "1"),
        received("R4", "D/E", "F", "1"),
    ]
    facts += [fact("I", "production.material_issued", {"order": "O1", "things": [thing("A", "B/C", "1")], "location": "WH"}, 1)]
    both = [{"kind": "lot", "id": "A%2FB/C"}, {"kind": "lot", "id": "A/B/C"}]
    assert ask(facts, "lot:A/B/C") == {"candidates": both}
    (slashed,) = ask([], "A%2FB/C")["nodes"]
    assert (slashed["item"], slashed["lot"]) == ("A/B", "C")
    assert [(p["account"], p["quantity"]) for p in slashed["now"]] == [("location/WH", "4")]
    assert ids(ask([], "B/C", "forward")) == {"A/B/C", "O1"}
    for text, id_ in {"D/E/F": "D%2FE/F", "lot:D/E/F": "D%2FE/F", "50%/X": "50%25/X"}.items():
        assert ask([], text)["root"] == {"kind": "lot", "id": id_}
    assert Thing(item="04012345123456", lot="1/2%").node() == ("lot", "04012345123456/1/2%")
    assert Thing(item="04012345123456", serial="1/2%").node() == ("serial", "04012345123456/1/2%")


def test_a_serial_is_found_where_it_is_and_so_is_its_lot(ask: Ask) -> None:
    things = [{"item": "A", "lot": "L", "serial": "S"}, {"serial": "https://example.com/s/1"}]
    facts = [fact("R", "procurement.goods_received", {"receipt": "R", "things": things, "location": "WH"})]
    for text in ("A/S", "https://example.com/s/1", "lot:A/L"):
        (node,) = ask(facts, text, "forward")["nodes"]
        assert [(p["account"], p["quantity"]) for p in node["now"]] == [("location/WH", "1")], text
        facts = []


def test_consumption_of_an_item_that_comes_in_lots_without_a_lot_is_a_gap(ask: Ask) -> None:
    def used(order: str, item: str) -> list[Fact]:
        data = {"order": order, "things": [thing(item)], "location": "WH"}
        return [fact(f"I{order}", "production.material_issued", data), produced(order, f"P{order}/L")]

    answer = ask([received("R", "A", "L", "4"), *used("1", "A"), *used("2", "AA"), *used("3", "A/L")], "P1/L")
    assert answer["because"] == ["unknown_parent"]
    assert ask([], "P2/L")["complete"]
    assert ask([], "P3/L")["complete"]


def test_an_answer_says_why_it_is_not_complete(ask: Ask) -> None:
    answer = ask([issued("O1", "X/unknown"), produced("O1", "Y/L")], "Y/L")
    assert (answer["complete"], answer["because"]) == (False, ["unknown_parent"])
    assert ask([received("R", "X", "unknown", "1")], "Y/L")["complete"] is True


def test_where_it_is_now(ask: Ask) -> None:
    answer = ask([received("R1", "A", "L1", "4"), issued("O1", "A/L1", quantity="1.5")], "A/L1")
    (node,) = (n for n in answer["nodes"] if n["id"] == "A/L1")
    assert {(p["account"], p["quantity"]) for p in node["now"]} == {("location/WH", "2.5"), ("wip/O1", "1.5")}


def _retracted(original: Fact) -> Fact:
    return fact(f"X{next(_minute)}", "inventory.fact_retracted", {"original": original.envelope.key})


def _redriven(held: Fact) -> Fact:
    data = {"raw_sha256": "a" * 64, "quarantined_key": held.envelope.key, "outcome": "accepted", "facts": 1}
    return fact(f"D{next(_minute)}", "integration.quarantine_redriven", data)


def _node(answer: dict[str, Any], name: str) -> dict[str, Any]:
    return next(node for node in answer["nodes"] if node["id"] == name)


def test_what_was_undone_says_nothing_of_a_node(ask: Ask) -> None:
    wrong = fact("W1", "production.material_issued", {"order": "O1", "things": [lot("A/A")], "location": "WH", "equipment": "PRESS-1"})
    seen = _node(ask([wrong], "A"), "A/A")
    assert (seen["used"], seen["equipment"]) == (True, ["PRESS-1"])
    alone = ask([_retracted(wrong)], "A")
    assert (alone["edges"], alone["because"]) == ([], [])
    assert _node(alone, "A/A").keys() <= {"kind", "id", "item", "lot", "now"}
    again = ask([received("R1", "A", "A", "1"), received("R2", "A", "A", "1", 5)], "A")
    assert (_node(again, "A/A")["used"], "equipment" in _node(again, "A/A")) == (False, False)


def test_a_held_line_of_a_document_of_a_node_leaves_the_answer_incomplete(ask: Ask) -> None:
    there = received("R1", "A", "A", "1")
    there = replace(there, envelope=replace(there.envelope, raw="a" * 64))
    held = fact("held:1", "integration.delivery_quarantined", {"raw_sha256": "a" * 64, "part": 1, "format": "x12-856", "reason": "no SN1"})
    other = fact("held:2", "integration.delivery_quarantined", {"raw_sha256": "b" * 64, "part": 1, "format": "x12-856", "reason": "no SN1"})
    assert ask([there, other], "A")["because"] == []
    assert ask([held], "A")["because"] == ["held_delivery"]
    assert ask([_redriven(held)], "A")["complete"]


def test_a_fact_of_a_node_that_refused_another_leaves_the_answer_incomplete(ask: Ask) -> None:
    data = {
        "raw_sha256": "a" * 64, "part": 1, "format": "canonical-json", "refused_source": "erp:main", "refused_key": "R1",
        "refused_type": "procurement.goods_received", "refused_data": {"receipt": "R1"}, "stored_digest": "0", "refused_digest": "1", "reason": "taken",
    }  # fmt: skip
    conflict = fact("held:1", "integration.content_conflicted", data)
    assert ask([received("R1", "A", "A", "1"), received("R2", "B", "B", "1")], "A")["because"] == []
    assert ask([conflict], "A")["because"] == ["conflict"]
    assert ask([], "lot:B/B")["complete"]
    assert ask([_redriven(conflict)], "A")["complete"]
