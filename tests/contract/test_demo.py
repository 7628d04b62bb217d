"""The demo, checked from outside as a stranger's program would: the sent-log against the log, commands against docs, kills, tampering, a copy.

Nothing here asks the hub's own account whether it is right: what was sent is counted in the plant's sent-log, what is stored by the commands.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from hub.app.home import Home
from hub.app.servers import process
from hub.app.servers.cluster import binaries, leftovers
from hub.app.servers.postgres import database
from hub.app.settings import Settings

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
ORDERS = "14"
KILLS = 20


@dataclass(frozen=True)
class Demo:
    """A finished headless run."""

    home: Path
    sent: tuple[Row, ...]
    summary: Row
    owner_url: str = ""

    def hub(self, *words: str, code: int = 0) -> str:
        """What a command prints on standard output."""
        done = subprocess.run([*HUB, *words], env=_env(self.home), cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, f"hub {' '.join(words)}: exit {done.returncode}, {code} expected\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def document(self, *words: str, code: int = 0) -> Row:
        found: Row = json.loads(self.hub(*words, "--json", code=code))
        return found

    def rows(self, *words: str) -> list[Row]:
        return [json.loads(line) for line in self.hub(*words, "--json").splitlines()]


HUB = (sys.executable, "-c", "from hub.app.cli import main; main()")


def _env(home: Path) -> dict[str, str]:
    return {**os.environ, "HUB_HOME": str(home), "PYTHONPATH": str(ROOT)}


def _start(home: Path) -> subprocess.Popen[str]:
    words = ["demo", "--headless", "--seed", "7", "--orders", ORDERS, "--sent-log", str(home.with_suffix(".sent")), "--json"]
    return subprocess.Popen([*HUB, *words], env=_env(home), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finished(home: Path, running: subprocess.Popen[str]) -> Demo:
    out, said = running.communicate(timeout=170)
    assert running.returncode == 0, said[-3000:]
    sent = tuple(json.loads(line) for line in home.with_suffix(".sent").read_text().splitlines())
    return Demo(home, sent, json.loads(out))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A finished run, its server kept up so that commands need not start it; when the last has gone, nothing is left running."""
    home = tmp_path_factory.mktemp("demo") / "home"
    found = _finished(home, _start(home))
    assert not leftovers(Home(home))
    with database(Settings(home=home)) as running:
        yield replace(found, owner_url=running.owner_url)
    assert process.wait_until(lambda: not leftovers(Home(home)), 10)


def test_everything_sent_is_there_once_and_nothing_else(demo: Demo) -> None:
    events = demo.rows("events", "read")
    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    versions = Counter(event["stream"] for event in events)
    assert all(event["version"] <= versions[event["stream"]] for event in events)
    stored = Counter((event["source"], event["business_key"]) for event in events if not event["type"].startswith("integration."))
    sent = {(line["source"], line["business_key"]) for line in demo.sent if line["expected"] in ("accepted", "duplicate")}
    assert stored == Counter(sent)
    held = demo.rows("quarantine", "list")
    conflicts = Counter((entry["source"], entry["business_key"]) for entry in held if entry["kind"] == "conflict")
    assert conflicts == Counter((line["source"], line["business_key"]) for line in demo.sent if line["expected"] == "conflict")
    unmapped = {entry["sha256"] for entry in held if entry["kind"] == "quarantined"}
    assert unmapped == {line["sha256"] for line in demo.sent if line["expected"] == "quarantined"}
    assert Counter(line["expected"] for line in demo.sent) == Counter(demo.summary["outcomes"])
    assert {"accepted", "duplicate", "conflict", "quarantined"} == {line["expected"] for line in demo.sent}


def test_the_summary_adds_up(demo: Demo) -> None:
    found = demo.summary
    assert found.keys() >= {"sent", "outcomes", "events", "exceptions", "ledger", "digests", "rebuilt", "elapsed_s"}
    assert found["sent"] == dict(sorted(Counter(line["source"] for line in demo.sent).items()))
    assert found["events"] == len(demo.rows("events", "read"))
    assert found["digests"] == found["rebuilt"]
    assert found["ledger"]
    assert set(found["ledger"].values()) == {"0"}
    assert found["exceptions"] == dict(Counter(row["kind"] for row in demo.rows("exceptions")))
    assert found["exceptions"]["over_receipt"] == 1


