"""Trace: from any identifier to where it came from and where it went, without a depth limit, and what the answer could not follow.

A lot in a box is not the parent of what else was in the box. So a container that is reached from one of its contents is only followed outward (to
outer containers and shipments) and only by what it did while that content was in it; what came out of it, or back from a shipment, is followed only
for the content itself. A container that is asked for, or that came by a notice, stands for all its contents. An order joins all that it consumed to
all that it made, which is the conservative reading of a batch.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from events import canonical, gs1
from events.vocabulary import Thing, bounded
from hub.log.follow import Cursor

Node = tuple[str, str]
Window = tuple[datetime, datetime]
ALWAYS: Window = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


class Edge(NamedTuple):
    """A row of `edge`; the quantity as its digits."""

    key: tuple[str, int]
    source: Node
    target: Node
    kind: str
    quantity: str | None
    unit: str | None
    effective_at: datetime
    position: int
    type: str


def resolve(cursor: Cursor, text: str) -> list[Node]:
    """The nodes that a text may name, sorted; `KIND:ID` names one for sure. A GS1 key may be a scan, an EPC URN or a Digital Link."""
    wanted = {bounded(text)}
    if key := gs1.parse(text) or gs1.scanned(text):
        kind, name = Thing(**gs1.thing_of(key)).node() or ("item", "")  # type: ignore[arg-type]
        wanted.add(bounded(f"{kind}:{name}"))
    cursor.execute("select distinct kind, id from alias where alias = any(%s)", [sorted(wanted)])
    return sorted((kind, name) for kind, name in cursor)


def trace(cursor: Cursor, text: str, direction: str = "both") -> dict[str, Any]:
    """The answer of contracts.md for an identifier; `direction` is both, forward or backward. The cursor's search path is the view's schema."""
    found = resolve(cursor, text)
    if not found:
        return {"root": None}
    if len(found) > 1:
        return {"candidates": [{"kind": kind, "id": name} for kind, name in found]}
    root = found[0]
    walk = _Walk(cursor)
    if direction in ("both", "backward"):
        walk.backward(root)
    if direction in ("both", "forward"):
        walk.forward(root)
    nodes, because = _nodes(cursor, {root} | {end for e in walk.edges.values() for end in (e.source, e.target)})
    return {
        "root": {"kind": root[0], "id": root[1]},
        "nodes": list(nodes.values()),
        "edges": [_edge(e) for e in sorted(walk.edges.values(), key=lambda e: (e.effective_at, e.source, e.target, e.kind, e.key))],
        "complete": not because,
        "because": because,
    }


class _Walk:
    """One breadth-first search; all edges it passed, by their key."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self.edges: dict[tuple[str, int], Edge] = {}
        self._out: dict[Node, list[Edge]] = {}
        self._in: dict[Node, list[Edge]] = {}
        self._emptied: dict[Node, list[datetime]] = {}

    def forward(self, root: Node) -> None:
        """What the root went into. Places are (node, inside, window): `inside` is how a holder was reached from one of its contents."""
        frontier: set[tuple[Node, bool, Window]] = {(root, False, ALWAYS)}
        seen = set(frontier)
        while frontier:
            self._load("from", {node for node, _, _ in frontier})
            self._load("to", {node for node, inside, _ in frontier if not inside and node[0] == "handling_unit"})
            packed = {e.target for node, _, _ in frontier for e in self._out[node] if e.kind == "packed"}
            self._load("from", packed)
            self._load_emptied(packed)
            following = {place for node, inside, window in frontier for place in self._onward(node, inside, window)}
            frontier = following - seen
            seen |= frontier
        reached = {node for node, inside, _ in seen if not inside}
        for node in {node for node, _, _ in seen}:  # what came out of a holder, or back, is shown where the trace has it already
            self.edges.update({e.key: e for e in self._out[node] if e.kind in ("unpacked", "returned") and e.target in reached})

    def _onward(self, node: Node, inside: bool, window: Window) -> Iterator[tuple[Node, bool, Window]]:
        for e in self._out[node]:
            if inside and not (e.kind in ("packed", "shipped") and window[0] <= e.effective_at <= window[1]):
                continue
            self.edges[e.key] = e
            if e.kind == "packed":
                yield e.target, True, _within(window if inside else ALWAYS, self._stay(e))
            elif e.kind == "shipped":
                yield e.target, True, window if inside else ALWAYS
            else:
                yield e.target, False, ALWAYS
        if not inside and node[0] == "handling_unit":  # all that it holds goes on
            for e in self._in[node]:
                if e.kind == "packed":
                    self.edges[e.key] = e
                    yield e.source, False, ALWAYS

    def _stay(self, packed: Edge) -> Window:
        """From when to when a content counts as in the container: until it, or everything, was taken out.

        It counts from before it was packed, back to when something was last taken out: business dates are often midnights, and a link that
        is missed costs more in a recall than one too many.
        """
        taken_out = [e for e in self._out[packed.target] if e.kind == "unpacked"]
        emptied = self._emptied.get(packed.target, [])
        at = packed.effective_at
        ends = [e.effective_at for e in taken_out if e.target == packed.source] + emptied
        begins = [e.effective_at for e in taken_out] + emptied
        return max((t for t in begins if t <= at), default=ALWAYS[0]), min((t for t in ends if t > at), default=ALWAYS[1])

    def backward(self, root: Node) -> None:
        """What the root came from. A place is (node, beside): beside is a holder that a content came out of, which is not entered again."""
        frontier: set[tuple[Node, bool]] = {(root, False)}
        seen = set(frontier)
        while frontier:
            self._load("to", {node for node, _ in frontier})
            following: set[tuple[Node, bool]] = set()
            for node, beside in frontier:
                for e in self._in[node]:
                    if beside and e.kind not in ("received", "unpacked"):
                        continue
                    self.edges[e.key] = e
                    following.add((e.source, e.kind in ("unpacked", "returned", "received")))
            frontier = following - seen
            seen |= frontier

    def _load(self, end: str, nodes: Iterable[Node]) -> None:
        """Read the edges that begin ("from") or end ("to") at nodes, once."""
        table = self._out if end == "from" else self._in
        wanted = sorted({node for node in nodes if node not in table})
        if not wanted:
            return
        table.update((node, []) for node in wanted)
        self._cursor.execute(
            f"""select fact::text, line, from_kind, from_id, to_kind, to_id, e.kind, trim_scale(quantity)::text, unit, effective_at, made, type
                from {_WANTED} join edge e on (e.{end}_kind, e.{end}_id) = (w.kind, w.id) where not undone""",  # noqa: S608 - from or to
            _joined(wanted),
        )
        for fact, line, from_kind, from_id, to_kind, to_id, kind, quantity, unit, at, made, type_ in self._cursor.fetchall():
            edge = Edge((fact, line), (from_kind, from_id), (to_kind, to_id), kind, quantity, unit or None, at, made, type_)
            table[edge.source if end == "from" else edge.target].append(edge)

    def _load_emptied(self, nodes: set[Node]) -> None:
        wanted = sorted(node for node in nodes if node not in self._emptied)
        if not wanted:
            return
        self._emptied.update({node: [] for node in wanted})
        self._cursor.execute(
            f"select e.kind, e.id, effective_at from {_WANTED} join emptied e using (kind, id) where not undone",  # noqa: S608 - constant
            _joined(wanted),
        )
        for kind, name, at in self._cursor:
            self._emptied[kind, name].append(at)


