"""A trace as a tree that grows where somebody opens it: as deep as the facts go, and only what is open is sent to the browser.

Which edges continue is the rule of projections/trace.py: what reaches a container from inside only goes outward with it.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from nicegui import ui

from events import canonical
from hub.app.console.shell import quantity
from hub.app.html import EMPTY, Html, tag, text, trace_link

Node = tuple[str, str]
OPEN_AT_FIRST = 60  # rows
OPEN_MORE = 500  # rows that one click on "open all" adds
INDENTED_MAX = 5  # levels; below them only where a tree branches
KIDS_STEP = 100  # children shown at once


@dataclass(frozen=True, slots=True)
class Step:
    """From a node to the next: all edges of one kind between the two."""

    node: Node
    kind: str
    amounts: tuple[tuple[Decimal, str], ...]  # by unit
    edges: int
    first_at: str
    held: bool  # the node is reached as what holds the one before (forward: inside; backward: beside)


class Graph:
    """The edges of an answer in one direction, as steps."""

    def __init__(self, edges: Iterable[dict[str, Any]], *, forward: bool) -> None:
        self.forward = forward
        self._out: dict[Node, list[dict[str, Any]]] = {}
        self._content: dict[Node, list[dict[str, Any]]] = {}
        for e in edges:
            source, target = (e["from_kind"], e["from"]), (e["to_kind"], e["to"])
            self._out.setdefault(source if forward else target, []).append(e)
            if forward and e["kind"] == "packed":
                self._content.setdefault(target, []).append(e)

    def steps(self, node: Node, held: bool, path: tuple[Node, ...]) -> list[Step]:
        """Where it goes on from a node; `path` is how it was reached."""
        found: dict[tuple[Node, str], list[dict[str, Any]]] = {}
        for e in self._out.get(node, []):
            far = (e["to_kind"], e["to"]) if self.forward else (e["from_kind"], e["from"])
            if held and not self._goes_on(e["kind"], far, path):
                continue
            found.setdefault((far, e["kind"]), []).append(e)
        if self.forward and not held and node[0] == "handling_unit":
            for e in self._content.get(node, []):
                found.setdefault(((e["from_kind"], e["from"]), "holds"), []).append(e)
        holding = ("packed", "shipped") if self.forward else ("unpacked", "returned", "received")
        return [_step(far, kind, edges, kind in holding) for (far, kind), edges in found.items()]

    def _goes_on(self, kind: str, far: Node, path: tuple[Node, ...]) -> bool:
        if self.forward:
            return kind in ("packed", "shipped") or far in path
        return kind in ("received", "unpacked")


def _step(node: Node, kind: str, edges: list[dict[str, Any]], held: bool) -> Step:
    sums: dict[str, Decimal] = {}
    for e in edges:
        if e["quantity"] is not None:
            sums[e["unit"]] = sums.get(e["unit"], Decimal(0)) + Decimal(e["quantity"])
    return Step(
        node, kind, tuple((total, unit) for unit, total in sorted(sums.items())), len(edges), min(e["effective_at"] for e in edges), held
    )


class Branch:
    """A node in the tree on a page, and below it what it was opened to."""

    def __init__(self, tree: "Tree", node: Node, held: bool, path: tuple[Node, ...], label: Html, *, sole: bool = False) -> None:
        self._tree, self.node, self._path = tree, node, (*path, node)
        self._steps = tree.graph.steps(node, held, path)
        self.kids: list[Branch] = []
        self._open = False
        with ui.element("div").classes("line"):
            self._twist = ui.html("▸", sanitize=False, tag="button").classes("twist" if self._steps else "twist leaf")
            if self._steps:
                self._twist.props('type=button aria-expanded=false aria-label="open"').on("click", self.toggle)
            ui.html(label, sanitize=False).classes("what")
        alone = (
            sole and len(self._steps) == 1 and len(path) >= INDENTED_MAX
        )  # a long chain is read downwards, it need not run off the screen
        self._below = ui.element("div").classes("kids alone" if alone else "kids")
        self._below.set_visibility(False)

    @property
    def width(self) -> int:
        return min(len(self._steps) - len(self.kids), KIDS_STEP)

    def toggle(self) -> None:
        """Open or close."""
        self.close() if self._open else self.open()

    def open(self) -> None:
        if not self.kids:
            self._grow()
        self._set(True)

    def close(self) -> None:
        self._set(False)

    def _set(self, open_: bool) -> None:
        self._open = open_
        self._below.set_visibility(open_)
        self._twist.set_content("▾" if open_ else "▸")
        self._twist.props(f"aria-expanded={'true' if open_ else 'false'}")

    def _grow(self) -> None:
        """The next children."""
        with self._below:
            for step in self._steps[len(self.kids) : len(self.kids) + KIDS_STEP]:
                with ui.element("div"):
                    label = self._tree.label(step)
                    self.kids.append(Branch(self._tree, step.node, step.held, self._path, label, sole=len(self._steps) == 1))
            left = len(self._steps) - len(self.kids)
            if left:
                more = ui.html(f"{left} more …", sanitize=False, tag="button").classes("plain")

                def grow() -> None:
                    more.delete()
                    self._grow()

                more.on("click", grow)


class Tree:
    """One direction of an answer."""

    def __init__(self, edges: Iterable[dict[str, Any]], root: Node, items: dict[str, str], *, forward: bool) -> None:
        self.graph = Graph(edges, forward=forward)
        self._items = items
        self._opened: set[Node] = set()
        with ui.element("div").classes("tree live"):
            self._root = Branch(self, root, False, (), node_label(root, items))
            self._all = self._open(OPEN_AT_FIRST)
            if not self._all:
                more = ui.html("Open all", sanitize=False, tag="button").classes("plain")
                more.on("click", lambda: more.set_visibility(not self._open(OPEN_MORE)))

    def _open(self, rows: int) -> bool:
        """Open from the root on, nearest first, each node where it comes first; whether nothing is left to open."""
        waiting = deque([self._root])
        self._opened.clear()
        while waiting:
            branch = waiting.popleft()
            if branch.node in self._opened:
                continue
            self._opened.add(branch.node)
            if not branch.kids:
                if branch.width > rows:
                    return False
                rows -= branch.width
            if branch.width or branch.kids:
                branch.open()
            waiting.extend(branch.kids)
        return True

    def label(self, step: Step) -> Html:
        amount = " + ".join(f"{quantity(canonical.decimal_text(total))} {unit}" for total, unit in step.amounts)
        times = f" in {step.edges} facts" if step.edges > 1 else ""
        return text(
            tag("span", step.kind, cls="how"), " ", tag("span", amount, cls="qty") if amount else None, tag("span", times, cls="how"),
            tag("span", " → " if self.graph.forward else " ← ", cls="how"), node_label(step.node, self._items),
            tag("span", f" {step.first_at[:16].replace('T', ' ')}", cls="kind nowrap"),
        )  # fmt: skip


def node_label(node: Node, items: dict[str, str]) -> Html:
    """A node by kind, id and description, with the link to its own trace."""
    kind, id_ = node
    description = items.get(id_.partition("/")[0], "") if kind in ("lot", "serial") else ""
    return text(
        tag("span", kind.replace("_", " "), cls="kind"),
        " ",
        trace_link(kind, id_),
        tag("span", f" {description}", cls="desc") if description else EMPTY,
    )
