"""What each fact says of genealogy: the pure function from an event to edges between nodes, shared by the fold and its tests.

Nodes are (kind, id): lot ITEM/LOT, serial ITEM/SERIAL, handling_unit, order, purchase_order, asn PARTNER/NUMBER, shipment. An edge points from the
consumed to the made, from content to pack, from content to shipment, from a notice or purchase order to what came by it, from a shipment to
what came back. A transformation without an order is joined by an order node of its own name, so that any input reaches any output.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

from events.base import Event
from events.inventory import LotMerged, LotSplit
from events.logistics import HandlingUnitPacked, HandlingUnitUnpacked, ObjectsObserved, ReturnReceived, ShipmentDispatched
from events.procurement import AsnHandlingUnitReceived, AsnLineReceived, AsnReceived, GoodsReceived
from events.production import LotReworked, LotTransformed, MaterialIssued, OutputProduced
from events.vocabulary import Thing
from projections.movements import amount

Node = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Edge:
    """A directed edge; the quantity as its fact states it, None where it states none."""

    source: Node
    target: Node
    kind: str
    quantity: Decimal | None = None
    unit: str = ""


def edges(event: Event) -> list[Edge]:
    """The edges of an event in a fixed order; none for most."""
    rule = _RULES.get(type(event))
    found = [edge for edge in rule(event) if edge.source != edge.target] if rule else []
    return list(dict.fromkeys(found)) if len(found) > 1 else found


def untracked(event: Event) -> list[tuple[Node, Thing]]:
    """Quantities without lot or serial and the document or unit they belong to: contents, not nodes."""
    holder = _holder(event)
    if holder is None:
        return []
    found: list[tuple[Node, Thing]] = []
    for name in ("thing", "things", "inputs", "contents"):
        value = getattr(event, name, None) or ()
        found += [(holder, thing) for thing in ((value,) if isinstance(value, Thing) else value) if thing.node() is None]
    return found


def asn_node(partner: str, number: str) -> Node:
    return "asn", f"{partner}/{number}"


def _joined(things: Iterable[Thing], other: Node, kind: str, *, outward: bool) -> Iterator[Edge]:
    for thing in things:
        if (node := thing.node()) is not None:
            quantity, unit = amount(thing) or (None, "")
            yield Edge(other, node, kind, quantity, unit) if outward else Edge(node, other, kind, quantity, unit)


def _issued(e: MaterialIssued) -> Iterator[Edge]:
    return _joined(e.things, ("order", e.order), "consumed", outward=False)


def _produced(e: OutputProduced) -> Iterator[Edge]:
    return _joined(e.things, ("order", e.order), "produced", outward=True) if e.order else iter(())


def _transformed(e: LotTransformed) -> Iterator[Edge]:
    joint = ("order", e.order or e.transformation)
    yield from _joined(e.inputs, joint, "consumed", outward=False)
    yield from _joined(e.outputs, joint, "produced", outward=True)


def _converted(kind: str) -> Callable[[Any], Iterator[Edge]]:
    def rule(e: LotSplit | LotMerged | LotReworked) -> Iterator[Edge]:
        for made in e.outputs:
            for used in e.inputs:
                source, target = used.node(), made.node()
                if source and target:
                    quantity, unit = amount(used if kind == "merged" else made) or (None, "")
                    yield Edge(source, target, kind, quantity, unit)

    return rule


def _packed(e: HandlingUnitPacked) -> Iterator[Edge]:
    if container := e.container.node():
        yield from _joined(e.contents, container, "packed", outward=False)


def _observed(e: ObjectsObserved) -> Iterator[Edge]:
    """Contents that somebody saw in a container are in it, whoever packed them: a link that is missed costs more than one told twice."""
    if e.container and (container := e.container.node()):
        yield from _joined(e.things, container, "packed", outward=False)


def _unpacked(e: HandlingUnitUnpacked) -> Iterator[Edge]:
    if container := e.container.node():
        yield from _joined(e.contents, container, "unpacked", outward=True)


def _dispatched(e: ShipmentDispatched) -> Iterator[Edge]:
    shipment = ("shipment", e.shipment)
    yield from _joined(e.things, shipment, "shipped", outward=False)
    for thing in e.things:
        if thing.handling_unit and thing.item:
            yield Edge(("handling_unit", thing.handling_unit), shipment, "shipped")


def _returned(e: ReturnReceived) -> Iterator[Edge]:
    return _joined(e.things, ("shipment", e.shipment), "returned", outward=True) if e.shipment else iter(())


def _notice(e: AsnReceived) -> Iterator[Edge]:
    for order in e.purchase_orders:
        yield Edge(("purchase_order", order), asn_node(e.partner, e.asn), "received")


def _notice_line(e: AsnLineReceived) -> Iterator[Edge]:
    asn, node = asn_node(e.partner, e.asn), e.thing.node()
    quantity, unit = amount(e.thing) or (None, "")
    units = [("handling_unit", unit_id) for unit_id in e.handling_units]
    if e.purchase_order:
        yield Edge(("purchase_order", e.purchase_order), asn, "received")
    if units:
        yield Edge(asn, units[0], "received")
    for outer, inner in pairwise(units):
        yield Edge(inner, outer, "packed")
    if node:
        yield Edge(asn, node, "received", quantity, unit)
        if units:
            yield Edge(node, units[-1], "packed", quantity, unit)


def _notice_unit(e: AsnHandlingUnitReceived) -> Iterator[Edge]:
    unit = ("handling_unit", e.handling_unit)
    if e.parent:
        yield Edge(unit, ("handling_unit", e.parent), "packed")
    else:
        yield Edge(asn_node(e.partner, e.asn), unit, "received")


def _received(e: GoodsReceived) -> Iterator[Edge]:
    partner = e.asn_partner or e.supplier
    if e.asn and partner:
        yield from _joined(e.things, asn_node(partner, e.asn), "received", outward=True)
    if e.purchase_order:
        yield from _joined(e.things, ("purchase_order", e.purchase_order), "received", outward=True)


def _holder(event: Event) -> Node | None:
    match event:
        case MaterialIssued():
            return "order", event.order
        case LotTransformed():
            return "order", event.order or event.transformation
        case HandlingUnitPacked():
            return event.container.node()
        case ObjectsObserved():
            return event.container.node() if event.container else None
        case ShipmentDispatched():
            return "shipment", event.shipment
        case AsnLineReceived():
            unit = event.handling_units[-1] if event.handling_units else None
            return ("handling_unit", unit) if unit else asn_node(event.partner, event.asn)
    return None


_RULES: dict[type[Event], Callable[[Any], Iterator[Edge]]] = {
    MaterialIssued: _issued,
    OutputProduced: _produced,
    LotTransformed: _transformed,
    LotSplit: _converted("split"),
    LotMerged: _converted("merged"),
    LotReworked: _converted("reworked"),
    HandlingUnitPacked: _packed,
    HandlingUnitUnpacked: _unpacked,
    ObjectsObserved: _observed,
    ShipmentDispatched: _dispatched,
    ReturnReceived: _returned,
    AsnReceived: _notice,
    AsnLineReceived: _notice_line,
    AsnHandlingUnitReceived: _notice_unit,
    GoodsReceived: _received,
}
