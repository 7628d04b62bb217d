"""X12 856 ship notices to facts: the notice, each handling unit it announces, and each item line. Other transaction sets are held by name.

Keys are those of docs/keys.md: `856/{BSN02}` for the header, `856/{BSN02}/HL{HL01}` for a level, both within the source `x12:{ISA05}:{ISA06}`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo

from adapters.formats import units, x12, x12_856, x12_items, x12_names, x12_text
from adapters.formats.x12 import Fault, Segment, TransactionSet
from adapters.formats.x12_856 import Broken, Level, Notice
from adapters.formats.x12_values import local_time, zone_of
from events import canonical
from events.base import Envelope, Event, Fact
from events.errors import Refused
from events.procurement import AsnHandlingUnitReceived, AsnLineReceived, AsnReceived
from hub.intake.mapping import Context, Held, Line, Part, Partner

# What the sets are that are not mapped: a person who reads the quarantine should not have to look the number up.
_SETS = {
    "204": "motor carrier load tender", "210": "freight invoice", "214": "shipment status", "810": "invoice", "820": "payment order",
    "824": "application advice", "830": "planning schedule", "832": "price catalog", "840": "request for quotation", "846": "inventory advice",
    "850": "purchase order", "855": "purchase order acknowledgment", "857": "shipment and billing notice", "860": "purchase order change",
    "861": "receiving advice", "862": "shipping schedule", "863": "report of test results", "865": "purchase order change acknowledgment",
    "866": "production sequence", "867": "product transfer and resale", "940": "warehouse shipping order", "943": "stock transfer shipment advice",
    "944": "stock transfer receipt advice", "945": "warehouse shipping advice", "947": "inventory adjustment", "990": "response to a load tender",
    "997": "functional acknowledgment", "999": "implementation acknowledgment",
}  # fmt: skip
_NEXT = "correct it at the sender and send it again"
FACTS_MAX = 100_000  # of one file: what they are made of takes some kilobytes of memory each


class X12ShipNotice:
    """The mapping; see the module's docstring."""

    name = "x12-856/1"
    priority = 10

    def recognises(self, body: bytes) -> bool:
        """Anything that begins as X12 does, after a byte order mark or blanks."""
        return x12_text.looks_like(body)

    def read(self, body: bytes, context: Context) -> Sequence[Part]:
        """A part for each transaction set, numbered through the file. One that would make more facts than a file may is held whole."""
        parts: list[Part] = []
        left = FACTS_MAX
        for n, one in enumerate(x12.parse(body), 1):
            parts.append(_part(n, one, context, left))
            left -= sum(_count(line) for line in parts[-1].lines)
        return parts


def _count(line: Line | Held) -> int:
    return len(line.facts) if isinstance(line, Line) else 1


def _part(number: int, one: TransactionSet, context: Context, most: int) -> Part:
    source = f"x12:{one.sender}" if one.sender else "x12"
    if one.code == "856":
        return Part(number, "x12-856", source, _lines(one, source, context, most))
    if not one.code:
        fault = one.fault or Fault("no transaction set")
        return Part(number, "x12", source, [Held("", f"{fault.reason}; {_NEXT}", fault.place, source)])
    known = one.code.isascii() and one.code.isdigit() and len(one.code) == 3
    what = f"X12 {one.code} ({_SETS[one.code]})" if one.code in _SETS else f"X12 {one.code[:20]}"
    broken = f"; besides, {one.fault.reason}" if one.fault else ""
    reason = f"{what} is not supported yet{broken}: it is kept here and can be driven again when a mapping for it exists"
    return Part(
        number, f"unsupported:x12-{one.code}" if known else "x12", source, [Held("", reason, one.fault.place if one.fault else "", source)]
    )


def _lines(one: TransactionSet, source: str, context: Context, most: int) -> Sequence[Line | Held]:
    """The header, then each level that makes facts; one held line for a fault of the set, or where there would be more than `most` facts."""
    if one.fault is not None:
        return [Held("", f"{one.fault.reason}; {_NEXT}", one.fault.place, source)]
    try:
        notice = x12_856.read(one)
    except Broken as error:
        return [Held("", f"{error.fault.reason}; {_NEXT}", error.fault.place, source)]
    maker = _Maker(notice, one, source, context)
    try:
        lines: list[Line | Held] = [Line("", maker.facts(f"856/{notice.number}", [maker.header()]))]
    except Refused as error:
        return [Held("", f"the header of the notice: {error}; {_NEXT}", notice.bsn.place, source)]
    made = 1
    for level in notice.levels:
        if (line := maker.line(level)) is None:
            continue
        lines.append(line)
        made += _count(line)
        if made > most:
            return [Held("", f"the file would make more than {FACTS_MAX} facts: send this notice in several", level.hl.place, source)]
    return lines


