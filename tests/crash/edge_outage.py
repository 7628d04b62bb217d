"""edge-outage: a plant whose line to the hub, whose broker and whose edge fail again and again.

Promise: what an edge has spooled comes to the hub, once, in the order of its producer; what never comes is named by gap facts, and nothing that came is;
    when the line is back the backlog drains while live readings flow (P6).
Way: the shipped edge, forked from one import, in front of the shipped listener. Machines in other processes, which are never killed, publish over MQTT 5
    with QoS 1 (a real mosquitto, a persistent session), as Sparkplug edge nodes and from an OPC UA server with history, and post facts over HTTP. The edge is
    killed by SIGKILL at its named points and at random instants; the line is cut or held from outside, the hub's listener is killed, the broker is
    stopped and started, the server forgets its sessions. In the middle the spool is put back from a copy, after numbers of it were used that the copy
    does not know. From then on the edge lives in a process whose clock is seven minutes fast (`clock.c`), killed at random instants. The last cut is
    long; how fast it drains is measured.
Oracle: what machines wrote down before they sent it against the readings in the raw bodies of `log.delivery`, by SQL and JSON, and the open gap facts in
    `log.event`; what each dead edge left in its spool, read from a copy, against the sha256 of `log.delivery`. MQTT owes every number that was sent,
    whatever gaps say. For gaps of OPC UA one publishing interval is allowed.
"""

import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hub import points
from hub.app.demo.line import CUT, HOLD, PASS, order
from hub.app.servers import process
from tests.crash import mechanisms, plant
from tests.crash.clock import Clock, library
from tests.crash.edges import EDGE, HOST, HOST_ID, Alone, Edges, Mosquitto, documents, imported
from tests.crash.ground import Access, Child, Ground, Trial
from tests.crash.hubs import Death, Stops
from tests.crash.plant import OPC_ROOT, OPC_TAGS, OPC_URI, Pace, Word, microseconds, read_sent
from tests.crash.report import Found

DAY_US = 24 * 3600 * 10**6
PUBLISHING_S = 0.2
FAST_S = 7 * 60
STUCK_S = 4.0  # an edge that has not reached its point by then is killed where it is
LINE_POINTS = ("batch read", "batch answered", "spool acknowledged")  # reached only while the line passes
DRAINED_S = 60.0
QUIET_S = 7.0  # live traffic at the end, after which a node that stored and forwarded is known to have sent all


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    imported()
    seen = (
        "random instant", "clock seven minutes fast", "line cut", "line held", "hub killed", "broker stopped", "server forgot its sessions",
        "epoch began", "skew told", "numbers left out", "gaps open", "gaps filled", "read from history",
    )  # fmt: skip
    found = Found(runs=0, in_flight=0, exercised=dict.fromkeys((*points.EDGE, *seen), 0))
    with contextlib.ExitStack() as stack:
        broker = Mosquitto(ground)
        stack.callback(broker.stop)
        broker.start()
        access = stack.enter_context(ground.database())
        outage = Outage(ground, access, broker, found)
        outage.begin()
        outage.kills(outage.forked, ground.size(16, 440))
        outage.change_epoch()
        outage.kills(outage.fast if ground.complete else outage.forked, ground.size(4, 60))
        while not ground.small and not outage.enough():
            outage.kills(outage.fast if ground.complete else outage.forked, 10)
        outage.drain()
        Verdict(outage).judge()
    return found


