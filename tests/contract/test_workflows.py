"""The laws of process managers, on a real log: the same rows however the log is cut, rebuilt as live, each decision once, whatever is killed when."""

import os
import signal
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events.base import Envelope, Fact, event_class
from events.posting import PostingIntended
from events.workflow import WorkflowWoken
from hub import points
from hub.app.wiring import processes
from hub.log.follow import Follower, live_schema, shadow_schema
from hub.log.migrate import migrate
from hub.log.store import Log
from hub.workflows import decider
from hub.workflows.decider import Decider
from hub.workflows.process import Workflow
from projections.digest import view_digest
from replay.promote import promote
from replay.rebuild import rebuild
from replay.verify import verify
from tests.conftest import new_database
from tests.facts import as_role
from tests.histories.strategy import histories

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
(P2R,) = (process for process in processes() if process.name == "procure_to_receipt")


class Hub:
    """A log of its own and one process on it."""

    def __init__(self, owner_url: str) -> None:
        self.owner_url = owner_url
        migrate(owner_url)
        self.log = Log(as_role(owner_url, "hub_door"))
        self.view = Workflow(P2R)
        self.decider = Decider(as_role(owner_url, "hub_door"), P2R.name, self.log)

    def close(self) -> None:
        self.log.close()
        self.decider.close()

    def follow(self, batch: int = 1000) -> None:
        follower = Follower(as_role(self.owner_url, "hub_follow"), self.view)
        follower.ensure()
        while follower.step(batch):
            pass
        follower.close()

    def settle(self) -> None:
        """Follow and decide until nothing comes of it."""
        self.follow()
        while self.decider.step():
            self.follow()

    def say(self, *said: tuple[str, str, dict[str, Any]], at: datetime = AT) -> None:
        self.log.append([fact(type_, key, data, at) for type_, key, data in said])

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.owner_url) as connection:
            return connection.execute(query.encode()).fetchall()

    def digest(self, schema: str) -> str:
        with psycopg.connect(self.owner_url) as connection, connection.cursor() as cursor:
            return view_digest(cursor, schema, self.view, business=False)

    def intents(self) -> list[PostingIntended]:
        found = self.log.read(0, 10_000, type_="integration.posting_intended")
        return [one.event for one in found if isinstance(one.event, PostingIntended)]


@pytest.fixture
def hub(pg_owner_url: str) -> Iterator[Hub]:
    with new_database(pg_owner_url) as url:
        made = Hub(url)
        yield made
        made.close()


def fact(type_: str, key: str, data: dict[str, Any], at: datetime = AT) -> Fact:
    return Fact(Envelope(source="erp", key=key, occurred_at=at, effective_at=at), event_class(type_).of(data))


def order(number: str = "PO1", quantity: str = "10", tolerance: str | None = "10") -> tuple[str, str, dict[str, Any]]:
    line = {"line": "10", "item": "A", "quantity": {"value": quantity, "unit": "EA"}, "over_tolerance_percent": tolerance}
    return "procurement.purchase_order_issued", f"order/{number}", {"purchase_order": number, "supplier": "ACME", "lines": [line]}


def receipt(key: str, quantity: str, **more: Any) -> tuple[str, str, dict[str, Any]]:
    things = [{"item": "A", "lot": "L1", "quantity": {"value": quantity, "unit": "EA"}}]
    return "procurement.goods_received", key, {"receipt": key, "things": things, "location": "WH", "purchase_order": "PO1", **more}


def notice(number: str, *orders: str) -> tuple[str, str, dict[str, Any]]:
    return "procurement.asn_received", f"asn/{number}", {"asn": number, "partner": "ACME", "content": "c", "purchase_orders": orders}


def posted(hub: Hub) -> list[tuple[str, str, str]]:
    return [(one.posting, str(one.body["things"][0]["quantity"]["value"]), str(one.body["status"])) for one in hub.intents()]


def test_what_is_received_is_posted_once_and_the_surplus_as_blocked(hub: Hub) -> None:
    hub.say(order(), receipt("r1", "8"), receipt("r2", "5", purchase_order_line="10"), receipt("r3", "2"))
    hub.settle()
    assert posted(hub) == [
        ("erp/r1/0", "8", "unrestricted"),
        ("erp/r2/0", "3", "unrestricted"),  # eleven may come
        ("erp/r2/0/over", "2", "blocked"),
        ("erp/r3/0/over", "2", "blocked"),
    ]
    first = hub.intents()[0]
    assert (first.lane, first.because_source, first.because_key) == ("po/PO1", "erp", "r1")
    assert first.body == {
        "purchase_order": "PO1", "location": "WH", "status": "unrestricted", "effective_on": "2026-03-02", "reference": "r1",
        "things": [{"item": "A", "lot": "L1", "quantity": {"value": "8", "unit": "EA"}, "purchase_order_line": "10"}],
    }  # fmt: skip
    assert hub.decider.step() == 0
    assert hub.decider.left_out() == []


def test_what_comes_before_its_order_waits_for_it(hub: Hub) -> None:
    hub.say(receipt("r1", "12"))
    hub.settle()
    assert posted(hub) == []
    hub.say(order())
    hub.settle()
    assert posted(hub) == [("erp/r1/0", "11", "unrestricted"), ("erp/r1/0/over", "1", "blocked")]


@pytest.mark.parametrize("first", ["receipt", "notice", "order"])
def test_a_receipt_finds_its_order_by_the_notice_in_any_order(hub: Hub, first: str) -> None:
    by_notice = receipt("r1", "4", purchase_order=None, supplier="ACME", asn="N1")
    said = {"receipt": by_notice, "notice": notice("N1", "PO1"), "order": order()}
    for name in sorted(said, key=lambda one: one != first):
        hub.say(said[name])
        hub.settle()
    assert posted(hub) == [("erp/r1/0", "4", "unrestricted")]


