"""From readings to facts: the same facts wherever batches are cut and the edge is killed, none twice, no count below nothing, late ones in their place."""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from adapters.edge import rules as edge_rules
from adapters.edge import tracks
from adapters.edge.local_time import moment
from adapters.edge.plant import ClockRule, ContextRule, CountRule, DowntimeRule, LimitRule, Plant, StateRule, Tags
from adapters.edge.rules import Folded, Rules
from adapters.edge.spool import Entry, Spool
from events import canonical
from events.base import validated
from events.equipment import (
    CounterReset,
    CountReported,
    DowntimeEnded,
    DowntimeStarted,
    LimitExceeded,
    LimitKept,
    StateChanged,
)
from events.errors import Corrupt
from events.integration import ClockSkewDetected
from hub.intake.edge_document import EdgeDocument, EdgeFact
from hub.intake.readings import Observed, Quality, Reading, Value

START = datetime(2026, 3, 2, 6, tzinfo=UTC)
PRESS = "ulm/press/line1/press4"
DOWN = DowntimeRule(name="stands", after_s=60, planned=("Held",))
STATE = StateRule(
    name="state", version=3, states={"0": "Stopped", "1": "Execute", "2": "Held", "true": "Execute"}, unknown_when_bad=True, downtime=DOWN
)
COUNT = CountRule(name="good", counter="good")
SCRAP = CountRule(name="scrap", counter="scrap", rejected=True)
LIMIT = LimitRule(name="temperature", high=Decimal(80), low=Decimal(10), dead_band=Decimal(5), unit="CEL")
ORDER, LOT = ContextRule(name="order", field="order", none=("", "-")), ContextRule(name="lot", field="lot")
REASON = ContextRule(name="reason", field="reason")
NEVER = ClockRule(bound_s=1e9)


def plant(*rules: Any, clock: ClockRule = NEVER, **more: Any) -> Plant:
    """A press whose tags are named as their rules."""
    given = rules or (STATE, COUNT, SCRAP, LIMIT, ORDER, LOT, REASON)
    tags = [Tags(tags=f"line1/{{unit}}/{rule.name}", equipment="ulm/press/line1/{unit}", rules=(rule,)) for rule in given]
    return Plant(tags=tuple(tags), clock=clock, **more)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def reading(tag: str, value: Value, second: float | None, quality: Quality = "good", **more: Any) -> Reading:
    return Reading(f"line1/press4/{tag}", value, None if second is None else at(second), quality, **more)


def late(tag: str, value: Value, second: float) -> Reading:
    return reading(tag, value, second, historical=True)


class Edge:
    """Rules with what they are to remember."""

    def __init__(self, found: Plant | None = None) -> None:
        self.rules, self.state, self.ignored = Rules(found or plant(), "edge1"), dict[str, bytes](), dict[str, int]()

    def fold(self, readings: Iterable[Reading], second: float | None = None, producer: str = "plc") -> list[EdgeFact]:
        """What readings lead to; received at the latest of their times."""
        given = list(readings)
        received = max((r.at for r in given if r.at and r.at.tzinfo), default=START) if second is None else at(second)
        return self._kept(self.rules.fold(Observed(producer, received, given), self.state))

    def due(self, second: float) -> list[EdgeFact]:
        return [fact for folded in self.rules.due(at(second), self.state).values() for fact in self._kept(folded)]

    def _kept(self, folded: Folded) -> list[EdgeFact]:
        self.state |= folded.state
        for why, n in folded.ignored.items():
            self.ignored[why] = self.ignored.get(why, 0) + n
        for fact in folded.facts:  # the hub takes it, and as it was meant
            assert validated(fact.event.type, fact.event.version, fact.event.data()) == fact.event
        return folded.facts


def events(facts: Sequence[EdgeFact], *kinds: type[Any]) -> list[Any]:
    return [fact.event for fact in facts if not kinds or isinstance(fact.event, kinds)]


def second_of(time: datetime | None) -> Any:
    return None if time is None else (time - START).total_seconds()


