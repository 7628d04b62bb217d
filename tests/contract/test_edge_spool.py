"""The spool's promises on a real SQLite file: numbers without holes that never come twice, nothing dropped that the hub does not have."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adapters.edge.spool import Addition, Entry, Spool, SpoolFull
from events.errors import Corrupt, Refused, Unavailable
from hub.points import arm

START = datetime(2026, 1, 5, 6, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def entry(body: bytes = b"x", at: datetime = START) -> Entry:
    return Entry(body, "test", at, {"topic": "a/b"})


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db", "plant-1")
    yield opened
    opened.close()


def test_what_is_appended_waits_in_its_order_and_goes_when_the_hub_has_it(spool: Spool) -> None:
    assert spool.append("a", [entry(b"1"), entry(b"2")]) == 1
    assert spool.append("a", [entry(b"3")]) == 3
    assert [(e.lane, e.n, e.body) for e in spool.waiting(10, 1000)] == [("a", 1, b"1"), ("a", 2, b"2"), ("a", 3, b"3")]
    spool.acknowledge({"a": 2})
    assert [e.n for e in spool.waiting(10, 1000)] == [3]


def test_numbers_do_not_begin_again_after_pruning_and_restart(tmp_path: Path) -> None:
    clock = Clock()
    with_all_gone = Spool(tmp_path / "spool.db", "plant-1", keep_bytes=0, keep_s=0, now=clock)
    with_all_gone.append("a", [entry()] * 3)
    with_all_gone.acknowledge({"a": 3})
    clock.now += timedelta(seconds=1)
    assert with_all_gone.prune() == 3
    with_all_gone.close()
    again = Spool(tmp_path / "spool.db", "plant-1")
    assert again.append("a", [entry()]) == 4
    assert [e.n for e in again.waiting(10, 1000)] == [4]
    again.close()


def test_a_full_spool_refuses_all_of_an_addition_and_takes_it_when_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", "plant-1", bytes_max=10)
    spool.append("a", [entry(b"12345")])
    with pytest.raises(SpoolFull, match=r"at most 10 are allowed: bring the line to the hub back"):
        spool.append_all([Addition("a", lambda n: [entry(b"1")]), Addition("b", lambda n: [entry(b"123456")])], {"memory": b"new"})
    assert [(lane.name, lane.last) for lane in spool.lanes()] == [("a", 1)]
    assert spool.state("memory") is None
    spool.acknowledge({"a": 1})
    assert spool.append("b", [entry(b"123456")]) == 1
    spool.close()


def test_what_alone_is_more_than_the_bound_goes_into_an_empty_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", "plant-1", bytes_max=10)
    assert spool.append_all(
        [Addition("a", lambda first: [entry(b"123456"), entry(b"7890")]), Addition("b", lambda first: [entry(b"12345")])], {}
    ) == [1, 1]
    with pytest.raises(SpoolFull):
        spool.append("a", [entry(b"1")])
    spool.acknowledge({"a": 2, "b": 1})
    assert spool.append("a", [entry(b"12345678901")]) == 3
    spool.close()


def test_a_full_disk_is_told_and_nothing_of_the_batch_is_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", "plant-1")
    spool.append("a", [entry(b"first")])
    (pages,) = spool._db.execute("pragma page_count").fetchone()
    spool._db.execute(f"pragma max_page_count = {pages + 1}")
    with pytest.raises(SpoolFull, match=r"the disk of the spool .* is full"):
        spool.append("a", [entry(os.urandom(200_000))])
    assert [e.body for e in spool.waiting(10, 1 << 20)] == [b"first"]
    spool._db.execute("pragma max_page_count = 1000000")
    assert spool.append("a", [entry(os.urandom(200_000))]) == 2
    spool.close()


def test_every_lane_is_in_a_batch_however_long_another_waits(spool: Spool) -> None:
    spool.append("long", [entry()] * 1000)
    spool.append("short", [entry(b"now")])
    found = spool.waiting(100, 1 << 20)
    assert len(found) == 100
    assert [e.body for e in found if e.lane == "short"] == [b"now"]


def test_an_entry_larger_than_a_batch_goes_alone(spool: Spool) -> None:
    spool.append("a", [entry(b"x" * 1000), entry(b"y")])
    assert [len(e.body) for e in spool.waiting(10, 100)] == [1000]


def test_what_the_hub_has_is_kept_for_a_while_and_can_be_sent_again(tmp_path: Path) -> None:
    clock = Clock()
    spool = Spool(tmp_path / "spool.db", "plant-1", keep_bytes=1000, keep_s=60, now=clock)
    spool.append("a", [entry(bytes([n])) for n in range(5)])
    spool.acknowledge({"a": 4})
    assert spool.prune() == 0
    assert spool.send_again("a", 2, 9) == 3, "5 waits anyway"
    assert [e.n for e in spool.again(10, 1000)] == [2, 3, 4]
    spool.sent_again(spool.again(1, 1000))
    assert [e.n for e in spool.again(10, 1000)] == [3, 4]
    clock.now += timedelta(seconds=61)
    assert spool.prune() == 4
    assert [e.n for e in spool.waiting(10, 1000)] == [5], "the hub does not have it"
    assert spool.send_again("a", 1, 4) == 0
    spool.close()


def test_a_hub_that_was_put_back_gets_what_is_still_here_and_hears_what_is_not(tmp_path: Path) -> None:
    clock = Clock()
    spool = Spool(tmp_path / "spool.db", "plant-1", keep_bytes=0, keep_s=60, now=clock)
    spool.append("a", [entry(at=START)] * 3)
    spool.acknowledge({"a": 3})
    clock.now += timedelta(seconds=61)
    spool.prune()
    spool.append("a", [entry(at=clock.now)] * 3)
    spool.acknowledge({"a": 5})
    assert spool.rewind({"a": 1}) == [("a", 2, 3)]
    assert [e.n for e in spool.waiting(10, 1000)] == [4, 5, 6]
    assert spool.rewind({"a": 5}) == []
    spool.close()


def test_the_hub_cannot_have_what_was_never_given(spool: Spool) -> None:
    spool.append("a", [entry()])
    with pytest.raises(Corrupt, match="it has 7 of lane a, of which the spool gave 1"):
        spool.acknowledge({"a": 7})


def test_a_new_epoch_counts_from_one_and_keeps_what_waits(spool: Spool) -> None:
    spool.append("a", [entry(b"1"), entry(b"2"), entry(b"3")])
    spool.acknowledge({"a": 1})
    before = spool.epoch
    assert spool.new_epoch() != before
    assert [(e.n, e.body) for e in spool.waiting(10, 1000)] == [(1, b"2"), (2, b"3")]
    assert spool.append("a", [entry(b"4")]) == 3


def test_a_spool_of_another_edge_or_format_is_refused(tmp_path: Path) -> None:
    Spool(tmp_path / "spool.db", "plant-1").close()
    with pytest.raises(Refused, match=r"is of the edge 'plant-1', not of 'plant-2': correct `edge` or `spool\.path`"):
        Spool(tmp_path / "spool.db", "plant-2")
    connection = sqlite3.connect(tmp_path / "spool.db")
    connection.execute("update meta set format = 99")
    connection.commit()
    connection.close()
    with pytest.raises(Refused, match="has format 99"):
        Spool(tmp_path / "spool.db", "plant-1")


def test_a_file_that_is_no_spool_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(Corrupt, match="keep the file, move it away"):
        Spool(tmp_path / "spool.db", "plant-1")
    with pytest.raises(Unavailable, match="there is no spool"):
        Spool(tmp_path / "none.db", "", read_only=True)


@pytest.mark.parametrize("point", ["before spooled", "spooled"])
def test_a_kill_leaves_all_of_an_append_or_nothing(tmp_path: Path, point: str) -> None:
    path = tmp_path / "spool.db"
    Spool(path, "plant-1").close()
    child = os.fork()
    if not child:
        try:
            arm(lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == point else None)
            Spool(path, "plant-1").append_all([Addition("a", lambda n: [entry(b"1"), entry(b"2")])], {"memory": b"m"})
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    spool = Spool(path, "plant-1")
    durable = point == "spooled"
    assert [e.body for e in spool.waiting(10, 1000)] == ([b"1", b"2"] if durable else [])
    assert spool.state("memory") == (b"m" if durable else None)
    spool.close()


class SpoolMachine(RuleBasedStateMachine):
    """Any sequence of what can happen to a spool, beside a model of dicts."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.spool = self._open()
        self.sent: dict[str, list[bytes]] = {}  # of this epoch, by number - 1
        self.acked: dict[str, int] = {}
        self.gone: dict[str, int] = {}  # numbers up to which entries may be gone
        self.count = 0

    def _open(self) -> Spool:
        return Spool(Path(self.folder.name) / "spool.db", "plant-1", keep_bytes=40, keep_s=10, now=self.clock)

    def teardown(self) -> None:
        self.spool.close()
        self.folder.cleanup()

    @rule(lane=st.sampled_from("abc"), sizes=st.lists(st.integers(0, 30), max_size=4), seconds=st.integers(0, 8))
    def append(self, lane: str, sizes: list[int], seconds: int) -> None:
        self.clock.now += timedelta(seconds=seconds)
        bodies = [b"%d:" % (self.count + n) + b"x" * size for n, size in enumerate(sizes)]
        self.count += len(bodies)
        first = self.spool.append(lane, [entry(body, self.clock.now) for body in bodies])
        assert first == len(self.sent.get(lane, [])) + 1
        if bodies:
            self.sent.setdefault(lane, []).extend(bodies)
            self.acked.setdefault(lane, 0)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(self.sent)))
        n = data.draw(st.integers(0, len(self.sent[lane])))
        self.spool.acknowledge({lane: n})
        self.acked[lane] = max(self.acked[lane], n)

    @rule()
    def prune(self) -> None:
        self.spool.prune()
        self.gone = dict(self.acked)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(self.sent)))
        n = data.draw(st.integers(0, self.acked[lane]))
        lost = self.spool.rewind({lane: n})
        known = self.gone.get(lane, 0)
        assert all(found == lane and first == n + 1 and last <= known for found, first, last in lost), "only what was pruned is lost"
        self.acked[lane] = lost[0][2] if lost else n

    @rule()
    def new_epoch(self) -> None:
        self.spool.new_epoch()
        self.sent = {lane: bodies[self.acked[lane] :] for lane, bodies in self.sent.items()}
        self.acked = dict.fromkeys(self.sent, 0)
        self.gone = {}

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = self._open()

    @invariant()
    def what_the_hub_does_not_have_waits_whole_and_in_order(self) -> None:
        waiting: dict[str, list[bytes]] = {}
        for one in self.spool.waiting(10_000, 1 << 30):
            waiting.setdefault(one.lane, []).append(one.body)
        assert waiting == {lane: bodies[self.acked[lane] :] for lane, bodies in self.sent.items() if bodies[self.acked[lane] :]}

    @invariant()
    def what_is_counted_is_what_is_there(self) -> None:
        for lane in self.spool.lanes():
            assert (lane.last, lane.acked) == (len(self.sent[lane.name]), self.acked[lane.name])
            assert lane.bytes == sum(map(len, self.sent[lane.name][lane.acked :]))
        (kept,) = self.spool._db.execute("select coalesce(sum(kept), 0) from lane").fetchone()
        (there,) = self.spool._db.execute(
            "select coalesce(sum(length(body)), 0) from entry join lane on name = lane where n <= acked"
        ).fetchone()
        assert kept == there


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
