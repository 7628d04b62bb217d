"""An answer for the trace page: both directions of a trace, and every balance of what they reached, once."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hub.app import answers, queries
from hub.app.wiring import Hub
from hub.log.follow import Cursor, enter, live_schema
from projections import trace as traces

Node = tuple[str, str]

# What an account means to somebody who has to find the goods, in the order in which they matter.
PLACES = {
    "location": "On hand",
    "transit": "In transit",
    "customer": "With a customer",
    "supplier": "With a supplier",
    "wip": "Consumed by order",
    "conversion": "Split, merged or reworked into other lots",
    "production": "Consumed without an order",
    "scrap": "Scrapped",
    "decommissioned": "Decommissioned",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A quantity in an account, of the objects `nodes`."""

    account: str
    status: str
    item: str
    unit: str
    quantity: Decimal
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of an identifier. Without a root there are candidates, or nothing."""

    position: int
    root: Node | None = None
    candidates: tuple[Node, ...] = ()
    nodes: dict[Node, dict[str, Any]] = field(default_factory=dict)
    forward: tuple[dict[str, Any], ...] = ()
    backward: tuple[dict[str, Any], ...] = ()
    because: tuple[str, ...] = ()
    now: tuple[Place, ...] = ()  # of the root and what it went into
    origins: tuple[Place, ...] = ()  # of what else it came from
    items: dict[str, str] = field(default_factory=dict)


def ask(hub: Hub, words: str) -> Answer:
    """The answer after the views have everything recorded until now. Raises `Unavailable`."""
    with answers.caught_up(hub, ("genealogy", "stock", "references")) as cursor:
        enter(cursor, live_schema("genealogy"))
        position = traces_position(cursor)
        found = traces.trace(cursor, words, "forward")
        if "candidates" in found:
            return Answer(position, candidates=tuple((c["kind"], c["id"]) for c in found["candidates"]))
        if found.get("root") is None:
            return Answer(position)
        root = found["root"]["kind"], found["root"]["id"]
        back = traces.trace(cursor, f"{root[0]}:{root[1]}", "backward")
        forward = {(n["kind"], n["id"]): n for n in found["nodes"]}
        backward = {(n["kind"], n["id"]): n for n in back.get("nodes", [])}
        return Answer(
            position=position,
            root=root,
            nodes=backward | forward,
            forward=tuple(found["edges"]),
            backward=tuple(back.get("edges", [])),
            because=tuple(sorted({*found["because"], *back.get("because", [])})),
            now=_places(cursor, forward.values()),
            origins=_places(cursor, (n for key, n in backward.items() if key not in forward)),
            items=queries.items(cursor),
        )


def traces_position(cursor: Cursor) -> int:
    """The last fact that the trace knows."""
    row = cursor.execute("select position from position").fetchone()
    return int(row[0]) if row else 0


def _places(cursor: Cursor, nodes: Iterable[dict[str, Any]]) -> tuple[Place, ...]:
    """Balances above zero of lots and serials among the nodes, by account and item; each balance counts once, also where lot and serial are
    both among them."""
    sums: dict[tuple[str, str, str, str], tuple[Decimal, set[Node]]] = {}
    for account, status, item, lot, serial, unit, quantity in queries.balances_of(cursor, nodes):
        total, of = sums.setdefault((account, status, item, unit), (Decimal(0), set()))
        of.add(queries.nodes_of(item, lot, serial)[0])
        sums[account, status, item, unit] = total + quantity, of
    order = list(PLACES)
    found = [Place(account, status, item, unit, total, tuple(sorted(of))) for (account, status, item, unit), (total, of) in sums.items()]
    return tuple(sorted(found, key=lambda p: (_rank(order, p.account), p.account, p.item, p.status, p.unit)))


def _rank(order: list[str], account: str) -> int:
    kind = account.partition("/")[0]
    return order.index(kind) if kind in order else len(order)