# -- laws

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "state": st.sampled_from([0, 1, 2, True, 7]),
    "good": st.integers(-5, 40),
    "scrap": st.floats(-5, 40),
    "temperature": st.sampled_from([5, 12.5, 20, 77, 81, 95.25]),
    "order": st.sampled_from(["W1", "W2", "-"]),
    "lot": st.sampled_from(["00123", "1E5"]),
}
live = st.sampled_from(sorted(VALUES)).flatmap(
    lambda tag: st.builds(
        reading, st.just(tag), VALUES[tag], st.floats(0, 500), st.sampled_from(["good", "good", "good", "uncertain", "bad"])
    )
)
read_back = live.map(lambda r: replace(r, historical=True))


def equipment(state: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: kept for name, kept in state.items() if name.startswith("rules/equipment/")}


def cut(readings: Sequence[Reading], sizes: Sequence[int]) -> list[Sequence[Reading]]:
    found, rest = [], list(readings)
    for size in sizes:
        found.append(rest[:size])
        rest = rest[size:]
    return [part for part in (*found, rest) if part]


@given(readings=st.lists(st.one_of(live, live, read_back), max_size=40), sizes=st.lists(st.integers(1, 6), max_size=12))
def test_batches_make_no_difference(readings: list[Reading], sizes: list[int]) -> None:
    whole, parts = Edge(), Edge()
    expected = whole.fold(readings, 500)
    assert [fact for part in cut(readings, sizes) for fact in parts.fold(part, 500)] == expected
    assert equipment(parts.state) == equipment(whole.state)
    assert parts.ignored == whole.ignored


@given(readings=st.lists(st.one_of(live, live, read_back), max_size=40), again=st.lists(st.integers(0, 39), max_size=40))
def test_no_reading_makes_a_fact_twice(readings: list[Reading], again: list[int]) -> None:
    """Whatever was folded comes again, in another order."""
    edge = Edge(plant(STATE, COUNT, SCRAP, ORDER, LOT))
    edge.fold(readings, 500)
    before = equipment(edge.state)
    assert edge.fold([readings[n] for n in again if n < len(readings) and not readings[n].historical], 500) == []
    assert equipment(edge.state) == before


@given(totals=st.lists(st.one_of(st.integers(-100, 300), st.floats(-10, 300)), max_size=60), rolls_at=st.sampled_from([None, "256"]))
def test_counts_are_never_negative_and_add_up(totals: list[float], rolls_at: str | None) -> None:
    """What was reported, and what resets say is in no count, is how far the totaliser went."""
    rule = replace(COUNT, rolls_at=Decimal(rolls_at) if rolls_at else None)
    edge = Edge(plant(rule))
    facts = [fact for n, total in enumerate(totals) for fact in edge.fold([reading("good", total, n)])]
    assert all(event.quantity.value > 0 for event in events(facts, CountReported))
    made = sum((event.quantity.value for event in events(facts, CountReported)), Decimal(0))
    lost = sum((Decimal(256) if event.rolled_over else event.before - event.after for event in events(facts, CounterReset)), Decimal(0))
    exact = [found for total in totals if (found := _exact(total)) is not None]
    assert made - lost == (exact[-1] - exact[0] if exact else 0)
    assert len(events(facts, CounterReset)) == sum(b < a for a, b in pairwise(exact))


def _exact(value: float) -> Decimal | None:
    found = Decimal(repr(value))
    return found.quantize(Decimal("1e-12")) if found.is_finite() else None


@given(values=st.lists(st.sampled_from([70, 76, 79, 81, 90, 12, 9, 14, 16]), max_size=40))
def test_excursions_alternate_and_hold_through_the_dead_band(values: list[int]) -> None:
    edge = Edge(plant(LIMIT))
    open_: tuple[datetime, bool, list[int]] | None = None
    for n, value in enumerate(values):
        for event in events(edge.fold([reading("temperature", value, n)])):
            if isinstance(event, LimitExceeded):
                assert open_ is None
                open_ = (at(n), event.above, [])
            else:
                assert open_ is not None
                assert event.exceeded_at == open_[0]
                assert event.worst == (max(open_[2]) if open_[1] else min(open_[2]))
                assert value <= 75 if open_[1] else value >= 15
                open_ = None
        if open_:
            open_[2].append(value)
            assert value > 75 if open_[1] else value < 15
        else:
            assert 10 <= value <= 80


