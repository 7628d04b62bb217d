"""Procure to receipt in the simulated factory: purchase orders, ship notices, receipts, put-away, release from inspection.

The first six purchases of a plan bring one trouble each: a reversed receipt, the over-receipt, a short delivery, a broken ship notice, a notice
number used again with other content, and an item that master data does not know.
"""

from dataclasses import replace
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal

from hub.app.demo.plant import gs1, x12
from hub.app.demo.plant.catalog import BILLS, HARNESS, ITEMS, SCREW, SUPPLIERS, Item, Supplier
from hub.app.demo.plant.world import ERP, FACTS, WMS, Draft, Expected, Row, World, clock, lean, plain, row, thing
from hub.app.demo.plant.x12 import Notice, Pack

TOLERANCE_PERCENT = "5"
HORIZON = Decimal(30)  # finished units whose material one purchase brings
_TROUBLES = ("reversed", "over", "short", "broken", "reused", "unknown")


def open_store(world: World) -> None:
    """The first purchase from every supplier."""
    for supplier in SUPPLIERS.values():
        items = [item for item in ITEMS if item.supplier == supplier.name]
        buy(world, supplier, {item: _usage(item) * HORIZON for item in items})


def ensure(world: World, item: Item, quantity: Decimal) -> None:
    """Have so much of a bought item free in the raw store: buy what is missing, with all else of that supplier that runs low."""
    while world.on_hand("WH1", item.gtin) < quantity:
        supplier = SUPPLIERS[item.supplier]
        wanted = {item: max(quantity, _usage(item) * HORIZON)}
        for other in ITEMS:
            if other.supplier == supplier.name and world.on_hand("WH1", other.gtin) < _usage(other) * 10:
                wanted[other] = max(wanted.get(other, Decimal(0)), _usage(other) * HORIZON)
        buy(world, supplier, wanted)


def buy(world: World, supplier: Supplier, wanted: dict[Item, Decimal]) -> None:
    """Order, announce, receive and put away. Supplier steps lie in the past: the goods arrive now."""
    n = world.number("purchase")
    nth = world.count("purchase")
    trouble = _TROUBLES[nth - 1] if nth <= len(_TROUBLES) else "short" if world.rng.random() < 0.04 else ""
    if trouble == "unknown":
        wanted = wanted | {HARNESS: Decimal(20)}
        world.exceptions["unknown_item"] += 1
    order = f"{4500000000 + n}"
    lines = {str(10 * k): (item, _packs(item, quantity)) for k, (item, quantity) in enumerate(wanted.items(), 1)}
    _order(world, supplier, order, lines)
    packs = [pack for line, (item, count) in lines.items() for pack in _load(world, supplier, line, item, count)]
    if trouble == "over":
        packs.append(replace(packs[-1], unit=_sscc(world, supplier)))
        world.exceptions["over_receipt"] += 1
    for notice in _announce(world, supplier, order, packs, trouble):
        _receive(world, supplier, notice, trouble)
        trouble = "" if trouble in ("reversed", "short") else trouble


def _usage(item: Item) -> Decimal:
    """What one finished unit needs of an item, over all levels."""

    def of(name: str) -> Decimal:
        return sum((q if part is item else q * of(part.name) if part.name in BILLS else Decimal(0) for part, q in BILLS[name]), Decimal(0))

    return of("DRIVE")


def _packs(item: Item, quantity: Decimal) -> int:
    return int((quantity / item.pack).to_integral_value(ROUND_CEILING))


def _sscc(world: World, supplier: Supplier) -> str:
    return gs1.sscc18(supplier.prefix, world.number(f"unit of {supplier.name}")) if supplier.units else ""


def _order(world: World, supplier: Supplier, order: str, lines: dict[str, tuple[Item, int]]) -> None:
    said = [
        {
            "line": line,
            "item": item.gtin,
            "quantity": {"value": plain(item.pack * count), "unit": item.unit},
            "over_tolerance_percent": TOLERANCE_PERCENT,
        }
        for line, (item, count) in lines.items()
    ]
    at = world.now - timedelta(hours=world.pick(60, 80))
    data = {"purchase_order": order, "supplier": supplier.name, "lines": said}
    world.send("erp", FACTS, [row(ERP, f"PO/{order}", "procurement.purchase_order_issued", data, at, correlation=order)])


