"""Trace: any identifier in one box; what it is, whether the answer is complete, where it is now, where it came from and where it went."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Iterator

import psycopg
from fastapi.responses import RedirectResponse
from nicegui import ui

from events.errors import Unavailable
from hub.app.console.live import Live, first_line
from hub.app.console.shell import counted, first_look, frame, number, quantity
from hub.app.console.tree import Tree
from hub.app.console.where import PLACES, Answer, Place, ask
from hub.app.html import Html, command, name, table, tag, text, trace_link, trace_url
from hub.app.wiring import Hub
from projections.genealogy import NODE_KINDS

QUICK_S = 1.0  # an answer that takes longer comes after its page
PLACES_MAX = 200
NAMES_MAX = 4
ID_CHARS_MAX = 1000

BECAUSE = {
    "unknown_parent": "a lot or serial was used that nothing received, made or returned, or an order took an item without saying which lot: ancestors may be missing",
    "held_delivery": "a document that speaks of it is held, because a part of it was not understood: links may be missing",
    "conflict": "a fact about it came again with other content: the first stays, and which one is right is not decided",
    "gap": "a source reported a gap in what it sent: links may be missing",
}
NEXT = {
    "unknown_parent": "hub exceptions",
    "held_delivery": "hub quarantine list",
    "conflict": "hub quarantine list",
    "gap": "hub exceptions",
}


def add(live: Live, hub: Hub) -> None:
    """The pages at `/trace` and below."""

    @ui.page("/trace", response_timeout=30)
    async def asked(id: str = "") -> RedirectResponse | None:  # noqa: A002 - the name in the address
        words = _clean(id)
        if words and (url := trace_url(words)).startswith("/trace/"):
            return RedirectResponse(url)
        await _page(live, hub, words)
        return None

    @ui.page("/trace/{id_:path}", response_timeout=30)
    async def trace(id_: str) -> None:
        await _page(live, hub, _clean(id_))


def _clean(words: str) -> str:
    """What was typed or scanned without the control characters that scanners send."""
    return re.sub(r"[\x00-\x1f\x7f]", "", words).strip()[:ID_CHARS_MAX]


async def _page(live: Live, hub: Hub, words: str) -> None:
    await first_look(live)
    answer = asyncio.ensure_future(_ask(hub, words)) if words else None
    if answer is not None:
        await asyncio.wait({answer}, timeout=QUICK_S)
    with frame(live, "/trace", words or "Trace"):
        ui.html(_box(words), sanitize=False)
        with ui.element("div").classes("answer stack") as place:
            if answer is None:
                ui.html(_HELP, sanitize=False)
            elif answer.done():
                _show(answer.result(), words)
            else:
                ui.html(tag("p", "Tracing …", cls="nothing"), sanitize=False)
                ui.timer(0, lambda: _show_later(answer, words, place), once=True)


async def _ask(hub: Hub, words: str) -> Answer | str:
    """The answer, or why there is none."""
    try:
        return await asyncio.to_thread(ask, hub, words)
    except (Unavailable, psycopg.Error) as error:
        return first_line(error)


async def _show_later(answer: Awaitable[Answer | str], words: str, place: ui.element) -> None:
    found = await answer
    place.clear()
    with place:
        _show(found, words)


def _show(answer: Answer | str, words: str) -> None:
    """The answer's part of the page."""
    if isinstance(answer, str):
        again = tag("a", "Ask again", href=trace_url(words))
        ui.html(
            tag("div", tag("b", "The trace cannot be read now. "), answer, " ", again, " Next: ", command("hub doctor"), cls="whole warn"),
            sanitize=False,
        )
    elif answer.root is None:
        ui.html(_candidates(answer, words) if answer.candidates else _unknown(words), sanitize=False)
    else:
        ui.html(text(_head(answer, answer.root), _whole(answer), _counts(answer)), sanitize=False)
        ui.html(_now(answer), sanitize=False).classes("live")
        with ui.element("div").classes("two"):
            for title, edges, forward in (("Came from", answer.backward, False), ("Went into", answer.forward, True)):
                with ui.element("section").classes("sheet"):
                    ui.html(tag("h2", title, tag("span", counted(len(edges), "link"), cls="soft"), cls="title"), sanitize=False)
                    if edges:
                        Tree(edges, answer.root, answer.items, forward=forward)
                    else:
                        nothing = (
                            "Nothing that facts tell of went into it." if not forward else "No fact tells that it went into anything yet."
                        )
                        ui.html(tag("p", nothing, cls="nothing"), sanitize=False)


def _box(words: str) -> Html:
    field = tag(
        "input", name="id", type="text", value=words, placeholder="Scan or type any identifier", aria_label="Identifier", autocomplete="off",
        autocapitalize="off", spellcheck="false", maxlength=str(ID_CHARS_MAX), data_focus=True, cls="field",
    )  # fmt: skip
    return tag("form", field, tag("button", "Trace", type="submit", cls="plain"), action="/trace", method="get", role="search", cls="ask")


_HELP = tag(
    "div",
    tag("p", "A lot, supplier lot, serial, SSCC, order, purchase order, ship notice or shipment; its kind need not be known."),
    tag("p", "A name of several things gives a list to choose from. ITEM/LOT or lot:ITEM/LOT names one lot for sure."),
    cls="nothing",
)


