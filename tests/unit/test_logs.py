"""What a process says: a million repetitions are one bounded entry with their true number, and nothing else is lost among them."""

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub import limits
from hub.app import logs

LOGGER = logging.getLogger("hub.test")
TIMES = 1_000_000


class File:
    """A log file and a clock that tests move."""

    def __init__(self, path: Path) -> None:
        self.path, self.now = path, 0.0
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.lines = logs.Lines("hub-test", self.fd, as_json=True, clock=lambda: self.now)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The last line of each entry."""
        return {line["entry"]: line for line in self.told}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    file = File(tmp_path / "log")
    LOGGER.addHandler(file.lines)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    yield file
    LOGGER.removeHandler(file.lines)
    LOGGER.propagate = True
    os.close(file.fd)


@pytest.mark.timeout(600)
def test_a_million_repetitions_are_one_bounded_entry_with_their_number(file: File) -> None:
    for n in range(TIMES):
        LOGGER.warning("mqtt plant-%d:1883: 3 deliveries wait %.1f s: the log cannot be reached: pid %d is gone", n % 7, n / 10, n)
        if n % 1000 == 0:  # a thousand looks of the teller, over a day
            file.now += 86.4
            file.lines.tell()
        if n in (5, TIMES // 2):
            LOGGER.error("another trouble, the %s", "first" if n == 5 else "second")
    file.lines.tell(all_=True)
    by_times = sorted(file.entries.values(), key=lambda line: -int(line["times"]))
    assert [line["times"] for line in by_times] == [TIMES, 1, 1]
    assert f"pid {TIMES - 1} " in by_times[0]["message"]
    assert by_times[0]["first"] <= by_times[0]["time"]
    assert {line["message"] for line in by_times[1:]} == {"another trouble, the first", "another trouble, the second"}
    assert file.path.stat().st_size < 1100 * 400  # a line a look at most


def test_in_a_storm_the_lines_of_one_kind_grow_with_the_logarithm_of_time(file: File) -> None:
    for _ in range(60):
        for _ in range(1000):
            LOGGER.warning("refused")
        file.now += 1
        file.lines.tell()
    assert len(file.told) <= 1 + 6
    file.lines.tell(all_=True)
    assert file.told[-1]["times"] == 60_000


def test_kinds_without_end_share_an_entry_and_every_message_is_counted(file: File) -> None:
    words = [chr(97 + n // 676 % 26) + chr(97 + n // 26 % 26) + chr(97 + n % 26) + "x" for n in range(5000)]
    for word in words:
        LOGGER.error("lot %s is odd", word)
    file.lines.tell(all_=True)
    assert len(file.entries) == limits.LOG_KINDS_MAX + 1
    assert sum(line["times"] for line in file.entries.values()) == len(words)
    shared = max(file.entries.values(), key=lambda line: int(line["times"]))
    assert shared["message"].endswith(f"lot {words[-1]} is odd")
    assert len(file.told) <= limits.LOG_KINDS_MAX + 3
    file.now += limits.LOG_QUIET_S + 1
    LOGGER.error("what comes after a quiet time is told at once")
    assert file.told[-1]["message"] == "what comes after a quiet time is told at once"


def test_what_a_person_did_is_written_each_time_it_differs(file: File) -> None:
    for value in (5, 6, 6):
        LOGGER.info("somebody writes Set = %d", value, extra={"whole": True})
    file.lines.tell(all_=True)
    assert [(line["message"], line["times"]) for line in file.told] == [
        ("somebody writes Set = 5", 1),
        ("somebody writes Set = 6", 1),
        ("somebody writes Set = 6", 2),
    ]


def test_a_kind_begins_anew_after_a_quiet_time(file: File) -> None:
    LOGGER.error("odd")
    file.now += limits.LOG_QUIET_S + 1
    file.lines.tell()
    LOGGER.error("odd")
    assert [line["times"] for line in file.told] == [1, 1]


@pytest.mark.parametrize("text", ["x" * 100_000, "\ud800 half", "two\nlines\r\0", "ä" * 50_000])
def test_any_message_is_one_bounded_line_of_json(file: File, text: str) -> None:
    LOGGER.error("%s", text)
    (line,) = file.told
    assert len(line["message"]) <= limits.LOG_MESSAGE_CHARS_MAX + 60
    assert file.path.read_bytes().count(b"\n") == 1


def test_a_message_that_cannot_be_made_is_said_as_it_is(file: File) -> None:
    file.lines.handle(logging.LogRecord("hub", logging.ERROR, "", 1, "%d deliveries", ("no number",), None))  # pytest's own handlers raise
    assert "cannot be made" in file.path.read_text()


def test_everything_a_process_says_comes_as_lines(tmp_path: Path) -> None:
    code = """
import logging, sys, threading, warnings
from hub.app.logs import writing
with writing("hub-x"):
    print("printed"); sys.stderr.write("half "); sys.stderr.write("a line\\n")
    warnings.warn("deprecated")
    logging.getLogger("hub.app").info("informed")
    logging.getLogger("other").info("not asked for")
    for n in range(500): logging.getLogger("other").error("odd %d", n)
    thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()
"""
    done = logs_of(code)
    said = {line["message"].splitlines()[0]: line for line in done}
    assert {"printed", "half a line", "informed", "nobody caught this", "odd 499"} <= said.keys()
    assert "not asked for" not in said
    assert said["odd 499"]["times"] == 500
    assert "ZeroDivisionError" in said["nobody caught this"]["message"]
    assert any("deprecated" in message for message in said)
    assert {line["role"] for line in done} == {"hub-x"}


def logs_of(code: str) -> list[dict[str, Any]]:
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_counted_from_many_threads_the_number_is_true(file: File) -> None:
    def storm() -> None:
        for _ in range(2000):
            LOGGER.warning("refused")

    threads = [threading.Thread(target=storm) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file.lines.tell(all_=True)
    assert file.told[-1]["times"] == 16_000


def test_text_is_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "log", "ab") as out, logs.writing("hub-x", text=True, fd=out.fileno(), printed=False):
        logging.getLogger("hub.y").warning("odd")
        logging.getLogger("hub.y").warning("odd")
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.endswith(" hub-x warning odd")
    assert "(2 times since " in second
    monkeypatch.setenv("HUB_LOG", "text")
    assert logs.wants_text(1)


def test_the_last_trouble_of_a_log_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert logs.last_said(log) == ""
    log.write_text('{"level": "error", "message": "no\\nlicence"}\n{"level": "info", "message": "ends"}\nnot json\n')
    assert logs.last_said(log) == "no licence"
    log.write_text("what it said\n")
    assert logs.last_said(log) == "what it said"
