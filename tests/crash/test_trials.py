"""The trials' own tools: the report keeps its shape and other rows, the checks see what is wrong, and taking a mechanism away shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.history import check_calls, check_reads
from tests.crash.proxy import Messages, is_commit_reply, is_commit_request
from tests.crash.report import ROOT, Found, Report, row
from tests.crash.trials import chosen, main, trials

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
    assert {m for t in known for m in t.without} >= {"lock", "receipt", "position-guard", "ack-before-commit"}
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
