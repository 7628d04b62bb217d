"""Make to ship in the simulated factory: cartons and pallets, partial shipments of sales orders, milestones, proofs, returns.

The pack station tells EPCIS events (what is in what), the ERP shipments and returns, the carrier milestones and proofs of delivery.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from hub.app.demo.plant import gs1
from hub.app.demo.plant.catalog import CARRIER, CUSTOMERS, DRIVE, MOTOR, OWN_PREFIX, PACK_PLACE, SHIP_PLACE
from hub.app.demo.plant.world import (
    CAPTURE,
    CARRIER_SOURCE,
    EPCIS,
    ERP,
    FACTS,
    MES,
    WMS,
    Expected,
    Row,
    World,
    clock,
    dumps,
    row,
    thing,
    unit_of,
)

ONE = Decimal(1)
_P = len(OWN_PREFIX)
Carton = tuple[str, list[str]]  # SSCC, serials


@dataclass(slots=True)
class Outbound:
    """What stands ready, and the sales order that is being filled."""

    ready: list[Carton] = field(default_factory=list)
    customer: str = ""
    sales_order: str = ""
    open_cartons: int = 0


def pack(world: World, outbound: Outbound, serials: Sequence[str]) -> None:
    """Two units a carton, into finished goods; now and then a carton is told with the wrong units and declared wrong later."""
    cartons: list[Carton] = [(_sscc(world), list(serials[n : n + 2])) for n in range(0, len(serials), 2)]
    events: list[Row] = []
    for n, (sscc, inside) in enumerate(cartons):
        world.wait(1, 4)
        right = _packed(world, sscc, [_epc(serial) for serial in inside])
        if n == 1 and world.happens("wrong aggregation", 0.08):
            _declared_wrong(world, events, sscc, [cartons[0][1][0], *inside[1:]], right)
        events.append(right)
    _capture(world, events)
    at = world.wait(3, 10)
    name = f"TO{world.number('TO'):06d}"
    moved = [unit_of(DRIVE, serial, handling_unit=sscc) for sscc, inside in cartons for serial in inside]
    data = {"transfer": name, "things": moved, "from_location": "PACK", "to_location": "FG"}
    world.send("wms", FACTS, [row(WMS, name, "inventory.stock_transferred", data, at)])
    for _, inside in cartons:
        for serial in inside:
            world.take("PACK", DRIVE.gtin, "", ONE, serial=serial)
            world.put("FG", DRIVE.gtin, "", ONE, serial=serial)
    outbound.ready += cartons


def ship(world: World, outbound: Outbound, *, last: bool) -> None:
    """Send what stands ready to the customer whose order is open; what is missing follows with a later shipment."""
    if len(outbound.ready) < 3 and not last:
        return
    if not outbound.open_cartons:
        outbound.customer = list(CUSTOMERS)[world.pick(0, len(CUSTOMERS) - 1)]
        outbound.sales_order = f"SO{70000 + world.number('sales order')}"
        outbound.open_cartons = world.pick(4, 7)
    cartons = outbound.ready[: outbound.open_cartons]
    outbound.ready = outbound.ready[len(cartons) :]
    outbound.open_cartons -= len(cartons)
    pallet = _sscc(world)
    world.wait(5, 15)
    events = [_packed(world, pallet, [gs1.sscc_urn(sscc, _P) for sscc, _ in cartons])]
    units = [unit_of(DRIVE, serial, handling_unit=sscc) for sscc, inside in cartons for serial in inside]
    for _, inside in cartons:
        for serial in inside:
            world.take("FG", DRIVE.gtin, "", ONE, serial=serial)
    shipment, delivered = _leave(world, outbound.customer, outbound.sales_order, units, pallet, events, proved=not last)
    if delivered and world.happens("return", 0.2):
        _come_back(world, outbound.customer, shipment, cartons[0], delivered)


def ship_spares(world: World) -> None:
    """Motors as spare parts, by the lot: a carton of a quantity, in EPCIS an LGTIN."""
    lots = [(lot, quantity) for lot, quantity in world.lots("WIP", MOTOR.gtin) if quantity >= 1]
    if not lots:
        return
    lot, amount = lots[0][0], min(lots[0][1], Decimal(2))
    at = world.wait(5, 15)
    world.take("WIP", MOTOR.gtin, lot, amount)
    name = f"TO{world.number('TO'):06d}"
    data = {"transfer": name, "things": [thing(MOTOR, lot, amount)], "from_location": "WIP", "to_location": "FG"}
    world.send("wms", FACTS, [row(WMS, name, "inventory.stock_transferred", data, at)])
    carton = _sscc(world)
    world.wait(3, 8)
    event = _packed(world, carton, [])
    event["childQuantityList"] = [{"epcClass": gs1.lgtin_urn(MOTOR.gtin, lot, _P), "quantity": int(amount)}]
    things = [thing(MOTOR, lot, amount, handling_unit=carton)]
    _leave(world, "FIETSEN-TL", f"SO{70000 + world.number('sales order')}", things, carton, [event], proved=True)


def _leave(
    world: World, customer: str, sales_order: str, things: list[Row], outer: str, events: list[Row], *, proved: bool
) -> tuple[str, datetime | None]:
    """Dispatch: the gate's EPCIS event, the ERP's posting, the carrier's messages. The shipment, and when it was delivered if it was."""
    shipment = f"SH{80000 + world.number('shipment')}"
    at = world.wait(5, 20)
    event = _event(world, "ObjectEvent", "OBSERVE", "shipping", at, SHIP_PLACE)
    event |= {"disposition": "in_transit", "epcList": [gs1.sscc_urn(outer, _P)]}
    event["bizTransactionList"] = [{"type": "desadv", "bizTransaction": f"urn:epcglobal:cbv:bt:{gs1.gln13(OWN_PREFIX, 1)}:{shipment}"}]
    _capture(world, [*events, event])
    data = {"shipment": shipment, "things": [*things, {"handling_unit": outer}], "from_location": "FG", "customer": customer}
    data |= {"carrier": CARRIER, "sales_order": sales_order}
    world.send("erp", FACTS, [row(ERP, f"{shipment}/1", "logistics.shipment_dispatched", data, at, correlation=sales_order)])
    _carrier(world, [_milestone(world, shipment, "AF", "Plant 1", at + timedelta(minutes=world.pick(10, 40)))])
    if not proved:
        return shipment, None
    arrived = at + timedelta(hours=world.pick(9, 26))
    unloaded = arrived + timedelta(minutes=world.pick(20, 90))
    proof = {"shipment": shipment, "customer": customer, "things": things, "signed_by": f"{world.rng.choice('ABDEHJKLMS')}. Goods-in"}
    _carrier(
        world,
        [
            _milestone(world, shipment, "X1", customer, arrived),
            _milestone(world, shipment, "D1", customer, unloaded),
            _cloud(world, f"{shipment}/POD", "logistics.delivery_proved", proof, unloaded),
        ],
    )
    return shipment, unloaded