def test_a_notice_of_two_orders_is_the_history_of_both(hub: Hub) -> None:
    hub.say(order("PO1"), order("PO2"), notice("N1", "PO1", "PO2"))
    hub.settle()
    assert hub.ask("select instance, fact from view_procure_to_receipt.applied order by 1, 2") == [
        ("po/PO1", 1), ("po/PO1", 3), ("po/PO2", 2), ("po/PO2", 3),
    ]  # fmt: skip


@pytest.mark.parametrize("hostile", ["|", "/", "%s", "%%", "'", "\\", '"', "💧" * 100], ids=ascii)
def test_names_with_any_characters_stop_no_process(hub: Hub, hostile: str) -> None:
    said = order(hostile)
    said[2]["lines"][0]["line"] = hostile
    by_notice = receipt("r", "4", location=hostile, purchase_order=None, asn=hostile, asn_partner=hostile)
    notice = {"asn": hostile, "partner": hostile, "content": "c", "purchase_orders": [hostile]}
    hub.say(by_notice, said, ("procurement.asn_received", "n", notice))
    hub.settle()
    assert posted(hub) == [("erp/r/0", "4", "unrestricted")]


def test_the_longest_names_stop_no_process(hub: Hub) -> None:
    def name(which: str) -> str:
        return "".join(chr(0x20000 + (ord(which) * 997 + n * n) % 0xA6DF) for n in range(200))

    said = order(name("o"))
    said[2]["lines"][0]["line"] = name("l")
    more = {"location": name("w"), "purchase_order": None, "asn": name("n"), "asn_partner": name("p")}
    notice = {"asn": name("n"), "partner": name("p"), "content": "c", "purchase_orders": [name("o")]}
    hub.say(receipt("r" * 150, "12", **more), ("procurement.asn_received", "n", notice), said)
    hub.settle()
    assert [one[1:] for one in posted(hub)] == [("11", "unrestricted"), ("1", "blocked")]


def test_a_kill_between_the_log_and_the_mark_decides_nothing_twice(hub: Hub) -> None:
    hub.say(order(), receipt("r1", "8"))
    hub.follow()
    hub.close()
    child = os.fork()
    if not child:
        try:
            points.arm(lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == "decided" else None)
            hub.decider.step()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert posted(hub) == [("erp/r1/0", "8", "unrestricted")]
    hub.settle()
    assert len(posted(hub)) == 1
    assert hub.ask("select process, position from intake.decided") == [("procure_to_receipt", 2)]


def test_a_decider_that_was_paused_does_not_move_the_mark_back(hub: Hub) -> None:
    hub.say(order(), receipt("r1", "8"))
    hub.settle()
    hub.decider._connected().execute(decider._MOVE, [P2R.name, 1])
    assert hub.ask("select position from intake.decided") == [(2,)]


def test_a_rebuild_by_other_rules_decides_nothing_of_the_past_and_lists_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.say(order(tolerance=None), receipt("r1", "12"))
    hub.settle()
    before = posted(hub)
    monkeypatch.setattr("hub.workflows.procure_to_receipt.BLOCKED", "returned")
    monkeypatch.setattr("hub.workflows.procure_to_receipt._name", lambda said: f"new/{said}")
    url = as_role(hub.owner_url, "hub_follow")
    rebuild(url, [hub.view], restart=True)
    promote(url, [hub.view])
    hub.settle()
    assert posted(hub) == before
    assert [one["key"] for one in hub.decider.left_out()] == ["new/new/erp/r1/0", "new/new/erp/r1/0/over"]


def test_a_time_that_has_come_is_a_fact_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(P2R), "wakes", lambda self, state: {"late": AT + timedelta(days=3)})
    hub.say(order())
    hub.settle()
    (woken,) = hub.log.read(0, 100, type_="integration.workflow_woken")
    assert woken.event == WorkflowWoken(process="procure_to_receipt", instance="po/PO1", what="late", at=AT + timedelta(days=3))
    assert hub.decider.step() == 0


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    facts=histories(
        most=20, types=["procurement.purchase_order_issued", "procurement.asn_received", "procurement.asn_line_received", "procurement.goods_received"]
    ),
    batch=st.sampled_from([1, 2, 7]),
)  # fmt: skip
def test_any_cut_of_the_log_and_a_rebuild_give_the_same_rows(fresh_database: str, facts: Sequence[Fact], batch: int) -> None:
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        for schema in ("log", "intake", live_schema(P2R.name), shadow_schema(P2R.name)):
            connection.execute(f"drop schema if exists {schema} cascade".encode())
    hub = Hub(fresh_database)
    try:
        hub.log.append(facts)
        hub.follow(batch)
        _, done = rebuild(as_role(fresh_database, "hub_follow"), [hub.view], batch=3, restart=True)
        assert hub.digest(live_schema(P2R.name)) == done[P2R.name].digest
        _, found = verify(as_role(fresh_database, "hub_follow"), [hub.view])
        assert all(one.equal for one in found[P2R.name].values())
        hub.settle()
        in_orders = {str(one.body["purchase_order"]) for one in hub.intents()}
        known = {one.event.purchase_order for one in hub.log.read(0, 1000, type_="procurement.purchase_order_issued")}  # type: ignore[attr-defined]
        assert in_orders <= known
    finally:
        hub.close()