@given(readings=st.lists(live, max_size=30), later=st.lists(read_back, max_size=15))
def test_late_readings_leave_the_present_as_it_is(readings: list[Reading], later: list[Reading]) -> None:
    edge = Edge(plant(STATE, LIMIT, COUNT, ORDER))
    anchor = [reading(tag, 1, 600) for tag in ("state", "temperature", "good")]
    edge.fold([*readings, *anchor], 600)
    assert not events(edge.fold([r for r in later if not r.tag.endswith("/order")], 600), CountReported, DowntimeStarted, DowntimeEnded)
    facts = edge.fold([reading("state", 0, 601), reading("good", 3, 601), reading("temperature", 2, 601)], 601)
    assert [(e.state, e.previous) for e in events(facts, StateChanged)] == [("Stopped", "Execute")]
    assert [e.quantity.value for e in events(facts, CountReported)] == [2]
    assert not events(facts, LimitExceeded, LimitKept)


# -- states and downtime


def test_states_by_a_table_name_what_was_in_process() -> None:
    edge = Edge()
    facts = edge.fold([reading("order", 4711, 0), reading("lot", "00123", 0), reading("state", 1, 1), reading("state", True, 2)])
    facts += edge.fold([reading("state", 9, 3), reading("state", 0.0, 4)])
    assert [(e.state, e.previous, e.order, e.lot, e.cause) for e in events(facts, StateChanged)] == [
        ("Execute", None, "4711", "00123", "line1/press4/state"),
        ("Stopped", "Execute", "4711", "00123", "line1/press4/state"),
    ]
    assert {(e.equipment) for e in events(facts)} == {PRESS}
    assert {f.rule for f in facts} == {"state/3"}
    assert edge.ignored == {"unmapped": 1}


def test_a_state_counts_from_when_it_began_once_it_has_held() -> None:
    rule = replace(STATE, settle_s=10, downtime=None)
    edge = Edge(plant(rule))
    assert edge.fold([reading("state", 1, 0)]) == []
    facts = edge.fold([reading("state", 0, 20), reading("state", 1, 25), reading("state", 0, 30)])
    assert [(f.event.state, second_of(f.effective_at)) for f in facts if isinstance(f.event, StateChanged)] == [("Execute", 0)]
    assert edge.due(39.9) == []
    facts = edge.due(40)
    assert [(e.state, e.previous) for e in events(facts)] == [("Stopped", "Execute")]
    assert second_of(facts[0].effective_at) == 30
    assert edge.due(41) == []


def test_bad_readings_change_nothing_but_what_is_said_of_them() -> None:
    edge = Edge()
    edge.fold([reading("state", 0, 0), reading("good", 5, 0), reading("temperature", 20, 0)])
    facts = edge.fold([reading("good", 1, 1, "bad"), reading("temperature", 99, 1, "bad"), reading("good", None, 1)])
    assert facts == []
    assert [e.state for e in events(edge.fold([reading("state", None, 2, "bad")]))] == ["Unknown"]
    assert events(edge.due(61), DowntimeStarted), "unknown does not end that it stands"
    edge.fold([reading("state", 1, 100), reading("state", None, 101, "bad")])
    assert not events(edge.due(500), DowntimeStarted), "nor does it begin it"


def test_downtime_is_told_when_it_is_due_and_counts_from_the_stop() -> None:
    edge = Edge()
    edge.fold([reading("order", "W1", 0), reading("state", 1, 0), reading("state", 0, 10), reading("reason", "jam", 12)])
    assert edge.due(71.9) == []  # received at 12
    facts = edge.due(72)
    assert [(f.event.state, f.event.order, f.event.reason) for f in facts if isinstance(f.event, DowntimeStarted)] == [
        ("Stopped", "W1", "jam")
    ]
    assert (second_of(facts[0].occurred_at), second_of(facts[0].effective_at), facts[0].rule) == (72, 10, "stands/1")
    assert edge.due(500) == []
    facts = edge.fold([reading("state", 1, 600)])
    assert [(e.state, second_of(e.started_at)) for e in events(facts, DowntimeEnded)] == [("Execute", 10)]