def _load(world: World, supplier: Supplier, line: str, item: Item, count: int) -> list[Pack]:
    """The packs of a line: of one lot, or of two where there are several; three packs a pallet."""
    lots = [f"{supplier.name[:2]}{world.number(f'lot of {supplier.name}'):05d}" for _ in range(2 if count > 2 else 1)]
    found: list[Pack] = []
    pallet = ""
    for n in range(count):
        if supplier.pallets and n % 3 == 0:
            pallet = _sscc(world, supplier)
        lot = "" if item is SCREW else lots[n * len(lots) // count]
        found.append(Pack(line, item, lot, item.pack, _sscc(world, supplier), pallet))
    if supplier.units:
        return found
    by_lot = {lot: sum(p.lot == lot for p in found) for lot in lots}
    return [Pack(line, item, lot, item.pack * packs) for lot, packs in by_lot.items()]


def _announce(world: World, supplier: Supplier, order: str, packs: list[Pack], trouble: str) -> list[Notice]:
    """One interchange with one notice, or with two where the order comes in two loads."""
    two = len(packs) >= 3 and not trouble and world.happens("two notices", 0.3)
    cut = len(packs) * 2 // 3 if two else len(packs)
    shipped = world.now - timedelta(hours=world.pick(20, 40))
    notices = [
        Notice(f"{supplier.name[:3]}{world.number('notice'):06d}", order, shipped, world.now, part)
        for part in (packs[:cut], packs[cut:])
        if part
    ]
    control = world.number("interchange")
    source = x12.source(supplier)
    expected = [Expected(source, key) for notice in notices for key in x12.keys(supplier, notice)]

    def drop(body: bytes, outcomes: list[Expected], hours: int, late: bool | None = None) -> Draft:
        name = f"856_{supplier.name.lower()}_{world.number('file'):06d}.edi"
        return world.tell("supplier", name, body, outcomes, shipped + timedelta(hours=hours), late=late)

    if trouble == "broken":
        drop(x12.interchange(supplier, notices, control, wrong_count=True), [Expected(source, None, "quarantined")], 0, late=False)
        drop(x12.interchange(supplier, notices, world.number("interchange")), expected, 3)
        return notices
    sent = drop(x12.interchange(supplier, notices, control), expected, 0, late=False if trouble else None)
    if trouble == "reused":
        notice = notices[0]
        changed = replace(notice, packs=[*notice.packs[:-1], replace(notice.packs[-1], quantity=notice.packs[-1].quantity + 1)])
        other = {f"856/{notice.number}", x12.item_keys(notice)[-1]}
        outcomes = [Expected(source, e.business_key, "conflict" if e.business_key in other else "duplicate") for e in expected]
        again = drop(x12.interchange(supplier, [changed], world.number("interchange")), outcomes, 5, late=False)
        lean(again, sent, 60)
    elif not trouble and world.happens("notice twice", 0.06):
        outcomes = [Expected(source, e.business_key, "duplicate") for e in expected]
        again = drop(x12.interchange(supplier, notices, world.number("interchange")), outcomes, 2, late=False)
        lean(again, sent, 60)
    return notices


def _receive(world: World, supplier: Supplier, notice: Notice, trouble: str) -> None:
    """Goods in: a receipt line for each order line and lot, put away, and released where the item is inspected."""
    at = world.wait(4, 15)
    receipt = f"GR{5000000 + world.number('receipt')}"
    groups: dict[tuple[str, Item, str], list[Pack]] = {}
    for pack in notice.packs:
        groups.setdefault((pack.po_line, pack.item, pack.lot), []).append(pack)
    if trouble == "short":
        first = next(iter(groups))
        pack = groups[first][-1]
        groups[first][-1] = replace(pack, quantity=pack.quantity - (2 if pack.item.unit == "EA" else Decimal("1.25")))
        world.exceptions["quantity_variance"] += 1
    rows = []
    for n, ((po_line, item, _), packs) in enumerate(groups.items(), 1):
        data = {
            "receipt": receipt,
            "line": str(n),
            "things": [_packed(pack) for pack in packs],
            "location": "DOCK",
            "status": _status(item),
            "supplier": supplier.name,
            "purchase_order": notice.purchase_order,
            "purchase_order_line": po_line,
            "asn": notice.number,
            "asn_partner": supplier.name,
        }
        written = at + timedelta(minutes=world.pick(0, 25))
        rows.append(row(ERP, f"{receipt}/{n}", "procurement.goods_received", data, at, occurred=written, correlation=notice.purchase_order))
    if trouble == "reversed":
        _received_wrong(world, rows[0])
    for row_ in rows:
        row_["effective_at"] = clock(world.now)
        row_["occurred_at"] = max(row_["occurred_at"], row_["effective_at"])
    world.send("erp", FACTS, rows)
    _put_away(world, [(item, lot, sum((p.quantity for p in packs), Decimal(0))) for (_, item, lot), packs in groups.items()])


def _received_wrong(world: World, right: Row) -> None:
    """Somebody typed the first line in twice the quantity, noticed it, and reversed it: the right receipt follows."""
    wrong = right | {"key": f"{right['key']}/A", "data": right["data"] | {"things": [_doubled(t) for t in right["data"]["things"]]}}
    world.send("erp", FACTS, [wrong])
    at = world.wait(20, 50)
    data = {"reversal": f"RV{world.number('reversal'):06d}", "original": wrong["key"], "reason": "quantity mistyped"}
    world.send("erp", FACTS, [row(ERP, f"{wrong['key']}/reversed", "inventory.movement_reversed", data, at)])
    world.wait(2, 5)


def _doubled(entry: Row) -> Row:
    return entry | {"quantity": entry["quantity"] | {"value": plain(Decimal(entry["quantity"]["value"]) * 2)}}


def _packed(pack: Pack) -> Row:
    return thing(pack.item, pack.lot, pack.quantity, **({"handling_unit": pack.unit} if pack.unit else {}))


def _status(item: Item) -> str:
    return "quality" if item.inspected else "unrestricted"


def _put_away(world: World, received: list[tuple[Item, str, Decimal]]) -> None:
    world.wait(5, 20)
    for status in ("unrestricted", "quality"):
        mine = [(item, lot, quantity) for item, lot, quantity in received if _status(item) == status]
        if not mine:
            continue
        data = {"from_location": "DOCK", "to_location": "WH1", "from_status": status, "to_status": status}
        moved = [thing(item, lot, quantity) for item, lot, quantity in mine]
        _transfer(world, WMS, "wms", "TO", moved, data)
        if status == "quality":
            world.wait(15, 40)
            data = {"from_location": "WH1", "to_location": "WH1", "from_status": status, "to_status": "unrestricted"}
            _transfer(world, ERP, "erp", "UD", moved, data)
        for item, lot, quantity in mine:
            world.put("WH1", item.gtin, lot, quantity)


def _transfer(world: World, source: str, part: str, kind: str, moved: list[Row], data: Row) -> None:
    name = f"{kind}{world.number(kind):06d}"
    world.send(part, FACTS, [row(source, name, "inventory.stock_transferred", data | {"transfer": name, "things": moved}, world.now)])
