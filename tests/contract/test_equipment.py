"""From readings at an edge to what people are told of equipment: through rules, document, mapping, log and view."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import psycopg
import pytest

from adapters.edge.gaps import Sequences, told
from adapters.edge.plant import ContextRule, CountRule, DowntimeRule, LimitRule, Plant, SequenceRule, StateRule, Tags
from adapters.edge.rules import Rules
from adapters.edge_document import MAPPING
from events import Fact
from hub.app.answers import trace
from hub.app.wiring import named_views
from hub.intake.edge_document import EdgeDocument
from hub.intake.mapping import Context, Line
from hub.intake.readings import Observed, Reading, Value
from hub.log.follow import Follower
from hub.log.migrate import migrate
from hub.log.store import Accepted, Duplicate, Log
from projections import equipment_answers as answers
from tests.facts import as_role, fact, thing

START = datetime(2026, 3, 2, 6, tzinfo=UTC)
PRESS = "ulm/press/line1/p4"
DOWN = DowntimeRule(name="stands", after_s=60)
RULES = (
    StateRule(name="state", states={"0": "Stopped", "1": "Execute"}, downtime=DOWN),
    CountRule(name="good", counter="good"),
    CountRule(name="scrap", counter="scrap", rejected=True),
    LimitRule(name="temperature", high=Decimal(80), unit="CEL"),
    ContextRule(name="order", field="order"),
    ContextRule(name="lot", field="lot"),
)
PLANT = Plant(tags=tuple(Tags(tags=rule.name, equipment=PRESS, rules=(rule,)) for rule in RULES))


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


class Hub:
    """A log, the views of it, and an edge that sends to it."""

    def __init__(self, owner_url: str) -> None:
        migrate(owner_url)
        self._url = owner_url
        self.log = Log(as_role(owner_url, "hub_door"))
        self._followers = [Follower(as_role(owner_url, "hub_follow"), view) for view in named_views(["equipment", "genealogy", "stock"])]
        for follower in self._followers:
            follower.ensure()
        self._rules, self._sequences, self.state, self._n = Rules(PLANT, "edge1"), Sequences([SequenceRule()]), dict[str, bytes](), 0

    def close(self) -> None:
        self.log.close()
        for follower in self._followers:
            follower.close()

    def observe(self, *said: tuple[float, str, Value, int | None]) -> list[Fact]:
        """Readings (second, tag, value, number) as the facts that the hub makes of the edge's document."""
        readings = [Reading(tag, value, at(second), sequence=number) for second, tag, value, number in said]
        missed = self._sequences.fold(Observed("plc", at(said[-1][0]), readings, numbered=True), self.state)
        folded = self._rules.fold(missed.observed, self.state)
        self.state |= missed.state | folded.state
        facts = [*told("edge1", missed.gaps, missed.filled, at(said[-1][0]), "sequence/1"), *folded.facts]
        self._n += 1
        document = EdgeDocument("edge1", "20260302T060000Z-00", "plc", self._n, "plc", at(said[-1][0]), readings, facts)
        (part,) = MAPPING.read(document.json(), Context("00", {"edge": "edge1"}))
        assert all(isinstance(line, Line) for line in part.lines), part.lines
        return [fact for line in part.lines if isinstance(line, Line) for fact in line.facts]

    def take(self, facts: Sequence[Fact]) -> None:
        assert all(isinstance(result, Accepted) for result in self.log.append(facts))
        assert all(isinstance(result, Duplicate) for result in self.log.append(facts))
        for follower in self._followers:
            while follower.step(3):
                pass

    def ask(self, question: Any, *words: Any) -> Any:
        with psycopg.connect(as_role(self._url, "hub_read")) as connection, connection.cursor() as cursor:
            return question(cursor, *words)


@pytest.fixture
def hub(fresh_database: str) -> Iterator[Hub]:
    found = Hub(fresh_database)
    yield found
    found.close()


def day(hub: Hub) -> list[Fact]:
    """A shift of the press: an order, a stop too long, a value too high, readings that are lost and one that comes late."""
    return [
        *hub.observe((0, "order", "W1", 1), (0, "lot", "00123", 2), (0, "good", 100, 3), (0, "scrap", 7, 4), (1, "state", 1, 5)),
        *hub.observe((50, "good", 130, 6), (51, "temperature", 79, 7), (60, "temperature", 85.5, 8), (61, "temperature", 99, 12)),
        *hub.observe((70, "scrap", 8, 13), (80, "temperature", 60, 14), (100, "state", 0, 15)),
        *hub.observe((62, "temperature", 97, 10), (170, "state", 0, 16), (300, "state", 1, 17)),
        *hub.observe((400, "order", "W2", 18), (401, "good", 140, 19), (402, "good", 2, 20), (500, "state", 0, 21)),
    ]


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "turned"])
def test_what_a_plant_says_is_told_of_its_equipment(hub: Hub, turned: bool) -> None:
    facts = day(hub)
    hub.take(facts[::-1] if turned else facts)
    (machine,) = hub.ask(answers.machines)
    assert machine.pop("position") > 0
    assert machine == {
        "equipment": PRESS, "state": "Stopped", "since": "2026-03-02T06:08:20Z", "cause": "state", "order": "W2", "item": None, "lot": "00123",
        "down_since": None, "beyond_limits": 0,
        "counts": [
            {"counter": "good", "rejected": False, "unit": "EA", "counted": "40", "resets": 1, "total": "2"},
            {"counter": "scrap", "rejected": True, "unit": "EA", "counted": "1", "resets": 0, "total": "8"},
        ],
    }  # fmt: skip
    (down,) = hub.ask(answers.downtimes, 10)
    assert (down["started_at"], down["ended_at"], down["order"], down["lot"]) == (
        "2026-03-02T06:01:40Z", "2026-03-02T06:05:00Z", "W1", "00123",
    )  # fmt: skip
    (excursion,) = hub.ask(answers.excursions, 10)
    assert (excursion["value"], excursion["worst"], excursion["limit"], excursion["order"]) == ("85.5", "99", "80", "W1")
    gaps = hub.ask(answers.gaps)
    assert [(g["edge"], g["producer"], g["kind"], g["first"], g["last"]) for g in gaps] == [
        ("edge1", "plc", "sequence", 9, 9), ("edge1", "plc", "sequence", 11, 11),
    ]  # fmt: skip
    assert {(g["since"], g["until"]) for g in gaps} == {("2026-03-02T06:01:00Z", "2026-03-02T06:01:01Z")}
    assert [(c["open"], c["filled"]) for c in hub.ask(answers.gap_counts)] == [(2, 1)]
    (lane,) = hub.ask(answers.lanes)
    assert (lane["edge"], lane["lane"], lane["number"], lane["batches"], lane["readings"], lane["all_readings"]) == (
        "edge1", "plc", 5, 5, 4, 19,
    )  # fmt: skip
    assert hub.ask(answers.skews, 10) == []


