"""Stock: what is where, by item, with totals; own locations or all accounts of the ledger."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby
from typing import Any

import psycopg
from nicegui import ui
from nicegui.events import GenericEventArguments

from events import canonical
from events.errors import Unavailable
from hub.app import answers, queries
from hub.app.console.live import Live, first_line
from hub.app.console.shell import LivePiece, counted, first_look, frame, number, quantity
from hub.app.html import EMPTY, Html, command, name, tag, text, trace_link
from hub.app.wiring import Hub
from hub.log.follow import Cursor

REFRESH_S = 2.0
PATIENCE_S = 1.0
ROWS_STEP = 1000  # rows a page shows at first, and how many more for each click
COLUMNS = (("where", "w30"), ("lot or serial", "w30"), ("status", "w14"), ("quantity", "num w12"), ("unit", "w6"), ("last fact", "num w8"))

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shelf:
    """Balances as of a position; `error` says why they could not be read."""

    position: int = -1
    rows: tuple[Row, ...] = ()
    items: dict[str, str] = field(default_factory=dict)
    error: str = ""


class Shelves:
    """Balances, read once for all pages that show them and only after the views moved."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._known: dict[bool, tuple[tuple[int, ...], Shelf]] = {}

    def read(self, everything: bool) -> Shelf:
        """The balances now. While another thread waits for the database this one does not wait for long."""
        if not self._lock.acquire(timeout=PATIENCE_S):
            return Shelf(error="Stock cannot be read: the database has not answered yet.")
        try:
            with answers.reading(self._hub) as cursor:
                return self._read(cursor, everything)
        except (Unavailable, psycopg.Error) as error:
            return Shelf(error=f"Stock cannot be read: {first_line(error)}")
        finally:
            self._lock.release()

    def _read(self, cursor: Cursor, everything: bool) -> Shelf:
        positions = queries.view_positions(cursor)
        if not {"stock", "references"} <= positions.keys():
            return Shelf(error="The view of stock is not there yet: hub serve makes and follows it.")
        of = (positions["stock"], positions["references"])
        known = self._known.get(everything)
        if known is None or known[0] != of:
            rows = tuple(queries.stock(cursor, everything=everything))
            known = of, Shelf(of[0], rows, queries.items(cursor))
            self._known[everything] = known
        return known[1]


def add(live: Live, hub: Hub) -> None:
    """The page at `/stock`."""
    shelves = Shelves(hub)

    @ui.page("/stock")
    async def stock(accounts: str = "own", filter: str = "") -> None:  # noqa: A002 - the name in the address
        await first_look(live)
        with frame(live, "/stock", "Stock"):
            page = _Page(shelves, accounts == "all", filter[:200])
            await asyncio.wait({asyncio.ensure_future(page.update())}, timeout=PATIENCE_S)
            ui.timer(REFRESH_S, page.update)


