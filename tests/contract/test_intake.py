"""Intake on a real log: lines held alone, repeats counted, what the log cannot hold, and re-drive that never loses an entry."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from events.errors import Refused
from hub.app.wiring import mappings
from hub.intake.delivery import Delivery
from hub.intake.door import Intake
from hub.intake.mapping import Context, Held, Line, Part
from hub.intake.redrive import redrive_entry
from hub.log.migrate import migrate
from hub.log.store import Log
from projections.quarantine import entries
from tests.contract.replay.replay_suite import follow
from tests.facts import as_role

AT = datetime(2026, 1, 5, 6, tzinfo=UTC)
Rows = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def owner_url(fresh_database: str) -> str:
    migrate(fresh_database)
    return fresh_database


@pytest.fixture
def log(owner_url: str) -> Iterator[Log]:
    with Log(as_role(owner_url, "hub_door")) as opened:
        yield opened


@pytest.fixture
def held(owner_url: str) -> Rows:
    """What the quarantine view lists now."""

    def listed() -> list[dict[str, Any]]:
        follow(owner_url, "quarantine")
        with psycopg.connect(as_role(owner_url, "hub_read")) as connection, connection.cursor() as cursor:
            return entries(cursor)

    return listed


def row(key: str, quantity: str = "1", **more: Any) -> dict[str, Any]:
    thing = {"item": "A", "lot": "L", "quantity": {"value": quantity, "unit": "EA"}}
    data = {"receipt": key, "things": [thing], "location": "WH"}
    return {"type": "procurement.goods_received", "source": "erp", "key": key, "occurred_at": "2026-01-05T06:00:00Z", "data": data, **more}


def delivery(value: Any) -> Delivery:
    return Delivery(value if isinstance(value, bytes) else json.dumps(value).encode(), "test", AT)


def outcomes(intake: Intake, value: Any) -> list[str]:
    return [line.outcome for part in intake.take([delivery(value)])[0].parts for line in part.lines]


def test_a_conflict_that_is_driven_again_stays_held(log: Log, held: Rows) -> None:
    intake = Intake(log, mappings())
    assert outcomes(intake, row("R1", "10")) == ["accepted"]
    assert outcomes(intake, row("R1", "11")) == ["conflict"]
    (entry,) = held()
    outcome, added, reason = redrive_entry(log, intake, entry)
    assert (outcome, added) == ("conflict", 0)
    assert "taken by other content at position 1" in reason
    assert held() == [entry]
    assert outcomes(intake, row("R1", "11")) == ["conflict"]
    assert [(e["id"], e["times"]) for e in held()] == [(entry["id"], 2)]


def test_driving_again_is_no_arrival(log: Log, held: Rows) -> None:
    intake = Intake(log, mappings())
    intake.take([delivery(b"neither json nor edi")])
    (entry,) = held()
    for _ in range(2):
        assert redrive_entry(log, intake, entry)[0] == "quarantined"
    assert held()[0]["times"] == 1


class Mistaken:
    """A mapping with a mistake in it: nobody can tell whose its deliveries are."""

    name = "mistaken/1"
    priority = 1

    def recognises(self, body: bytes) -> bool:
        return True

    def read(self, body: bytes, context: Context) -> list[Part]:
        raise ValueError("a mistake")


def test_driving_again_what_fails_still_adds_nothing(log: Log, held: Rows) -> None:
    intake = Intake(log, [Mistaken()])
    intake.take([delivery(row("R1", "1"))])
    (entry,) = held()
    for _ in range(2):
        assert redrive_entry(log, intake, entry)[:2] == ("quarantined", 0)
    assert held() == [entry]
    assert log.head() == 1


class Later:
    """A mapping that appears after a delivery was held: each line is `KEY QUANTITY`."""

    name = "later/1"
    priority = 1

    def recognises(self, body: bytes) -> bool:
        return body.startswith(b"LATER")

    def read(self, body: bytes, context: Context) -> list[Part]:
        (canonical,) = (m for m in mappings() if m.name.startswith("canonical-json"))
        lines: list[Line | Held] = []
        for text in body.decode().splitlines()[1:]:
            key, quantity = text.split()
            ((line,),) = (part.lines for part in canonical.read(json.dumps(row(key, quantity)).encode(), context))
            lines.append(Held(key, line.reason, line.place) if isinstance(line, Held) else Line(key, line.facts))
        return [Part(1, "later", "erp", lines)]


def test_a_part_that_maps_later_settles_and_its_bad_lines_get_entries_of_their_own(log: Log, held: Rows) -> None:
    body = b"LATER\nR1 1\nR2 minus\nR3 3\n"
    intake = Intake(log, mappings())
    intake.take([delivery(row("R3", "4")), delivery(body)])
    (entry,) = held()
    outcome, added, reason = redrive_entry(log, Intake(log, [*mappings(), Later()]), entry)
    assert (outcome, added) == ("quarantined", 1)
    assert "decimal string" in reason
    assert sorted((e["kind"], e["line"]) for e in held()) == [("conflict", "R3"), ("quarantined", "R2")]
    assert log.find("erp", "R1") is not None


@pytest.fixture
def strict_log(owner_url: str) -> None:
    """A log that refuses one source, as a server may refuse what we did not foresee."""
    with psycopg.connect(owner_url) as connection:
        connection.execute("alter table log.event add constraint picky check (source <> 'poison' or type like 'integration.%')")


@pytest.mark.usefixtures("strict_log")
def test_what_the_log_cannot_hold_is_quarantined_and_holds_up_nothing_else(log: Log, held: Rows) -> None:
    intake = Intake(log, mappings())
    batch = [delivery(row(f"R{n}", source="poison" if n in (2, 5) else "erp")) for n in range(8)]
    found = [outcome.outcome for outcome in intake.take(batch)]
    assert found == ["accepted", "accepted", "quarantined", "accepted", "accepted", "quarantined", "accepted", "accepted"]
    assert [("cannot hold it" in e["reason"], e["source"]) for e in held()] == [(True, "poison")] * 2
    assert log.body(bytes.fromhex(held()[0]["sha256"])) == batch[2].body


def test_a_stream_of_any_length_is_held_under_a_short_name(log: Log) -> None:
    intake = Intake(log, mappings())
    names = ["\U00020000" * 3000 + end for end in ("a", "b", "a")]
    for n, name in enumerate(names):
        assert outcomes(intake, row(f"K{n}", type="inventory.fact_retracted", data={"original": name})) == ["accepted"]
    found = [(fact.stream, fact.version) for fact in log.read(0, 10)]
    assert found[0][0] == found[2][0] != found[1][0]
    assert [version for _, version in found] == [1, 1, 2]


@pytest.mark.parametrize(
    "value", ["20260105", "2026-01-05", 20260105, "2026-01-05T06:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00"]
)
def test_only_moments_are_times(log: Log, value: object) -> None:
    data = {"order": "O", "item": "A", "quantity": {"value": "1", "unit": "EA"}, "due_at": value}
    intake = Intake(log, mappings())
    rows = [row("A"), row("B", type="production.order_released", data=data), row("C", occurred_at=value)]
    assert outcomes(intake, rows) == ["accepted", "quarantined", "quarantined"]


def test_no_digit_is_rounded_away(log: Log) -> None:
    intake = Intake(log, mappings())
    assert outcomes(intake, row("R1", "99999999999999999999.123456789012")) == ["accepted"]
    assert outcomes(intake, row("R1", "99999999999999999999.123456789499")) == ["conflict"]
    found = log.find("erp", "R1")
    assert found is not None
    assert found.event.data()["things"][0]["quantity"]["value"] == "99999999999999999999.123456789012"


def test_bad_rows_of_a_batch_are_held_alone(log: Log, held: Rows) -> None:
    intake = Intake(log, mappings())
    assert outcomes(intake, [row("R1"), {"type": "nonsense"}, row("R2", "-1"), row("R3")]) == [
        "accepted",
        "quarantined",
        "quarantined",
        "accepted",
    ]
    assert [e["line"] for e in held()] == ["2", "3"]


def test_a_refusal_by_the_log_is_no_outage(log: Log) -> None:
    with pytest.raises(Refused, match="cannot hold it"):
        log.select("select 1 / (select 0 where %s)", [True])


def test_known_facts_in_other_bytes_are_on_the_disk_before_they_are_acknowledged(owner_url: str) -> None:
    """Nothing is appended then. The log writer would flush the bytes too, but later: not in all of twenty rounds at once."""
    with psycopg.connect(owner_url, autocommit=True) as watch:

        class Watched(Log):
            kept = ""

            def keep(self, deliveries: Any) -> None:
                super().keep(deliveries)
                ((self.kept,),) = watch.execute("select pg_current_wal_insert_lsn()::text").fetchall()

        with Watched(as_role(owner_url, "hub_door")) as log:
            intake = Intake(log, mappings())
            intake.take([delivery(row("K"))])
            for n in range(1, 20):
                intake.take([delivery(json.dumps(row("K")).encode() + b" " * n)])
                ((flushed,),) = watch.execute("select pg_current_wal_flush_lsn() >= %s::pg_lsn", [log.kept]).fetchall()
                assert flushed
