"""Facts for tests, short to write."""

from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import conninfo

from events import Envelope, Fact, validated

START = datetime(2026, 1, 5, 6, tzinfo=UTC)


def fact(key: str, type_: str, data: dict[str, Any], minute: float = 0, source: str = "erp:main", version: int | None = None) -> Fact:
    """A fact of a type; `minute` is its effective time after START."""
    from events.base import event_class

    at = START + timedelta(minutes=minute)
    event = validated(type_, version or event_class(type_).version, data)
    return Fact(Envelope(source=source, key=key, occurred_at=at, effective_at=at), event)


def thing(item: str, lot: str | None = None, quantity: str | None = "1", unit: str = "EA", **more: Any) -> dict[str, Any]:
    """A thing as data."""
    found: dict[str, Any] = {"item": item, **more}
    if lot is not None:
        found["lot"] = lot
    if quantity is not None:
        found["quantity"] = {"value": quantity, "unit": unit}
    return found


def received(key: str, item: str, lot: str, quantity: str, minute: float = 0, **more: Any) -> Fact:
    """Goods received at WH."""
    data = {"receipt": key, "things": [thing(item, lot, quantity)], "location": "WH", "supplier": "ACME", **more}
    return fact(key, "procurement.goods_received", data, minute)


def as_role(owner_url: str, role: str) -> str:
    """The same database as one of the hub's roles."""
    return conninfo.make_conninfo(owner_url, user=role)
