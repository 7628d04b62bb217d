"""The lines of an 856: what an item level says is coming, in which lots, serials and packs. Pure; what cannot be told says why and where.

One line may name several lots, serials or packs. Where the notice says how much is in each, each is an `Item` with its quantity; where it does
not, the whole quantity is one `Item` and each lot, serial or pack follows without a quantity: nothing is invented and nothing is counted twice.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import pairwise, takewhile

from adapters.formats.x12 import Broken, Segment
from adapters.formats.x12_856 import Level
from adapters.formats.x12_names import LOT_REFERENCES, handling_unit, name_of, of, pairs, references
from adapters.formats.x12_values import decimal_text
from events.vocabulary import sscc18

# What the facts of one item level may take in memory, about: each of its lots, serials and packs repeats what the line says, so some kilobytes could
# ask for gigabytes.
LEVEL_BYTES_MAX = 5_000_000
_FACT_BYTES, _PAIR_BYTES = 400, 100  # of a fact, and of each number or reference in it, besides the characters

_COUNTED_ONE_BY_ONE = frozenset({"EA", "C62", "H87", "SET", "KT"})

Unit = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Item:
    """One fact's worth of a line. `units` are the handling units it is in, outermost first."""

    lot: str = ""
    serial: str = ""
    units: tuple[str, ...] = ()
    quantity: Decimal | None = None
    unit: str = ""


@dataclass(slots=True)
class ItemLine:
    """What one LIN of an item level says."""

    item: str
    numbers: dict[str, str]
    number: str  # LIN01, or the order's line where LIN names it (PL)
    purchase_order: str
    release: str
    references: dict[str, str]
    items: list[Item] = field(default_factory=list)


def is_line(level: Level) -> bool:
    """Whether a level is a line: an item level, or a pack or kit level that itself carries item and quantity where no item level does."""
    if level.code == "I":
        return True
    if level.code in ("S", "O") or not (level.all("LIN") and level.all("SN1")):
        return False
    return not any(above.code == "I" for above in level.above()) and not _item_below(level)


def units_above(level: Level) -> tuple[str, ...]:
    """The handling units that a level stands in, outermost first."""
    return tuple(reversed([unit for above in level.above() if (unit := _main_unit(above))]))


def read(level: Level, unit_of: Unit) -> list[ItemLine]:
    """The lines of a level, one for each LIN. Raises `Broken` where one cannot be told."""
    starts = [n for n, s in enumerate(level.segments) if s.tag == "LIN"]
    if not starts:
        raise Broken("the item has no LIN, so nothing says what it is", level.hl, "3")
    bounds = [0, *starts[1:], len(level.segments)]
    packs = list(_packs(level)) if len(starts) == 1 else []
    lines, size = [], 0
    for a, b in pairwise(bounds):
        line = _line(level, level.segments[a:b], packs, unit_of)
        said = [*line.numbers.items(), *line.references.items()]
        size += len(line.items) * (_FACT_BYTES + sum(_PAIR_BYTES + len(name) + len(value) for name, value in said))
        if size > LEVEL_BYTES_MAX:
            raise _too_much(level)
        lines.append(line)
    return lines


def _too_much(level: Level) -> Broken:
    return Broken("the item names too many lots, serials or packs for all that it says of each: send it in several levels", level.hl, "4")


def _line(level: Level, segments: Sequence[Segment], packs: Sequence[Level], unit_of: Unit) -> ItemLine:
    lin = next(s for s in segments if s.tag == "LIN")
    numbers = pairs(lin, 2)
    item = name_of(numbers)
    if not item:
        raise Broken("LIN names no item: a number with its qualifier (such as UP, BP, VP) is missing", lin, "2", 2)
    order = level.order()
    own_line = order[5] if order is not None else ""
    if order is None:
        order = next((p for above in level.above() if (p := above.order()) is not None), None)
    total, unit = _quantity(segments, level.hl, unit_of, needed=not any(p.all("SN1") for p in packs))
    line = ItemLine(
        item=item,
        numbers=numbers,
        number=numbers.get("PL") or own_line or lin[1],
        purchase_order=order[1] if order is not None else numbers.get("PO", ""),
        release=order[2] if order is not None else "",
        references=references(segments),
    )
    line.items = _settled(list(_items(level, segments, packs, numbers, total, unit, unit_of)), total, unit)
    return line


