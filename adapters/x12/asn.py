"""X12 856 ship notices to facts: the notice, each handling unit it announces, and each item line.

Keys are those of docs/keys.md: `856/{BSN02}` for the header, `856/{BSN02}/HL{HL01}` for a level.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from adapters.formats import x12, x12_856, x12_items, x12_names
from adapters.formats.x12 import Broken, Fault, Segment
from adapters.formats.x12_856 import Level, Notice
from adapters.formats.x12_dates import dated, utc
from adapters.formats.x12_values import local_time, zone_of
from adapters.x12.common import Faulty, Set, faulty, parties
from events import canonical
from events.base import Event, Fact
from events.errors import Refused
from events.procurement import AsnHandlingUnitReceived, AsnLineReceived, AsnReceived
from hub.intake.mapping import Held, Line

FACTS_MAX = 100_000  # of one file: what they are made of takes some kilobytes of memory each


def count(line: Line | Held) -> int:
    """How many facts a line is."""
    return len(line.facts) if isinstance(line, Line) else 1


def lines(said: Set, most: int) -> Sequence[Line | Held]:
    """The header, then each level that makes facts; one held line for a fault of the set, or where there would be more than `most` facts."""
    try:
        notice = x12_856.read(said.one)
    except Broken as error:
        return [faulty("", said.source, error.fault)]
    maker = _Maker(notice, said)
    try:
        found: list[Line | Held] = [Line("", maker.facts(f"856/{notice.number}", [maker.header()]))]
    except Refused as error:
        return [faulty("", said.source, Fault.at(f"the header of the notice: {error}", notice.bsn, "8"))]
    made = 1
    for level in notice.levels:
        if (line := maker.line(level)) is None:
            continue
        found.append(line)
        made += count(line)
        if made > most:
            reason = f"the file would make more than {FACTS_MAX} facts: send this notice in several"
            return [Faulty("", reason, level.hl.place, said.source, Fault.at(reason, level.hl, "4"))]
    return found


@dataclass(slots=True)
class _Maker:
    """Makes the events of one notice."""

    notice: Notice
    said: Set
    at: datetime = field(init=False)
    quality: str = field(init=False)

    def __post_init__(self) -> None:
        self.at, self.quality = self._time()

    def facts(self, key: str, events: Sequence[Event]) -> list[Fact]:
        """Facts with the key, or with `#1`, `#2`, … where there are several."""
        keys = [key] if len(events) == 1 else [f"{key}#{n}" for n in range(1, len(events) + 1)]
        return [self.said.fact(k, event, self.at, self.quality) for k, event in zip(keys, events, strict=True)]

    def header(self) -> AsnReceived:
        """The notice itself."""
        top = [s for s in self.notice.levels if s.code == "S"]
        said = [*self.notice.head, *(s for level in top for s in level.segments)]
        orders = [s[1] for level in self.notice.levels for s in level.all("PRF") if s[1]]
        references: dict[str, list[str]] = {}
        for s in said:
            if s.tag == "REF" and s[1] and (s[2] or s[3]):
                references.setdefault(s[1], []).append(s[2] or s[3])
        return AsnReceived.of(
            {
                "asn": self.notice.number,
                "partner": self.said.partner,
                "purpose": self.notice.bsn[1],
                "content": canonical.digest(list(x12.canonical(self.said.one))).hex(),
                "ship_at": dated(said, ("011",), self.said.zone),
                "expected_at": dated(said, ("017", "067", "002"), self.said.zone),
                "carrier": next((s[3] or s[5] for s in said if s.tag == "TD5" and (s[3] or s[5])), None),
                "ship_from": parties(said, "SF", "SU", "VN", "SE"),
                "ship_to": parties(said, "ST", "BY"),
                "purchase_orders": list(dict.fromkeys(orders)),
                "references": x12_names.joined(references),
            }
        )

    def line(self, level: Level) -> Line | Held | None:
        """The facts of a level, or why it is held; None for a level that makes none."""
        try:
            events = [*self._handling_units(level), *self._items(level)]
        except Broken as error:
            return faulty(level.path, self.said.source, error.fault)
        except Refused as error:
            return faulty(level.path, self.said.source, Fault.at(str(error), level.hl, "8"))
        return Line(level.path, self.facts(f"856/{self.notice.number}/{level.path}", events)) if events else None

    def _handling_units(self, level: Level) -> Iterator[Event]:
        if level.code in ("S", "O", "I"):
            return
        above = x12_items.units_above(level)
        for unit in dict.fromkeys(x12_names.handling_unit(mark) for mark in level.marks()):
            parent = above[-1] if above and above[-1] != unit else None
            yield AsnHandlingUnitReceived.of(
                {"asn": self.notice.number, "partner": self.said.partner, "handling_unit": unit, "parent": parent}
            )

    def _items(self, level: Level) -> Iterator[Event]:
        if not x12_items.is_line(level):
            return
        for line in x12_items.read(level, self.said.unit):
            for item in line.items:
                quantity = {"value": item.quantity, "unit": item.unit} if item.quantity is not None else None
                yield AsnLineReceived.of(
                    {
                        "asn": self.notice.number,
                        "partner": self.said.partner,
                        "line": level.number,
                        "thing": {"item": line.item, "lot": item.lot or None, "serial": item.serial or None, "quantity": quantity},
                        "purchase_order": line.purchase_order or None,
                        "purchase_order_line": line.number or None,
                        "handling_units": list(dict.fromkeys(item.units)),
                        "item_numbers": line.numbers,
                        "references": line.references | ({"release": line.release} if line.release else {}),
                    }
                )

    def _time(self) -> tuple[datetime, str]:
        """BSN03/04 has no time code: its offset is that of a date of the notice at the same local time, else the partner's zone, else UTC."""
        local = self.notice.at
        if self.notice.bsn[4]:
            for s in self._dates():
                if s[4] and s[3] and local_time(s[2], s[3]) == local and (zone := zone_of(s[4], local)) is not None:
                    return utc(local, zone), "offset"
        return self.said.day(local)

    def _dates(self) -> Iterator[Segment]:
        yield from (s for s in self.notice.head if s.tag == "DTM" and s[2])
        yield from (s for s in self.notice.levels[0].all("DTM") if s[2])
