"""back-pressure: sources that are ten times faster than the log.

Promise: who is too fast waits: memory stays flat, every queue has a bound, nothing is dropped, and in the end everything is in the log (P8, P1, P2).
Way: `hub serve` is offered facts over HTTP by many clients that ask again at once, some before they are answered, and as fast as they can be written over MQTT, Kafka and a
    watched folder. The trial holds the append lock and lets it go for one append of each process only when ten times as much has been offered
    as the log holds. The hub's bounds are shortened, so that each is reached. At the end the lock is let go for good.
Oracle: the resident memory of the hub's processes as the kernel counts it, most in the second half against most in the first; what clients were
    answered; what broker, topic and folder still hold when the log holds less; the sources' own records against the events by SQL.
"""

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from hub.app.servers import process
from hub.log.store import APPEND_LOCK
from tests.crash import mechanisms
from tests.crash.counted import at_head, judge_roads, stored
from tests.crash.deliveries import delivery
from tests.crash.ground import Access, Child, Ground, Trial
from tests.crash.program import Program
from tests.crash.report import Found
from tests.crash.roads import ACKNOWLEDGED, Counts, file_name, kafka_broker, mqtt_broker, produce, publish

PROCESSES, THREADS = 4, 16  # of HTTP clients, each thread a source of its own
HTTP = PROCESSES * THREADS
MQTT, KAFKA, FOLDER = HTTP, HTTP + 1, HTTP + 2  # numbers of the other sources
TOPIC, CLIENT_ID, KAFKA_TOPIC = "trial/line", "millwright-hub", "trial.in"
KIB, MIB = 1024, 1024 * 1024
PADDING, HTTP_PADDING = b" " * (16 * KIB), b" " * (128 * KIB)  # behind a document, which makes no other of it: bodies that weigh something
SHORTER = {
    "HTTP_WAITING_MAX": 40, "HTTP_WAITING_BYTES_MAX": 4 * MIB, "INTAKE_BATCH_MAX": 20, "MQTT_WAITING_MAX": 50, "KAFKA_QUEUE_BYTES_MAX": 2 * MIB,
}  # fmt: skip
TIMES = 10  # so much more is offered than taken
HELD_S = 0.15  # the lock is held at least so long
GROWTH_MAX = 16 * MIB  # by how much a process may be larger in the second half: the allocator's, not a queue's


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    held_back = ("http answered 503", "mqtt waits", "kafka waits", "folder waits")
    found = Found(runs=0, in_flight=0, redelivered=0, exercised=dict.fromkeys((*held_back, "ten times faster", "memory looked at"), 0))
    with contextlib.ExitStack() as stack:
        access = stack.enter_context(ground.database())
        mqtt = stack.enter_context(mqtt_broker(ground, TOPIC, CLIENT_ID))
        log = stack.enter_context(kafka_broker(ground, KAFKA_TOPIC))
        inbox = ground.folder / "inbox"
        inbox.mkdir()
        settings = {
            "HUB_DATABASE_URL": access.owner, "HUB_WATCH": str(inbox), "HUB_MQTT_URL": mqtt.url, "HUB_MQTT_TOPICS": TOPIC,
            "HUB_KAFKA": log.brokers, "HUB_KAFKA_TOPICS": KAFKA_TOPIC,
        }  # fmt: skip
        hub = Program(ground, ground.folder / "home", settings, SHORTER)
        stack.callback(hub.kill)
        stack.callback(ground.end)
        hub.started()
        records = [ground.folder / f"record-{n}.json" for n in range(FOLDER + 1)]
        counts = [Counts() for _ in range(PROCESSES + 3)]
        sources = [
            ground.fork(f"http {n}", ask_on, ground.seed, range(n * THREADS, (n + 1) * THREADS), hub.port, counts[n], records, hub=False)
            for n in range(PROCESSES)
        ]
        bodies = [partial(heavy, ground.seed, n) for n in range(FOLDER + 1)]
        mqtt_port = urlsplit(mqtt.url).port
        sources.append(ground.fork("mqtt", publish, bodies[MQTT], mqtt_port, TOPIC, counts[-3], records[MQTT], 0.002, hub=False))
        sources.append(ground.fork("kafka", produce, bodies[KAFKA], log.brokers, KAFKA_TOPIC, counts[-2], records[KAFKA], 0.002, hub=False))
        sources.append(ground.fork("folder", drop_on, bodies[FOLDER], inbox, counts[-1], records[FOLDER], hub=False))
        _press(ground, hub, access, counts, sources, inbox, found)
        for source in sources:
            source.send(signal.SIGTERM)
        found.wrong["sources not drained"] = sum(not s.wait(90) or s.code != 0 for s in sources)
        sent = {id_ for n in (MQTT, KAFKA) for k in range(counts[n - HTTP - 3].acked) for id_ in delivery(ground.seed, n, k).ids}
        process.wait_until(lambda: sent <= stored(access).ids.keys(), 60 if ground.complete else 10, every=0.5)
        found.wrong["views not at the head"] = int(not process.wait_until(partial(at_head, access, access.head()), 60, every=0.1))
        assert found.exercised is not None
        told = [json.loads(path.read_text()) for path in records[:HTTP] if path.exists()]
        found.exercised["http answered 503"] = sum(one["refused"] for one in told)
        found.wrong["503 without Retry-After"] = sum(one["silent"] for one in told)
        if records[KAFKA].exists():  # the positions that this source wrote down are the topic's
            rows = json.loads(records[KAFKA].read_text())["rows"]
            records[KAFKA].write_text(json.dumps({"rows": [(call, ack, 0) for call, ack, _ in rows], "again": 0}))
        judge_roads(ground, access, records, found)
        hub.stop(found)
    return found


