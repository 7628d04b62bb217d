"""Golden histories give the digests that were looked at and committed, in their recorded order and in the opposite one, on any server."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from events.base import event_types
from hub.app.wiring import views
from projections.digest import row_count, view_digest
from tests.conftest import new_database
from tests.contract import view_suite
from tests.histories import golden
from tests.histories.strategy import recorded

Connection = psycopg.Connection[tuple[Any, ...]]
# A digest must not see which version a server is nor how it sorts: the second sorts as German dictionaries do.
SERVERS = {"private": "locale 'C'", "system": "locale 'C' locale_provider icu icu_locale 'de-DE'"}


@pytest.fixture(scope="module", params=SERVERS)
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    owner_url = request.getfixturevalue("pg_owner_url" if request.param == "private" else "system_pg_owner_url")
    with new_database(owner_url, SERVERS[request.param]) as url, view_suite.prepared(url) as connection:
        yield connection


@pytest.mark.parametrize("turned", [False, True], ids=["recorded order", "opposite order"])
@pytest.mark.parametrize("name", golden.names())
def test_a_history_gives_its_digests(connection: Connection, name: str, turned: bool) -> None:
    facts = golden.facts(name)
    history = recorded(facts[::-1] if turned else facts)
    found = {}
    for view in (view for view in views() if not view.by_arrival):
        with view_suite.folded(connection, view, history, 5) as cursor:
            cursor.execute("set local timezone = 'Asia/Kolkata'; set local datestyle = 'SQL, DMY'; set local bytea_output = 'escape'")
            found[view.name] = view_digest(cursor, view_suite.schema_of(view), view, business=True)
            filled = {table.name: row_count(cursor, view_suite.schema_of(view), table.name) for table in view.tables}
            assert all(filled.values()), f"view {view.name}: the history leaves a table empty: {filled}"
    assert found == golden.digests(name), "a view makes other rows of a recorded history: python -m tests.histories.golden says which"


def test_the_histories_hold_every_event_type() -> None:
    held = {fact.event.type for name in golden.names() for fact in golden.facts(name)}
    assert held == {cls.type for cls in event_types()}
