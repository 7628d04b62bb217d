"""Every view in projections/ obeys the laws: any batch size, any order of arrival, any repetition, rebuilt or live, the same rows."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events.base import Fact, event_types
from events.inventory import FactRetracted, MovementReversed
from hub.app.wiring import views
from hub.log.follow import Follower, shadow_schema
from hub.log.migrate import migrate
from hub.log.store import Accepted, Duplicate, Log
from projections.base import TableView
from projections.digest import view_digest
from projections.movements import OWN, movements
from projections.stock import Stock
from tests.conftest import new_database
from tests.contract import view_suite
from tests.histories.strategy import FIELDS, histories, recorded

Connection = psycopg.Connection[tuple[Any, ...]]
VIEWS = [pytest.param(view, id=view.name) for view in views() if not view.by_arrival]  # those have laws of their own: test_workflows
few = settings(
    max_examples=max(25, settings().max_examples // 5),  # each is some hundred statements; the thorough profile searches longer
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
# Types that make up half of a view's examples; a view that is not named here searches all types alone.
ABOUT = {
    "receipts": ["procurement.purchase_order_issued", "procurement.asn_line_received", "procurement.goods_received"],
    "shipments": [name for name in FIELDS if name.startswith("logistics.") and "handling" not in name],
    "quarantine": [name for name in FIELDS if name.startswith("integration.") and "posting" not in name],
    "postings": [name for name in FIELDS if name.startswith("integration.posting")],
    "references": ["masterdata.item_defined", "production.output_produced", "production.material_issued", "inventory.lot_split"],
    "stock": ["procurement.goods_received", "inventory.stock_transferred", "production.material_issued"],
    "equipment": [name for name in FIELDS if name.startswith(("equipment.", "integration.gap", "integration.clock"))],
    "people": [name for name in FIELDS if name.startswith("security.")],
    "genealogy": ["inventory.lot_split", "production.material_issued", "production.output_produced", "logistics.handling_unit_packed"],
}
UNDO = ["inventory.movement_reversed", "inventory.fact_retracted"]
MOVING = [name for name in FIELDS if not name.startswith(("masterdata.", "integration.delivery", "integration.content"))]


@pytest.fixture(scope="module")
def connection(pg_owner_url: str) -> Iterator[Connection]:
    """A database with the schemas of all views, shared by the laws: they roll everything back."""
    with new_database(pg_owner_url) as url, view_suite.prepared(url) as connection:
        yield connection


def _about(view: TableView) -> st.SearchStrategy[list[Fact]]:
    types = ABOUT.get(view.name)
    return st.one_of(histories(), histories(types=[*types, *UNDO])) if types else histories()


def test_histories_know_every_event_type() -> None:
    assert {cls.type for cls in event_types()} == set(FIELDS), "a new event type belongs into tests/histories/strategy.py"


@pytest.mark.parametrize("view", VIEWS)
def test_every_table_names_its_key_and_its_last_position(view: TableView) -> None:
    view_suite.check_shape(view)


@pytest.mark.parametrize("view", VIEWS)
@few
@given(data=st.data())
def test_batch_sizes_change_nothing(connection: Connection, view: TableView, data: st.DataObject) -> None:
    view_suite.check_batch_sizes(connection, view, data.draw(_about(view)))


@pytest.mark.parametrize("view", VIEWS)
@few
@given(data=st.data())
def test_arrival_order_changes_no_business_column(connection: Connection, view: TableView, data: st.DataObject) -> None:
    facts = data.draw(_about(view))
    view_suite.check_arrival_order(connection, view, facts, data.draw(st.permutations(facts)))


@few
@given(facts=histories(types=MOVING))
def test_stock_is_conserved_and_undone_facts_move_nothing(connection: Connection, facts: list[Fact]) -> None:
    with view_suite.folded(connection, Stock(), recorded(facts), 4) as cursor:
        for over in ("unit", "item"):
            sums = cursor.execute(f"select {over}, sum(quantity) from balance group by 1 having sum(quantity) <> 0".encode()).fetchall()  # noqa: S608
            assert sums == []
        cursor.execute("select account, status, item, lot, serial, unit, quantity from balance where quantity <> 0")
        found = {row[:-1]: row[-1] for row in cursor}
    assert found == _plain_balances(facts)


@few
@given(facts=histories(types=MOVING, most=20))
def test_a_balance_is_negative_from_when_its_movements_sum_below_zero(connection: Connection, facts: list[Fact]) -> None:
    """The running totals that the view keeps, against all lines summed up again."""
    with view_suite.folded(connection, Stock(), recorded(facts), 1) as cursor:
        cursor.execute("select account, status, item, lot, serial, unit, effective_at, quantity, source, business_key from movement")
        lines = [row for row in cursor if row[0].startswith(OWN)]
        cursor.execute("select subject, source, business_key, first_seen, split_part(reason, ' ', 1)::numeric from exception")
        found = {(*row[0].split("|"), *row[1:]) for row in cursor}
    expected = set()
    for identity in {row[:6] for row in lines}:
        own = [row[6:] for row in lines if row[:6] == identity]
        totals = {at: sum(q for t, q, *_ in own if t <= at) for at, *_ in own}
        if below := [at for at in totals if totals[at] < 0]:
            since = min(below)
            expected.add((*identity, *min(cause for t, q, *cause in own if t == since and q < 0), since, min(totals.values())))
    assert found == expected


def _plain_balances(facts: Sequence[Fact]) -> dict[tuple[str, ...], Decimal]:
    """What stock must be, told without any order: all movements of the facts that nothing undid."""
    undone = {(f.envelope.source, f.event.original) for f in facts if isinstance(f.event, MovementReversed | FactRetracted)}
    total: dict[tuple[str, ...], Decimal] = defaultdict(Decimal)
    for fact in facts:
        if (fact.envelope.source, fact.envelope.key) not in undone:
            for m in movements(fact.event):
                identity = (m.item, m.lot, m.serial, m.unit)
                total[m.source, m.source_status, *identity] -= m.quantity
                total[m.target, m.target_status, *identity] += m.quantity
    return {identity: quantity for identity, quantity in total.items() if quantity}


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(facts=histories(most=25), data=st.data())
def test_repetitions_change_nothing_and_rebuilt_equals_live(fresh_database: str, facts: list[Fact], data: st.DataObject) -> None:
    """Through the real door: every fact sent again somewhere later; the live views in small steps, the shadows in one."""
    migrate(fresh_database)
    _empty(fresh_database)
    again = data.draw(st.lists(st.sampled_from(facts), max_size=8))
    with Log(fresh_database) as log:
        for start in range(0, len(facts), 4):
            assert all(isinstance(result, Accepted) for result in log.append(facts[start : start + 4]))
            assert all(isinstance(r, Duplicate) for r in log.append(facts[: start + 4]))
            _follow(fresh_database, 3)
        assert all(isinstance(result, Duplicate) for result in log.append(again))
        assert log.head() == len(facts)
    live = _follow(fresh_database, 3)
    assert _follow(fresh_database, 2000, shadow=True) == live
    with psycopg.connect(fresh_database) as connection, connection.cursor() as cursor:
        for view in views():
            cursor.execute(f"drop schema shadow_{view.name} cascade".encode())


def _follow(url: str, batch: int, *, shadow: bool = False) -> dict[str, str]:
    """Bring all live views (or shadows) to the head; their full digests."""
    found = {}
    for view in views():
        follower = Follower(url, view, shadow_schema(view.name) if shadow else None)
        try:
            follower.ensure()
            while follower.step(batch):
                pass
            with psycopg.connect(url) as connection, connection.cursor() as cursor:
                found[view.name] = view_digest(cursor, follower.schema, view, business=False)
        finally:
            follower.close()
    return found


def _empty(url: str) -> None:
    """An empty log in the same database: only a test, as the owner, may switch off what keeps the log append-only."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("set session_replication_role = replica")
        cursor.execute("truncate log.event, intake.seen")
        for view in views():
            cursor.execute(f"drop schema if exists view_{view.name} cascade".encode())
