"""pause: SIGSTOP in the middle, another takes over, SIGCONT.

Promise: a process that was paused does not write what another did meanwhile, holds nobody up for ever, and goes on by itself (P1 to P5).
Way: two intakes and two followers of every view, forked from one import, all live through the run. One at a time is stopped by SIGSTOP at a
    named point (inside the append lock, with a view's position locked, before it acknowledges) or at a random instant, for shorter or for
    longer than an idle transaction may last; after a longer pause the others must have taken over before it gets SIGCONT. The small run
    and most of a whole one shorten the limits of the hub's waits; the last pauses of a whole one are under the limits as shipped.
Oracle: as in `kill`: the sources' own records against the events in the database, the tally against the log, replay's verify of all views;
    that the others take over is read from the log and the views' positions by SQL, that a paused one works again from its own points.
"""

import os
import signal
import time
from functools import partial

from hub import limits, points
from hub.app.servers import process
from hub.app.wiring import mappings
from tests.crash import mechanisms
from tests.crash.ground import Child, Ground, Trial
from tests.crash.hubs import Stops, followed_to
from tests.crash.report import Found
from tests.crash.traffic import Traffic

SLOTS = ("intake-1", "follow-1", "intake-2", "follow-2")
SHORTER_BY = 10.0  # the hub's limits in a small run: an idle transaction ends after 1 s, who waits for a view gives up after 1.5 s
INSTANT = "random instant"
AT = {  # where they are stopped, in turn; as many as two that take turns both come to each
    "intake": ("copying", INSTANT, "before acknowledgement", "before commit", "after commit"),
    "follow": ("view written", "position moved", INSTANT, "view committed", INSTANT),
}
HOLDS = ("copying", "before commit", "view written", "position moved")  # there it has a lock that the others need
REACH_S = 20.0  # a process that lives reaches its point by then


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    mappings()
    names = sorted({name for of in AT.values() for name in of})
    found = Found(runs=0, exercised=dict.fromkeys((*names, "longer", "longer with a lock", "shorter", "taken over", "works again"), 0))
    with ground.database() as access:
        traffic = Traffic(ground, access)
        hub = _pauses(ground, traffic, ground.size(12, 480), SHORTER_BY, found)
        if not ground.small:
            for child in hub:
                child.send(signal.SIGTERM)
            found.wrong["not ended by SIGTERM between"] = sum(not child.wait(10) for child in hub)
            hub = _pauses(ground, traffic, 20, 1.0, found)
        traffic.drain(hub, found)
        traffic.judge(found)
    return found


def _pauses(ground: Ground, traffic: Traffic, count: int, shorter_by: float, found: Found) -> list[Child]:
    """Start the hub and pause it so often; its processes, which still live. The last round of each slot is a long one."""
    stops, rng = Stops(len(SLOTS)), ground.rng(f"pauses {shorter_by}")
    idle_s = limits.IDLE_IN_TRANSACTION_S / shorter_by

    def first(slot: int) -> None:
        for name in ("IDLE_IN_TRANSACTION_S", "LOCK_TIMEOUT_S", "FOLLOW_LOCK_TIMEOUT_S", "RETRY_MAX_S"):
            setattr(limits, name, getattr(limits, name) / shorter_by)
        stops.arm(slot, signal.SIGSTOP)

    hub = [traffic.start(slot, partial(first, n)) for n, slot in enumerate(SLOTS)]
    process.wait_until(lambda: all(stops.worked(n) for n in range(len(SLOTS))), REACH_S)
    for done in range(count):
        n = done % len(SLOTS)
        turn = AT[SLOTS[n].partition("-")[0]]
        longer = rng.random() < 0.5 or done >= count - len(SLOTS)
        pause_s = idle_s * (rng.uniform(1.1, 1.3) if longer else rng.uniform(0.1, 0.5))
        _pause(traffic, hub[n], stops, n, turn[(done // 2) % len(turn)], pause_s, longer, rng.uniform(0, 0.3), found)
        found.runs += 1
        if found.runs % 50 == 0:
            print(f"  {found.runs} pauses", flush=True)
    found.wrong["ended by themselves"] = found.wrong.get("ended by themselves", 0) + sum(child.ended() for child in hub)
    return hub


def _pause(
    traffic: Traffic, child: Child, stops: Stops, slot: int, where: str, pause_s: float, longer: bool, after_s: float, found: Found
) -> None:
    """Stop one process there, let the others go on, and wake it up."""
    assert found.exercised is not None

    def wrong(what: str) -> None:
        found.wrong[what] = found.wrong.get(what, 0) + 1
        print(f"  {what}: {child.name} at {where}, {pause_s:.2f} s", flush=True)

    if where in points.POINTS:
        stops.give(slot, where)
        if not process.wait_until(lambda: _stopped(child), REACH_S, every=0.001):
            stops.give(slot, None)
            wrong("point not reached")
            return
        stops.take(slot)
    else:
        time.sleep(after_s)  # the instant is the plan's
        child.send(signal.SIGSTOP)
        process.wait_until(lambda: _stopped(child), 5, every=0.001)
    found.exercised[where] += 1
    found.exercised["longer" if longer else "shorter"] += 1
    found.exercised["longer with a lock"] += longer and where in HOLDS
    head = traffic.access.head()
    time.sleep(pause_s)  # the fault itself
    if longer:
        # what the log holds by now is more than the paused one can have left committed; the others bring it, and the views to it
        if process.wait_until(lambda: traffic.access.head() > head and followed_to(traffic.access, head + 1), 3 * pause_s + 5, every=0.02):
            found.exercised["taken over"] += 1
        else:
            wrong("not taken over")
    stops.forget(slot)
    child.send(signal.SIGCONT)
    if process.wait_until(lambda: stops.worked(slot), REACH_S):
        found.exercised["works again"] += 1
    else:
        wrong("does not work again")


def _stopped(child: Child) -> bool:
    return os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG) is not None


TRIAL = Trial("pause", run, seconds=(150, 3600), without={"position-guard": mechanisms.position_guard})
