"""The frame of every page: navigation, the box that traces anything, the pulse of the hub, and the alarm when what is shown is not true any more."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from importlib import resources

from nicegui import ui

from hub import limits
from hub.app.console.live import Live, State
from hub.app.demo.outage import in_demo, under_way
from hub.app.home import Home
from hub.app.html import EMPTY, Html, command, style, tag, text
from hub.app.signin import signed_in, who

PAGES = (("/", "Overview"), ("/stock", "Stock"), ("/trace", "Trace"))
DEMO_PAGE = ("/edge", "Edge")
LAG_TOLD_S = 1.0  # less is the beat of the followers
LAG_WARN_S = 5.0
LAG_BAD_S = limits.READY_LAG_S
FIRST_LOOK_S = 0.7  # a page waits this long for its first numbers before it shows itself without them


class LivePiece:
    """A piece of a page that is sent again only when it changed."""

    def __init__(self, content: Html = EMPTY) -> None:
        self._element = ui.html(content, sanitize=False)  # everything in it went through html.text

    def show(self, content: Html) -> None:
        if content != self._element.content:
            self._element.set_content(content)


@contextlib.contextmanager
def frame(live: Live, here: str, title: str, *, refresh: Callable[[State], None] | None = None, asked: str = "") -> Iterator[None]:
    """A page: `refresh` gets the state about once a second."""
    ui.page_title(f"{title} – Millwright")
    ui.add_head_html(f"<style>{style()}</style>")
    ui.add_body_html(f"<script>{_script()}</script>")
    pages = [*PAGES, DEMO_PAGE] if in_demo(live.home) else PAGES
    links = [tag("a", name, href=path, aria_current="page" if path == here else None) for path, name in pages]
    with ui.element("header").classes("bar"):
        ui.html(tag("a", "Millwright", href="/", cls="mark"), sanitize=False)
        ui.html(text(links), sanitize=False, tag="nav")
        if here != "/trace":
            ui.html(_search(), sanitize=False).style("display: contents")
        pulse = LivePiece()
        pulse._element.classes("pulse")
        request = ui.context.client.request
        here_again = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        ui.html(who(signed_in(live.hub, request), here_again), sanitize=False).style("display: contents")
    ui.html(
        text(
            "No news from the hub for ", tag("span", "5", id="gone-s"), " s: what you see is old. ",
            tag("span", "It reconnects by itself; if it does not, look at ", command("hub status"), " on the hub's machine.", cls="next"),
        ),
        sanitize=False,
    ).classes("alarm").props("id=gone role=alert")  # fmt: skip
    alarm, pulled = LivePiece(), LivePiece()
    with ui.element("div").classes("page"):
        yield

    def look() -> None:
        state, now = live.state(), time.monotonic()
        pulse.show(_pulse(state, now))
        alarm.show(_alarm(state, now))
        pulled.show(_pulled(live.home) if here != DEMO_PAGE[0] else EMPTY)
        if refresh is not None:
            refresh(state)

    look()
    ui.timer(1.0, look)


async def first_look(live: Live) -> State:
    """The state, after a short wait for the first or a fresh one."""
    until = time.monotonic() + FIRST_LOOK_S
    state = live.state()
    while state.snapshot is None and not state.error and time.monotonic() < until:
        await asyncio.sleep(0.02)
        state = live.state()
    return state


def number(value: float | Decimal) -> str:
    """A number with separators."""
    return f"{value:,}"


def counted(count: int, what: str) -> str:
    """So many of something."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def quantity(digits: str) -> str:
    """An exact decimal with separators."""
    return f"{Decimal(digits):,f}"


def span(seconds: float) -> str:
    """A length of time in words short enough for a table."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def clock(at: datetime, today: datetime | None = None) -> str:
    """A time in UTC: of the day where that is today."""
    at = at.astimezone(UTC)
    return f"{at:%H:%M:%S}" if today is not None and at.date() == today.astimezone(UTC).date() else f"{at:%Y-%m-%d %H:%M:%S}"


def tile(label: str, value: str, unit: str, kind: str, say: object, next_: Html = EMPTY) -> Html:
    """A big number; `kind` is warn or bad where it is not as it should be, and then `next_` is the command to type."""
    return tag(
        "div", tag("div", label, cls="label"), tag("div", value, tag("small", unit) if unit else None, cls="value"), tag("div", say, cls="say"),
        tag("div", "Next: ", next_, cls="say") if kind and next_ else None, cls=f"one {kind}", data_number=label.lower(),
    )  # fmt: skip


def sheet(title: str, note: object, *body: object) -> Html:
    """A part of a page with a heading."""
    return tag("section", tag("h2", title, tag("span", note, cls="soft") if note else None), body, cls="sheet")


def _search() -> Html:
    field = tag(
        "input", name="id", type="text", placeholder="Trace a lot, serial, SSCC, order, ASN …", aria_label="Trace an identifier", autocomplete="off",
        spellcheck="false", maxlength="1000",
    )  # fmt: skip
    return tag("form", field, action="/trace", method="get", role="search")


def _pulse(state: State, now: float) -> Html:
    silent = state.silent_s(now)
    shot = state.snapshot
    dot, words = "wait", text("reading the log …")
    if silent:
        dot, words = "bad", text("no answer for ", span(silent))
    elif shot is not None:
        dot = "bad" if shot.oldest_s >= LAG_BAD_S else "warn" if shot.oldest_s >= LAG_WARN_S else "live"
        lag = f"views {span(shot.oldest_s)} behind" if shot.oldest_s >= LAG_TOLD_S else "views at the head"
        words = text("fact ", tag("b", number(shot.head)), " · ", tag("b", number(shot.per_minute)), "/min · ", lag)
    beat = tag("span", id="beat", data_beat=f"{int(now)}", data_silent="1" if silent else "0")
    return text(tag("span", cls=f"dot {dot}"), words, beat)


def _alarm(state: State, now: float) -> Html:
    silent = state.silent_s(now)
    if not silent:
        return EMPTY
    reason = f": {state.error}" if state.error else ""
    shown = f" What you see is from {clock(state.snapshot.at)} UTC." if state.snapshot else ""
    return tag(
        "div", "The database has not answered for ", tag("span", span(silent), id="silent-s"), ". Nothing is lost: sources keep what is not acknowledged.", shown,
        tag("div", "Next: ", command("hub status"), " and ", command("hub doctor"), " on the hub's machine", reason, cls="next"),
        cls="alarm", role="alert",
    )  # fmt: skip


def _pulled(home: Home) -> Html:
    """That somebody has made an outage; in the demo alone."""
    if not (in_demo(home) and (now := under_way(home))):
        return EMPTY
    return tag(
        "div", f"An outage was asked for: {now}. ", tag("a", "What the edge says", href=DEMO_PAGE[0]), cls="alarm warn", role="status"
    )


def _script() -> str:
    return resources.files("hub.app.console").joinpath("console.js").read_text("utf-8")
