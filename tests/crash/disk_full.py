"""disk-full: the disk under the database fills up, again and again.

Promise: while there is no room nothing is acknowledged, sources are pushed back and readiness is red and names the disk; nothing acknowledged
    is lost, nothing doubled, and when there is room again the hub goes on by itself (P1, P2, P7, P8).
Way: `hub serve` with its private PostgreSQL in a home on a small tmpfs takes facts and large documents that no mapping takes (so that raw
    deliveries and quarantine fill it) over HTTP, and files. A ballast file takes what is left: all of it at once, or so that the hub's own writing
    takes the rest, which ends in errors of single writes, or in the server's PANIC where its log finds no room. After a while it is removed.
Oracle: the sources' own records against the events in the database by SQL; `/health/ready`; the server's own log for what happened to it; the
    kernel's count of free bytes.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg

from hub.app.home import Home
from hub.app.servers import process
from hub.app.servers.cluster import DATABASE, OWNER
from hub.app.servers.postgres import PrivateServer, to_url
from tests.crash import mechanisms
from tests.crash.counted import at_head, judge_roads
from tests.crash.deliveries import body
from tests.crash.ground import Access, Ground, Missing, Trial
from tests.crash.program import Program
from tests.crash.report import Found
from tests.crash.roads import Counts, drop, post

MIB = 1024 * 1024
DISK_BYTES = 512 * MIB
LARGE_BYTES = 64 * 1024  # of a document that no mapping takes
LEFT = (0, 4 * MIB, 1 * MIB, 12 * MIB)  # what the ballast leaves, in turn: the hub's own writing takes it
WAYS = ("http", "http", "folder", "raw")  # a source each
BACK_S = 60.0  # by then the hub must be ready again, with every view at the head
SEGMENTS_MAX = 40  # more than the server keeps for later on this disk
WAIT_S = 2.0  # how long a request waits for the log, shortened


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    happened = ("a write failed", "the server ended itself", "red while full", "names the disk", "pushed back", "green after")
    found = Found(runs=0, in_flight=0, redelivered=0, exercised=dict.fromkeys(happened, 0))
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(ground.folder / "disk", DISK_BYTES))
        home, inbox = disk / "home", ground.folder / "inbox"
        inbox.mkdir()
        hub = Program(ground, home, {"HUB_WATCH": str(inbox)}, {"HTTP_DURABLE_WAIT_S": WAIT_S})
        stack.callback(hub.kill)
        stack.callback(ground.end)
        hub.started()
        server = PrivateServer(Home(home)).current()
        assert server is not None
        access = Access(to_url({"user": OWNER, "dbname": DATABASE, "host": server.socket_dir, "port": server.port}))
        counts, records = [Counts() for _ in WAYS], [ground.folder / f"record-{n}.json" for n in range(len(WAYS))]
        sources = []
        for n, way in enumerate(WAYS):
            if way == "folder":
                sources.append(ground.fork(way, drop, partial(body, ground.seed, n), inbox, counts[n], records[n], 0.02, hub=False))
            else:
                bodies = partial(large, ground.seed) if way == "raw" else partial(body, ground.seed, n)
                sources.append(ground.fork(way, post, bodies, hub.port, "/v1/facts", counts[n], records[n], 0.005, hub=False))
        for n in range(ground.size(4, 50)):
            _fill(ground, disk, hub, access, counts, LEFT[n % len(LEFT)], found)
            if ground.complete and found.wrong["not back unaided"]:
                break
        for source in sources:
            source.send(signal.SIGTERM)
        found.wrong["sources not drained"] = sum(not s.wait(60) or s.code != 0 for s in sources)
        found.wrong["views not at the head"] = int(not process.wait_until(lambda: at_head(access, access.head()), BACK_S, every=0.1))
        said = (home / "run" / "log" / "postgres.log").read_text("utf-8", "replace")
        assert found.exercised is not None
        found.exercised["a write failed"] = said.count("ERROR:  could not extend file") + said.count("No space left on device")
        found.exercised["the server ended itself"] = said.count("redo done at")  # its PANIC finds no room in its own log
        now = PrivateServer(Home(home)).current()
        found.also["the keeper started another server"] = now is None or now.pid != server.pid
        raw = [hashlib.sha256(large(ground.seed, n)).hexdigest() for n in range(counts[WAYS.index("raw")].acked)]
        kept = {sha for (sha,) in access.ask("select encode(sha256, 'hex') from log.delivery")}
        found.lost += sum(sha not in kept for sha in raw)
        found.also["large documents in quarantine"] = len(raw)
        judge_roads(ground, access, records[: WAYS.index("raw")], found, raw)
        hub.stop(found)
    return found


def large(seed: int, n: int) -> bytes:
    """Delivery n of the source whose documents are large and no mapping's."""
    return b"no document at all: %d %d " % (seed, n) + hashlib.shake_128(b"%d/%d" % (seed, n)).digest(LARGE_BYTES)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A tmpfs of so many bytes. Raises `Missing`."""
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        raise Missing("a small disk needs a tmpfs of its own, which root alone may mount")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size},mode=0755", "trial", str(folder)], capture_output=True, check=False)
    if done.returncode:
        raise Missing(f"a tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        umount = shutil.which("umount") or "umount"
        process.wait_until(lambda: subprocess.run([umount, str(folder)], capture_output=True, check=False).returncode == 0, 10, every=0.2)


def _fill(ground: Ground, disk: Path, hub: Program, access: Access, counts: list[Counts], left: int, found: Found) -> None:
    """Fill the disk but for so many bytes, keep it so for a while, and let the hub come back."""
    assert found.exercised is not None
    acked = sum(c.acked for c in counts)
    process.wait_until(lambda: sum(c.acked for c in counts) >= acked + 40, 20)
    ballast = disk / "ballast"
    try:
        take_room(ballast, left)
        asked = []

        def stands() -> bool:
            """Whether no source has been acknowledged anything for a second."""
            before = [c.acked for c in counts]
            until = time.monotonic() + 1
            while time.monotonic() < until:
                asked.append(hub.asked())
                time.sleep(0.1)
            return before == [c.acked for c in counts]

        full = process.wait_until(stands, 15)
        take_room(ballast, 0)
        if found.runs % 2:
            _end_segments(access)
            take_room(ballast, 0)  # what the ended server has given back
        until = time.monotonic() + ground.rng(f"fill {found.runs}").uniform(2.5, 5)
        while time.monotonic() < until:
            asked.append(hub.asked())
            time.sleep(0.1)
        found.in_flight = (found.in_flight or 0) + sum(c.open for c in counts)
        red = any(status == 503 for status, _ in asked)
        named = any(str(disk) in str(said.get("detail")) for _, said in asked)
        found.exercised["red while full"] += red
        found.exercised["names the disk"] += named
        found.exercised["pushed back"] += full
    finally:
        ballast.unlink(missing_ok=True)
    back_s = BACK_S if ground.complete else 8
    acked, back = sum(c.acked for c in counts), time.monotonic()
    green = process.wait_until(lambda: hub.ready() == 200, back_s, every=0.05)
    on = process.wait_until(lambda: all(c.acked > 0 for c in counts) and sum(c.acked for c in counts) > acked + 20, back_s)
    there = green and on and process.wait_until(partial(at_head, access, access.head()), back_s, every=0.1)
    if there:
        with psycopg.connect(access.owner, autocommit=True) as connection:
            connection.execute("checkpoint")  # else the server keeps its log for 2 GB, which this disk does not have
    found.exercised["green after"] += green
    found.wrong["not back unaided"] = found.wrong.get("not back unaided", 0) + (not there)
    found.wrong["fills without red"] = found.wrong.get("fills without red", 0) + (not red)
    found.wrong["fills that do not name the disk"] = found.wrong.get("fills that do not name the disk", 0) + (not named)
    found.also["longest wait for all to go on in s"] = round(
        max(found.also.get("longest wait for all to go on in s", 0), time.monotonic() - back), 1
    )
    found.runs += 1


def take_room(path: Path, left: int) -> None:
    """Take all room but for so many bytes, piece by piece: others write meanwhile, and a piece for which there is no room takes none."""
    with open(path, "ab") as file:
        for piece in (MIB, 4096):
            with contextlib.suppress(OSError):
                while shutil.disk_usage(path.parent).free >= left + piece:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), piece)


def _end_segments(access: Access) -> None:
    """Let the server's log need one file after the other, until there is no room for the next, which ends the server."""
    for _ in range(SEGMENTS_MAX):
        with contextlib.suppress(psycopg.Error):  # of single writes, until there is no server to ask
            access.ask("select pg_logical_emit_message(true, 'trial', ''), pg_switch_wal()")


TRIAL = Trial("disk-full", run, seconds=(240, 7200), without={"until-durable": mechanisms.until_durable})