def _items(
    level: Level,
    segments: Sequence[Segment],
    packs: Sequence[Level],
    numbers: dict[str, str],
    total: Decimal | None,
    unit: str,
    unit_of: Unit,
) -> Iterator[Item]:
    """What is told apart: by packs below, by sublines or loads, by serials, by lots, by the marks on the item itself."""
    loads, others = _loads(segments)
    outer = units_above(level)
    lots = list(dict.fromkeys([*of(numbers, "LT", "B8"), *(s[2] or s[3] for s in others if s.tag == "REF" and s[1] in LOT_REFERENCES)]))
    lots = [lot for lot in lots if lot]
    serials = list(dict.fromkeys([*of(numbers, "SN"), *(s[2] for s in others if s.tag == "REF" and s[1] == "SE" and s[2])]))
    lot = lots[0] if len(lots) == 1 else ""
    marks = [handling_unit(mark) for mark in level.marks()] if level.code == "I" else [m for m in [_main_unit(level)] if m]
    inner = (*outer, marks[0]) if len(marks) == 1 else outer
    found: list[Item] = []
    for pack in packs:
        found += _in_pack(pack, level, inner, lot, unit, unit_of)
        if len(found) > LEVEL_BYTES_MAX // _FACT_BYTES:
            raise _too_much(level)
    found += _sublines(segments, lot, inner, unit_of) if not found else []
    found += [replace(i, units=(*inner, *i.units), lot=i.lot or lot, unit=unit) for i in loads] if not found else []
    found += _serials(serials, lot, inner, total, unit) if not found else []
    named = {i.lot for i in found}
    if len(lots) > 1:
        found += [Item(lot=one, units=inner, unit=unit) for one in lots if one not in named]
    if len(marks) > 1:
        found += [Item(lot=lot, units=(*outer, mark), unit=unit) for mark in marks]
    yield from found or [Item(lot=lot, units=inner, unit=unit)]


def _settled(items: list[Item], total: Decimal | None, unit: str) -> list[Item]:
    """The items with their quantities where these are all known and make up the total, else the total and the items without quantities."""
    known = [i.quantity for i in items if i.quantity is not None]
    complete = len(known) == len(items) and (total is None or (sum(known) == total and all(i.unit == unit for i in items)))
    if complete:
        return items
    if len(items) == 1:
        return [replace(items[0], quantity=total, unit=unit)]
    bare = [replace(i, quantity=None) for i in items]
    if total is None:  # packs that say how much, but not all of them
        return items
    lots = {i.lot for i in items}
    whole_of = Item(lots.pop() if len(lots) == 1 else "", "", _shared([i.units for i in items]), total, unit)
    return [whole_of, *bare]


def _in_pack(pack: Level, item: Level, outer: tuple[str, ...], lot: str, unit: str, unit_of: Unit) -> list[Item]:
    """What of an item is in one pack that stands below it."""
    inside = [above for above in pack.above() if above.depth > item.depth]
    units = (*outer, *(u for level in (*reversed(inside), pack) if (u := _main_unit(level))))
    levels = (pack, *inside)
    lots = list(dict.fromkeys(lot for level in levels for lot in level.lots()))
    serials = list(dict.fromkeys(s[2] for s in pack.all("REF") if s[1] == "SE" and s[2]))
    quantity: Decimal | None = None
    if pack.all("SN1"):
        quantity, unit = _quantity(pack.segments, pack.hl, unit_of, needed=True)
    elif unit and (counts := pack.all("PO4")):  # how many are in it; believed only where all packs add up to the line
        quantity = _or_none(counts[0][1])
    if len(lots) <= 1 and len(serials) <= 1:
        return [Item(lot=lots[0] if lots else lot, serial=serials[0] if serials else "", units=units, quantity=quantity, unit=unit)]
    if serials:
        return _serials(serials, lots[0] if len(lots) == 1 else lot, units, quantity, unit)
    return [Item(lot=one, units=units, unit=unit) for one in lots]


def _sublines(segments: Sequence[Segment], lot: str, units: tuple[str, ...], unit_of: Unit) -> list[Item]:
    """SLN segments that name lots or serials, with their quantities; those that list components are not lots of this item."""
    found = []
    for s in segments:
        if s.tag == "SLN":
            numbers = pairs(s, 9)
            own, serial = next(iter(of(numbers, "LT", "B8")), ""), next(iter(of(numbers, "SN")), "")
            if own or serial:
                unit = unit_of(s[5]) if s[5] else None
                found.append(Item(own or lot, serial, units, _or_none(s[4]) if unit else None, unit or ""))
    return found


