"""OPC UA: a long cut that only the server's history fills, while values flow, through kills and further cuts, and from histories that fail."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.opcua import Sequence as Counting
from hub import limits
from tests.contract.reading_suite import Edge
from tests.contract.test_opcua import Line1, line1

PAGE = 50
REFUSED = "its history cannot be read ({})"
LAGS = "its history does not reach up to what came then"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OPCUA_HISTORY_AGAIN_S", 0.2)


@pytest.fixture(params=["before", "beside"])
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """History is read before what came, or beside what comes."""
    if request.param == "beside":
        monkeypatch.setattr(limits, "OPCUA_HISTORY_FIRST_S", 0.0)


@contextlib.contextmanager
def missed(
    folder: Path, count: int = 6 * PAGE, answers: Sequence[str] = (), counted: bool = False, forgotten: int = 0, **server: Any
) -> Iterator[tuple[Line1, Edge, range]]:
    """A plant, an edge that heard a number long ago, and all that were said since, which came while the line was cut and only the history has,
    but for the first."""
    changed = {"sequences": (Counting("Line1/Count"),)} if counted else {}
    with line1(folder, forgets=True, history=True, history_page=PAGE, changed=changed, **server) as plant:
        edge = Edge(plant)
        edge.open()
        begin, every = datetime.now(UTC) - timedelta(seconds=count), timedelta(seconds=1)
        first, plant._next = plant._next, plant._next + count
        plant.server.do("write", name="Count", value=first, kind="Int64", at=begin.isoformat())
        edge.until(lambda: first in edge.numbers)
        plant.down()
        kept = {"first": first + forgotten, "begin": (begin + forgotten * every).isoformat(), "count": count - forgotten}
        plant.server.do("past", every_s=1.0, **kept)
        plant.server.do("answers", next_=answers)
        plant._at |= {first + n: begin + n * every for n in range(count)}
        plant.up()
        yield plant, edge, range(first, first + count)
        edge.close()


def reads(plant: Line1) -> int:
    """How often history was read."""
    return int(plant.server.do("answers", next_=[]))


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("counted", [False, True])
def test_a_long_history_is_read_whole_in_the_servers_pages(tmp_path: Path, counted: bool) -> None:
    with missed(tmp_path, counted=counted) as (plant, edge, missing):
        said = [*missing]
        edge.until(lambda: len(edge.numbers) >= len(said))
        said += plant.say(5)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.settle()
        assert sorted(edge.numbers) == said
        assert not edge.gaps
        late = [plant.number(reading) for reading in edge.readings if reading.historical]
        assert late == said[1 : len(late) + 1]
        assert len(late) == 6 * PAGE - 2


def test_values_flow_while_a_long_history_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait a moment for it, so that a short one comes in its order, and no longer."""
    monkeypatch.setattr(limits, "OPCUA_HISTORY_FIRST_S", 0.3)
    with missed(tmp_path, 40 * PAGE, ["late 0.1"] * 45) as (plant, edge, missing):
        said = [*missing]
        last = said[-1]
        edge.until(lambda: last in edge.numbers)
        began = len(edge.readings)
        assert PAGE <= sum(reading.historical for reading in edge.readings) < 20 * PAGE
        late = []
        for value in range(100, 110):
            plant.server.do("write", name="Idle", value=value, kind="Int64")
            edge.until(lambda value=value: any(r.tag == "Line1/Idle" and r.value == value for r in edge.readings[began:]), 2.0)  # type: ignore[misc]
            late.append(sum(reading.historical for reading in edge.readings))
        assert late[0] < late[-1] < 40 * PAGE - 2  # it went on, and was not through
        assert edge.source._line._waiting < 100  # type: ignore[union-attr]
        said += plant.say(3)
        edge.until(lambda: len(edge.numbers) >= len(said))
        assert sorted(edge.numbers) == said
        assert not edge.gaps


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("forgets", [False, True])
def test_kills_and_cuts_do_not_begin_it_anew(tmp_path: Path, forgets: bool) -> None:
    with missed(tmp_path, 20 * PAGE, ["late 0.05"] * 100) as (plant, edge, missing):
        said, kills = [*missing], 4
        for _ in range(kills):
            came = len(edge.numbers)
            edge.until(lambda came=came: len(edge.numbers) >= came + 3 * PAGE, limit=PAGE)  # type: ignore[misc]
            edge.receive(limit=PAGE)  # is lost with the process
            edge.kill()
            if forgets:
                plant.server.do("forget")
            said += plant.say(2)
            edge.open()
        assert len(edge.numbers) < len(missing)
        edge.until(lambda: len(edge.numbers) >= len(said))
        edge.settle()
        assert sorted(edge.numbers) == said
        assert not edge.gaps
        assert reads(plant) <= 20 + 4 * kills


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("answers", [[], ["", "", *["BadUserAccessDenied"] * 3]], ids=["whole", "in the middle"])
def test_where_a_history_begins_and_ends_is_told_exactly(tmp_path: Path, answers: Sequence[str]) -> None:
    with missed(tmp_path, forgotten=20, answers=answers) as (plant, edge, missing):
        edge.until(lambda: len(edge.numbers) > PAGE, limit=PAGE)
        edge.kill()
        edge.until(lambda: len(edge.gaps) > bool(answers) and missing[-1] in edge.numbers)
        edge.settle()
        told = [(gap.since, gap.until) for gap in edge.gaps]
        assert [until for _, until in told] == [plant.said_at(missing[20]), *([plant.said_at(missing[-1])] if answers else [])]
        assert told[0][0] is not None
        assert abs(told[0][0] - plant.said_at(missing[0])) < plant.exact
        if answers:
            assert told[1][0] == plant.said_at(max({*edge.numbers} - {missing[-1]}))
        edge.accounted(missing)


