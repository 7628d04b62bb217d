"""The command line as a shell or a program meets it: exit codes, one line on standard error, nothing but JSON on standard output with --json."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from events.base import Envelope, Fact
from events.procurement import GoodsReceived
from events.vocabulary import Quantity, Thing
from hub import limits
from hub.app.cli import output
from hub.app.servers.process import free_port
from hub.app.settings import Settings
from hub.app.wiring import open_hub

ROOT = Path(__file__).resolve().parents[2]
HUB = (sys.executable, "-c", "from hub.app.cli import main; main()")
ODD = "K\x1b[2J\x85\u2028\u202e9"  # clears a screen, ends lines, turns the direction
RAW_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    said: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def refused(self, code: int, *words: str) -> None:
        """It ended with this code, one line on standard error that has these words, and nothing on standard output."""
        assert (self.code, self.out) == (code, ""), self
        assert self.said.startswith("hub: ")
        assert self.said.count("\n") == 1, self.said
        assert [word for word in words if word not in self.said] == [], self.said


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, "HUB_HOME": str(home), "PYTHONPATH": str(ROOT), **more}


def hub(home: Path, *words: str | bytes, **more: str) -> Ended:
    done = subprocess.run([*HUB, *words], env=environment(home, **more), cwd=ROOT, capture_output=True, timeout=120)
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def row(key: str, lot: str = "L1", item: str = "A", quantity: object = "5") -> dict[str, Any]:
    thing = {"item": item, "lot": lot, "quantity": {"value": quantity, "unit": "EA"}}
    data = {"receipt": key, "things": [thing], "location": "WH", "supplier": "ACME"}
    return {"type": "procurement.goods_received", "source": "erp:main", "key": key, "occurred_at": "2026-01-05T06:00:00Z", "data": data}


def write(file: Path, *rows: object) -> Path:
    file.write_text(json.dumps(list(rows)))
    return file


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a few facts, one of them with a hostile key, one conflict and one held line; its server runs."""
    folder = tmp_path_factory.mktemp("cli")
    path = folder / "home"
    with open_hub(Settings(home=path)) as opened:
        first = write(folder / "first.json", row("R1"), row("R2", lot="SAME", item="A"), row("R3", lot="SAME", item="B"))
        assert hub(path, "intake", str(first)).code == 0
        assert hub(path, "intake", str(write(folder / "second.json", row("R1", quantity="6"), row("R4", quantity="half")))).code == 1
        things = (Thing(item="A", lot="L2", quantity=Quantity(value=Decimal(1), unit="EA")),)
        at = datetime(2026, 1, 5, 6, tzinfo=UTC)
        envelope = Envelope(source="erp:main", key=ODD, occurred_at=at, effective_at=at)
        opened.log.append([Fact(envelope, GoodsReceived(receipt="R9", things=things, location="WH", supplier="ACME"))])
        yield path


MISUSED: list[tuple[list[str | bytes], list[str]]] = [
    (["nosuch"], ["nosuch", "hub --help"]),
    (["--nosuch"], ["--nosuch", "hub --help"]),
    (["intake"], ["Missing argument", "hub intake --help"]),
    (["intake", "/nonexistent/a.json"], ["/nonexistent/a.json", "No such file", "correct the path", "nothing was taken"]),
    (["intake", b"/nonexistent/\xff.json"], ["/nonexistent/\\xff.json", "No such file"]),
    (["intake", os.devnull], [os.devnull, "neither a file nor a folder", "give regular files"]),
    (["events", "read", "--from", "0"], ["--from", "greater than or equal to 1", "hub events read --help"]),
    (["events", "read", "--from", "9" * 30], ["--from", "hub events read --help"]),
    (["events", "read", "--from", "x"], ["--from", "valid integer"]),
    (["events", "read", "--stream", b"order/\xff"], ["argument 4", "order/\\udcff", "UTF-8"]),
    (["events", "explain"], ["POSITION|KEY", "hub events explain --help"]),
    (["events", "explain", b"a\xffb"], ["argument 3", "UTF-8"]),
    (["exceptions", "extra"], ["extra", "hub exceptions --help"]),
    (["demo", "--seed", "x"], ["--seed", "valid integer", "hub demo --help"]),
    (["demo", "--orders", "0"], ["--orders", "hub demo --help"]),
    (["demo", "--headless", "--sent-log", "/nonexistent/x"], ["--sent-log /nonexistent/x", "no such folder", "another"]),
    (["stock", "--accounts", "some"], ["--accounts", "own or all", "some"]),
    (["trace"], ["ID", "hub trace --help"]),
    (["trace", " "], ["empty", "give a lot"]),
    (["trace", b"a\xffb"], ["argument 2", "a\\udcffb", "UTF-8"]),
    (["quarantine", "redrive"], ["name the entries", "--all"]),
    (["quarantine", "redrive", "x", "--all"], ["name the entries", "--all"]),
    (["quarantine", "show"], ["ID", "hub quarantine show --help"]),
    (["replay", "rebuild"], ["name the views", "--all"]),
    (["replay", "rebuild", "nosuch"], ["nosuch", "the views are", "stock"]),
    (["replay", "verify", "nosuch"], ["nosuch", "the views are"]),
    (["relay", "restart"], ["--from", "hub relay restart --help"]),
    (["relay", "restart", "--from", "0"], ["--from", "hub relay restart --help"]),
    (["relay", "restart", "--from", "9"], ["the log has no fact at position 8", "one more than the head"]),
]


