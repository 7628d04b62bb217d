"""Genealogy as a graph in two clocks: edges between lots, serials, handling units, orders, purchase orders, notices and shipments.

An edge keeps its effective time, the position that made it and the position that last changed it; one whose fact was undone stays and is marked.
The fold only writes what facts say; `projections/trace.py` walks it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from events.base import Event, Recorded
from events.integration import ContentConflicted, DeliveryQuarantined, QuarantineRedriven
from events.logistics import HandlingUnitUnpacked
from events.vocabulary import bounded, sscc18
from hub.log.codec import receipt_key
from hub.log.follow import Cursor
from projections.base import Rows, Table, TableView
from projections.genealogy_edges import Edge, Node, edges, untracked
from projections.naming import named, things, traced
from projections.undone import REVERSAL, mark_undone, reversals

NODE_KINDS = ("lot", "serial", "handling_unit", "order", "purchase_order", "asn", "shipment")
_STATE = {"undone": "boolean not null", "made": "bigint not null", "position": "bigint not null"}
_TECHNICAL = ("made", "position")

EDGE = Table(
    "edge",
    {
        "fact": "uuid",
        "line": "int",
        "from_kind": "text not null",
        "from_id": "text not null",
        "to_kind": "text not null",
        "to_id": "text not null",
        "kind": "text not null",
        "quantity": "numeric",
        "unit": "text not null",
        "effective_at": "timestamptz not null",
        "type": "text not null",
        **_STATE,
    },
    key=("fact", "line"),
    technical=_TECHNICAL,
    indexes=("from_kind, from_id", "to_kind, to_id", "position"),
)
# A container that was emptied as a whole: it ends whatever was packed into it before.
EMPTIED = Table(
    "emptied",
    {"fact": "uuid", "kind": "text not null", "id": "text not null", "effective_at": "timestamptz not null", **_STATE},
    key=("fact",),
    technical=_TECHNICAL,
    indexes=("kind, id", "position"),
)
# Which facts speak of a node, and whether one of them brought a lot or serial into being.
MENTION = Table(
    "mention",
    {
        "kind": "text",
        "id": "text",
        "fact": "uuid",
        "role": "text not null",
        "type": "text not null",
        "effective_at": "timestamptz not null",
        "equipment": "text",
        "operation": "text",
        "raw": "text not null",
        **_STATE,
    },
    key=("kind", "id", "fact"),
    technical=(*_TECHNICAL, "raw"),
    indexes=("fact", "position"),
)
CONTENT = Table(
    "content",
    {
        "fact": "uuid",
        "line": "int",
        "kind": "text not null",
        "id": "text not null",
        "item": "text not null",
        "quantity": "numeric",
        "unit": "text not null",
        **_STATE,
    },
    key=("fact", "line"),
    technical=_TECHNICAL,
    indexes=("kind, id", "position"),
)
ALIAS = Table(
    "alias", {"alias": "text", "kind": "text", "id": "text", "position": "bigint not null"}, key=("alias", "kind", "id"), first=True
)
# Lots and serials as their item calls them; which items come in lots.
TRACED = Table(
    "traced",
    {"kind": "text", "id": "text", "item": "text", "name": "text not null", "position": "bigint not null"},
    key=("kind", "id", "item"),
    indexes=("item",),
    first=True,
)
HELD = Table(
    "held",
    {
        "entry": "uuid",  # the receipt key of the quarantine's or conflict's fact
        "format": "text not null",
        "raw": "text not null",
        "refused": "uuid",  # for a conflict, the receipt key that is taken
        "position": "bigint not null",
    },
    key=("entry",),
    technical=("position", "raw"),
    indexes=("raw", "refused"),
)
SETTLED = Table("settled", {"entry": "uuid", "position": "bigint not null"}, key=("entry",), first=True)


class Genealogy(TableView):
    """See the module's docstring."""

    name = "genealogy"
    tables = (EDGE, EMPTIED, MENTION, CONTENT, ALIAS, TRACED, HELD, SETTLED, REVERSAL)

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """What the facts say, but not what was undone."""
        yield reversals(facts)
        joined = [edges(fact.event) for fact in facts]
        named_by = [_nodes(fact.event, found) for fact, found in zip(facts, joined, strict=True)]
        yield EDGE, (row for fact, found in zip(facts, joined, strict=True) for row in _edges(fact, found))
        yield EMPTIED, (row for fact in facts for row in _emptied(fact))
        yield MENTION, (row for fact, nodes in zip(facts, named_by, strict=True) for row in _mentions(fact, nodes))
        yield CONTENT, (row for fact in facts for row in _contents(fact))
        first: dict[Node, int] = {}
        traces: dict[tuple[str, str, str, str], int] = {}
        for fact, nodes in zip(facts, named_by, strict=True):
            for node in nodes:
                first.setdefault(node, fact.position)
            for trace in _traced(fact):
                traces.setdefault(trace, fact.position)
        yield ALIAS, ((*alias, at) for alias, at in _aliases(first, traces).items())
        yield TRACED, ((*trace, at) for trace, at in traces.items())
        yield HELD, (row for fact in facts for row in _held(fact))
        yield SETTLED, (row for fact in facts for row in _settled(fact))

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """The marks of what was undone, whichever of the two facts came first."""
        for table in ("edge", "emptied", "mention", "content"):
            mark_undone(cursor, table, first, last)


