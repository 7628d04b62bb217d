"""The demo's edge: pull its cable, see what waits and for how long its disk lasts, and that all is zero again. Only where the hub runs in the demo."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response
from nicegui import ui

from events.errors import HubError, Refused
from hub.app.console.live import Live, first_line
from hub.app.console.shell import DEMO_PAGE, LivePiece, clock, first_look, frame, number, sheet, span, tile
from hub.app.demo import outage
from hub.app.demo.line import CUT, HOLD
from hub.app.demo.outage import BROKER, EDGE, WAYS, Outage
from hub.app.edge.ask import is_well, status
from hub.app.edge.config import Configured
from hub.app.home import Home
from hub.app.html import EMPTY, Html, command, name, table, tag, text
from hub.app.web import body_of, problem

REFRESH_S = 1.0
PATIENCE_S = 1.0
RATES_S = 5.0  # an outage is short: over the minute of `hub edge status` nobody would see it
OLD_S = 2.0  # what is younger is on its way, it does not wait
FULL_SOON_S = 3600.0
ASKED_BYTES_MAX = 1000
CHOICES = {
    CUT: "Cut the line to the hub",
    HOLD: "Hold the line: it accepts and says nothing",
    BROKER: "Stop the MQTT broker",
    EDGE: "Kill the edge (SIGKILL)",
}
MEANWHILE = {
    CUT: "Machines go on. What they say is on the edge's disk before it is acknowledged, and waits there.",
    HOLD: "Machines go on. The edge gives such a line up after 20 seconds; what they say waits on its disk.",
    BROKER: "OPC UA goes on. The MES and the packer keep what they have to say until the broker, and the edge at it, are back.",
    EDGE: "Machines go on: their OPC UA server keeps a history, the packer what it has to say. The numbers are those of the spool on its disk.",
}


class Asked(msgspec.Struct):
    """What the form sends."""

    way: str
    seconds: float


@dataclass(slots=True)
class Told:
    """An outage as far as the pages saw it; times are of `time.monotonic()`."""

    way: str
    over: float  # when it is, as far as is known
    peak: int = 0
    well: float | None = None  # when all was seen to be zero again


@dataclass(frozen=True, slots=True)
class Look:
    """What the edge said, or its spool while it does not run; `error` says why neither can be read."""

    at: float = 0.0
    status: dict[str, Any] = field(default_factory=dict)
    listen: str = ""
    error: str = ""
    now: Outage | None = None
    told: Told | None = None
    rates: tuple[float, float] | None = None  # entries a second: drained, arrived


class Looks:
    """Looks at the demo's edge, at most once a second however many browsers ask."""

    def __init__(self, home: Home) -> None:
        self.config = home.spool / "edge.yaml"
        self._home = home
        self._lock = threading.Lock()
        self._look = Look()
        self._counts: deque[tuple[float, int, int]] = deque()  # when, entries acknowledged ever, entries ever

    def read(self) -> Look:
        """A look that is a second old or younger, unless the edge takes its time."""
        if self._lock.acquire(timeout=PATIENCE_S):
            try:
                if time.monotonic() - self._look.at >= REFRESH_S / 2:
                    self._look = self._read(self._look.told)
            finally:
                self._lock.release()
        return self._look

    def _read(self, told: Told | None) -> Look:
        now = outage.under_way(self._home)
        try:
            configured = Configured(self.config)
            found = status(configured)
        except HubError as error:
            return Look(time.monotonic(), error=first_line(error), now=now, told=told)
        at = time.monotonic()
        if now is not None:
            if told is None or at > told.over:
                told = Told(now.way, at)
            told.over = at + now.left_s
        if told is not None and told.well is None:
            told.over = told.over if now else min(at, told.over)
            told.peak = max(told.peak, found["backlog"])
            told.well = at if now is None and is_well(found) else None
        return Look(at, found, configured.config.listen, now=now, told=told, rates=self._rates(at, found))

    def _rates(self, at: float, found: dict[str, Any]) -> tuple[float, float] | None:
        counts = self._counts
        counts.append((at, sum(one["acked"] for one in found["lanes"]), sum(one["last"] for one in found["lanes"])))
        while len(counts) > 2 and at - counts[0][0] > RATES_S:
            counts.popleft()
        (then, acked, last), (_, acked_, last_) = counts[0], counts[-1]
        return ((acked_ - acked) / (at - then), (last_ - last) / (at - then)) if at > then else None