def test_downtime_that_was_over_when_it_was_heard_of_is_told_all_the_same() -> None:
    edge = Edge()
    facts = edge.fold(
        [reading("state", 1, 0), reading("state", 0, 10), reading("state", 1, 75), reading("state", 0, 80), reading("state", 1, 99)]
    )
    assert [(type(f.event), second_of(f.effective_at)) for f in facts if not isinstance(f.event, StateChanged)] == [
        (DowntimeStarted, 10),
        (DowntimeEnded, 75),
    ]


def test_standing_as_planned_is_no_downtime() -> None:
    edge = Edge()
    edge.fold([reading("state", 1, 0), reading("state", 2, 10)])
    assert edge.due(500) == []
    edge.fold([reading("state", 0, 600)])
    assert events(edge.due(660), DowntimeStarted)
    assert [e.state for e in events(edge.fold([reading("state", 2, 700)]), DowntimeEnded)] == ["Held"]


# -- counts


def test_a_count_belongs_to_the_order_in_which_it_was_made() -> None:
    edge = Edge(plant(replace(COUNT, every_s=60), ORDER))
    edge.fold([reading("order", "W1", 0), reading("good", 10, 0)])
    facts = edge.fold([reading("good", 13, 10), reading("order", "W2", 11), reading("good", 15, 12)])
    facts += edge.due(71.9)
    facts += edge.due(72)
    assert [(e.quantity.value, e.total, e.order) for e in events(facts)] == [(3, 13, "W1"), (2, 15, "W2")]


def test_a_count_of_an_interval_is_told_by_its_next_reading() -> None:
    edge = Edge(plant(replace(COUNT, every_s=60)))
    facts = edge.fold([reading("good", n, n) for n in range(130)])
    assert [(e.quantity.value, e.total) for e in events(facts)] == [(60, 60), (60, 120)]


def test_resets_and_rollovers() -> None:
    edge = Edge(plant(replace(COUNT, rolls_at=Decimal(65536))))
    facts = edge.fold([reading("good", total, n) for n, total in enumerate([65530, 65535, 4, 100, 3, 5])])
    assert [(e.before, e.after, e.rolled_over) for e in events(facts, CounterReset)] == [(65535, 4, True), (100, 3, False)]
    assert [e.quantity.value for e in events(facts, CountReported)] == [5, 5, 96, 2]


def test_a_signed_register_rolls_over_below_zero_and_stays_negative() -> None:
    edge = Edge(plant(replace(COUNT, rolls_at=Decimal(2**31), rolls_to=Decimal(-(2**31)))))
    facts = edge.fold([reading("good", total, n) for n, total in enumerate([2**31 - 2, -(2**31) + 1, -(2**31) + 2])])
    assert [(e.quantity.value, e.total) for e in events(facts, CountReported)] == [(3, -(2**31) + 1), (1, -(2**31) + 2)]


# -- late readings


def test_what_is_read_back_goes_to_its_time() -> None:
    edge = Edge(plant(STATE, LIMIT, COUNT, ORDER))
    edge.fold([reading("order", "W1", 0), reading("state", 1, 0), reading("temperature", 20, 0), reading("good", 5, 0)])
    edge.fold([reading("order", "W2", 500), reading("state", 1, 500), reading("temperature", 20, 500), reading("good", 50, 500)])
    history = [late("order", "W1", 100), late("state", 0, 110), late("temperature", 99, 120), late("good", 20, 130), late("state", 1, 140)]
    facts = edge.fold(history, 500)
    assert [(type(f.event), second_of(f.effective_at), getattr(f.event, "order", None)) for f in facts] == [
        (StateChanged, 110, "W1"), (StateChanged, 500, "W2"),  # it was heard to run at 500: what came between is not known yet
        (LimitExceeded, 120, "W1"), (LimitKept, 500, None),
        (StateChanged, 140, "W1"),
    ]  # fmt: skip
    assert edge.fold(history, 500) == []
    facts = edge.fold([late("temperature", 40, 125)], 500)
    assert [(e.worst, e.value, second_of(e.exceeded_at)) for e in events(facts)] == [(99, 40, 120)]


