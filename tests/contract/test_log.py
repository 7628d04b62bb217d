"""The log's promises on a real PostgreSQL: once per key, contiguous positions and versions under concurrent processes, append-only."""

import hashlib
import multiprocessing
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events import Fact, canonical
from events.errors import Refused
from hub.log.migrate import ROLES, SCHEMA_VERSION, migrate
from hub.log.store import COPY_ROWS, Accepted, Conflict, Duplicate, Log, Raw, bounded, read
from tests.conftest import new_database
from tests.facts import START, as_role, fact, received
from tests.simulation.memory import MemoryLog, Store


@pytest.fixture(params=["pg_owner_url", "system_pg_owner_url"], ids=["private server", "system's server"])
def owner_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with new_database(request.getfixturevalue(request.param)) as url:
        migrate(url)
        yield url


@pytest.fixture
def log(owner_url: str) -> Iterator[Log]:
    with Log(as_role(owner_url, "hub_door")) as opened:
        yield opened


@pytest.fixture(params=["pg_owner_url", "system_pg_owner_url", "memory"], ids=["private server", "system's server", "memory"])
def any_log(request: pytest.FixtureRequest) -> Iterator[Log]:
    """What a log does on any store: the simulation's own is held to it too."""
    if request.param == "memory":
        yield MemoryLog(Store(), lambda: datetime.now(UTC))
        return
    with new_database(request.getfixturevalue(request.param)) as url:
        migrate(url)
        with Log(as_role(url, "hub_door")) as opened:
            yield opened


def test_same_fact_twice_is_a_duplicate_at_the_same_position(any_log: Log) -> None:
    facts = [received("R1", "A", "L1", "5"), received("R2", "A", "L1", "3")]
    assert any_log.append(facts) == [Accepted(1), Accepted(2)]
    assert any_log.append(facts) == [Duplicate(1), Duplicate(2)]
    assert any_log.head() == 2


def test_same_key_with_other_content_conflicts_and_writes_nothing(any_log: Log) -> None:
    first, other = received("R1", "A", "L1", "5"), received("R1", "A", "L1", "6")
    any_log.append([first])
    assert any_log.append([other]) == [Conflict(1, first.digest(), other.digest())]
    assert any_log.head() == 1


def test_repeats_within_one_batch_are_folded(any_log: Log) -> None:
    first, other = received("R1", "A", "L1", "5"), received("R1", "A", "L1", "6")
    assert any_log.append([first, first, other]) == [Accepted(1), Duplicate(1), Conflict(1, first.digest(), other.digest())]


def test_a_batch_of_many_parts_reads_back_in_its_order(any_log: Log) -> None:
    facts = [received(f"R{n}", f"I{n % 7}", "L1", "5") for n in range(COPY_ROWS * 3 + 1)]
    assert any_log.append(facts) == [Accepted(n + 1) for n in range(len(facts))]
    assert [one.fact for one in any_log.read(0, 10_000)] == facts


@pytest.mark.parametrize("which", [10, COPY_ROWS + 10, COPY_ROWS * 3])
def test_a_fact_that_cannot_be_encoded_leaves_nothing_of_its_batch_and_the_log_usable(log: Log, which: int) -> None:
    facts = [received(f"R{n}", "A", "L1", "5") for n in range(COPY_ROWS * 3 + 1)]
    bad = replace(facts[which], envelope=replace(facts[which].envelope, details={"odd": object()}))
    with pytest.raises(TypeError, match="no canonical JSON"):
        log.append([*facts[:which], bad, *facts[which + 1 :]])
    assert log.append(facts) == [Accepted(n + 1) for n in range(len(facts))]


def test_the_same_key_of_another_source_is_another_fact(any_log: Log) -> None:
    data = {"item": "A", "base_unit": "EA"}
    found = any_log.append([fact("K", "masterdata.item_defined", data, source=s) for s in ("erp:a", "erp:b")])
    assert found == [Accepted(1), Accepted(2)]


def test_receive_time_and_mapping_do_not_make_a_conflict(any_log: Log) -> None:
    one = received("R1", "A", "L1", "5")
    again = Fact(replace(one.envelope, mapping="later/2", raw="ff"), one.event)
    any_log.append([one])
    assert any_log.append([again]) == [Duplicate(1)]