def add(app: FastAPI, live: Live) -> None:
    """The page at `/edge`, and what its form asks for."""
    looks = Looks(live.home)
    path, title = DEMO_PAGE
    nowhere = "the hub does not run in a demo with an edge here: an edge shows its own page at its address (`listen` in edge.yaml)"

    @ui.page(path)
    async def edge() -> Response | None:
        if not outage.in_demo(live.home):
            return problem(404, nowhere)
        await first_look(live)
        with frame(live, path, title), ui.element("div").classes("stack"):
            page = _Page(looks)
            await asyncio.wait({asyncio.ensure_future(page.update())}, timeout=PATIENCE_S)
            ui.timer(REFRESH_S, page.update)
        return None

    @app.post(f"{path}/outage", include_in_schema=False)
    async def begin(request: Request) -> Response:
        """Begin an outage: 204 when it is one."""
        if not outage.in_demo(live.home):
            return problem(404, nowhere)
        try:
            asked = msgspec.json.decode(await body_of(request, ASKED_BYTES_MAX) or b"", type=Asked, strict=False)
        except msgspec.MsgspecError as error:
            raise Refused(f'this asks for no outage ({error}): write for example {{"way": "cut", "seconds": 30}}') from error
        await asyncio.to_thread(outage.begin, live.home, asked.way, asked.seconds)
        return Response(status_code=204)

    @app.delete(f"{path}/outage", include_in_schema=False)
    def end() -> Response:
        """End the outage, if there is one."""
        if not outage.in_demo(live.home):
            return problem(404, nowhere)
        outage.end(live.home)
        return Response(status_code=204)