def _nodes(event: Event, joined: Sequence[Edge]) -> set[Node]:
    """All nodes that a fact names."""
    found = {node for node in named(event) if node[0] in NODE_KINDS}
    for edge in joined:
        found.add(edge.source)
        found.add(edge.target)
    return found


def _edges(fact: Recorded, joined: Sequence[Edge]) -> Iterator[tuple[Any, ...]]:
    key, at = _key(fact), fact.envelope.effective_at
    for n, e in enumerate(joined):
        ends = (e.source[0], bounded(e.source[1]), e.target[0], bounded(e.target[1]))
        yield key, n, *ends, e.kind, e.quantity, e.unit, at, fact.event.type, False, fact.position, fact.position


def _emptied(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    event = fact.event
    if isinstance(event, HandlingUnitUnpacked) and not event.contents and (node := event.container.node()):
        yield _key(fact), node[0], bounded(node[1]), fact.envelope.effective_at, False, fact.position, fact.position


def _mentions(fact: Recorded, nodes: Iterable[Node]) -> Iterator[tuple[Any, ...]]:
    if fact.event.type.startswith("equipment."):
        return  # machines speak of an order all the time; what they did is told by the view `equipment`
    roles: dict[tuple[str, str], str] = {}
    for role, thing in things(fact.event):
        if named_node := thing.node():
            node = named_node[0], bounded(named_node[1])
            if roles.get(node) != "origin":
                roles[node] = role if role == "origin" or roles.get(node) != "use" else "use"
    equipment, operation = getattr(fact.event, "equipment", None), getattr(fact.event, "operation", None)
    rest = (fact.event.type, fact.envelope.effective_at, equipment, operation, fact.envelope.raw, False, fact.position, fact.position)
    key = _key(fact)
    for kind, name in {(kind, bounded(name)) for kind, name in nodes}:
        yield kind, name, key, roles.get((kind, name), "seen"), *rest


def _contents(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    for n, ((kind, name), thing) in enumerate(untracked(fact.event)):
        quantity = thing.quantity
        yield (
            _key(fact), n, kind, bounded(name), thing.item or "", quantity.value if quantity else None, quantity.unit if quantity else "",
            False, fact.position, fact.position,
        )  # fmt: skip


def _aliases(nodes: Mapping[Node, int], traces: Mapping[tuple[str, str, str, str], int]) -> dict[tuple[str, str, str], int]:
    """(alias, kind, id): every way in which somebody may type the name of a node or of what is traced, and the first position it is due to."""
    found: dict[tuple[str, str, str], int] = {}

    def say(alias: str, kind: str, id_: str, at: int) -> None:
        row = bounded(alias), kind, id_
        found[row] = min(at, found.get(row, at))

    for (kind, name), at in nodes.items():
        id_ = bounded(name)
        say(name, kind, id_, at)
        say(f"{kind}:{name}", kind, id_, at)
        if id_ is not name:
            say(f"{kind}:{id_}", kind, id_, at)
        if kind == "asn":
            say(name.partition("/")[2], kind, id_, at)
        elif kind == "handling_unit" and sscc18(name):
            say(f"00{name}", kind, id_, at)
    for (kind, id_, item, own), at in traces.items():
        say(own, kind, id_, at)
        if item:
            plain = f"{item}/{own}"  # as people write it whose items have slashes
            say(plain, kind, id_, at)
            say(f"{kind}:{plain}", kind, id_, at)
    return found


def _traced(fact: Recorded) -> Iterator[tuple[str, str, str, str]]:
    for _, thing in things(fact.event):
        for (kind, name), own in traced(thing):
            yield kind, bounded(name), thing.item or "", own


def _held(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    event = fact.event
    if isinstance(event, DeliveryQuarantined):
        yield _key(fact), event.format, event.raw_sha256, None, fact.position
    elif isinstance(event, ContentConflicted):
        yield _key(fact), event.format, event.raw_sha256, receipt_key(event.refused_source, event.refused_key), fact.position


def _settled(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    if isinstance(fact.event, QuarantineRedriven):
        yield receipt_key(fact.envelope.source, fact.event.quarantined_key), fact.position


def _key(fact: Recorded) -> Any:
    return receipt_key(fact.envelope.source, fact.envelope.key)