@pytest.mark.parametrize(("words", "said"), MISUSED, ids=[" ".join(map(str, words)) for words, _ in MISUSED])
def test_misuse_is_exit_2_and_one_line(tmp_path: Path, words: list[str | bytes], said: list[str]) -> None:
    hub(tmp_path / "home", *words, "--json").refused(2, *said)


@pytest.mark.parametrize("words", [(), ("events",), ("quarantine",), ("replay",), ("relay",)])
def test_a_group_without_a_command_shows_its_help(tmp_path: Path, words: tuple[str, ...]) -> None:
    found = hub(tmp_path, *words)
    assert (found.code, found.out) == (2, "")
    assert found.said.startswith(f"Usage: {' '.join(('hub', *words))} ")
    assert hub(tmp_path, *words, "--help") == Ended(0, found.said, "")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"HUB_LISTEN": "nowhere"}, ["HUB_LISTEN", "nowhere", "HOST:PORT"]),
        ({"HUB_DATABASE_URL": "mysql://x"}, ["HUB_DATABASE_URL", "postgresql://"]),
        ({"HUB_HOME": "/dev/null/home"}, ["/dev/null/home", "cannot be used", "HUB_HOME"]),
    ],
)
def test_a_wrong_configuration_is_exit_2_and_one_line(tmp_path: Path, more: dict[str, str], words: list[str]) -> None:
    home = more.pop("HUB_HOME", str(tmp_path))
    hub(Path(home), "stock", "--json", **more).refused(2, *words)


def test_a_database_that_is_not_there_is_exit_3_and_one_line(tmp_path: Path) -> None:
    for words in (["stock"], ["serve"], ["doctor"], ["intake", str(write(tmp_path / "a.json", row("R1")))]):
        url = "postgresql://o:canary@127.0.0.1:1/x"
        found = hub(tmp_path / "home", *words, "--json", HUB_DATABASE_URL=url, HUB_LISTEN=f"127.0.0.1:{free_port()}")
        found.refused(3, "127.0.0.1", "refused", "HUB_DATABASE_URL")
        assert "canary" not in found.said


