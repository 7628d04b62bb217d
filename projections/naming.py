"""Which objects a fact names, and in which part: pure functions shared by the views that look objects up by their identifiers.

Names enter indexes, whose entries PostgreSQL bounds: `events.vocabulary.bounded` and `subject_sql` shorten what no real name reaches, and
stay distinct; `identity` stands for several names together.
"""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal

from events.base import Event
from events.inventory import LotMerged, LotSplit, ObjectsDecommissioned, StockTransferred
from events.logistics import (
    DeliveryProved,
    HandlingUnitPacked,
    HandlingUnitUnpacked,
    ObjectsObserved,
    ReturnReceived,
    ShipmentDispatched,
)
from events.procurement import GoodsReceived, PurchaseOrderAcknowledged, PurchaseOrderIssued
from events.production import LotReworked, LotTransformed, MaterialIssued, OutputProduced, ScrapReported
from events.vocabulary import NAME_BYTES_MAX, Thing, things_of

# origin: the fact brings the thing into being for us; use: it needs the thing to be there; seen: it only tells of it.
Role = Literal["origin", "use", "seen"]
Name = tuple[str, str]  # (kind, id)

_THING_FIELDS = ("thing", "things", "inputs", "outputs", "contents", "container")
# A field that names one object, and the kind of object; a new event type that uses these names is covered without a change here.
_NAME_FIELDS = {
    "item": "item",
    "order": "order",
    "purchase_order": "purchase_order",
    "shipment": "shipment",
    "sales_order": "sales_order",
    "supplier": "partner",
    "customer": "partner",
    "carrier": "partner",
    "partner": "partner",
    "asn_partner": "partner",
    "location": "location",
    "from_location": "location",
    "to_location": "location",
    "equipment": "equipment",
    "work_center": "equipment",
    "handling_unit": "handling_unit",
    "parent": "handling_unit",
}
_MANY_FIELDS = {"purchase_orders": "purchase_order", "handling_units": "handling_unit"}


_Fields = tuple[list[tuple[str, Role]], list[tuple[str, str]], list[tuple[str, str]]]
_known_fields: dict[type[Event], _Fields] = {}


def _fields_of(event: Event) -> _Fields:
    """The fields of an event that hold things, with their part in it; that name one object, and that name many, with its kind."""
    cls = type(event)
    known = _known_fields.get(cls)
    if known is None:
        roles = _ROLES.get(cls, {})
        known = _known_fields[cls] = (
            [(name, roles.get(name, "seen")) for name in _THING_FIELDS if hasattr(cls, name)],
            [(name, kind) for name, kind in _NAME_FIELDS.items() if hasattr(cls, name)],
            [(name, kind) for name, kind in _MANY_FIELDS.items() if hasattr(cls, name)],
        )
    return known


def things(event: Event) -> Iterator[tuple[Role, Thing]]:
    """All things that a fact names, with the part they have in it."""
    for name, role in _fields_of(event)[0]:
        for thing in things_of(getattr(event, name)):
            yield role, thing


def named(event: Event) -> set[Name]:
    """(kind, id) of every object a fact names: its own document (the stream), things, partners, places, orders, equipment."""
    kind, _, own = event.stream().partition("/")
    found: set[Name] = {(kind, own)}
    _, one, many = _fields_of(event)
    for name, kind in one:
        if value := getattr(event, name):
            found.add((kind, value))
    for name, kind in many:
        found.update((kind, value) for value in getattr(event, name))
    for _, thing in things(event):
        if node := thing.node():
            found.add(node)
        if thing.item:
            found.add(("item", thing.item))
            if thing.serial and thing.lot:
                found.update(node for node, _ in traced(thing))
        if thing.handling_unit:
            found.add(("handling_unit", thing.handling_unit))
    if more := _MORE.get(type(event)):
        found.update(more(event))
    return found


@lru_cache(maxsize=4096)  # what one fact moves is moved on by the next ones
def identity(*names: str) -> uuid.UUID:
    """16 bytes of sha256 over names, for keys and indexes that several long names do not fit. A name of a fact has no control characters."""
    return uuid.UUID(bytes=hashlib.sha256("\x1f".join(names).encode()).digest()[:16])


def subject_sql(*columns: str, separator: str = "/") -> str:
    """SQL that joins text columns into one name, another for other values; for statements with parameters: percent signs are doubled."""
    parts = [f"replace(replace({column}, '%%', '%%25'), '{separator}', '%%{ord(separator):02X}')" for column in columns]
    whole = f"concat_ws('{separator}', {', '.join(parts)})"
    digest = f"encode(sha256(convert_to({whole}, 'UTF8')), 'hex')"
    return f"(case when octet_length({whole}) <= {NAME_BYTES_MAX} then {whole} else left({whole}, 200) || '…' || {digest} end)"


def traced(thing: Thing) -> Iterator[tuple[Name, str]]:
    """The serial and the lot of a thing: the node of each, and the name that it has within its item."""
    node = thing.node()
    if thing.serial and node:
        yield node, thing.serial
    if thing.item and thing.lot and (of_lot := Thing(item=thing.item, lot=thing.lot).node() if thing.serial else node):
        yield of_lot, thing.lot


def _receipt(e: GoodsReceived) -> Iterator[Name]:
    if e.asn:
        partner = e.asn_partner or e.supplier
        yield "asn", f"{partner}/{e.asn}" if partner else e.asn


def _observed(e: ObjectsObserved) -> Iterator[Name]:
    for kind, number in e.transactions:
        yield ("purchase_order", number) if kind == "po" else ("transaction", f"{kind}/{number}")


def _ordered(e: PurchaseOrderIssued) -> Iterator[Name]:
    return (("item", line.item) for line in e.lines)


def _answered(e: PurchaseOrderAcknowledged) -> Iterator[Name]:
    """The items of the lines, and what would come in their place."""
    for line in e.lines:
        yield from (("item", item) for item in (line.item, *(answer.item for answer in line.answers)) if item)


_MORE: dict[type[Event], Callable[[Any], Iterator[Name]]] = {
    GoodsReceived: _receipt,
    ObjectsObserved: _observed,
    PurchaseOrderAcknowledged: _answered,
    PurchaseOrderIssued: _ordered,
}

_MADE: dict[str, Role] = {"inputs": "use", "outputs": "origin"}
_ROLES: dict[type[Event], dict[str, Role]] = {
    GoodsReceived: {"things": "origin"},
    OutputProduced: {"things": "origin"},
    ReturnReceived: {"things": "origin"},
    LotTransformed: _MADE,
    LotReworked: _MADE,
    LotSplit: _MADE,
    LotMerged: _MADE,
    MaterialIssued: {"things": "use"},
    ScrapReported: {"things": "use"},
    StockTransferred: {"things": "use"},
    ObjectsDecommissioned: {"things": "use"},
    ShipmentDispatched: {"things": "use"},
    DeliveryProved: {"things": "use"},
    HandlingUnitPacked: {"contents": "use"},
    HandlingUnitUnpacked: {"contents": "use"},
}
