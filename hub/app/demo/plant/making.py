"""Order to production in the simulated factory: stators and rotors, motors, drive units; with scrap, rework, splits, merges and slips.

The MES tells what is made and consumed, the WMS what is moved, split and merged, the ERP which orders are released.
"""

from datetime import timedelta
from decimal import Decimal

from hub.app.demo.plant import supply
from hub.app.demo.plant.catalog import BILLS, DRIVE, MOTOR, ROTOR, SCREW, VARNISH, WIRE, WORK, Item
from hub.app.demo.plant.world import ERP, FACTS, MES, WMS, Expected, Row, World, canonical, lean, plain, row, thing, things, unit_of

ONE = Decimal(1)


def make_drives(world: World, quantity: int) -> list[str]:
    """One production order of the finished product; the serials that it made, at the pack station."""
    order = _run(world, DRIVE, Decimal(quantity))
    serials = []
    for n in range(1, quantity + 1):
        serial = _serial(world)
        world.wait(3, 7)
        data = {"output": f"{order}/{n}", "order": order, "things": [unit_of(DRIVE, serial)], "location": "PACK"}
        data |= {"operation": "0040", "equipment": "END-TEST-1"}
        _mes(world, f"{order}/out/{n}", "production.output_produced", data, order)
        world.put("PACK", DRIVE.gtin, "", ONE, serial=serial)
        serials.append(serial)
        if n == 1 and world.happens("output told twice otherwise", 0):
            _conflict(world, f"{order}/out/{n}", data, order)
    return serials


def _serial(world: World) -> str:
    """Serials that a careless reader takes for numbers: 00123, 1E5."""
    n = world.number("serial")
    return f"{n}E5" if n % 17 == 1 else f"{n:05d}"


def _conflict(world: World, key: str, data: Row, order: str) -> None:
    """The same confirmation with another serial: the first stays."""
    first = world.drafts[-1]
    other = data | {"things": [unit_of(DRIVE, data["things"][0]["serial"] + "X")]}
    fact = row(MES, key, "production.output_produced", other, world.now, correlation=order)
    again = world.tell("mes", first.target, canonical([fact]), [Expected(MES, key, "conflict")], world.now, late=False)
    lean(again, first, 30)


def _ensure(world: World, item: Item, quantity: Decimal) -> None:
    """Have so many of a component: bought ones in the raw store, made ones in the store of subassemblies."""
    if item.supplier:
        supply.ensure(world, item, quantity)
        return
    while (missing := quantity - world.on_hand("WIP", item.gtin)) > 0:
        _make_lots(world, item, missing + world.pick(2, 7))


