"""OPC UA: what a cut costs, with and without history; lines half open, servers started anew, items that vanish, queues that are too short."""

import dataclasses
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.opcua import Sequence as Counting
from adapters.opcua import Start
from events.errors import Unavailable
from hub import limits
from hub.intake.readings import ReadingSource
from tests.contract.reading_suite import Edge
from tests.contract.test_opcua import PUBLISHING_S, Line1, line1, settings

EXACT = timedelta(seconds=PUBLISHING_S)


def cut(plant: Line1, edge: Edge, before: int = 20, during: int = 40, after: int = 10) -> list[int]:
    """Numbers before, during and after a cut; all that was said."""
    edge.open()
    said = list(plant.say(before))
    edge.until(lambda: said[-1] in edge.numbers)
    plant.down()
    said += plant.say(during)
    plant.up()
    edge.settle(1.5)
    said += plant.say(after)
    edge.until(lambda: said[-1] in edge.numbers)
    edge.settle()
    edge.close()
    return said


def until_lost(edge: Edge, source: ReadingSource) -> None:
    """Receive until the source says that its line is lost."""
    begun = time.monotonic()
    while time.monotonic() - begun < 20:
        edge.keep(source.receive(500, 0.1))


def test_a_cut_within_the_servers_patience_costs_nothing(tmp_path: Path) -> None:
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        assert cut(plant, edge) == edge.numbers
        assert not edge.gaps
        assert not any(reading.historical for reading in edge.readings)


def test_what_a_process_took_with_it_comes_again(tmp_path: Path) -> None:
    """The server keeps what is not confirmed, and forgets what is."""
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        source = edge.open()
        said = list(plant.say(20))
        edge.until(lambda: said[-1] in edge.numbers)
        edge.settle()
        assert plant.server.do("unconfirmed") <= 1
        said += plant.say(100)
        handed: list[int] = []
        while said[-1] not in handed:
            handed += [n for one in source.receive(10, 0.2) for reading in one.readings if (n := plant.number(reading)) is not None]
        source.receive(10, 0.5)
        assert plant.server.do("unconfirmed") >= 5
        edge.kill()
        said += plant.say(10)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.settle()
        edge.close()
        assert edge.numbers == said
        assert not edge.gaps
        assert plant.server.do("unconfirmed") <= 1


def test_a_gap_begins_where_the_line_was_lost_not_where_the_value_changed_last(tmp_path: Path) -> None:
    with line1(tmp_path, forgets=True) as plant:
        edge = Edge(plant)
        edge.open()
        said = list(plant.say(3))
        edge.until(lambda: said[-1] in edge.numbers)
        edge.settle(1.0)
        lost = datetime.now(UTC)
        plant.down()
        said += plant.say(5)
        plant.up()
        edge.settle(1.0)
        edge.close()
        (gap,) = edge.gaps
        assert gap.since is not None
        signs = timedelta(seconds=2 * settings(1).keep_alive_s)  # how long ago the server said that there was nothing
        assert lost - signs - EXACT <= gap.since <= lost + EXACT
        edge.accounted(said)


@pytest.mark.parametrize("history", [False, True])
def test_a_clock_that_is_set_back_in_a_cut_is_told_with_the_gap(tmp_path: Path, history: bool) -> None:
    with line1(tmp_path, forgets=True, history=history) as plant:
        edge = Edge(plant)
        edge.open()
        said = [*plant.say(5)]
        edge.until(lambda: said[-1] in edge.numbers)
        plant.down()
        said += plant.say(5)
        number, at = said[-1] + 1, datetime.now(UTC) - timedelta(hours=1)
        plant.server.do("write", name="Count", value=number, kind="Int64", at=at.isoformat())
        plant.up()
        edge.until(lambda: number in edge.numbers)
        edge.close()
        (gap,) = edge.gaps
        assert gap.reason.endswith("its clock was set back meanwhile")
        assert gap.until == at
        assert gap.since is not None
        assert plant.said_at(said[4]) <= gap.since <= plant.said_at(said[5]) + EXACT