def _loads(segments: Sequence[Segment]) -> tuple[list[Item], list[Segment]]:
    """The loads (CLD) that name their labels or lots, and the segments outside of loads. A label is the handling unit of its load."""
    found: list[Item] = []
    others: list[Segment] = []
    load: Segment | None = None
    labels: list[tuple[str, str]] = []

    def close() -> None:
        if load is not None and labels:
            count, each = _or_none(load[1]), _or_none(load[2])
            for code, value in labels:
                if code == "LS":
                    found.append(Item(units=(handling_unit(value),), quantity=each if count == len(labels) else None))
                else:
                    alone = len(labels) == 1 and count is not None and each is not None
                    found.append(Item(lot=value, quantity=count * each if alone and count and each else None))

    for s in segments:
        if s.tag == "CLD":
            close()
            load, labels = s, []
        elif load is not None and s.tag == "REF" and s[2]:
            if s[1] in LOT_REFERENCES:
                labels.append((s[1], s[2]))
        else:
            if s.tag != "REF":
                close()
                load, labels = None, []
            others.append(s)
    close()
    return found, others


def _serials(serials: Sequence[str], lot: str, units: tuple[str, ...], total: Decimal | None, unit: str) -> list[Item]:
    """One each where the unit is counted one by one, and what is left over without a serial."""
    if not serials:
        return []
    if total is not None and unit in _COUNTED_ONE_BY_ONE and total >= len(serials):
        found = [Item(lot, serial, units, Decimal(1), unit) for serial in serials]
        rest = total - len(serials)
        return [*found, Item(lot, "", units, rest, unit)] if rest else found
    return [Item(lot, serial, units, None, unit) for serial in serials]


def _quantity(segments: Sequence[Segment], hl: Segment, unit_of: Unit, *, needed: bool) -> tuple[Decimal | None, str]:
    found = [s for s in segments if s.tag == "SN1"]
    if not found:
        if needed:
            raise Broken("the item has no SN1, so nothing says how much is coming", hl, "3")
        return None, ""
    s = found[0]
    if len(found) > 1:
        raise Broken("SN1 stands twice for one item: which quantity is meant?", found[1], "5")
    return quantity_at(s, 2, unit_of)


def quantity_at(s: Segment, n: int, unit_of: Unit) -> tuple[Decimal, str]:
    """The quantity in element n and its unit in the next, as Rec 20 code. Raises `Broken`."""
    name, unit_name = f"{s.tag}{n:02}", f"{s.tag}{n + 1:02}"
    try:
        value = Decimal(decimal_text(s[n]))
    except ValueError as error:
        raise Broken(f"{name}: {error}", s, "6" if s[n] else "1", n) from None
    if value < 0:
        raise Broken(f"{name} is {s[n]}: a quantity cannot be negative", s, "7", n)
    if not s[n + 1]:
        raise Broken(f"{unit_name} is empty: the quantity has no unit", s, "2", n + 1)
    unit = unit_of(s[n + 1])
    if unit is None:
        why = f"the unit {s[n + 1][:20]!r} ({unit_name}) is not known: name its UN/ECE Rec 20 code for this partner in the configuration"
        raise Broken(why, s, "7", n + 1, remedy="")
    return value, unit


def _or_none(text: str) -> Decimal | None:
    try:
        value = Decimal(decimal_text(text))
    except ValueError:
        return None
    return value if value >= 0 else None


def _main_unit(level: Level) -> str:
    """The handling unit that a level is: its SSCC if it has one, else its first mark. A shipment or an order is none."""
    if level.unit is None:
        try:
            units = [handling_unit(mark) for mark in level.marks()] if level.code not in ("S", "O") else []
        except Broken:  # told on its own line
            units = []
        level.unit = next((u for u in units if sscc18(u)), units[0] if units else "")
    return level.unit


def _packs(level: Level) -> Iterator[Level]:
    """The innermost packs below an item, not those of an item below it."""
    waiting = list(reversed(level.children))
    while waiting:
        one = waiting.pop()
        if one.code != "I":
            inner = [child for child in one.children if child.code != "I"]
            if inner:
                waiting += reversed(inner)
            else:
                yield one


def _item_below(level: Level) -> bool:
    waiting = list(level.children)
    while waiting:
        one = waiting.pop()
        if one.code == "I":
            return True
        waiting += one.children
    return False


def _shared(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The outer units that all of them are in."""
    return tuple(units[0] for units in takewhile(lambda units: len(set(units)) == 1, zip(*paths, strict=False)))