# Nodes as a table, from two texts: many times faster to send than arrays of texts.
_WANTED = r"unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) w(kind, id)"


def _joined(nodes: Iterable[Node]) -> list[str]:
    """The parameters of `_WANTED`. A name of a fact has no control characters."""
    kinds, names = zip(*nodes, strict=True)
    return ["\x1f".join(kinds), "\x1f".join(names)]


def _within(a: Window, b: Window) -> Window:
    return max(a[0], b[0]), min(a[1], b[1])


def _edge(e: Edge) -> dict[str, Any]:
    return {
        "from": e.source[1],
        "to": e.target[1],
        "from_kind": e.source[0],
        "to_kind": e.target[0],
        "kind": e.kind,
        "quantity": e.quantity,
        "unit": e.unit,
        "effective_at": canonical.time_text(e.effective_at),
        "position": e.position,
        "type": e.type,
    }


def _nodes(cursor: Cursor, wanted: set[Node]) -> tuple[dict[Node, dict[str, Any]], list[str]]:
    """Nodes with what facts say of them, sorted; and why the answer is not complete.

    It is not where a lot or serial was used without an origin, an order consumed some of an item that comes in lots without saying which, a
    fact of a node refused another one, or a line of one of its documents is held.
    """
    nodes = {node: _named(node) for node in sorted(wanted)}
    named, codes = _joined(nodes), set()
    if traced := [node for node in nodes if node[0] in ("lot", "serial")]:
        query = f"select kind, id, item, name from traced join {_WANTED} using (kind, id) order by item"  # noqa: S608 - constant
        cursor.execute(query, _joined(traced))
        for kind, name, item, own in cursor.fetchall():
            nodes[kind, name] |= {"item": item, kind: own} if item else {kind: own}
    cursor.execute(
        """select refused, case when refused is null and format like 'x12-%' then raw end from held h
           where not exists (select from settled s where s.entry = h.entry)"""
    )
    held = cursor.fetchall()
    cursor.execute(
        f"""select kind, id, min(effective_at) filter (where not undone), max(effective_at) filter (where not undone),
                   array_agg(distinct equipment) filter (where equipment is not null and not undone),
                   array_agg(distinct operation) filter (where operation is not null and not undone),
                   bool_or(role = 'origin' and not undone), bool_or(role = 'use' and not undone),
                   bool_or(fact = any(%s::uuid[])), bool_or(raw <> '' and raw = any(%s::text[]))
            from mention join {_WANTED} using (kind, id) group by kind, id""",  # noqa: S608 - constant
        [[refused for refused, _ in held if refused], [raw for _, raw in held if raw], *named],
    )
    for kind, name, first, last, equipment, operations, origin, used, conflict, held_line in cursor.fetchall():
        if conflict:
            codes.add("conflict")
        if held_line:
            codes.add("held_delivery")
        if first is None:
            continue  # all that spoke of it was undone
        node = nodes[kind, name]
        node |= {"first_at": canonical.time_text(first), "last_at": canonical.time_text(last)}
        if equipment:
            node["equipment"] = equipment
        if operations:
            node["operations"] = operations
        if kind in ("lot", "serial"):
            node["origin_known"], node["used"] = origin, used
            if used and not origin:
                codes.add("unknown_parent")
    cursor.execute(
        f"""select kind, id, item, trim_scale(sum(quantity))::text, unit,
                   kind = 'order' and exists (select from traced t where t.item = c.item and t.kind = 'lot')
            from content c join {_WANTED} using (kind, id) where not undone group by kind, id, item, unit order by item, unit""",  # noqa: S608 - constant
        named,
    )
    for kind, name, item, quantity, unit, of_lots in cursor.fetchall():
        nodes[kind, name].setdefault("contents", []).append({"item": item, "quantity": quantity, "unit": unit or None})
        if of_lots:
            codes.add("unknown_parent")
    return nodes, sorted(codes)


