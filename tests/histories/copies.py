"""A golden history made long: copies of it with names of their own, that arrive in disorder, each as the hub of its schema version stored it.

Ten copies in a row share their items, partners and locations, so that they meet; everything else is a copy's own.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from events import canonical
from events.base import Event, Fact, envelope_of, event_class, validated
from hub.log import codec
from tests.histories.golden import FOLDER

WINDOW = 10  # copies whose facts are shuffled together, and that share what is shared
_SHARED = {"item", "partner", "supplier", "customer", "carrier", "location", "from_location", "to_location", "equipment", "edge"}
_OWN = {
    "lot", "serial", "handling_unit", "handling_units", "order", "purchase_order", "purchase_orders", "asn", "receipt", "output", "scrap",
    "rework", "transformation", "split", "merge", "transfer", "document", "shipment", "sales_order", "return_number", "observation",
    "reversal", "original", "quarantined_key", "refused_key", "transactions", "gap", "lane", "acknowledgement", "control",
}  # fmt: skip


def rows(seed: int, window: int) -> list[codec.Row]:
    """The facts of ten copies in a random order of arrival, as rows of the log, those of an old schema version in its form."""
    found = [_row(line, n) for n in range(window * WINDOW, (window + 1) * WINDOW) for line in _lines()]
    random.Random(f"{seed}/{window}").shuffle(found)
    return found


@cache
def _lines() -> list[dict[str, Any]]:
    return [canonical.loads(line) for line in (FOLDER / "bicycle.ndjson").read_bytes().splitlines()]


def _row(line: dict[str, Any], n: int) -> codec.Row:
    data = dict(_renamed(line["data"], n))
    said = {"key": f"{line['business_key']}-{n}", **{name: line[name] for name in ("source", "occurred_at", "effective_at")}}
    fact = Fact(envelope_of(said), validated(line["type"], line["schema_version"], data))
    if line["schema_version"] == event_class(line["type"]).version:
        return codec.row_of(fact)
    return old_row(fact, line["schema_version"], data)


def old_row(fact: Fact, version: int, data: dict[str, Any]) -> codec.Row:
    """A fact as a hub stored it for which `version` was the current one: `data` is of that version."""
    today = fact.event
    event = _Old(type=today.type, version=version, keyed_only=today.keyed_only, name=today.stream(), stored=canonical.dumps(data))
    return codec.row_of(Fact(fact.envelope, event))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Old(Event):
    """An event in an old schema version, as it was encoded when that was the current one."""

    type: str  # type: ignore[misc]
    version: int  # type: ignore[misc]
    keyed_only: bool  # type: ignore[misc]
    name: str
    stored: bytes

    def stream(self) -> str:
        return self.name

    def json(self) -> bytes:
        return self.stored


def _renamed(data: dict[str, Any], n: int) -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if name == "raw_sha256":
            yield name, hashlib.sha256(f"{value}/{n}".encode()).hexdigest()
        else:
            yield name, _value(value, f"-{n}" if name in _OWN else f"-{n // WINDOW}" if name in _SHARED else "", n)


def _value(value: Any, suffix: str, n: int) -> Any:
    if isinstance(value, dict):
        return dict(_renamed(value, n))
    if isinstance(value, list):
        return [_value(one, suffix, n) for one in value]
    return f"{value}{suffix}" if isinstance(value, str) else value
