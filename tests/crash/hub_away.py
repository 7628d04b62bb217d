"""hub-away: the hub is away for a week, and the spool is too small for it.

Promise: before the spool is full the edge says so; then the source waits where it can, and what is lost elsewhere is named by gap facts; memory stays flat;
    when the hub is back all comes (P6, P8).
Way: machines publish over MQTT, Sparkplug and OPC UA and post over HTTP to the shipped edge, whose line is cut for a week of the plant's time, while its
    spool holds a small part of that. Then the line is back.
Oracle: the resident memory of the edge as the kernel counts it, most in the second half of the time with a full spool against most in the first; what
    machines wrote down before they sent it against raw deliveries and gap facts in the database (`site.Verdict`).
"""

import time
from pathlib import Path

from hub import limits
from hub.app.demo.line import CUT, PASS, order
from hub.app.servers import process
from tests.crash import mechanisms
from tests.crash.edges import Alone
from tests.crash.ground import Ground, Trial
from tests.crash.plant import OPC_ROOT
from tests.crash.report import Found
from tests.crash.site import Site, Verdict

WEEK_S = 7 * 24 * 3600
MIB = 1 << 20
GROWTH_MAX = 16 * MIB  # the allocator's, not a queue's
RATES = {"mqtt": 60.0, "sparkplug": 20.0, "opcua": 20.0, "http": 20.0}  # readings a second of each tag
KEEPS = 10  # messages that the server of OPC UA keeps until they are confirmed
QUEUE = 100  # values of OPC UA that server and edge keep, shortened
TOLD, FULL = "the spool fills", "are allowed: bring the line"


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    seen = ("told before it was full", "full", "mqtt waits at its broker", "http waits", "lost and named", "memory looked at")
    found = Found(runs=0, exercised=dict.fromkeys(seen, 0))
    away_s = ground.size(18, 1800)
    spool = {"max": ground.size(256, 16 * 1024) * 1024, "keep": "64KiB"}
    with Site.opened(ground, found, RATES, spool, speed=WEEK_S / away_s, back_s=WEEK_S, opcua={"queue": QUEUE}, opcua_keeps=KEEPS) as site:
        site.begin(lambda: site.edges.start(_shorter))
        order(site.edges.word, CUT)
        _away(site, away_s)
        order(site.edges.word, PASS)
        site.until_drained("when the hub was back")
        site.finish()
        found.runs = 1
        Verdict(site).judge()
        site.exercise("lost and named", found.also[f"missing {OPC_ROOT}/Plain"])  # what was not named is `lost`
    return found


def _shorter() -> None:
    """In the edge: let few values of OPC UA wait, so that the server's queue must overflow."""
    limits.OPCUA_WAITING_MAX = QUEUE


def _away(site: Site, away_s: float) -> None:
    """Until the time is over; look at memory once the spool is full."""
    log, edge = site.ground.log, site.edge
    assert edge is not None
    assert not isinstance(edge, Alone)
    until = time.monotonic() + away_s
    full = process.wait_until(lambda: FULL in _text(log), away_s, every=0.1)
    text = _text(log)
    site.exercise("full", int(full))
    site.exercise("told before it was full", int(TOLD in text and text.index(TOLD) < text.index(FULL)))
    time.sleep(2)
    began, halves = time.monotonic(), ([0], [0])
    while (now := time.monotonic()) < until:
        halves[now - began > (until - began) / 2].append(_resident(edge.pid))
        time.sleep(0.1)
    first, second = map(max, halves)
    site.exercise("memory looked at", int(first > 0))
    site.wrong("memory grows", int(second > first + GROWTH_MAX))
    site.found.also["MiB in the first and the second half"] = [round(n / MIB, 1) for n in (first, second)]
    taken = {one["name"]: one["taken"] for one in site.edges.status()["sources"]}
    waits = sum(path.stat().st_size for path in site.sent_folder.glob("plant*.sent")) // 24 - sum(
        n for name, n in taken.items() if name.startswith("mqtt")
    )
    site.exercise("mqtt waits at its broker", int(waits > 100))
    site.exercise("http waits", int(process.wait_until(lambda: site.word.under_way("http") > 0, 1)))
    site.found.also["readings that waited at the broker"] = waits


def _text(log: Path) -> str:
    return log.read_text("utf-8", "replace") if log.exists() else ""


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the edge {pid} has no memory: it ended")


TRIAL = Trial("hub-away", run, seconds=(150, 3600), without={"edge-until-durable": mechanisms.edge_until_durable})
