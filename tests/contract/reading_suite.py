"""What every source of readings must pass (`hub.intake.readings.ReadingSource`): `class TestX(ReadingLaws)` with a fixture `plant`.

A plant is the far side, real and in a process of its own, that says numbers which count up; `Edge` stands for the edge's loop and its spool:
what was handed over is durable when `keep` returns, with its memory, and only then `done` is called.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import pytest

from events.errors import Unavailable
from hub.intake.readings import Filled, Gap, Observed, Reading, ReadingSource

WAIT_S = 30.0
REMEDIES = ("start", "correct", "check", "look at", "allow", "trust", "name", "set")  # an error for people says what to do


class Plant(Protocol):
    """The far side of a source. Numbers count up by one over its whole life, in one tag, and begin with what is said first."""

    exact: timedelta  # how far the ends of a gap may be off

    def source(self) -> ReadingSource:
        """A new source for this plant, always with the same settings; not opened."""
        ...

    def nowhere(self) -> ReadingSource:
        """A source with an address at which nobody answers."""
        ...

    def say(self, count: int) -> Sequence[int]:
        """Say the next numbers, each with its time; returns them when the plant has said them, whether anybody listens or not."""
        ...

    def number(self, reading: Reading) -> int | None:
        """The number that a reading carries; None for readings of other tags, of values from before the test, and of one that is only repeated."""
        ...

    def said_at(self, number: int) -> datetime:
        """The source's time of a number that was said."""
        ...

    def down(self) -> None:
        """Cut the line (the plant itself goes on)."""
        ...

    def up(self) -> None:
        """Mend it."""
        ...


