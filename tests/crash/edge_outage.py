"""edge-outage: a plant whose line to the hub, whose broker and whose edge fail again and again.

Promise: what an edge has spooled comes to the hub, once, in the order of its producer; what never comes is named by gap facts, and nothing that came is;
    when the line is back the backlog drains while live readings flow (P6).
Way: the shipped edge, forked from one import, in front of the shipped listener. Machines in other processes, which are never killed, publish over MQTT 5
    with QoS 1 (a real mosquitto, a persistent session), as Sparkplug edge nodes and from an OPC UA server with history, and post facts over HTTP. The edge is
    killed by SIGKILL at its named points and at random instants; the line is cut or held from outside, the hub's listener is killed, the broker is
    stopped and started, the server forgets its sessions. In the middle the spool is put back from a copy, after numbers of it were used that the copy
    does not know. From then on the edge lives in a process whose clock is seven minutes fast (`clock.c`), killed at random instants. The last cut is
    long; how fast it drains is measured.
Oracle: what machines wrote down before they sent it against raw deliveries and gap facts in the database (`site.Verdict`).
"""

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from hub import points
from hub.app.demo.line import CUT, HOLD, PASS, order
from hub.app.servers import process
from tests.crash import mechanisms
from tests.crash.clock import Clock, library
from tests.crash.edges import Alone
from tests.crash.ground import Child, Ground, Trial
from tests.crash.hubs import Death, Stops
from tests.crash.report import Found
from tests.crash.site import LIVE, Site, Verdict, via

DAY_S = 24 * 3600
FAST_S = 7 * 60
STUCK_S = 4.0  # an edge that has not reached its point by then is killed where it is
LINE_POINTS = ("batch read", "batch answered", "spool acknowledged")  # reached only while the line passes
SMALL = {"mqtt": 40.0, "sparkplug": 25.0, "opcua": 25.0, "http": 5.0}  # readings a second of each tag
WHOLE = {"mqtt": 250.0, "sparkplug": 60.0, "opcua": 60.0, "http": 10.0}
SPEED = 60.0  # a whole run is a day of the plant's time, in 24 minutes of ours


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    clock = ("clock seven minutes fast", "skew told") if ground.complete else ()
    seen = (
        "random instant", "line cut", "line held", "hub killed", "broker stopped", "server forgot its sessions", "epoch began", "numbers left out",
        "gaps open", "gaps filled", "read from history", *clock,
    )  # fmt: skip
    found = Found(runs=0, in_flight=0, exercised=dict.fromkeys((*points.EDGE, *seen), 0))
    pace: dict[str, Any] = {} if ground.small else {"speed": SPEED, "back_s": DAY_S}
    with Outage.opened(ground, found, SMALL if ground.small else WHOLE, {"max": "1GiB", "keep": "1MiB"}, **pace) as outage:
        last = outage.fast if ground.complete else outage.forked
        outage.begin(outage.forked)
        outage.kill(outage.edge, None)
        outage.kills(outage.forked, ground.size(16, 440))
        outage.change_epoch()
        outage.kills(last, ground.size(4, 60))
        while not ground.small and not outage.enough():
            outage.kills(last, 10)
        outage.drain(last)
        Verdict(outage).judge()
        outage.judge()
    return found


