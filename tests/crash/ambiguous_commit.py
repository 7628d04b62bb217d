"""ambiguous-commit: the answer to COMMIT is lost.

Promise: a writer that does not know whether its append happened calls again with the same facts, and each is in the log once (P2, P4).
Way: a proxy between the log and its server drops the reply to COMMIT and cuts the connection; every fourth time it drops the request
    instead, so that nothing happened; another writer moves the log on meanwhile.
Oracle: by SQL, each fact once; after a lost reply the retry answers Duplicate with the position that SQL finds, after a lost request Accepted.
"""

import json
import time
from pathlib import Path

from psycopg import conninfo

from events import Fact
from events.errors import Unavailable
from hub.app.servers.postgres import to_url
from hub.log.store import Accepted, Duplicate, Log, Result
from tests.crash import mechanisms
from tests.crash.counted import judge, stored
from tests.crash.ground import Access, Ground, Trial
from tests.crash.proxy import DROP_REPLY, DROP_REQUEST, PASS, Orders, run_proxy
from tests.crash.report import Found
from tests.facts import fact, thing


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    found = Found(runs=0, in_flight=0, redelivered=0, exercised={"reply lost": 0, "request lost": 0, "another wrote meanwhile": 0})
    listen, record, orders = ground.folder / ".s.PGSQL.5432", ground.folder / "record", Orders()
    with ground.database() as access:
        real = Path(str(conninfo.conninfo_to_dict(access.owner)["host"])) / ".s.PGSQL.5432"
        proxy = ground.fork("proxy", run_proxy, listen, real, orders, hub=False)
        through = to_url({**conninfo.conninfo_to_dict(access.door), "host": str(ground.folder)})
        until = time.monotonic() + 10
        while not listen.exists() and time.monotonic() < until:
            time.sleep(0.01)
        writer = ground.fork("writer", _write, ground, access, through, orders, record)
        while not writer.ended():
            time.sleep(0.02)
        found.wrong["writer failed"] = int(writer.code != 0)
        found.wrong["proxy failed"] = int(proxy.ended())
        _judge(ground, access, record, found)
    return found


def _facts(writer: int, n: int) -> list[Fact]:
    """One to three facts; writer 0 goes through the proxy, 1 beside it."""
    data = {"order": f"O{writer}-{n // 10}", "things": [thing("A", "L1")], "location": "WH"}
    return [
        fact(f"k-{writer}-{n}-{k}", "production.material_issued", {**data, "operation": f"id-{writer}-{n}-{k}"}) for k in range(1 + n % 3)
    ]


def _write(ground: Ground, access: Access, through: str, orders: Orders, record: Path) -> None:
    """Append, lose the answer, append again; the record says what the log answered."""
    rng, done, n = ground.rng("cuts"), 0, 0
    with Log(through) as log, Log(access.door) as beside, open(record, "w") as kept:
        while done < ground.size(40, 2000):
            order = DROP_REQUEST if rng.random() < 0.25 else DROP_REPLY
            facts, call = _facts(0, n), time.monotonic_ns()
            orders.give(order)
            lost, moved = False, False
            try:
                results: list[Result] = log.append(facts)
            except Unavailable:
                lost = True
                if moved := rng.random() < 0.5:
                    beside.append(_facts(1, n))
                results = log.append(facts)
            left = orders.given
            orders.give(PASS)
            kind = [type(r).__name__ for r in results]
            row = [n, order, lost and left == PASS, moved, call, time.monotonic_ns(), kind, [r.position for r in results]]
            kept.write(json.dumps(row) + "\n")
            done += order == DROP_REPLY
            n += 1


def _judge(ground: Ground, access: Access, record: Path, found: Found) -> None:
    assert found.exercised is not None
    log = stored(access)
    sent: set[str] = set()
    calls, wrong_answer, wrong_position = [], 0, 0
    for line in record.read_text().splitlines():
        n, order, lost, moved, call, ack, kinds, positions = json.loads(line)
        ids = [f"id-0-{n}-{k}" for k in range(len(kinds))]
        sent.update(ids, (f"id-1-{n}-{k}" for k in range(len(kinds)) if moved))
        found.exercised["reply lost" if order == DROP_REPLY else "request lost"] += lost
        found.exercised["another wrote meanwhile"] += moved
        found.runs += lost and order == DROP_REPLY
        found.in_flight = (found.in_flight or 0) + len(ids) * lost
        found.redelivered = (found.redelivered or 0) + len(ids) * lost
        expected = Duplicate if order == DROP_REPLY else Accepted
        wrong_answer += sum(kind != expected.__name__ for kind in kinds)
        wrong_position += sum(log.at.get(id_) != position for id_, position in zip(ids, positions, strict=True))
        calls += [(id_, call, ack, position) for id_, position in zip(ids, positions, strict=True)]
    judge(found, log, sent, sent)
    found.wrong.update({"answered otherwise": wrong_answer, "answered with another position": wrong_position})
    found.wrong["cuts that did not happen"] = ground.size(40, 2000) - found.runs
    ground.history.calls("writer", calls)
    ground.history.log(log.log)


TRIAL = Trial("ambiguous-commit", run, seconds=(60, 1800), without={"receipt": mechanisms.receipt})
