"""The hub as the trials run it: the program's own `hub-intake` and `hub-follow`, each in a process that was forked from one import.

What is changed in them: where adapters come from, one view more, and how the process dies.
"""

import mmap
import os
import random
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from events.base import Recorded
from hub import points
from hub.app import worker
from hub.app.servers.postgres import Database
from hub.app.settings import Settings
from hub.app.wiring import Hub, views
from hub.log.follow import Cursor, View
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


def run_intake(owner_url: str, places: Sequence[Path]) -> None:
    """`hub-intake` with our sources as its adapters, until SIGTERM."""
    worker.adapters_of = lambda settings: [SourceAdapter(place) for place in places]
    worker.run_intake(_hub(owner_url), _until_sigterm())


def run_follow(owner_url: str) -> None:
    """`hub-follow` with the tally beside its views, until SIGTERM."""
    worker.views = followed  # type: ignore[attr-defined, assignment]
    worker.run_follow(_hub(owner_url), _until_sigterm())


def _hub(owner_url: str) -> Hub:
    return Hub(Settings(home=Path("/nonexistent")), Database(owner_url))


def _until_sigterm() -> threading.Event:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop
