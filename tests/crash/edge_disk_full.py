"""edge-disk-full: the disk under the spool fills up, again and again.

Promise: while there is no room nothing is acknowledged, the source waits or what is lost elsewhere is named by gap facts; when there is room the edge goes on
    by itself (P6, P8).
Way: the shipped edge has its spool on a small tmpfs. A ballast file takes what is left: all of it, or so that the edge's own writing takes the rest, while
    the line is there or is cut; now and then the edge is killed meanwhile. One that finds no room when it starts ends with an error, and is started again
    each second, as a service manager does. After a while the ballast is removed.
Oracle: the kernel's count of free bytes; what machines wrote down before they sent it against raw deliveries and gap facts in the database, and what each
    dead edge left in its spool (`site.Verdict`).
"""

import contextlib
import time

from hub.app.demo.line import CUT, PASS, order
from hub.app.servers import process
from tests.crash import mechanisms
from tests.crash.disk_full import MIB, small_disk, take_room
from tests.crash.edges import imported
from tests.crash.ground import Ground, Trial
from tests.crash.report import Found
from tests.crash.site import Site, Verdict

DISK_BYTES = 12 * MIB
LEFT = (0, 64 * 1024, 256 * 1024, 4096)  # what the ballast leaves, in turn
RATES = {"mqtt": 60.0, "sparkplug": 20.0, "opcua": 20.0, "http": 10.0}  # readings a second of each tag
FULL = ("is full: make room", "cannot be used (disk I/O error")
BACK_S = 40.0


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    imported()
    found = Found(
        runs=0,
        in_flight=0,
        exercised=dict.fromkeys(("a write failed", "killed while full", "line cut while full", "went on"), 0),
    )
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(ground.folder / "disk", DISK_BYTES))
        site = stack.enter_context(Site.opened(ground, found, RATES, {"max": "1GiB", "keep": "256KiB"}, folder=disk / "edge"))
        site.begin(site.edges.start)
        for n in range(ground.size(4, 60)):
            _fill(site, n)
        site.rest()
        site.finish()
        text = ground.log.read_text("utf-8", "replace")
        site.exercise("a write failed", sum(text.count(one) for one in FULL))
        Verdict(site).judge()
    return found


def _fill(site: Site, n: int) -> None:
    """Fill the disk but for so many bytes, keep it so for a while, and let the edge come back."""
    rng, disk = site.ground.rng(f"fill {n}"), site.edges.folder.parent
    ballast = disk / "ballast"
    assert site.edge is not None
    ended = 0
    time.sleep(rng.uniform(0.5, 1.5))
    if n % 2:
        order(site.edges.word, CUT)
        site.exercise("line cut while full")
    try:
        take_room(ballast, LEFT[n % len(LEFT)])
        time.sleep(rng.uniform(1.5, 3))
        take_room(ballast, 0)
        if n % 3 == 1:
            site.edge.kill()
            site.look()
            take_room(ballast, 0)
            site.edge = site.edges.start()
            site.exercise("killed while full")
        until = time.monotonic() + rng.uniform(1.5, 3)
        while time.monotonic() < until:
            time.sleep(0.5)
            ended += _again(site)
    finally:
        ballast.unlink(missing_ok=True)
    order(site.edges.word, PASS)
    ended += _again(site)
    site.wrong("edges that ended by themselves", int(ended > 0 and n % 3 != 1))
    head = site.access.head()
    went_on = process.wait_until(lambda: site.access.head() > head + 5 and bool(site.edges.status()), BACK_S, every=0.1)
    connected = went_on and process.wait_until(lambda: all(one["connected"] for one in site.edges.status()["sources"]), BACK_S, every=0.1)
    site.exercise("went on", int(connected))
    site.wrong("not back unaided", int(not connected))
    site.found.runs += 1


def _again(site: Site) -> bool:
    """Start an edge that has ended; whether it had."""
    assert site.edge is not None
    if not site.edge.ended():
        return False
    site.edge = site.edges.start()
    site.found.also["found no room at its start"] = site.found.also.get("found no room at its start", 0) + 1
    return True


TRIAL = Trial("edge-disk-full", run, seconds=(180, 3600), without={"edge-until-durable": mechanisms.edge_until_durable})
