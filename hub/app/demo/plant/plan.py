"""The plan of the simulated plant: (seed, orders, first order) to all that its systems will send, with what is to become of each message.

A pure function: all times come from a fixed first day, all chance from the seed, so the same plan has the same bytes on every machine.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hub.app.demo.plant import making, shipping, supply
from hub.app.demo.plant.catalog import (
    CARRIER,
    CARRIER_SCAC,
    CUSTOMERS,
    ITEMS,
    LOCATIONS,
    OWN_PREFIX,
    PACK_PLACE,
    PLANT,
    SHIP_PLACE,
    SUPPLIERS,
)
from hub.app.demo.plant.gs1 import gln13, sgln_urn
from hub.app.demo.plant.world import ERP, FACTS, Draft, Expected, Row, World, lean, row

PARTS = ("erp", "mes", "wms", "carrier", "supplier", "epcis")
_REPEATED = 0.035  # of the messages are sent again as they are, or with other white space and order of keys


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of a part. `due` is the number of finished orders after which it is sent, `after` the index of the message of the same part
    that must be acknowledged before."""

    target: str
    body: bytes
    content_type: str
    expected: tuple[Expected, ...]
    due: float
    after: int | None = None

    def log_lines(self) -> bytes:
        """Its lines of the sent-log."""
        digest = hashlib.sha256(self.body).hexdigest()
        lines = [{"source": e.source, "business_key": e.business_key, "sha256": digest, "expected": e.outcome} for e in self.expected]
        return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Plan:
    """The messages of each part in the order in which it sends them, and the exceptions that are open when all have arrived."""

    messages: Mapping[str, Sequence[Message]]
    exceptions: Mapping[str, int]

    def of(self, part: str, *, with_wms: bool = False) -> Sequence[Message]:
        """The messages of a part; the ERP sends those of the WMS too where there is no Kafka (`with_wms`)."""
        if not with_wms:
            return self.messages[part]
        both = [(m.due, name, n, m) for name in (part, "wms") for n, m in enumerate(self.messages[name])]
        both.sort(key=lambda entry: entry[:3])
        index = {(name, n): place for place, (_, name, n, _) in enumerate(both)}
        return [_placed(m, None if m.after is None else index[name, m.after]) for _, name, _, m in both]


def plan(seed: int, orders: int, start: int = 1) -> Plan:
    """The whole history of `orders` production orders of the finished product, the first of them number `start` (from 1)."""
    if orders < 1 or start < 1:
        raise ValueError(f"orders {orders} and first order {start} must be 1 or more")
    world = World.begin(seed, orders, start)
    opened = world.now
    if start == 1:
        _master_data(world)
    supply.open_store(world)
    outbound = shipping.Outbound()
    for n in range(1, orders + 1):
        serials = making.make_drives(world, world.pick(4, 9))
        shipping.pack(world, outbound, serials)
        shipping.ship(world, outbound, last=n == orders and n > 1)
        if n % 10 == 1:
            shipping.ship_spares(world)
        if n == 1:
            _rubbish(world)
    _repeat(world)
    span = (world.now - opened) / orders
    parts = {name: _ordered([d for d in world.drafts if d.part == name], lambda d: (d.at - opened) / span, orders) for name in PARTS}
    conflicts = sum(e.outcome == "conflict" for messages in parts.values() for m in messages for e in m.expected)
    found = +(world.exceptions + Counter({"content_conflict": conflicts}))
    return Plan(parts, dict(sorted(found.items())))


def expected_exceptions(planned: Plan) -> dict[str, int]:
    """How many exceptions of each kind are open once everything has arrived, in whatever order."""
    return dict(planned.exceptions)


def follow_seed(seed: int, batch: int) -> int:
    """The seed of the batch-th plan of a demo that goes on and on."""
    return seed if not batch else int.from_bytes(hashlib.sha256(f"{seed}/{batch}".encode()).digest()[:6])


def _placed(message: Message, after: int | None) -> Message:
    return Message(message.target, message.body, message.content_type, message.expected, message.due, after)


