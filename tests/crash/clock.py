"""clock: the time of day jumps under the running hub.

Promise: whatever the time of day does, nothing is lost, doubled, out of order or held up, nothing sleeps for a day or spins, and readiness says
    what is so (P1 to P5).
Way: `hub serve` takes facts over HTTP, MQTT and a watched folder, into which files are copied in two halves, while a preloaded library
    (`clock.c`) shifts the time of day of the hub's processes, of PostgreSQL or of both by seconds, an hour or a day, forward and backward;
    the broker, the sources and the file system keep the true one, as other machines do. Under a shifted clock the API is killed twice, so that
    the supervisor starts it again, and the followers are stopped by SIGSTOP until readiness must be red. It ends a day behind.
Oracle: the sources' own records against the events in the database by SQL, in which each source has to go on after every jump; `/health/ready`;
    the CPU time of the idle hub as the kernel counts it; that the clocks were shifted, from times in the log and of the server.
"""

import contextlib
import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from hub.app.servers import process
from tests.crash import mechanisms
from tests.crash.counted import at_head, judge_roads, stored
from tests.crash.deliveries import body, delivery
from tests.crash.ground import Access, Child, Ground, Missing, Server, Trial
from tests.crash.program import Program
from tests.crash.report import Found
from tests.crash.roads import Counts, copy_slowly, mqtt_broker, post, publish

WAYS = ("http", "http", "mqtt", "folder")  # a source each
TOPIC, CLIENT_ID = "trial/line", "millwright-hub"
SIZES = {"seconds": 3, "an hour": 3600, "a day": 86400}
OF = ("hub", "server", "both")
GOES_ON_S = 20.0  # by then each source has got something into the log after a jump
LAG_S = 8.0  # the hub's bound of readiness, shortened
IDLE_S, IDLE_SHARE_MAX = 2.0, 0.5  # of one core, of all processes of the hub together; more is spinning
DAY = 86400


