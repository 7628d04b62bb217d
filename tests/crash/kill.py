"""kill: -9 at every seam.

Promise: what was acknowledged is in the log, once, in order, whatever instant the hub dies at; views come to what the log says (P1 to P5, P7).
Way: intake and two followers of every view, forked from one import, are killed at named points and at random instants, and started again,
    while source processes that are never killed send on and begin again after their last acknowledgement.
Oracle: the sources' own records against the events in the database, counted by an id in their data; a tally view against the log; replay's
    verify of all views.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psycopg

from hub import points
from hub.app.wiring import mappings
from tests.crash import mechanisms
from tests.crash.counted import judge, judge_views, stored
from tests.crash.deliveries import delivery, kind
from tests.crash.ground import Access, Child, Ground, Trial
from tests.crash.hubs import Death, Deaths, followed, run_follow, run_intake
from tests.crash.report import Found
from tests.crash.sources import Record, run_source

SOURCES = 3
PER_SECOND = 150.0  # new deliveries a second of one source: enough that there is always work, and a whole run stays below a million facts
STUCK_S = 4.0  # a process that has not reached its point by then is killed where it is
SLOTS = ("intake", "follow-1", "follow-2")  # two followers of the same views: one must not do again what the other did


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    mappings()
    found = Found(runs=0, exercised=dict.fromkeys(points.POINTS, 0))
    with ground.database() as access:
        places = [ground.folder / f"source-{n}" for n in range(SOURCES)]
        records = [ground.folder / f"record-{n}.json" for n in range(SOURCES)]
        sources = [
            ground.fork(f"source {n}", run_source, ground.seed, n, places[n], records[n], PER_SECOND, hub=False) for n in range(SOURCES)
        ]
        _kill(ground, access, places, found)
        _drain(ground, access, places, sources, found)
        _judge(ground, access, [Record.load(path) for path in records if path.exists()], found)
        if ground.complete:
            judge_views(found, access, print)
    return found


def _start(ground: Ground, access: Access, places: list[Path], slot: str, arm: Callable[[], None] | None = None) -> Child:
    def work() -> None:
        if arm is not None:
            arm()
        if slot == "intake":
            run_intake(access.owner, places)
        else:
            run_follow(access.owner)

    return ground.fork(slot, work)


def _kill(ground: Ground, access: Access, places: list[Path], found: Found) -> None:
    """Start and kill until the plan is done."""
    total, deaths = ground.size(300, 10_000), Deaths(len(SLOTS))
    rngs = [ground.rng(slot) for slot in SLOTS]
    running: list[tuple[Child, Death, float] | None] = [None] * len(SLOTS)
    at: Counter[str] = Counter()
    while found.runs < total:
        now = time.monotonic()
        for n, slot in enumerate(SLOTS):
            live = running[n]
            if live is None:
                names, nth, after = (points.INTAKE, 3, 0.2) if slot == "intake" else (points.FOLLOW, 10, 0.4)
                death = Death.plan(rngs[n], names, nth, after)
                child = _start(ground, access, places, slot, partial(deaths.arm, n, death))
                running[n] = child, death, now + (death.after if death.point is None else STUCK_S)
                continue
            child, death, due = live
            if not child.ended() and now >= due:
                child.kill()
            if child.ended():
                where = deaths.take(n)
                if child.code != -signal.SIGKILL:
                    found.wrong["ended by themselves"] = found.wrong.get("ended by themselves", 0) + 1
                at[where or ("random instant" if death.point is None else "point not reached in time")] += 1
                found.runs += 1
                if found.runs % 1000 == 0:
                    print(f"  {found.runs} of {total}", flush=True)
                running[n] = None
        time.sleep(0.001)
    for live in running:
        if live is not None:
            live[0].kill()
    assert found.exercised is not None
    found.exercised.update({name: at.pop(name, 0) for name in points.POINTS})
    found.exercised["random instant"] = at.pop("random instant", 0)
    found.also["late"] = at.total()


def _drain(ground: Ground, access: Access, places: list[Path], sources: list[Child], found: Found) -> None:
    """Let the hub live until every source has its acknowledgements and every view is at the head."""
    hub = [_start(ground, access, places, slot) for slot in SLOTS[:2]]
    for source in sources:
        source.send(signal.SIGTERM)
    drained = all(source.wait(60) for source in sources) and all(source.code == 0 for source in sources)
    found.wrong["sources not drained"] = int(not drained)
    until = time.monotonic() + (30 if ground.complete else 8)
    while not _at_head(access) and time.monotonic() < until:
        time.sleep(0.05)
    for child in hub:
        child.send(signal.SIGTERM)
    found.wrong["not ended by SIGTERM"] = sum(not child.wait(10) for child in hub) if ground.complete else 0


def _at_head(access: Access) -> bool:
    ((head,),) = access.ask("select coalesce(max(position), 0) from log.event")
    try:
        return all(access.ask(f"select position from view_{view.name}.position")[0][0] >= head for view in followed())  # noqa: S608 - our own names
    except psycopg.errors.UndefinedTable:
        return False  # no follower lived long enough yet to make it


def _judge(ground: Ground, access: Access, records: list[Record], found: Found) -> None:
    log = stored(access)
    sent: set[str] = set()
    acked: list[str] = []
    calls: list[tuple[str, int, int, int]] = []
    astray = wrong_position = 0
    for source, record in enumerate(records):
        for n, call in enumerate(record.sent):
            one = delivery(ground.seed, source, n)
            sent.update(one.ids)
            if n < len(record.acks):
                ack, position = record.acks[n]
                acked.extend(one.ids)
                if one.own:
                    calls.append((one.ids[0], call, ack, position))
                    wrong_position += position != log.at.get(one.ids[0]) and ground.complete
        astray += record.astray
    judge(found, log, sent, acked)
    found.in_flight = sum(r.in_flight for r in records)
    found.redelivered = sum(r.redelivered for r in records)
    found.wrong.update({"acknowledged with another position": wrong_position, "acknowledged astray": astray})
    found.also["deliveries"] = dict(Counter(kind(ground.seed, s, n) for s, r in enumerate(records) for n in range(len(r.sent))))
    ground.history.calls("sources", calls)
    ground.history.log(log.log)
    _judge_tally(access, log.head, found)


def _judge_tally(access: Access, head: int, found: Found) -> None:
    ((rows, distinct, position),) = access.ask(
        "select count(*), count(distinct s.position), (select p.position from view_tally.position p) from view_tally.seen s"
    )
    found.twice += rows - distinct
    found.skipped += position - distinct
    found.wrong["tally behind"] = head - position


TRIAL = Trial(
    "kill",
    run,
    seconds=(150, 7200),
    without={"position-guard": mechanisms.position_guard, "ack-before-commit": mechanisms.ack_before_commit},
)
