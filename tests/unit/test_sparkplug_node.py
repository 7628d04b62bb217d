"""One edge node as the host sees it: whatever is lost, repeated or out of order on the way, what did not arrive is told, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.formats.sparkplug import BDSEQ, Metric, Payload, Topic, metric_of
from adapters.formats.sparkplug_message import Message
from adapters.formats.sparkplug_node import EdgeNode
from adapters.formats.sparkplug_values import DataType
from hub import limits
from hub.intake.readings import Filled, Gap, Reading

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HALF = timedelta(microseconds=500)
TICK_S = 0.1
REORDER_S = 1.0


def _time(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


@dataclass
class World:
    """An edge node with one device, a way that fails as it is told to, and the host. A tick is a tenth of a second; times of messages count in ms."""

    node: EdgeNode = field(default_factory=lambda: EdgeNode("h", "G", "N", reorder_s=REORDER_S, reach_s=0))
    memory: dict[str, bytes] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    filled: list[Filled] = field(default_factory=list)
    said: dict[int, datetime] = field(default_factory=dict)
    heard: datetime | None = EPOCH
    tick: int = 0
    ms: int = 1_000_000
    seq: int = 0
    bd: int = 0
    value: int = 0
    asked: bool = False
    done: int = 0
    sent: int = 0
    flying: list[tuple[int, int, Message]] = field(default_factory=list)

    def message(self, kind: str, metrics: list[Metric], device: str | None = None) -> Message:
        self.ms += 1
        self.sent += 1
        payload = Payload(self.ms, None if kind == "NDEATH" else self.seq, metrics)
        if kind != "NDEATH":
            self.seq = (self.seq + 1) % 256

        def done() -> None:
            self.done += 1

        return Message(Topic(kind, "G", "N", device), payload, _time(self.ms), 10, self.sent.to_bytes(8, "big"), done)

    def birth(self) -> list[Message]:
        self.seq = 0
        told = [metric_of(self.bd, DataType.Int64, BDSEQ, timestamp=self.ms + 1)]
        first = self.message("NBIRTH", told)
        again = metric_of(self.value, DataType.Int64, "n", alias=1, timestamp=self.ms + 1)
        return [first, self.message("DBIRTH", [again], "D")]

    def datum(self, *, historical: bool = False, at: int | None = None) -> Message:
        self.value += 1
        self.said[self.value] = _time(self.ms + 1 if at is None else at)
        metric = Metric(alias=1, timestamp=self.ms + 1 if at is None else at, historical=historical, held=("long_value", self.value))
        return self.message("DDATA", [metric], "D")

    def fly(self, message: Message, delay: int) -> None:
        self.flying.append((self.tick + delay, len(self.flying) + self.sent * 1000, message))

    def step(self) -> None:
        self.tick += 1
        due = sorted(one for one in self.flying if one[0] <= self.tick)
        self.flying = [one for one in self.flying if one[0] > self.tick]
        for _, _, message in due:
            if message.topic.kind == "NBIRTH":
                self.heard = self.heard or _time(message.payload.timestamp or 0)
            self.node.take(message, self.tick * TICK_S)
        self.node.expire(self.tick * TICK_S)
        self.collect()

    def collect(self) -> None:
        if self.node.rebirth:
            self.node.rebirth, self.asked = False, True
        if observed := self.node.collect():
            self.readings += observed.readings
            self.gaps += observed.gaps
            self.filled += observed.filled
            self.memory.update(observed.memory)
            observed.done()

    def restart(self) -> None:
        """The host is killed: what is in flight is lost, and another one begins with what was made durable."""
        self.flying = []
        self.node = EdgeNode("h", "G", "N", reorder_s=REORDER_S, reach_s=0)
        if self.node.remember(self.memory.get):
            self.node.lost(_time(self.ms), self.tick * TICK_S)
        self.collect()

    @property
    def numbers(self) -> list[int]:
        return [
            int(r.value)
            for r in self.readings
            if r.tag == "G/N/D/n" and r.quality == "good" and r.value and r.at == self.said.get(int(r.value))
        ]

    def accounted(self) -> None:
        came = self.numbers
        assert len(came) == len(set(came)), f"twice: {came}"
        closed = {one.gap for one in self.filled}
        gaps = [gap for gap in self.gaps if gap.id not in closed]
        for n, at in self.said.items():
            inside = [g for g in gaps if (g.since is None or g.since < at) and g.until is not None and at < g.until]
            touched = [g for g in gaps if (g.since is None or g.since <= at) and g.until is not None and at <= g.until]
            if n in came:
                assert not inside, f"{n} came, and lies within {inside}"
            elif self.heard is not None and at > self.heard:  # from before the first birth nothing is promised
                assert touched, f"{n} is missing without a gap; came {came}; gaps {gaps}"


_ways = st.lists(
    st.tuples(st.sampled_from(["good"] * 6 + ["late", "drop", "twice"]), st.integers(1, 4)), min_size=5, max_size=120
)  # fmt: skip


def _run(world: World, ways: list[tuple[str, int]], *, between: Callable[[int], None] = lambda n: None) -> None:
    """Send a datum a tick, each on its way; a rebirth that is asked for comes a tick later, whole and in order."""
    world.heard = None
    for message in world.birth():
        world.fly(message, 0)
    for n, (way, delay) in enumerate([*ways, ("good", 0)]):  # what is lost shows by what comes after it
        between(n)
        if world.asked:
            world.asked = False
            for message in world.birth():
                world.fly(message, 0)
        message = world.datum()
        if way != "drop":
            world.fly(message, delay if way == "late" else 0)
        if way == "twice":
            world.fly(message, delay)
        world.step()
    for _ in range(200):
        if world.asked:
            world.asked = False
            for message in world.birth():
                world.fly(message, 0)
            world.fly(world.datum(), 0)
        world.step()


@given(_ways)
@settings(max_examples=200)
def test_what_is_missing_is_told_exactly(ways: list[tuple[str, int]]) -> None:
    world = World()
    _run(world, ways)
    world.accounted()
    historical = {int(r.value or 0) for r in world.readings if r.tag == "G/N/D/n" and r.historical}
    live = [n for n in world.numbers if n not in historical]
    assert live == sorted(live)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=600))
def test_whatever_comes_within_the_timeout_comes_in_order_and_asks_for_nothing(delays: list[int]) -> None:
    world = World()
    _run(world, [("late", delay) for delay in delays])
    assert world.numbers == list(range(1, len(delays) + 2))
    assert not world.gaps
    assert not world.asked


@given(_ways, st.sets(st.integers(0, 120), max_size=4))
@settings(max_examples=200)
def test_kills_of_the_host_are_told_too(ways: list[tuple[str, int]], kills: set[int]) -> None:
    world = World()
    _run(world, ways, between=lambda n: world.restart() if n in kills else None)
    world.accounted()


@given(st.integers(1, 249))  # the numbers can tell no more apart
def test_a_hole_of_any_length_is_told_by_its_numbers(length: int) -> None:
    world = World()
    for message in [*world.birth(), world.datum()]:
        world.node.take(message, 0.0)
    first = world.seq
    for _ in range(length):
        world.datum()
    for _ in range(3):
        world.node.take(world.datum(), 0.0)
    world.node.expire(REORDER_S)
    world.collect()
    assert world.asked
    birth = world.birth()
    for message in birth:
        world.node.take(message, 2.0)
    world.collect()
    gap, rest = world.gaps
    assert (gap.kind, gap.first, gap.last) == ("sequence", first, first + length - 1)
    assert (rest.kind, rest.since) == (
        "disconnected",
        world.said[length + 4],
    )  # a birth that was asked for begins anew: it counts nothing before it
    assert set(world.numbers) == {1, *range(length + 2, length + 5)}  # what came after it is not lost with it
    world.accounted()


def test_messages_are_acknowledged_once_each() -> None:
    world = World()
    for message in [*world.birth(), *(world.datum() for _ in range(300))]:
        world.node.take(message, 0.0)
    world.collect()
    assert world.done == world.sent == 302


def test_a_rebirth_that_says_what_is_known_says_nothing_new() -> None:
    world = World()
    first = world.birth()
    for message in first:
        world.node.take(message, 0.0)
    world.collect()
    before = len(world.readings)
    again = [Message(m.topic, m.payload, m.received_at, m.size, bytes([n])) for n, m in enumerate(first)]  # the same times and values
    for message in again:
        world.node.take(message, 1.0)
    world.collect()
    assert len(world.readings) == before


def test_a_death_of_another_session_changes_nothing() -> None:
    world = World()
    for message in world.birth():
        world.node.take(message, 0.0)
    other = world.message("NDEATH", [metric_of(7, DataType.Int64, BDSEQ)])
    world.node.take(other, 0.0)
    assert world.node.status == "online"
    own = world.message("NDEATH", [metric_of(0, DataType.Int64, BDSEQ)])
    world.node.take(own, 0.0)
    world.collect()
    assert str(world.node.status) == "offline"
    assert [r.tag for r in world.readings if r.quality == "bad"] == ["G/N/D/n"]


def test_a_death_that_names_no_session_is_one_of_this() -> None:
    world = World()
    for message in world.birth():
        world.node.take(message, 0.0)
    world.node.take(world.message("NDEATH", []), 0.0)
    assert world.node.status == "offline"


def _offline(world: World) -> None:
    for message in [*world.birth(), world.datum()]:
        world.node.take(message, 0.0)
    world.node.take(world.message("NDEATH", [metric_of(world.bd, DataType.Int64, BDSEQ)]), 0.0)


def _back(world: World) -> list[int]:
    """The node was away and is born again; the times of what it kept meanwhile."""
    _offline(world)
    kept, world.ms = [world.ms + 10 * n for n in range(1, 11)], world.ms + 200
    world.bd = 1
    for message in world.birth():
        world.node.take(message, 1.0)
    return kept


def _history(world: World, at: list[int], now: float) -> None:
    for one in at:
        world.node.take(world.datum(historical=True, at=one), now)


def test_history_fills_the_time_that_the_node_was_away() -> None:
    world = World()
    _offline(world)
    gone = world.ms
    kept, world.ms = [gone + 10 * n for n in range(1, 11)], gone + 200
    world.bd = 1
    for message in world.birth():
        world.node.take(message, 1.0)
    _history(world, kept, 1.1)
    world.node.expire(1.1 + limits.SPARKPLUG_HISTORY_PAUSE_S)
    world.collect()
    assert len(world.gaps) == 3  # the whole, and what history left of it at both ends
    assert [one.how for one in world.filled] == ["history"]
    world.accounted()
    world.node.expire(1.1 + limits.SPARKPLUG_HISTORY_QUIET_S)
    world.collect()
    assert {one.gap for one in world.filled} == {world.gaps[0].id, world.gaps[2].id}
    before = world.gaps[1]
    assert (before.kind, before.since, before.until) == ("history", world.said[1], _time(kept[0]))


def test_history_that_is_cut_short_leaves_a_gap() -> None:
    world = World()
    kept = _back(world)
    _history(world, kept[:4], 1.1)
    for at in kept[4:7]:  # went into a line that was dead already
        world.datum(historical=True, at=at)
    world.node.take(world.message("NDEATH", [metric_of(1, DataType.Int64, BDSEQ)]), 1.2)
    world.bd = 2
    for message in world.birth():
        world.node.take(message, 1.3)
    _history(world, kept[7:], 1.4)
    world.node.expire(10.0)
    world.collect()
    world.accounted()
    assert sorted(set(range(1, 12)) - set(world.numbers)) == [6, 7, 8]


@pytest.mark.parametrize("way", ["death", "lost", "killed"])
def test_the_rest_of_a_history_that_a_break_cut_short_stays_missing(way: str) -> None:
    """Quiet shows that a history is over only where nothing of it can have been lost."""
    world = World()
    kept = _back(world)
    _history(world, kept[:4], 1.1)
    world.collect()
    for at in kept[4:]:  # on its way, and lost
        world.datum(historical=True, at=at)
    if way == "death":
        world.node.take(world.message("NDEATH", [metric_of(1, DataType.Int64, BDSEQ)]), 1.2)
    elif way == "lost":
        world.node.lost(_time(world.ms), 1.2)
    else:
        world.restart()
    later, world.ms = world.ms + 10, world.ms + 100
    world.bd = 2
    for message in world.birth():
        world.node.take(message, 1.3)
    _history(world, [later], 1.4)  # of the second break; then it is quiet
    world.node.expire(10.0)
    world.node.expire(20.0)
    world.collect()
    world.accounted()
    assert set(range(1, 13)) - set(world.numbers) == set(range(6, 12))


def test_history_counts_whatever_gap_was_told_last() -> None:
    """Of two times away the first is filled in part when the history of the second comes: what is left of the first is told behind the second."""
    world = World()
    _offline(world)
    first, world.ms = world.ms + 10, world.ms + 100
    world.bd = 1
    for message in world.birth():
        world.node.take(message, 1.0)
    world.node.take(world.message("NDEATH", [metric_of(1, DataType.Int64, BDSEQ)]), 1.1)
    second, world.ms = world.ms + 10, world.ms + 100
    world.bd = 2
    for message in world.birth():
        world.node.take(message, 1.2)
    _history(world, [first], 1.3)
    world.node.expire(1.3 + limits.SPARKPLUG_HISTORY_PAUSE_S)
    _history(world, [second], 2.0)
    world.node.expire(10.0)
    world.collect()
    world.accounted()


def test_history_within_reach_leaves_nothing_open() -> None:
    world = World(EdgeNode("h", "G", "N", reorder_s=REORDER_S, reach_s=0.05))
    kept = _back(world)
    _history(world, kept, 1.1)
    world.node.expire(10.0)
    world.collect()
    assert {one.gap for one in world.filled} == {gap.id for gap in world.gaps}


def test_an_alias_that_no_birth_told_asks_for_one_and_is_told() -> None:
    world = World()
    for message in world.birth():
        world.node.take(message, 0.0)
    seq = world.seq
    unknown = Metric(alias=99, timestamp=world.ms + 1, held=("int_value", 1))
    world.node.take(world.message("DDATA", [unknown], "D"), 0.0)
    world.collect()
    (gap,) = world.gaps
    assert (gap.first, gap.last, gap.tags) == (seq, seq, ("G/N/D/alias 99",))
    assert world.asked


def test_what_a_rebirth_does_not_tell_either_is_asked_for_once_a_session() -> None:
    world = World()
    asked = 0
    for now in range(20):
        if now == 0 or world.asked:
            asked, world.asked = asked + world.asked, False
            for message in world.birth():
                world.node.take(message, float(now))
        world.node.take(
            world.message("DDATA", [Metric(alias=99, held=("int_value", 1)), Metric("no", held=("int_value", 1))], "D"), now + 0.1
        )
        world.node.expire(now + 0.5)
        world.collect()
    assert asked == 1
    told = [gap.tags for gap in world.gaps if gap.kind == "sequence"]
    assert told == [("G/N/D/alias 99", "G/N/D/no")] * 20  # each is told all the same, with all that it lacks
    world.bd += 1
    for message in [*world.birth(), world.message("DDATA", [Metric(alias=99, held=("int_value", 1))], "D")]:
        world.node.take(message, 30.0)
    world.collect()
    assert world.asked


def test_an_alias_that_two_metrics_share_names_neither() -> None:
    world = World()
    world.node.take(world.birth()[0], 0.0)
    world.seq = 1
    both = [metric_of(n, DataType.Int64, name, alias=7, timestamp=world.ms + 1) for n, name in enumerate(("a", "b"))]
    world.node.take(world.message("DBIRTH", both, "D"), 0.0)
    world.node.take(world.message("DDATA", [Metric(alias=7, held=("long_value", 5)), Metric("b", held=("long_value", 6))], "D"), 0.0)
    world.collect()
    assert [(r.tag, r.value) for r in world.readings] == [("G/N/D/a", 0), ("G/N/D/b", 1), ("G/N/D/b", 6)]
    (gap,) = world.gaps
    assert gap.tags == ("G/N/D/alias 7",)


def test_data_of_the_millisecond_of_the_birth_that_came_before_it_is_from_before_it() -> None:
    world = World()
    for message in [*world.birth(), world.datum()]:
        world.node.take(message, 0.0)
    world.collect()
    world.restart()
    waiting = world.datum()
    world.node.take(waiting, 1.0)  # a rebirth is asked for, and answered at once
    world.ms -= 1
    for message in [*world.birth(), world.datum(), world.datum(), world.datum()]:
        world.node.take(message, 1.0)
    world.collect()
    assert world.readings[-1].value == 5
    world.accounted()
    assert world.numbers == [1, 2, 3, 4, 5]
    world.node.expire(10.0)
    world.collect()
    assert not [gap for gap in world.gaps if gap.kind == "sequence"]


def test_a_device_birth_that_overtakes_its_nodes_in_one_millisecond_is_of_after_it() -> None:
    world = World()
    node = world.birth()[0]
    world.ms, world.seq = world.ms - 2, 1
    device = world.message("DBIRTH", [metric_of(7, DataType.Int64, "n", alias=1, timestamp=world.ms + 1)], "D")
    assert device.payload.timestamp == node.payload.timestamp
    for message in (device, node, world.datum()):
        world.node.take(message, 0.0)
    world.collect()
    assert [r.value for r in world.readings if r.tag == "G/N/D/n"] == [7, 1]
    assert not world.gaps


def test_births_and_deaths_of_devices_count_whatever_their_time() -> None:
    """One node makes its births once and keeps them, another says of a death when it heard the device last."""
    world = World()
    node, device = world.birth()
    before = (node.payload.timestamp or 0) - 1000
    for message in (node, device, world.datum(), world.message("DDEATH", [], "D")):
        if message.topic.kind in ("DBIRTH", "DDEATH"):
            message.payload = replace(message.payload, timestamp=before)
        world.node.take(message, 0.0)
    world.collect()
    assert world.numbers == [1]
    assert [(r.tag, r.at) for r in world.readings if r.quality == "bad"] == [("G/N/D/n", _time(before))]
    assert not world.gaps
    assert not world.asked


def test_a_device_that_speaks_before_its_birth_asks_for_one() -> None:
    world = World()
    world.node.take(world.birth()[0], 0.0)
    world.seq = 1
    world.node.take(world.datum(), 0.0)
    world.collect()
    assert world.asked
    assert world.gaps[0].reason == "the device D gives data before its birth"
    world.accounted()


def test_data_without_a_birth_that_never_comes_is_told_after_a_while() -> None:
    world = World()
    for message in [*world.birth(), world.datum()]:
        world.node.take(message, 0.0)
    world.collect()
    world.restart()
    world.node.take(world.datum(), 1.0)
    asked = 0
    for now in range(1, 100):
        world.node.expire(float(now))
        world.collect()
        asked, world.asked = asked + world.asked, False
    assert 4 <= asked <= 6  # at 1, 6, 16, 36, 76: ever more seldom
    (gap,) = world.gaps
    assert (gap.since, gap.until) == (world.said[1], None)
    assert "allowed to publish NCMD" in gap.reason
    for message in world.birth():
        world.node.take(message, 100.0)
    world.collect()
    assert world.gaps[1].id == gap.id  # the same gap, now with its end
    assert world.gaps[1].until is not None


def test_a_host_that_only_listens_asks_for_nothing() -> None:
    world = World(EdgeNode("h", "G", "N", reorder_s=REORDER_S, reach_s=0, asks=False))
    world.node.take(world.datum(), 1.0)
    world.node.expire(1000.0)
    world.collect()
    assert not world.asked


def test_what_waits_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "SPARKPLUG_HELD_MAX", 10)
    world = World()
    for message in world.birth():
        world.node.take(message, 0.0)
    world.datum()
    for _ in range(10):
        world.node.take(world.datum(), 0.0)
    world.collect()
    assert world.numbers == list(range(2, 12))  # taken before the timeout: there is no more room
    assert [(gap.first, gap.last) for gap in world.gaps] == [(2, 2)]
    early = World()
    for _ in range(50):
        early.node.take(early.datum(), 0.0)
    early.collect()
    assert early.done == 40
    for message in early.birth():
        early.node.take(message, 0.0)
    early.collect()
    early.accounted()
    assert len(early.numbers) == 10


def test_a_birth_that_tells_other_metrics_explains_nothing_that_came_before() -> None:
    world = World()
    for message in [*world.birth(), world.datum()]:
        world.node.take(message, 0.0)
    world.collect()
    world.restart()
    world.node.take(world.datum(), 1.0)  # alias 1, whatever that is now
    birth = world.birth()
    other = metric_of(5, DataType.Int64, "m", alias=1, timestamp=world.ms)
    birth[1] = Message(
        birth[1].topic, Payload(birth[1].payload.timestamp, birth[1].payload.seq, [other]), birth[1].received_at, 1, b"other"
    )
    for message in birth:
        world.node.take(message, 1.0)
    world.collect()
    assert world.numbers == [1]
    assert not [r for r in world.readings if r.tag == "G/N/D/m" and r.value == 2]
    world.accounted()


def test_qualities_and_flags() -> None:
    world = World()
    for message in world.birth():
        world.node.take(message, 0.0)
    from adapters.formats.sparkplug import Property

    for code in (192, 0, 500, 64):
        quality = {"Quality": Property(DataType.Int32, code)}
        metric = Metric(alias=1, timestamp=world.ms, held=("long_value", 3), properties=quality)
        world.node.take(world.message("DDATA", [metric], "D"), 0.0)
    world.node.take(
        world.message("DDATA", [Metric(alias=1, timestamp=5, null=True), Metric(alias=1, transient=True, held=("long_value", 9))], "D"), 0.0
    )
    world.collect()
    said = [(r.value, r.quality, r.type) for r in world.readings if r.tag == "G/N/D/n"][1:]
    assert said == [(3, "good", "Int64"), (3, "bad", "Int64"), (3, "bad", "Int64"), (3, "uncertain", "Int64"), (None, "good", "Int64")]


def test_after_a_hole_that_may_hold_a_birth_no_alias_is_believed() -> None:
    world = World()
    for message in [*world.birth(), *(world.datum() for _ in range(253))]:
        world.node.take(message, 0.0)
    world.datum()  # 255 is lost, and then a birth under which alias 1 is another metric
    world.birth()
    other = Metric(alias=1, timestamp=world.ms + 1, held=("long_value", 999))
    world.node.take(world.message("DDATA", [other], "D"), 0.0)
    world.node.expire(REORDER_S)
    world.collect()
    assert world.asked
    assert 999 not in [r.value for r in world.readings]
    again = world.birth()
    told = metric_of(1, DataType.Int64, "m", alias=1, timestamp=world.ms)
    again[1] = Message(again[1].topic, Payload(again[1].payload.timestamp, 1, [told]), again[1].received_at, 1, b"other")
    for message in again:
        world.node.take(message, 2.0)
    world.collect()
    assert [r.value for r in world.readings if r.tag == "G/N/D/n" and r.quality == "good"] == [0, *range(1, 254)]
    world.accounted()


def test_one_that_comes_after_it_was_given_up_is_taken_late_and_the_gap_is_told_anew() -> None:
    world = World()
    for message in world.birth():
        world.node.take(message, 0.0)
    missing = [world.datum() for _ in range(3)]
    world.node.take(world.datum(), 0.0)
    world.node.expire(REORDER_S)
    world.collect()
    assert [(gap.first, gap.last) for gap in world.gaps] == [(2, 4)]
    world.node.take(missing[1], 2.0)
    world.collect()
    assert [(one.gap, one.how) for one in world.filled] == [(world.gaps[0].id, "late")]
    assert [(gap.first, gap.last) for gap in world.gaps[1:]] == [(2, 2), (4, 4)]
    assert [(r.value, r.historical) for r in world.readings if r.value in (2, 4)] == [(4, False), (2, True)]
    world.accounted()
    for message in (missing[0], missing[2]):
        world.node.take(message, 3.0)
    world.collect()
    assert {one.gap for one in world.filled} == {gap.id for gap in world.gaps}
    world.accounted()


def test_a_value_that_is_older_than_the_birth_before_it_closes_nothing_but_its_own_instant() -> None:
    world = World()
    _offline(world)
    gone, world.ms = world.ms, world.ms + 200
    world.bd = 1
    for message in world.birth():
        world.node.take(message, 1.0)
    world.node.take(world.datum(at=gone + 50), 1.1)
    world.said[99] = _time(gone + 100)  # the machine said it while the node was away, and nobody kept it
    for now in (1.1 + limits.SPARKPLUG_HISTORY_PAUSE_S, 1.1 + limits.SPARKPLUG_HISTORY_QUIET_S):
        world.node.expire(now)
    world.collect()
    world.accounted()


def test_a_kill_while_data_waits_for_the_birth_of_its_device_is_told() -> None:
    world = World()
    for message in [*world.birth(), world.datum()]:
        world.node.take(message, 0.0)
    world.collect()
    world.restart()
    for _ in range(3):
        world.node.take(world.datum(), 1.0)
    world.node.take(world.birth()[0], 1.1)  # and the device's does not come before the next kill
    world.collect()
    world.restart()
    for message in [*world.birth(), world.datum()]:
        world.node.take(message, 2.0)
    world.collect()
    assert world.numbers == [1, 5]
    world.accounted()