def test_two_changes_of_one_instant_that_come_again_are_none() -> None:
    edge = Edge(plant(replace(STATE, downtime=None)))
    edge.fold([reading("state", 1, 0), reading("state", 0, 10), reading("state", 1, 10), reading("state", 1, 20)])
    assert edge.fold([late("state", 0, 10), late("state", 1, 10)], 20) == []
    edge = Edge(plant(replace(STATE, downtime=None)))
    edge.fold([late("state", 1, 0), late("state", 0, 10), late("state", 1, 10)], 20)
    assert edge.fold([late("state", 0, 10), late("state", 1, 10)], 20) == []
    assert [e.state for e in events(edge.fold([reading("state", 0, 20)]))] == ["Stopped"]


def test_a_late_excursion_that_something_ended_is_ended() -> None:
    edge = Edge(plant(LIMIT))
    edge.fold([reading("temperature", 20, 0), reading("temperature", 90, 50), reading("temperature", 30, 100)])
    facts = edge.fold([late("temperature", 5, 40)])
    assert [(type(f.event), second_of(f.effective_at)) for f in facts] == [(LimitExceeded, 40), (LimitKept, 50)]


def test_a_late_change_of_which_the_end_was_not_read_back_ends_when_it_was_heard_to_be_over() -> None:
    edge = Edge(plant(STATE, LIMIT))
    edge.fold([reading(tag, 1, n) for n in (0, 500) for tag in ("state",)] + [reading("temperature", 20, n) for n in (0, 500)])
    facts = edge.fold([late("state", 0, 100), late("temperature", 99, 100)], 500)
    assert [(type(f.event), second_of(f.effective_at)) for f in facts] == [
        (StateChanged, 100), (StateChanged, 500), (LimitExceeded, 100), (LimitKept, 500),
    ]  # fmt: skip
    assert events(edge.fold([late("state", 0, 200), reading("state", 1, 501)], 501)) == []


def test_what_is_read_back_and_newer_is_the_present() -> None:
    edge = Edge()
    edge.fold([reading("state", 1, 0)])
    edge.fold([late("state", 0, 10), late("state", 1, 100)], 200)
    assert events(edge.fold([late("state", 0, 300), late("state", 1, 400)], 500), DowntimeStarted, DowntimeEnded)


def test_what_is_older_than_all_that_is_remembered_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "MARKS_MAX", 4)
    edge = Edge(plant(replace(STATE, downtime=None)))
    edge.fold([reading("state", n % 2, n) for n in range(10)])
    assert edge.fold([late("state", 1, 5.5), late("state", 1, 3.5)]) == []
    assert edge.ignored == {"late": 2}
    assert [e.state for e in events(edge.fold([late("state", 1, 6.5)]))] == ["Execute"]


def test_late_without_a_time_is_nobodys() -> None:
    edge = Edge()
    edge.fold([reading("state", 1, 0)])
    assert edge.fold([reading("state", 0, None, historical=True)]) == []
    assert edge.ignored == {"late": 1}


# -- clocks and times


def test_a_clock_that_is_ahead_is_told_once_and_put_right() -> None:
    edge = Edge(plant(STATE, clock=ClockRule(bound_s=5, confirm_s=10)))
    facts = edge.fold([reading("state", 1, 420)], 0)
    for n in range(1, 50):
        facts += edge.fold([reading("state", n % 2, 420 + n)], n + 0.2)
    skews = [fact for fact in facts if isinstance(fact.event, ClockSkewDetected)]
    assert [(e.clock, e.seconds) for e in events(skews)] == [("plc", Decimal(420))]
    assert [(second_of(f.occurred_at), f.rule) for f in skews] == [(0, "clock/1")]
    states = [fact for fact in facts if isinstance(fact.event, StateChanged)]
    assert [(second_of(f.occurred_at), second_of(f.effective_at), f.time_quality) for f in states[:2]] == [
        (420, 0, "clock_corrected"), (422, 2, "clock_corrected"),
    ]  # fmt: skip
    facts = edge.fold([reading("state", 1, 60), reading("state", 0, 61)], 61)  # put right: 410 s back, and still in order
    states = [f for f in facts if isinstance(f.event, StateChanged)]
    assert [e.state for e in events(states)] == ["Stopped"]
    assert [(second_of(f.effective_at), f.time_quality) for f in states] == [(61, "offset")]


