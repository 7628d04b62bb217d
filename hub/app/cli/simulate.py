"""`hub simulate outage`: an outage in the demo, from outside of what suffers it, and how the backlog grows and drains."""

import sys
import time
from typing import Any

from hub.app.cli import output
from hub.app.demo import outage
from hub.app.edge.ask import is_well, status
from hub.app.edge.config import Configured
from hub.app.home import Home
from hub.app.settings import Settings

LOOK_S = 0.2
DRAIN_S = 600.0  # all zeros are waited for this long after the outage


def simulate(way: str, seconds: float, json_: bool) -> int:
    """`hub simulate outage`; exit code 1 if not all is zero again afterwards."""
    home = Home.open(Settings.load().home)
    outage.begin(home, way, seconds)
    peak, shown = 0, 0.0
    try:
        configured = Configured(home.spool / "edge.yaml")
        while now := outage.under_way(home):
            found = status(configured)
            peak = max(peak, found["backlog"])
            if time.monotonic() - shown >= 1:
                shown = time.monotonic()
                _show(f"{now}: {_numbers(found)}", json_)
            time.sleep(min(LOOK_S, max(0.0, now.left_s)))
    except BaseException:  # a person has seen enough
        outage.end(home)
        raise
    over = time.monotonic()
    while not is_well(found := status(configured)):
        peak = max(peak, found["backlog"])
        if time.monotonic() - over > DRAIN_S:
            break
        _show(f"it is over: {_numbers(found)}", json_)
        time.sleep(LOOK_S)
    summary = {
        "seconds": seconds,
        "how": way,
        "backlog_peak": peak,
        "backlog": found["backlog"],
        "drained_s": round(time.monotonic() - over, 1),
        "line_up": found["line"]["up"],
        "sources_down": _down(found),
    }
    if json_:
        output.document(summary)
    else:
        print(f"\nat most {peak} waited; {summary['drained_s']} s after the end: {_numbers(found)}")
    return 0 if is_well(found) else 1


def _numbers(found: dict[str, Any]) -> str:
    """A status of the edge in a few words; a rate is not there while no edge runs."""
    words = [f"{found['backlog']} wait"]
    words += [f"{found[name]}/s {verb}" for name, verb in (("drain_rate", "drain"), ("arrival_rate", "arrive")) if name in found]
    words += [] if found["line"]["up"] else ["line down" if "drain_rate" in found else "no edge answers"]
    words += [f"{name} not connected" for name in _down(found)]
    return ", ".join(words)


def _down(found: dict[str, Any]) -> list[str]:
    return [one["name"] for one in found["sources"] if not one["connected"]]


def _show(text: str, quiet: bool) -> None:
    if not quiet and sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="", flush=True)
    elif not quiet:
        print(text, flush=True)