def _make_lots(world: World, item: Item, quantity: Decimal) -> None:
    """A production order of a subassembly: one lot, or two where the shift ends."""
    order = _run(world, item, quantity)
    parts = [quantity]
    if quantity >= 6 and world.happens("two lots", 0.35):
        parts = [quantity // 2, quantity - quantity // 2]
    for n, part in enumerate(parts, 1):
        lot = f"{item.name[0]}{world.number('lot'):06d}"
        at = world.wait(10, 25)
        head = {"output": f"{order}/{n}", "order": order, "location": "WIP", "equipment": WORK[item.name][1]}
        key = f"{order}/out/{n}"
        if world.happens("old terminal", 0.3):  # it still writes version 1: one lot in flat fields
            flat = head | {"item": item.gtin, "lot": lot, "quantity": plain(part), "unit": item.unit}
            world.send("mes", _topic(item), [row(MES, key, "production.output_produced", flat, at, version=1, correlation=order)])
        else:
            _mes(world, key, "production.output_produced", head | {"things": [thing(item, lot, part)]}, order)
        world.put("WIP", item.gtin, lot, part)
    _after(world, item)


def _run(world: World, item: Item, quantity: Decimal) -> str:
    """Release an order, stage and issue its components; the order's number. A component that fails in the process is issued once more."""
    fails = item is MOTOR and world.happens("component fails", 0.2)
    needs = [(part, each * (quantity + (1 if fails and part is ROTOR else 0))) for part, each in BILLS[item.name]]
    for part, amount in needs:
        _ensure(world, part, amount)
    line, equipment, operation = WORK[item.name]
    order = f"{1000000 + world.number('order')}"
    at = world.wait(2, 10)
    data: Row = {"order": order, "item": item.gtin, "quantity": {"value": plain(quantity), "unit": item.unit}, "work_center": equipment}
    data["due_at"] = (at + timedelta(hours=24)).isoformat()
    released = row(ERP, f"ORDER/{order}", "production.order_released", data, at, correlation=order)
    first = world.send("erp", FACTS, [released])
    if item is DRIVE and world.happens("order told twice otherwise", 0):
        changed = released | {"data": data | {"quantity": {"value": plain(quantity + 5), "unit": item.unit}}}
        expected = [Expected(ERP, released["key"], "conflict")]
        lean(world.tell("erp", FACTS, canonical([changed]), expected, at + timedelta(hours=2), late=False), first, 60)
    _stage(world, line, [(part, amount) for part, amount in needs if part.supplier])
    for n, (part, amount) in enumerate(needs, 1):
        place = line if part.supplier else "WIP"
        if item is MOTOR and n == 1 and world.happens("wrong issue", 0.06):
            _issued_wrong(world, order, part)
        at = world.wait(1, 6)
        issued: Row = {"order": order, "things": things(part, world.draw(place, part, amount)), "location": place}
        issued |= {"operation": operation, "equipment": equipment}
        key = f"{order}/issue/{n}"
        written = at + timedelta(minutes=world.pick(0, 30) if part is SCREW else 0)  # bulk parts are backflushed
        world.send("mes", _topic(item), [row(MES, key, "production.material_issued", issued, at, occurred=written, correlation=order)])
        if fails and part is ROTOR:
            lot = issued["things"][-1]["lot"]
            scrap: Row = {
                "scrap": f"{order}/scrap/1",
                "order": order,
                "things": [thing(part, lot, ONE)],
                "reason": "imbalance beyond limit",
            }
            world.wait(1, 4)
            _mes(world, f"{order}/scrap/1", "production.scrap_reported", scrap, order)
    return order


def _stage(world: World, line: str, needs: list[tuple[Item, Decimal]]) -> None:
    """Bring bought components from the raw store to the line, oldest lots first."""
    if not needs:
        return
    world.wait(3, 12)
    moved = []
    for part, amount in needs:
        for lot, quantity in world.draw("WH1", part, amount):
            world.put(line, part.gtin, lot, quantity)
            moved.append(thing(part, lot, quantity))
    name = f"TO{world.number('TO'):06d}"
    data = {"transfer": name, "things": moved, "from_location": "WH1", "to_location": line}
    world.send("wms", FACTS, [row(WMS, name, "inventory.stock_transferred", data, world.now)])


def _issued_wrong(world: World, order: str, part: Item) -> None:
    """A scan of the wrong box, undone by the MES a few minutes later."""
    lot, there = world.lots("WIP", part.gtin)[-1]
    world.wait(1, 3)
    data = {"order": order, "things": [thing(part, lot, min(there, ONE))], "location": "WIP", "operation": "0020"}
    key = f"{order}/issue/1/A"
    _mes(world, key, "production.material_issued", data, order)
    world.wait(3, 9)
    _mes(world, f"{key}/reversed", "inventory.movement_reversed", {"reversal": f"{key}/R", "original": key, "reason": "wrong box"}, order)


def _after(world: World, item: Item) -> None:
    """What else happens to lots between two operations."""
    lots = world.lots("WIP", item.gtin)
    if item is MOTOR and world.happens("rework", 0.15):
        lot, there = lots[-1]
        again, amount = f"{lot}-R1", min(there, Decimal(2))
        world.wait(10, 30)
        world.take("WIP", item.gtin, lot, amount)
        world.put("WIP", item.gtin, again, amount)
        data = _both(item, [(lot, amount)], [(again, amount)], "WIP")
        name = f"RW{world.number('rework'):05d}"
        _mes(world, name, "production.lot_reworked", data | {"rework": name, "reason": "noise at 80 rpm: bearing seat re-pressed"}, "")
    if item is ROTOR and len(lots) >= 2 and world.happens("merge", 0.25):
        merged, parts = f"M{world.number('lot'):06d}", lots[:2]
        world.wait(3, 9)
        for lot, amount in parts:
            world.take("WIP", item.gtin, lot, amount)
        total = sum((amount for _, amount in parts), Decimal(0))
        world.put("WIP", item.gtin, merged, total)
        _wms(world, "MG", "inventory.lot_merged", _both(item, parts, [(merged, total)], "WIP") | {"merge": ""})
    if item.name == "STATOR":
        _spools(world)


def _spools(world: World) -> None:
    """The store splits a wire lot for two lines, throws away varnish that grew old, and scraps a coil that fell."""
    lot, there = world.lots("WH1", WIRE.gtin)[-1] if world.lots("WH1", WIRE.gtin) else ("", Decimal(0))
    if there >= 10 and "-" not in lot and world.happens("split", 0.3):
        world.wait(2, 8)
        half = (there / 3).quantize(Decimal("0.01"))
        world.take("WH1", WIRE.gtin, lot, there)
        outputs = [(f"{lot}-1", half), (f"{lot}-2", there - half)]
        for name, amount in outputs:
            world.put("WH1", WIRE.gtin, name, amount)
        _wms(world, "SP", "inventory.lot_split", _both(WIRE, [(lot, there)], outputs, "WH1") | {"split": ""})
    for item, what, reason in ((VARNISH, "old", "shelf life is over"), (WIRE, "fell", "coil fell off the fork")):
        lots = world.lots("WH1", item.gtin)
        if lots and lots[0][1] > 1 and world.happens(what, 0.08):
            world.wait(1, 5)
            lot, amount = lots[0][0], Decimal("0.5")
            world.take("WH1", item.gtin, lot, amount)
            data = {"things": [thing(item, lot, amount)], "location": "WH1", "reason": reason}
            if what == "old":
                _wms(world, "DC", "inventory.objects_decommissioned", data | {"document": ""})
            else:
                _mes(world, f"SCRAP/{lot}", "production.scrap_reported", data | {"scrap": f"SCRAP/{lot}"}, "")


def _both(item: Item, inputs: list[tuple[str, Decimal]], outputs: list[tuple[str, Decimal]], location: str) -> Row:
    return {"inputs": things(item, inputs), "outputs": things(item, outputs), "location": location}


def _wms(world: World, kind: str, type_: str, data: Row) -> None:
    """A fact of the WMS; the field that is empty gets the document's number, which is its key too."""
    name = f"{kind}{world.number(kind):06d}"
    filled = {field: name if value == "" else value for field, value in data.items()}
    world.send("wms", FACTS, [row(WMS, name, type_, filled, world.now)])


def _mes(world: World, key: str, type_: str, data: Row, order: str) -> None:
    world.send("mes", data.get("equipment", "hall").lower(), [row(MES, key, type_, data, world.now, correlation=order)])


def _topic(item: Item) -> str:
    """The end of the MQTT topic: the station that speaks."""
    return WORK[item.name][1].lower()
