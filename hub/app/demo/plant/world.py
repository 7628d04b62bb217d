"""The state of the simulated factory while its history is written: clock, chance, numbers, stock, and what its systems say.

Everything comes from the seed. What happens is told in effective order, so a stock that does not go negative here never goes negative in
effective time, however late its facts arrive.
"""

import hashlib
import json
import random
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hub.app.demo.plant.catalog import Item

DAY_ONE = datetime(2026, 1, 5, 6, tzinfo=UTC)
ORDER_HOURS = 6  # between the first orders of two plans, so that their histories follow one another
NUMBERS_PER_ORDER = 400  # of each kind: plans with other first orders never share one

ERP, MES, WMS = "erp:main", "mes:plant-1", "wms:plant-1"
CARRIER_SOURCE, EPCIS = "carrier:fastfreight", "epcis:packstation-1"
FACTS, CAPTURE = "/v1/facts", "/epcis/capture"

Row = dict[str, Any]
Stay = tuple[str, str, str, str, str]  # location, status, item, lot, serial


@dataclass(frozen=True, slots=True)
class Expected:
    """What a delivery says under one business key, and what is to become of it."""

    source: str
    business_key: str | None
    outcome: str = "accepted"


@dataclass(slots=True)
class Draft:
    """One delivery: who sends it when, its bytes and what is expected. `target` is a topic's end, an HTTP path or a file name."""

    part: str
    target: str
    body: bytes
    expected: list[Expected]
    at: datetime
    content_type: str = "application/json"
    after: "Draft | None" = None


@dataclass(slots=True)
class World:
    """Everything that the story knows."""

    seed: int
    orders: int
    start: int
    rng: random.Random
    now: datetime
    drafts: list[Draft] = field(default_factory=list)
    exceptions: Counter[str] = field(default_factory=Counter)
    _stock: dict[Stay, Decimal] = field(default_factory=dict)
    _numbers: Counter[str] = field(default_factory=Counter)
    _happened: Counter[str] = field(default_factory=Counter)

    @classmethod
    def begin(cls, seed: int, orders: int, start: int) -> "World":
        """The first morning of a plan."""
        now = DAY_ONE + timedelta(hours=ORDER_HOURS * (start - 1))
        return cls(seed, orders, start, random.Random(f"millwright plant {seed} {start}"), now)

    # chance, time, numbers

    def pick(self, low: int, high: int) -> int:
        """A whole number between two, both included."""
        return self.rng.randint(low, high)

    def happens(self, what: str, chance: float) -> bool:
        """Whether something happens now: the first time surely, so that every plan has it, then by chance."""
        found = not self._happened[what] or self.rng.random() < chance
        self._happened[what] += found
        return found

    def wait(self, low: int, high: int) -> datetime:
        """Let some minutes go by."""
        self.now += timedelta(seconds=self.pick(low * 60, high * 60))
        return self.now

    def number(self, kind: str) -> int:
        """The next number of a kind; never used by a plan with another first order."""
        self._numbers[kind] += 1
        if self._numbers[kind] > NUMBERS_PER_ORDER * self.orders:
            raise ValueError(f"the plan needs more than {NUMBERS_PER_ORDER} numbers of kind {kind} an order: raise NUMBERS_PER_ORDER")
        return (self.start - 1) * NUMBERS_PER_ORDER + self._numbers[kind]

    def count(self, kind: str) -> int:
        """How many numbers of a kind this plan has used."""
        return self._numbers[kind]

    def uuid(self, kind: str) -> str:
        """A UUID of the plan's own, the same each time."""
        name = f"{self.seed}/{self.start}/{kind}/{self.number('uuid ' + kind)}"
        return str(uuid.UUID(bytes=hashlib.sha256(name.encode()).digest()[:16], version=4))

    # stock

    def put(self, location: str, item: str, lot: str, quantity: Decimal, *, serial: str = "", status: str = "unrestricted") -> None:
        """Stock comes to a place."""
        stay = (location, status, item, lot, serial)
        self._stock[stay] = self._stock.get(stay, Decimal(0)) + quantity

    def take(self, location: str, item: str, lot: str, quantity: Decimal, *, serial: str = "", status: str = "unrestricted") -> None:
        """Stock leaves a place. Never more than is there."""
        stay = (location, status, item, lot, serial)
        left = self._stock.get(stay, Decimal(0)) - quantity
        if left < 0:
            raise AssertionError(f"the story takes {quantity} of {stay}, which is {left} too much")
        self._stock[stay] = left
        if not left:
            del self._stock[stay]

    def lots(self, location: str, item: str, status: str = "unrestricted") -> list[tuple[str, Decimal]]:
        """The lots of an item at a place, oldest first."""
        return [(s[3], q) for s, q in self._stock.items() if s[0] == location and s[1] == status and s[2] == item]

    def on_hand(self, location: str, item: str) -> Decimal:
        """How much may be used."""
        return sum((q for _, q in self.lots(location, item)), Decimal(0))

    def draw(self, location: str, item: Item, quantity: Decimal) -> list[tuple[str, Decimal]]:
        """Take a quantity out of the oldest lots."""
        drawn = []
        for lot, there in self.lots(location, item.gtin):
            part = min(there, quantity)
            if part > 0:
                self.take(location, item.gtin, lot, part)
                drawn.append((lot, part))
                quantity -= part
        if quantity > 0:
            raise AssertionError(f"{location} lacks {quantity} {item.unit} of {item.name}")
        return drawn

    # telling

    def send(self, part: str, target: str, rows: Sequence[Row], *, late: bool | None = None) -> Draft:
        """Canonical facts leave a system in one delivery, a moment after they happened or much later."""
        body = canonical(rows, lines=len(rows) > 1 and self.rng.random() < 0.3)
        return self.tell(part, target, body, [Expected(r["source"], r["key"]) for r in rows], moment(rows[-1]["occurred_at"]), late=late)

    def tell(self, part: str, target: str, body: bytes, expected: list[Expected], happened: datetime, *, late: bool | None = None) -> Draft:
        """A delivery leaves a system; about one in twenty long after what it tells."""
        is_late = self.rng.random() < 0.05 if late is None else late
        delay = timedelta(minutes=self.pick(90, 700)) if is_late else timedelta(seconds=self.pick(2, 240))
        draft = Draft(part, target, body, expected, happened + delay)
        self.drafts.append(draft)
        return draft