def test_a_trace_tells_what_machines_did_with_its_orders_and_lots(hub: Hub) -> None:
    made = {"output": "P1", "order": "W1", "things": [thing("A", "00123", "30")], "location": "WH"}
    other = {"output": "P2", "order": "W9", "things": [thing("B", "00124")], "location": "WH"}
    hub.take([*day(hub), fact("P1", "production.output_produced", made), fact("P2", "production.output_produced", other)])
    found = hub.ask(trace, "A/00123", "both")
    assert {node["id"] for node in found["nodes"]} == {"A/00123", "W1"}
    order = next(row for row in found["equipment"] if row["kind"] == "order")
    lot = next(row for row in found["equipment"] if row["kind"] == "lot")
    assert (order["id"], lot["id"], order["equipment"], lot["equipment"]) == ("W1", "A/00123", PRESS, PRESS)
    assert [(s["state"], s["times"], s["seconds"]) for s in order["states"]] == [("Execute", 2, "299"), ("Stopped", 1, "200")]
    assert [(s["state"], s["times"], s["seconds"]) for s in lot["states"]] == [("Execute", 2, "299"), ("Stopped", 2, "200")]
    assert [(c["counter"], c["quantity"]) for c in order["counts"]] == [("good", "30"), ("scrap", "1")]
    assert [(c["counter"], c["quantity"]) for c in lot["counts"]] == [("good", "40"), ("scrap", "1")]
    assert [(d["times"], d["seconds"], d["reason"]) for d in order["downtimes"]] == [(1, "200", None)]
    assert [(x["tag"], x["times"], x["worst"], x["unit"]) for x in order["excursions"]] == [("temperature", 1, "99", "CEL")]
    assert hub.ask(trace, "B/00124", "both")["equipment"] == []
    alone = hub.ask(trace, "order:W2", "both")  # only a machine ever named it
    assert [(row["kind"], row["id"]) for row in alone["equipment"]] == [("order", "W2")]


def test_a_lot_of_another_item_is_none_of_it(hub: Hub) -> None:
    state = {"equipment": PRESS, "state": "Execute", "lot": "L1"}
    hub.take(
        [
            fact("P1", "production.output_produced", {"output": "P1", "order": "W1", "things": [thing("A", "L1")], "location": "WH"}),
            fact("e1", "equipment.state_changed", {**state, "item": "B"}),
            fact("e2", "equipment.state_changed", {**state, "item": "A", "state": "Held"}, 1),
            fact("e3", "equipment.state_changed", {**state, "state": "Idle"}, 2),
        ]
    )
    (row,) = hub.ask(trace, "A/L1", "both")["equipment"]
    assert [s["state"] for s in row["states"]] == ["Held", "Idle"]


def test_a_gap_that_is_told_again_with_its_end_is_shown_once_with_it(hub: Hub) -> None:
    said = {"gap": "g", "edge": "e", "producer": "p", "kind": "disconnected", "reason": "away", "since": "2026-03-02T06:00:00Z"}
    hub.take(
        [
            fact("1", "integration.gap_detected", said, 1),
            fact("2", "integration.gap_detected", {**said, "until": "2026-03-02T06:05:00Z"}, 2),
        ]
    )
    assert [(g["since"], g["until"]) for g in hub.ask(answers.gaps)] == [("2026-03-02T06:00:00Z", "2026-03-02T06:05:00Z")]


def test_gaps_close_whichever_fact_comes_first(hub: Hub) -> None:
    said = {"gap": "g", "edge": "e", "producer": "p"}
    facts = [
        ("integration.gap_detected", {**said, "kind": "silent", "reason": "quiet"}, 1),
        ("integration.gap_filled", {**said, "how": "late"}, 3),
        ("integration.gap_filled", {**said, "how": "again"}, 2),
        ("integration.gap_detected", {**said, "edge": "other", "kind": "silent", "reason": "quiet"}, 1),
    ]
    for n, order in enumerate(permutations(facts)):
        hub.take([fact(f"{n}/{k}", type_, {**data, "gap": f"g{n}"}, minute) for k, (type_, data, minute) in enumerate(order)])
    assert [(g["edge"], g["gap"]) for g in hub.ask(answers.gaps)] == [("other", f"g{n}") for n in sorted(range(24), key=str)]
    assert hub.ask(
        lambda c: c.execute("select distinct how, ended_at - started_at from view_equipment.gap where edge = 'e'").fetchall()
    ) == [("again", timedelta(minutes=1))]
