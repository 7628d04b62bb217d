"""The trials' own tools: the report keeps its shape and other rows, the checks see what is wrong, and taking a mechanism away shows."""

import json
import os
import struct
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.edge.spool import Entry, Spool
from tests.crash.edge_syncs import Durable
from tests.crash.history import check_calls, check_reads
from tests.crash.proxy import Messages, is_commit_reply, is_commit_request
from tests.crash.report import ROOT, Found, Report, row
from tests.crash.strace import Call, calls
from tests.crash.trials import chosen, main, trials
from tests.crash.wal import PAGE, SEGMENT, Wal
from tests.crash.wire import Ack, Wire

SHAPE = {
    "name", "without", "runs", "lost", "twice", "skipped", "misordered", "exercised", "in_flight", "redelivered", "seed", "commit",
    "seconds", "ok",
}  # fmt: skip


def test_a_trial_without_the_receipt_fails_by_its_figures(tmp_path: Path) -> None:
    """A process of its own: a trial forks, which one with the threads of other tests must not."""
    code = "import sys; from pathlib import Path; from tests.crash.trials import main; sys.exit(main(build=Path(sys.argv[1])))"
    (tmp_path / "trials.json").write_text(json.dumps({"rows": [{"name": "ambiguous-commit", "without": None, "ok": True}]}))
    environment = {**os.environ, "SMALL": "1", "WITHOUT": "receipt", "ONLY": "ambiguous-commit"}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    kept, new = json.loads((tmp_path / "trials.json").read_text())["rows"]
    assert (kept["without"], kept["ok"]) == (None, True)
    assert new.keys() >= SHAPE
    assert "error" not in new
    assert (new["name"], new["without"], new["ok"]) == ("ambiguous-commit", "receipt", False)
    assert new["twice"] > 0
    assert new["exercised"]["reply lost"] > 0


def test_every_mechanism_is_guarded() -> None:
    known = trials()
    assert {m for t in known for m in t.without} >= {
        "lock",
        "receipt",
        "position-guard",
        "ack-before-commit",
        "fsync-before-ack",
        "manual-ack",
        "monotonic",
        "until-durable",
        "push-back",
        "spool-sync",
        "spool-before-ack",
        "prune-after-ack",
        "memory-with-readings",
        "edge-until-durable",
    }
    assert [t.name for t, _ in chosen(known, [], "lock")] == ["order"]
    assert known[-1].name == "history"


@pytest.mark.parametrize("asked", [{"ONLY": "no-such"}, {"WITHOUT": "no-such"}, {"SEED": "x"}, {"ONLY": "kill", "WITHOUT": "lock"}])
def test_what_is_not_known_is_a_usage_error(asked: dict[str, str], tmp_path: Path) -> None:
    assert main(asked, tmp_path) == 2
    assert not list(tmp_path.iterdir())


def test_what_never_occurred_is_not_ok() -> None:
    assert Found(1).ok
    assert Found(1, exercised={"a": 1}, in_flight=1, redelivered=1).ok
    for bad in (Found(0), Found(1, exercised={"a": 1, "b": 0}), Found(1, in_flight=0), Found(1, wrong={"x": 1}), Found(1, skipped=1)):
        assert not bad.ok
    assert row("a", "lock", Found(1, in_flight=0))["ok"]  # no harm was seen: no teeth
    assert not row("a", "lock", Found(1, skipped=1))["ok"]


def test_a_row_replaces_its_own_and_no_other(tmp_path: Path) -> None:
    for name, without, seed in (("a", None, 1), ("a", "lock", 1), ("b", None, 1), ("a", None, 2)):
        Report(tmp_path).put(row(name, without, Found(1), seed=seed, commit="c", seconds=0.1, size="small"))
    found = Report(tmp_path)
    assert [(r["name"], r["without"], r["seed"]) for r in found.rows] == [("a", "lock", 1), ("b", None, 1), ("a", None, 2)]
    assert found.passed(name="a", without=None, seed=2, commit="c", size="small")
    assert not found.passed(name="a", without=None, seed=2, commit="other", size="small")


@pytest.mark.parametrize(
    ("parts", "harm"),
    [
        ([[(1, 0, 5, 1), (2, 6, 9, 2)], [(3, 1, 8, 3)]], (0, 0, 0)),
        ([[(1, 0, 5, 2)], [(2, 6, 9, 1)]], (0, 0, 1)),  # acknowledged at 2 before the other was asked for, which then got 1
        ([[(1, 0, 5, 2)], [(2, 4, 9, 1)]], (0, 0, 0)),  # at the same time: either may be first
        ([[(1, 0, 5, 1), (1, 0, 7, 2)]], (0, 1, 0)),  # one fact, two positions
        ([[(1, 0, 5, 1), (2, 0, 7, 1)]], (0, 1, 0)),  # two facts, one position
        ([[(1, 0, 5, 4)]], (1, 0, 0)),  # a position that the log does not have
    ],
)
def test_histories_are_judged(parts: list[list[tuple[int, ...]]], harm: tuple[int, int, int]) -> None:
    found = Found(1)
    check_calls(parts, 3, found)
    assert (found.lost, found.twice, found.misordered) == harm


