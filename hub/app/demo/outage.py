"""An outage in the demo, made outside of the processes that suffer it: an order in a file, which the line and the supervisor obey.

Who ordered it may go away: it ends by itself. The file orders nothing where there is no demo's line and no child that asks for it.

Errors: `Refused`, `Unavailable`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from events.errors import Refused, Unavailable
from hub.app.demo.line import CUT, HOLD, PASS, order, ordered
from hub.app.home import Home
from hub.app.servers import process
from hub.app.supervisor import Process, read_processes

BROKER, EDGE = "broker", "edge"
LINE_ROLE = "plant-line"  # only the demo with an edge has it
ROLES = {CUT: LINE_ROLE, HOLD: LINE_ROLE, BROKER: "broker", EDGE: "hub-edge"}
WAYS = {
    CUT: "the line to the hub is cut",
    HOLD: "the line to the hub is held: it accepts and says nothing",
    BROKER: "the MQTT broker is stopped",
    EDGE: "the edge is killed",
}
SECONDS_MIN, SECONDS_MAX = 1.0, 86_400.0
OBEY_S = 5.0


@dataclass(frozen=True, slots=True)
class Outage:
    """One that is under way: a key of `WAYS`, and for how long still."""

    way: str
    left_s: float

    def __str__(self) -> str:
        return f"{WAYS[self.way]}, {self.left_s:.0f} s left"


def order_file(home: Home) -> Path:
    """Where the order stands."""
    return home.run / "outage"


def under_way(home: Home) -> Outage | None:
    """The outage of now."""
    way, left_s = ordered(order_file(home))
    return Outage(way, left_s) if way in WAYS else None


def is_down(home: Home, way: str) -> Callable[[], bool]:
    """For a child of the supervisor: whether it is ordered to be down in this way."""
    return lambda: ordered(order_file(home))[0] == way


def in_demo(home: Home) -> bool:
    """Whether the home's hub runs in a demo whose line can be cut."""
    return LINE_ROLE in _running(home)


def begin(home: Home, way: str, seconds: float) -> None:
    """Begin an outage; returns when it is one. Raises `Unavailable` where there is nothing to stop, `Refused` while another is under way."""
    if way not in WAYS:
        raise Refused(f"there is no way {way[:40]!r} to make an outage: use {', '.join(WAYS)}")
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise Refused(f"an outage lasts {SECONDS_MIN:.0f} to {SECONDS_MAX:.0f} seconds, not {seconds}: give another number")
    found, role = _running(home), ROLES[way]
    if LINE_ROLE not in found:
        raise Unavailable(
            f"home {home.path} runs no demo with an edge, so there is nothing to stop (the headless demo has none either): "
            "start one (`make demo`), and give its HUB_HOME here"
        )
    if other := under_way(home):
        raise Refused(f"an outage is under way ({other}): wait for its end, or end it")
    if role not in found:
        raise Unavailable(f"{role} does not run now, so it cannot be stopped: its supervisor starts it again (`hub status`), try then")
    order(order_file(home), way, seconds)
    if role != LINE_ROLE and not process.wait_until(lambda: _running(home).get(role) != found[role], OBEY_S):
        end(home)
        raise Unavailable(f"{role} (pid {found[role].pid}) still runs {OBEY_S:.0f} s after it was to be stopped: look at its demo")


def end(home: Home) -> None:
    """End the outage, if there is one."""
    order(order_file(home), PASS)


def _running(home: Home) -> dict[str, Process]:
    return {one.role: one for one in read_processes(home)}