def test_versions_count_each_stream_from_one(any_log: Log) -> None:
    lot = {"order": "O1", "things": [{"item": "A", "lot": "L1", "quantity": {"value": "1", "unit": "EA"}}], "location": "WH"}
    any_log.append([fact(f"I{n}", "production.material_issued", lot, n) for n in range(3)] + [received("R1", "A", "L1", "5")])
    assert [(f.stream, f.version) for f in any_log.read(0, 10)] == [("order/O1", 1), ("order/O1", 2), ("order/O1", 3), ("receipt/R1", 1)]


def test_a_fact_reads_back_as_it_was(any_log: Log) -> None:
    one = received("R1", "Ä", "ß 'x'", "0.000000000001", status="blocked")
    any_log.append([one])
    (found,) = any_log.read(0, 10)
    assert found.fact.event == one.event
    assert found.fact.digest() == one.digest()
    assert (found.envelope.source, found.envelope.key, found.envelope.effective_at) == ("erp:main", "R1", START)
    assert any_log.find("erp:main", "R1") == found
    assert any_log.find("erp:other", "R1") is None


def test_an_old_version_in_the_log_reads_as_the_current_one_and_answers_duplicate(log: Log, owner_url: str) -> None:
    """A fact that an older hub stored as version 1 comes again through today's door."""
    today = fact(
        "OUT1",
        "production.output_produced",
        {"output": "OUT1", "order": "O1", "item": "A", "lot": "L1", "quantity": "5", "unit": "EA", "location": "WH"},
        version=1,
    )
    log.append([received("R0", "A", "L0", "1")])
    old = canonical.dumps({"output": "OUT1", "order": "O1", "item": "A", "lot": "L1", "quantity": "5", "unit": "EA", "location": "WH"})
    with psycopg.connect(as_role(owner_url, "hub_door")) as connection:
        connection.execute(
            """insert into log.event select 2, 'order/O1', 1, 'production.output_produced', 1, %s, '\\x00', 'erp:main', 'OUT1',
               occurred_at, effective_at, recorded_at, '{}', %b from log.event where position = 1""",
            [_key("erp:main", "OUT1"), old],
        )
    (stored,) = log.read(1, 1)
    assert stored.event == today.event
    assert log.append([today]) == [Duplicate(2)]


def _key(source: str, key: str) -> object:
    from hub.log.codec import receipt_key

    return receipt_key(source, key)


@pytest.mark.parametrize("role", ["owner", "hub_door", "hub_follow", "hub_read"])
@pytest.mark.parametrize("table", ["log.event", "log.delivery"])
@pytest.mark.parametrize("statement", ["update {} set {} = {}", "delete from {}", "truncate {}"])
def test_nobody_changes_or_removes_what_the_log_holds(log: Log, owner_url: str, role: str, table: str, statement: str) -> None:
    log.append([received("R1", "A", "L1", "5")])
    column = "data" if table == "log.event" else "body"
    url = owner_url if role == "owner" else as_role(owner_url, role)
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.format(table, column, column).encode())


@pytest.mark.parametrize("role", ["hub_follow", "hub_read"])
def test_only_the_door_appends(owner_url: str, role: str) -> None:
    with Log(as_role(owner_url, role)) as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
        other.append([received("R1", "A", "L1", "5")])


def test_the_roles_are_no_superusers(owner_url: str) -> None:
    with psycopg.connect(owner_url) as connection:
        rows = connection.execute(
            "select rolname, rolsuper or rolcreaterole or rolcreatedb or rolbypassrls from pg_roles where rolname = any(%s)", [list(ROLES)]
        )
        assert dict(rows.fetchall()) == dict.fromkeys(ROLES, False)


def test_a_newer_schema_is_refused_with_the_remedy(owner_url: str) -> None:
    with psycopg.connect(owner_url) as connection:
        connection.execute("insert into intake.schema_version values (%s)", [SCHEMA_VERSION + 1])
    with pytest.raises(Refused, match="use the newer hub"):
        migrate(owner_url)


def test_migrations_run_twice_and_at_once(fresh_database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(migrate, [fresh_database] * 8)) == [None] * 8


def _append_many(url: str, writer: int, count: int, shared: int) -> None:
    with Log(url) as log:
        for n in range(0, count, 5):
            own = [received(f"W{writer}-{i}", "A", "L1", "1") for i in range(n, n + 5)]
            log.append([*own, received(f"shared-{n % shared}", "A", "L1", "1")])