def test_reads_are_judged() -> None:
    for reads, harm in (([1, 2, 3], (0, 0)), ([1, 3, 4], (1, 0)), ([1, 3, 2], (1, 1)), ([2], (1, 0)), ([1, 1], (0, 1))):
        found = Found(1)
        check_reads(reads, found)
        assert (found.skipped, found.misordered) == harm


@pytest.mark.parametrize("step", [1, 3, 100])
def test_the_proxy_finds_commits_however_the_bytes_are_cut(step: int) -> None:
    def message(kind: bytes, body: bytes) -> bytes:
        return kind + (len(body) + 4).to_bytes(4, "big") + body

    startup, query, insert = message(b"", b"\0\3\0\0user\0x\0\0"), message(b"Q", b"COMMIT\0"), message(b"Q", b"insert 'COMMIT'\0")
    reply, other = message(b"C", b"COMMIT\0"), message(b"C", b"ROLLBACK\0")
    requests, replies = Messages(startup=True), Messages(startup=False)
    sent, said = startup + insert + query, other + reply
    found = [m for i in range(0, len(sent), step) for m in requests.feed(sent[i : i + step])]
    answers = [m for i in range(0, len(said), step) for m in replies.feed(said[i : i + step])]
    assert found == [startup, insert, query]
    assert [is_commit_request(m) for m in found] == [False, False, True]
    assert [is_commit_reply(m) for m in answers] == [False, True]


WRITE = 'pwrite64(5</pg/pg_wal/000000010000000000000001>, "ab\\1c", 4, 0)'
SYNC = "fdatasync(5</pg/pg_wal/000000010000000000000001>"


@pytest.mark.parametrize(
    ("lines", "reached"),
    [
        ([f"7 {WRITE} = 4", f"8  {SYNC}) = 0"], 4),  # by whatever process
        ([f"7 {WRITE} = 4", f"7  {SYNC} <unfinished ...>", '8 write(1</x>, "", 0) = 0', "7 <... fdatasync resumed>) = 0"], 4),
        ([f"7 {WRITE} = 4", f"7  {SYNC} <unfinished ...>"], 0),  # begun, not done
        ([f"7 {WRITE} = 4", f"7  {SYNC} <detached ...>"], 0),
        ([f"7  {SYNC} <unfinished ...>", f"8 {WRITE} = 4", "7 <... fdatasync resumed>) = 0"], 0),  # begun before
        ([f"7 {WRITE[:-1]} <unfinished ...>", f"8 {SYNC}) = 0", "7 <... pwrite64 resumed>) = 4"], 0),
        ([f"7 {WRITE} = 2", f"7 {SYNC}) = 0"], 2),
        ([f"7 {WRITE} = 4", f"7 {SYNC}) = -1 EIO (Input/output error)"], 0),
        ([f"7 {WRITE} = 4", f"7 {SYNC.replace('1>', '2>')}) = 0"], 0),  # another file
        ([f"7 {WRITE.replace('ab', 'aB')} = 4", f"7 {SYNC}) = 0"], 1),  # not yet what the file came to hold
    ],
)
def test_what_a_power_cut_would_leave_of_the_log(lines: list[str], reached: int, tmp_path: Path) -> None:
    (tmp_path / "pg_wal").mkdir()
    with open(tmp_path / "pg_wal" / "000000010000000000000001", "wb") as segment:
        segment.write(b"ab\1c")
        segment.truncate(SEGMENT)
    (tmp_path / "trace").write_text("\n".join(lines) + "\n")
    durable = Wal(tmp_path / "pg_wal", SEGMENT, SEGMENT + 4).durable(calls(tmp_path / "trace"))
    assert durable.before(len(lines)) == SEGMENT + reached


def test_commits_are_found_across_pages(tmp_path: Path) -> None:
    def record(transaction: int, info: int, manager: int, length: int) -> bytes:
        return struct.pack("<IIQBBxxI", length, transaction, 0, info, manager, 0) + b"x" * (length - 24)

    first = record(7, 0, 10, PAGE - 40 - 16)  # so that the head of the next one is cut by the header of a page
    log = bytes(40) + first + record(7, 0x80, 1, 34)[:16] + bytes(24) + record(7, 0x80, 1, 34)[16:] + bytes(6) + record(8, 0x20, 1, 32)
    (tmp_path / "pg_wal").mkdir()
    with open(tmp_path / "pg_wal" / "000000010000000000000001", "wb") as segment:
        segment.write(log)
        segment.truncate(SEGMENT)
    assert Wal(tmp_path / "pg_wal", SEGMENT + 40, SEGMENT + 2 * PAGE).commits() == {7: SEGMENT + PAGE + 24 + 18}