def _named(node: Node) -> dict[str, Any]:
    kind, name = node
    found: dict[str, Any] = {"kind": kind, "id": name}
    if kind == "asn":
        partner, _, number = name.partition("/")
        found |= {"partner": partner, "number": number}
    return found


def as_tree(answer: dict[str, Any], direction: str) -> Iterator[str]:
    """An answer as lines of an indented tree; a node is opened once and named again where it comes again."""
    near, far = ("to", "from") if direction == "backward" else ("from", "to")
    steps: dict[Node, list[dict[str, Any]]] = {}
    for e in answer["edges"]:
        steps.setdefault((e[f"{near}_kind"], e[near]), []).append(e)
    root = (answer["root"]["kind"], answer["root"]["id"])
    opened: set[Node] = set()
    stack: list[tuple[Node, str, str]] = [(root, "", "")]
    while stack:
        node, indent, label = stack.pop()
        again = node in opened and steps.get(node)
        yield f"{indent}{label}{node[0]} {node[1]}{' (see above)' if again else ''}"
        if node in opened:
            continue
        opened.add(node)
        children = []
        for e in steps.get(node, []):
            amount = f"{e['quantity']} {e['unit']} " if e["quantity"] is not None else ""
            children.append(((e[f"{far}_kind"], e[far]), indent + "  ", f"{e['kind']} {amount}{'←' if direction == 'backward' else '→'} "))
        stack += reversed(children)
