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
from functools import partial

from hub import points
from hub.app.wiring import mappings
from tests.crash import mechanisms
from tests.crash.ground import Child, Ground, Trial
from tests.crash.hubs import Death, Stops
from tests.crash.report import Found
from tests.crash.traffic import Traffic

STUCK_S = 4.0  # a process that has not reached its point by then is killed where it is
SLOTS = ("intake", "follow-1", "follow-2")  # two followers of the same views: one must not do again what the other did


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    mappings()
    found = Found(runs=0, exercised=dict.fromkeys(points.POINTS, 0))
    with ground.database() as access:
        traffic = Traffic(ground, access)
        _kill(ground, traffic, found)
        traffic.drain([traffic.start(slot) for slot in SLOTS[:2]], found)
        traffic.judge(found)
    return found


def _kill(ground: Ground, traffic: Traffic, found: Found) -> None:
    """Start and kill until the plan is done."""
    total, stops = ground.size(300, 10_000), Stops(len(SLOTS))
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
                stops.give(n, death.point, death.nth)
                child = traffic.start(slot, partial(stops.arm, n, signal.SIGKILL))
                running[n] = child, death, now + (death.after if death.point is None else STUCK_S)
                continue
            child, death, due = live
            if not child.ended() and now >= due:
                child.kill()
            if child.ended():
                where = stops.take(n)
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


TRIAL = Trial(
    "kill",
    run,
    seconds=(150, 7200),
    without={"position-guard": mechanisms.position_guard, "ack-before-commit": mechanisms.ack_before_commit},
)