def test_a_used_home_is_refused(demo: Demo) -> None:
    demo.hub("demo", "--headless", "--orders", "1", "--json", code=2)


EVENT = {"position", "stream", "version", "type", "schema_version", "source", "business_key", "occurred_at", "effective_at", "recorded_at"}
ENTRY = {"id", "kind", "source", "business_key", "sha256", "place", "reason", "first_seen", "times"}
STATUS = {"processes", "database_url", "owner_url", "head", "views", "oldest_unprocessed_s", "quarantine", "exceptions"}
EDGE = {"from", "to", "kind", "quantity", "unit", "effective_at", "position"}
EDGE_KINDS = {"consumed", "produced", "split", "merged", "reworked", "packed", "unpacked", "shipped", "received", "returned"}
NODE_KINDS = {"lot", "serial", "handling_unit", "order", "purchase_order", "asn", "shipment"}


def test_commands_print_what_the_contract_says(demo: Demo, tmp_path: Path) -> None:
    assert demo.rows("events", "read", "--from", "5")[0].keys() >= EVENT | {"correlation", "data"}
    assert {row["type"] for row in demo.rows("events", "read", "--type", "production.order_released")} == {"production.order_released"}
    for row in [*demo.rows("quarantine", "list"), *demo.rows("exceptions")]:
        assert row.keys() >= ENTRY
    assert demo.document("status").keys() >= STATUS
    for row in demo.rows("stock"):
        assert row.keys() >= {"account", "item", "lot", "location", "status", "quantity", "unit", "position"}
        assert isinstance(row["quantity"], str)
        assert row["quantity"] != "0"
        assert row["account"] == f"location/{row['location']}"
    everywhere = demo.rows("stock", "--accounts", "all")
    assert {row["account"].partition("/")[0] for row in everywhere} > {"location", "supplier", "customer"}
    assert demo.document("doctor")["ok"] is True

    file = tmp_path / "facts.json"
    file.write_text('{"type": "nonsense", "source": "x", "key": "1", "occurred_at": "2026-01-05T06:00:00Z", "data": {}}')
    found = demo.document("intake", str(file), code=1)
    assert found["totals"] == {"accepted": 0, "duplicate": 0, "conflict": 0, "quarantined": 1}
    assert found["deliveries"][0].keys() >= {"path", "part", "sha256", "format", "outcome", "facts", "lines", "reason", "where"}
    (entry,) = [row for row in demo.rows("quarantine", "list") if row["sha256"] == found["deliveries"][0]["sha256"]]
    demo.document("intake", str(file), code=1)
    (again,) = [row for row in demo.rows("quarantine", "list") if row["sha256"] == entry["sha256"]]
    assert (again["id"], again["times"]) == (entry["id"], entry["times"] + 1)


def test_traces_of_all_kinds_of_ids(demo: Demo) -> None:
    events = demo.rows("events", "read")
    shipped = [e for e in events if e["type"] == "logistics.shipment_dispatched"]
    serial = next(t["serial"] for e in shipped for t in e["data"]["things"] if "serial" in t)
    found = demo.document("trace", serial)
    assert found["root"] == {"kind": "serial", "id": found["root"]["id"]}
    assert found["root"]["id"].endswith(f"/{serial}")
    assert {edge["kind"] for edge in found["edges"]} <= EDGE_KINDS
    assert {"consumed", "produced", "packed", "shipped", "received"} <= {edge["kind"] for edge in found["edges"]}
    assert {node["kind"] for node in found["nodes"]} == NODE_KINDS
    assert all(edge.keys() >= EDGE for edge in found["edges"])
    assert found.keys() >= {"complete", "because"}
    names = {(node["kind"], node["id"]) for node in found["nodes"]}
    assert {(edge["from_kind"], edge["from"]) for edge in found["edges"]} <= names
    backward = demo.document("trace", serial, "--backward")
    assert {"asn", "purchase_order", "lot"} <= {node["kind"] for node in backward["nodes"]}
    for kind, example in {node["kind"]: node["id"] for node in found["nodes"]}.items():
        assert demo.document("trace", f"{kind}:{example}")["root"] == {"kind": kind, "id": example}
    assert demo.document("trace", "NOT-THERE", code=1) == {"root": None}
    lots = Counter(t["lot"] for e in events for t in e["data"].get("things", []) if "lot" in t)
    assert demo.document("trace", lots.most_common(1)[0][0])["root"]["kind"] == "lot"