def test_a_clock_that_is_set_back_reorders_nothing_and_is_told_when_it_stays_so() -> None:
    edge = Edge(plant(STATE, clock=ClockRule(bound_s=5, confirm_s=10)))
    facts = [fact for n in range(60) for fact in edge.fold([reading("state", n % 2, n if n < 20 else n - 300)], n)]
    assert [e.state for e in events(facts, StateChanged)] == ["Stopped", "Execute"] * 30
    skews = [f for f in facts if isinstance(f.event, ClockSkewDetected)]
    assert [e.seconds for e in events(skews)] == [-300]
    assert [second_of(f.occurred_at) for f in skews] == [31]


def test_old_values_and_backlogs_are_no_wrong_clock() -> None:
    edge = Edge(plant(STATE, clock=ClockRule(bound_s=5, confirm_s=10)))
    facts = [fact for n in range(100) for fact in edge.fold([reading("state", 1, -900)], n)]  # read again and again
    facts += [fact for n in range(100) for fact in edge.fold([reading("state", n % 2, 10 * n)], 1000 + n)]  # drains
    facts += [fact for n in range(100) for fact in edge.fold([late("state", 1, n)], 2000 + n)]
    assert not events(facts, ClockSkewDetected)


def local_time(*parts: int) -> datetime:
    """A time of 2026 without an offset, as some sources send it."""
    return datetime(2026, *parts)  # type: ignore[arg-type]  # noqa: DTZ001


ZONES = {  # the hour that comes twice, the one that does not come, of 2026
    "America/Chicago": ((11, 1, 1, 30), (3, 8, 2, 30), 60),
    "Europe/Berlin": ((10, 25, 2, 30), (3, 29, 2, 30), 60),
    "Australia/Lord_Howe": ((4, 5, 1, 45), (10, 4, 2, 15), 30),  # half an hour
}


@pytest.mark.parametrize("name", ZONES)
def test_days_on_which_clocks_change(name: str) -> None:
    zone, (twice, never, minutes) = ZoneInfo(name), ZONES[name]
    ambiguous, missing = local_time(*twice), local_time(*never)
    first, quality = moment(ambiguous, zone)
    assert quality == "plant_zone_ambiguous"
    second = first + timedelta(minutes=minutes)
    assert second.astimezone(zone).replace(tzinfo=None, fold=0) == ambiguous
    assert moment(ambiguous, zone, second + timedelta(minutes=5)) == (second, quality)
    assert moment(ambiguous, zone, first - timedelta(minutes=5)) == (first, quality)
    shifted, quality = moment(missing, zone)
    assert quality == "plant_zone_nonexistent"
    assert shifted.astimezone(zone).replace(tzinfo=None) == missing + timedelta(minutes=minutes)
    day = timedelta(days=1)
    for local in (ambiguous - day, ambiguous + day, missing - day, missing + day):
        found, quality = moment(local, zone)
        assert (found.astimezone(zone).replace(tzinfo=None), quality) == (local, "plant_zone")


@given(time=st.datetimes(local_time(1, 1), local_time(12, 31)), name=st.sampled_from(sorted(ZONES)))
def test_a_time_with_an_offset_is_what_it_says(time: datetime, name: str) -> None:
    assert moment(time.replace(tzinfo=UTC).astimezone(ZoneInfo(name)), ZoneInfo("Asia/Kolkata")) == (time.replace(tzinfo=UTC), "offset")


@pytest.mark.parametrize("name", ZONES)
def test_local_readings_of_a_plant(name: str) -> None:
    edge = Edge(plant(STATE, zone=name))
    local = local_time(*ZONES[name][0])
    told = replace(reading("state", 1, 0), at=local)
    received = moment(local, ZoneInfo(name))[0] + timedelta(minutes=ZONES[name][2], seconds=1)
    folded = edge.rules.fold(Observed("plc", received, [told]), {})
    assert [(f.effective_at, f.time_quality) for f in folded.facts] == [(received - timedelta(seconds=1), "plant_zone_ambiguous")]
    assert edge.rules.timed(Observed("plc", received, [told])).readings[0].at == received - timedelta(seconds=1)


