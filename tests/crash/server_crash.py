"""server-crash: PostgreSQL dies under the running hub.

Promise: nothing acknowledged is lost, intake, followers and the relay come back by themselves, the topic that it publishes to lacks nothing, and
    readiness says what is so (P1, P2, P5).
Way: `hub serve`, the shipped program in its own processes, takes facts over HTTP and files from a watched folder, while its server is stopped
    with `pg_ctl -m immediate` and kept down for a while, or one of the hub's backends is killed by SIGKILL, which makes the server recover;
    now and then the broker that the relay publishes to (a real Apache Kafka) gets SIGKILL at the same time.
Oracle: the sources' own records against the events in the database by SQL; `/health/ready` asked while the server is down and after; the
    hub's processes are the same ones at the end; the topic, read by a plain consumer, against the log, read by SQL.
"""

import os
import signal
import time
from functools import partial

import psycopg

from hub.app.servers import process
from tests.crash.counted import at_head, judge_roads
from tests.crash.deliveries import body
from tests.crash.ground import Access, Ground, Server, Trial
from tests.crash.program import Program
from tests.crash.report import Found
from tests.crash.roads import Counts, drop, post
from tests.crash.topic import NAME, Topic, topic

HTTP_SOURCES = 2
BACK_S = 30.0  # by then the hub must be ready again and every view at the head as of the restart


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    found = Found(
        runs=0, in_flight=0, redelivered=0, exercised={"server stopped": 0, "backend killed": 0, "red while down": 0, "green after": 0}
    )
    server = Server(ground.folder / "server")
    hub: Program | None = None
    try:
        server.start()
        access, inbox = Access(server.url("trial")), ground.folder / "inbox"
        relayed = topic(ground, found)
        more = {"HUB_RELAY": relayed.brokers, "HUB_RELAY_TOPIC": NAME} if relayed is not None else {}
        hub = Program(ground, ground.folder / "home", {"HUB_DATABASE_URL": access.owner, "HUB_WATCH": str(inbox), **more}).started()
        before = hub.pids()
        counts = [Counts() for _ in range(HTTP_SOURCES + 1)]
        records = [ground.folder / f"record-{n}.json" for n in range(HTTP_SOURCES + 1)]
        bodies = [partial(body, ground.seed, n) for n in range(HTTP_SOURCES + 1)]
        sources = [
            ground.fork(f"http {n}", post, bodies[n], hub.port, "/v1/facts", counts[n], records[n], 0.002, hub=False)
            for n in range(HTTP_SOURCES)
        ]
        sources.append(ground.fork("folder", drop, bodies[-1], inbox, counts[-1], records[-1], 0.02, hub=False))
        _crash(ground, server, access, hub, relayed, counts, found)
        for source in sources:
            source.send(signal.SIGTERM)
        found.wrong["sources not drained"] = sum(not s.wait(60) or s.code != 0 for s in sources)
        found.wrong["views not at the head"] = int(not _followed(access, access.head()))
        if relayed is not None:
            found.wrong["relay behind"] = int(not relayed.published(access, 60))
            relayed.judge(access, found)
        found.also["processes of the hub that were started again"] = len(before.items() - hub.pids().items())
        hub.stop(found)
        judge_roads(ground, access, records, found)
    finally:
        if hub is not None:
            hub.kill()
        ground.end()
        server.end()
    return found


def _crash(ground: Ground, server: Server, access: Access, hub: Program, relayed: Topic | None, counts: list[Counts], found: Found) -> None:
    """Crash the server again and again; each time let the hub come back first."""
    assert found.exercised is not None
    rng, waits = ground.rng("crashes"), []
    for _ in range(ground.size(6, 200)):
        moved = sum(c.acked for c in counts) + 20
        process.wait_until(lambda moved=moved: sum(c.acked for c in counts) >= moved, 10)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.2))
        stop, down = found.runs % 3 != 2, rng.uniform(0.3, 1.2)  # every third is a backend
        found.in_flight = (found.in_flight or 0) + sum(c.open for c in counts)
        if relayed is not None and found.runs % 3 != 0:
            relayed.kill()
        if stop:
            server.crash()
            found.exercised["server stopped"] += 1
            asked = [hub.ready()]
            until = time.monotonic() + down
            while time.monotonic() < until:
                asked.append(hub.ready())
                time.sleep(0.05)
            found.exercised["red while down"] += 503 in asked
            found.wrong["green while down"] = found.wrong.get("green while down", 0) + asked.count(200)
            server.start()
        else:
            found.exercised["backend killed"] += _kill_backend(access, rng.random())
        back = time.monotonic()
        green = process.wait_until(lambda: hub.ready() == 200, BACK_S, every=0.02)
        there = process.wait_until(lambda: _answers(access), BACK_S, every=0.02) and _followed(access, access.head())
        waits.append(time.monotonic() - back)
        found.exercised["green after"] += green
        found.wrong["not back unaided"] = found.wrong.get("not back unaided", 0) + (not (green and there))
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
    return process.wait_until(lambda: at_head(access, head), BACK_S, every=0.05)


TRIAL = Trial("server-crash", run, seconds=(150, 7200))
