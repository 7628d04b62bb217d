"""A plant with its edge as the edge's trials have it: machines, broker, line and hub, the lives of the edge, and the verdict when all is over.

The verdict compares what machines wrote down before they sent it with the readings in the raw bodies of `log.delivery`, read by SQL and JSON, and with
the open gap facts in `log.event`; and what each dead edge left in its spool, read from a copy, with the sha256 of `log.delivery`. MQTT owes every
number that was sent, whatever gaps say. For gaps of OPC UA one publishing interval is allowed.
"""

import contextlib
import json
import signal
import time
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.app.demo.line import PASS, order
from hub.app.servers import process
from tests.crash import plant
from tests.crash.edges import EDGE, HOST, HOST_ID, Alone, Edges, Mosquitto, answers, documents, imported
from tests.crash.ground import Access, Child, Ground
from tests.crash.plant import OPC_ROOT, OPC_URI, Pace, Word, microseconds, read_sent
from tests.crash.report import Found

PUBLISHING_S = 0.2  # of OPC UA
DRAINED_S = 600.0  # of a whole run, whose broker holds what it could not hand over between kills
SETTLED_S = 8.0
LIVE = 50  # entries that may wait at any moment while readings come
QUIET_S = 7.0  # live traffic at the end, after which a node that stored and forwarded is known to have sent all
READINGS = "equipment.readings_recorded"