@dataclass(slots=True)
class _Maker:
    """Makes the events of one notice."""

    notice: Notice
    one: TransactionSet
    source: str
    context: Context
    at: datetime = field(init=False)
    quality: str = field(init=False)

    def __post_init__(self) -> None:
        self.at, self.quality = self._time()

    @property
    def partner(self) -> str:
        return self.one.sender.partition(":")[2]

    @property
    def config(self) -> Partner:
        return self.context.partners.get(self.source) or Partner()

    def facts(self, key: str, events: Sequence[Event]) -> list[Fact]:
        """Facts with the key, or with `#1`, `#2`, … where there are several."""
        return [
            Fact(
                Envelope(
                    source=self.source,
                    key=key if len(events) == 1 else f"{key}#{n}",
                    occurred_at=self.at,
                    effective_at=self.at,
                    time_quality=self.quality,
                    mapping=X12ShipNotice.name,
                    raw=self.context.raw,
                    traceparent=self.context.traceparent,
                ),
                event,
            )
            for n, event in enumerate(events, 1)
        ]

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
                "partner": self.partner,
                "purpose": self.notice.bsn[1],
                "content": canonical.digest(list(x12.canonical(self.one))).hex(),
                "ship_at": self._date(said, "011"),
                "expected_at": self._date(said, "017", "067", "002"),
                "carrier": next((s[3] or s[5] for s in said if s.tag == "TD5" and (s[3] or s[5])), None),
                "ship_from": _party(said, "SF", "SU", "VN", "SE"),
                "ship_to": _party(said, "ST", "BY"),
                "purchase_orders": list(dict.fromkeys(orders)),
                "references": x12_names.joined(references),
            }
        )

    def line(self, level: Level) -> Line | Held | None:
        """The facts of a level, or why it is held; None for a level that makes none."""
        try:
            events = [*self._handling_units(level), *self._items(level)]
        except Broken as error:
            return Held(level.path, error.fault.reason, error.fault.place, self.source)
        except Refused as error:
            return Held(level.path, str(error), level.hl.place, self.source)
        return Line(level.path, self.facts(f"856/{self.notice.number}/{level.path}", events)) if events else None

    def _handling_units(self, level: Level) -> Iterator[Event]:
        if level.code in ("S", "O", "I"):
            return
        above = x12_items.units_above(level)
        for unit in dict.fromkeys(x12_names.handling_unit(mark) for mark in level.marks()):
            parent = above[-1] if above else None
            yield AsnHandlingUnitReceived.of(
                {"asn": self.notice.number, "partner": self.partner, "handling_unit": unit, "parent": parent if parent != unit else None}
            )

    def _items(self, level: Level) -> Iterator[Event]:
        if not x12_items.is_line(level):
            return
        for line in x12_items.read(level, self._unit):
            for item in line.items:
                quantity = {"value": item.quantity, "unit": item.unit} if item.quantity is not None else None
                yield AsnLineReceived.of(
                    {
                        "asn": self.notice.number,
                        "partner": self.partner,
                        "line": level.number,
                        "thing": {"item": line.item, "lot": item.lot or None, "serial": item.serial or None, "quantity": quantity},
                        "purchase_order": line.purchase_order or None,
                        "purchase_order_line": line.number or None,
                        "handling_units": list(dict.fromkeys(item.units)),
                        "item_numbers": line.numbers,
                        "references": line.references | ({"release": line.release} if line.release else {}),
                    }
                )

    def _unit(self, code: str) -> str | None:
        return units.from_x12(code, self.config.units)

    def _time(self) -> tuple[datetime, str]:
        """BSN03/04 has no time code: its offset is that of a date of the notice at the same local time, else the partner's zone, else UTC."""
        local = self.notice.at
        if self.notice.bsn[4]:
            for s in self._dates():
                if s[4] and s[3] and local_time(s[2], s[3]) == local and (zone := zone_of(s[4], local)) is not None:
                    return _utc(local, zone), "offset"
        zone = self.config.zone
        return (_utc(local, zone), "partner_zone") if zone is not None else (_utc(local, UTC), "assumed_utc")

    def _dates(self) -> Iterator[Segment]:
        yield from (s for s in self.notice.head if s.tag == "DTM" and s[2])
        yield from (s for s in self.notice.levels[0].all("DTM") if s[2])

    def _date(self, said: Sequence[Segment], *qualifiers: str) -> datetime | None:
        for qualifier in qualifiers:
            for s in said:
                if s.tag == "DTM" and s[1] == qualifier and s[2]:
                    local = local_time(s[2], s[3])
                    return _utc(local, zone_of(s[4], local) or self.config.zone or UTC)
        return None


def _utc(local: datetime, zone: tzinfo) -> datetime:
    try:
        return local.replace(tzinfo=zone).astimezone(UTC)
    except OverflowError:  # the first or last day that there is
        return local.replace(tzinfo=UTC)


def _party(said: Sequence[Segment], *codes: str) -> str:
    """Name and id of the first party of these roles, `ACME (92:000009)`."""
    for code in codes:
        for s in said:
            if s.tag == "N1" and s[1] == code:
                number = f"{s[3]}:{s[4]}" if s[4] else ""
                return f"{s[2]} ({number})" if s[2] and number else s[2] or number
    return ""


MAPPING = X12ShipNotice()