def lean(second: Draft, first: Draft, minutes: int) -> None:
    """Let a delivery come after another one, which has to be acknowledged before."""
    second.after, second.at = first, max(second.at, first.at + timedelta(minutes=minutes))


def row(source: str, key: str, type_: str, data: Row, effective: datetime, **more: Any) -> Row:
    """A canonical fact. `occurred` is when its source wrote it down, else when it happened; `version` an old schema version."""
    found: Row = {"type": type_, "source": source, "key": key, "occurred_at": clock(more.get("occurred") or effective)}
    found["effective_at"] = clock(effective)
    if version := more.get("version"):
        found["schema_version"] = version
    if correlation := more.get("correlation"):
        found["correlation"] = correlation
    return found | {"data": data}


def thing(item: Item, lot: str, quantity: Decimal, **more: str) -> Row:
    """A quantity of a lot, or of an item without lots."""
    return {"item": item.gtin} | ({"lot": lot} if lot else {}) | {"quantity": {"value": plain(quantity), "unit": item.unit}} | more


def unit_of(item: Item, serial: str, **more: str) -> Row:
    """One serial."""
    return {"item": item.gtin, "serial": serial} | more


def things(item: Item, drawn: Iterable[tuple[str, Decimal]]) -> list[Row]:
    """Lots with their quantities."""
    return [thing(item, lot, quantity) for lot, quantity in drawn]


def plain(value: Decimal) -> str:
    """A decimal without exponent and trailing zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def clock(at: datetime) -> str:
    """A time as the plant's systems write it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    """The time of such a text."""
    return datetime.fromisoformat(text)


def canonical(rows: Sequence[Row], *, lines: bool = False) -> bytes:
    """Canonical JSON of one fact, or of a batch in one of its two forms."""
    if lines:
        return b"".join(dumps(r) + b"\n" for r in rows)
    return dumps(rows[0] if len(rows) == 1 else {"facts": list(rows)})


def dumps(value: object) -> bytes:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