class Clock:
    """A time of day that can be set off from the true one, for processes that are started in its environment."""

    def __init__(self, library: Path, file: Path) -> None:
        file.write_bytes(bytes(8))
        file.chmod(0o644)
        with open(file, "r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(file)}
        self.off_s = 0

    def set(self, off_s: int) -> None:
        self.off_s = off_s
        self._memory[:] = struct.pack("q", off_s * 10**9)


def library(folder: Path) -> Path:
    """Compile `clock.c`, and see that it shifts the time of day of Python and neither its sleep nor the monotonic clock."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise Missing("gcc is not installed (Debian: apt-get install gcc libc6-dev)")
    made = folder / "clock.so"
    source = Path(__file__).with_suffix(".c")
    done = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"gcc cannot compile {source.name} (Debian: apt-get install libc6-dev): {done.stderr[-500:]}")
    made.chmod(0o755)
    clock = Clock(made, folder / "probe.offset")
    clock.set(DAY)
    code = "import time; a, m = time.time(), time.monotonic(); time.sleep(0.01); print(a, m, time.time())"
    shown = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **clock.environment}, capture_output=True, text=True, check=True
    )
    at, monotonic, after = map(float, shown.stdout.split())
    if abs(at - time.time() - DAY) > 600 or abs(monotonic - time.monotonic()) > 600 or not 0 < after - at < 600:
        raise AssertionError(f"the time of day is not shifted as it should be: {shown.stdout}")
    return made


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    jumps = [f"{of} {size} {way}" for of in OF for size in SIZES for way in ("ahead", "behind")]
    also = ("facts recorded a day ahead", "facts recorded a day behind", "server a day ahead", "server a day behind")
    seen = ("started again", "red while followers stood still", "green after", "idle a day behind", "idle a day ahead")
    found = Found(runs=0, exercised=dict.fromkeys((*jumps, *also, *seen), 0))
    ground.folder.chmod(0o755)  # the server has a uid of its own where there are no user namespaces, and loads the library
    made = library(ground.folder)
    clocks = {of: Clock(made, ground.folder / f"{of}.offset") for of in ("hub", "server")}
    server, inbox = Server(ground.folder / "server"), ground.folder / "inbox"
    hub: Program | None = None
    with contextlib.ExitStack() as stack:
        stack.callback(server.end)
        with _environment(clocks["server"].environment):
            server.start()
        access, mqtt = Access(server.url("trial")), stack.enter_context(mqtt_broker(ground, TOPIC, CLIENT_ID))
        stack.callback(ground.end)
        inbox.mkdir()
        settings = {"HUB_DATABASE_URL": access.owner, "HUB_WATCH": str(inbox), "HUB_MQTT_URL": mqtt.url, "HUB_MQTT_TOPICS": TOPIC}
        hub = Program(ground, ground.folder / "home", settings | clocks["hub"].environment, {"READY_LAG_S": LAG_S})
        stack.callback(hub.kill)
        hub.started()
        sources = _Sources(ground, hub.port, urlsplit(mqtt.url).port or 0, inbox)
        rng = ground.rng("jumps")
        for _ in range(ground.size(1, 12)):
            rng.shuffle(jumps)
            for n, jump in enumerate(jumps):
                _jump(access, clocks, jump, sources, found, ground.complete)
                if n in (5, 6):
                    found.exercised["started again"] += _start_again(hub, access, sources)  # type: ignore[index]
                found.wrong["red while well"] = found.wrong.get("red while well", 0) + (ground.complete and hub.ready() == 503)
        if ground.complete:
            _stand_still(hub, access, clocks, found)
        clocks["hub"].set(-DAY)
        clocks["server"].set(0)
        sources.drain(access, found, 60 if ground.complete else 8)
        if ground.complete:
            found.wrong["views not at the head"] = int(not process.wait_until(lambda: at_head(access, access.head()), 30, every=0.05))
            for way, off_s in (("behind", -DAY), ("ahead", DAY)):
                clocks["hub"].set(off_s)
                share = _cpu_share(hub)
                if share > IDLE_SHARE_MAX:  # what it still had to do it has done by the second look; who spins does so for ever
                    share = _cpu_share(hub)
                found.wrong[f"spins a day {way}"] = int(share > IDLE_SHARE_MAX)
                found.also[f"share of a core when idle, a day {way}"] = round(share, 2)
                found.exercised[f"idle a day {way}"] += 1  # type: ignore[index]
        ((ahead, behind),) = access.ask(
            """select count(*) filter (where recorded_at > to_timestamp(%s) + interval '12 hours'),
                      count(*) filter (where recorded_at < to_timestamp(%s) - interval '12 hours') from log.event""",
            time.time(),
            time.time(),
        )
        found.exercised.update({"facts recorded a day ahead": ahead, "facts recorded a day behind": behind})  # type: ignore[union-attr]
        hub.stop(found)
        sources.judge(access, found)
    return found


@contextlib.contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    """More in our own environment, for what starts meanwhile."""
    os.environ.update(more)
    try:
        yield
    finally:
        for name in more:
            del os.environ[name]


class _Sources:
    """The sources, each in a process of its own, with what they wrote down."""

    def __init__(self, ground: Ground, http_port: int, mqtt_port: int, inbox: Path) -> None:
        self.ground = ground
        self.counts = [Counts() for _ in WAYS]
        self.records = [ground.folder / f"record-{n}.json" for n in range(len(WAYS))]
        self.torn = ground.folder / "torn.json"
        self.processes = [
            ground.fork(f"{way} {n}", *self._work(n, way, http_port, mqtt_port, inbox), hub=False) for n, way in enumerate(WAYS)
        ]

    def _work(self, n: int, way: str, http_port: int, mqtt_port: int, inbox: Path) -> tuple[Callable[..., None], ...]:
        bodies, told = partial(body, self.ground.seed, n), (self.counts[n], self.records[n], 0.02)
        if way == "http":
            return post, bodies, http_port, "/v1/facts", *told  # type: ignore[return-value]
        if way == "mqtt":
            return publish, bodies, mqtt_port, TOPIC, *told  # type: ignore[return-value]
        return copy_slowly, bodies, inbox, *told, self.torn  # type: ignore[return-value]

    def stored(self, access: Access) -> list[int]:
        """How many facts of each source are in the log."""
        counted = dict(access.ask("select source, count(*) from log.event where source like 'trial:%%' group by source"))
        return [counted.get(f"trial:{n}", 0) for n in range(len(WAYS))]

    def drain(self, access: Access, found: Found, seconds: float) -> None:
        for one in self.processes:
            one.send(signal.SIGTERM)
        until = time.monotonic() + seconds

        def left(child: Child) -> bool:
            return not child.wait(max(0.0, until - time.monotonic())) or child.code != 0

        found.wrong["sources not drained"] = sum(left(one) for one in self.processes)
        n = WAYS.index("mqtt")  # what the broker has confirmed to its source, the hub may still have to take
        sent = {id_ for k in range(self.counts[n].acked) for id_ in delivery(self.ground.seed, n, k).ids}
        process.wait_until(lambda: sent <= stored(access).ids.keys(), seconds, every=0.2)

    def judge(self, access: Access, found: Found) -> None:
        """As `judge_roads`; a source that never ended counts by what it had begun."""
        offered: set[str] = set()
        for n, record in enumerate(self.records):
            if not record.exists():
                begun = self.counts[n].acked + self.counts[n].open
                offered.update(id_ for k in range(begun) for id_ in delivery(self.ground.seed, n, k).ids)
        judge_roads(self.ground, access, self.records, found, offered)
        halves = json.loads(self.torn.read_text()) if self.torn.exists() else {}
        taken = {sha for (sha,) in access.ask("select encode(sha256, 'hex') from log.delivery")}
        found.wrong["taken half-written"] = sum(hashed in taken for hashed in halves.values())


def _jump(access: Access, clocks: dict[str, Clock], jump: str, sources: _Sources, found: Found, complete: bool) -> None:
    """Set the clocks, and see that every source gets something into the log, and the views come to where it is then."""
    assert found.exercised is not None
    of, _, how = jump.partition(" ")
    off_s = SIZES[how.rpartition(" ")[0]] * (1 if how.endswith("ahead") else -1)
    for name in clocks if of == "both" else (of,):
        clocks[name].set(off_s)
    before = sources.stored(access)
    went_on = process.wait_until(
        lambda: all(now > then for now, then in zip(sources.stored(access), before, strict=True)), GOES_ON_S if complete else 3, every=0.1
    )
    head = access.head()
    there = process.wait_until(lambda: at_head(access, head), GOES_ON_S, every=0.05)
    ((server_s,),) = access.ask("select extract(epoch from clock_timestamp())::float8")
    for way, sign in (("ahead", 1), ("behind", -1)):
        found.exercised[f"server a day {way}"] += sign * (server_s - time.time()) > DAY / 2
    found.wrong["held up"] = found.wrong.get("held up", 0) + (not (went_on and there))
    if not (went_on and there):
        print(f"  held up: {jump}: {before} {sources.stored(access)}", flush=True)
    found.exercised[jump] += 1
    found.runs += 1


def _start_again(hub: Program, access: Access, sources: _Sources) -> bool:
    """Kill the API; whether the supervisor starts it again and it takes on. (Not intake: the demo's broker does not keep the order then.)"""
    n, pid = WAYS.index("http"), hub.pids()["hub-api"]
    os.kill(pid, signal.SIGKILL)
    if not process.wait_until(lambda: hub.pids().get("hub-api", pid) != pid, GOES_ON_S, every=0.05):
        return False
    before = sources.stored(access)[n]
    return process.wait_until(lambda: sources.stored(access)[n] > before, GOES_ON_S, every=0.05)


def _stand_still(hub: Program, access: Access, clocks: dict[str, Clock], found: Found) -> None:
    """Stop the followers while clocks jump: readiness must be red after its bound, not before, and green when they go on."""
    assert found.exercised is not None
    pid = hub.pids()["hub-follow"]
    clocks["hub"].set(DAY)  # facts of tomorrow: by the time of day nobody is ever behind
    os.kill(pid, signal.SIGSTOP)
    try:
        head = access.head()
        process.wait_until(lambda: access.head() > head, 10)
        began = time.monotonic()
        red = process.wait_until(lambda: hub.ready() == 503, LAG_S + 20, every=0.2)
        found.exercised["red while followers stood still"] += red
        found.wrong["red too soon"] = int(red and time.monotonic() - began < LAG_S / 2)
    finally:
        os.kill(pid, signal.SIGCONT)
    found.exercised["green after"] += process.wait_until(lambda: hub.ready() == 200, 30, every=0.1)


def _cpu_share(hub: Program) -> float:
    """The share of a core that all processes of the hub use for a while."""
    pids, began = hub.pids().values(), time.monotonic()
    before = sum(map(_cpu_s, pids))
    time.sleep(IDLE_S)
    return (sum(map(_cpu_s, pids)) - before) / (time.monotonic() - began)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


TRIAL = Trial("clock", run, seconds=(200, 3600), without={"monotonic": mechanisms.monotonic})