class Outage(Site):
    """The site, and what happens to it."""

    def __init__(self, ground: Ground, *given: Any, **more: Any) -> None:
        super().__init__(ground, *given, **more)
        self._fast = Clock(library(ground.folder), ground.folder / "edge.offset") if ground.complete else None
        self.stops, self._rng = Stops(1), ground.rng("faults")
        self._faults = self._happen()
        self._passes = False  # the line is to pass for as long as this edge lives

    # -- lives of the edge

    def forked(self) -> Child:
        return self.edges.start(partial(self.stops.arm, 0, signal.SIGKILL))

    def fast(self) -> Alone:
        """With a clock that is seven minutes fast; no point is armed there."""
        assert self._fast is not None
        self._fast.set(FAST_S)
        self.exercise("clock seven minutes fast")
        return self.edges.start_alone({**os.environ, **self._fast.environment})

    def kills(self, start: Callable[[], Child | Alone], count: int) -> None:
        """Let edges live and die, each named point as often as every other, and random instants between."""
        rng, armed = self.ground.rng(f"deaths {count}"), start == self.forked
        plan = [name for n, name in enumerate(points.EDGE * (count // 8 + 1)) if armed and n < count * 2 // 3]
        plan += [None] * (count - len(plan))  # type: ignore[list-item]
        rng.shuffle(plan)
        for done, point in enumerate(plan, 1):
            death = Death(point, rng.randint(1, 4), rng.uniform(0.2, 1.6) + (0.0 if armed else 3.0))
            self._passes = point in LINE_POINTS
            self.stops.give(0, death.point, death.nth)
            self.edge = start()
            self._live(self.edge, death)
            if done % 50 == 0:
                print(f"  {done} of {count}", flush=True)
        self._passes = False

    def _live(self, edge: Child | Alone, death: Death) -> None:
        due = time.monotonic() + (STUCK_S if death.point else death.after)
        while not edge.ended() and time.monotonic() < due:
            next(self._faults)
            time.sleep(0.003)
        self.kill(edge, death)

    def kill(self, edge: Child | Alone, death: Death | None) -> None:
        edge.kill()
        where = self.stops.take(0)
        if edge.code != -signal.SIGKILL:
            self.wrong("edges that ended by themselves")
        self.found.runs += death is not None
        if death is not None:
            late = death.point is not None and where is None
            if late:
                self.found.also["points not reached in time"] = self.found.also.get("points not reached in time", 0) + 1
            self.exercise(where or "random instant")
        self.look()

    def enough(self) -> bool:
        """Whether a whole run has been whole: a day of the plant's time, a million readings, a hundred thousand by each protocol."""
        sent = Counter[str]()
        for path in self.sent_folder.glob("*.sent"):
            sent[via(path.stem.replace("~", "/"))] += path.stat().st_size // 24
        readings = [sent[one] for one in ("mqtt", "sparkplug", "opcua")]
        return self.pace.us() - self.pace.origin >= DAY_S * 10**6 and sum(readings) >= 1_000_000 and min(readings) >= 100_000

    # -- what happens meanwhile; a step at each call

    def _happen(self) -> Iterator[None]:
        rng = self._rng
        words = iter(self._line_words(rng))
        line_at = now = time.monotonic()
        others = [("hub", 9.0), ("broker", 10.0), ("server", 7.0)]
        at = {name: now + every * rng.uniform(0.2, 0.4) for name, every in others}
        back: float | None = None  # when the broker starts again
        while True:
            now = time.monotonic()
            if self._passes:
                order(self.edges.word, PASS)
                line_at = now
            while self._passes:
                yield
            if now >= line_at:
                word, lasts = next(words)
                order(self.edges.word, word)
                line_at = now + lasts
            if back is not None and now >= back:
                self.broker.start()
                self.quiet("mqtt", quiet=False)
                back = None
            for name, every in others:
                if now < at[name]:
                    continue
                at[name] = now + every * rng.uniform(0.7, 1.3)
                if name == "hub":
                    self._kill_hub()
                elif name == "server":
                    self.word.forget()
                    self.exercise("server forgot its sessions")
                elif back is None and self._mqtt_confirmed():
                    self.broker.stop()
                    self.exercise("broker stopped")
                    back = now + rng.uniform(0.3, 1.5)
            yield

    def _line_words(self, rng: random.Random) -> Iterator[tuple[str, float]]:
        while True:
            yield PASS, rng.uniform(0.3, 2.0)
            word = rng.choice((CUT, CUT, HOLD))
            self.exercise("line cut" if word == CUT else "line held")
            yield word, rng.uniform(0.2, 1.5) if rng.random() < 0.9 or self.ground.small else rng.uniform(5, 60)

    def _mqtt_confirmed(self) -> bool:
        """Let the publisher be quiet until the broker has confirmed all: what it would send again were repetitions of its own."""
        self.quiet("mqtt")
        time.sleep(0.03)
        return process.wait_until(lambda: self.word.under_way("mqtt") == 0, 5)

    def _kill_hub(self) -> None:
        hub = self.edges.hub
        assert hub is not None
        hub.kill()
        self.exercise("hub killed")
        self.edges.start_hub()

    # -- the epoch

    def change_epoch(self) -> None:
        """While machines are quiet, use numbers that a copy of the spool does not know, and put that copy back."""
        self.rest()
        self.edge = self.edges.start()
        time.sleep(1)
        self.quiet()
        time.sleep(1)
        self.until_settled("before the copy")  # the copy is to hold nothing that the hub gets by another spool, and the broker nothing
        self.end(self.edge)
        copy = self.ground.folder / "copy"
        self.edges.copy_spool(copy)
        self.edge = self.edges.start()
        posts = self.sent_folder / "http.sent"
        before = posts.stat().st_size
        self.quiet("http", quiet=False)
        process.wait_until(lambda: posts.stat().st_size > before + 5 * 24, 20)
        self.quiet("http")
        process.wait_until(lambda: self.word.under_way("http") == 0, 10)
        self.until_settled("after the copy")
        self.end(self.edge)
        self.edges.put_back(copy)
        with contextlib.closing(sqlite3.connect(self.edges.spool)) as db:
            (self.seq,) = db.execute("select coalesce(max(seq), 0) from entry").fetchone()
        self.quiet(quiet=False)
        self._faults = self._happen()

    # -- the end

    def drain(self, start: Callable[[], Child | Alone]) -> None:
        """A long cut, then the line is back: measure, then let all come."""
        self.rest()
        self.edge = start()
        self.until_drained("before the last cut", LIVE)
        order(self.edges.word, CUT)
        time.sleep(0.3)
        head, began, before = self.access.head(), time.monotonic(), self.said()
        time.sleep(self.ground.size(5, 60))
        arrival = (self.said() - before) / (time.monotonic() - began)
        waited = time.monotonic()
        order(self.edges.word, PASS)
        process.wait_until(lambda: bool(self.edges.status().get("line", {}).get("up")), 30, every=0.005)
        started = time.monotonic()
        process.wait_until(lambda: self.edges.status().get("backlog", 1000) <= LIVE, 60, every=0.01)
        drain = self.recorded(head) / max(time.monotonic() - started, 1e-3)
        self.found.also |= {
            "arrival in readings/s": round(arrival), "drain in readings/s": round(drain), "seconds until the line was noticed": round(started - waited, 2),
        }  # fmt: skip
        self.wrong(
            "drains less than ten times as fast as it arrives", int(self.ground.complete and not self.ground.small and drain < 10 * arrival)
        )
        self.finish()

    def judge(self) -> None:
        """What the edge and the hub noticed of it."""
        self.exercise("epoch began", len(self.facts("integration.edge_epoch_began")))
        self.exercise("skew told", sum(abs(float(said["seconds"]) - FAST_S) < 30 for said in self.facts("integration.clock_skew_detected")))


TRIAL = Trial(
    "edge-outage",
    run,
    seconds=(180, 5400),
    without={
        "spool-before-ack": mechanisms.spool_before_ack,
        "prune-after-ack": mechanisms.prune_after_ack,
        "memory-with-readings": mechanisms.memory_with_readings,
    },
)
