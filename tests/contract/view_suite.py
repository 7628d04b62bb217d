"""The laws that every view obeys, as functions that take a view and facts; `test_views.py` runs them on every view there is.

A fold works in a transaction that is rolled back, on one database whose schemas are made once: an example costs statements, no database.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from events.base import Fact, Recorded
from hub.app.wiring import views
from hub.log.follow import Cursor, ensure, enter
from hub.log.migrate import migrate
from projections.base import TableView
from projections.digest import table_digest, view_digest
from tests.histories.strategy import recorded

BATCHES = (1, 2, 7, 100, 2000)


def schema_of(view: TableView) -> str:
    """The schema in which the suite folds a view."""
    return f"law_{view.name}"


@contextmanager
def prepared(owner_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection to a database with an empty schema for every view."""
    migrate(owner_url)
    with psycopg.connect(owner_url) as connection:
        with connection.cursor() as cursor:
            for view in views():
                ensure(cursor, view, schema_of(view))
        connection.commit()
        yield connection


@contextmanager
def folded(
    connection: psycopg.Connection[tuple[Any, ...]], view: TableView, facts: Sequence[Recorded], batch: int = 2000
) -> Iterator[Cursor]:
    """A cursor that sees what a view makes of facts cut into batches of a size; all of it is gone afterwards."""
    try:
        with connection.cursor() as cursor:
            enter(cursor, schema_of(view))
            for start in range(0, len(facts), batch):
                view.fold(cursor, facts[start : start + batch])
            yield cursor
    finally:
        connection.rollback()


def digests(cursor: Cursor, view: TableView, *, business: bool) -> dict[str, str]:
    """The digest of each table: a failed law names the table."""
    found = {}
    for table in view.tables:
        columns = [name for name in table.columns if not (business and name in table.technical)]
        found[table.name] = table_digest(cursor, schema_of(view), table, columns)
    return found


def rows(cursor: Cursor, table: str) -> list[tuple[Any, ...]]:
    """A table's rows as a failed test should print them."""
    return cursor.execute(f"select * from {table} order by 1, 2".encode()).fetchall()  # noqa: S608 - a table of ours


def check_batch_sizes(connection: psycopg.Connection[tuple[Any, ...]], view: TableView, facts: Sequence[Fact]) -> None:
    """Every column is the same however the log was cut into batches."""
    history = recorded(facts)
    found = {}
    for batch in BATCHES:
        if batch < 2 * len(history) or batch == BATCHES[-1]:
            with folded(connection, view, history, batch) as cursor:
                found[batch] = digests(cursor, view, business=False)
    for batch, said in found.items():
        assert said == found[BATCHES[-1]], f"view {view.name}: batches of {batch} give other rows than one batch"


def check_arrival_order(
    connection: psycopg.Connection[tuple[Any, ...]], view: TableView, facts: Sequence[Fact], other: Sequence[Fact]
) -> None:
    """Business columns are the same for the same facts in another order."""
    with folded(connection, view, recorded(facts), 3) as cursor:
        expected, whole = digests(cursor, view, business=True), view_digest(cursor, schema_of(view), view, business=True)
    with folded(connection, view, recorded(other), 2) as cursor:
        found = digests(cursor, view, business=True)
        assert found == expected, f"view {view.name}: another order of arrival gives other rows"
        assert view_digest(cursor, schema_of(view), view, business=True) == whole


def check_shape(view: TableView) -> None:
    """Each table has a key made of its own columns and says which position last changed a row; technical columns exist."""
    assert view.tables, f"view {view.name} has no tables"
    for table in view.tables:
        place = f"view {view.name}, table {table.name}"
        assert table.key, f"{place}: no primary key"
        assert set(table.key) <= set(table.columns), f"{place}: its key names columns that it does not have"
        assert table.columns.get("position", "").startswith("bigint"), f"{place}: no position"
        assert "position" in table.technical, f"{place}: a position is no business content"
        assert set(table.technical) <= set(table.columns), f"{place}: a technical column does not exist"
