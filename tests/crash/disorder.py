"""disorder: repeated, shuffled, from many processes.

Promise: each fact once however often and by whichever road it comes, each stream in the order of its source (P2, P3).
Way: deliveries, 30 % of them repetitions, shuffled in windows of 1,000 and taken through the door by 8 writer processes. The facts of a stream
    come from one writer in its order; repetitions come from any writer, those of facts that stand alone in their stream at the same time.
Oracle: by SQL, the set of ids equals the source's, no id twice, every stream in the order of its source, versions and positions without holes.
"""

import json
import multiprocessing
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

from hub.app.wiring import mappings
from hub.intake.delivery import Delivery
from hub.intake.door import Intake
from hub.log.store import Log
from tests.crash import mechanisms
from tests.crash.counted import judge, stored
from tests.crash.ground import Ground, Trial
from tests.crash.report import Found
from tests.facts import thing

WRITERS, WINDOW = 8, 1000
REPEATED = 0.3
BATCH = 50  # deliveries that a writer takes together
ALONE = 0.1  # of the facts: those with a stream of their own


@dataclass(frozen=True, slots=True)
class Slot:
    """One delivery of the plan: which fact, by which writer, and whether it was given before (or, alone in its stream, is given beside)."""

    fact: int
    writer: int
    again: bool
    raced: bool = False


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    deliveries = ground.size(20_000, 1_000_000)
    found = Found(runs=deliveries, redelivered=0, exercised={"raced by two writers": 0, "answered duplicate": 0})
    assert found.exercised is not None
    mappings()
    with ground.database() as access:
        barrier = multiprocessing.get_context("fork").Barrier(WRITERS)
        records = [ground.folder / f"writer-{w}" for w in range(WRITERS)]
        writers = [ground.fork(f"writer {w}", _write, ground, access.door, w, barrier, records[w], deliveries) for w in range(WRITERS)]
        while not all(w.ended() for w in writers):
            time.sleep(0.05)
        found.wrong["writers that failed"] = sum(w.code != 0 for w in writers)
        sent: set[str] = set()
        for window in plan(ground, deliveries):
            for slot in window:
                sent.add(f"id-0-{slot.fact}-0")
                found.redelivered = (found.redelivered or 0) + slot.again
                found.exercised["raced by two writers"] += slot.raced
        log = stored(access)
        judge(found, log, sent, sent)
        for w, path in enumerate(records):
            said = json.loads(path.with_suffix(".said").read_text()) if path.with_suffix(".said").exists() else {}
            found.exercised["answered duplicate"] += said.get("duplicate", 0)
            found.wrong["answered otherwise"] = found.wrong.get("answered otherwise", 0) + said.get("otherwise", 0)
            rows = array("q", path.read_bytes() if path.exists() else b"")
            ground.history.calls(str(w), ((f"id-0-{rows[i]}-0", rows[i + 1], rows[i + 2], rows[i + 3]) for i in range(0, len(rows), 4)))
        ground.history.log(log.log)
    return found


def plan(ground: Ground, deliveries: int) -> Iterator[list[Slot]]:
    """The windows, the same in every process."""
    rng = ground.rng("windows")
    streams, fresh = ground.size(500, 10_000), 0
    for start in range(0, deliveries, WINDOW):
        size = min(WINDOW, deliveries - start)
        first, fresh = fresh, fresh + size - int(size * REPEATED)
        order = [True] * (fresh - first) + [False] * int(size * REPEATED)
        rng.shuffle(order)
        facts = _shuffled(ground, rng.sample(range(first, fresh), fresh - first), streams)
        placed: list[int] = []
        window: list[Slot] = []
        for new in order:
            if facts and (new or not placed):
                one = facts.popleft()
                placed.append(one)
                window.append(Slot(one, writer_of(ground, one, streams), again=False))
                continue
            if first and rng.random() < 0.5:  # of an earlier window: durable by now, so any writer may bring it again
                window.append(Slot(rng.randrange(max(0, first - 5000), first), rng.randrange(WRITERS), again=True))
                continue
            one = rng.choice(placed)
            owner, other = writer_of(ground, one, streams), rng.randrange(WRITERS)
            raced = stream_of(ground, one, streams).startswith("alone") and other != owner
            window.append(Slot(one, other if raced else owner, again=True, raced=raced))
        yield window


def _shuffled(ground: Ground, mixed: list[int], streams: int) -> deque[int]:
    """The facts of a window in a random order in which those of each stream are still in the source's."""
    waiting: dict[str, deque[int]] = {}
    for one in sorted(mixed):
        waiting.setdefault(stream_of(ground, one, streams), deque()).append(one)
    return deque(waiting[stream_of(ground, one, streams)].popleft() for one in mixed)


def stream_of(ground: Ground, one: int, streams: int) -> str:
    """The stream of fact number `one`."""
    mixed = (one * 2654435761 + ground.seed * 40503) % 2**32
    return f"alone-{one}" if mixed % 1000 < ALONE * 1000 else f"O{mixed // 1000 % streams}"


def writer_of(ground: Ground, one: int, streams: int) -> int:
    """The writer that owns the stream of a fact."""
    stream = stream_of(ground, one, streams)
    return int(stream.rpartition("-")[2] if stream.startswith("alone") else stream[1:]) % WRITERS


def _write(ground: Ground, url: str, writer: int, barrier: Barrier, record: Path, deliveries: int) -> None:
    """Take this writer's part of each window through the door; all writers end a window together."""
    streams = ground.size(500, 10_000)
    said = {"accepted": 0, "duplicate": 0, "otherwise": 0}
    rows = array("q")
    with Log(url) as log:
        intake = Intake(log, mappings())
        for window in plan(ground, deliveries):
            mine = [slot for slot in window if slot.writer == writer]
            for start in range(0, len(mine), BATCH):
                part = mine[start : start + BATCH]
                call = time.monotonic_ns()
                outcomes = intake.take([_delivery(stream_of(ground, slot.fact, streams), slot.fact) for slot in part])
                ack = time.monotonic_ns()
                for slot, outcome in zip(part, outcomes, strict=True):
                    said[outcome.outcome if outcome.outcome in said else "otherwise"] += 1
                    if outcome.outcome == "accepted":
                        rows.extend((slot.fact, call, ack, outcome.parts[0].lines[0].position or 0))
            barrier.wait(120)
    record.write_bytes(rows.tobytes())
    record.with_suffix(".said").write_text(json.dumps(said))


def _delivery(stream: str, one: int) -> Delivery:
    data = {"order": stream, "things": [thing("A", "L1")], "location": "WH", "operation": f"id-0-{one}-0"}
    row = {
        "type": "production.material_issued",
        "source": "trial:0",
        "key": f"k-{one}",
        "occurred_at": "2026-01-05T06:00:00Z",
        "data": data,
    }
    return Delivery(json.dumps(row).encode(), "trial", datetime.now(UTC))


TRIAL = Trial("disorder", run, seconds=(150, 7200), without={"receipt": mechanisms.receipt})