def _come_back(world: World, customer: str, shipment: str, carton: Carton, delivered: datetime) -> None:
    """One unit is returned: taken out of its carton, into the returns cage; scrapped there or freed again."""
    sscc, inside = carton
    serial = inside[0]
    at = delivered + timedelta(hours=world.pick(20, 60))
    event = _event(world, "AggregationEvent", "DELETE", "unpacking", at, PACK_PLACE)
    event |= {"disposition": "returned", "parentID": gs1.sscc_urn(sscc, _P), "childEPCs": [_epc(serial)]}
    _capture(world, [event])
    number = f"RMA{world.number('return'):05d}"
    data = {"return_number": number, "customer": customer, "shipment": shipment, "things": [unit_of(DRIVE, serial)]}
    data |= {"location": "RETURNS", "status": "quality", "reason": "no torque"}
    world.send("erp", FACTS, [row(ERP, f"{number}/1", "logistics.return_received", data, at, correlation=number)])
    at += timedelta(hours=world.pick(2, 9))
    if world.happens("returned unit is scrap", 0.5):
        data = {
            "scrap": f"{number}/scrap",
            "location": "RETURNS",
            "status": "quality",
            "things": [unit_of(DRIVE, serial)],
            "reason": "burnt",
        }
        world.send("mes", "hall", [row(MES, f"{number}/scrap", "production.scrap_reported", data, at)])
    else:
        data = {"transfer": f"UD-{number}", "things": [unit_of(DRIVE, serial)], "from_location": "RETURNS", "to_location": "FG"}
        data |= {"from_status": "quality", "to_status": "unrestricted"}
        world.send("erp", FACTS, [row(ERP, f"UD-{number}", "inventory.stock_transferred", data, at)])


