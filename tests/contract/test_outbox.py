"""The sender against a real server: each posting makes one document, whatever fails; counted in that server's own database."""

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg import connect

from events.base import Envelope, Event, Fact
from events.errors import Unavailable
from events.posting import PostingIntended, PostingResumed, PostingRetried, PostingSkipped
from hub import points
from hub.app.worker import Heads
from hub.log.follow import Follower
from hub.log.migrate import migrate
from hub.log.store import Log
from hub.outbox.sender import Head, Sender, due, said
from projections import postings
from replay.promote import promote
from replay.rebuild import rebuild
from tests.conftest import new_database
from tests.contract.posting_target import HttpTarget, Server
from tests.facts import as_role

AT = datetime(2026, 1, 5, 6, tzinfo=UTC)


class Ledger:
    """A log, the view of its postings, and a target."""

    def __init__(self, owner_url: str, server: Server) -> None:
        self.owner_url, self.server = owner_url, server
        self.log = Log(as_role(owner_url, "hub_door"))
        self.follower = Follower(as_role(owner_url, "hub_follow"), postings.Postings())
        self.follower.ensure()
        self.target = HttpTarget(server)
        self._heads = Heads(as_role(owner_url, "hub_read"), "erp")

    def close(self) -> None:
        """Give all connections back; what is used next opens others."""
        for one in (self.follower, self.log, self._heads):
            one.close()

    def intend(self, *names: str, lane: str = "l1") -> None:
        bodies = {name: {"receipt": name, "quantity": "10.5"} for name in names}
        self.log.append(
            [
                Fact(
                    Envelope(source="workflow:test", key=name, occurred_at=AT, effective_at=AT),
                    PostingIntended(posting=name, target="erp", lane=lane, document="receipt", body=body),
                )
                for name, body in bodies.items()
            ]
        )

    def decide(self, event: Event) -> None:
        self.log.append([said(event, "ann", AT)])

    def heads(self) -> list[Head]:
        while self.follower.step():
            pass
        return self._heads()

    def sender(self, **more: Any) -> Sender:
        given = {"settle_s": 1.5, "late_s": 2.5, "at_once": 4} | more
        return Sender(self.target, self.log, self.heads, **given)

    def states(self) -> dict[str, str]:
        self.heads()
        with connect(as_role(self.owner_url, "hub_read")) as connection, connection.cursor() as cursor:
            return {row["posting"]: row["state"] for row in postings.listed(cursor, settled=True)}

    def types(self, posting: str) -> list[str]:
        return [fact.event.type.removeprefix("integration.posting_") for fact in self.log.read(0, 1000, stream=f"posting/{posting}")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def ledger(pg_owner_url: str, server: Server) -> Iterator[Ledger]:
    with new_database(pg_owner_url) as url:
        migrate(url)
        made = Ledger(url, server)
        yield made
        made.close()


def run(sender: Sender, until: Callable[[], bool], seconds: float = 30.0) -> None:
    """Step until something is so, as the program does."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        with contextlib.suppress(Unavailable):
            sender.step()
        time.sleep(0.02)
    sender.settle()


def test_each_posting_makes_one_document_in_the_order_of_its_lane(ledger: Ledger) -> None:
    for lane in "abc":
        ledger.intend(*(f"{lane}{n}" for n in range(5)), lane=lane)
    run(ledger.sender(), lambda: set(ledger.states().values()) == {"verified"})
    documents = ledger.server.documents()
    assert len(documents) == 15
    for lane in "abc":
        assert [key for key, _ in documents if key.startswith(lane)] == [f"{lane}{n}" for n in range(5)]
    assert dict(documents)["a0"] == {"receipt": "a0", "quantity": "10.5"}
    assert ledger.types("a0") == ["intended", "sent", "accepted", "verified"]


def test_an_answer_that_is_lost_is_asked_for_and_nothing_is_sent_again(ledger: Ledger) -> None:
    ledger.intend("r1", "r2")
    ledger.server.be(after_s=2, times=1)
    run(ledger.sender(), lambda: ledger.states() == {"r1": "verified", "r2": "verified"})
    assert [key for key, _ in ledger.server.documents()] == ["r1", "r2"]
    assert ledger.types("r1") == ["intended", "sent", "outcome_unknown", "accepted", "verified"]
    assert ledger.target.sends == ["r1", "r2"]


def test_a_request_that_lands_after_it_was_sent_again_makes_no_second_document(ledger: Ledger) -> None:
    ledger.intend("r1")
    ledger.server.be(before_s=6, times=1)  # nobody knows of it until long after we have asked in vain
    run(ledger.sender(late_s=1.0), lambda: ledger.states() == {"r1": "verified"})
    assert ledger.target.sends == ["r1", "r1"]
    assert ledger.types("r1") == ["intended", "sent", "outcome_unknown", "sent", "accepted", "verified"]
    time.sleep(6)  # the first has landed now
    assert [key for key, _ in ledger.server.documents()] == ["r1"]


def test_an_unknown_one_is_never_sent_again_to_a_target_that_takes_it_twice(ledger: Ledger) -> None:
    ledger.target = HttpTarget(ledger.server, refuses_twice=False)
    ledger.intend("r1", "r2")
    ledger.server.be(before_s=3, times=1)
    sender = ledger.sender(late_s=0.1)
    run(sender, lambda: ledger.states()["r1"] == "unknown")
    end = time.monotonic() + 1.5
    run(sender, lambda: time.monotonic() > end)
    assert ledger.target.sends == ["r1"]
    run(sender, lambda: ledger.states() == {"r1": "verified", "r2": "verified"})
    assert ledger.target.sends == ["r1", "r2"], "it was found when it landed"


def test_what_is_rejected_stops_its_lane_and_no_other_until_a_person_decides(ledger: Ledger) -> None:
    ledger.server.be(reject="the period is closed", times=1)
    ledger.intend("r1", "r2")
    sender = ledger.sender()
    run(sender, lambda: ledger.states()["r1"] == "rejected")
    ledger.intend("s1", lane="l2")
    run(sender, lambda: ledger.states()["s1"] == "verified")
    assert ledger.states() == {"r1": "rejected", "r2": "intended", "s1": "verified"}
    with connect(as_role(ledger.owner_url, "hub_read")) as connection:
        assert connection.execute("select kind, reason from view_postings.exception").fetchall() == [
            ("posting_rejected", "erp does not take it: the period is closed")
        ]
    ledger.decide(PostingRetried(posting="r1", attempt=1, reason="opened again"))
    run(sender, lambda: set(ledger.states().values()) == {"verified"})
    assert [key for key, _ in ledger.server.documents()] == ["s1", "r1", "r2"]
    with connect(as_role(ledger.owner_url, "hub_read")) as connection:
        assert connection.execute("select count(*) from view_postings.exception").fetchone() == (0,)


def test_what_a_person_skips_is_settled_without_the_target(ledger: Ledger) -> None:
    ledger.server.be(reject="no", times=1)
    ledger.intend("r1", "r2")
    sender = ledger.sender()
    run(sender, lambda: ledger.states()["r1"] == "rejected")
    ledger.decide(PostingSkipped(posting="r1", reason="booked by hand as 4711"))
    run(sender, lambda: ledger.states() == {"r1": "skipped", "r2": "verified"})
    assert [key for key, _ in ledger.server.documents()] == ["r2"]


def test_a_target_that_is_away_is_waited_for(ledger: Ledger) -> None:
    ledger.server.stop()
    ledger.intend("r1", "r2")
    sender = ledger.sender()
    for _ in range(5):
        with pytest.raises(Unavailable):
            sender.step()
    assert ledger.types("r1") == ["intended"], "nothing is claimed that cannot leave"
    ledger.server.start()
    run(sender, lambda: set(ledger.states().values()) == {"verified"})
    assert len(ledger.server.documents()) == 2


def test_a_document_that_says_something_else_is_held(ledger: Ledger) -> None:
    ledger.server.be(garble=True, times=1)
    ledger.intend("r1", "r2")
    sender = ledger.sender()
    run(sender, lambda: ledger.states()["r1"] == "held")
    with connect(as_role(ledger.owner_url, "hub_read")) as connection:
        ((reason,),) = connection.execute("select reason from view_postings.exception").fetchall()
    assert reason == 'held: D1 of erp says otherwise: quantity is "0", not "10.5"'
    ledger.decide(PostingResumed(posting="r1", number=1, reason="corrected there"))
    with contextlib.closing(sqlite3.connect(ledger.server.file)) as db:
        db.execute("update document set body = replace(body, '\"0\"', '\"10.5\"')")
        db.commit()
    run(sender, lambda: set(ledger.states().values()) == {"verified"})


@pytest.mark.parametrize("point", points.OUTBOX)
def test_a_kill_at_any_point_makes_one_document(ledger: Ledger, point: str) -> None:
    ledger.intend("r1", "r2")
    ledger.close()
    child = os.fork()
    if not child:
        try:
            points.arm(lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == point else None)
            ledger.target = HttpTarget(ledger.server)
            run(ledger.sender(), lambda: False, 10)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    run(ledger.sender(), lambda: set(ledger.states().values()) == {"verified"})
    assert [key for key, _ in ledger.server.documents()] == ["r1", "r2"]


def test_two_senders_send_each_attempt_once(ledger: Ledger) -> None:
    for lane in range(8):
        ledger.intend(*(f"{lane}-{n}" for n in range(3)), lane=str(lane))
    one, other = ledger.sender(), ledger.sender()

    def both() -> bool:
        with contextlib.suppress(Unavailable):
            other.step()
        return set(ledger.states().values()) == {"verified"}

    run(one, both, 60)
    other.settle()
    assert len(ledger.server.documents()) == 24
    assert sorted(ledger.target.sends) == sorted(key for key, _ in ledger.server.documents()), "no attempt left twice"


def test_a_rebuild_and_its_promotion_send_nothing(ledger: Ledger) -> None:
    ledger.intend("r1", "r2")
    sender = ledger.sender()
    run(sender, lambda: set(ledger.states().values()) == {"verified"})
    url = as_role(ledger.owner_url, "hub_follow")
    rebuild(url, [postings.Postings()])
    promote(url, [postings.Postings()])
    for _ in range(5):
        assert sender.step() == 0
    assert ledger.target.sends == ["r1", "r2"]


@pytest.mark.parametrize(
    ("state", "waited_s", "action"),
    [
        ("intended", 0.0, "send"),
        ("sent", 0.5, "wait"),
        ("sent", 1.0, "ask"),
        ("unknown", 0.0, "ask"),
        ("accepted", 0.0, "verify"),
        ("rejected", 99.0, "wait"),
        ("held", 99.0, "wait"),
    ],
)
def test_what_is_due(state: Any, waited_s: float, action: str) -> None:
    assert due(Head("p", "l", "receipt", state, 1, "", 0, {}, 7), waited_s, settle_s=1.0) == action