# -- values, configuration, bounds


def test_texts_stay_texts_and_negatives_negative() -> None:
    edge = Edge(plant(LOT, STATE, LIMIT, COUNT))
    facts = []
    for n, lot in enumerate(["00123", "1E5", "123"]):
        facts += edge.fold([reading("lot", lot, n), reading("state", n % 2, n)])
    assert [e.lot for e in events(facts, StateChanged)] == ["00123", "1E5", "123"]
    assert edge.fold([reading("temperature", "99", 5), reading("good", "1E5", 5), reading("good", True, 6)]) == []
    assert edge.ignored == {"unusable": 3}
    (exceeded,) = edge.fold([reading("temperature", -2147483648, 7)])
    document = EdgeDocument(
        "edge1", "e", "l", 1, "plc", START, [reading("temperature", -2147483648, 7), reading("lot", "1E5", 7)], [exceeded]
    )
    said = canonical.loads(document.json())
    assert [row[1] for row in said["readings"]] == [-2147483648, "1E5"]
    assert said["facts"][0]["data"]["value"] == "-2147483648"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -(10**20), "", [1]], ids=str)
def test_no_value_stops_the_rules(value: Any) -> None:
    edge = Edge()
    edge.fold([reading(tag, value, 0) for tag in ("state", "good", "temperature", "order")])
    edge.fold([reading("order", "a\x00b", 1), reading("lot", "x" * 300, 1), reading("lot", "\ud800", 1)])
    assert edge.ignored["unusable"] >= 3
    assert events(edge.fold([reading("state", 1, 2)]), StateChanged)


def test_no_name_and_no_time_stops_the_rules(tmp_path: Path) -> None:
    """Halves of surrogate pairs, control characters, clocks that were never set: what they led to can be spooled, and the hub takes it."""
    edge = Edge(Plant(tags=(Tags(tags="{unit}/**", equipment="ulm/{unit}", rules=(STATE, COUNT)),)))
    tags = ["p1/a\ud800", "p1/a\x00b\n", "\ud800/x", "a\x00/x", f"{'x' * 300}/x", " /x"]
    times = [datetime(1601, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), START]
    facts = [fact for n, time in enumerate(times) for fact in edge.fold([Reading(t, n % 2, time) for t in tags], 0, "plc\ud800")]
    assert [(e.equipment, e.state) for e in events(facts, StateChanged)] == [("ulm/p1", s) for s in ("Stopped", "Execute") * 2]
    assert {f.effective_at for f in facts} == {START}
    assert edge.ignored == {"unusable": 32}
    assert [r.at for r in edge.rules.timed(Observed("p", START, [Reading("t", 1, time) for time in times])).readings] == [None] * 3 + [
        START
    ]
    spool = Spool(tmp_path / "spool", "edge1")
    spool.append("l", [Entry(EdgeDocument("edge1", "e", "l", 1, "p", START, (), facts).json(), "test", START)], edge.state)
    assert spool.states("rules/") == edge.state
    spool.close()
    with pytest.raises(Corrupt, match="newer edge"):
        edge.rules.due(START, dict.fromkeys(edge.state, b"\xc1"))


def test_small_fractions_are_exact_to_twelve_places() -> None:
    edge = Edge(plant(LIMIT))
    (fact,) = edge.fold([reading("temperature", 80.1 + 0.2 + 1e-9 / 3, 0)])
    assert isinstance(fact.event, LimitExceeded)
    assert str(fact.event.value) == str(Decimal(repr(80.1 + 0.2 + 1e-9 / 3)).quantize(Decimal("1e-12")))


