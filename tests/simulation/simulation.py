"""simulation: the shipped loops in a world of one thread, one seed.

Promise: P2 to P5 and P7 hold whoever moves next and whatever fails (reliability.md).
Way: intake, followers (two of each view) and replay, the shipped code down to the bytes of the codec, over a store in memory; one scheduler
    chooses who moves, also between any two transactions of somebody else. The store refuses, fails before and after commit; processes die at
    the named points; sources send again, late, from further back; clocks jump by a day; rebuilds are interrupted and gone on with.
Oracle: the sources' own records against the rows of the store; what was folded into each view against the log; verify of replay.

A seed that fails is printed and plays again exactly: `python -m tests.simulation.simulation 1/37`.
"""

import functools
import hashlib
import json
import random
import sys
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from events.errors import Refused, Unavailable
from hub import points
from hub.app.wiring import mappings, named_views
from hub.intake.delivery import Delivery, Outcome
from hub.intake.door import Intake, Loop
from hub.log.follow import View, live_schema
from projections.base import TableView
from replay.promote import promote
from replay.rebuild import Progress, rebuild
from replay.verify import verify
from tests.crash import mechanisms
from tests.crash.counted import count, judge
from tests.crash.deliveries import delivery
from tests.crash.ground import Ground, Trial
from tests.crash.report import Found, commit
from tests.simulation.memory import MemoryFollower, MemoryGround, MemoryLog, Store
from tests.simulation.references import REFERENCES

SOURCES, DELIVERIES = 2, 25
STEPS = 400  # moves of the scheduler with faults, of a seed
DRAIN = 400  # moves without faults, by which everything must be done
FAULTS = ("refused", "failed before commit", "reply lost", "sent again", "late", "clock jumped", "rebuild interrupted", "promoted")


class Crash(BaseException):
    """A process has died: whoever drives it starts it again with nothing in memory."""


