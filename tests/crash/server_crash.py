"""server-crash: PostgreSQL dies under the running hub.

Promise: nothing acknowledged is lost, intake and followers come back by themselves, and readiness says what is so (P1, P2, P5).
Way: `hub serve`, the shipped program in its own processes, takes facts over HTTP and files from a watched folder, while its server is stopped
    with `pg_ctl -m immediate` and kept down for a while, or one of the hub's backends is killed by SIGKILL, which makes the server recover.
Oracle: the sources' own records against the events in the database by SQL; `/health/ready` asked while the server is down and after; the
    hub's processes are the same ones at the end.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psycopg

from hub.app.servers import process
from hub.app.wiring import views
from tests.crash.counted import judge, judge_views, stored
from tests.crash.deliveries import body, delivery
from tests.crash.ground import Access, Ground, Server, Trial
from tests.crash.report import ROOT, Found
from tests.crash.roads import Counts, drop, post

HTTP_SOURCES = 2
BACK_S = 30.0  # by then the hub must be ready again and every view at the head as of the restart
_SERVE = "import sys; from hub.app.cli import main; sys.argv = ['hub', 'serve', '--json']; main()"


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    found = Found(
        runs=0, in_flight=0, redelivered=0, exercised={"server stopped": 0, "backend killed": 0, "red while down": 0, "green after": 0}
    )
    server = Server(ground.folder / "server")
    hub: subprocess.Popen[bytes] | None = None
    try:
        server.start()
        access, port = Access(server.url("trial")), process.free_port()
        inbox = ground.folder / "inbox"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HUB_")} | {
            "HUB_HOME": str(ground.folder / "home"),
            "HUB_DATABASE_URL": access.owner,
            "HUB_LISTEN": f"127.0.0.1:{port}",
            "HUB_WATCH": str(inbox),
        }
        with open(ground.folder / "hub.log", "wb") as said:
            ends = process.ends_with_parent(signal.SIGTERM)
            hub = subprocess.Popen([sys.executable, "-c", _SERVE], cwd=ROOT, env=environment, stdout=said, stderr=said, preexec_fn=ends)  # noqa: PLW1509 - no threads here
        if not process.wait_until(lambda: _ready(port) == 200, 60, every=0.05):
            raise AssertionError(f"the hub did not start: {process.tail(ground.folder / 'hub.log')}")
        before = _pids(ground)
        counts = [Counts() for _ in range(HTTP_SOURCES + 1)]
        records = [ground.folder / f"record-{n}.json" for n in range(HTTP_SOURCES + 1)]
        bodies = [partial(body, ground.seed, n) for n in range(HTTP_SOURCES + 1)]
        sources = [
            ground.fork(f"http {n}", post, bodies[n], port, "/v1/facts", counts[n], records[n], 0.002, hub=False)
            for n in range(HTTP_SOURCES)
        ]
        sources.append(ground.fork("folder", drop, bodies[-1], inbox, counts[-1], records[-1], 0.02, hub=False))
        _crash(ground, server, access, port, counts, found)
        for source in sources:
            source.send(signal.SIGTERM)
        found.wrong["sources not drained"] = sum(not s.wait(60) or s.code != 0 for s in sources)
        found.wrong["views not at the head"] = int(not _followed(access, access.head()))
        found.also["processes of the hub that were started again"] = len(before.items() - _pids(ground).items())
        _judge(ground, access, records, found)
    finally:
        if hub is not None:
            hub.terminate()
            try:
                hub.wait(15)
            except subprocess.TimeoutExpired:
                hub.kill()
                hub.wait()
        ground.end()
        server.end()
    return found


def _crash(ground: Ground, server: Server, access: Access, port: int, counts: list[Counts], found: Found) -> None:
    """Crash the server again and again; each time let the hub come back first."""
    assert found.exercised is not None
    rng, waits = ground.rng("crashes"), []
    for _ in range(ground.size(6, 200)):
        moved = sum(c.acked for c in counts) + 20
        process.wait_until(lambda moved=moved: sum(c.acked for c in counts) >= moved, 10)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.2))
        stop, down = found.runs % 3 != 2, rng.uniform(0.3, 1.2)  # every third is a backend
        found.in_flight = (found.in_flight or 0) + sum(c.open for c in counts)
        if stop:
            server.crash()
            found.exercised["server stopped"] += 1
            asked = [_ready(port)]
            until = time.monotonic() + down
            while time.monotonic() < until:
                asked.append(_ready(port))
                time.sleep(0.05)
            found.exercised["red while down"] += 503 in asked
            found.wrong["green while down"] = found.wrong.get("green while down", 0) + asked.count(200)
            server.start()
        else:
            found.exercised["backend killed"] += _kill_backend(access, rng.random())
        back = time.monotonic()
        green = process.wait_until(lambda: _ready(port) == 200, BACK_S, every=0.02)
        at_head = process.wait_until(lambda: _answers(access), BACK_S, every=0.02) and _followed(access, access.head())
        waits.append(time.monotonic() - back)
        found.exercised["green after"] += green
        found.wrong["not back unaided"] = found.wrong.get("not back unaided", 0) + (not (green and at_head))
        found.runs += 1
    found.wrong["stops without red"] = found.exercised["server stopped"] - found.exercised["red while down"]
    found.also["longest wait for views and readiness in s"] = round(max(waits), 2)


def _kill_backend(access: Access, share: float) -> bool:
    """SIGKILL to a backend that works for the hub: the server ends all sessions and recovers."""
    rows = access.ask("select pid from pg_stat_activity where application_name like 'hub %%' order by pid")
    if rows:
        os.kill(rows[int(share * len(rows))][0], signal.SIGKILL)
    return bool(rows)


def _answers(access: Access) -> bool:
    try:
        access.head()
    except psycopg.OperationalError:
        return False
    return True


def _followed(access: Access, head: int) -> bool:
    """Whether every view comes to that position by itself. Its position is the liveness, not that a thread is there."""

    def there() -> bool:
        try:
            return all(access.ask(f"select position from view_{view.name}.position")[0][0] >= head for view in views())  # noqa: S608 - our own names
        except psycopg.OperationalError:
            return False

    return process.wait_until(there, BACK_S, every=0.05)


def _ready(port: int) -> int:
    """The status of /health/ready; 0 where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _pids(ground: Ground) -> dict[str, int]:
    return {p["role"]: p["pid"] for p in json.loads((ground.folder / "home" / "run" / "processes.json").read_text())}


def _judge(ground: Ground, access: Access, records: list[Path], found: Found) -> None:
    log = stored(access)
    acked: set[str] = set()
    calls, wrong_position = [], 0
    for source, path in enumerate(records):
        if not path.exists():
            continue
        record = json.loads(path.read_text())
        found.redelivered = (found.redelivered or 0) + record["again"]
        for n, (call, ack, position) in enumerate(record["rows"]):
            one = delivery(ground.seed, source, n)
            acked.update(one.ids)
            if one.own and position:
                wrong_position += log.at.get(one.ids[0]) != position
                calls.append((one.ids[0], call, ack, position))
    judge(found, log, acked, acked)
    found.wrong["acknowledged with another position"] = wrong_position
    judge_views(found, access, print)
    ground.history.calls("http", calls)
    ground.history.log(log.log)


TRIAL = Trial("server-crash", run, seconds=(150, 7200))
