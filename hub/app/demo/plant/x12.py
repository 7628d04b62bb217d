"""X12 856 ship notices as the simulated suppliers write them: one interchange a file, one or more sets in it, version 004010.

Hierarchy S-O-T-P-I, S-O-P-I or S-O-I, as the supplier has pallets, packs or neither. The business keys are those of docs/keys.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from hub.app.demo.plant.catalog import CARRIER_SCAC, PLANT, Item, Supplier
from hub.app.demo.plant.world import plain

_UNITS = {"EA": "EA", "KGM": "KG", "LTR": "LT", "MTR": "MR"}  # X12 data element 355


@dataclass(frozen=True, slots=True)
class Pack:
    """One item line: a lot in a handling unit, which may stand on a pallet; "" where the supplier names none."""

    po_line: str
    item: Item
    lot: str
    quantity: Decimal
    unit: str = ""
    pallet: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """One ship notice."""

    number: str
    purchase_order: str
    shipped: datetime
    expected: datetime
    packs: Sequence[Pack]


def source(supplier: Supplier) -> str:
    """The source string of a supplier's interchanges."""
    return f"x12:ZZ:{supplier.name}"


def keys(supplier: Supplier, notice: Notice) -> list[str]:
    """The business keys of a notice in the order of the document: header, handling units, item lines."""
    return [f"856/{notice.number}", *(f"856/{notice.number}/HL{n}" for n in _traced(notice))]


def item_keys(notice: Notice) -> list[str]:
    """The business keys of the item lines alone, in the order of `notice.packs`."""
    return [f"856/{notice.number}/HL{n}" for n, kind in _levels(notice) if kind == "I"]


def interchange(supplier: Supplier, notices: Sequence[Notice], control: int, *, wrong_count: bool = False) -> bytes:
    """The file. `wrong_count` makes SE01 of the first set wrong: a set that was cut off on its way."""
    sent = notices[-1].shipped
    element, end = supplier.separators
    envelope = [
        [
            "ISA",
            "00",
            " " * 10,
            "00",
            " " * 10,
            "ZZ",
            f"{supplier.name:<15}",
            "ZZ",
            f"{PLANT:<15}",
            sent.strftime("%y%m%d"),
            sent.strftime("%H%M"),
            "U",
            "00401",
            f"{control:09d}",
            "0",
            "P",
            ">",
        ],
        ["GS", "SH", supplier.name, PLANT, sent.strftime("%Y%m%d"), sent.strftime("%H%M"), str(control), "X", "004010"],
    ]
    for n, notice in enumerate(notices, 1):
        body = _set(supplier, notice, f"{n:04d}")
        count = len(body) + 1 + (7 if wrong_count and n == 1 else 0)
        envelope += [*body, ["SE", str(count), f"{n:04d}"]]
    envelope += [["GE", str(len(notices)), str(control)], ["IEA", "1", f"{control:09d}"]]
    return "".join(element.join(segment) + end for segment in envelope).encode("ascii")


def _levels(notice: Notice) -> list[tuple[int, str]]:
    """(HL01, level code) of every level, in order: what `_set` writes."""
    found, n = [(1, "S"), (2, "O")], 2
    pallet = ""
    for pack in notice.packs:
        for kind, here in (("T", pack.pallet and pack.pallet != pallet), ("P", pack.unit), ("I", True)):
            if here:
                n += 1
                found.append((n, kind))
        pallet = pack.pallet
    return found


def _traced(notice: Notice) -> list[int]:
    return [n for n, kind in _levels(notice) if kind in "TPI"]


def _set(supplier: Supplier, notice: Notice, control: str) -> list[list[str]]:
    structure = "0001" if supplier.units else "0004"
    out = [
        ["ST", "856", control],
        ["BSN", "00", notice.number, notice.shipped.strftime("%Y%m%d"), notice.shipped.strftime("%H%M"), structure],
        ["HL", "1", "", "S"],
        ["TD1", "CTN", str(len(notice.packs))],
        ["TD5", "", "2", CARRIER_SCAC, "M"],
        ["REF", "BM", f"BM{notice.number}"],
        ["DTM", "011", notice.shipped.strftime("%Y%m%d"), notice.shipped.strftime("%H%M"), "UT"],
        ["DTM", "017", notice.expected.strftime("%Y%m%d")],
        ["N1", "SF", supplier.title, "92", supplier.name],
        ["N1", "ST", "Milldrive plant 1", "92", PLANT],
        ["HL", "2", "1", "O"],
        ["PRF", notice.purchase_order],
    ]
    level, pallet, pallet_level = 2, "", 2
    for pack in notice.packs:
        parent = 2
        if pack.pallet:
            if pack.pallet != pallet:
                level += 1
                pallet, pallet_level = pack.pallet, level
                out += [["HL", str(level), "2", "T"], ["MAN", "GM", "00" + pack.pallet]]
            parent = pallet_level
        if pack.unit:
            level += 1
            out += [["HL", str(level), str(parent), "P"], ["MAN", "GM", "00" + pack.unit]]
            parent = level
        level += 1
        lin = ["LIN", pack.po_line, "UK", pack.item.gtin, "VP", f"{supplier.name[:3]}-{pack.item.name}", "BP", pack.item.name]
        out += [["HL", str(level), str(parent), "I"], lin + (["LT", pack.lot] if pack.lot and supplier.lot_in_lin else [])]
        out.append(["SN1", "", plain(pack.quantity), _UNITS[pack.item.unit]])
        if pack.lot and not supplier.lot_in_lin:
            out.append(["REF", "LT", pack.lot])
    return [*out, ["CTT", str(len(notice.packs))]]
