"""What people do in the ERP becomes facts, by a real Tryton: a repeat is a duplicate, a change is a change, and nothing that was committed is missed."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pytest

from adapters.tryton.rpc import Rpc
from adapters.tryton.source import TrytonSource
from adapters.tryton.target import RECEIPT, Tryton
from adapters.tryton_records import MAPPING
from events.base import Recorded
from events.errors import Unavailable
from hub.app.servers.erp import Erp
from hub.intake.door import Intake, Loop
from hub.log.migrate import migrate
from hub.log.store import Log
from hub.outbox.target import Accepted, Posting
from tests.contract.erp_buyer import Buyer
from tests.facts import as_role

pytestmark = pytest.mark.timeout(900)  # as in test_tryton.py


@pytest.fixture(scope="module")
def buyer(erp: Erp) -> Iterator[Buyer]:
    with Rpc(erp.url("buyer")) as rpc:
        yield Buyer(rpc)


@pytest.fixture
def log(fresh_database: str) -> Iterator[Log]:
    migrate(fresh_database)
    with Log(as_role(fresh_database, "hub_door")) as opened:
        yield opened


class Taken:
    """A hub that polls the ERP: `round()` takes what there is, and says which facts are new."""

    def __init__(self, erp: Erp, log: Log, **more: Any) -> None:
        self.source = TrytonSource(erp.url(), poll_s=0.0, **more)
        self._log, self._loop = log, Loop(self.source, Intake(log, [MAPPING]), print)
        self.acknowledged = 0

    def round(self) -> list[Recorded]:
        head, stop = self._log.head(), threading.Event()
        while taken := self._loop.step(stop, 0.0):
            self.acknowledged += taken
        return self._log.read(head, 1000)

    def close(self) -> None:
        self.source.close()


def said(facts: list[Recorded]) -> dict[str, dict[str, Any]]:
    return {fact.envelope.key.partition("@")[0]: fact.event.data() for fact in facts}


@pytest.fixture
def taken(erp: Erp, log: Log) -> Iterator[Taken]:
    found = Taken(erp, log)
    yield found
    found.close()


def test_orders_items_partners_and_places_are_facts_once(erp: Erp, buyer: Buyer, log: Log, taken: Taken) -> None:
    buyer.supplier("ACME", "Acme Motors")
    buyer.item("DRIVE", "Drive")
    buyer.item("CABLE", "Cable", "MTR", lots=False)
    order, (drives, cables) = buyer.order("ACME", [("DRIVE", "7", "EA"), ("CABLE", "12.345", "MTR")], date(2026, 1, 2))
    facts = taken.round()
    found = said(facts)
    assert found[f"purchase/{order}"] == {
        "purchase_order": order,
        "supplier": "ACME",
        "lines": [
            {"line": drives, "item": "DRIVE", "quantity": {"value": "7", "unit": "EA"}},
            {"line": cables, "item": "CABLE", "quantity": {"value": "12.345", "unit": "MTR"}},
        ],
    }
    assert found["item/DRIVE"] == {"item": "DRIVE", "description": "Drive", "base_unit": "EA", "tracking": "lot"}
    assert found["item/CABLE"] == {"item": "CABLE", "description": "Cable", "base_unit": "MTR", "tracking": "none"}
    assert found["partner/ACME"] == {"partner": "ACME", "name": "Acme Motors", "role": "supplier"}
    assert found["location/DOCK"] == {"location": "DOCK", "description": "Goods in", "owner": "own"}
    assert not [key for key in found if key.startswith("location/DOCK/") or found[key].get("name") == "Millwright Works"]
    (issued,) = [fact for fact in facts if fact.envelope.key == f"purchase/{order}"]
    assert (issued.envelope.source, issued.envelope.effective_at) == ("tryton:erp", datetime(2026, 1, 2, tzinfo=UTC))
    told = taken.acknowledged
    assert taken.round() == []
    assert taken.acknowledged == told, "what says the same is not even delivered"
    again = Taken(erp, log)
    assert again.round() == []
    assert again.acknowledged == told, "after a restart all of it comes once more, and is known"
    again.close()


def test_a_change_is_a_change_and_what_is_no_change_of_the_fact_is_none(erp: Erp, buyer: Buyer, log: Log) -> None:
    taken = Taken(erp, log, overlap_s=0.0)
    buyer.supplier("S2", "Second")
    buyer.item("PUMP", "Pump")
    buyer.item("VALVE", "Valve")  # written last: what is changed later is older
    order, (line,) = buyer.order("S2", [("PUMP", "10", "EA")], date(2026, 1, 2))
    quotation, _ = buyer.order("S2", [("PUMP", "3", "EA")], date(2026, 1, 2), confirmed=False)
    found = said(taken.round())
    assert f"purchase/{order}" in found
    assert f"purchase/{quotation}" not in found
    buyer.amend(order, line, "12")
    (changed,) = taken.round()
    assert changed.envelope.key == f"purchase/{order}/1"
    assert changed.event.data()["lines"] == [{"line": line, "item": "PUMP", "quantity": {"value": "12", "unit": "EA"}}]
    assert changed.envelope.effective_at > datetime(2026, 1, 3, tzinfo=UTC)
    buyer.write("product.template", "code", "PUMP", {"name": "Pump, new"})
    buyer.write("party.party", "code", "S2", {"name": "Second Ltd"})
    found = said(taken.round())
    assert {key: data.get("description", data.get("name")) for key, data in found.items()} == {
        "item/PUMP": "Pump, new",
        "partner/S2": "Second Ltd",
    }
    buyer.write("product.template", "code", "PUMP", {"name": "Pump"})  # as it was before, and a change all the same
    assert list(said(taken.round())) == ["item/PUMP"]
    told, target = taken.acknowledged, Tryton(erp.url())
    things = [{"item": "PUMP", "lot": "P1", "quantity": {"value": "4", "unit": "EA"}, "purchase_order_line": line}]
    body = {"purchase_order": order, "location": "DOCK", "status": "unrestricted", "effective_on": "2026-01-05", "things": things}
    assert isinstance(target.send(Posting("source/1", RECEIPT, body)), Accepted)
    target.close()
    assert taken.round() == []
    assert taken.acknowledged == told, "a receipt changes the order's record and not what was ordered"
    taken.close()


@pytest.mark.parametrize("way", ["overlap", "sweep"])
def test_a_transaction_that_ends_after_later_ones_were_read_is_not_missed(erp: Erp, buyer: Buyer, log: Log, way: str) -> None:
    taken = Taken(erp, log, overlap_s=600.0 if way == "overlap" else 0.0, sweep_s=3600.0 if way == "overlap" else 0.0)
    first, second = f"LONG-{way}", f"SHORT-{way}"
    buyer.supplier(first, "before")
    taken.round()
    with psycopg.connect(erp.database_url) as connection:
        connection.execute("update party_party set name = 'after', write_date = current_timestamp where code = %s", [first])
        buyer.supplier(second, "meanwhile")
        assert list(said(taken.round())) == [f"partner/{second}"]
    assert [fact.event.data()["name"] for fact in taken.round()] == ["after"]
    taken.close()


def test_what_was_not_made_durable_comes_again(erp: Erp, buyer: Buyer, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Taken(erp, log)
    taken.round()
    buyer.supplier("LATER", "Later")
    stop = threading.Event()

    def refuse(*_: object) -> None:
        stop.set()
        raise Unavailable("the log is away")

    with monkeypatch.context() as patch:
        patch.setattr(log, "append", refuse)
        loop = Loop(taken.source, Intake(log, [MAPPING]), print)
        assert loop.step(stop, 0.0) == 0
    assert list(said(taken.round())) == ["partner/LATER"]
    taken.close()


def test_an_erp_that_is_away_is_named_and_found_again(erp: Erp, buyer: Buyer, taken: Taken, capsys: pytest.CaptureFixture[str]) -> None:
    taken.round()
    buyer.supplier("AWAY", "Away")
    erp.kill()
    assert taken.round() == []
    assert "cannot be reached" in capsys.readouterr().out
    erp.start()
    assert list(said(taken.round())) == ["partner/AWAY"]


def test_a_unit_without_a_code_is_held_until_it_has_one(erp: Erp, buyer: Buyer, log: Log, taken: Taken) -> None:
    taken.round()
    with Rpc(erp.url("admin")) as admin:
        kilogram = admin.search("product.uom", [["unece_code", "=", "KGM"]], ["category"])[0]
        row = {"name": "Bag", "symbol": "bag", "category": kilogram["category"], "factor": 25.0, "rate": 0.04, "digits": 0, "rounding": 1.0}
        (bag,) = admin.call("model.product.uom.create", [row])
        buyer.item("SAND", "Sand", unit_id=bag)
        (held,) = taken.round()
        assert held.event.type == "integration.delivery_quarantined"
        assert "'bag' has no UN/ECE code" in held.event.data()["reason"]
        admin.call("model.product.uom.write", [bag], {"unece_code": "BG"})
    assert [data["base_unit"] for data in said(taken.round()).values()] == ["BG"]