class World:
    """Everything that one seed decides."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)
        self.seed = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big")
        self.hits: Counter[str] = Counter()
        self.rates = {name: self.rng.choice((0.0, 0.01, 0.05)) for name in ("crash", *FAULTS)}
        self.faulty = True
        self.stopping = False
        self.clock = datetime(2026, 1, 5, 6, tzinfo=UTC)
        self.store = Store(self._fault, self.others)
        self.trace = hashlib.sha256()
        self.moving: list[Actor] = []
        self.sources = [Source(self, n) for n in range(SOURCES)]
        views: tuple[TableView, ...] = named_views(sorted(REFERENCES))
        self.views = views
        self.actors: list[Actor] = [
            *(IntakeActor(self, source) for source in self.sources),
            *(FollowActor(self, view) for view in views for _ in range(2)),
            ReplayActor(self, views),
        ]

    def now(self) -> datetime:
        """The clock of the hub, which jumps."""
        self.clock += timedelta(milliseconds=self.rng.randrange(50))
        if self.happens("clock jumped"):
            self.clock += timedelta(days=self.rng.choice((-1, 1)))
        return self.clock

    def happens(self, name: str) -> bool:
        """Whether a fault strikes now; counted."""
        struck = self.faulty and self.rng.random() < self.rates[name]
        self.hits[name] += struck
        return struck

    def reached(self, name: str) -> None:
        """A named point: who moves may die here."""
        if self.faulty and self.rng.random() < self.rates["crash"]:
            self.hits[name] += 1
            raise Crash(name)

    def others(self) -> None:
        """Between two transactions, or while somebody waits, others may move."""
        idle = [actor for actor in self.actors if actor not in self.moving]
        while idle and self.faulty and self.rng.random() < 0.3:
            self.move(self.rng.choice(idle))

    def move(self, actor: "Actor") -> None:
        """Let one make a step; one that dies is started again."""
        if actor in self.moving:
            return
        self.moving.append(actor)
        self.trace.update(f"{actor.name} {len(self.store.rows)}\n".encode())
        try:
            actor.step()
        except Crash:
            actor.start()
        except Unavailable:
            self.hits["unavailable"] += 1
        finally:
            self.moving.remove(actor)

    def run(self) -> None:
        """The whole life: with faults, then without until all is done."""
        points.arm(self.reached)
        try:
            for _ in range(STEPS):
                self.move(self.rng.choice(self.actors))
            self.faulty = False
            for _ in range(DRAIN):
                for actor in self.actors:
                    self.move(actor)
                if all(source.done for source in self.sources) and all(self.at_head(view) for view in self.views):
                    break
        finally:
            points.arm(None)

    def at_head(self, view: View) -> bool:
        """Whether the live view has everything."""
        schema = self.store.schemas.get(live_schema(view.name))
        return schema is not None and [at for at, _ in schema.positions] == [len(self.store.rows)]

    def _fault(self, moment: str) -> None:
        name = {"connect": "refused", "begin": "refused", "commit": "failed before commit", "committed": "reply lost"}[moment]
        if self.happens(name):
            raise psycopg.OperationalError(f"simulated: {name}")

    # -- what `Loop` takes for the event that ends it ------------------------------------------------------------------------------------

    def is_set(self) -> bool:
        return self.stopping

    def wait(self, seconds: float) -> bool:
        """Somebody waits: time passes, others move."""
        self.clock += timedelta(seconds=seconds)
        self.others()
        return self.faulty and self.rng.random() < 0.05  # ended while it waited


class Source:
    """Sends in order, keeps what is not acknowledged, and begins again behind its last acknowledgement, or further back."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number, self.name = world, number, f"source {number}"
        self.acks: list[int] = []
        self.next = self.sent = 0
        self.redelivered = self.astray = self.in_flight = 0

    @property
    def done(self) -> bool:
        return len(self.acks) == DELIVERIES

    def open(self) -> None:
        if self.world.happens("refused"):
            raise Unavailable(f"{self.name} does not answer")
        back = self.world.rng.randrange(4) if self.world.happens("sent again") else 0
        self.next = max(0, len(self.acks) - back)

    def close(self) -> None:
        self.in_flight += max(0, self.next - len(self.acks))
        self.next = len(self.acks)

    def receive(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        if self.world.happens("late"):
            return []
        found = []
        for _ in range(min(limit, self.world.rng.randint(1, 6))):
            if self.next < DELIVERIES:
                self.redelivered += self.next < self.sent
                self.sent = max(self.sent, self.next + 1)
                body = delivery(self.world.seed, self.number, self.next).body
                found.append(Delivery(body, "trial", self.world.now(), {}, functools.partial(self._done, self.next)))
                self.next += 1
        return found

    def _done(self, number: int, outcome: Outcome) -> None:
        lines = [line for part in outcome.parts for line in part.lines if line.outcome in ("accepted", "duplicate")]
        position = (lines[0].position if lines else None) or 0
        if number == len(self.acks):
            self.acks.append(position)
        else:
            self.astray += number > len(self.acks) or self.acks[number] != position


class Actor(ABC):
    """One process."""

    name: str

    def __init__(self, world: World) -> None:
        self.world = world
        self.start()

    @abstractmethod
    def start(self) -> None:
        """Begin with nothing in memory."""

    @abstractmethod
    def step(self) -> None:
        """Do the next thing."""


class IntakeActor(Actor):
    """`hub-intake` of one source."""

    def __init__(self, world: World, source: Source) -> None:
        self.name, self._source = source.name, source
        super().__init__(world)

    def start(self) -> None:
        log = MemoryLog(self.world.store, self.world.now)
        self._loop = Loop(self._source, Intake(log, mappings()), lambda text: None)

    def step(self) -> None:
        self._loop.step(self.world, 0)  # type: ignore[arg-type]


class FollowActor(Actor):
    """One follower of a view."""

    def __init__(self, world: World, view: View) -> None:
        self.name, self._view = f"view {view.name}", view
        super().__init__(world)

    def start(self) -> None:
        self._follower, self._ready = MemoryFollower(self.world.store, self._view), False

    def step(self) -> None:
        if not self._ready:
            self._follower.ensure()
            self._ready = True
        self._follower.step(self.world.rng.choice((1, 7, 100)))


class ReplayActor(Actor):
    """`hub replay`: rebuild, verify, promote, one command a step."""

    name = "replay"

    def __init__(self, world: World, views: Sequence[TableView]) -> None:
        self._views = views
        self.differing = 0
        super().__init__(world)

    def start(self) -> None:
        self._ground = MemoryGround(self.world.store)

    def step(self) -> None:
        world, chosen = self.world, self.world.rng.random()
        views = self._views if world.rng.random() < 0.5 else [world.rng.choice(self._views)]
        if not world.faulty or chosen < 0.5:
            rebuild(self._ground, views, self._interrupted, batch=world.rng.choice((1, 7, 100)), restart=world.rng.random() < 0.1)
        elif chosen < 0.8:
            try:
                promote(self._ground, views)
                world.hits["promoted"] += 1
            except Refused:  # no whole shadow is there: nothing was swapped
                world.hits["nothing to promote"] += 1
        else:
            self.verify(views)

    def verify(self, views: Sequence[TableView]) -> None:
        """Whoever moves meanwhile, live and rebuilt agree, once somebody has followed."""
        if any(live_schema(view.name) not in self.world.store.schemas for view in views):
            return
        _, found = verify(self._ground, views)
        self.differing += sum(not table.equal for tables in found.values() for table in tables.values())

    def _interrupted(self, progress: Progress) -> None:
        if progress.position < progress.target and self.world.happens("rebuild interrupted"):
            raise Crash("rebuild")


def play(seed: str) -> tuple[Found, str]:
    """The whole life of a seed, what is wrong at its end, and a hash of all that happened."""
    world = World(seed)
    found = Found(runs=1, in_flight=0, redelivered=0)
    try:
        world.run()
        _judge(world, found)
    except Exception as error:  # noqa: BLE001 - whatever rises is a finding of this seed
        traceback.print_exc()
        found.wrong[f"raised {type(error).__name__}"] = 1
    found.exercised = dict(world.hits)
    for row in world.store.rows:
        world.trace.update(repr(row).encode())
    return found, world.trace.hexdigest()


def _judge(world: World, found: Found) -> None:
    rows = world.store.rows
    log = count((row[0], row[1], row[2], row[3], row[11].decode()) for row in rows)
    sent: set[str] = set()
    acked: list[str] = []
    astray = 0
    for source in world.sources:
        astray += source.astray
        found.in_flight = (found.in_flight or 0) + source.in_flight
        found.redelivered = (found.redelivered or 0) + source.redelivered
        for n in range(source.sent):
            one = delivery(world.seed, source.number, n)
            sent.update(one.ids)
            if n < len(source.acks):
                acked += one.ids
                astray += one.own and source.acks[n] != log.at.get(one.ids[0])
    judge(found, log, sent, acked)
    found.wrong["acknowledged astray"] = astray
    found.wrong["not drained"] = sum(not source.done for source in world.sources) + sum(not world.at_head(view) for view in world.views)
    for view in world.views:
        schema = world.store.schemas.get(live_schema(view.name))
        folded = [fact.position for fact in schema.facts] if schema else []
        found.twice += len(folded) - len(set(folded))
        found.skipped += len(rows) - len(set(folded))
        found.misordered += folded != sorted(folded)
    replay = next(actor for actor in world.actors if isinstance(actor, ReplayActor))
    replay.verify(world.views)
    found.wrong["views differ"] = replay.differing


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    mappings()
    total, workers = ground.size(500, 10_000), 2
    places = [ground.folder / f"seeds-{n}.json" for n in range(workers)]
    playing = [ground.fork(f"seeds {n}", _play_many, ground.seed, range(n, total, workers), places[n]) for n in range(workers)]
    found = Found(runs=0, in_flight=0, redelivered=0, exercised=dict.fromkeys((*points.INTAKE, *points.FOLLOW, *FAULTS), 0))
    found.wrong["workers that failed"] = sum(not w.wait(3600) or w.code != 0 for w in playing)
    for place in places:
        if place.exists():
            _add(found, Found(**json.loads(place.read_text())))
    found.wrong["seeds not played"] = total - found.runs
    return found


def _play_many(seed: int, numbers: Sequence[int], place: Path) -> None:
    whole = Found(runs=0, in_flight=0, redelivered=0, exercised={})
    for n in numbers:
        found, trace = play(f"{seed}/{n}")
        if n % 50 < 2 and play(f"{seed}/{n}")[1] != trace:
            found.wrong["not deterministic"] = 1
        if found.harm or any(found.wrong.values()):
            print(f"seed {seed}/{n} of commit {commit()}: {found}", file=sys.stderr, flush=True)
            whole.also.setdefault("failing seeds", []).append(f"{seed}/{n}")
        found.also = {"facts": found.also.get("facts", 0)}
        _add(whole, found)
    place.write_text(json.dumps(asdict(whole)))


def _add(whole: Found, one: Found) -> None:
    """Sum what was counted."""
    for name in ("runs", "lost", "twice", "skipped", "misordered", "in_flight", "redelivered"):
        setattr(whole, name, (getattr(whole, name) or 0) + (getattr(one, name) or 0))
    assert whole.exercised is not None
    for into, more in ((whole.exercised, one.exercised or {}), (whole.wrong, one.wrong)):
        for name, n in more.items():
            into[name] = into.get(name, 0) + n
    for name, value in one.also.items():
        whole.also[name] = whole.also[name] + value if name in whole.also else value
    if len(seeds := whole.also.get("failing seeds", [])) > 10:
        whole.also["failing seeds"] = [*seeds[:10], "…"]


_WITHOUT: dict[str, Callable[[], None]] = {"receipt": mechanisms.receipt, "ack-before-commit": mechanisms.ack_before_commit}
TRIAL = Trial("simulation", run, seconds=(120, 3600), without=_WITHOUT)

if __name__ == "__main__":
    mappings()
    said: Any = play(sys.argv[1])
    print(said[0], said[1], sep="\n")