def test_history_fills_a_cut_of_any_length(tmp_path: Path) -> None:
    """In pages of the server's and of ours."""
    with line1(tmp_path, forgets=True, history=True, history_page=7) as plant:
        edge = Edge(plant)
        said = cut(plant, edge)
        assert edge.numbers == said
        assert not edge.gaps
        late = [plant.number(reading) for reading in edge.readings if reading.historical]
        assert set(late) <= set(said[20:60])
        assert len(late) >= 35  # the last of the cut is also the current value


def test_history_that_does_not_reach_back_is_a_gap(tmp_path: Path) -> None:
    with line1(tmp_path, forgets=True, history=True, history_count=15) as plant:
        edge = Edge(plant)
        said = cut(plant, edge)
        (gap,) = edge.gaps
        missing = [n for n in said if n not in edge.numbers]
        assert missing == said[20:45]
        assert (gap.kind, gap.tags) == ("history", ("Line1/Count",))
        assert gap.since is not None
        assert gap.until is not None
        assert plant.said_at(said[19]) - EXACT <= gap.since <= plant.said_at(missing[0]) <= plant.said_at(missing[-1]) <= gap.until
        assert gap.until <= plant.said_at(missing[-1]) + EXACT
        edge.accounted(said)


def test_history_can_be_left_alone(tmp_path: Path) -> None:
    with line1(tmp_path, forgets=True, history=True, changed={"history": False}) as plant:
        edge = Edge(plant)
        said = cut(plant, edge)
        assert [gap.kind for gap in edge.gaps] == ["disconnected"]
        edge.accounted(said)


def test_without_history_the_cut_is_a_gap_of_what_changed(tmp_path: Path) -> None:
    with line1(tmp_path, forgets=True) as plant:
        edge = Edge(plant)
        said = cut(plant, edge)
        (gap,) = edge.gaps  # not of Line1/Idle, whose value has the time it had before
        assert (gap.kind, gap.tags, gap.first) == ("disconnected", ("Line1/Count",), None)
        missing = [n for n in said if n not in edge.numbers]
        assert missing == said[20:59]
        edge.accounted(said)


def test_numbers_say_exactly_what_a_cut_cost(tmp_path: Path) -> None:
    counted = {"sequences": (Counting("Line1/Count", ("Line1/I*",)),)}
    with line1(tmp_path, forgets=True, changed=counted) as plant:
        edge = Edge(plant)
        said = cut(plant, edge)
        (gap,) = edge.gaps
        assert (gap.first, gap.last, gap.kind, gap.tags) == (said[20], said[58], "disconnected", ("Line1/Count", "Line1/Idle"))
        edge.accounted(said)
        assert all(reading.sequence == reading.value for reading in edge.readings if reading.tag == "Line1/Count")


def test_a_queue_of_the_server_that_is_too_short_shows_in_the_numbers(tmp_path: Path) -> None:
    """asyncua's server never says that its queue overflowed."""
    counted = {"sequences": (Counting("Line1/Count"),), "queue": 2, "publishing_s": 0.5}
    with line1(tmp_path, changed=counted) as plant:
        edge = Edge(plant)
        edge.open()
        said = plant.say(100)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.close()
        assert edge.gaps
        assert {gap.kind for gap in edge.gaps} == {"sequence"}
        covered = {n for gap in edge.gaps for n in range(gap.first or 0, (gap.last or 0) + 1)}
        assert covered == set(said) - set(edge.numbers)


def test_history_mends_what_the_servers_queue_dropped(tmp_path: Path) -> None:
    counted = {"sequences": (Counting("Line1/Count"),), "queue": 2, "publishing_s": 0.5}
    with line1(tmp_path, history=True, changed=counted) as plant:
        edge = Edge(plant)
        edge.open()
        said = list(plant.say(100))
        edge.until(lambda: said[-1] in edge.numbers)
        edge.close()
        assert edge.numbers == said
        assert not edge.gaps


