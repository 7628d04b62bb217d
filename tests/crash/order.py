"""order: no reader skips.

Promise: positions are the order of commits, without holes, so who has read n has read all below n that will ever exist (P4); versions of a
    stream have no holes (P3).
Way: 16 writer processes append to one log while two processes tail it; in each round one writer is killed by SIGKILL while its transaction
    is open, its events copied and the append lock in its hand, and another takes over with the same facts.
Oracle: what the readers read, in their order, against the positions in the database; the writers' facts counted by an id in their data.
"""

import itertools
import json
import os
import signal
import time
from pathlib import Path

from events.errors import Refused, Unavailable
from hub import points
from hub.log.store import Log
from tests.crash import mechanisms
from tests.crash.counted import judge, stored
from tests.crash.ground import Access, Child, Ground, Trial
from tests.crash.report import Found
from tests.facts import fact, thing

WRITERS, READERS = 16, 2
APPENDS = 25  # of each writer in a round
HELD_S = 0.15  # how long the writer that is killed stands there with the lock, so that the others queue behind it


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    found = Found(runs=0, in_flight=0, redelivered=0, exercised={"killed holding the lock": 0, "taken over": 0, "others went on": 0})
    with ground.database() as access:
        if not ground.complete:
            mechanisms.prepare_lock(access.owner)
        reads = [ground.folder / f"reads-{n}" for n in range(READERS)]
        readers = [ground.fork(f"reader {n}", _tail, access.follow, reads[n]) for n in range(READERS)]
        acked: list[tuple[str, int, int, int]] = []
        sent: set[str] = set()
        for round_ in range(ground.size(8, 100)):
            _round(ground, access, round_, found, sent, acked)
        for reader in readers:
            reader.send(signal.SIGTERM)
        found.wrong["readers that failed"] = sum(not r.wait(30) or r.code != 0 for r in readers)
        _judge(ground, access, reads, sent, acked, found)
    return found


def _round(ground: Ground, access: Access, round_: int, found: Found, sent: set[str], acked: list[tuple[str, int, int, int]]) -> None:
    """Sixteen writers, of which one is killed in its open transaction."""
    assert found.exercised is not None
    rng = ground.rng(f"round {round_}")
    victim, at = rng.randrange(WRITERS), rng.randrange(1, APPENDS)
    says, told = os.pipe()
    records = [ground.folder / f"acks-{round_}-{w}" for w in range(WRITERS)]
    writers = [
        ground.fork(f"writer {w}", _write, access.door, round_, w, records[w], told if w == victim else -1, at) for w in range(WRITERS)
    ]
    os.close(told)
    sent.update(id_ for w in range(WRITERS) for n in range(APPENDS) for id_ in _ids(round_, w, n))
    if os.read(says, 1):  # it is there, with the lock
        time.sleep(HELD_S)
        ((waiting,),) = access.ask("select count(*) from pg_locks where locktype = 'advisory' and not granted")
        found.in_flight = (found.in_flight or 0) + waiting
        writers[victim].kill()
        found.exercised["killed holding the lock"] += 1
    os.close(says)
    writers[victim].wait(60)
    done = sum(w.ended() for w in writers)
    again = len(_acks(records[victim]))
    successor = ground.fork("successor", _write, access.door, round_, victim, records[victim], -1, 0)
    found.redelivered = (found.redelivered or 0) + len(_ids(round_, victim, again))
    others: list[Child] = [w for n, w in enumerate(writers) if n != victim]
    failed = sum(not w.wait(90) or w.code != 0 for w in [*others, successor])
    found.wrong["writers that failed"] = found.wrong.get("writers that failed", 0) + failed
    found.exercised["taken over"] += successor.code == 0
    found.exercised["others went on"] += done < WRITERS and not failed
    found.runs += 1
    for record in records:
        acked += _acks(record)
        found.also["refused"] = found.also.get("refused", 0) + record.read_text().count("refused")


def _ids(round_: int, writer: int, n: int) -> list[str]:
    return [f"id-{round_ * WRITERS + writer}-{n}-{k}" for k in range(1 + (writer + n) % 4)]


def _write(url: str, round_: int, writer: int, record: Path, told: int, at: int) -> None:
    """Append batch after batch, beginning behind what this writer's record has; with `told` stand still in the open transaction `at`."""
    n = len(_acks(record)) if record.exists() else 0
    left = at

    def stand(name: str) -> None:
        nonlocal left
        left -= name == "before commit"
        if left < 0:
            os.write(told, b"!")
            signal.pause()

    points.arm(stand if told >= 0 else None)
    with Log(url) as log, open(record, "a", buffering=1) as kept:
        while n < APPENDS:
            order = f"O{round_}-{writer}-{n // 5}"
            facts = [
                fact(
                    f"k-{round_}-{writer}-{n}-{k}",
                    "production.material_issued",
                    {"order": order, "things": [thing("A", "L1")], "location": "WH", "operation": id_},
                )
                for k, id_ in enumerate(_ids(round_, writer, n))
            ]
            call = time.monotonic_ns()
            try:
                results = log.append(facts)
            except Unavailable:
                time.sleep(0.02)
                continue
            except Refused as error:  # nothing is wrong with these facts: they are lost if the log says that it cannot hold them
                kept.write(json.dumps(["refused", str(error)[:200]]) + "\n")
                n += 1
                continue
            kept.write(json.dumps([_ids(round_, writer, n)[0], call, time.monotonic_ns(), results[0].position]) + "\n")
            n += 1


def _acks(record: Path) -> list[tuple[str, int, int, int]]:
    if not record.exists():
        return []
    rows = [json.loads(line) for line in record.read_text().splitlines() if line.endswith("]")]
    return [(id_, call, ack, position) for id_, call, ack, position in (row for row in rows if row[0] != "refused")]


def _tail(url: str, record: Path) -> None:
    """Read on and on behind the last position that was seen, as a follower does; one more empty read after SIGTERM ends it."""
    ending: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    seen: list[int] = []
    with Log(url) as log:
        while True:
            last = bool(ending)
            read = log.read(seen[-1] if seen else 0, 50)
            seen += [r.position for r in read]
            if not read and last:
                break
            if not read:
                time.sleep(0.001)
    record.write_text(json.dumps(seen))


def _judge(ground: Ground, access: Access, reads: list[Path], sent: set[str], acked: list[tuple[str, int, int, int]], found: Found) -> None:
    log = stored(access)
    judge(found, log, sent, sent)  # every writer, or who took over from it, came to its end: all must be there
    there = {position for position, _, _ in log.log}
    for n, path in enumerate(reads):
        seen: list[int] = json.loads(path.read_text()) if path.exists() else []
        found.skipped += len(there - set(seen))
        found.misordered += sum(b <= a for a, b in itertools.pairwise(seen))
        ground.history.reads(str(n), seen)
        found.also[f"read by reader {n}"] = len(seen)
    found.wrong["acknowledged with another position"] = sum(log.at.get(id_) != position for id_, _, _, position in acked)
    ground.history.calls("writers", acked)
    ground.history.log(log.log)


TRIAL = Trial("order", run, seconds=(120, 3600), without={"lock": mechanisms.lock})
