"""The Python references say what the SQL folds say, every column of every row, however the log is cut into batches."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.app.wiring import named_views
from tests.conftest import new_database
from tests.contract.view_suite import folded, prepared, rows
from tests.histories.strategy import FIELDS, histories, recorded
from tests.simulation.references import REFERENCES, tables_of

FEW = ("procurement.goods_received", "production.material_issued", "inventory.movement_reversed", "inventory.fact_retracted")
HISTORIES = {
    "stock": st.one_of(histories(types=FEW), histories(4, (FEW[0], *FEW[2:])), histories(types=FEW[:2]), histories()),
    "quarantine": histories(types=[name for name in FIELDS if name.startswith("integration.")]),
}


@pytest.fixture(scope="module")
def connection(pg_owner_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with new_database(pg_owner_url) as url, prepared(url) as opened:
        yield opened


@pytest.mark.parametrize("name", sorted(REFERENCES))
@settings(max_examples=200)
@given(st.data(), st.sampled_from((1, 3, 2000)))
def test_a_fold_is_what_its_reference_says(
    connection: psycopg.Connection[tuple[Any, ...]], name: str, data: st.DataObject, batch: int
) -> None:
    history = recorded(data.draw(HISTORIES[name]))
    (view,) = named_views([name])
    expected = tables_of(view, history)
    assert expected.keys() == {table.name for table in view.tables}
    with folded(connection, view, history, batch) as cursor:
        for table, wanted in expected.items():
            assert sorted(rows(cursor, table), key=repr) == wanted, table
