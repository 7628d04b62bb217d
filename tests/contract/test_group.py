"""Group commit: every caller gets its own results, one's trouble is nobody else's, and closing leaves nobody waiting."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from events.errors import Refused, Unavailable
from hub import limits
from hub.log.group import GroupLog
from hub.log.migrate import migrate
from hub.log.store import Accepted, Conflict, Duplicate, Log, Result
from tests.facts import as_role, fact, received


@pytest.fixture
def url(fresh_database: str) -> str:
    migrate(fresh_database)
    return as_role(fresh_database, "hub_door")


@pytest.fixture
def group(url: str) -> Iterator[GroupLog]:
    with GroupLog(Log(url)) as opened:
        yield opened


def test_threads_and_tasks_get_their_own_results(group: GroupLog, url: str) -> None:
    async def tasks() -> list[list[Result]]:
        return await asyncio.gather(
            *(group.append_soon([received(f"T{n}", "A", "L", "1"), received(f"S{n % 7}", "A", "L", "1")]) for n in range(200))
        )

    with ThreadPoolExecutor(16) as pool:
        threads = [pool.submit(group.append, [received(f"R{n}", "A", "L", "1")]) for n in range(200)]
        found = asyncio.run(tasks())
    ends = [one.result() for one in threads] + [[results[0]] for results in found]
    positions = [result.position for (result,) in ends if isinstance(result, Accepted)]
    assert len(positions) == len(set(positions)) == 400
    shared = [results[1] for results in found]
    assert sum(isinstance(result, Accepted) for result in shared) == 7
    assert sum(isinstance(result, Duplicate) for result in shared) == 193
    with Log(url) as log:
        assert log.head() == 407


def test_what_one_caller_cannot_have_held_is_not_the_others_trouble(group: GroupLog, fresh_database: str) -> None:
    with psycopg.connect(fresh_database) as owner:
        owner.execute("alter table log.event add constraint picky check (source <> 'poison')")
        owner.execute("select pg_advisory_lock(%s)", [0x6C6F67])  # so that all gather behind one leader
        owner.commit()
        bad = {"item": "A", "base_unit": "EA"}
        with ThreadPoolExecutor(8) as pool:
            good = [pool.submit(group.append, [received(f"R{n}", "A", "L", "1")]) for n in range(6)]
            poison = pool.submit(group.append, [fact("P", "masterdata.item_defined", bad, source="poison")])
            owner.execute("select pg_sleep(0.3)")
            owner.execute("select pg_advisory_unlock(%s)", [0x6C6F67])
            owner.commit()
            assert all(isinstance(one.result()[0], Accepted) for one in good)
            with pytest.raises(Refused, match="cannot hold it"):
                poison.result()


def test_conflicts_within_a_group_are_told_to_whom_they_concern(group: GroupLog) -> None:
    async def both() -> list[list[Result]]:
        return list(await asyncio.gather(*(group.append_soon([received("R", "A", "L", quantity)]) for quantity in ("1", "2"))))

    first, second = asyncio.run(both())
    assert isinstance(first[0], Accepted)
    assert isinstance(second[0], Conflict)


def test_an_outage_is_told_to_all_and_the_next_call_works(group: GroupLog, fresh_database: str) -> None:
    group.append([received("R0", "A", "L", "1")])
    with psycopg.connect(fresh_database, autocommit=True) as owner:
        owner.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
    with pytest.raises(Unavailable):
        group.append([received("R1", "A", "L", "1")])
    assert group.append([received("R1", "A", "L", "1")]) == [Accepted(2)]


def test_a_closed_group_takes_nothing_and_leaves_nobody_waiting(url: str, fresh_database: str) -> None:
    group = GroupLog(Log(url))
    with psycopg.connect(fresh_database, autocommit=True) as owner:
        owner.execute("select pg_advisory_lock(%s)", [0x6C6F67])
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(group.append, [received(f"R{n}", "A", "L", "1")]) for n in range(3)]
            owner.execute("select pg_sleep(0.2)")
            closing = threading.Thread(target=group.close)
            closing.start()
            owner.execute("select pg_advisory_unlock(%s)", [0x6C6F67])
            for one in waiting:
                assert one.exception(10) is None or isinstance(one.exception(), Unavailable)
        closing.join(10)
    with pytest.raises(Unavailable, match="ending"):
        group.append([received("R9", "A", "L", "1")])


def test_a_call_that_is_too_large_is_refused_alone(group: GroupLog) -> None:
    with pytest.raises(Refused, match="in parts"):
        group.append([received(f"R{n}", "A", "L", "1") for n in range(limits.FACTS_PER_APPEND_MAX + 1)])