class _Page:
    """One browser's view of the edge."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._verdict, self._tiles = LivePiece(), LivePiece()
        with ui.element("div").classes("three"):
            self._form, self._sources, self._lanes = LivePiece(), LivePiece(), LivePiece()
        self._foot = LivePiece()

    async def update(self) -> None:
        """Look, and show what changed."""
        look = await asyncio.to_thread(self._looks.read)
        self._form.show(_form(look.now, look.told.way if look.told else CUT))
        self._verdict.show(_verdict(look))
        known = bool(look.status)
        self._tiles.show(tag("div", _tiles(look), cls="big five") if known else EMPTY)
        self._sources.show(_sources(look.status) if known else EMPTY)
        self._lanes.show(_lanes(look.status) if known else EMPTY)
        self._foot.show(_foot(look.listen, self._looks.config) if known else EMPTY)


def _verdict(look: Look) -> Html:
    found, now = look.status, look.now
    if now is not None:
        return _says(f"{_sentence(str(now))}.", MEANWHILE[now.way])
    if look.error:
        return _says(f"The edge cannot be asked: {look.error}", "What it acknowledged is on its disk.")
    over = "The outage is over. " if look.told and look.told.well is None else ""
    waits, again = f"{number(found['backlog'])} wait", "It is tried again every few seconds."
    if not _runs(found):
        return _says(f"{over}No edge runs. Its supervisor starts it again.", MEANWHILE[EDGE])
    if not found["line"]["up"]:
        return _says(f"{over}The line is down, {waits}. {again}", MEANWHILE[CUT])
    if down := _down(found):
        return _says(f"{over}Not connected: {', '.join(down)}. {again}", "")
    if found["oldest_s"] >= OLD_S:
        return _says(f"{over}The line is up, {waits}: they drain in order while live facts flow.", "")
    return _says("Healthy: the line is up, nothing is left waiting, every source is connected.", _history(look.told))


def _runs(found: dict[str, Any]) -> bool:
    return "drain_rate" in found  # else it is the spool that tells


def _says(title: str, more: str) -> Html:
    return tag("h1", title, tag("span", more, cls="soft") if more else None, cls="verdict")


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def _history(told: Told | None) -> str:
    if told is None or told.well is None:
        return "Machines speak OPC UA and Sparkplug B to this edge, which hands everything to the hub over one line."
    soon = span(max(0.1, told.well - told.over))
    return f"The last outage ({WAYS[told.way]}): at most {number(told.peak)} waited, all was zero again within {soon} of its end."


def _form(now: Outage | None, chosen: str) -> Html:
    """It changes only when an outage begins or ends: a form that is sent anew forgets what somebody has chosen in it."""
    said = tag("p", role="alert", cls="bad")
    if now is not None:
        end = tag("form", tag("button", "End it now", cls="plain"), said, action=f"{DEMO_PAGE[0]}/outage", data_send="DELETE", cls="pull")
        return sheet("Pull the cable", "under way", tag("p", f"{_sentence(WAYS[now.way])}. It ends by itself."), end)
    ways = [tag("option", words, value=way, selected=way == chosen) for way, words in CHOICES.items()]
    form = tag(
        "form",
        tag("label", "What fails", tag("select", ways, name="way", cls="field")),
        tag("label", "for seconds", tag("input", name="seconds", type="number", value="30", min="1", max="86400", required=True, cls="field")),
        tag("button", "Let it fail", cls="plain"), said, action=f"{DEMO_PAGE[0]}/outage", data_send="POST", cls="pull",
    )  # fmt: skip
    why = "It fails from outside. Nothing that was acknowledged may be lost, and what never came must be told as a gap."
    return sheet("Pull the cable", "in the demo only", tag("p", why, cls="soft"), form)


def _tiles(look: Look) -> Iterator[Html]:
    found = look.status
    down, waits, oldest, full = _down(found), found["backlog"], found["oldest_s"], found.get("full_in_s")
    if not found["line"]["up"]:
        down.insert(0, "the line to the hub" if _runs(found) else "the edge")
    yield tile(
        "Down", number(len(down)), "", "bad" if down else "", ", ".join(down) or f"the line and all {len(found['sources'])} sources are up"
    )
    late = oldest >= OLD_S
    kind = "warn" if late else ""
    yield tile("Backlog", number(waits), "", kind, "wait for the hub" if late else "on their way" if waits else "nothing waits for the hub")
    value, unit = span(oldest if late else 0).split(" ")
    yield tile("Oldest", value, unit, kind, "since it came to the edge" if late else "nothing is older than two seconds")
    share, room = 100 * found["backlog_bytes"] / found["bytes_max"], f"of {found['bytes_max'] >> 20:,} MiB"
    forecast = "not growing" if full is None else f"full in {span(full)} if it goes on so"
    soon = full is not None and full < FULL_SOON_S
    yield tile(
        "Disk", f"{share:.1f}" if share >= 0.05 else "0", "%", "bad" if soon else "", f"{room}, {forecast}" if _runs(found) else room
    )
    drain, arrival = look.rates or (0.0, 0.0)
    yield tile("Drain", f"{drain:,.1f}", "/s", "warn" if late and drain < arrival else "", f"{arrival:,.1f}/s arrive; over {RATES_S:.0f} s")


def _down(found: dict[str, Any]) -> list[str]:
    return [one["name"] for one in found["sources"] if not one["connected"]]


def _sources(found: dict[str, Any]) -> Html:
    line = found["line"]
    rows = [("line to the hub", _up(line["up"], "up"), _clock(line.get("last_heard_at")), "")]
    rows += [
        (name(one["name"]), _up(one["connected"], "connected"), _clock(one["last_at"]), number(one["taken"])) for one in found["sources"]
    ]
    heads = (("source", ""), ("state", ""), ("last heard, UTC", "num"), ("taken", "num"))
    troubles = [f"{one['name']}: {one['trouble']}" for one in [{"name": "line", **line}, *found["sources"]] if one["trouble"]]
    return sheet("Line and sources", "", table(heads, rows), [tag("p", one, cls="foot reason") for one in troubles])


def _lanes(found: dict[str, Any]) -> Html:
    heads = (("lane", ""), ("given", "num"), ("durable in the hub", "num"), ("waiting", "num"))
    rows = [(name(one["lane"]), number(one["last"]), number(one["acked"]), number(one["backlog"])) for one in found["lanes"]]
    return sheet("Lanes", "each in its order", table(heads, rows))


def _foot(listen: str, config: Path) -> Html:
    page = f"http://{listen}/"
    return tag("p", "The same on the edge's machine: ", command(f"hub edge status --config {config}"), ", or its own page ", tag("a", page, href=page),
               "; what is missing: ", command("hub edge gaps"), cls="foot")  # fmt: skip


def _up(up: bool, word: str) -> Html:
    return text(word) if up else tag("span", f"not {word}", cls="bad")


def _clock(at: str | None) -> str:
    return clock(datetime.fromisoformat(at), datetime.now(UTC)) if at else "–"
