"""What replay may be trusted with, on a real PostgreSQL: other code, changed shadows and positions, a log from a backup, readers, pauses."""

import contextlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from events.base import Recorded
from events.errors import Corrupt, Refused, Unavailable
from hub import limits
from hub.app import answers
from hub.app.servers.postgres import Database
from hub.app.settings import Settings
from hub.app.wiring import Hub, views
from hub.log.follow import Cursor, Follower
from hub.log.migrate import migrate
from hub.log.store import Accepted, Log
from replay.promote import promote
from replay.rebuild import Progress, rebuild
from replay.shadow import alone
from replay.verify import TableDifference, verify
from tests.contract.replay_suite import differing, fill, follow
from tests.facts import as_role, received

ROOT = Path(__file__).resolve().parents[2]
(STOCK,) = (view for view in views() if view.name == "stock")
(REFERENCES,) = (view for view in views() if view.name == "references")


@pytest.fixture
def owner_url(fresh_database: str) -> str:
    migrate(fresh_database)
    with Log(as_role(fresh_database, "hub_door")) as log:
        fill(log, 0, 40)
    follow(fresh_database)
    return fresh_database


@pytest.fixture
def url(owner_url: str) -> str:
    return as_role(owner_url, "hub_follow")


@pytest.fixture
def hub(owner_url: str, tmp_path: Path) -> Iterator[Hub]:
    found = Hub(Settings(home=tmp_path), Database(owner_url))
    yield found
    found.log.close()


