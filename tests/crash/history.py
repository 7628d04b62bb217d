"""history: what the other trials recorded, checked as one would check any log.

Promise: an acknowledgement is one position for ever, and what was acknowledged before something else was asked for stands before it (P2, P4).
Way: the histories that the other trials of this run left under build/trials: calls, acknowledgements with their positions, reads, logs.
Oracle: one pass over events in the order of time, no search: acknowledged once; if ack(a) came before call(b) then position(a) < position(b);
    every reader's reads are a prefix of the log without holes; versions of each stream are contiguous.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.crash.ground import Ground, Missing, Trial
from tests.crash.report import Found, read_history


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    found = Found(runs=0, exercised={"acknowledgements": 0, "reads": 0, "events": 0})
    assert found.exercised is not None
    files = ground.history.files
    names = [name for name in ground.history.recorded() if files(name, "log")]
    if not names:
        raise Missing("no other trial has recorded a history in this commit, size and seed: run them first")
    for name in names:
        head = sum(_check_log(path, found) for path in files(name, "log"))
        found.exercised["acknowledgements"] += check_calls([list(_rows(path, 4)) for path in files(name, "calls")], head, found)
        found.exercised["reads"] += sum(check_reads(read_history(path), found) for path in files(name, "reads"))
        found.runs += 1
    found.also["of"] = names
    return found


def _rows(path: Path, width: int) -> Iterator[tuple[int, ...]]:
    numbers = iter(read_history(path))
    return zip(*[numbers] * width, strict=True)


def check_calls(parts: Iterable[list[tuple[int, ...]]], head: int, found: Found) -> int:
    """(id, call, ack, position) of each acknowledgement: one position an id and one id a position; earlier acks stand before later calls."""
    rows = [row for part in parts for row in part]
    where: dict[int, int] = {}
    taken: dict[int, int] = {}
    for id_, _, _, position in rows:
        found.twice += where.setdefault(id_, position) != position or taken.setdefault(position, id_) != id_
        found.lost += not 0 < position <= head
    acks = sorted((ack, position) for _, _, ack, position in rows)
    highest, done = 0, 0
    for call, position in sorted((call, position) for _, call, _, position in rows):
        while done < len(acks) and acks[done][0] < call:
            highest = max(highest, acks[done][1])
            done += 1
        found.misordered += position < highest
    return len(rows)


def check_reads(positions: Iterable[int], found: Found) -> int:
    """A reader's positions: 1, 2, 3 … and nothing else."""
    last = count = 0
    for position in positions:
        found.skipped += max(0, position - last - 1)
        found.misordered += position <= last
        last = max(last, position)
        count += 1
    return count


def _check_log(path: Path, found: Found) -> int:
    """(position, stream, version) in the order of positions; the last position."""
    assert found.exercised is not None
    versions: dict[int, int] = {}
    last = 0
    for position, stream, version in _rows(path, 3):
        found.skipped += position - last - 1
        expected = versions.get(stream, 0) + 1
        found.skipped += max(0, version - expected)
        found.misordered += version < expected
        versions[stream], last = version, position
        found.exercised["events"] += 1
    return last


TRIAL = Trial("history", run, seconds=(60, 1200), last=True)