def test_acknowledgements_are_read_from_the_wire(tmp_path: Path) -> None:
    def shown(data: bytes) -> str:
        return '"' + "".join(f"\\{byte:03o}" for byte in data) + '"'

    mqtt, http, kafka = (f"TCP:[127.0.0.1:{ports}]" for ports in ("5->127.0.0.1:1883", "8080->127.0.0.1:6", "7->127.0.0.1:9092"))
    publish = (
        b"\x30\x05\0\x03a/b" + b"\x32\x8a\x01\0\x03a/b\0\x09" + b"m" * 131
    )  # one that nobody acknowledges, one of quality 1 and 138 bytes
    commit = (
        b"\0\x08\0\x09\0\0\0\x08\0\x03cli\0\x02g\0\0\0\x01\x02m\x02i\x02\x02t\x02\0\0\0\0"
        + (82).to_bytes(8, "big")
        + b"\xff\xff\xff\xff\x01\0\0\0"
    )
    sent = len(commit).to_bytes(4, "big") + commit
    lines = [
        *(f"1 recvfrom(3<{mqtt}>, {shown(publish[n : n + 1])}, 1, 0, NULL, NULL) = 1" for n in range(len(publish))),
        f"1 sendto(3<{mqtt}>, {shown(bytes((64, 2, 0, 9)))}, 4, 0, NULL, 0) = 4",
        f'2 read(4<{http}>, "POST /v1/facts HTTP/1.1\\r\\n\\r\\n[\\"b", 65536) = 30',
        f'2 read(4<{http}>, "ody\\"]", 65536) = 5',
        f'2 write(4<{http}>, "HTTP/1.1 200 OK\\r\\n", 17) = 17',
        f'2 write(4<{http}>, "{{}}", 2) = 2',
        f'2 read(4<{http}>, "POST /epcis/capture HTTP/1.1\\r\\n\\r\\n{{}}", 65536) = 34',
        f'2 write(4<{http}>, "HTTP/1.1 503 Service Unavailable\\r\\n", 34) = 34',
        '3 rename("/in/a.json", "/in/done/a.json") = 0',
        '3 rename("/in/b.json", "/in/held/b.json") = -1 ENOENT (No such file or directory)',
        f"4 sendmsg(9<{kafka}>, {{msg_iov=[{{iov_base={shown(sent[:4])}, iov_len=4}}, {{iov_base={shown(sent[4:])}, iov_len=1}}]}}, 0) = {len(sent)}",
    ]
    (tmp_path / "trace").write_text("\n".join(lines) + "\n")
    wire = Wire(mqtt=1883, http=8080, kafka=9092, inbox=Path("/in"))
    assert list(wire.acknowledgements(calls(tmp_path / "trace"))) == [
        Ack("mqtt", len(publish), b"m" * 131),
        Ack("http facts", len(publish) + 3, b'["body"]'),
        Ack("folder", len(publish) + 7, "a.json"),
        Ack("kafka", len(publish) + 9, 82),
    ]


def test_a_spool_is_what_was_synced_of_it(tmp_path: Path) -> None:
    path, made = tmp_path / "spool.db", list[Call]()

    def call(name: str, end: str = "", arguments: str = "", result: int = 0, *, late: int = 0) -> int:
        line = made[-1].returned + 1 if made else 0
        made.append(Call(name, arguments, f"{path}{end}", result, line, line + 1 + late))
        return made[-1].returned

    def write(end: str) -> None:
        data = path.with_name(path.name + end).read_bytes()
        call("pwrite64", end, '5, "' + "".join(f"\\{byte:03o}" for byte in data) + f'", {len(data)}, 0', len(data))

    spool = Spool(path, "trial")
    spool.append("http", [Entry(b"first", "http", datetime.now(UTC))])
    write("")
    write("-wal")
    call("fdatasync")
    before = call("ftruncate", "-shm", "6, 0")
    synced = call("fdatasync", "-wal", late=1)
    spool.append("http", [Entry(b"second", "http", datetime.now(UTC))])
    write("-wal")
    call("fdatasync", "-wal", result=-1)
    call("fdatasync")
    spool.close()
    durable = Durable(path, tmp_path / "cut", made)
    assert durable.holds(before) == durable.holds(synced) == frozenset()
    assert durable.holds(synced + 1) == durable.holds(made[-1].returned + 1) == {b"first"}
    call("fdatasync", "-wal")
    assert Durable(path, tmp_path / "cut", made).holds(made[-1].returned + 1) == {b"first", b"second"}