def run(owner_url: str, *statements: str) -> None:
    """Statements by hand, as the owner."""
    with psycopg.connect(owner_url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def one(owner_url: str, query: str) -> object:
    with psycopg.connect(owner_url) as connection:
        (found,) = connection.execute(query.encode()).fetchone() or (None,)
        return found


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
_right = Stock.fold
def _fold(self, cursor, facts):
    _right(self, cursor, facts)
    cursor.execute("update balance set quantity = quantity + 1 where position = %s", [facts[-1].position])
Stock.fold = _fold
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
    assert status["oldest_unprocessed_s"] > 0
    with pytest.raises(Refused, match="run `hub replay rebuild"):
        promote(url, [STOCK])
    assert stock(url)["position"].differing == 1
    heal(url)
    assert answers.status(hub)["trouble"] == {}
    assert answers.status(hub)["oldest_unprocessed_s"] == 0


# -- others at work at the same time --------------------------------------------------------------------------------------------------------


def in_threads(*works: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    return threads


def test_verify_beside_verify(url: str) -> None:
    found: list[object] = []

    def look() -> None:
        try:
            found.append(differing(url))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
            found.append(error)

    for thread in in_threads(*[look] * 4):
        thread.join()
    assert found == [{}] * 4


def test_a_second_replay_waits_and_then_says_for_what(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOCK_TIMEOUT_S", 0.2)
    with alone(url, [STOCK]), pytest.raises(Unavailable, match="another `hub replay` works on view stock"):
        verify(url, [STOCK])


def test_a_lost_connection_is_unavailable(owner_url: str, url: str) -> None:
    def cut(p: Progress) -> None:
        run(owner_url, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'hub replay'")

    with pytest.raises(Unavailable):
        rebuild(url, [STOCK], cut, batch=10)
    assert rebuild(url, [STOCK])[1]["stock"].events == 110


def waits(owner_url: str) -> bool:
    return bool(
        one(
            owner_url,
            "select count(*) from pg_locks l join pg_stat_activity using (pid) where not granted and datname = current_database()",
        )
    )


def test_promote_waits_for_a_reader_of_several_views(owner_url: str, url: str, hub: Hub) -> None:
    rebuild(url, views())
    fill(hub.log, 40, 10)  # what is committed of the shadows is now old
    with answers.caught_up(hub, ["stock", "references"]) as cursor:
        cursor.execute("select count(*) from log.event")
        (promoting,) = in_threads(lambda: promote(url, views()))
        while promoting.is_alive() and not waits(owner_url):
            time.sleep(0.02)
        lots = "select count(distinct lot) from view_stock.balance where item = 'A'"
        assert cursor.execute(lots).fetchone() == (50,)
        cursor.execute("select count(*) from view_references.location")
        assert promoting.is_alive()
    promoting.join()
    assert differing(url) == {}


def test_a_promote_that_waits_too_long_swaps_nothing(owner_url: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rebuild(url, views())
    monkeypatch.setattr(limits, "LOCK_TIMEOUT_S", 0.5)
    before = one(owner_url, "select 'view_genealogy.position'::regclass::oid")
    with psycopg.connect(owner_url) as reader:
        reader.execute("select count(*) from view_timeline.position")
        with pytest.raises(Unavailable, match="nothing was swapped"):
            promote(url, views())
    assert one(owner_url, "select 'view_genealogy.position'::regclass::oid") == before
    promote(url, views())
    assert differing(url) == {}


def test_readers_beside_promote_see_the_head_as_of_their_call(url: str, hub: Hub) -> None:
    stop = threading.Event()
    wrong: list[object] = []

    def read(own: Hub) -> None:
        while not stop.is_set():
            try:
                head = own.log.head()
                with answers.caught_up(own, ["stock", "references"]) as cursor:
                    (lots,) = cursor.execute("select count(distinct lot) from view_stock.balance where item = 'A'").fetchone() or (0,)
                    cursor.execute("select count(*) from view_references.location")
                if lots < head / 3:
                    wrong.append((lots, head))
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
                wrong.append(error)

    def write() -> None:
        n = 1000
        while not stop.is_set():
            fill(hub.log, n, 1)
            n += 1
            stop.wait(0.02)

    own = [Hub(hub.settings, hub.database) for _ in range(2)]
    threads = in_threads(write, *[lambda hub=one: read(hub) for one in own])
    try:
        for _ in range(4):
            rebuild(url, [REFERENCES, STOCK])
            promote(url, [REFERENCES, STOCK])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for one in own:
            one.log.close()
    assert wrong == []


# -- pauses -----------------------------------------------------------------------------------------------------------------------------------


class Paused(type(STOCK)):  # type: ignore[misc] # found by name, as the hub finds it
    """Stock whose fold is stopped in the middle for longer than is allowed."""

    def fold(self, cursor: Cursor, facts: Sequence[Recorded]) -> None:
        time.sleep(limits.IDLE_IN_TRANSACTION_S + 2)
        super().fold(cursor, facts)


def test_who_is_paused_with_a_lock_in_the_hand_loses_it_and_tries_again(owner_url: str, hub: Hub) -> None:
    fill(hub.log, 40, 1)
    said: list[object] = []

    def now() -> datetime:
        time.sleep(0 if said else limits.IDLE_IN_TRANSACTION_S + 2)
        return datetime.now(UTC)

    def write() -> None:
        with Log(hub.door_url, now) as log:
            try:
                log.append([received("R1000", "A", "L1000", "1")])
            except Unavailable as error:
                said.append(error)
                said.extend(log.append([received("R1000", "A", "L1000", "1")]))

    def step() -> None:
        with contextlib.closing(Follower(hub.follow_url, Paused())) as follower, contextlib.suppress(Unavailable):
            follower.step()
            said.append("the paused follower wrote")

    threads = in_threads(write, step)
    time.sleep(1)
    started = time.monotonic()
    assert hub.log.append([received("R1001", "A", "L1001", "1")]) == [Accepted(124)]
    hub.catch_up(["stock"])
    assert time.monotonic() - started < limits.IDLE_IN_TRANSACTION_S + 1
    for thread in threads:
        thread.join()
    assert [type(answer) for answer in said] == [Unavailable, Accepted]
    assert differing(as_role(owner_url, "hub_follow")) == {}


def test_a_view_that_somebody_holds_is_unavailable(owner_url: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FOLLOW_LOCK_TIMEOUT_S", 0.3)
    fill(hub.log, 40, 1)
    with psycopg.connect(owner_url) as holder:
        holder.execute("select * from view_stock.position for update")
        with pytest.raises(Unavailable, match="somebody holds view stock"):
            hub.catch_up(["stock"])
    hub.catch_up(["stock"])