def test_a_tailing_reader_sees_every_position_once_while_eight_processes_append(owner_url: str) -> None:
    url = as_role(owner_url, "hub_door")
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_append_many, args=(url, w, 100, 50)) for w in range(8)]
    for writer in writers:
        writer.start()
    seen: list[int] = []
    keys: list[str] = []
    with psycopg.connect(as_role(owner_url, "hub_follow"), autocommit=True) as connection, connection.cursor() as cursor:
        done = False
        while True:
            found = read(cursor, seen[-1] if seen else 0, 50)
            seen += [f.position for f in found]
            keys += [f.envelope.key for f in found]
            if not found:
                if done:
                    break
                done = all(not w.is_alive() for w in writers)
                time.sleep(0.005)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen == list(range(1, len(seen) + 1))
    assert sorted(keys) == sorted({f"W{w}-{n}" for w in range(8) for n in range(100)} | {f"shared-{n}" for n in range(0, 50, 5)})
    with psycopg.connect(owner_url) as connection:
        holes = connection.execute("select stream from log.event group by stream having count(*) <> max(version)").fetchall()
    assert holes == []


@settings(max_examples=20)
@given(st.lists(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 2)), min_size=1, max_size=6), max_size=8))
def test_any_sequence_of_appends_gives_what_a_dict_would(shared_log: Log, batches: list[list[tuple[int, int]]]) -> None:
    """The model: the first content of a key stays, the same again is a duplicate, another is a conflict; positions count what is new."""
    mark = f"{time.monotonic_ns()}"
    head = shared_log.head()
    model: dict[str, tuple[int, int]] = {}
    for batch in batches:
        wanted = []
        for number, content in batch:
            key = f"{mark}-{number}"
            if key not in model:
                head += 1
                model[key] = (content, head)
                wanted.append(("Accepted", head))
            else:
                wanted.append(("Duplicate" if model[key][0] == content else "Conflict", model[key][1]))
        found = shared_log.append([received(f"{mark}-{n}", "A", "L1", str(content)) for n, content in batch])
        assert [(type(r).__name__, r.position) for r in found] == wanted


@pytest.fixture(scope="module", params=["private server", "memory"])
def shared_log(request: pytest.FixtureRequest, pg_owner_url: str) -> Iterator[Log]:
    if request.param == "memory":
        yield MemoryLog(Store(), lambda: datetime.now(UTC))
        return
    with new_database(pg_owner_url) as owner:
        migrate(owner)
        with Log(as_role(owner, "hub_door")) as opened:
            yield opened


def raw(n: int, size: int = 10, at: datetime = START) -> Raw:
    """A delivery as it is kept."""
    body = b"%d:" % n + bytes([n % 256]) * size
    return hashlib.sha256(body).digest(), body, "kafka", b'{"offset":"%d"}' % n, at


def test_deliveries_are_kept_as_they_came_first(owner_url: str, log: Log) -> None:
    first = [raw(n, size, START + timedelta(microseconds=n)) for n, size in enumerate((0, 10, 5_000_000, 100_000))]
    again = [(*one[:2], "http", b"{}", START + timedelta(days=1)) for one in reversed(first)]
    log.keep([*first, *again[:2]])
    log.keep([raw(9), *again])
    with psycopg.connect(owner_url) as connection:
        found = connection.execute("select sha256, body, transport, headers, received_at from log.delivery").fetchall()
    assert {(bytes(s), bytes(b), t, bytes(h), at) for s, b, t, h, at in found} == {*first, raw(9)}


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(0, 60))
def test_what_one_statement_keeps_is_bounded_in_bytes(sizes: list[int], most: int) -> None:
    deliveries = [(b"", bytes(size), "", b"", START) for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hub.limits.KEEP_BYTES_MAX", most)
        parts = list(bounded(deliveries))
    assert [one for part in parts for one in part] == deliveries
    weights = [sum(len(one[1]) for one in part) for part in parts]
    assert all(weight <= most or len(part) == 1 for weight, part in zip(weights, parts, strict=True))
    assert all(weight + len(after[0][1]) > most for weight, after in zip(weights, parts[1:], strict=False))  # no more parts than need be


def test_two_that_keep_the_same_do_not_deadlock(owner_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.limits.KEEP_BYTES_MAX", 400)

    def keep(seed: int) -> None:
        chance = random.Random(seed)
        with Log(as_role(owner_url, "hub_door")) as log:
            for n in range(20):
                log.keep(chance.sample([raw(n * 1000 + m) for m in range(200)], 200))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep, range(4)))
    with Log(as_role(owner_url, "hub_read")) as log:
        assert log.select("select count(*) from log.delivery", []) == [(4000,)]