def heavy(seed: int, source: int, n: int) -> bytes:
    """Delivery n of a source, with padding where that changes nothing."""
    sent = delivery(seed, source, n).body
    if source == MQTT:  # the demo's broker ends a connection with 64 MiB under way, and sends that again in another order
        return sent
    return sent if sent.startswith(b"no document") else sent + (HTTP_PADDING if source < HTTP else PADDING)


def ask_on(seed: int, numbers: range, port: int, counts: Counts, records: list[Path]) -> None:
    """Sources that post in threads, and ask again at once when they are sent away. Every other one does not wait long, and asks again then too,
    while the hub still has what it sent before."""
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    one, tries, acks = threading.Lock(), 0, 0

    def client(source: int) -> None:
        nonlocal tries, acks
        rows: list[tuple[int, int, int]] = []
        told = {"again": 0, "refused": 0, "silent": 0}
        while not ending.is_set():
            call, body = time.monotonic_ns(), heavy(seed, source, len(rows))
            while True:
                with one:
                    tries += 1
                    counts.set(tries, acks)
                if (position := _posted(port, body, 1 if source % 2 else 60, told)) is not None:
                    break
                told["again"] += 1
                time.sleep(0.1)
            with one:
                acks += 1
            rows.append((call, time.monotonic_ns(), position))
        records[source].write_text(json.dumps({"rows": rows, **told}))

    threads = [threading.Thread(target=client, args=(source,)) for source in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _posted(port: int, body: bytes, wait_s: float, told: dict[str, int]) -> int | None:
    """The position that was acknowledged, 0 for none; None if it is to be sent again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=wait_s)
    try:
        connection.request("POST", "/v1/facts", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    if answer.status not in ACKNOWLEDGED:
        told["refused"] += answer.status == 503
        told["silent"] += not answer.getheader("Retry-After")
        return None
    row = next((row for part in said["parts"] for row in part["rows"]), None)
    return int(row["position"] or 0) if row is not None and row["outcome"] in ("accepted", "duplicate") else 0


def drop_on(body: partial[bytes], inbox: Path, counts: Counts, record: Path) -> None:
    """A source that renames files into the watched folder and waits for none of them; at the end it waits until all are taken."""
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    calls: list[int] = []
    while not ending.wait(0.004):
        name = file_name(len(calls))
        (inbox / f".{name}").write_bytes(body(len(calls)))
        os.utime(inbox / f".{name}", (1, 1))
        os.rename(inbox / f".{name}", inbox / name)
        calls.append(time.monotonic_ns())
        counts.set(len(calls), 0)
    if process.wait_until(lambda: not any(inbox.glob("*.json")), 80, every=0.2):
        record.write_text(json.dumps({"rows": [(call, time.monotonic_ns(), 0) for call in calls], "again": 0}))


def _press(ground: Ground, hub: Program, access: Access, counts: list[Counts], sources: list[Child], inbox: Path, found: Found) -> None:
    """Hold the append lock but for one append of each process, whenever ten times as much was offered as the log holds."""
    assert found.exercised is not None
    pids = {role: pid for role, pid in hub.pids().items() if role != "supervisor"}
    memory: dict[str, list[int]] = {role: [] for role in pids}
    seconds = ground.size(18, 900)
    with psycopg.connect(access.owner) as connection:
        began = locked = time.monotonic()
        connection.execute("select pg_advisory_xact_lock(%s)", [APPEND_LOCK])
        while time.monotonic() - began < seconds:
            time.sleep(0.05)
            for role, pid in pids.items():
                memory[role].append(_resident(pid))
            if time.monotonic() - locked > HELD_S and _offered(counts) >= TIMES * access.head():
                connection.rollback()
                # who waits for the lock gets it in turn, and we behind them
                connection.execute("select pg_advisory_xact_lock(%s)", [APPEND_LOCK])
                locked = time.monotonic()
                found.runs += 1
        head, offered = access.head(), _offered(counts)
        in_log = dict(access.ask("select source, count(*) from log.event where source like 'trial:%%' group by source"))
        connection.rollback()
    if dead := [source.name for source in sources if source.ended()]:
        raise AssertionError(f"sources ended by themselves: {', '.join(dead)}: {process.tail(ground.log)}")
    waits = {
        "mqtt waits": counts[-3].acked - in_log.get(f"trial:{MQTT}", 0),
        "kafka waits": counts[-2].acked - in_log.get(f"trial:{KAFKA}", 0),
    }
    found.exercised.update({name: max(0, n - int(SHORTER["MQTT_WAITING_MAX"])) for name, n in waits.items()})
    found.exercised["folder waits"] = sum(1 for _ in inbox.glob("*.json"))
    found.exercised["ten times faster"] = int(offered >= 0.8 * TIMES * head)
    found.exercised["memory looked at"] = min(map(len, memory.values()))
    found.in_flight = sum(found.exercised[f"{way} waits"] for way in ("mqtt", "kafka", "folder"))
    found.also["offered"], found.also["in the log when the pressure ended"] = offered, head
    for role, sizes in memory.items():
        half = len(sizes) // 2
        first, second = max(sizes[:half]), max(sizes[half:])
        found.also[f"MiB of {role}, first and second half"] = [round(first / MIB, 1), round(second / MIB, 1)]
        found.wrong[f"{role} has grown"] = int(second > first + GROWTH_MAX)
    found.wrong["processes started again"] = len(pids.items() - hub.pids().items())


def _offered(counts: list[Counts]) -> int:
    """What has been offered, each try of an HTTP client for itself."""
    return sum(c.acked + c.open for c in counts)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


TRIAL = Trial("back-pressure", run, seconds=(240, 3600), without={"push-back": mechanisms.push_back})
