"""What the simulated factory is: a maker of e-bike drive units, its items, bills of material, partners and places.

Company prefixes begin with 952, which GS1 keeps for demonstrations; they have different lengths on purpose.
"""

from dataclasses import dataclass
from decimal import Decimal

from hub.app.demo.plant import gs1

OWN_PREFIX = "9521234"
PLANT = "MILLDRIVE"  # how partners call us in their envelopes


@dataclass(frozen=True, slots=True)
class Item:
    """An item; `supplier` "" means that we make it, `pack` is what one handling unit of a supplier holds."""

    gtin: str
    name: str
    description: str
    unit: str
    tracking: str = "lot"
    supplier: str = ""
    pack: Decimal = Decimal(0)
    inspected: bool = False


@dataclass(frozen=True, slots=True)
class Supplier:
    """A supplier and how it writes its ship notices: `pallets` nests packs in tares, `units` False names no handling units."""

    name: str
    title: str
    prefix: str
    separators: tuple[str, str] = ("*", "~")
    lot_in_lin: bool = False
    pallets: bool = False
    units: bool = True


SUPPLIERS = {
    s.name: s
    for s in (
        Supplier("COPPERLINE", "Copperline Wire GmbH", "9521001", pallets=True),
        Supplier("STEELWORX", "Steelworx Lamination AG", "95210020", separators=("|", "\n"), units=False, lot_in_lin=True),
        Supplier("MAGNETICA", "Magnetica S.p.A.", "9521003", lot_in_lin=True),
        Supplier("BEARTEC", "Beartec Rolling Elements", "952100400", pallets=True),
        Supplier("ALUCAST", "Alucast Housings s.r.o.", "9521005"),
        Supplier("VOLTRONIC", "Voltronic Controls", "9521006", separators=("*", "~\n"), lot_in_lin=True),
    )
}


def _bought(supplier: str, reference: int, name: str, description: str, unit: str, pack: str, **more: bool) -> Item:
    return Item(gs1.gtin14(SUPPLIERS[supplier].prefix, reference), name, description, unit, "lot", supplier, Decimal(pack), **more)


WIRE = _bought("COPPERLINE", 11, "WIRE", "Magnet wire, enamelled, 0.80 mm", "KGM", "25")
VARNISH = _bought("COPPERLINE", 23, "VARNISH", "Impregnating varnish, class H", "LTR", "5")
STEEL = _bought("STEELWORX", 7, "STEEL", "Electrical steel M270-35A, slit coil", "KGM", "60")
SHAFT = _bought("STEELWORX", 9, "SHAFT", "Shaft bar 42CrMo4, 16 mm", "MTR", "12.5")
MAGNET = _bought("MAGNETICA", 305, "MAGNET", "NdFeB arc segment N42SH", "EA", "240")
BEARING = _bought("BEARTEC", 62, "BEARING", "Deep groove ball bearing 6202-2RS", "EA", "50", inspected=True)
HOUSING = _bought("ALUCAST", 18, "HOUSING", "Drive housing, AlSi9Cu3, machined", "EA", "24")
PCB = _bought("VOLTRONIC", 2201, "PCB", "Motor controller board, rev. C", "EA", "40", inspected=True)
HARNESS = _bought("VOLTRONIC", 2290, "HARNESS", "Cable harness, first sample", "EA", "10")  # nobody told master data of it
SCREW = Item(gs1.gtin14(OWN_PREFIX, 90), "SCREW", "Screw M5x16, bulk", "EA", "none", "ALUCAST", Decimal(1000))
STATOR = Item(gs1.gtin14(OWN_PREFIX, 21), "STATOR", "Stator, wound and impregnated", "EA")
ROTOR = Item(gs1.gtin14(OWN_PREFIX, 22), "ROTOR", "Rotor with magnets and shaft", "EA")
MOTOR = Item(gs1.gtin14(OWN_PREFIX, 30), "MOTOR", "Motor 250 W, tested", "EA")
DRIVE = Item(gs1.gtin14(OWN_PREFIX, 40), "DRIVE", "Drive unit MD-250", "EA", "serial")

ITEMS = (WIRE, VARNISH, STEEL, SHAFT, MAGNET, BEARING, HOUSING, PCB, SCREW, STATOR, ROTOR, MOTOR, DRIVE)

# What one piece needs: three levels of manufacture stand below the shipped product.
BILLS: dict[str, tuple[tuple[Item, Decimal], ...]] = {
    "STATOR": ((WIRE, Decimal("0.85")), (STEEL, Decimal("1.24")), (VARNISH, Decimal("0.06"))),
    "ROTOR": ((STEEL, Decimal("0.64")), (MAGNET, Decimal(8)), (SHAFT, Decimal("0.18"))),
    "MOTOR": ((STATOR, Decimal(1)), (ROTOR, Decimal(1)), (BEARING, Decimal(2))),
    "DRIVE": ((MOTOR, Decimal(1)), (PCB, Decimal(1)), (HOUSING, Decimal(1)), (SCREW, Decimal(8))),
}
# Where each is made, on what, and the operation that consumes and delivers.
WORK = {
    "STATOR": ("LINE-1", "WINDER-1", "0010"),
    "ROTOR": ("LINE-1", "PRESS-2", "0010"),
    "MOTOR": ("LINE-2", "ASSEMBLY-4", "0020"),
    "DRIVE": ("LINE-3", "FINAL-1", "0030"),
}
CUSTOMERS = {
    "VELOCITA": "Velocita Cicli S.r.l.",
    "NORDRAD": "Nordrad Fahrradwerke GmbH",
    "FIETSEN-TL": "Fietsen Twentelo B.V.",
    "ALPBIKE": "Alpbike AG",
}
CARRIER, CARRIER_SCAC = "fastfreight", "FFRT"
LOCATIONS = {
    "DOCK": "Goods in",
    "WH1": "Raw material store",
    "LINE-1": "Winding and rotor line",
    "LINE-2": "Motor assembly",
    "LINE-3": "Final assembly",
    "WIP": "Store of subassemblies",
    "PACK": "Pack station",
    "FG": "Finished goods and shipping",
    "RETURNS": "Returns cage",
}
PACK_PLACE, SHIP_PLACE = 2, 3  # GS1 location references of the pack station and the shipping gate