def test_a_counter_may_begin_anew_and_roll_over(tmp_path: Path) -> None:
    with line1(tmp_path, changed={"sequences": (Counting("Line1/Count", modulus=1000),)}) as plant:
        edge = Edge(plant)
        edge.open()
        for value in (997, 998, 999, 0, 1, 7, 6):
            plant.server.do("write", name="Count", value=value, kind="Int64")
        edge.until(lambda: bool(edge.readings) and edge.readings[-1].value == 6)
        edge.close()
        first = edge.readings[0].sequence  # 0 -> 997 may be a beginning, or three steps back
        assert first == 0
        assert [(gap.first, gap.last) for gap in edge.gaps] == [(2, 6)]


def test_what_we_had_no_room_for_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OPCUA_WAITING_MAX", 40)
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        source = edge.open()
        said = list(plant.say(300))
        time.sleep(1.5)  # nobody takes: what the source holds is bounded
        assert source._line._waiting < 200  # type: ignore[attr-defined]
        assert source._line.discarded > 0  # type: ignore[attr-defined]
        edge.until(lambda: said[-1] in edge.numbers)
        edge.close()
        assert edge.numbers == said
        assert not edge.gaps


def test_what_the_server_keeps_no_more_after_we_had_no_room_is_an_overflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OPCUA_WAITING_MAX", 40)
    with line1(tmp_path, unacknowledged=2) as plant:
        edge = Edge(plant)
        edge.open()
        said = list(plant.say(20))
        edge.until(lambda: said[-1] in edge.numbers)
        said += plant.say(600)
        time.sleep(1.5)
        edge.settle()
        said += plant.say(5)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.close()
        assert {gap.kind for gap in edge.gaps} == {"overflow"}
        edge.accounted(said)


def test_a_line_half_open_is_noticed_in_bounded_time_and_survived(tmp_path: Path) -> None:
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        source = edge.open()
        said = list(plant.say(10))
        edge.until(lambda: said[-1] in edge.numbers)
        plant.proxy.hold()
        begun = time.monotonic()
        said += plant.say(10)
        with pytest.raises(Unavailable, match="does not answer: look at it and at the line"):
            until_lost(edge, source)
        assert time.monotonic() - begun < 10  # three signs of life and two seconds, on a machine that has other things to do
        source.close()
        again = plant.source()
        with pytest.raises(Unavailable):  # a new connection is taken and nothing said
            again.open(edge.memory.get)
        again.close()
        plant.proxy.mend()
        edge.settle(1.5)
        said += plant.say(5)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.close()
        assert edge.numbers == said
        assert not edge.gaps


def test_a_server_that_is_frozen_is_noticed(tmp_path: Path) -> None:
    with line1(tmp_path) as plant:
        source = plant.source()
        source.open(lambda name: None)
        plant.server.pause()
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            until_lost(Edge(plant), source)
        assert time.monotonic() - begun < 10
        source.close()


def test_a_server_started_anew_with_other_namespace_indexes(tmp_path: Path) -> None:
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        edge.open()
        said = list(plant.say(10))
        edge.until(lambda: said[-1] in edge.numbers)
        plant.server.kill()
        plant.server.start(before=3)
        edge.settle(1.5)
        said += plant.say(10)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.close()
        assert {reading.tag for reading in edge.readings} == {"Line1/Count", "Line1/Idle"}
        assert {gap.tags for gap in edge.gaps} == {("Line1/Count", "Line1/Idle")}  # its values have new times, of which nobody knows more
        edge.accounted(said)


def test_a_server_that_gives_old_tokens_to_others_after_a_restart(tmp_path: Path) -> None:
    """asyncua's server counts its tokens and subscriptions from the beginning again: nobody takes up the session of somebody else."""
    with line1(tmp_path) as plant:
        first, second = Edge(plant), Edge(plant)
        said = list(plant.say(1))
        for edge in (first, second):
            edge.open()
            edge.until(lambda edge=edge: said[-1] in edge.numbers)  # type: ignore[misc]
            edge.close()
        plant.server.kill()
        plant.server.start()
        second.open()  # is now the first that comes
        first.open()
        said += plant.say(10)
        for edge in (second, first):
            edge.until(lambda edge=edge: said[-1] in edge.numbers)  # type: ignore[misc]
            edge.close()
            edge.accounted(said)


