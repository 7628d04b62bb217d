"""kill: -9 at every seam.

Promise: what was acknowledged is in the log, once, in order, whatever instant the hub dies at; views come to what the log says (P1 to P5, P7),
    and so does the topic that the relay publishes to: nothing left out, the first of each fact in the order of its stream.
Way: intake, two followers of every view and the relay, forked from one import, are killed at named points and at random instants, and started again,
    while source processes that are never killed send on and begin again after their last acknowledgement. The broker (a real Apache Kafka) is
    killed too, again and again.
Oracle: the sources' own records against the events in the database, counted by an id in their data; a tally view against the log; replay's
    verify of all views; the topic, read by a plain consumer, against the log, read by SQL.
"""

import signal
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

from hub import points
from hub.app.wiring import mappings
from tests.crash import mechanisms
from tests.crash.ground import Child, Ground, Trial
from tests.crash.hubs import Death, Stops
from tests.crash.report import Found
from tests.crash.topic import topic
from tests.crash.traffic import Traffic

STUCK_S = 4.0  # a process that has not reached its point by then is killed where it is
SLOTS = ("intake", "follow-1", "follow-2")  # two followers of the same views: one must not do again what the other did
PLANS = {"intake": (points.INTAKE, 3, 0.2), "follow": (points.FOLLOW, 10, 0.4), "relay": (points.RELAY, 3, 1.5)}  # as Death.plan takes them


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    mappings()
    found = Found(runs=0)
    with ground.database() as access:
        traffic = Traffic(ground, access, topic(ground, found))
        slots = (*SLOTS, "relay") if traffic.topic is not None else SLOTS
        found.exercised = dict.fromkeys([name for slot in dict.fromkeys(s.partition("-")[0] for s in slots) for name in PLANS[slot][0]], 0)
        _kill(ground, traffic, slots, found)
        traffic.drain([traffic.start(slot) for slot in slots if slot != SLOTS[2]], found)
        traffic.judge(found)
        if traffic.topic is not None:
            found.exercised["published again"] = found.also["published again"]
    return found


def _kill(ground: Ground, traffic: Traffic, slots: Sequence[str], found: Found) -> None:
    """Start and kill until the plan is done."""
    total, stops = ground.size(300, 10_000), Stops(len(slots))
    rngs = [ground.rng(slot) for slot in slots]
    running: list[tuple[Child, Death, float] | None] = [None] * len(slots)
    at: Counter[str] = Counter()
    relays = ground.size(24, 600) if traffic.topic is not None else 0  # it connects anew for a second each time, and is to die often too
    while found.runs < total or relays > 0:
        now = time.monotonic()
        if traffic.topic is not None and found.runs >= (traffic.topic.kills + 1) * ground.size(75, 200):
            traffic.topic.kill()
        for n, slot in enumerate(slots):
            live = running[n]
            if live is None:
                death = Death.plan(rngs[n], *PLANS[slot.partition("-")[0]])
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
                relays -= slot == "relay"
                if found.runs % 1000 == 0:
                    print(f"  {found.runs} of {total}", flush=True)
                running[n] = None
        time.sleep(0.001)
    for live in running:
        if live is not None:
            live[0].kill()
    assert found.exercised is not None
    found.exercised.update({name: at.pop(name, 0) for name in found.exercised})
    found.exercised["random instant"] = at.pop("random instant", 0)
    found.also["late"] = at.total()


TRIAL = Trial(
    "kill",
    run,
    seconds=(240, 7200),
    without={
        "position-guard": mechanisms.position_guard,
        "ack-before-commit": mechanisms.ack_before_commit,
        "position-after-report": mechanisms.position_after_report,
    },
)
