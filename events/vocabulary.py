"""Value objects of the canonical language: typed ids, quantities, times and the one way to name a traceable thing.

Units are UN/ECE Recommendation 20 codes; GS1 keys carry their check digit (GS1 General Specifications, section 7.9). Quantities are exact
decimals, in JSON always strings; a binary float never enters.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal
from functools import cache, lru_cache
from importlib.resources import files
from typing import Annotated, Any, NewType

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, TypeAdapter
from pydantic.json_schema import WithJsonSchema

from events.canonical import check_text

ItemId = NewType("ItemId", str)
LotId = NewType("LotId", str)
SerialId = NewType("SerialId", str)
HandlingUnitId = NewType("HandlingUnitId", str)

_CONTEXT = Context(prec=40)  # Python's default of 28 digits would round what the pattern below allows
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_DECIMAL = re.compile(r"-?\d{1,20}(\.\d{1,12})?")
_DATETIME = TypeAdapter(datetime).validator
DECIMAL_CHARS_MAX, TIME_CHARS_MAX = 34, 35  # of the two
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _text(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        check_text(value)
        if _CONTROL.search(value):
            raise ValueError("holds a control character")
    return value


def _exact(value: object) -> Decimal:
    if isinstance(value, str) and len(value) <= DECIMAL_CHARS_MAX and (read := read_decimal(value)) is not None:
        return read
    if not isinstance(value, Decimal | int) or isinstance(value, bool):
        raise ValueError("must be a decimal string such as '12.5' (at most 20 digits and 12 decimals, no exponent)")
    found = Decimal(value)
    if not found.is_finite() or not _DECIMAL.fullmatch(format(found, "f")):
        raise ValueError("is out of range: at most 20 digits and 12 decimals")
    return _CONTEXT.normalize(found) or Decimal(0)


@lru_cache(4096)  # the same amounts come again and again
def read_decimal(text: str) -> Decimal | None:
    """The exact decimal of a text of at most `DECIMAL_CHARS_MAX`; None where it is not one."""
    return _CONTEXT.normalize(Decimal(text)) or Decimal(0) if _DECIMAL.fullmatch(text) else None


def _moment(value: object) -> datetime | str:
    """Only text as RFC 3339 writes a moment: a number or a bare date would be guessed at."""
    if isinstance(value, str) and len(value) <= TIME_CHARS_MAX and (read := read_time(value)) is not None:
        return read
    if isinstance(value, datetime):
        return value
    raise ValueError("must be a time with an offset as RFC 3339 writes it, such as 2026-01-05T06:00:00Z")


@lru_cache(1024)  # most facts are effective when they occur
def read_time(text: str) -> datetime | str | None:
    """The moment of a text of at most `TIME_CHARS_MAX`, in UTC; the text itself where it is none: pydantic says why; None if it is not like one."""
    if not _TIME.fullmatch(text):
        return None
    try:
        return _utc(_utc(_DATETIME.validate_python(text)))
    except ValueError:
        return text


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("needs an offset, such as 2026-01-05T06:00:00Z")
    if not 1800 <= value.year <= 9000:
        raise ValueError(f"is in the year {value.year}: only 1800 to 9000 are taken")
    return value.astimezone(UTC)


@cache
def rec20() -> frozenset[str]:
    """All unit codes of UN/ECE Recommendation 20, revision 17; `rec20.json` carries its notice."""
    lines: list[str] = json.loads(files("events").joinpath("rec20.json").read_text("utf-8"))["codes"]
    return frozenset(code for line in lines for code in line.split())


def _unit(value: str) -> str:
    if value not in rec20():
        raise ValueError(f"{value[:40]!r} is not a UN/ECE Rec 20 unit code such as EA, KGM, LTR")
    return value


Text = Annotated[str, StringConstraints(max_length=4000), AfterValidator(_text)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(_text)]
Item = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(_text)]
Exact = Annotated[
    Decimal,
    BeforeValidator(_exact),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d{1,20}(\.\d{1,12})?$"}),
]
Unit = Annotated[str, AfterValidator(_unit), WithJsonSchema({"type": "string", "pattern": "^[A-Z0-9]{2,3}$"})]
Time = Annotated[
    datetime, BeforeValidator(_moment), AfterValidator(_utc)
]  # not pydantic's AwareDatetime: msgspec reads the log by the same types
Count = Annotated[Exact, Field(ge=0), WithJsonSchema({"type": "string", "pattern": r"^\d{1,20}(\.\d{1,12})?$"})]

MANY_MAX = 10_000  # members of one list in a fact; a larger document is several facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """How much: an exact, non-negative number of UN/ECE Rec 20 units."""

    value: Count
    unit: Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """What a fact is about: one handling unit, one serial, one lot of an item, or a quantity of an item that is not tracked.

    `item` is the GTIN-14 where one is known, else the number its source uses. `handling_unit` alone (SSCC-18 where it is one) names the
    unit itself; beside an item it names the unit that holds it.
    """

    item: Item | None = None
    lot: Item | None = None
    serial: Item | None = None
    handling_unit: Item | None = None
    quantity: Quantity | None = None

    def __post_init__(self) -> None:
        if not (self.item or self.serial or self.handling_unit):
            raise ValueError("names nothing: give an item, a serial or a handling_unit")
        if (self.lot or self.quantity) and not (self.item or self.serial):
            raise ValueError("a lot or a quantity needs its item")

    def node(self) -> tuple[str, str] | None:
        """(kind, id) of its node in genealogy: ITEM/LOT, ITEM/SERIAL, or the name alone; None for an untracked quantity.

        An item's own slashes are written %2F, so that its lots are never those of another item: A/B with lot C, A with lot B/C.
        """
        item = self.item.replace("%", "%25").replace("/", "%2F") if self.item else None
        if self.serial:
            return "serial", f"{item}/{self.serial}" if item else self.serial
        if item:
            return ("lot", f"{item}/{self.lot}") if self.lot else None
        return "handling_unit", str(self.handling_unit)


Things = Annotated[tuple[Thing, ...], Field(min_length=1, max_length=MANY_MAX)]


NAME_BYTES_MAX = 1000  # of a name in an index entry, whose limit is 2704 in PostgreSQL


def bounded(name: str) -> str:
    """A name as indexes keep it: itself, or for one over 1000 bytes its beginning and its sha256."""
    if len(name) * 4 <= NAME_BYTES_MAX:  # no character has more bytes
        return name
    raw = name.encode()
    return name if len(raw) <= NAME_BYTES_MAX else f"{name[:200]}…{hashlib.sha256(raw).hexdigest()}"


def gs1_check_digit(digits: str) -> str:
    """The modulo-10 check digit that follows `digits` (GTIN, SSCC, GLN alike)."""
    total = sum(int(d) * (3 if i % 2 == 0 else 1) for i, d in enumerate(reversed(digits)))
    return str(-total % 10)


def gs1_valid(key: str) -> bool:
    """Whether an all-digit GS1 key ends in its own check digit."""
    return key.isascii() and key.isdigit() and len(key) > 1 and gs1_check_digit(key[:-1]) == key[-1]


def gtin14(text: str) -> str | None:
    """GTIN-8, -12, -13 or -14 with a right check digit as 14 digits; None for anything else."""
    return text.zfill(14) if len(text) in (8, 12, 13, 14) and gs1_valid(text) else None


def sscc18(text: str) -> str | None:
    """An SSCC as its 18 digits, from 18 digits or 20 with the application identifier 00; None where the check digit is wrong."""
    digits = text[2:] if len(text) == 20 and text.startswith("00") else text
    return digits if len(digits) == 18 and gs1_valid(digits) else None


def things_of(value: Any) -> tuple[Thing, ...]:
    """The things in a field that holds one, several or none."""
    if value is None:
        return ()
    return (value,) if isinstance(value, Thing) else tuple(value)