class _Page:
    """One browser's view of stock."""

    def __init__(self, shelves: Shelves, everything: bool, wanted: str) -> None:
        self._shelves = shelves
        self._everything = everything
        self._wanted = wanted
        self._limit = ROWS_STEP
        self._shelf = Shelf()
        self._groups: dict[str, LivePiece] = {}
        with ui.element("div").classes("tools"):
            # plain HTML, so that no update of the page sets the field's value again while somebody types
            ui.html(_filter(wanted), sanitize=False).classes("filter").on(
                "input", self._filtered, js_handler="(event) => emit(event.target.value)", throttle=0.15
            )
            self._switch = {}
            with ui.element("div").classes("switch").props("role=group aria-label=Accounts"):
                for label, all_ in (("Own stock", False), ("All accounts", True)):
                    self._switch[all_] = ui.html(label, sanitize=False, tag="button")
                    self._switch[all_].on("click", lambda _, all_=all_: self._toggled(all_))
        self._said = LivePiece()
        self._list = ui.element("div").classes("items live")
        self._more = ui.html("", sanitize=False, tag="button").classes("plain")
        self._more.on("click", self._show_more)
        self._mark()

    async def update(self) -> None:
        """Read, and show what changed."""
        self._shelf = await asyncio.to_thread(self._shelves.read, self._everything)
        self._show()

    async def _toggled(self, everything: bool) -> None:
        self._everything = everything
        self._mark()
        await self.update()

    def _filtered(self, event: GenericEventArguments) -> None:
        self._wanted = str(event.args)[:200]
        self._limit = ROWS_STEP
        self._show()

    def _show_more(self) -> None:
        self._limit += ROWS_STEP
        self._show()

    def _mark(self) -> None:
        for all_, button in self._switch.items():
            button.props(f"aria-pressed={'true' if all_ == self._everything else 'false'}")

    def _show(self) -> None:
        shelf = self._shelf
        rows = list(_matching(shelf, self._wanted))
        shown = rows[: self._limit]
        self._said.show(self._summary(rows))
        totals = _totals(rows)
        groups = {
            item: _group(item, list(of), totals[item], shelf.items.get(item, ""), self._everything)
            for item, of in groupby(shown, key=lambda row: row["item"])
        }
        if list(groups) != list(self._groups):
            self._list.clear()
            with self._list:
                self._groups = {item: LivePiece() for item in groups}
        for item, content in groups.items():
            self._groups[item].show(content)
        left = len(rows) - len(shown)
        self._more.set_visibility(left > 0)
        self._more.set_content(f"Show {number(min(ROWS_STEP, left))} more of {number(len(rows))} rows" if left else "")

    def _summary(self, rows: list[Row]) -> Html:
        shelf = self._shelf
        if shelf.error:
            return tag("p", shelf.error, " Next: ", command("hub doctor"), cls="whole warn")
        if not rows:
            why = "Nothing matches. Clear the filter, or look at all accounts." if self._wanted else "Nothing is in stock."
            return tag("p", why, cls="nothing")
        items = len({row["item"] for row in rows})
        zero = " · all accounts together sum to zero in each unit, or the ledger is broken" if self._everything and not self._wanted else ""
        return tag(
            "p", f"{counted(len(rows), 'balance')} of {counted(items, 'item')}, as of fact {number(shelf.position)}{zero}", cls="soft"
        )


def _filter(wanted: str) -> Html:
    return tag(
        "input", type="search", value=wanted, placeholder="Filter by item, description, lot, serial, place or status", aria_label="Filter",
        autocomplete="off", spellcheck="false", data_focus=True, cls="field",
    )  # fmt: skip


def _matching(shelf: Shelf, wanted: str) -> Iterator[Row]:
    """Rows that contain every word."""
    words = wanted.casefold().split()
    for row in shelf.rows:
        if words:
            fields = (row["item"], shelf.items.get(row["item"], ""), row["lot"], row["serial"], row["account"], row["status"], row["unit"])
            whole = "\n".join(value for value in fields if value).casefold()
            if not all(word in whole for word in words):
                continue
        yield row


def _totals(rows: list[Row]) -> dict[str, dict[str, Decimal]]:
    """Sums by item and unit, of all rows that match and not only of those shown."""
    found: dict[str, dict[str, Decimal]] = {}
    for row in rows:
        sums = found.setdefault(row["item"], {})
        sums[row["unit"]] = sums.get(row["unit"], Decimal(0)) + Decimal(row["quantity"])
    return found


def _group(item: str, rows: list[Row], totals: dict[str, Decimal], description: str, everything: bool) -> Html:
    sums = [
        tag("span", tag("b", quantity(canonical.decimal_text(total))), " ", unit, cls="total", data_unit=unit)
        for unit, total in sorted(totals.items())
    ]
    head = tag("h2", name(item or "(no item)"), tag("span", description, cls="desc"), tag("span", sums, cls="sums"))
    heads = [tag("th", "account" if everything and title == "where" else title, cls=cls, scope="col") for title, cls in COLUMNS]
    body = [tag("tr", [tag("td", cell, cls=cls) for cell, (_, cls) in zip(_cells(row, everything), COLUMNS, strict=True)]) for row in rows]
    return tag("section", head, tag("table", tag("thead", tag("tr", heads)), tag("tbody", body), cls="stock"), cls="sheet item")


def _cells(row: Row, everything: bool) -> Iterator[object]:
    yield name(row["account"] if everything else row["location"])
    item, lot, serial = row["item"], row["lot"], row["serial"]
    links = [trace_link("serial", f"{item}/{serial}" if item else serial, serial)] if serial else []
    if lot:
        links.append(trace_link("lot", f"{item}/{lot}", lot))
    unusual = row["status"] if row["status"] not in (None, "unrestricted") else None
    yield text(
        [text(" in lot " if n else EMPTY, link) for n, link in enumerate(links)],
        tag("span", " ", unusual, cls="phone") if unusual else None,
    )
    yield row["status"]
    yield tag("span", quantity(row["quantity"]), cls="bad" if row["quantity"].startswith("-") and row["location"] else None)
    yield row["unit"]
    yield number(row["position"])
