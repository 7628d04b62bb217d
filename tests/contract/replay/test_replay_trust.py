"""What replay may be trusted with, on a real PostgreSQL: other code, changed shadows and positions, a log from a backup."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from events.errors import Corrupt, Refused
from hub.app import answers
from hub.app.wiring import Hub, views
from hub.log.follow import Follower
from hub.log.migrate import migrate
from replay.promote import promote
from replay.rebuild import rebuild
from replay.tables import TableDifference
from replay.verify import verify
from tests.contract.replay.replay_suite import differing, fill, one, run
from tests.facts import as_role

ROOT = Path(__file__).resolve().parents[3]
(STOCK,) = (view for view in views() if view.name == "stock")
(REFERENCES,) = (view for view in views() if view.name == "references")


def stock(url: str) -> dict[str, TableDifference]:
    return verify(url, [STOCK])[1]["stock"]


def heal(url: str) -> None:
    rebuild(url, views())
    promote(url, views())
    assert differing(url) == {}


# -- a shadow that is not what it says ------------------------------------------------------------------------------------------------

OTHER = """
import sys
from projections.stock import Stock
from replay.rebuild import rebuild
from replay.promote import promote
url, what = sys.argv[1:]
def stop(progress):
    if what == "interrupted" and progress.position >= 60:
        raise SystemExit
rebuild(url, [Stock()], stop, batch=10)
if what == "live":
    promote(url, [Stock()])
    rebuild(url, [Stock()])
"""

WRONG = """
_right = Stock.settle
def _settle(self, cursor, first, last):
    _right(self, cursor, first, last)
    cursor.execute("update balance set quantity = quantity + 1 where position = %s", [last])