class Outage:
    """The plant, the edge, and what happens to them."""

    def __init__(self, ground: Ground, access: Access, broker: Mosquitto, found: Found) -> None:
        self.ground, self.access, self.broker, self.found = ground, access, broker, found
        self.sent_folder, self.word = ground.folder / "sent", Word()
        self.sent_folder.mkdir()
        opcua_port = process.free_port()
        rates = {"mqtt": 40.0, "sparkplug": 25.0, "opcua": 25.0, "http": 5.0} if ground.small else {"mqtt": 300.0, "sparkplug": 60.0, "opcua": 60.0, "http": 10.0}
        self.expected_s = ground.size(60, 24 * 60)  # of our time: a whole run is a day of the plant's
        speed = ground.size(1, 60)
        self.tolerance_us = round(PUBLISHING_S * speed * 10**6)
        origin = time.time_ns() // 1000 - (0 if ground.small else DAY_US)
        self.pace = Pace(rates, origin, speed)
        self.edges = Edges(ground, access, _configuration(broker.port, opcua_port, max(rates.values())), {"max": "1GiB", "keep": "1MiB"})
        self._fast = Clock(library(ground.folder), ground.folder / "edge.offset") if ground.complete else None
        self.stops, self.spooled, self.seq = Stops(1), set[bytes](), 0
        self._plant: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
            (plant.run_mqtt, (broker.port, ground.seed)),
            (plant.run_sparkplug, (broker.port, HOST_ID)),
            (plant.run_opcua, (opcua_port,)),
            (plant.run_http, (self.edges.http_port,)),
        ]
        self._machines: list[Child] = []
        self._faults = iter(())  # type: Iterator[None]
        self._rng = ground.rng("faults")
        self.edge: Child | Alone | None = None
        self._passes = False  # the line is to pass for as long as this edge lives

    # -- lives of the edge

    def forked(self) -> Child:
        return self.edges.start(partial(self.stops.arm, 0, signal.SIGKILL))

    def fast(self) -> Alone:
        """With a clock that is seven minutes fast; no point is armed there."""
        assert self._fast is not None
        self._fast.set(FAST_S)
        self._exercise("clock seven minutes fast")
        return self.edges.start_alone({**os.environ, **self._fast.environment})

    def begin(self) -> None:
        """Everything runs, and every tag was heard, before anything happens."""
        self.edges.start_hub()
        self.edges.start_line()
        self.edge = self.forked()
        for work, more in self._plant:
            self._machines.append(self.ground.fork(work.__name__, work, self.sent_folder, self.word, self.pace, *more, hub=False))
        tags = 2 + len(plant.NODES) + len(OPC_TAGS)
        heard = process.wait_until(lambda: len(self._producers()) >= tags and self.edges.drained(), 30, every=0.2)
        if not heard:
            raise AssertionError(f"not everything was heard: {self._producers()}, {self.edges.status().get('sources')}")
        self.word.under_way("http", 0)
        self._faults = self._happen()
        self._kill(self.edge, None)

    def kills(self, start: Callable[[], Child | Alone], count: int) -> None:
        """Let edges live and die, each named point as often as every other, and random instants between."""
        rng, armed = self.ground.rng(f"deaths {count}"), start == self.forked
        plan = [name for n, name in enumerate(points.EDGE * (count // 8 + 1)) if armed and n < count * 2 // 3]
        plan += [None] * (count - len(plan))  # type: ignore[list-item]
        rng.shuffle(plan)
        for done, point in enumerate(plan, 1):
            death = Death(point, rng.randint(1, 4), rng.uniform(0.2, 1.6) + (0.0 if armed else 1.5))
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
        self._kill(edge, death)

    def _kill(self, edge: Child | Alone, death: Death | None) -> None:
        edge.kill()
        where = self.stops.take(0)
        if edge.code != -signal.SIGKILL:
            self._wrong("edges that ended by themselves")
        self.found.runs += death is not None
        if death is not None:
            late = death.point is not None and where is None
            if late:
                self.found.also["points not reached in time"] = self.found.also.get("points not reached in time", 0) + 1
            self._exercise(where or "random instant")
        self.look()

    def look(self) -> None:
        """Remember what a dead edge had spooled."""
        rows = self.edges.entries(self.seq)
        self.spooled.update(sha for _, _, _, sha, _ in rows)
        self.seq = max([self.seq, *(seq for seq, *_ in rows)])
        self.found.in_flight = (self.found.in_flight or 0) + sum(waits for *_, waits in rows)

    def enough(self) -> bool:
        """Whether a whole run has been whole: a day of the plant's time, a million readings, a hundred thousand by each protocol."""
        sent = Counter[str]()
        for path in self.sent_folder.glob("*.sent"):
            sent[_via(path.stem.replace("~", "/"))] += path.stat().st_size // 24
        readings = [sent[via] for via in ("mqtt", "sparkplug", "opcua")]
        return self.pace.us() - self.pace.origin >= DAY_US and sum(readings) >= 1_000_000 and min(readings) >= 100_000

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
                self.word.quiet("mqtt", quiet=False)
                back = None
            for name, every in others:
                if now < at[name]:
                    continue
                at[name] = now + every * rng.uniform(0.7, 1.3)
                if name == "hub":
                    self._kill_hub()
                elif name == "server":
                    self.word.forget()
                    self._exercise("server forgot its sessions")
                elif back is None and self._mqtt_confirmed():
                    self.broker.stop()
                    self._exercise("broker stopped")
                    back = now + rng.uniform(0.3, 1.5)
            yield

    def _line_words(self, rng: random.Random) -> Iterator[tuple[str, float]]:
        while True:
            yield PASS, rng.uniform(0.3, 2.0)
            word = rng.choice((CUT, CUT, HOLD))
            self._exercise("line cut" if word == CUT else "line held")
            yield word, rng.uniform(0.2, 1.5) if rng.random() < 0.9 or self.ground.small else rng.uniform(5, 60)

    def _mqtt_confirmed(self) -> bool:
        """Let the publisher be quiet until the broker has confirmed all: what it would send again were repetitions of its own."""
        self.word.quiet("mqtt")
        time.sleep(0.03)
        return process.wait_until(lambda: self.word.under_way("mqtt") == 0, 5)

    def _kill_hub(self) -> None:
        hub = self.edges.hub
        assert hub is not None
        hub.kill()
        self._exercise("hub killed")
        self.edges.start_hub()

    def _rest(self) -> None:
        """Nothing happens any more."""
        order(self.edges.word, PASS)
        with contextlib.suppress(AssertionError):
            self.broker.start() if self.word.is_quiet("mqtt") and not _listens(self.broker.port) else None
        self.word.quiet("mqtt", quiet=False)

    # -- the epoch

    def change_epoch(self) -> None:
        """While machines are quiet, use numbers that a copy of the spool does not know, and put that copy back."""
        self._rest()
        self.edge = self.edges.start()
        time.sleep(1)
        for who in Word.WHO:
            self.word.quiet(who)
        time.sleep(1)  # what is under way comes: the copy is to hold nothing that the hub gets by another spool
        self._until_drained("before the copy")
        self._end(self.edge)
        copy = self.ground.folder / "copy"
        self.edges.copy_spool(copy)
        self.edge = self.edges.start()
        self.word.quiet("http", quiet=False)
        time.sleep(1.5)
        self.word.quiet("http")
        process.wait_until(lambda: self.word.under_way("http") == 0, 10)
        self._until_drained("after the copy")
        self._end(self.edge)
        self.edges.put_back(copy)
        with contextlib.closing(sqlite3.connect(self.edges.spool)) as db:
            (self.seq,) = db.execute("select coalesce(max(seq), 0) from entry").fetchone()
        for who in Word.WHO:
            self.word.quiet(who, quiet=False)
        self._faults = self._happen()

    def _end(self, edge: Child | Alone) -> None:
        edge.send(signal.SIGTERM)
        if not edge.wait(12):
            self._wrong("edges not ended by SIGTERM")
            edge.kill()
        self.look()

    def _until_drained(self, when: str) -> None:
        if not process.wait_until(self.edges.drained, DRAINED_S if self.ground.complete else 20, every=0.1):
            self._wrong(f"not drained {when}")
            print(f"  not drained {when}: {self.edges.status()}", flush=True)

    # -- the end

    def drain(self) -> None:
        """A long cut, then the line is back: measure, let live readings go on for a while, then let all come."""
        self._rest()
        self.edge = self.fast() if self.ground.complete else self.edges.start()
        process.wait_until(lambda: bool(self.edges.status()) and all(one["connected"] for one in self.edges.status()["sources"]), 20, every=0.1)
        self._until_drained("before the last cut")
        order(self.edges.word, CUT)
        time.sleep(0.3)
        head, began, before = self.access.head(), time.monotonic(), self._sent()
        time.sleep(self.ground.size(5, 120))
        arrival = (self._sent() - before) / (time.monotonic() - began)
        waited = time.monotonic()
        order(self.edges.word, PASS)
        process.wait_until(lambda: bool(self.edges.status().get("line", {}).get("up")), 30, every=0.005)
        started = time.monotonic()
        process.wait_until(lambda: self.edges.status().get("backlog", 1000) < 20, 60, every=0.01)
        took = time.monotonic() - started
        ((came,),) = self.access.ask(
            "select sum((convert_from(data, 'UTF8')::jsonb ->> 'readings')::bigint) from log.event where position > %s and type = 'equipment.readings_recorded'",
            head,
        )
        self.found.also |= {
            "arrival in readings/s": round(arrival),
            "drain in readings/s": round(float(came or 0) / max(took, 1e-3)),
            "seconds until the line was noticed": round(started - waited, 2),
        }
        time.sleep(QUIET_S)
        for who in Word.WHO:
            self.word.quiet(who)
        time.sleep(1)
        self._until_drained("at the end")
        time.sleep(0.5)
        self._until_drained("at the end")
        self._end(self.edge)
        for machine in self._machines:
            machine.send(signal.SIGTERM)
        self._wrong("machines that ended badly", sum(not machine.wait(20) or machine.code != 0 for machine in self._machines))

    # -- counts

    def _producers(self) -> set[str]:
        query = "select distinct convert_from(data, 'UTF8')::jsonb ->> 'producer' || '/' || (convert_from(data, 'UTF8')::jsonb ->> 'lane') from log.event where type = %s"
        found = {row[0] for row in self.access.ask(query, "equipment.readings_recorded")}
        return {f"{name}/{n}" for name in found for n in range(len(OPC_TAGS) if name.startswith("ua/") else 1)}

    def _sent(self) -> int:
        return sum(path.stat().st_size for path in self.sent_folder.glob("*.sent") if path.stem != "http") // 24

    def _exercise(self, name: str, hits: int = 1) -> None:
        assert self.found.exercised is not None
        self.found.exercised[name] += hits

    def _wrong(self, what: str, count: int = 1) -> None:
        self.found.wrong[what] = self.found.wrong.get(what, 0) + count


def _configuration(mqtt: int, opcua: int, rate: float) -> dict[str, Any]:
    """The rest of edge.yaml."""
    return {
        "mqtt": [
            {"name": "mq", "url": f"mqtt://{HOST}:{mqtt}", "readings": [{"filter": "plant/+", "value": "v", "at": "at", "sequence": "n"}]}
        ],
        "sparkplug": [{"name": "sp", "brokers": [f"mqtt://{HOST}:{mqtt}"], "host_id": HOST_ID, "groups": [plant.GROUP], "reorder_s": 0.5}],
        "opcua": [
            {
                "name": "ua",
                "url": f"opc.tcp://{HOST}:{opcua}/trial",
                "namespaces": {"p": OPC_URI},
                "starts": [{"node": f"p:{OPC_ROOT}", "tag": OPC_ROOT}],
                "publishing_s": PUBLISHING_S,
                "rate_hz": rate,
                "outage_s": 30,
                "sequences": [{"tag": f"{OPC_ROOT}/Counted"}],
            }
        ],
        "plant": {"sequences": [{"producers": "mq/**"}]},
    }


def _listens(port: int) -> bool:
    from tests.crash.edges import answers

    return answers(port)


@dataclass
class Open:
    """An open gap of a tag: by numbers, or by times in µs; None is without an end."""

    first: int | None
    last: int | None
    since: float
    until: float
    reason: str


@dataclass
class Came:
    """What came of a tag, by number."""

    times: "dict[int, int]" = field(default_factory=dict)  # how often
    live: int = 0  # the highest number that was said to be of now
    historical: int = 0


class Verdict:
    """The log against what was sent."""

    def __init__(self, outage: Outage) -> None:
        self.outage, self.found, self.access = outage, outage.found, outage.access
        self.sent = read_sent(outage.sent_folder)
        self.came: dict[str, Came] = defaultdict(Came)
        self.repeated = self.unsent = 0  # current values told anew by births and new subscriptions; readings that nobody sent

    def judge(self) -> None:
        found, outage = self.found, self.outage
        self._read()
        gaps = self._gaps()
        via: Counter[str] = Counter()
        for tag, (times, went) in self.sent.items():
            if tag == "http":
                via["http"] += self._facts(len(times))
                continue
            via[_via(tag)] += self._tag(tag, times, went, gaps.get(tag, []))
        kept = {sha for (sha,) in self.access.ask("select sha256 from log.delivery")}
        lost = sum(sha not in kept for sha in outage.spooled)
        found.lost += lost
        found.wrong["readings that nobody sent"] = self.unsent
        found.wrong["quarantined"] = self.access.ask("select count(*) from log.event where type = 'integration.delivery_quarantined'")[0][0]
        outage._exercise("epoch began", self.access.ask("select count(*) from log.event where type = 'integration.edge_epoch_began'")[0][0])
        skews = self.access.ask("select convert_from(data, 'UTF8')::jsonb ->> 'seconds' from log.event where type = 'integration.clock_skew_detected'")
        outage._exercise("skew told", sum(abs(float(s) - FAST_S) < 30 for (s,) in skews) if outage.ground.complete else 1)
        if not outage.ground.complete:
            outage._exercise("clock seven minutes fast")
        found.also |= {
            "via": dict(via), "entries spooled": len(outage.spooled), "spooled and lost": lost, "values told again by births": self.repeated,
        }  # fmt: skip
        small_too = outage.ground.size(0, 1)
        drain, arrival = found.also["drain in readings/s"], found.also["arrival in readings/s"]
        found.wrong["drains less than ten times as fast as it arrives"] = int(bool(small_too) and drain < 10 * arrival)

    def _read(self) -> None:
        """All readings, in the order in which the hub took them; holes and repetitions in the numbers of lanes."""
        lanes: dict[tuple[str, str], list[int]] = defaultdict(list)
        taken: dict[tuple[str, str], int] = {}
        for said, headers, position in documents(self.access):
            lane = headers["epoch"], headers["lane"]
            lanes[lane].append(int(headers["n"]))
            if position:
                self.found.misordered += int(headers["n"]) < taken.get(lane, 0)
                taken[lane] = int(headers["n"])
            for row in said["readings"]:
                self._reading(*row)
        for lane, numbers in lanes.items():
            if lane[1] != "http":
                self.found.skipped += max(numbers) - len(set(numbers))
                if holes := sorted({*range(1, max(numbers) + 1)} - {*numbers}):
                    print(f"  lane {lane} has no {_ranges(holes)} of {max(numbers)}", flush=True)

    def _reading(self, tag: str, value: Any, at: str | None, quality: str, type_: str, number: int | None, historical: bool) -> None:
        if value is None or quality != "good":
            return  # a value that is not known any more
        times = self.sent[tag][0] if tag in self.sent else []
        if value == 0:
            return  # before its first
        us = microseconds(at) if at else -1
        if not 0 < value <= len(times):
            self.unsent += 1
        elif times[value - 1] != us:
            self.repeated += _via(tag) == "sparkplug"
            self.unsent += _via(tag) != "sparkplug"
        else:
            came = self.came[tag]
            came.times[value] = came.times.get(value, 0) + 1
            came.historical += historical
            if came.times[value] > 1:
                return
            if not historical:
                self.found.misordered += value < came.live
                came.live = max(came.live, value)

    def _facts(self, count: int) -> int:
        """Facts that were posted: in the log by their keys. All but a last one that was never answered."""
        keys = {key for (key,) in self.access.ask("select business_key from log.event where source = 'erp:trial'")}
        self.found.lost += sum(f"P{n}" not in keys for n in range(1, count + 1 - self.outage.word.under_way("http")))
        return len(keys)

    def _gaps(self) -> dict[str, list[Open]]:
        """Gaps that are open at the end of the log, by tag."""
        open_: dict[str, dict[str, Any]] = {}
        query = """select type, convert_from(data, 'UTF8') from log.event
                   where type in ('integration.gap_detected', 'integration.gap_filled') order by position"""
        for type_, text in self.access.ask(query):
            said = json.loads(text)
            if type_ == "integration.gap_detected":
                open_[said["gap"]] = said
            else:
                self.outage._exercise("gaps filled", open_.pop(said["gap"], None) is not None)
        found: dict[str, list[Open]] = defaultdict(list)
        kinds: Counter[str] = Counter()
        for said in open_.values():
            tags = [tag for tag in self.sent if _about(said, tag)]
            kinds[f"{_via(tags[0]) if tags else 'nobody'} {said['kind']}"] += 1
            since, until = (microseconds(said[name]) if said.get(name) else end for name, end in (("since", float("-inf")), ("until", float("inf"))))
            for tag in tags:
                numbered = said.get("first") is not None and _via(tag) != "sparkplug"
                found[tag].append(Open(said["first"] if numbered else None, said["last"] if numbered else None, since, until, said["reason"]))
        self.found.also["open gaps"] = dict(kinds)
        self.outage._exercise("gaps open", len(open_))
        return found

    def _tag(self, tag: str, times: Any, went: Any, gaps: list[Open]) -> int:
        """One tag: how many of its readings came."""
        found, came, via = self.found, self.came[tag], _via(tag)
        found.twice += sum(count - 1 for count in came.times.values())
        self.outage._exercise("read from history", came.historical if via != "mqtt" else 0)
        first = min(came.times, default=1)
        slack = self.outage.tolerance_us if via == "opcua" else 0
        covered = bytearray(len(times) + 2)
        for gap in gaps:
            if gap.first is not None and gap.last is not None:
                low, high = gap.first, gap.last
                inner = range(max(1, low), min(high, len(times)) + 1)
            else:
                low, high = bisect_left(times, gap.since - slack) + 1, bisect_right(times, gap.until + slack)
                inner = range(bisect_right(times, gap.since + slack) + 1, bisect_left(times, gap.until - slack) + 1)
            for n in range(max(1, low), min(high, len(times)) + 1):
                covered[n] = 1
            wrongly = [n for n in inner if n in came.times]
            if wrongly:
                found.wrong["gaps over readings that came"] = found.wrong.get("gaps over readings that came", 0) + len(wrongly)
                print(f"  {tag}: {gap} covers {wrongly[:5]} ({len(wrongly)}), which came", flush=True)
        missing = [n for n in range(first, len(times) + 1) if n not in came.times]
        unnamed = [n for n in missing if not covered[n]]
        owed = [n for n in missing if via == "mqtt" and went[n - 1]]
        self.outage._exercise("numbers left out", sum(not one for one in went) if via == "mqtt" else 0)
        found.lost += len({*unnamed, *owed})
        if unnamed or owed:
            print(f"  {tag}: {len(unnamed)} missing and in no gap {_ranges(unnamed)}, {len(owed)} owed {_ranges(owed)}", flush=True)
            print(f"  {tag}: {[(n, times[n - 1]) for n in unnamed[:3]]} {gaps[:6]}", flush=True)
        found.also[f"missing {tag}"] = len(missing)
        found.wrong["readings that came of numbers left out"] = found.wrong.get("readings that came of numbers left out", 0) + sum(
            not went[n - 1] for n in came.times
        )
        return sum(came.times.values())


def _about(gap: Mapping[str, Any], tag: str) -> bool:
    """Whether a gap is about a tag."""
    via, producer = _via(tag), gap["producer"]
    if via == "mqtt":
        return bool(producer == f"mq/{tag}" or producer == "mq")
    if via == "sparkplug":
        return tag.startswith(f"{producer}/")
    return bool(via == "opcua" and producer == "ua" and (not gap["tags"] or tag in gap["tags"]))


def _via(tag: str) -> str:
    return {"plant": "mqtt", plant.GROUP: "sparkplug", OPC_ROOT: "opcua"}.get(tag.partition("/")[0], tag)


def _ranges(numbers: list[int]) -> str:
    """For people: the first few ranges."""
    ranges: list[list[int]] = []
    for n in numbers:
        if ranges and ranges[-1][1] == n - 1:
            ranges[-1][1] = n
        else:
            ranges.append([n, n])
    return ", ".join(f"{a}-{b}" for a, b in ranges[:6])


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
