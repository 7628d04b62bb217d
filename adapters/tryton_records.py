"""Records of the ERP Tryton to facts: what a buyer and master data say there, as adapters/tryton/source.py reads it.

A body is one record as Tryton's API gives it: `{"record": {...}, "source": "tryton:NAME", "tryton": MODEL}`. The key names its version: a purchase
order's revision, else when any of what the fact is made of was last written; so what is read again is a duplicate, and a change is a change.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from events import canonical
from events.base import Envelope, Event, Fact
from events.errors import Refused
from events.masterdata import ItemDefined, LocationDefined, PartnerDefined
from events.procurement import PurchaseOrderIssued
from hub.intake.mapping import Context, Held, Line, Part, Partner

FORMAT = "tryton-8.0-json"
ORDER, ITEM, PARTY, LOCATION = "purchase.purchase", "product.product", "party.party", "stock.location"

_STAMPS = ("create_date", "write_date")
_UNIT = ("unece_code", "symbol")
FIELDS: Mapping[str, Sequence[str]] = {
    ORDER: [
        *("number", "revision", "purchase_date", "party.code"),
        *(f"lines.{name}" for name in ("type", "quantity", "product.code", "unit.digits", *(f"unit.{name}" for name in _UNIT))),
        *(f"amendments.{name}" for name in ("state", *_STAMPS)),
    ],
    ITEM: [
        *("code", "name", "lot_required", *_STAMPS),
        *(f"{related}.{name}" for related in ("template", "default_uom") for name in _STAMPS),
        *(f"default_uom.{name}" for name in _UNIT),
    ],
    PARTY: ["code", "name", "categories.name", *_STAMPS],
    LOCATION: ["code", "name", *_STAMPS],
}
"""What is read of each model, and nothing that changes without the fact's changing."""

_HEAD = b'{"record":{'
_ROLES = ("customer", "carrier")  # a party in a category of this name; every other is a supplier, since this ERP buys
Made = tuple[str, Event, datetime, str]  # key, event, effective time and its quality


class TrytonRecords:
    """The mapping; see the module's docstring."""

    name = "tryton-8.0/1"
    priority = 15

    def recognises(self, body: bytes) -> bool:
        """A record as the source writes it."""
        return body.startswith(_HEAD) and b'"tryton":"' in body[-80:]

    def read(self, body: bytes, context: Context) -> Sequence[Part]:
        """One part of one line."""
        source = "unknown"
        try:
            said = canonical.loads(body)
            model, record, source = said["tryton"], said["record"], str(said["source"])[:200] or source
            if model not in _MAKERS:
                raise Refused(f"{str(model)[:80]} is no model whose records are facts: these are {', '.join(_MAKERS)}")
            partner = context.partners.get(source, Partner())
            key, event, at, quality = _MAKERS[model](record, partner)
            envelope = Envelope(
                source=source,
                key=key,
                occurred_at=at,
                effective_at=at,
                time_quality=quality,
                mapping=self.name,
                raw=context.raw,
                traceparent=context.traceparent,
            )
        except (Refused, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            why = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}: not a record as Tryton 8.0 gives it"
            return [Part(1, FORMAT, source, [Held("", why, "", source)])]
        return [Part(1, FORMAT, source, [Line("", [Fact(envelope, event)])])]


def _order(record: dict[str, Any], partner: Partner) -> Made:
    number, revision = record["number"], int(record["revision"])
    lines = [_ordered(line, partner) for line in record["lines."] if line["type"] == "line" and line["product."]]
    event = PurchaseOrderIssued.of({"purchase_order": number, "supplier": record["party."]["code"], "lines": lines})
    amended = [_stamp(amendment) for amendment in record["amendments."] if amendment["state"] == "validated"]
    if amended:
        at, quality = max(amended), "offset"
    else:
        day = datetime.fromisoformat(record["purchase_date"])
        at, quality = day.replace(tzinfo=partner.zone or UTC), "partner_zone" if partner.zone else "assumed_utc"
    return f"purchase/{number}{f'/{revision}' if revision else ''}", event, at.astimezone(UTC), quality


def _ordered(line: dict[str, Any], partner: Partner) -> dict[str, Any]:
    """A line of an order; its name is its id in Tryton, which no change of the order changes."""
    unit, item = line["unit."], line["product."]["code"]
    if not item:
        raise Refused(f"line {line['id']} is of a product without a code: give it one in Tryton")
    value = Decimal(line["quantity"]).quantize(Decimal(1).scaleb(-int(unit["digits"])))  # a float there; it rounds to these digits itself
    if value < 0:
        raise Refused(f"line {line['id']} sends {item} back to the supplier, for which there is no fact yet")
    return {"line": str(line["id"]), "item": item, "quantity": {"value": canonical.decimal_text(value), "unit": _unit(unit, partner)}}


def _item(record: dict[str, Any], partner: Partner) -> Made:
    unit, code = record["default_uom."], record["code"]
    data = {
        "item": code,
        "description": record["name"],
        "base_unit": _unit(unit, partner),
        "tracking": "lot" if record["lot_required"] else "none",
    }
    return _versioned(f"item/{code}", ItemDefined.of(data), max(_stamp(record), _stamp(record["template."]), _stamp(unit)))


def _party(record: dict[str, Any], partner: Partner) -> Made:
    categories = {category["name"].casefold() for category in record["categories."]}
    role = next((role for role in _ROLES if role in categories), "supplier")
    code = record["code"]
    event = PartnerDefined.of({"partner": code, "name": record["name"] or "", "role": role})
    return _versioned(f"partner/{code}", event, _stamp(record))


def _location(record: dict[str, Any], partner: Partner) -> Made:
    code = record["code"]
    return _versioned(f"location/{code}", LocationDefined.of({"location": code, "description": record["name"]}), _stamp(record))


def _versioned(name: str, event: Event, at: datetime) -> Made:
    return f"{name}@{canonical.time_text(at)}", event, at, "offset"


def _unit(unit: dict[str, Any], partner: Partner) -> str:
    code = unit["unece_code"] or partner.units.get(unit["symbol"])
    if not code:
        raise Refused(f"the unit {unit['symbol']!r} has no UN/ECE code: give it one in Tryton, or name it in the partner's units")
    return str(code)


def _stamp(record: dict[str, Any]) -> datetime:
    """When it was last written, by Tryton's clock."""
    return max(datetime.fromisoformat(text) for name in _STAMPS if (text := record[name]))


_MAKERS: Mapping[str, Callable[[dict[str, Any], Partner], Made]] = {ORDER: _order, ITEM: _item, PARTY: _party, LOCATION: _location}

MAPPING = TrytonRecords()
