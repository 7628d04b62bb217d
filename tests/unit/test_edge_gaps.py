"""What never came is exactly what is told as open gaps: whatever is lost, late or repeated, wherever batches are cut and the edge is killed."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.edge import gaps
from adapters.edge.gaps import Missed, Sequences, told
from adapters.edge.plant import SequenceRule
from events.base import Event, validated
from events.integration import GapDetected
from hub.intake.edge_document import EdgeDocument
from hub.intake.readings import Gap, Observed, Reading

START = datetime(2026, 3, 2, 6, tzinfo=UTC)
PLAIN = Sequences([SequenceRule()])


def batch(numbers: Sequence[int], at: int = 0, producer: str = "plc") -> Observed:
    """Readings of some numbers, each a second after the number before it; received at the start and `at` seconds."""
    readings = [Reading("t", n, START + timedelta(seconds=n), sequence=n) for n in numbers]
    return Observed(producer, START + timedelta(seconds=at), readings, numbered=True)


def run(sequences: Sequences, batches: Sequence[Observed]) -> tuple[dict[str, Gap], dict[str, bytes], list[Missed]]:
    """Fold batches; the gaps that are open in the end, by what was told."""
    state: dict[str, bytes] = {}
    open_: dict[str, Gap] = {}
    found = []
    for observed in batches:
        missed = sequences.fold(observed, state)
        state |= missed.state
        for filled in missed.filled:
            del open_[filled.gap]  # KeyError: something was filled that was not open
        for gap in missed.gaps:
            assert gap.id not in open_, "one gap told twice"
            open_[gap.id] = gap
        found.append(missed)
    return open_, state, found


def ranges(open_: dict[str, Gap]) -> list[tuple[int | None, int | None]]:
    return sorted(((gap.first, gap.last) for gap in open_.values()), key=lambda r: (r[0] or 0, r[1] or 0))


def cut(numbers: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    found, rest = [], list(numbers)
    for size in sizes:
        found.append(rest[:size])
        rest = rest[size:]
    return [*(part for part in found if part), *([rest] if rest else [])]


arrivals = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def test_numbers_that_a_source_has_judged_itself_are_left_alone() -> None:
    observed = Observed("plc", START, [Reading("t", n, START, sequence=n) for n in (1, 9, 3)])
    missed = PLAIN.fold(observed, {})
    assert (missed.gaps, missed.filled, missed.observed) == ([], [], observed)


@given(arrivals=arrivals, sizes=st.lists(st.integers(1, 7), max_size=20))
def test_what_never_came_is_the_union_of_the_gaps(arrivals: list[int], sizes: list[int]) -> None:
    open_, state, _ = run(PLAIN, [batch(part, n) for n, part in enumerate(cut(arrivals, sizes))])
    missing = [n for first, last in ranges(open_) for n in range(first or 0, (last or 0) + 1)]
    assert missing == [n for n in range(arrivals[0], max(arrivals) + 1) if n not in arrivals]
    assert ranges(open_) == PLAIN.missing("plc", state)


@given(
    lost=st.sets(st.integers(1, 130), max_size=100),
    held_up=st.dictionaries(st.integers(1, 130), st.integers(1, 5), max_size=40),
    again=st.sets(st.integers(1, 130), max_size=10),
    sizes=st.lists(st.integers(1, 30), max_size=20),
)
def test_numbers_that_wrap(lost: set[int], held_up: dict[int, int], again: set[int], sizes: list[int]) -> None:
    """Numbers go around 32 four times, come up to five late, twice, or never; one of six comes, so that no loss is half a range."""
    sequences = Sequences([SequenceRule(wraps=32)])
    came = [n for n in range(131) if n not in lost or n % 6 == 0]
    order = sorted([*came, *(n for n in came if n in again)], key=lambda n: n + held_up.get(n, 0))
    parts = [[replace(r, sequence=(r.sequence or 0) % 32) for r in batch(part).readings] for part in cut(order, sizes)]
    open_, state, _ = run(sequences, [Observed("plc", START, part, numbered=True) for part in parts])
    missing = [n for first, last in sequences.missing("plc", state) for n in range(first, last + 1)]
    assert missing == [n for n in range(max(came)) if n not in came]
    assert ranges(open_) == sorted((first % 32, last % 32) for first, last in sequences.missing("plc", state))


@given(arrivals=arrivals, sizes=st.lists(st.integers(1, 7), max_size=20), data=st.data())
def test_a_batch_that_was_not_durable_is_told_the_same_again(arrivals: list[int], sizes: list[int], data: st.DataObject) -> None:
    state: dict[str, bytes] = {}
    for n, part in enumerate(cut(arrivals, sizes)):
        missed = PLAIN.fold(batch(part, n), state)
        if data.draw(st.booleans()):
            assert PLAIN.fold(batch(part, n), dict(state)) == missed
        state |= missed.state


def test_a_part_that_comes_late_closes_the_gap_and_opens_the_rest() -> None:
    open_, _, found = run(PLAIN, [batch([1, 2, 9]), batch([5]), batch([3, 4])])
    assert [(g.first, g.last, g.since, g.until) for g in found[0].gaps] == [
        (3, 8, START + timedelta(seconds=2), START + timedelta(seconds=9))
    ]
    assert [f.gap for f in found[1].filled] == [found[0].gaps[0].id]
    assert "part" in found[1].filled[0].how
    assert [(g.first, g.last) for g in found[1].gaps] == [(3, 4), (6, 8)]
    assert [f.how for f in found[2].filled] == ["late"]
    assert ranges(open_) == [(6, 8)]


def test_bounds_of_local_times_are_moments() -> None:
    local = START.replace(tzinfo=None)
    readings = [
        Reading("t", 1, local, sequence=1),
        Reading("t", 1, local + timedelta(seconds=9), sequence=5),
        Reading("t", 1, None, sequence=9),
    ]
    missed = Sequences([SequenceRule()], "Asia/Kolkata").fold(Observed("plc", START, readings, numbered=True), {})
    first = START - timedelta(hours=5, minutes=30)
    assert [(g.since, g.until) for g in missed.gaps] == [(first, first + timedelta(seconds=9)), (first + timedelta(seconds=9), None)]


def test_what_comes_late_says_nothing_of_now() -> None:
    _, _, found = run(PLAIN, [batch([1, 2, 5]), batch([3, 6, 5])])
    assert [r.historical for r in found[0].observed.readings] == [False, False, False]
    assert [(r.sequence, r.historical) for r in found[1].observed.readings] == [(3, True), (6, False), (5, True)]


def test_a_restarted_producer_begins_a_run_and_what_was_missing_stays_missing() -> None:
    sequences = Sequences([SequenceRule(restarts_at=0)])
    again = [replace(r, at=START + timedelta(hours=1, seconds=r.sequence or 0)) for r in batch([0, 1, 3]).readings]
    open_, _, _ = run(sequences, [batch([0, 1, 5, 6]), batch([0]), Observed("plc", START + timedelta(hours=1), again, numbered=True)])
    assert ranges(open_) == [(2, 2), (2, 4)]
    open_, _, _ = run(PLAIN, [batch([0, 1, 5, 6]), Observed("plc", START + timedelta(hours=1), again, numbered=True)])
    assert ranges(open_) == [(2, 2), (4, 4)]  # where nobody said that it restarts, its numbers are late ones


def test_memory_is_bounded_and_forgets_only_what_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "OPEN_MAX", 3)
    open_, state, _ = run(PLAIN, [batch(range(0, 21, 2)), batch([1, 19])])
    assert len(PLAIN.missing("plc", state)) == 2
    assert ranges(open_) == [(n, n) for n in range(1, 19, 2)]  # 1 had been forgotten and stays open


def test_a_producer_that_falls_silent_is_told_once_and_heard_again() -> None:
    sequences = Sequences([SequenceRule(silent_s=30)])
    state = dict(sequences.fold(batch([1]), {}).state)
    assert sequences.due(START + timedelta(seconds=30), state) == {}
    missed = sequences.due(START + timedelta(seconds=31), state)["plc"]
    state |= missed.state
    assert [(g.kind, g.since) for g in missed.gaps] == [("silent", START)]
    assert sequences.due(START + timedelta(seconds=99), state) == {}
    back = sequences.fold(batch([2], 100), state)
    assert [f.gap for f in back.filled] == [missed.gaps[0].id]
    state |= back.state
    assert sequences.due(START + timedelta(seconds=131), state)["plc"].gaps[0].id != missed.gaps[0].id


def test_a_named_producer_that_never_spoke_is_silent_too() -> None:
    sequences = Sequences([SequenceRule(producers="press.4", silent_s=30), SequenceRule(silent_s=5)])
    state: dict[str, bytes] = {}
    told_ = []
    for second in (0, 20, 31, 60):
        for missed in sequences.due(START + timedelta(seconds=second), state).values():
            state |= missed.state
            told_ += [(second, g.producer) for g in missed.gaps]
    assert told_ == [(31, "press.4")]


def test_gaps_are_facts_that_the_hub_takes() -> None:
    _, _, found = run(PLAIN, [batch([1, 5], producer="plc\ud800\n/with a long name " * 50)])
    facts = list(told("edge1", found[0].gaps, found[0].filled, START, "sequence/1"))
    for fact in facts:
        again: Event = validated(fact.event.type, 1, fact.event.data())
        assert again == fact.event
    assert [(f.event.first, f.event.last) for f in facts if isinstance(f.event, GapDetected)] == [(2, 4)]
    assert EdgeDocument("edge1", "e", "l", 1, "plc", START, (), facts).json()


def test_values_of_one_message_share_its_number_and_none_of_them_is_late() -> None:
    state: dict[str, bytes] = {}
    for number, late in ((5, False), (7, False), (6, True)):
        readings = [Reading(tag, number, START + timedelta(seconds=number), sequence=number) for tag in "abc"]
        missed = PLAIN.fold(Observed("plc", START, readings, numbered=True), state)
        state |= missed.state
        assert [r.historical for r in missed.observed.readings] == [late] * 3
    assert PLAIN.missing("plc", state) == []