@pytest.mark.parametrize(
    "answers",
    [
        ["", "nothing yet", "", *["nothing yet"] * 4],
        ["none", ""],
        ["", "BadTooManyOperations", "fault BadServerTooBusy", ""],
        ["", "", "BadContinuationPointInvalid"],
        ["late 3.5", ""],
    ],
    ids=["says more later", "is late", "is busy", "forgets where", "is slow"],
)
def test_a_history_that_needs_another_question_is_asked_again(tmp_path: Path, answers: Sequence[str]) -> None:
    with missed(tmp_path, answers=answers) as (plant, edge, missing):
        connections = plant.proxy.connections
        edge.until(lambda: len(edge.numbers) >= len(missing))
        edge.settle()
        assert sorted(edge.numbers) == [*missing]
        assert not edge.gaps
        assert plant.proxy.connections <= connections + 2  # those of the cut


@pytest.mark.parametrize(
    ("answers", "came", "why", "counted"),
    [
        (["fault BadServiceUnsupported"] * 3, 0, REFUSED.format("BadServiceUnsupported"), False),
        (["BadHistoryOperationUnsupported"] * 3, 0, REFUSED.format("BadHistoryOperationUnsupported"), True),
        (["", "", *["BadUserAccessDenied"] * 3], 2 * PAGE - 1, REFUSED.format("BadUserAccessDenied"), False),
        (["", "", *["BadUserAccessDenied"] * 3], 2 * PAGE - 1, REFUSED.format("BadUserAccessDenied"), True),
        (["none"] * 3, 0, LAGS, False),
        (["", *["none"] * 4], PAGE - 1, LAGS, True),
    ],
    ids=["unknown", "unsupported", "in the middle", "in the middle, counted", "empty", "ends too soon"],
)
def test_what_a_history_does_not_give_is_told_and_holds_nothing_up(
    tmp_path: Path, answers: Sequence[str], came: int, why: str, counted: bool
) -> None:
    with missed(tmp_path, answers=answers, counted=counted) as (plant, edge, missing):
        edge.until(lambda: missing[-1] in edge.numbers)
        said = [*missing, *plant.say(3)]
        edge.until(lambda: said[-1] in edge.numbers)
        edge.until(lambda: bool(edge.gaps))
        edge.settle()
        (gap,) = edge.gaps
        assert gap.kind == "history"
        assert gap.reason.endswith(why)
        assert sorted(edge.numbers) == [*said[: came + 1], *said[6 * PAGE - 1 :]]
        if counted:
            assert (gap.first, gap.last) == (said[came + 1], said[6 * PAGE - 2])
        edge.accounted(said)


def test_more_cuts_than_are_read_back_at_a_time_are_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OPCUA_BACKS_MAX", 2)
    monkeypatch.setattr(limits, "OPCUA_HISTORY_FIRST_S", 0.0)
    with missed(tmp_path, answers=["late 1.0"] * 10) as (plant, edge, missing):
        edge.until(lambda: missing[-1] in edge.numbers)
        for _ in range(3):
            plant.down()
            number = plant.say(5)[-1]
            plant.up()
            edge.until(lambda number=number: number in edge.numbers)  # type: ignore[misc]
        plant.server.do("answers", next_=[])
        edge.settle(1.5)
        assert {gap.reason.partition("; ")[2] for gap in edge.gaps} == {"the history of 2 cuts is still being read"}
        assert set(missing) <= set(edge.numbers)
        edge.accounted(range(missing[0], edge.numbers[-1] + 1))


def test_messages_that_are_lost_meanwhile_do_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """We have no room, and the server has them no more: there is another subscription, and history to be read of that too."""
    monkeypatch.setattr(limits, "OPCUA_HISTORY_FIRST_S", 0.0)
    monkeypatch.setattr(limits, "OPCUA_WAITING_MAX", 40)
    with missed(tmp_path, answers=["late 0.3"] * 3, unacknowledged=2) as (plant, edge, missing):
        edge.until(lambda: missing[-1] in edge.numbers)
        for _ in range(2):
            said = [*missing, *plant.say(300)]
            time.sleep(1.0)  # nobody takes
        said = [*range(missing[0], said[-1] + 1)]
        edge.until(lambda: len(edge.numbers) >= len(said))
        assert edge.source._ordinal > 2  # type: ignore[union-attr]
        assert sorted(edge.numbers) == said
        assert not edge.gaps
