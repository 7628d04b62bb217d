"""Golden histories give the digests that were looked at and committed, in their recorded order and in the opposite one, on any server."""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from events.base import event_types
from hub.app.wiring import views
from projections.digest import row_count, view_digest
from tests.contract import view_suite
from tests.histories import golden
from tests.histories.strategy import recorded

Connection = psycopg.Connection[tuple[Any, ...]]
# A digest must not see how a server sorts: the second database sorts as German dictionaries do.
LOCALES = {"C": "locale 'C'", "de": "locale 'C' locale_provider icu icu_locale 'de-DE'"}


@pytest.fixture(scope="module", params=sorted(LOCALES))
def connection(pg_owner_url: str, request: pytest.FixtureRequest) -> Iterator[Connection]:
    from tests.conftest import database_url

    name = f"golden_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(pg_owner_url, autocommit=True) as owner:
        owner.execute(f"create database {name} encoding 'UTF8' {LOCALES[request.param]} template template0".encode())
    with view_suite.prepared(database_url(pg_owner_url, name)) as connection:
        yield connection
    with psycopg.connect(pg_owner_url, autocommit=True) as owner:
        owner.execute(f"drop database {name} with (force)".encode())


@pytest.mark.parametrize("turned", [False, True], ids=["recorded order", "opposite order"])
@pytest.mark.parametrize("name", golden.names())
def test_a_history_gives_its_digests(connection: Connection, name: str, turned: bool) -> None:
    facts = golden.facts(name)
    history = recorded(facts[::-1] if turned else facts)
    found = {}
    for view in views():
        with view_suite.folded(connection, view, history, 5) as cursor:
            cursor.execute("set local timezone = 'Asia/Kolkata'; set local datestyle = 'SQL, DMY'; set local bytea_output = 'escape'")
            found[view.name] = view_digest(cursor, view_suite.schema_of(view), view, business=True)
            filled = {table.name: row_count(cursor, view_suite.schema_of(view), table.name) for table in view.tables}
            assert all(filled.values()), f"view {view.name}: the history leaves a table empty: {filled}"
    assert found == golden.digests(name), "a view makes other rows of a recorded history: python -m tests.histories.golden says which"


def test_the_histories_hold_every_event_type() -> None:
    held = {fact.event.type for name in golden.names() for fact in golden.facts(name)}
    assert held == {cls.type for cls in event_types()}
