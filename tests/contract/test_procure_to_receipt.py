"""From an order that a buyer makes in a real ERP to receipts that are posted there: each once, counted in the ERP's own database."""

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from adapters.tryton.rpc import Rpc
from adapters.tryton.target import Tryton
from events.base import Envelope, Fact, event_class
from events.errors import Unavailable
from hub.app.servers.erp import Erp
from hub.app.worker import Heads
from hub.log.follow import Follower
from hub.log.migrate import migrate
from hub.log.store import Log
from hub.outbox.sender import Sender
from hub.workflows.decider import Decider
from hub.workflows.process import Workflow
from hub.workflows.procure_to_receipt import ProcureToReceipt
from projections.postings import Postings
from tests.contract.erp_buyer import Buyer
from tests.contract.test_tryton_source import Taken
from tests.facts import as_role

pytestmark = pytest.mark.timeout(900)  # as in test_tryton.py
AT = datetime(2026, 1, 6, 8, tzinfo=UTC)


class Hub:
    """The loops of a hub that tells the ERP, driven by hand."""

    def __init__(self, owner_url: str, erp: Erp) -> None:
        self.owner_url, self.erp = owner_url, erp
        door, follow, read = (as_role(owner_url, role) for role in ("hub_door", "hub_follow", "hub_read"))
        self.log = Log(door)
        self.taken = Taken(erp, self.log)
        self.followers = [Follower(follow, Workflow(ProcureToReceipt())), Follower(follow, Postings())]
        for follower in self.followers:
            follower.ensure()
        self.decider = Decider(door, "procure_to_receipt", self.log)
        self.target = Tryton(erp.url())
        self.heads = Heads(read, "erp")
        self.sender = Sender(self.target, self.log, self.heads, settle_s=5.0, late_s=5.0)

    def close(self) -> None:
        parts: list[Any] = [self.taken, *self.followers, self.decider, self.sender, self.heads, self.target, self.log]
        for one in parts:
            one.close()

    def received(self, key: str, quantity: str, order: str, **more: Any) -> None:
        things = [{"item": "PUMP", "lot": "L1", "quantity": {"value": quantity, "unit": "EA"}}]
        said = {"receipt": key, "things": things, "location": "DOCK", "purchase_order": order, **more}
        event = event_class("procurement.goods_received").of(said)
        self.log.append([Fact(Envelope(source="wms:1", key=key, occurred_at=AT, effective_at=AT), event)])

    def run(self, seconds: float = 60.0) -> None:
        """Until nothing is open."""
        end = time.monotonic() + seconds
        while True:
            worked = sum(follower.step() for follower in self.followers)
            with contextlib.suppress(Unavailable):
                worked += self.decider.step() + self.sender.step()
            states = [state for (state,) in self.ask("select state from view_postings.posting")]
            if not worked and states and all(state == "verified" for state in states):
                return
            assert time.monotonic() < end, states
            time.sleep(0.05)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.owner_url) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture
def hub(fresh_database: str, erp: Erp) -> Iterator[Hub]:
    migrate(fresh_database)
    found = Hub(fresh_database, erp)
    yield found
    found.close()


def in_erp(erp: Erp, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(erp.database_url) as connection:
        return connection.execute(query.encode()).fetchall()


STOCK = """select location.code, lot.number, sum(q)::numeric from (
  select to_location as place, lot, internal_quantity as q from stock_move where state = 'done'
  union all select from_location, lot, -internal_quantity from stock_move where state = 'done') moved
  join stock_location location on location.id = place join stock_lot lot on lot.id = moved.lot
  where location.type = 'storage' group by 1, 2 having sum(q) <> 0 order by 1, 2"""


def test_what_the_dock_receives_is_in_the_erp_once(hub: Hub, erp: Erp) -> None:
    with Rpc(erp.url("buyer")) as rpc:
        buyer = Buyer(rpc)
        buyer.supplier("S9", "Pumps Inc.")
        buyer.item("PUMP", "Pump")
        number, (line,) = buyer.order("S9", [("PUMP", "10", "EA")], date(2026, 1, 5))
    hub.received("r1", "4", number)  # before the hub has heard of the order
    assert any(fact.event.type == "procurement.purchase_order_issued" for fact in hub.taken.round())
    hub.received("r2", "4", number, purchase_order_line=line)
    hub.received("r3", "5", number)  # three of it were ordered
    hub.run()
    assert in_erp(erp, STOCK) == [("DOCK", "L1", Decimal(10)), ("DOCK/blocked", "L1", Decimal(3))]
    keys = [key for (key,) in in_erp(erp, "select hub_key from stock_shipment_in order by id")]
    assert keys == ["wms:1/r1/0", "wms:1/r2/0", "wms:1/r3/0", "wms:1/r3/0/over"]
    assert hub.ask("select posting, document_id from view_postings.posting order by place") == [
        (key, f"Supplier Shipment {document}") for key, document in in_erp(erp, "select hub_key, number from stock_shipment_in order by id")
    ]
    hub.taken.round()
    before = hub.log.head()
    hub.received("r1", "4", number)  # told again
    hub.run()
    assert hub.log.head() == before
    assert len(in_erp(erp, "select id from stock_shipment_in")) == 4
