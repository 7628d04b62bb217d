"""The hub as the trials run it: intake and followers of the program, each in a process that was forked from one import."""

import mmap
import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from events.base import Recorded
from hub import points
from hub.app import worker
from hub.app.wiring import mappings, views
from hub.intake.door import Intake, Loop
from hub.log.follow import Cursor, Follower, View
from hub.log.store import Log
from tests.crash.sources import SourceAdapter


class Tally:
    """A view that betrays a fold that was done twice or not at all: a row a fact, with no key that would refuse the second."""

    name = "tally"
    ddl = "create table seen (position bigint not null)"

    def fold(self, cursor: Cursor, facts: Sequence[Recorded]) -> None:
        cursor.execute("insert into seen select unnest(%s::bigint[])", [[fact.position for fact in facts]])


def followed() -> tuple[View, ...]:
    """All views of the hub, and the tally."""
    return (*views(), Tally())


@dataclass(frozen=True)
class Death:
    """How a process is to die: at the nth time it reaches a point, or by somebody else's hand after some seconds."""

    point: str | None
    nth: int
    after: float

    @classmethod
    def plan(cls, rng: random.Random, names: Sequence[str], nth_max: int, after_max: float) -> "Death":
        """The next death of a plan: three of five at a point, the others by hand."""
        point, nth, after = rng.choice(names), rng.randint(1, nth_max), rng.uniform(0, after_max)
        return cls(point if rng.random() < 0.6 else None, nth, after)


class Deaths:
    """Memory shared with forked processes, in which one says at which point it killed itself."""

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, max(slots, 1))

    def arm(self, slot: int, death: Death) -> None:
        """In the forked process: die there."""
        left = threading.Semaphore(death.nth - 1)

        def act(name: str) -> None:
            if name == death.point and not left.acquire(blocking=False):
                self._memory[slot] = points.POINTS.index(name) + 1
                os.kill(os.getpid(), signal.SIGKILL)

        points.arm(act if death.point else None)

    def take(self, slot: int) -> str | None:
        """At which point the process of a slot killed itself, once it is dead."""
        number, self._memory[slot] = self._memory[slot], 0
        return points.POINTS[number - 1] if number else None


def run_intake(door_url: str, places: Sequence[Path]) -> None:
    """What `hub-intake` runs: a guarded loop a source, each with a log of its own, until SIGTERM."""
    stop = _until_sigterm()
    loops = [Loop(SourceAdapter(place), Intake(Log(door_url), mappings()), worker.report) for place in places]
    _run([(loop.adapter.name, lambda loop=loop: loop.run(stop)) for loop in loops], stop)  # type: ignore[misc]


def run_follow(follow_url: str) -> None:
    """What `hub-follow` runs: a guarded follower a view, until SIGTERM."""
    stop = _until_sigterm()
    followers = [Follower(follow_url, view) for view in followed()]
    _run([(f"view {f.view.name}", lambda f=f: f.run(stop, worker.report)) for f in followers], stop)  # type: ignore[misc]


def _until_sigterm() -> threading.Event:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


def _run(works: Sequence[tuple[str, Callable[[], None]]], stop: threading.Event) -> None:
    worker._run_all([worker._guarded(name, work, stop) for name, work in works], stop)