class Site:
    """All of it. `spool` is that part of edge.yaml; the plant's time begins `back_s` before ours and is `speed` times as fast."""

    def __init__(
        self,
        ground: Ground,
        access: Access,
        broker: Mosquitto,
        found: Found,
        rates: Mapping[str, float],
        spool: Mapping[str, Any],
        *,
        speed: float = 1.0,
        back_s: float = 0.0,
        folder: Path | None = None,
        opcua: Mapping[str, Any] | None = None,
        opcua_keeps: int = 1000,
    ) -> None:
        self.ground, self.access, self.broker, self.found = ground, access, broker, found
        self.sent_folder, self.word = ground.folder / "sent", Word()
        self.sent_folder.mkdir()
        opcua_port = process.free_port()
        self.tolerance_us = round(PUBLISHING_S * speed * 10**6)
        self.pace = Pace(rates, time.time_ns() // 1000 - round(back_s * 10**6), speed)
        self.edges = Edges(ground, access, _configuration(broker.port, opcua_port, max(rates.values()), opcua or {}), spool, folder)
        self.spooled, self.seq = set[bytes](), 0
        self._plant: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
            (plant.run_mqtt, (broker.port, ground.seed)),
            (plant.run_sparkplug, (broker.port, HOST_ID)),
            (plant.run_opcua, (opcua_port, opcua_keeps)),
            (plant.run_http, (self.edges.http_port,)),
        ]
        self._machines: list[Child] = []
        self.edge: Child | Alone | None = None

    @classmethod
    @contextlib.contextmanager
    def opened(cls, ground: Ground, found: Found, *given: Any, **more: Any) -> "Iterator[Any]":
        """One with a broker and a database of its own, ended when all is over."""
        imported()
        with contextlib.ExitStack() as stack:
            broker = Mosquitto(ground)
            stack.callback(broker.stop)
            broker.start()
            yield cls(ground, stack.enter_context(ground.database()), broker, found, *given, **more)

    def begin(self, edge: Callable[[], Child | Alone]) -> None:
        """Everything runs, and every tag was heard, before anything happens."""
        self.edges.start_hub()
        self.edges.start_line()
        self.edge = edge()
        for work, more in self._plant:
            self._machines.append(self.ground.fork(work.__name__, work, self.sent_folder, self.word, self.pace, *more, hub=False))
        lanes = plant.TOPICS + len(plant.NODES) + 1
        query = f"select count(distinct convert_from(data, 'UTF8')::jsonb ->> 'lane') from log.event where type = '{READINGS}'"  # noqa: S608 - ours
        if not process.wait_until(lambda: self.access.ask(query)[0][0] >= lanes and self.edges.drained(LIVE), 30, every=0.2):
            raise AssertionError(f"not everything was heard: {self.edges.status()}; {process.tail(self.ground.log)}")

    def look(self) -> None:
        """Remember what a dead edge had spooled."""
        rows = self.edges.entries(self.seq)
        self.spooled.update(sha for _, _, _, sha, _ in rows)
        self.seq = max([self.seq, *(seq for seq, *_ in rows)])
        if self.found.in_flight is not None:
            self.found.in_flight += sum(waits for *_, waits in rows)

    def quiet(self, *who: str, quiet: bool = True) -> None:
        for one in who or Word.WHO:
            self.word.quiet(one, quiet)

    def end(self, edge: Child | Alone) -> None:
        """Let an edge end as its plant does it."""
        edge.send(signal.SIGTERM)
        if not edge.wait(12):
            self.wrong("edges not ended by SIGTERM")
            edge.kill()
        self.look()

    def until_drained(self, when: str, but: int = 0) -> None:
        """Wait until the edge says that it is, but for so many entries; what it says wrongly the verdict finds."""
        if not process.wait_until(lambda: self.edges.drained(but), DRAINED_S if self.ground.complete else 20, every=0.1):
            self.wrong(f"not drained {when}")
            self.found.evidence.append(f"not drained {when}: {self.edges.status()}")

    def until_settled(self, when: str) -> None:
        """Wait until nothing more comes from an edge that is drained, for so long that no pull takes longer: its broker may hold much for it."""
        came: tuple[int, int] | None = None
        while came != (now := (self.access.head(), sum(one["taken"] for one in self.edges.status().get("sources", [])))):
            came = now
            self.until_drained(when)
            time.sleep(SETTLED_S)

    def rest(self) -> None:
        """Nothing happens any more: line and broker are there."""
        order(self.edges.word, PASS)
        if not answers(self.broker.port):
            self.broker.start()
        self.quiet("mqtt", quiet=False)

    def finish(self) -> None:
        """Live readings for a while, then all comes, and everything ends."""
        assert self.edge is not None
        time.sleep(QUIET_S)
        self.quiet()
        time.sleep(1)
        self._take_all()
        for machine in self._machines:
            machine.send(signal.SIGTERM)
        self.wrong("machines that ended badly", sum(not machine.wait(20) or machine.code != 0 for machine in self._machines))

    def _take_all(self) -> None:
        """Until the broker holds nothing more for the edge, as long as there is progress; then the edge has ended."""
        while True:
            assert self.edge is not None
            head = self.access.head()
            self.until_settled("at the end")
            said = self.edges.status().get("sources")
            self.end(self.edge)
            if not (left := self.broker.held(f"{EDGE}-mq-readings")):
                return
            if self.access.head() == head:
                self.wrong("messages left with the broker", left)
                self.found.evidence.append(f"{left} or more messages are left with the broker; the edge said of its sources {said}")
                return
            self.edge = self.edges.start()  # it was slow, not done

    def said(self) -> int:
        """How many readings machines have written down."""
        return sum(path.stat().st_size for path in self.sent_folder.glob("*.sent") if path.stem != "http") // 24

    def recorded(self, after: int = 0) -> int:
        """How many readings the log has behind a position."""
        query = "select sum((convert_from(data, 'UTF8')::jsonb ->> 'readings')::bigint) from log.event where position > %s and type = %s"
        return int(self.access.ask(query, after, READINGS)[0][0] or 0)

    def facts(self, type_: str) -> list[dict[str, Any]]:
        """The data of all facts of a type."""
        query = "select convert_from(data, 'UTF8') from log.event where type = %s order by position"
        return [json.loads(text) for (text,) in self.access.ask(query, type_)]

    def exercise(self, name: str, hits: int = 1) -> None:
        assert self.found.exercised is not None
        if name in self.found.exercised:
            self.found.exercised[name] += hits

    def wrong(self, what: str, count: int = 1) -> None:
        self.found.wrong[what] = self.found.wrong.get(what, 0) + count