def _ordered(drafts: list[Draft], due: Any, orders: int) -> list[Message]:
    """Messages in the order of their sending; one that leans on another comes after it."""
    drafts.sort(key=lambda d: d.at)  # stable: what leaves at one moment leaves in the order in which it was told
    index = {id(draft): n for n, draft in enumerate(drafts)}
    found = []
    for n, d in enumerate(drafts):
        after = None if d.after is None else index[id(d.after)]
        if after is not None and after >= n:
            raise AssertionError(f"message {n} of {d.part} is planned before the one it leans on")
        found.append(Message(d.target, d.body, d.content_type, tuple(d.expected), round(min(max(due(d), 0.0), orders), 3), after))
    return found


def _master_data(world: World) -> None:
    """What the ERP knows of items, partners and places. One item is told late, after it was used: its exception closes itself."""
    at = world.now - timedelta(days=6)
    items = [{"item": i.gtin, "description": i.description, "base_unit": i.unit, "tracking": i.tracking} for i in ITEMS]
    partners = [{"partner": s.name, "name": s.title, "role": "supplier"} for s in SUPPLIERS.values()]
    partners += [{"partner": name, "name": title, "role": "customer"} for name, title in CUSTOMERS.items()]
    partners += [{"partner": name, "name": "Fast Freight Ltd.", "role": "carrier"} for name in (CARRIER, CARRIER_SCAC)]
    places = [{"location": name, "description": text} for name, text in (LOCATIONS | {PLANT: "Plant 1"}).items()]
    for reference, text in ((PACK_PLACE, "Pack station"), (SHIP_PLACE, "Shipping gate")):
        names = (sgln_urn(OWN_PREFIX, reference), gln13(OWN_PREFIX, reference))  # as EPCIS writes it, and as it is printed on the door
        places += [{"location": name, "description": text} for name in names]
    late, *early = reversed(items)

    def told(kind: str, name: str, data: list[Row]) -> list[Row]:
        return [row(ERP, f"{kind.upper()}/{d[name]}", f"masterdata.{kind}_defined", d, at) for d in data]

    world.send("erp", FACTS, told("item", "item", early), late=False)
    world.send("erp", FACTS, told("partner", "partner", partners) + told("location", "location", places), late=False)
    world.send("erp", FACTS, told("item", "item", [late])).at = world.now + timedelta(hours=9)


def _rubbish(world: World) -> None:
    """A file in the suppliers' folder that is none: somebody saved a scan there."""
    body = f"%PDF-1.4 delivery note {world.number('rubbish')}, scanned\n".encode() + bytes(range(128, 256)) * 2
    world.tell("supplier", f"scan{world.start:06d}.pdf", body, [Expected("unknown", None, "quarantined")], world.now)


def _repeat(world: World) -> None:
    """Send a share of the messages again, of each part at least one: a duplicate for each of their facts."""
    told = [d for d in world.drafts if d.after is None and all(e.outcome == "accepted" for e in d.expected)]
    seen: Counter[str] = Counter()
    for draft in told:
        if draft.part == "supplier" or (seen[draft.part] and world.rng.random() >= _REPEATED):
            continue
        seen[draft.part] += 1
        body = draft.body if seen[draft.part] % 2 else _otherwise(draft.body)
        expected = [Expected(e.source, e.business_key, "duplicate") for e in draft.expected]
        again = world.tell(draft.part, draft.target, body, expected, draft.at, late=False)
        again.content_type = draft.content_type
        lean(again, draft, world.pick(1, 300))


def _otherwise(body: bytes) -> bytes:
    """The same JSON with other white space and another order of keys."""
    try:
        value = json.loads(body)
    except json.JSONDecodeError:  # newline-delimited
        return b"\r\n".join(_otherwise(line) for line in body.splitlines()) + b"\r\n"
    return json.dumps(_turned(value), indent=1).encode()


def _turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _turned(value[key]) for key in sorted(value, reverse=True)}
    return [_turned(entry) for entry in value] if isinstance(value, list) else value
