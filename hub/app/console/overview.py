"""The first page: does data flow, is anything stuck, is anything lost, and the first command to type where not."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from nicegui import ui

from events.base import Recorded
from hub.app.console.live import LIST_MAX, Live, Snapshot, State
from hub.app.console.shell import (
    LAG_BAD_S,
    LAG_TOLD_S,
    LAG_WARN_S,
    LivePiece,
    clock,
    counted,
    first_look,
    frame,
    number,
    quantity,
    sheet,
    span,
    tile,
)
from hub.app.html import EMPTY, Html, command, name, table, tag, text, trace_link
from projections.genealogy import NODE_KINDS
from projections.naming import named

Problem = tuple[str, Html]  # warn or bad, what to say
SUBJECTS_MAX = 3
KINDS_MAX = 2  # of exceptions that the tile names


def add(live: Live) -> None:
    """The page at `/`."""

    @ui.page("/")
    async def overview() -> None:
        await first_look(live)
        pieces: list[LivePiece] = []

        def refresh(state: State) -> None:
            if state.snapshot is not None:
                for piece, content in zip(pieces, _pieces(state.snapshot), strict=True):
                    piece.show(content)

        with frame(live, "/", "Overview", refresh=refresh), ui.element("div").classes("stack live"):
            pieces.extend(LivePiece() for _ in range(7))


def _pieces(shot: Snapshot) -> Iterator[Html]:
    yield _verdict(shot)
    yield tag("div", _big(shot), cls="big")
    yield tag("div", _views(shot), _sources(shot), _processes(shot), cls="three")
    yield _equipment(shot)
    yield _newest(shot)
    yield _exceptions(shot)
    yield _held(shot)


def problems(shot: Snapshot) -> Iterator[Problem]:
    """What is wrong, worst first."""
    roles = {p.role for p in shot.processes}
    if beyond := [lag.view for lag in shot.lags if lag.behind < 0]:
        yield (
            "bad",
            text(
                ", ".join(beyond),
                " is beyond the head: the log is older than the view. ",
                command("hub replay rebuild --all"),
                ", then promote",
            ),
        )
    if broken := {unit: total for unit, total in shot.lists.ledger.items() if total != "0"}:
        yield (
            "bad",
            text(
                f"The ledger does not sum to zero ({', '.join(f'{n} {u}' for u, n in broken.items())}): ",
                command("hub replay verify --all"),
            ),
        )
    if roles and "hub-follow" not in roles:
        yield "bad", text("hub-follow does not run, no view moves: ", command("hub status"))
    if roles and "hub-intake" not in roles:
        yield "bad", text("hub-intake does not run, nothing comes in from brokers and folders: ", command("hub status"))
    if shot.oldest_s >= LAG_WARN_S:
        late = max(shot.lags, key=lambda lag: lag.seconds)
        kind = "bad" if shot.oldest_s >= LAG_BAD_S else "warn"
        yield kind, text(f"View {late.view} is {counted(late.behind, 'fact')} and {span(late.seconds)} behind: ", command("hub doctor"))
    if missing := [lag.view for lag in shot.lags if lag.position is None]:
        yield "warn", text(f"Views not there yet: {', '.join(missing)}. ", command("hub serve"), " makes and follows them")


def _verdict(shot: Snapshot) -> Html:
    found = list(problems(shot))
    if shot.last is None:
        flow = "No fact yet. Send one: hub intake FILE, or start the demo."
    elif shot.per_minute:
        flow = (
            f"{counted(shot.per_minute, 'fact')} in the last minute, the last one {clock(shot.last, shot.at)}; {number(shot.head)} in all."
        )
    else:
        quiet = span((shot.at - shot.last).total_seconds() // 10 * 10)
        flow = f"No fact for {quiet}, the last one {clock(shot.last, shot.at)}; {number(shot.head)} in all."
    if shot.lists.held or shot.lists.exceptions:
        flow += " What is held or contradicts waits for a person and stops nothing else."
    if not found:
        title = (
            "Data flows, every view has every fact, the ledger balances."
            if shot.per_minute
            else "Quiet. Every view has every fact, the ledger balances."
        )
        return tag("h1", title, tag("span", flow, cls="soft"), cls="verdict")
    return tag("h1", [tag("div", words, cls=kind) for kind, words in found], tag("span", flow, cls="soft"), cls="verdict")


def _big(shot: Snapshot) -> Iterator[Html]:
    lag, held, lists = shot.oldest_s, shot.lists.held, shot.lists
    late = max(shot.lags, key=lambda one: one.seconds, default=None)
    value, unit = (span(lag) if lag >= LAG_TOLD_S else "0 s").split(" ")
    yield tile(
        "Behind", value, unit, "bad" if lag >= LAG_BAD_S else "warn" if lag >= LAG_WARN_S else "",
        "every view has every fact" if late is None or lag < LAG_TOLD_S else f"view {late.view} waits for {counted(late.behind, 'fact')}",
        command("hub doctor"),
    )  # fmt: skip
    yield tile(
        "Held", number(held), "", "warn" if held else "", "every delivery was understood" if not held else "kept whole, not understood or in conflict",
        command("hub quarantine list"),
    )  # fmt: skip
    count = sum(lists.exceptions.values())
    worst = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in sorted(lists.exceptions.items(), key=lambda kv: -kv[1])[:KINDS_MAX])
    if (more := len(lists.exceptions) - KINDS_MAX) > 0:
        worst += f" and {counted(more, 'more kind')}"
    yield tile("Exceptions", number(count), "", "warn" if count else "", worst or "no fact contradicts another", command("hub exceptions"))
    restarts = [(p.role, p.restarts) for p in shot.processes if p.restarts]
    yield tile(
        "Restarts", number(sum(n for _, n in restarts)), "", "warn" if restarts else "",
        ", ".join(f"{role} {n}" for role, n in restarts) or ("no process died" if shot.processes else "no supervisor tells of processes"),
        text(command("hub status"), " then run/log/ROLE.log"),
    )  # fmt: skip


def _views(shot: Snapshot) -> Html:
    rows = [
        (lag.view, "–" if lag.position is None else number(lag.position), number(lag.behind), span(lag.seconds) if lag.behind else "0 s")
        for lag in shot.lags
    ]
    return sheet(
        "Views", f"head {number(shot.head)}", table((("view", ""), ("position", "num"), ("behind", "num"), ("waits", "num")), rows)
    )


def _sources(shot: Snapshot) -> Html:
    rows = [(name(s.source), number(s.facts), clock(s.last, shot.at)) for s in sorted(shot.sources, key=lambda s: (-s.facts, s.source))]
    note = "facts in 5 minutes" if not shot.window_cut else "of the newest 20,000 facts"
    return sheet(
        "Sources",
        note,
        table((("source", ""), ("facts", "num"), ("last, UTC", "num")), rows) if rows else _nothing("No source sent anything yet."),
    )


def _processes(shot: Snapshot) -> Html:
    rows = [(p.role, p.pid, clock(datetime.fromisoformat(p.since), shot.at), p.restarts) for p in shot.processes]
    body = (
        table((("role", ""), ("pid", "num"), ("since, UTC", "num"), ("restarts", "num")), rows)
        if rows
        else _nothing("No supervisor runs here: hub serve starts one.")
    )
    return sheet("Processes", "", body)


def _equipment(shot: Snapshot) -> Html:
    """What needs somebody first: down, beyond a limit, then the others. Nothing where no edge tells of equipment."""
    found = sorted(shot.lists.machines, key=lambda m: (m["down_since"] is None, not m["beyond_limits"], m["equipment"]))
    if not found and not shot.lists.gaps:
        return EMPTY
    heads = (
        ("equipment", ""), ("state", "nowrap"), ("since, UTC", "nowrap"), ("order", ""), ("counted", ""), ("down since, UTC", "nowrap"),
        ("beyond limits", "num"),
    )  # fmt: skip
    rows = [
        (
            name(_short(m["equipment"])),
            name(m["state"] or "–"),
            _clock(m["since"], shot),
            trace_link("order", m["order"], _short(m["order"])) if m["order"] else "–",
            ", ".join(f"{quantity(c['counted'])} {c['unit']} {c['counter']}" for c in m["counts"]) or "–",
            _clock(m["down_since"], shot),
            number(m["beyond_limits"] or 0),
        )
        for m in found[:LIST_MAX]
    ]
    down = sum(m["down_since"] is not None for m in found)
    gaps = f", {counted(shot.lists.gaps, 'open gap')} in what they said" if shot.lists.gaps else ""
    more = f", the first {LIST_MAX} shown" if len(found) > LIST_MAX else ""
    body = table(heads, rows, cls="cards") if rows else _nothing("No state and no count yet.")
    return sheet("Equipment", f"{number(len(found))}, {number(down)} down{gaps}{more}", body)


def _clock(at: str | None, shot: Snapshot) -> str:
    return clock(datetime.fromisoformat(at), shot.at) if at else "–"


def _exceptions(shot: Snapshot) -> Html:
    counts, rows = shot.lists.exceptions, shot.lists.exception_rows
    if not counts:
        return sheet("Open exceptions", "", _nothing("None. A fact that contradicts another, or names what nobody defined, opens one."))
    chips = tag("div", [tag("span", kind.replace("_", " "), tag("b", number(n)), cls="chip") for kind, n in counts.items()], cls="chips")
    heads = (("kind", "nowrap"), ("reason", "reason"), ("source", ""), ("business key", ""), ("since, UTC", "nowrap"))
    body = [
        (
            row["kind"].replace("_", " "),
            _words(row["reason"]),
            name(row["source"]),
            name(row["business_key"]),
            clock(row["first_seen"], shot.at),
        )
        for row in rows
    ]
    return sheet("Open exceptions", _shown(len(rows), sum(counts.values()), "hub exceptions"), chips, table(heads, body, cls="cards"))


def _held(shot: Snapshot) -> Html:
    if not shot.lists.held:
        return sheet(
            "Held deliveries",
            "",
            _nothing("None. What cannot be understood is kept here whole, with the reason, until it is sent through again."),
        )
    heads = (
        ("held", "num"),
        ("kind", "nowrap"),
        ("reason", "reason"),
        ("source", ""),
        ("received", "num"),
        ("last, UTC", "nowrap"),
        ("newest", "nowrap"),
    )
    body = [
        (number(h.count), h.kind, _words(h.reason), name(h.source), number(h.times), clock(h.last, shot.at), tag("code", h.newest))
        for h in shot.lists.held_groups[:LIST_MAX]
    ]
    return sheet(
        "Held deliveries", text(number(shot.lists.held), ", by reason"), table(heads, body, cls="cards"), _rest(len(shot.lists.held_groups)),
        tag("p", "Each by itself: ", command("hub quarantine list"), ", one of them: ", command("hub quarantine show ID"),
            ", after the cause is gone: ", command("hub quarantine redrive ID"), cls="foot"),
    )  # fmt: skip


def _rest(groups: int) -> Html | None:
    return tag("p", f"and {number(groups - LIST_MAX)} more reasons", cls="foot") if groups > LIST_MAX else None


def _newest(shot: Snapshot) -> Html:
    if not shot.newest:
        return sheet("Newest facts", "", _nothing("None yet."))
    heads = (("position", "num w8"), ("recorded, UTC", "w10"), ("type", "w20"), ("about", "w30"), ("source", "w14"), ("business key", ""))
    rows = [
        (number(f.position), clock(f.recorded_at, shot.at), f.event.type, _about(f), name(f.envelope.source), name(_short(f.envelope.key)))
        for f in shot.newest
    ]
    return sheet("Newest facts", "", table(heads, rows, cls="cards even"))


def _about(fact: Recorded) -> Html:
    """Links to the traces of what a fact names."""
    found = sorted(
        ((kind, id_) for kind, id_ in named(fact.event) if kind in NODE_KINDS), key=lambda node: (NODE_KINDS.index(node[0]), node[1])
    )
    more = f" +{len(found) - SUBJECTS_MAX}" if len(found) > SUBJECTS_MAX else None
    return text([text(", " if n else None, trace_link(kind, id_, _short(id_))) for n, (kind, id_) in enumerate(found[:SUBJECTS_MAX])], more)


def _nothing(words: str) -> Html:
    return tag("p", words, cls="nothing")


def _shown(shown: int, all_: int, words: str) -> Html:
    return text(f"the newest {LIST_MAX} of {number(all_)}, all with ", command(words)) if shown < all_ else text(number(all_))


def _words(reason: Any, limit: int = 300) -> str:
    return _short(str(reason), limit)


def _short(value: str, limit: int = 60) -> str:
    return value if len(value) <= limit else f"{value[: limit - 1]}…"