def test_a_row_changed_by_hand_is_named_and_restored(demo: Demo) -> None:
    assert all(view["equal"] for view in demo.document("replay", "verify")["views"].values())
    with psycopg.connect(demo.owner_url) as connection:
        changed = connection.execute(
            """update view_stock.balance set quantity = quantity + 1 where ctid = (
                 select ctid from view_stock.balance where account like 'location/%' order by item limit 1)
               returning account, status, item, lot, serial, unit"""
        ).fetchone()
        connection.execute("delete from view_timeline.entry where ctid = (select ctid from view_timeline.entry limit 1)")
        connection.commit()
        found = demo.document("replay", "verify", code=1)["views"]
        assert {name for name, view in found.items() if not view["equal"]} == {"stock", "timeline"}
        balance, entry = found["stock"]["tables"]["balance"], found["timeline"]["tables"]["entry"]
        assert (balance["differing"], balance["missing"], balance["extra"]) == (1, 0, 0)
        (key,) = balance["keys"]
        assert changed is not None
        assert tuple(key[name] for name in ("account", "status", "item", "lot", "serial", "unit")) == changed
        assert (entry["differing"], entry["missing"], entry["extra"]) == (0, 1, 0)
        rebuilt = demo.document("replay", "rebuild", "--all")
        assert rebuilt["views"].keys() == found.keys()
        assert all(view.keys() >= {"events", "seconds", "digest"} for view in rebuilt["views"].values())
        promoted = demo.document("replay", "promote", "--all")
        assert set(promoted["promoted"]) == found.keys()
        assert promoted["position"] == rebuilt["position"]
        assert all(view["equal"] for view in demo.document("replay", "verify")["views"].values())


def test_a_copy_of_the_log_alone_rebuilds_to_the_same_digests(demo: Demo, fresh_database: str) -> None:
    here = demo.document("replay", "rebuild", "--all")
    dump = subprocess.run(
        [_program("pg_dump"), "-n", "log", "--no-owner", "--no-privileges", demo.owner_url], capture_output=True, check=True, timeout=60
    )
    load = subprocess.run(
        [_program("psql"), "-q", "-v", "ON_ERROR_STOP=1", fresh_database], input=dump.stdout, capture_output=True, timeout=60
    )
    assert load.returncode == 0, load.stderr
    env = {**_env(demo.home.with_name("elsewhere")), "HUB_DATABASE_URL": fresh_database}
    done = subprocess.run([*HUB, "replay", "rebuild", "--all", "--json"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    assert there["position"] == here["position"]
    assert {name: view["digest"] for name, view in there["views"].items()} == {name: view["digest"] for name, view in here["views"].items()}


def test_twenty_kills_change_nothing_but_the_time(demo: Demo, tmp_path: Path) -> None:
    """kill -9 of the hub's processes alone while the same plan runs: the supervisor brings them back, the plant and the broker live on."""
    home, chance = tmp_path / "home", random.Random(7)
    running = _start(home)
    killed = 0
    while running.poll() is None and killed < KILLS:
        time.sleep(chance.uniform(0.1, 0.5))
        try:
            processes = json.loads((home / "run" / "processes.json").read_text())
        except (OSError, ValueError):
            continue
        ours = [one["pid"] for one in processes if one["role"].startswith("hub")]
        if ours:
            try:
                os.kill(chance.choice(ours), signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
    after = _finished(home, running)
    assert killed == KILLS
    assert {**after.summary, "elapsed_s": 0} == {**demo.summary, "elapsed_s": 0}
    events = after.rows("events", "read")
    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    assert len(events) == after.summary["events"]


def _program(name: str) -> str:
    return str(binaries() / name)


def test_a_log_that_nobody_followed_yet_verifies(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "home", (), {})
    file = tmp_path / "one.json"
    file.write_text(
        '{"type": "masterdata.item_defined", "source": "x", "key": "1", "occurred_at": "2026-01-05T06:00:00Z", "data": {"item": "A", "base_unit": "EA"}}'
    )
    assert demo.document("intake", str(file))["totals"]["accepted"] == 1
    assert all(view["equal"] for view in demo.document("replay", "verify")["views"].values())
