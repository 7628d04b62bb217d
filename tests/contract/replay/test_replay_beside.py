"""Replay beside others, on a real PostgreSQL: other replays, readers, lost connections, processes that are paused with a lock in the hand."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import psycopg
import pytest

from events.base import Recorded
from events.errors import Unavailable
from hub import limits, points
from hub.app import answers
from hub.app.servers.postgres import Database
from hub.app.wiring import Hub, views
from hub.log.follow import Cursor, Follower
from hub.log.migrate import ROLES, migrate
from hub.log.store import Accepted, Log, Result
from replay.promote import promote
from replay.rebuild import Progress, rebuild
from replay.tables import Postgres
from replay.verify import verify
from tests.contract.replay.replay_suite import differing, fill, one, run
from tests.facts import as_role, received

(STOCK,) = (view for view in views() if view.name == "stock")
(REFERENCES,) = (view for view in views() if view.name == "references")


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
    with Postgres(url).alone([STOCK]), pytest.raises(Unavailable, match="another `hub replay` works on view stock"):
        verify(url, [STOCK])


def test_a_lost_connection_is_unavailable(owner_url: str, url: str) -> None:
    def cut(p: Progress) -> None:
        run(owner_url, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'hub replay'")

    with pytest.raises(Unavailable):
        rebuild(url, [STOCK], cut, batch=10)
    assert rebuild(url, [STOCK])[1]["stock"].events == 110


def wait_until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def waits(owner_url: str) -> object:
    """How many processes wait for a lock."""
    return one(owner_url, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()")


def test_promote_waits_for_a_reader_of_several_views(owner_url: str, url: str, hub: Hub) -> None:
    rebuild(url, views())
    fill(hub.log, 40, 10)  # what is committed of the shadows is now old
    with answers.caught_up(hub, ["stock", "references"]) as cursor:
        cursor.execute("select count(*) from log.event")
        (promoting,) = in_threads(lambda: promote(url, views()))
        wait_until(lambda: waits(owner_url) == 1 or not promoting.is_alive())
        lots = "select count(distinct lot) from view_stock.balance where item = 'A'"
        assert cursor.execute(lots).fetchone() == (50,)
        cursor.execute("select count(*) from view_references.location")
        assert promoting.is_alive()
    promoting.join()
    assert differing(url) == {}


class Early(Hub):
    """Had caught up just before somebody promoted: the first time there is nothing to do."""

    asked = 0

    def catch_up(self, names: Sequence[str] = ()) -> int:
        self.asked += 1
        return self.log.head() if self.asked == 1 else super().catch_up(names)


def test_a_reader_whose_snapshot_is_older_than_the_swap_looks_again(owner_url: str, url: str, hub: Hub) -> None:
    rebuild(url, views())
    counted: list[object] = []
    early = Early(hub.settings, hub.database)

    def read() -> None:
        with answers.caught_up(early, ["references"]) as cursor:
            counted.extend(cursor.execute("select position from view_references.position").fetchone() or ())

    with psycopg.connect(owner_url) as other:
        other.execute("select count(*) from view_stock.position")
        (promoting,) = in_threads(lambda: promote(url, [REFERENCES, STOCK]))
        wait_until(lambda: waits(owner_url) == 1)
        fill(hub.log, 40, 10)  # promote has taken references, and brings its shadow to the head only in the transaction that swaps
        (reading,) = in_threads(read)
        wait_until(lambda: waits(owner_url) == 2)
    for thread in (promoting, reading):
        thread.join()
    early.log.close()
    assert (counted, early.asked) == ([150], 2)


def test_a_promote_that_waits_too_long_swaps_nothing(owner_url: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rebuild(url, views())
    monkeypatch.setattr(limits, "LOCK_TIMEOUT_S", 0.5)
    before = one(owner_url, "select 'view_genealogy.position'::regclass::oid")
    with psycopg.connect(owner_url) as reader:
        reader.execute("select count(*) from view_timeline.position")
        with pytest.raises(Unavailable, match="somebody else holds tables that replay needs; nothing was swapped"):
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


PAUSE_S = limits.IDLE_IN_TRANSACTION_S + 5


class Paused(type(STOCK)):  # type: ignore[misc] # found by name, as the hub finds it
    """Stock whose fold is stopped in the middle for longer than is allowed."""

    def fold(self, cursor: Cursor, facts: Sequence[Recorded]) -> None:
        time.sleep(PAUSE_S)
        super().fold(cursor, facts)


def test_who_is_paused_with_a_lock_in_the_hand_loses_it_and_tries_again(owner_url: str, hub: Hub) -> None:
    fill(hub.log, 40, 1)
    said: list[object] = []

    def now() -> datetime:
        time.sleep(0 if said else PAUSE_S)
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
    assert hub.log.append([received("R1001", "A", "L1001", "1")]) == [Accepted(124)]
    hub.catch_up(["stock"])
    assert said == []  # both are still paused
    assert all(thread.is_alive() for thread in threads)
    for thread in threads:
        thread.join()
    assert [type(answer) for answer in said] == [Unavailable, Accepted]
    assert differing(as_role(owner_url, "hub_follow")) == {}


def test_who_is_paused_in_the_middle_of_a_statement_loses_its_locks_too(owner_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No time-out of the server reaches a session in COPY, or one whose large answer nobody reads: who waits for it ends it."""
    for name, seconds in (("IDLE_IN_TRANSACTION_S", 0.2), ("LOCK_TIMEOUT_S", 0.5), ("FOLLOW_LOCK_TIMEOUT_S", 0.5)):
        monkeypatch.setattr(limits, name, seconds)
    passwords = dict.fromkeys(ROLES, "a password of a test, on any server")
    migrate(owner_url, passwords)
    database, woken, copying = Database(owner_url, passwords), threading.Event(), threading.Event()
    said: list[Result] = []

    def stand(name: str) -> None:
        if name == "copying" and not copying.is_set():
            copying.set()
            woken.wait()

    def write() -> None:
        with Log(database.url("hub_door")) as log:
            with pytest.raises(Unavailable):
                log.append([received("R1000", "A", "L1000", "1")])
            said.extend(log.append([received("R1000", "A", "L1000", "1")]))

    points.arm(stand)
    (paused,) = in_threads(write)
    try:
        copying.wait()
        with Log(database.url("hub_door")) as log:
            with pytest.raises(Unavailable, match="lock timeout"):
                log.append([received("R1001", "A", "L1001", "1")])
            (accepted,) = log.append([received("R1001", "A", "L1001", "1")])
    finally:
        points.arm(None)
        woken.set()
        paused.join()
    assert said == [Accepted(accepted.position + 1)]

    with contextlib.closing(psycopg.connect(database.url("hub_follow"), application_name="hub follow stock")) as unread:
        unread.execute("select * from view_stock.position for update")
        unread.pgconn.send_query(b"select repeat('x', 1000), generate_series(1, 10000)")
        with contextlib.closing(Follower(database.url("hub_follow"), STOCK)) as follower:
            with pytest.raises(Unavailable, match="somebody holds view stock"):
                follower.step()
            assert follower.step() == 2


def test_a_view_that_somebody_holds_is_unavailable(owner_url: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FOLLOW_LOCK_TIMEOUT_S", 0.3)
    fill(hub.log, 40, 1)
    with psycopg.connect(owner_url) as holder:
        holder.execute("select * from view_stock.position for update")
        with pytest.raises(Unavailable, match="somebody holds view stock"):
            hub.catch_up(["stock"])
    hub.catch_up(["stock"])
