"""What each fact moves: the pure function from an event to double-entry movements, shared by the views that need quantities.

A movement takes a quantity of one item (lot, serial) from an account to an account, so nothing is created or lost: whatever enters stock
leaves a supplier, an order's work in process, a conversion. Accounts read `kind/name`: supplier/ACME, location/WH1, wip/PO-7, transit/S-1,
customer/C9, and the plain ones scrap, conversion, production, decommissioned.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from events.base import Event
from events.inventory import LotMerged, LotSplit, ObjectsDecommissioned, StockTransferred
from events.logistics import DeliveryProved, ReturnReceived, ShipmentDispatched
from events.procurement import GoodsReceived
from events.production import LotReworked, LotTransformed, MaterialIssued, OutputProduced, ScrapReported
from events.vocabulary import Thing

OWN = "location/"  # accounts that hold stock in the house (or, by master data, at a partner's)
ONE = Decimal(1)
EACH = "EA"


@dataclass(frozen=True, slots=True)
class Movement:
    """A quantity of one thing from one account to another; `status` is the stock status on the location side."""

    source: str
    target: str
    source_status: str
    target_status: str
    item: str
    lot: str
    serial: str
    quantity: Decimal
    unit: str


def movements(event: Event) -> list[Movement]:
    """What an event moves, in a fixed order; nothing for most events and for handling units named without their content."""
    rule = _RULES.get(type(event))
    return list(rule(event)) if rule else []


def amount(thing: Thing) -> tuple[Decimal, str] | None:
    """The quantity of a thing and its unit: a serial counts as one; None where nothing is counted."""
    if thing.quantity is not None:
        return thing.quantity.value, thing.quantity.unit
    return (ONE, EACH) if thing.serial else None


def _moves(things: Iterable[Thing], source: str, target: str, source_status: str = "", target_status: str = "") -> Iterator[Movement]:
    for thing in things:
        counted = amount(thing)
        if counted and counted[0]:
            yield Movement(source, target, source_status, target_status, thing.item or "", thing.lot or "", thing.serial or "", *counted)


def _received(e: GoodsReceived) -> Iterator[Movement]:
    return _moves(e.things, f"supplier/{e.supplier or 'unknown'}", OWN + e.location, "", e.status)


def _issued(e: MaterialIssued) -> Iterator[Movement]:
    return _moves(e.things, OWN + e.location, f"wip/{e.order}", e.status)


def _produced(e: OutputProduced) -> Iterator[Movement]:
    return _moves(e.things, f"wip/{e.order}" if e.order else "production", OWN + e.location, "", e.status)


def _scrapped(e: ScrapReported) -> Iterator[Movement]:
    if e.location:
        return _moves(e.things, OWN + e.location, "scrap", e.status)
    return _moves(e.things, f"wip/{e.order}" if e.order else "production", "scrap")


def _converted(e: LotReworked | LotSplit | LotMerged) -> Iterator[Movement]:
    yield from _moves(e.inputs, OWN + e.location, "conversion", e.status)
    yield from _moves(e.outputs, "conversion", OWN + e.location, "", e.status)


def _transformed(e: LotTransformed) -> Iterator[Movement]:
    place = OWN + (e.location or "unknown")
    between = f"wip/{e.order}" if e.order else "conversion"
    yield from _moves(e.inputs, place, between, e.status)
    yield from _moves(e.outputs, between, place, "", e.status)


def _transferred(e: StockTransferred) -> Iterator[Movement]:
    return _moves(e.things, OWN + e.from_location, OWN + e.to_location, e.from_status, e.to_status)


def _decommissioned(e: ObjectsDecommissioned) -> Iterator[Movement]:
    return _moves(e.things, OWN + (e.location or "unknown"), "decommissioned", e.status)


def _dispatched(e: ShipmentDispatched) -> Iterator[Movement]:
    return _moves(e.things, OWN + e.from_location, f"transit/{e.shipment}", e.status)


def _delivered(e: DeliveryProved) -> Iterator[Movement]:
    return _moves(e.things, f"transit/{e.shipment}", f"customer/{e.customer}")


def _returned(e: ReturnReceived) -> Iterator[Movement]:
    return _moves(e.things, f"customer/{e.customer}", OWN + e.location, "", e.status)


_RULES: dict[type[Event], Callable[[Any], Iterator[Movement]]] = {
    GoodsReceived: _received,
    MaterialIssued: _issued,
    OutputProduced: _produced,
    ScrapReported: _scrapped,
    LotReworked: _converted,
    LotSplit: _converted,
    LotMerged: _converted,
    LotTransformed: _transformed,
    StockTransferred: _transferred,
    ObjectsDecommissioned: _decommissioned,
    ShipmentDispatched: _dispatched,
    DeliveryProved: _delivered,
    ReturnReceived: _returned,
}