class Edge:
    """The loop and the spool of an edge. `kill` forgets everything that was not kept, as kill -9 does."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self.memory: dict[str, bytes] = {}
        self.readings: list[Reading] = []
        self.gaps: list[Gap] = []
        self.filled: list[Filled] = []
        self.source: ReadingSource | None = None

    @property
    def numbers(self) -> list[int]:
        return [n for reading in self.readings if (n := self._plant.number(reading)) is not None]

    def open(self) -> ReadingSource:
        """An open source, tried again with back-off as the edge does."""
        until = time.monotonic() + WAIT_S
        while True:
            source = self.source or self._plant.source()
            try:
                source.open(self.memory.get)
            except Unavailable:
                source.close()
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
                continue
            self.source = source
            return source

    def receive(self, limit: int = 500, wait_s: float = 0.2) -> Sequence[Observed]:
        """What comes next; a line that is lost is opened again."""
        source = self.source or self.open()
        try:
            return source.receive(limit, wait_s)
        except Unavailable:
            source.close()
            self.open()
            return []

    def keep(self, observed: Sequence[Observed], *, done: bool = True) -> None:
        """Make durable, then tell the source (or die in between)."""
        for one in observed:
            self.readings += one.readings
            self.gaps += one.gaps
            self.filled += one.filled
            self.memory.update(one.memory)
            if done:
                one.done()

    def until(self, reached: Callable[[], bool], wait_s: float = WAIT_S, limit: int = 500) -> None:
        """Receive and keep until something is so."""
        end = time.monotonic() + wait_s
        while not reached():
            assert time.monotonic() < end, f"kept {self.numbers[-5:]} and gaps {self.gaps[-3:]}"
            self.keep(self.receive(limit))

    def settle(self, quiet_s: float = 1.0) -> None:
        """Receive and keep until nothing comes for a while."""
        heard = time.monotonic()
        while time.monotonic() - heard < quiet_s:
            observed = self.receive()
            self.keep(observed)
            if any(one.readings or one.gaps for one in observed):
                heard = time.monotonic()

    def close(self) -> None:
        if self.source is not None:
            self.source.close()

    def kill(self) -> None:
        """The process is gone, without a word to the far side about what was not kept; another one begins with what is durable."""
        self.close()
        self.source = None

    def accounted(self, said: Sequence[int]) -> None:
        """Each number came once or lies within a gap that is not filled, none came that lies inside of one, and each gap has bounds."""
        came = self.numbers
        assert len(came) == len(set(came)), f"twice: {sorted(n for n in set(came) if came.count(n) > 1)[:10]}"
        done = {filled.gap for filled in self.filled}
        gaps = [gap for gap in self.gaps if gap.id not in done]
        for gap in gaps:
            assert gap.id
            assert gap.reason
            assert (gap.first is not None and gap.last is not None) or gap.since is not None, f"a gap without bounds: {gap}"
        missing = [n for n in said if n not in set(came)]
        unsaid = [n for n in missing if not any(self._covers(gap, n, self._plant.exact) for gap in gaps)]
        assert not unsaid, f"missing without a gap: {unsaid[:10]} of {len(unsaid)}; gaps {gaps}"
        wrong = [n for n in said if n in set(came) and any(self._covers(gap, n, -self._plant.exact) for gap in gaps)]
        assert not wrong, f"came, and lies within a gap: {wrong[:10]} of {len(wrong)}; gaps {gaps}"

    def _covers(self, gap: Gap, number: int, slack: timedelta) -> bool:
        if gap.first is not None and gap.last is not None:
            return gap.first <= number <= gap.last
        at = self._plant.said_at(number)
        return (gap.since is None or gap.since - slack <= at) and (gap.until is None or at <= gap.until + slack)


@pytest.fixture
def edge(plant: Plant) -> Iterator[Edge]:
    """An edge for the plant, closed afterwards."""
    found = Edge(plant)
    yield found
    found.close()


class ReadingLaws:
    """The laws. Subclasses give the fixture `plant`; import the fixture `edge` beside this class."""

    def test_what_is_said_comes_once_and_in_order(self, plant: Plant, edge: Edge) -> None:
        edge.open()
        said = plant.say(50)
        edge.until(lambda: len(edge.numbers) >= 50)
        said = [*said, *plant.say(50)]
        edge.until(lambda: len(edge.numbers) >= 100)
        edge.settle()
        assert edge.numbers == said
        assert all(reading.at == plant.said_at(n) for reading in edge.readings if (n := plant.number(reading)) is not None)
        assert not edge.gaps

    def test_silence_is_waited_for_no_longer_than_asked(self, edge: Edge) -> None:
        edge.open()
        edge.settle()
        begun = time.monotonic()
        edge.receive(wait_s=0.3)
        assert time.monotonic() - begun < 1.5

    def test_what_was_not_made_durable_comes_again(self, plant: Plant, edge: Edge) -> None:
        edge.open()
        said = list(plant.say(20))
        edge.until(lambda: len(edge.numbers) >= 20)
        said += plant.say(20)
        seen: list[int] = []
        end = time.monotonic() + WAIT_S
        while len(seen) < 20 and time.monotonic() < end:  # handed over, and lost with the process
            seen += [n for one in edge.receive() for reading in one.readings if (n := plant.number(reading)) is not None]
        assert seen == said[20:]
        edge.kill()
        edge.open()
        said += plant.say(5)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.settle()
        edge.accounted(said)

    def test_a_kill_between_durable_and_done_brings_nothing_twice(self, plant: Plant, edge: Edge) -> None:
        edge.open()
        said = list(plant.say(30))
        end = time.monotonic() + WAIT_S
        while len(edge.numbers) < 30:
            assert time.monotonic() < end
            edge.keep(edge.receive(limit=7), done=False)
        edge.kill()
        edge.open()
        said += plant.say(10)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.settle()
        edge.accounted(said)
        assert edge.numbers == sorted(edge.numbers)

    @pytest.mark.parametrize("seed", range(3))
    def test_kills_at_any_instant_lose_nothing_without_a_gap(self, plant: Plant, edge: Edge, seed: int) -> None:
        chance = random.Random(seed)
        edge.open()
        said = list(plant.say(1))
        edge.until(lambda: said[-1] in edge.numbers)  # before anything is durable nobody can know that it is missing
        for _ in range(8):
            said += plant.say(chance.randrange(1, 30))
            for _ in range(chance.randrange(4)):
                observed = edge.receive(limit=chance.choice((1, 5, 500)))
                if chance.random() < 0.2:
                    break  # killed before it is durable
                edge.keep(observed, done=False)
                for one in observed[: chance.randrange(len(observed) + 1)]:  # killed while the source is told
                    one.done()
            edge.kill()
            said += plant.say(chance.randrange(5))  # while nobody listens
            edge.open()
        said += plant.say(1)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.settle()
        edge.accounted(said)

    def test_a_cut_is_survived_and_what_it_cost_is_named(self, plant: Plant, edge: Edge) -> None:
        edge.open()
        said = list(plant.say(20))
        edge.until(lambda: len(edge.numbers) >= 20)
        plant.down()
        said += plant.say(40)
        time.sleep(1.0)
        plant.up()
        said += plant.say(10)
        edge.settle(2.0)
        said += plant.say(10)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.settle()
        edge.accounted(said)

    @pytest.mark.parametrize("seed", range(2))
    def test_cuts_and_kills_in_any_order_are_accounted_for(self, plant: Plant, edge: Edge, seed: int) -> None:
        chance = random.Random(seed)
        edge.open()
        said = list(plant.say(1))
        edge.until(lambda: said[-1] in edge.numbers)
        for _ in range(10):
            said += plant.say(chance.randrange(1, 40))
            way = chance.choice(("cut", "kill", "both", "none"))
            if way in ("cut", "both"):
                plant.down()
                said += plant.say(chance.randrange(10))
            if way in ("kill", "both"):
                edge.kill()
            plant.up()
            for _ in range(chance.randrange(5)):
                observed = edge.receive(limit=chance.choice((1, 7, 500)))
                edge.keep(observed, done=chance.random() < 0.8)
        said += plant.say(1)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.settle()
        edge.accounted(said)

    def test_nobody_there_is_said_with_the_remedy(self, plant: Plant) -> None:
        source = plant.nowhere()
        for attempt in (lambda: source.open(lambda name: None), source.check):
            begun = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                attempt()
            assert time.monotonic() - begun < 15
            assert any(word in str(caught.value) for word in REMEDIES), str(caught.value)
            assert "Traceback" not in str(caught.value)
        source.close()

    def test_closing_is_repeatable_and_opening_after_it_works(self, plant: Plant, edge: Edge) -> None:
        source = plant.source()
        source.close()
        edge.open()
        edge.close()
        edge.close()
        edge.open()
        said = plant.say(3)
        edge.until(lambda: said[-1] in edge.numbers)

    def test_check_says_what_is_there_and_leaves_nothing_behind(self, plant: Plant, edge: Edge) -> None:
        lines = plant.source().check()
        assert lines
        assert all(line.strip() for line in lines)
        edge.open()
        said = plant.say(5)
        edge.until(lambda: said[-1] in edge.numbers)
