"""From the spool to the log: over real TLS and through a line that is cut, held and restored; counted in the hub's database by SQL."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.edge import forwarder as forwarding
from adapters.edge import wire
from adapters.edge.forwarder import Forwarder
from adapters.edge.loops import Meaning, ReadingLoop
from adapters.edge.plant import ContextRule, CountRule, Plant, Tags
from adapters.edge.spool import Entry, Spool
from events.errors import Refused, Unavailable
from hub import limits
from hub.app.demo.line import CUT, HOLD, PASS
from hub.intake.readings import Filled, Gap, Observed, Reading, Value
from tests.contract.edge_hub import EdgeHub, edge_hub, until

AT = datetime(2026, 1, 5, 6, tzinfo=UTC)
STOP = threading.Event()


@pytest.fixture
def hub(pg_owner_url: str, tmp_path: Path) -> Iterator[EdgeHub]:
    with edge_hub(pg_owner_url, tmp_path) as running:
        yield running


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db", "plant-1")
    yield opened
    opened.close()


def item(key: str) -> Entry:
    fact = {
        "type": "masterdata.item_defined",
        "source": "erp:x",
        "key": key,
        "occurred_at": "2026-01-05T06:00:00Z",
        "data": {"item": key, "base_unit": "EA"},
    }
    return Entry(json.dumps(fact).encode(), "http", AT, {"content_type": "application/json"})


@contextlib.contextmanager
def running(line: Forwarder) -> Iterator[None]:
    """A forwarder that runs by itself."""
    stop = threading.Event()
    thread = threading.Thread(target=line.run, args=(stop, lambda text: None))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def drain(line: Forwarder) -> None:
    while line.step(STOP):
        pass


def test_what_was_spooled_is_in_the_log_in_its_order_once(hub: EdgeHub, spool: Spool) -> None:
    spool.append("erp", [item(f"I{n}") for n in range(1200)])
    line = hub.line(spool)
    drain(line)
    assert hub.logged() == [f"I{n}" for n in range(1200)]
    assert [(lane.backlog, lane.bytes) for lane in spool.lanes()] == [(0, 0)]
    assert hub.select("select transport, convert_from(headers, 'UTF8')::jsonb ->> 'n' from log.delivery order by 2 limit 1") == [
        ("http", "1")
    ]


def test_an_answer_that_is_lost_makes_nothing_twice(hub: EdgeHub, spool: Spool) -> None:
    spool.append("erp", [item("I1"), item("I2")])
    line = hub.line(spool)
    line.step(STOP)
    spool.append("erp", [item("I3")])
    body = wire.packed("plant-1", spool.epoch, "2026-01-05T06:00:00Z", spool.waiting(10, 1 << 20))
    with httpx.Client(verify=hub.tls()) as client:  # what the forwarder sent, and did not hear of
        assert client.post(hub.url + wire.PATH, content=body).json()["lanes"] == {"erp": 3}
        assert client.post(hub.url + wire.PATH, content=body).json()["outcomes"] == {"duplicate": 1}
    again = hub.line(spool)
    drain(again)
    assert hub.logged() == ["I1", "I2", "I3"]


def test_the_largest_delivery_holds_up_nobody(hub: EdgeHub, spool: Spool) -> None:
    spool.append("files", [Entry(os.urandom(limits.DELIVERY_BYTES_MAX), "folder", AT)])
    spool.append("erp", [item("I1")])
    drain(hub.line(spool))
    assert "I1" in hub.logged()
    assert hub.select("select octet_length(body) from log.delivery where transport = 'folder'") == [(limits.DELIVERY_BYTES_MAX,)]
    assert [lane.backlog for lane in spool.lanes()] == [0, 0]


def test_a_spool_is_pruned_though_there_is_always_something_to_send(hub: EdgeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "PRUNE_S", 0.1)
    spool = Spool(tmp_path / "busy.db", "plant-1", keep_bytes=0, keep_s=0)
    line = hub.line(spool)
    prune, waiting = spool.prune, list[int]()

    def counted() -> int:
        waiting.append(spool.lanes()[0].backlog)
        return prune()

    monkeypatch.setattr(spool, "prune", counted)
    spool.append("erp", [item(f"I{n}") for n in range(3000)])
    with running(line):
        until(lambda: spool.lanes()[0].backlog == 0)
    assert any(waiting), "only when nothing was left to send"
    spool.close()


def test_a_line_that_is_cut_is_told_and_drains_when_it_is_back(hub: EdgeHub, spool: Spool) -> None:
    line = hub.line(spool)
    spool.append("erp", [item("I0")])
    with running(line):
        until(lambda: hub.logged() == ["I0"])
        hub.say(CUT)
        spool.append("erp", [item(f"I{n}") for n in range(1, 50)])
        until(lambda: not line.line.up)
        assert "cannot be reached" in line.line.trouble
        assert hub.logged() == ["I0"]
        hub.say(PASS)
        until(lambda: spool.lanes()[0].backlog == 0)
        until(lambda: line.line.up)
        assert hub.logged() == [f"I{n}" for n in range(50)]


def test_a_half_open_line_is_noticed_and_survived(hub: EdgeHub, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "SILENT_S", 0.5)
    line = hub.line(spool)
    line.step(STOP)
    hub.say(HOLD)
    spool.append("erp", [item("I1")])
    with pytest.raises(Unavailable, match="ReadTimeout"):
        line.step(STOP)
    hub.say(PASS)
    drain(line)
    assert hub.logged() == ["I1"]


def test_a_line_that_is_cut_while_nothing_is_sent_is_noticed(hub: EdgeHub, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "ASK_S", 0.2)
    line = hub.line(spool)
    with running(line):
        until(lambda: line.line.up)
        hub.say(CUT)
        until(lambda: not line.line.up)
        hub.say(PASS)
        until(lambda: line.line.up)


def test_a_hub_that_is_away_and_comes_back_gets_the_rest(hub: EdgeHub, spool: Spool) -> None:
    line = hub.line(spool)
    spool.append("erp", [item("I1")])
    drain(line)
    hub.stop()
    spool.append("erp", [item("I2")])
    with pytest.raises(Unavailable):
        line.step(STOP)
    hub.start()
    drain(line)
    assert hub.logged() == ["I1", "I2"]


def test_a_spool_that_was_put_back_from_a_copy_begins_a_new_epoch_and_loses_nothing(hub: EdgeHub, tmp_path: Path) -> None:
    old = Spool(tmp_path / "old.db", "plant-1")
    old.append("erp", [item("I1")])
    drain(hub.line(old))
    old.close()
    copy = (tmp_path / "old.db").read_bytes()
    old = Spool(tmp_path / "old.db", "plant-1")
    old.append("erp", [item("I2"), item("I3")])
    drain(hub.line(old))
    old.close()
    (tmp_path / "new.db").write_bytes(copy)
    restored = Spool(tmp_path / "new.db", "plant-1")
    before = restored.epoch
    restored.append("erp", [item("I4")])
    drain(hub.line(restored))
    assert restored.epoch != before
    assert [key for key in hub.logged() if key.startswith("I")] == ["I1", "I2", "I3", "I4"]
    assert hub.select(
        "select convert_from(data, 'UTF8')::jsonb ->> 'previous' from log.event where type = 'integration.edge_epoch_began'"
    ) == [(before,)]
    restored.close()


def test_a_spool_that_was_put_back_and_used_the_same_numbers_again_is_noticed(hub: EdgeHub, tmp_path: Path) -> None:
    """By its numbers alone it would be an edge that has more to send."""
    old = Spool(tmp_path / "old.db", "plant-1")
    old.append("erp", [item("I1")])
    drain(hub.line(old))
    old.close()
    copy = (tmp_path / "old.db").read_bytes()
    old = Spool(tmp_path / "old.db", "plant-1")
    old.append("erp", [item("I2"), item("I3")])
    drain(hub.line(old))
    old.close()
    (tmp_path / "new.db").write_bytes(copy)
    restored = Spool(tmp_path / "new.db", "plant-1")
    restored.append("erp", [item("I4"), item("I5"), item("I6")])  # while the line is down
    drain(hub.line(restored))
    assert [key for key in hub.logged() if key.startswith("I")] == ["I1", "I2", "I3", "I4", "I5", "I6"]
    assert len([key for key in hub.logged() if key.startswith("epoch:")]) == 1
    restored.close()


def test_a_hub_that_was_put_back_is_sent_what_is_kept_and_told_what_is_lost(hub: EdgeHub, tmp_path: Path) -> None:
    now = [AT]
    spool = Spool(tmp_path / "s.db", "plant-1", keep_bytes=0, keep_s=60, now=lambda: now[0])
    spool.append("erp", [item("I1"), item("I2")])
    drain(hub.line(spool))
    now[0] += timedelta(seconds=61)
    spool.prune()
    spool.append("erp", [Entry(item("I3").body, "http", now[0])])
    drain(hub.line(spool))
    hub.select("delete from intake.lane returning name")  # as from a backup of before
    drain(hub.line(spool))
    assert [key for key in hub.logged() if key.startswith("I")] == ["I1", "I2", "I3"]
    (gap,) = hub.select("select convert_from(data, 'UTF8')::jsonb from log.event where type = 'integration.gap_detected'")
    assert (gap[0]["first"], gap[0]["last"], gap[0]["producer"]) == (1, 2, "erp")  # type: ignore[index]
    spool.close()


def test_a_resend_changes_nothing_and_is_taken(hub: EdgeHub, spool: Spool) -> None:
    spool.append("erp", [item("I1"), item("I2")])
    line = hub.line(spool)
    drain(line)
    assert spool.send_again("erp", 1, 2) == 2
    assert line.step(STOP) == 2
    assert line.step(STOP) == 0
    assert hub.logged() == ["I1", "I2"]


def test_numbers_that_jump_are_refused(hub: EdgeHub, spool: Spool) -> None:
    spool.append("erp", [item("I1"), item("I2")])
    body = wire.packed("plant-1", spool.epoch, "2026-01-05T06:00:00Z", spool.waiting(10, 1 << 20)[1:])
    with httpx.Client(verify=hub.tls()) as client:
        reply = client.post(hub.url + wire.PATH, content=body)
    assert (reply.status_code, hub.logged()) == (409, [])
    assert "lane erp is at 0 here, entry 2 does not follow" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "cut short"),
        (b"garbage", "no batch"),
        (b"\x1f\x8b\x08\x00garbage", "cut short"),
        (wire.packed("plant-1", "e", "t", [])[:-4], "cut short"),
    ],
)
def test_garbage_is_refused_and_the_listener_goes_on(hub: EdgeHub, body: bytes, said: str) -> None:
    with httpx.Client(verify=hub.tls()) as client:
        reply = client.post(hub.url + wire.PATH, content=body)
        assert (reply.status_code, said in reply.json()["detail"]) == (400, True)
        assert client.get(hub.url + f"{wire.HELLO}?edge=plant-1&epoch=e").status_code == 200


def test_who_shows_no_certificate_or_one_of_somebody_else_is_not_heard(hub: EdgeHub, spool: Spool) -> None:
    spool.append("erp", [item("I1")])
    with pytest.raises(httpx.HTTPError), httpx.Client(verify=False) as client:
        client.get(hub.url + wire.HELLO)
    other = hub.line(spool, hub.tls("plant-2"))
    with pytest.raises(Refused, match="the certificate is of the edge 'plant-2'"):
        other.step(STOP)
    mine = hub.tls("plant-1")
    hub.authority.withdraw("plant-1")
    with pytest.raises(Refused, match="is not enrolled here: `hub edge enrol plant-1`"):
        hub.line(spool, mine).step(STOP)
    hub.tls("plant-1")
    with pytest.raises(Refused, match="was enrolled anew since"):
        hub.line(spool, mine).step(STOP)
    assert hub.logged() == []


def test_a_hub_of_another_authority_is_not_trusted(hub: EdgeHub, spool: Spool, tmp_path: Path) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        hub.line(spool, context).step(STOP)


def test_a_clock_that_is_ahead_is_told(hub: EdgeHub, spool: Spool) -> None:
    said: list[float] = []
    line = hub.line(spool, skewed=said.append, now=lambda: datetime.now(UTC) + timedelta(minutes=7))
    line.step(STOP)
    assert 415 < said[0] < 425
    assert line.line.skew_s == said[0]


class Source:
    """Readings from memory."""

    name = "memory"

    def __init__(self, *observed: Observed) -> None:
        self.observed, self.done = list(observed), 0

    def open(self, remembered: Any) -> None: ...
    def close(self) -> None: ...
    def check(self) -> list[str]:
        return []

    def receive(self, limit: int, wait_s: float) -> list[Observed]:
        found, self.observed = self.observed, []
        return found


def test_readings_and_gaps_are_in_the_log_with_their_bytes(hub: EdgeHub, spool: Spool) -> None:
    values: list[Value] = [True, -5, 2**63, "00123", "1E5", None, 1.5e300, float("nan"), "\x00\ud800"]
    readings = [Reading(f"t{n}", value, AT + timedelta(seconds=n), type="X") for n, value in enumerate(values)]
    gap = Gap("g1", "press", "sequence", "3 to 5 did not come", first=3, last=5)
    done = []
    source = Source(Observed("press", AT, readings, [gap], memory={"m": b"1"}, done=lambda: done.append(spool.state("m"))))
    loop = ReadingLoop(source, Meaning(Plant(clock=None), spool), spool, print)
    assert loop.step(STOP) == len(values)
    assert done == [b"1"], "acknowledged when it was durable"
    drain(hub.line(spool))
    rows = hub.select("select type, convert_from(data, 'UTF8')::jsonb from log.event order by position")
    assert [type_ for type_, _ in rows] == ["equipment.readings_recorded", "integration.gap_detected"]
    assert rows[0][1]["readings"] == len(values)  # type: ignore[index]
    assert (rows[1][1]["first"], rows[1][1]["last"]) == (3, 5)  # type: ignore[index]
    ((body,),) = hub.select("select convert_from(body, 'UTF8') from log.delivery")
    kept = [row[1] for row in json.loads(str(body))["readings"]]
    assert kept == [True, -5, 2**63, "00123", "1E5", None, "1.5e+300", "nan", {"hex": "00eda080"}]


def test_a_gap_that_is_told_and_filled_in_one_breath_is_closed(hub: EdgeHub, spool: Spool) -> None:
    gap, rest = (Gap(name, "press", "history", "away", since=AT, until=AT + timedelta(seconds=n)) for n, name in enumerate(("g", "g>"), 1))
    loop = ReadingLoop(
        Source(Observed("press", AT, [], [gap, rest], [Filled("g", "press", "history")])), Meaning(Plant(), spool), spool, print
    )
    loop.step(STOP)
    drain(hub.line(spool))
    rows = hub.select("select type, convert_from(data, 'UTF8')::jsonb ->> 'gap' from log.event order by position")
    assert rows.index(("integration.gap_filled", "g")) > rows.index(("integration.gap_detected", "g"))


def test_producers_that_alternate_make_an_entry_each_and_rules_see_what_came_in_its_order(spool: Spool) -> None:
    lot, good = ContextRule(name="lot", field="lot"), CountRule(name="good", counter="good")
    tags = tuple(Tags(tags=rule.name, equipment="press", rules=(rule,)) for rule in (lot, good))
    said: list[tuple[str, Value]] = [("lot", "L1"), ("good", 0), ("good", 5), ("lot", "L2"), ("good", 8), ("lot", "L3"), ("good", 9)]
    came = [
        Observed(tag, AT + timedelta(seconds=n), [Reading(tag, value, AT + timedelta(seconds=n))], memory={"m": b"%d" % n})
        for n, (tag, value) in enumerate(said)
    ]
    loop = ReadingLoop(Source(*came), Meaning(Plant(tags=tags, clock=None), spool), spool, print)
    assert loop.step(STOP) == len(said)
    entries = {entry.lane: json.loads(entry.body) for entry in spool.waiting(100, 1 << 20)}
    assert [(lane, [row[1] for row in body["readings"]]) for lane, body in sorted(entries.items())] == [
        ("good", [0, 5, 8, 9]),
        ("lot", ["L1", "L2", "L3"]),
    ]
    counted = [fact["data"] for body in entries.values() for fact in body["facts"] if fact["type"] == "equipment.count_reported"]
    assert [(one["lot"], one["quantity"]["value"]) for one in counted] == [("L1", "5"), ("L2", "3"), ("L3", "1")]
    assert spool.state("m") == b"6", "what was remembered last"


def test_an_edges_document_by_another_road_is_held(hub: EdgeHub, spool: Spool) -> None:
    loop = ReadingLoop(Source(Observed("press", AT, [Reading("t", 1, AT)])), Meaning(Plant(), spool), spool, print)
    loop.step(STOP)
    (document,) = spool.waiting(1, 1 << 20)
    from hub.app.wiring import mappings
    from hub.intake.delivery import Delivery
    from hub.intake.door import Intake
    from hub.log.store import Log
    from tests.facts import as_role

    with Log(as_role(hub.owner_url, "hub_door")) as log:
        (outcome,) = Intake(log, mappings(), {}).take([Delivery(document.body, "http", AT)])
    assert outcome.outcome == "quarantined"
    assert "came by another road" in str(outcome.parts[0].lines[0].reason)