def test_tags_name_their_equipment() -> None:
    rule = replace(STATE, downtime=None)
    found = Plant(
        tags=(
            Tags(tags="ns=2;s=*.{unit}.State", equipment="ulm/press/{unit}", producers="opcua/*", rules=(rule,)),
            Tags(tags="**/{center}/{unit}/state", equipment="ulm/{center}/{unit}", rules=(rule,)),
        ),
        clock=None,
    )
    edge = Edge(found)
    tags = ["ns=2;s=Hall.P7.State", "ns=2;s=a/Hall.P7.State", "spBv1.0/g/c1/u1/state", "state"]
    facts = edge.fold([Reading(tag, 1, START) for tag in tags], 0, "opcua/srv1")
    facts += edge.fold([Reading(tags[0], 1, START)], 0, "mqtt/srv1")
    assert [e.equipment for e in events(facts)] == ["ulm/press/P7", "ulm/c1/u1"]


BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown level": (lambda: Tags(tags="{a}/state", equipment="ulm/{b}", rules=(STATE,)), "do not name"),
    "too deep": (lambda: Tags(tags="x", equipment="a/b/c/d/e", rules=(STATE,)), "one to four levels"),
    "level twice": (lambda: Tags(tags="{a}/{a}", equipment="{a}", rules=(STATE,)), "cannot be used"),
    "no limit": (lambda: LimitRule(name="l"), "neither high nor low"),
    "no room": (lambda: LimitRule(name="l", high=Decimal(5), low=Decimal(4), dead_band=Decimal(1)), "leaves no value"),
    "no zone": (lambda: Plant(zone="Europe/Ulm"), "time zone"),
    "one name, two rules": (lambda: plant(STATE, replace(STATE, settle_s=4)), "is there twice"),
    "no unit": (lambda: CountRule(name="c", counter="c", unit="PCS"), "UN/ECE"),
    "other word": (lambda: CountRule(name="c", counter="c", every=5), "every"),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("case", BROKEN)
def test_configuration_that_cannot_be_is_refused(case: str) -> None:
    make, why = BROKEN[case]
    with pytest.raises(ValueError, match=why):
        make()


def test_the_documented_configuration_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "edge-rules.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    found = TypeAdapter(Plant).validate_python(importlib.import_module("yaml").safe_load(text))
    edge = Edge(found)
    edge.fold([reading("order", "W1", 0), reading("state", 0, 0), reading("state", 0, 1)])
    facts = edge.due(301)
    assert [(f.rule, f.event.data()["equipment"]) for f in facts] == [("press-state/2", PRESS), ("press-down/1", PRESS)]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_rules, "MACHINES_MAX", 5)
    edge = Edge()
    edge.fold([replace(reading("state", 1, n), tag=f"line1/press{n}/state") for n in range(20)])
    assert len(edge.state) <= 6
    assert edge.ignored["crowded"] >= 14
    busy = Edge(Plant(tags=(Tags(tags="**", equipment="ulm", rules=(COUNT, LIMIT)),), clock=None))
    monkeypatch.setattr("adapters.edge.tag_rules.SLOTS_MAX", 5)
    busy.fold([Reading(f"t{n}", n, START) for n in range(20)])
    assert busy.ignored == {"crowded": 30}
    many = Edge(plant(STATE))
    for n in range(300):
        many.fold([reading("state", k % 2, k) for k in range(n * 20, n * 20 + 20)])
    assert max(len(kept) for kept in many.state.values()) < 12_000


def test_memory_goes_into_the_spool_with_the_facts(tmp_path: Path) -> None:
    """Killed between two batches, the edge goes on where the last durable one ended: the facts are those of an edge that was not killed."""
    readings = [reading("good", n * 3, n) for n in range(30)] + [reading("state", n % 2, n) for n in range(30, 60)]
    whole = Edge()
    expected = [fact for part in cut(readings, [10] * 6) for fact in whole.fold(part)]
    found: list[EdgeFact] = []
    for part in cut(readings, [10] * 6):
        spool = Spool(tmp_path / "spool", "edge1")  # a process of its own
        rules = Rules(plant(), "edge1")
        state: Mapping[str, bytes] = spool.states("rules/")
        folded = rules.fold(Observed("plc", max(r.at for r in part if r.at), part), state)  # killed here
        assert rules.fold(Observed("plc", max(r.at for r in part if r.at), part), spool.states("rules/")) == folded
        spool.append("plc", [Entry(b"x", "test", START)], folded.state)
        found += folded.facts
        spool.close()
    assert found == expected