def _candidates(answer: Answer, words: str) -> Html:
    rows = [(kind.replace("_", " "), trace_link(kind, id_)) for kind, id_ in answer.candidates]
    return text(
        tag("h1", name(words), " names ", number(len(rows)), " things"),
        tag("section", table((("kind", "nowrap"), ("which one?", "")), rows), cls="sheet"),
    )


def _unknown(words: str) -> Html:
    return text(
        tag("h1", "Nothing is known by the name ", name(words)),
        tag(
            "div",
            tag("p", "No fact recorded until now names it. What to do:"),
            tag(
                "ul",
                tag("li", "check the spelling: upper and lower case and leading zeros count"),
                tag("li", tag("a", "search all accounts of stock", href="/stock?accounts=all"), " for a part of it"),
                tag("li", "look whether a delivery that names it is held: ", command("hub quarantine list")),
            ),
            cls="whole warn",
        ),
    )


def _head(answer: Answer, root: tuple[str, str]) -> Html:
    node = answer.nodes.get(root, {})
    facts = [
        f"{label} {node[key].replace('T', ' ')[:16]} UTC" for key, label in (("first_at", "first"), ("last_at", "last")) if node.get(key)
    ]
    facts += [f"{key}: {_joined(node[key])}" for key in ("equipment", "operations") if node.get(key)]
    contents = node.get("contents", [])
    holds = [
        text(", " if n else "holds ", quantity(c["quantity"]) if c.get("quantity") else "some", " ", c.get("unit") or "", " of ", name(c["item"]), " ",
             answer.items.get(c["item"], ""))
        for n, c in enumerate(contents[:10])
    ]  # fmt: skip
    more = f" and {len(contents) - 10} more items" if len(contents) > 10 else None
    description = answer.items.get(node.get("item", ""), "")
    return text(
        tag(
            "h1",
            tag("span", root[0].replace("_", " "), cls="kind"),
            " ",
            name(root[1]),
            tag("span", f" {description}", cls="soft") if description else None,
        ),
        tag("p", " · ".join([*facts, f"as of fact {number(answer.position)}"]), cls="soft"),
        tag("p", holds, more) if holds else None,
    )


def _joined(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _whole(answer: Answer) -> Html:
    if not answer.because:
        return tag(
            "div",
            tag("b", "Complete."),
            " Every lot and serial in it has a known origin, and no document about it is held or in conflict.",
            cls="whole",
        )
    reasons = [
        tag("li", BECAUSE.get(code, code.replace("_", " ")), ". Next: ", command(NEXT.get(code, "hub exceptions")), data_code=code)
        for code in answer.because
    ]
    orphans = [key for key, node in sorted(answer.nodes.items()) if node.get("used") and not node.get("origin_known")]
    named = [text(", " if n else "Without an origin: ", trace_link(*key)) for n, key in enumerate(orphans[:20])]
    more = f" and {len(orphans) - 20} more" if len(orphans) > 20 else None
    return tag("div", tag("b", "NOT complete"), " because", tag("ul", reasons), tag("p", named, more) if named else None, cls="whole warn")


def _counts(answer: Answer) -> Html:
    counts = Counter(kind for kind, _ in answer.nodes)
    words = [(counts[kind], kind.replace("_", " ")) for kind in NODE_KINDS if counts[kind]]
    return tag("div", [tag("span", tag("b", number(n)), counted(n, what).partition(" ")[2]) for n, what in words], cls="counts")


def _now(answer: Answer) -> Html:
    title = tag("h2", "Where it is now", tag("span", "it and everything it went into", cls="soft"))
    body = _places(answer, answer.now) if answer.now else tag("p", "No stock account holds any of it.", cls="nothing")
    origins = tag(
        "details",
        tag("summary", f"Where what it came from is now ({counted(len(answer.origins), 'place')})"),
        _places(answer, answer.origins),
    )
    return tag("section", title, body, origins if answer.origins else None, cls="sheet")


def _places(answer: Answer, places: tuple[Place, ...]) -> Html:
    heads = (("where", "nowrap"), ("place", ""), ("quantity", "num"), ("unit", ""), ("item", ""), ("of", ""), ("status", ""))
    rows = [
        (PLACES.get(kind := p.account.partition("/")[0], kind), name(p.account.partition("/")[2]), quantity(f"{p.quantity:f}"), p.unit,
         text(name(p.item), " ", tag("span", answer.items.get(p.item, ""), cls="soft")), text(_some(p)), p.status)
        for p in places[:PLACES_MAX]
    ]  # fmt: skip
    cut = (
        tag("p", f"The first {PLACES_MAX} of {number(len(places))}; all of them: ", command("hub trace ID --json"), cls="soft")
        if len(places) > PLACES_MAX
        else None
    )
    return text(table(heads, rows, cls="cards"), cut)


def _some(place: Place) -> Iterator[Html]:
    for n, (kind, id_) in enumerate(place.nodes[:NAMES_MAX]):
        yield text(", " if n else None, trace_link(kind, id_, id_.partition("/")[2] or id_))
    if len(place.nodes) > NAMES_MAX:
        yield text(f" +{len(place.nodes) - NAMES_MAX}")
