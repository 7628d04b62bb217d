"""Decoding of what the log holds, from many threads of a fresh process."""

import subprocess
import sys

import pytest

from events.errors import Corrupt
from hub.log import codec
from tests.facts import START

_FRESH = """
import sys, threading
from events.base import decoded
from tests.facts import received

sys.setswitchinterval(1e-6)
event = received("R1", "A", "L1", "5").event
data, gate, found = event.json(), threading.Barrier(8), []

def work():
    gate.wait()
    found.append(decoded(event.type, event.version, data) == event)

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert found == [True] * 8
"""


@pytest.mark.parametrize("attempt", range(6))
def test_threads_that_meet_a_type_for_the_first_time_at_once_do_not_crash(attempt: int) -> None:
    """As the followers of all views do when `hub-follow` starts: it died of SIGSEGV in one start of a hundred, here in one of four."""
    done = subprocess.run([sys.executable, "-c", _FRESH], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("meta", "version", "data"),
    [
        (b"", 2, b"{}"),
        (b"[]", 2, b"{}"),
        (b"\xff", 2, b"{}"),
        (b'{"nobody":1}', 2, b"{}"),
        (b'{"source":"twice"}', 2, b"{}"),
        (b"{}", 2, b'{"output":"\x83"}'),
        (b"{}", 2, b"{"),
        (b"{}", 2, b'{"x":' + b"[" * 5000),
        (b"{}", 1, b"{"),
        (b"{}", 1, b"[]"),
        (b"{}", 0, b"{}"),
    ],
)
def test_a_damaged_row_is_corrupt(meta: bytes, version: int, data: bytes) -> None:
    """Not some error of whatever reads it first: who follows the log stops at `Corrupt` and says so."""
    with pytest.raises(Corrupt, match="does not decode"):
        codec.decode((7, "order/1", 1, "production.output_produced", version, "erp", "K1", START, START, START, meta, data))