def _declared_wrong(world: World, events: list[Row], sscc: str, serials: list[str], right: Row) -> None:
    """The scanner told a unit of another carton; an hour later the event is declared wrong under its own id, as EPCIS wants it."""
    wrong = _packed(world, sscc, [_epc(serial) for serial in serials])
    events.append(wrong)
    declared = clock(world.now + timedelta(hours=1))
    declaration = {"declarationTime": declared, "reason": "incorrect_data", "correctiveEventIDs": [right["eventID"]]}
    _capture(world, [wrong | {"errorDeclaration": declaration}], world.now + timedelta(hours=1))


def _packed(world: World, parent: str, children: list[str]) -> Row:
    event = _event(world, "AggregationEvent", "ADD", "packing", world.now, PACK_PLACE)
    return event | {"disposition": "in_progress", "parentID": gs1.sscc_urn(parent, _P)} | ({"childEPCs": children} if children else {})


def _event(world: World, kind: str, action: str, step: str, at: datetime, place: int) -> Row:
    where = {"id": gs1.sgln_urn(OWN_PREFIX, place)}
    found: Row = {"type": kind, "eventID": f"urn:uuid:{world.uuid('event')}", "eventTime": clock(at), "eventTimeZoneOffset": "+00:00"}
    return found | {"action": action, "bizStep": step, "readPoint": where, "bizLocation": where}


def _capture(world: World, events: list[Row], at: datetime | None = None) -> None:
    """An EPCIS document of the pack station."""
    happened = at or max(datetime.fromisoformat(event["eventTime"]) for event in events)
    document = {
        "@context": "https://ref.gs1.org/standards/epcis/epcis-context.jsonld",
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": clock(happened),
        "sender": EPCIS.removeprefix("epcis:"),
        "epcisBody": {"eventList": events},
    }
    expected = [Expected(EPCIS, _key(event)) for event in events]
    world.tell("epcis", CAPTURE, dumps(document), expected, happened).content_type = "application/ld+json"


def _key(event: Row) -> str:
    declared = event.get("errorDeclaration")
    return f"{event['eventID']}#error:{declared['declarationTime']}" if declared else str(event["eventID"])


def _milestone(world: World, shipment: str, code: str, place: str, at: datetime) -> Row:
    data = {"shipment": shipment, "code": code, "place": place, "carrier": CARRIER}
    return _cloud(world, f"{shipment}/{code}", "logistics.milestone_reported", data, at)


def _cloud(world: World, key: str, type_: str, data: Row, at: datetime) -> Row:
    head = {"specversion": "1.0", "id": world.uuid("cloud"), "source": CARRIER_SOURCE, "type": type_, "time": clock(at)}
    return head | {"datacontenttype": "application/json", "subject": data["shipment"], "businesskey": key, "data": data}


def _carrier(world: World, events: list[Row]) -> None:
    expected = [Expected(CARRIER_SOURCE, event["businesskey"]) for event in events]
    draft = world.tell("carrier", FACTS, dumps(events), expected, datetime.fromisoformat(events[-1]["time"]))
    draft.content_type = "application/cloudevents-batch+json"


def _sscc(world: World) -> str:
    return gs1.sscc18(OWN_PREFIX, world.number("own unit"), 3)


def _epc(serial: str) -> str:
    return gs1.sgtin_urn(DRIVE.gtin, serial, _P)