def test_an_item_that_vanished_is_a_gap_and_is_taken_up_when_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OPCUA_AGAIN_S", 0.3)
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        edge.open()
        edge.until(lambda: len(edge.readings) == 2)
        plant.down()
        plant.server.do("remove", name="Idle")
        plant.up()
        edge.settle()
        (gap,) = edge.gaps
        assert (gap.kind, gap.tags, gap.until) == ("disconnected", ("Line1/Idle",), None)
        assert "no more" in gap.reason
        edge.kill()
        edge.settle()  # said once
        assert edge.gaps == [gap]
        plant.server.do("put_back", name="Idle", value=8)
        edge.until(lambda: edge.readings[-1].value == 8)
        assert [filled.gap for filled in edge.filled] == [gap.id]
        other = edge.gaps[-1]
        assert (other.tags, other.until) == (("Line1/Idle",), edge.readings[-1].at)
        said = plant.say(3)  # and the others went on
        edge.until(lambda: said[-1] in edge.numbers)
        edge.close()
        assert len(edge.gaps) == 2


def test_items_that_are_new_after_a_cut_are_read(tmp_path: Path) -> None:
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        edge.open()
        edge.until(lambda: len(edge.readings) == 2)
        plant.down()
        plant.server.do("put_back", name="Further", value=3)
        plant.up()
        edge.until(lambda: any(reading.tag == "Line1/Further" for reading in edge.readings))
        edge.close()
        assert not edge.gaps


def test_items_watched_just_before_a_kill_are_not_read_twice(tmp_path: Path) -> None:
    """The server still watches for the process that died what the next one lets it watch as well."""
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        edge.open()
        edge.until(lambda: len(edge.readings) == 2)
        edge.kill()
        plant.server.do("put_back", name="Further", value=3)
        for _ in range(3):
            edge.open()
            edge.kill()
        edge.until(lambda: len(edge.readings) == 3)
        for value in (4, 5):
            plant.server.do("write", name="Further", value=value, kind="Int64")
        edge.settle()
        edge.close()
        assert [reading.value for reading in edge.readings[2:]] == [3, 4, 5]
        assert not edge.gaps


def test_other_settings_make_another_subscription(tmp_path: Path) -> None:
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        edge.open()
        said = list(plant.say(5))
        edge.until(lambda: said[-1] in edge.numbers)
        edge.kill()
        plant._changed = {"starts": (Start("p:Line1", "Line1", but=("Idle",)),)}
        edge.open()
        said += plant.say(5)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.close()
        assert edge.numbers == said
        assert [gap.tags for gap in edge.gaps] == [("Line1/Idle",)]  # known, and read no more


def test_a_dead_band_that_is_new_holds_at_once(tmp_path: Path) -> None:
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        edge.open()
        edge.until(lambda: len(edge.readings) == 2)
        edge.kill()
        plant._changed = {"dead_band": 5.0}
        edge.open()
        edge.settle()
        for value in (8, 20):
            plant.server.do("write", name="Idle", value=value, kind="Int64")
        edge.until(lambda: len(edge.readings) == 3)
        edge.close()
        assert edge.readings[2].value == 20
        assert not edge.gaps


def test_gaps_are_told_once_whatever_dies(tmp_path: Path) -> None:
    with line1(tmp_path, forgets=True) as plant:
        edge = Edge(plant)
        edge.open()
        said = list(plant.say(10))
        edge.until(lambda: said[-1] in edge.numbers)
        plant.down()
        said += plant.say(10)
        plant.up()
        edge.kill()
        for _ in range(3):  # opened, looked, and killed before anything was durable
            edge.open()
            edge.receive()
            edge.receive()
            edge.kill()
        edge.settle(1.5)
        edge.close()
        assert len(edge.gaps) == 1
        edge.accounted(said)
        assert dataclasses.is_dataclass(edge.gaps[0])