def _configuration(mqtt: int, opcua: int, rate: float, more: Mapping[str, Any]) -> dict[str, Any]:
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
                **more,
            }
        ],
        "plant": {"sequences": [{"producers": "mq/**"}]},
    }


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

    def __init__(self, site: Site) -> None:
        self.site, self.found, self.access = site, site.found, site.access
        self.sent = read_sent(site.sent_folder)
        self.came: dict[str, Came] = defaultdict(Came)
        self.repeated = self.unsent = 0  # current values told anew by births; readings that nobody sent

    def judge(self) -> None:
        """Add up lost, twice, skipped, misordered, and what gaps say wrongly."""
        found, site = self.found, self.site
        self._read()
        gaps = self._gaps()
        came: Counter[str] = Counter()
        for tag, (times, went) in self.sent.items():
            if tag == "http":
                came["http"] += self._facts(len(times))
            else:
                came[via(tag)] += self._tag(tag, times, went, gaps.get(tag, []))
        kept = {sha for (sha,) in self.access.ask("select sha256 from log.delivery")}
        lost = sum(sha not in kept for sha in site.spooled)
        found.lost += lost
        found.wrong["readings that nobody sent"] = self.unsent
        found.wrong["quarantined"] = len(site.facts("integration.delivery_quarantined"))
        found.also |= {
            "via": dict(came),
            "entries spooled": len(site.spooled),
            "spooled and lost": lost,
            "told again by births": self.repeated,
        }

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
                    self.found.evidence.append(f"lane {lane} has no {_ranges(holes)} of {max(numbers)}")

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
            self.repeated += via(tag) == "sparkplug"
            self.unsent += via(tag) != "sparkplug"
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
        self.found.lost += sum(f"P{n}" not in keys for n in range(1, count + 1 - self.site.word.under_way("http")))
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
                self.site.exercise("gaps filled", open_.pop(said["gap"], None) is not None)
        found: dict[str, list[Open]] = defaultdict(list)
        kinds: Counter[str] = Counter()
        for said in open_.values():
            tags = [tag for tag in self.sent if _about(said, tag)]
            kinds[f"{via(tags[0]) if tags else 'nobody'} {said['kind']}"] += 1
            since, until = (
                microseconds(said[name]) if said.get(name) else end for name, end in (("since", float("-inf")), ("until", float("inf")))
            )
            for tag in tags:
                numbered = said.get("first") is not None and via(tag) != "sparkplug"
                found[tag].append(
                    Open(said["first"] if numbered else None, said["last"] if numbered else None, since, until, said["reason"])
                )
        self.found.also["open gaps"] = dict(kinds)
        self.site.exercise("gaps open", len(open_))
        return found

    def _tag(self, tag: str, times: Any, went: Any, gaps: list[Open]) -> int:
        """One tag: how many of its readings came."""
        found, came, way = self.found, self.came[tag], via(tag)
        found.twice += sum(count - 1 for count in came.times.values())
        self.site.exercise("read from history", came.historical if way != "mqtt" else 0)
        first = min(came.times, default=1)
        slack = self.site.tolerance_us if way == "opcua" else 0
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
                found.evidence.append(f"{tag}: {gap} covers {wrongly[:5]} ({len(wrongly)}), which came")
        missing = [n for n in range(first, len(times) + 1) if n not in came.times]
        unnamed = [n for n in missing if not covered[n]]
        owed = [n for n in missing if way == "mqtt" and went[n - 1]]
        self.site.exercise("numbers left out", sum(not one for one in went) if way == "mqtt" else 0)
        found.lost += len({*unnamed, *owed})
        if unnamed or owed:
            found.evidence.append(f"{tag}: {len(unnamed)} missing and in no gap {_ranges(unnamed)}, {len(owed)} owed {_ranges(owed)}")
            found.evidence.append(f"{tag}: {[(n, times[n - 1]) for n in unnamed[:3]]} {gaps[:6]}")
        found.also[f"missing {tag}"] = len(missing)
        found.wrong["readings that came of numbers left out"] = found.wrong.get("readings that came of numbers left out", 0) + sum(
            not went[n - 1] for n in came.times
        )
        return sum(came.times.values())


def _about(gap: Mapping[str, Any], tag: str) -> bool:
    """Whether a gap is about a tag."""
    way, producer = via(tag), gap["producer"]
    if way == "mqtt":
        return bool(producer == f"mq/{tag}" or producer == "mq")
    if way == "sparkplug":
        return tag.startswith(f"{producer}/")
    return bool(way == "opcua" and producer == "ua" and (not gap["tags"] or tag in gap["tags"]))


def via(tag: str) -> str:
    """By which protocol a tag comes."""
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