Stock.settle = _settle
"""


@pytest.fixture(scope="module")
def other_code(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], None]:
    """Rebuilds stock with a fold that has the same tables and is wrong."""
    folder = tmp_path_factory.mktemp("other")
    for name in ("events", "hub", "projections", "replay"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    with open(folder / "projections" / "stock.py", "a", encoding="utf-8") as file:
        file.write(WRONG)

    def rebuild_with_it(url: str, what: str) -> None:
        subprocess.run([sys.executable, "-c", OTHER, url, what], cwd=folder, env={"PYTHONPATH": str(folder)}, check=True, timeout=60)

    return rebuild_with_it


def test_a_shadow_of_other_code_is_neither_compared_nor_promoted(url: str, other_code: Callable[[str, str], None]) -> None:
    other_code(url, "whole")
    with pytest.raises(Refused, match="other code"):
        promote(url, [STOCK])
    assert all(table.equal for table in stock(url).values())


def test_a_rebuild_goes_on_only_with_the_code_it_began_with(url: str, other_code: Callable[[str, str], None]) -> None:
    other_code(url, "interrupted")
    assert rebuild(url, [STOCK])[1]["stock"].events == 120
    assert all(table.equal for table in stock(url).values())


def test_a_live_view_folded_by_other_code_differs(url: str, other_code: Callable[[str, str], None]) -> None:
    other_code(url, "live")
    assert not stock(url)["balance"].equal
    heal(url)


@pytest.mark.parametrize("change", ["update {}.balance set quantity = 99 where lot = 'L3'", "drop table {}.movement"])
def test_the_same_change_by_hand_in_view_and_shadow_is_seen(owner_url: str, url: str, change: str) -> None:
    rebuild(url, [STOCK])
    run(owner_url, change.format("view_stock"), change.format("shadow_stock"))
    with pytest.raises(Refused, match="run `hub replay rebuild stock`"):
        promote(url, [STOCK])
    assert sum(not table.equal for table in stock(url).values()) == 1
    run(owner_url, change.format("shadow_stock"))  # what verify left behind is checked as well
    with pytest.raises(Refused, match="run `hub replay rebuild stock`"):
        promote(url, [STOCK])
    assert sum(not table.equal for table in stock(url).values()) == 1
    heal(url)


# -- a position that is wrong -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ("update view_stock.position set position = position - 3", (1, 1, 0, 0)),
        ("update view_stock.position set position = 0", (1, 1, 0, 0)),
        ("update view_stock.position set position = position + 3", (1, 1, 0, 0)),
        ("insert into view_stock.position select * from view_stock.position", (2, 0, 0, 1)),
        ("delete from view_stock.position", (0, 0, 1, 0)),
        ("drop table view_stock.position", (0, 0, 1, 0)),
    ],
)
def test_a_wrong_position_is_named_not_touched_and_restored(owner_url: str, url: str, change: str, seen: tuple[int, int, int, int]) -> None:
    run(owner_url, change)
    before = one(owner_url, "select array_agg(c.oid order by c.oid) from pg_class c where relnamespace = 'view_stock'::regnamespace")
    for _ in range(2):
        found = stock(url)
        p = found.pop("position")
        assert (p.rows, p.differing, p.missing, p.extra) == seen
        assert all(table.equal for table in found.values())
    assert before == one(
        owner_url, "select array_agg(c.oid order by c.oid) from pg_class c where relnamespace = 'view_stock'::regnamespace"
    )
    if "drop" not in change:
        follower = Follower(url, STOCK)
        for act in (follower.ensure, follower.step):
            with contextlib.suppress(Corrupt):
                act()
        with pytest.raises(Corrupt, match="hub replay rebuild --all"):
            follower.step()
        follower.close()
    heal(url)


def test_a_view_that_is_not_there_lacks_all_rows_and_is_not_made(owner_url: str, url: str) -> None:
    run(owner_url, "drop schema view_stock cascade", "drop table view_references.location")
    for _ in range(2):
        _, found = verify(url, [REFERENCES, STOCK])
        assert found["stock"]["balance"].missing > 40
        assert found["stock"]["position"].missing == 1
        assert [name for name, t in found["references"].items() if not t.equal] == ["location"]
    assert one(owner_url, "select to_regnamespace('view_stock')::text") is None
    heal(url)


def test_facts_that_do_not_fit_what_a_view_holds_stop_it(owner_url: str, url: str) -> None:
    run(owner_url, "update view_stock.position p set position = e.position, fact = e.key from log.event e where e.position = 117")
    follower = Follower(url, STOCK)
    with pytest.raises(Corrupt, match="facts 118 to 120 do not fit"):
        follower.step()
    follower.close()
    assert stock(url)["position"].differing == 1
    heal(url)


def test_before_anything_happened_nothing_is_missing(fresh_database: str) -> None:
    migrate(fresh_database)
    assert verify(as_role(fresh_database, "hub_follow"), views())[0] == 0
    assert differing(as_role(fresh_database, "hub_follow")) == {}


# -- a log that was restored from an older backup -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [60, 0])
@pytest.mark.parametrize("grown", [0, 40])
def test_views_of_another_log_stop_and_say_so(owner_url: str, url: str, hub: Hub, left: int, grown: int) -> None:
    rebuild(url, [STOCK])
    run(owner_url, "set session_replication_role = replica", f"delete from log.event where position > {left}")  # noqa: S608 - a number
    fill(hub.log, 100, grown)
    follower = Follower(url, STOCK)
    with pytest.raises(Corrupt, match="hub replay rebuild --all"):
        follower.step()
    follower.close()
    with pytest.raises(Corrupt, match="hub replay promote --all"):
        hub.catch_up(["stock"])
    with pytest.raises(Corrupt), answers.caught_up(hub, ["stock"]):
        pass
    status = answers.status(hub)
    assert status["trouble"].keys() == {view.name for view in views()}
    assert 0 < status["oldest_unprocessed_s"] < (3600 if left or grown else float("inf"))
    with pytest.raises(Refused, match="run `hub replay rebuild"):
        promote(url, [STOCK])
    assert stock(url)["position"].differing == 1
    heal(url)
    assert answers.status(hub)["trouble"] == {}
    assert answers.status(hub)["oldest_unprocessed_s"] == 0
