"""Replay on a real PostgreSQL: rebuilt = live beside traffic, interrupted and resumed, tampering named, promoted, and rebuilt elsewhere."""

import threading
from typing import Any

import psycopg
import pytest

from events.base import Recorded
from events.errors import Refused
from hub.app.wiring import views
from hub.log.follow import Cursor, Follower, Tables, live_schema, position, shadow_schema
from hub.log.migrate import migrate
from hub.log.store import Log
from projections.base import TableView
from replay.promote import promote
from replay.rebuild import Progress, rebuild
from replay.shadow import Shadow
from replay.verify import verify
from tests.conftest import new_database
from tests.contract.replay.replay_suite import differing, fill, follow, one
from tests.facts import as_role


def test_rebuilt_is_live(url: str) -> None:
    position, done = rebuild(url, views())
    assert position == 120
    assert {name: r.events for name, r in done.items()} == {view.name: 120 for view in views()}
    assert differing(url) == {}


def test_verify_needs_no_rebuild_before_it(url: str) -> None:
    assert differing(url) == {}
    assert verify(url, views())[0] == 120


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("update view_stock.balance set quantity = quantity + 1 where item = 'A' and lot = 'L3' and account = 'location/WH'", "differing"),
        ("update view_stock.balance set position = position + 1 where item = 'A' and lot = 'L3' and account = 'location/WH'", "differing"),
        ("delete from view_stock.balance where item = 'A' and lot = 'L3' and account = 'location/WH'", "missing"),
        ("insert into view_stock.balance values ('location/WH', 'unrestricted', 'A', 'L3x', '', 'EA', 1, 9)", "extra"),
    ],
)  # fmt: skip
def test_a_row_changed_by_hand_is_named_and_restored(owner_url: str, url: str, statement: str, what: str) -> None:
    with psycopg.connect(owner_url) as connection:
        assert connection.execute(statement.encode()).rowcount == 1
    _, found = verify(url, views())
    table = found["stock"]["balance"]
    assert (table.differing, table.missing, table.extra) == tuple(int(what == w) for w in ("differing", "missing", "extra"))
    (key,) = table.keys
    assert key["lot"] in ("L3", "L3x")
    assert key["is"] == what
    assert differing(url) == {"stock": ["balance"]}
    rebuild(url, views())
    promote(url, views())
    assert differing(url) == {}
    with psycopg.connect(owner_url) as connection:
        rows = connection.execute(
            "select quantity from view_stock.balance where item = 'A' and lot in ('L3', 'L3x') and account = 'location/WH'"
        )
        assert [int(q) for (q,) in rows] == [1]


def test_an_interrupted_rebuild_goes_on_where_it_stopped(url: str) -> None:
    class Stop(Exception):
        pass

    def stop_half_way(p: Progress) -> None:
        if p.position >= 60:
            raise Stop

    (stock,) = (view for view in views() if view.name == "stock")
    with pytest.raises(Stop):
        rebuild(url, [stock], stop_half_way, batch=10)
    with pytest.raises(Refused, match="not finished"):
        promote(url, [stock])
    _, done = rebuild(url, [stock], batch=10)
    assert done["stock"].events == 60
    _, whole = rebuild(url, [stock], restart=True)
    assert whole["stock"].events == 120
    assert whole["stock"].digest == done["stock"].digest


