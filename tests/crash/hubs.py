"""The hub as the trials run it: the program's own `hub-intake` and `hub-follow`, each in a process that was forked from one import.

What is changed in them: where adapters come from, one view more, and how the process dies.
"""

import mmap
import random
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from events.base import Recorded
from hub import points
from hub.app import worker
from hub.app.servers.postgres import Database
from hub.app.settings import Settings
from hub.app.wiring import Hub, views
from projections.base import Rows, Table, TableView
from tests.crash.ground import Access
from tests.crash.sources import SourceAdapter

_POINTS = (*points.POINTS, *points.EDGE)


class _Keyless(Table):
    """A table whose key nobody minds."""

    def ddl(self) -> str:
        return self.bare()

    def dress(self) -> str:
        return ""


class Tally(TableView):
    """A view that betrays a fold that was done twice or not at all: a row a fact, with no key that would refuse the second."""

    name = "tally"
    tables = (_Keyless("seen", {"position": "bigint not null"}, key=("position",)),)

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        yield self.tables[0], ([fact.position] for fact in facts)


def followed() -> tuple[TableView, ...]:
    """All views of the hub, and the tally."""
    return (*views(), Tally())


def followed_to(access: Access, position: int) -> bool:
    """Whether every live view has come that far."""
    try:
        return all(access.ask(f"select position from view_{v.name}.position")[0][0] >= position for v in followed())  # noqa: S608 - our own names
    except psycopg.errors.UndefinedTable:
        return False  # no follower lived long enough yet to make it


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


class Stops:
    """Memory shared with forked processes: at which point each is to stop itself by a signal, where it did, and whether it works.

    A slot has four numbers: number of the point, times to reach it, number of the point where it stopped, 1 once it has finished something.
    """

    def __init__(self, slots: int) -> None:
        self._memory = memoryview(mmap.mmap(-1, 16 * slots)).cast("i")

    def give(self, slot: int, point: str | None, nth: int = 1) -> None:
        """The order for the process of a slot, before it starts or while it lives; None takes one back."""
        self._memory[4 * slot + 1] = nth
        self._memory[4 * slot] = _POINTS.index(point) + 1 if point else 0

    def arm(self, slot: int, signum: signal.Signals) -> None:
        """In the forked process: send that signal to ourselves where it is ordered."""
        memory, at, one = self._memory, 4 * slot, threading.Lock()

        def act(name: str) -> None:
            if name in ("after acknowledgement", "view committed", "relay moved"):
                memory[at + 3] = 1
            number = _POINTS.index(name) + 1
            with one:
                if memory[at] != number:
                    return
                memory[at + 1] -= 1
                if memory[at + 1] == 0:
                    memory[at], memory[at + 2] = 0, number
                    signal.pthread_kill(threading.get_ident(), signum)  # this thread: it must not go on beyond the point

        points.arm(act)

    def take(self, slot: int) -> str | None:
        """At which point the process of a slot stopped itself."""
        number, self._memory[4 * slot + 2] = self._memory[4 * slot + 2], 0
        return _POINTS[number - 1] if number else None

    def forget(self, slot: int) -> None:
        """From now on: has the process of a slot finished something?"""
        self._memory[4 * slot + 3] = 0

    def worked(self, slot: int) -> bool:
        """Whether it acknowledged or committed something since it was forgotten."""
        return bool(self._memory[4 * slot + 3])


def run_intake(owner_url: str, places: Sequence[Path]) -> None:
    """`hub-intake` with our sources as its adapters, until SIGTERM."""
    worker.adapters_of = lambda settings: [SourceAdapter(place) for place in places]
    worker.run_intake(_hub(owner_url), until_sigterm())


def run_follow(owner_url: str) -> None:
    """`hub-follow` with the tally beside its views, until SIGTERM."""
    worker.views = followed  # type: ignore[attr-defined, assignment]
    worker.run_follow(_hub(owner_url), until_sigterm())


def run_relay(owner_url: str, brokers: str, topic: str) -> None:
    """`hub-relay`, until SIGTERM."""
    settings = Settings(home=Path("/nonexistent"), relay_brokers=brokers, relay_topic=topic)
    worker.run_relay(Hub(settings, Database(owner_url)), until_sigterm())


def run_shipped(role: str, owner_url: str, settings: Settings) -> None:
    """`hub-api`, `hub-intake` or `hub-plants` as they are, with what settings name, until SIGTERM."""
    {"api": worker.run_api, "intake": worker.run_intake, "plants": worker.run_plants}[role](
        Hub(settings, Database(owner_url)), until_sigterm()
    )


def _hub(owner_url: str) -> Hub:
    return Hub(Settings(home=Path("/nonexistent")), Database(owner_url))


def until_sigterm() -> threading.Event:
    """An event that SIGTERM sets in this process."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop
