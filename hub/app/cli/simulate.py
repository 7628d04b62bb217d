"""`hub simulate outage`: cuts the demo's line between plant and hub, from outside of both, and shows how the backlog grows and drains."""

import sys
import time
from pathlib import Path
from typing import Any

from events.errors import Refused, Unavailable
from hub.app.cli import output
from hub.app.cli.edge import ask
from hub.app.demo.line import CUT, HOLD, PASS, order
from hub.app.edge.config import Configured
from hub.app.home import Home
from hub.app.settings import Settings

DRAIN_S = 600.0  # an outage is waited for this long after the line is back


def outage(seconds: float, hold: bool, json_: bool) -> int:
    """`hub simulate outage`; exit code 1 if the backlog did not drain."""
    home = Home.open(Settings.load().home)
    config = home.spool / "edge.yaml"
    if not config.exists():
        raise Refused(f"home {home.path} has no demo with an edge: start one (`make demo`), and give its HUB_HOME here")
    configured, word = Configured(config), line_of(home)
    before = _status(configured)
    peak, began = before["backlog"], time.monotonic()
    try:
        order(word, HOLD if hold else CUT)
        while (left := seconds - (time.monotonic() - began)) > 0:
            time.sleep(min(1.0, left))
            found = _status(configured)
            peak = max(peak, found["backlog"])
            _show(f"line {'held' if hold else 'cut'}, {left:.0f} s left: {found['backlog']} wait, {found['arrival_rate']}/s arrive", json_)
    finally:
        order(word, PASS)  # also when a person has seen enough
    back = time.monotonic()
    while (found := _status(configured))["backlog"] or not found["line"]["up"]:
        peak = max(peak, found["backlog"])
        if time.monotonic() - back > DRAIN_S:
            break
        _show(f"line back: {found['backlog']} wait, {found['drain_rate']}/s drain, {found['arrival_rate']}/s arrive", json_)
        time.sleep(0.2)
    summary = {
        "seconds": seconds,
        "how": HOLD if hold else CUT,
        "backlog_peak": peak,
        "backlog": found["backlog"],
        "drained_s": round(time.monotonic() - back, 1),
        "line_up": found["line"]["up"],
    }
    if json_:
        output.document(summary)
    else:
        print(f"\nat most {peak} entries waited; {summary['drained_s']} s after the line was back {found['backlog']} did")
    return 1 if found["backlog"] or not found["line"]["up"] else 0


def line_of(home: Home) -> Path:
    """The file by which the demo's line is told what to do."""
    return home.run / "line"


def _status(configured: Configured) -> dict[str, Any]:
    try:
        return ask(configured, "/status")
    except Unavailable as error:
        raise Unavailable(f"the demo's edge does not answer ({error}): start the demo (`make demo`)") from error


def _show(text: str, quiet: bool) -> None:
    if not quiet and sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="", flush=True)
    elif not quiet:
        print(text, flush=True)