@pytest.mark.parametrize("half", ["settle", "seal"])
def test_a_rebuild_that_ends_before_it_is_sealed_goes_on(url: str, monkeypatch: pytest.MonkeyPatch, half: str) -> None:
    (stock,) = (view for view in views() if view.name == "stock")
    whole = type(stock) if half == "settle" else Shadow
    done = getattr(whole, half)

    def ended(*arguments: Any) -> None:
        if half == "settle":  # in the transaction that makes the keys; whoever seals has committed it
            done(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(whole, half, ended)
        with pytest.raises(KeyboardInterrupt):
            rebuild(url, [stock], batch=10)
    with pytest.raises(Refused, match="not finished"):
        promote(url, [stock])
    assert rebuild(url, [stock], batch=10)[1]["stock"].events == 0
    assert all(table.equal for table in verify(url, [stock])[1]["stock"].values())


def test_a_rebuild_settles_once_and_has_the_indexes_of_the_live_view(owner_url: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[int, int]] = []

    def counting(settle: Any) -> Any:
        def settled(self: TableView, cursor: Cursor, first: int, last: int) -> None:
            spans.append((first, last))
            settle(self, cursor, first, last)

        return settled

    for view in views():
        monkeypatch.setattr(type(view), "settle", counting(type(view).settle))
    rebuild(url, views(), batch=10)
    assert spans == [(1, 120)] * len(views())
    made = """select array_agg(replace(indexdef, schemaname, '') order by tablename, indexname, indexdef) from pg_indexes where schemaname like '{}%'"""
    assert one(owner_url, made.format("shadow")) == one(owner_url, made.format("view"))


def test_views_that_are_rebuilt_together_read_the_log_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, asked = Tables.read, list[int]()

    def counted(self: Tables, after: int, limit: int) -> list[Recorded]:
        asked.append(after)
        return read(self, after, limit)

    monkeypatch.setattr(Tables, "read", counted)
    rebuild(url, views(), batch=10)
    assert asked == [*range(0, 120, 10), *[120] * len(views())]


def test_batch_size_changes_nothing(url: str) -> None:
    digests = {
        size: {name: r.digest for name, r in rebuild(url, views(), batch=size, restart=True)[1].items()} for size in (1, 7, 100, 5000)
    }
    assert len({str(sorted(d.items())) for d in digests.values()}) == 1


def test_promote_without_a_rebuild_is_refused(url: str) -> None:
    with pytest.raises(Refused, match="run `hub replay rebuild"):
        promote(url, views())


def test_rebuild_verify_promote_beside_live_traffic(owner_url: str, url: str) -> None:
    stop = threading.Event()
    told: list[str] = []
    followers = [Follower(url, view) for view in views()]
    threads = [threading.Thread(target=f.run, args=(stop, told.append)) for f in followers]

    def write() -> None:
        with Log(as_role(owner_url, "hub_door")) as log:
            n = 1000
            while not stop.is_set():
                fill(log, n, 1)
                n += 1
                stop.wait(0.03)

    threads.append(threading.Thread(target=write))
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            rebuild(url, views())
            assert differing(url) == {}
            promote(url, views())
            assert differing(url) == {}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    follow(owner_url)
    assert differing(url) == {}


def test_the_log_alone_rebuilds_to_the_same_digests_elsewhere(owner_url: str, url: str, pg_owner_url: str) -> None:
    _, here = rebuild(url, views())
    with new_database(pg_owner_url) as other:
        migrate(other)
        with (
            psycopg.connect(owner_url) as source,
            psycopg.connect(other) as target,
            source.cursor().copy("copy log.event to stdout (format binary)") as out,
            target.cursor().copy("copy log.event from stdin (format binary)") as into,
        ):
            for chunk in out:
                into.write(chunk)
        _, there = rebuild(as_role(other, "hub_follow"), views())
    assert {n: r.digest for n, r in there.items()} == {n: r.digest for n, r in here.items()}


def test_a_paused_follower_cannot_write_twice(url: str) -> None:
    """Two followers of one view: whatever their interleaving, each position is folded once."""
    (stock,) = (view for view in views() if view.name == "stock")
    schema = shadow_schema("stock")
    two = [Follower(url, stock, schema) for _ in range(2)]
    two[0].ensure()
    stop = threading.Event()
    threads = [threading.Thread(target=f.run, args=(stop, lambda text: None)) for f in two]
    for thread in threads:
        thread.start()
    while two and _position(url, schema) < 120:
        pass
    stop.set()
    for thread in threads:
        thread.join()
    assert differing(url) == {}


def _position(url: str, schema: str) -> int:
    with psycopg.connect(url) as connection:
        return position(Tables(connection.cursor()), schema)


def test_every_view_has_its_live_schema(owner_url: str) -> None:
    with psycopg.connect(owner_url) as connection:
        found = {row[0] for row in connection.execute("select nspname from pg_namespace")}
    assert {live_schema(view.name) for view in views()} <= found