LISTS = [["events", "read"], ["stock"], ["exceptions"], ["quarantine", "list"], ["status"], ["trace", "L1"], ["--help"]]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [w for words in LISTS for w in (words, [*words, "--json"]) if w != ["--help", "--json"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_error_and_a_full_disk_is(home: Path, words: list[str], unbuffered: str) -> None:
    env = environment(home, PYTHONUNBUFFERED=unbuffered)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([*HUB, *words], env=env, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    with open("/dev/full", "w") as full:
        done = subprocess.run([*HUB, *words], env=env, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, timeout=60)
    Ended(done.returncode, "", done.stderr.decode()).refused(3, "standard output", "No space left", "give it")


def test_what_nobody_reads_is_done_all_the_same(home: Path, tmp_path: Path) -> None:
    for n in range(200):
        write(tmp_path / f"{n}.json", row(f"P{n}"))
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*HUB, "intake", str(tmp_path)], env=environment(home), cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    keys = {event["business_key"] for event in hub(home, "events", "read", "--json").rows}
    assert {f"P{n}" for n in range(200)} <= keys


@pytest.mark.parametrize("words", [["stock", "--json"], ["events", "read"], ["nosuch"]], ids=" ".join)
def test_closed_streams(home: Path, words: list[str]) -> None:
    line = " ".join((sys.executable, "-c", "'from hub.app.cli import main; main()'", *words))
    done = subprocess.run(["sh", "-c", f"{line} >&-"], env=environment(home), cwd=ROOT, capture_output=True, timeout=60)
    Ended(done.returncode, done.stdout.decode(), done.stderr.decode()).refused(3, "standard output is closed", "give the command")
    done = subprocess.run(["sh", "-c", f"{line} 2>&-"], env=environment(home), cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == (2 if words == ["nosuch"] else 0)
    assert b"hub:" not in done.stdout


def test_what_nobody_foresaw_is_one_line_and_its_trace_is_kept(home: Path, tmp_path: Path) -> None:
    boom = "from hub.app.cli import commands, main\ncommands.app.command('boom')(lambda: {}['no such thing'])\nmain()"
    for at in (home, tmp_path / "none"):
        done = subprocess.run(
            [sys.executable, "-c", boom, "boom"], env=environment(at, TMPDIR=str(tmp_path)), cwd=ROOT, capture_output=True
        )
        said = done.stderr.decode()
        Ended(done.returncode, done.stdout.decode(), said).refused(3, "KeyError", "no such thing", "report it")
        log = Path(said.split()[-1])
        assert log == at / "run" / "log" / "command.log" if at == home else log.parent == tmp_path
        assert "Traceback" in log.read_text()


def test_files_that_cannot_be_taken_hold_up_no_other(home: Path, tmp_path: Path) -> None:
    big = tmp_path / "big.json"
    with big.open("wb") as file:
        file.truncate(limits.DELIVERY_BYTES_MAX + 1)
    first, last = write(tmp_path / "a.json", row("I1")), write(tmp_path / "z.json", row("I2"))
    odd = "/proc/self/mem"  # a regular file that cannot be read from its start, even by root
    found = hub(home, "intake", str(first), str(big), odd, str(last), "--json")
    assert found.code == 2
    (document,) = found.rows
    assert [(Path(d["path"]).name, d["outcome"]) for d in document["deliveries"]] == [("a.json", "accepted"), ("z.json", "accepted")]
    assert document["totals"]["accepted"] == 2
    assert [r["path"] for r in document["refused"]] == [str(big), odd]
    assert f"larger than {limits.DELIVERY_BYTES_MAX} bytes: split it" in document["refused"][0]["reason"]
    assert [line.split()[1] for line in found.said.splitlines()] == [str(big), odd]
    assert {"I1", "I2"} <= {event["business_key"] for event in hub(home, "events", "read", "--json").rows}


def test_control_characters_of_a_source_reach_no_terminal(home: Path) -> None:
    for words in (["events", "read"], ["events", "explain", ODD], ["exceptions"], ["quarantine", "list"], ["trace", "L2"], ["stock"]):
        shown = hub(home, *words)
        assert shown.code == 0
        assert RAW_CONTROLS.search(shown.out) is None, words
    found = hub(home, "events", "read", "--json")
    assert len(found.out.splitlines()) == found.out.count("\n")
    assert ODD in {event["business_key"] for event in found.rows}
    assert RAW_CONTROLS.search(hub(home, "trace", "no\x1b[2J\nsuch").said) is None


def test_held_bytes_are_shown_without_control_characters(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "x\x1b[2J.bin"
    file.write_bytes(b"neither\x1b[2J\r\nX12 nor \x9b31m JSON\x00")
    taken = hub(home, "intake", str(file))
    assert (taken.code, RAW_CONTROLS.search(taken.out)) == (1, None)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (entry,) = [e for e in hub(home, "quarantine", "list", "--json").rows if e["sha256"] == digest]
    shown = hub(home, "quarantine", "show", entry["id"]).out
    assert RAW_CONTROLS.search(shown) is None
    assert "neither\\x1b[2J\nX12 nor" in shown
    hub(home, "quarantine", "show", entry["id"], "--out", "/nonexistent/x", "--json").refused(
        2, "--out /nonexistent/x", "No such file", "name a file"
    )


def test_json_lines_are_lines_for_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(map(chr, range(0x2100)))
    output.rows([{"text": text}, {"text": "x"}])
    found = capsys.readouterr().out
    assert [json.loads(line)["text"] for line in found.splitlines()] == [text, "x"]


def test_a_conflict_names_the_bytes_that_were_refused(home: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.json", row("R2", lot="SAME", item="A", quantity="7"))
    assert hub(home, "intake", str(other)).code == 1
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    conflicts = {e["business_key"]: e["sha256"] for e in hub(home, "exceptions", "--json").rows if e["kind"] == "content_conflict"}
    assert conflicts["R2"] == digest


def test_the_relay_is_told_where_to_go_on(home: Path) -> None:
    assert json.loads(hub(home, "status", "--json").out)["relay"] is None
    assert json.loads(hub(home, "relay", "restart", "--from", "3", "--json").out) == {"from": 3, "before": 0}
    found = json.loads(hub(home, "status", "--json").out)
    assert found["relay"]["position"] == 2
    assert found["relay"]["lag"] == found["head"] - 2
    assert "relay to no topic yet: at 2" in hub(home, "status").out


def test_what_is_unknown_or_ambiguous_is_exit_1(home: Path) -> None:
    unknown = hub(home, "trace", "NOT-THERE", "--json")
    assert (unknown.code, unknown.rows) == (1, [{"root": None}])
    several = hub(home, "trace", "SAME", "--json")
    assert (several.code, several.rows) == (1, [{"candidates": [{"kind": "lot", "id": "A/SAME"}, {"kind": "lot", "id": "B/SAME"}]}])
    for words in (["quarantine", "show", "nosuch"], ["quarantine", "redrive", "nosuch"], ["events", "explain", "nosuch"]):
        found = hub(home, *words, "--json")
        assert (found.code, len(found.rows)) == (1, 1)
        assert hub(home, *words).code == 1
    assert "nothing was sent" in hub(home, "quarantine", "redrive", "nosuch", "--json").said


def test_a_trace_says_what_machines_did(home: Path, tmp_path: Path) -> None:
    head = {"source": "edge:e", "occurred_at": "2026-01-05T06:00:00Z"}
    machine = {"equipment": f"ulm/{ODD[-1]}", "order": "W7"}
    counted = {**machine, "counter": "good", "quantity": {"value": "3", "unit": "EA"}, "total": "3"}
    limit = {**machine, "tag": "oil\u2028", "value": "81", "limit": "80", "above": True, "unit": "CEL"}
    facts = [
        ("state_changed", {**machine, "state": "Stopped"}), ("count_reported", counted), ("count_reported", {**counted, "rejected": True}),
        ("downtime_started", {**machine, "state": "Stopped", "reason": "jam"}), ("limit_exceeded", limit),
    ]  # fmt: skip
    rows = [{**head, "key": f"m{n}", "type": f"equipment.{name}", "data": data} for n, (name, data) in enumerate(facts)]
    assert hub(home, "intake", str(write(tmp_path / "machine.json", *rows))).code == 0
    said = hub(home, "trace", "order:W7").out
    assert RAW_CONTROLS.search(said) is None
    on = "order W7 on ulm/9: "
    assert [line for line in said.splitlines() if line.startswith(on)] == [
        f"{on}Stopped 1 × (– s)", f"{on}3 EA good", f"{on}3 EA good, rejected", f"{on}down 1 × (– s), jam",
        f"{on}oil\\u2028 above its limit 1 ×, worst 81 CEL",
    ]  # fmt: skip


def test_serve_as_json_says_when_it_is_ready_and_a_taken_port_says_so(tmp_path: Path) -> None:
    port = free_port()
    env = environment(tmp_path / "home", HUB_LISTEN=f"127.0.0.1:{port}")
    running = subprocess.Popen([*HUB, "serve", "--json"], env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert json.loads(line) == {"url": f"http://127.0.0.1:{port}/", "home": str(tmp_path / "home"), "pid": running.pid}
        hub(tmp_path / "other", "serve", "--json", HUB_LISTEN=f"127.0.0.1:{port}").refused(
            3, str(port), "Address already in use", "HUB_LISTEN"
        )
        worker = [sys.executable, "-m", "hub.app.worker", "api"]
        done = subprocess.run(worker, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
        told = json.loads(done.stderr)
        assert (told["level"], told["role"], told["times"]) == ("error", "hub-api", 1)
        assert told["message"].startswith(f"port {port} of 127.0.0.1 cannot be listened on (Address already in use)")
    finally:
        running.send_signal(signal.SIGTERM)
        rest, said = running.communicate(timeout=30)
    assert (running.returncode, rest) == (0, "")
    assert "hub runs" in said
