"""fsync-order: nothing is acknowledged before the disk has it.

Promise: no acknowledgement leaves before the sync that covers what it acknowledges, on every way in (P1): after a power cut at any instant the log
    holds what any source was told.
Way: the shipped `hub-api` and `hub-intake` and a PostgreSQL with the hub's own settings run under one strace, while sources post facts and EPCIS
    documents, rename files into the watched folder, publish to the demo's MQTT broker and write to Kafka, all at once, and another writer holds the
    append lock now and then, so that deliveries have arrived and wait.
Oracle: at the entry of each call that carries an acknowledgement (PUBACK; an HTTP answer; the rename to done/ or held/; OffsetCommit), what a power
    cut would leave of the write-ahead log: the bytes of its files whose write had returned before a sync of that file was entered that has
    itself returned before. They must hold all of the log up to the end of the commit record of each transaction that stored something of that
    delivery: its facts, what stands for them in quarantine, and its raw bytes. Which transaction stored what is asked by SQL (xmin), where it
    commits is read from the log's records, and the order of calls is the tracer's, so no clock and no word of hub or server enters it.
Edge: the shipped edge, without a line to any hub, under an strace of its own, while machines publish over MQTT and post over HTTP. Each PUBACK and each 202 is
    compared with the spool that SQLite finds in those bytes of its files that were synced before.
"""

import contextlib
import hashlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from hub.app.servers import process
from hub.app.servers.cluster import leftovers
from hub.app.settings import Settings
from hub.app.wiring import mappings
from hub.log.migrate import migrate
from hub.log.store import APPEND_LOCK
from tests.crash import edge_syncs, mechanisms, plant
from tests.crash.counted import judge, stored
from tests.crash.deliveries import Sent, delivery
from tests.crash.edges import HOST, Edges, Mosquitto, answers, imported, run_edge
from tests.crash.ground import Access, Child, Ground, Server, Trial
from tests.crash.hubs import run_shipped
from tests.crash.report import Found
from tests.crash.roads import Counts, drop, file_name, kafka_broker, mqtt_broker, post, produce, publish
from tests.crash.strace import Strace, calls
from tests.crash.wal import Durable, Wal, lsn
from tests.crash.wire import CALLS, Ack, Wire

WAYS = ("mqtt", "folder", "kafka", "http facts", "http facts", "http epcis")  # a source each
MQTT_TOPIC, MQTT_CLIENT_ID, KAFKA_TOPIC = "trial/line", "millwright-hub", "trial.in"
PAUSE_S = 0.05  # of a source between two deliveries
NEVER = 1 << 64  # a position that the log does not reach
HELD_S = 0.4  # how long the append lock is held: longer than the hub's Kafka client waits before it commits offsets


@dataclass(frozen=True)
class Source:
    """A source as it is judged: its way, what it sends, what it wrote down."""

    number: int
    way: str
    record: Path
    counts: Counts

    def body(self, seed: int, n: int) -> bytes:
        return self.sent(seed, n).body

    def sent(self, seed: int, n: int) -> Sent:
        if self.way == "http epcis":
            return _event(self.number, n)
        sent = delivery(seed, self.number, n)
        return sent if sent.ids else replace(sent, body=sent.body + b"\n")  # what comes again comes in other bytes, which are kept too


def _event(source: int, n: int) -> Sent:
    """An EPCIS event whose id becomes data of its fact."""
    id_ = f"id-{source}-{n}-0"
    event = {
        "@context": ["https://ref.gs1.org/standards/epcis/epcis-context.jsonld"],
        "type": "ObjectEvent",
        "eventID": f"https://trial.example/{id_}",
        "eventTime": f"2026-01-05T{n // 60 % 24:02}:{n % 60:02}:00Z",
        "eventTimeZoneOffset": "+00:00",
        "action": "ADD",
        "bizStep": "commissioning",
        "epcList": [f"urn:epc:id:sgtin:4012345.012345.{n}"],
    }
    return Sent(json.dumps(event).encode(), (id_,))


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    found = Found(runs=0, in_flight=0, exercised=dict.fromkeys((*WAYS, "edge mqtt", "edge http"), 0))
    sources = [Source(n, way, ground.folder / f"record-{n}.json", Counts()) for n, way in enumerate(WAYS)]
    with contextlib.ExitStack() as stack:
        server = Server(ground.folder / "server")
        stack.callback(server.end)
        server.start()
        access = Access(server.url())
        migrate(access.owner)
        mqtt = stack.enter_context(mqtt_broker(ground, MQTT_TOPIC, MQTT_CLIENT_ID))
        log = stack.enter_context(kafka_broker(ground, KAFKA_TOPIC))
        stack.callback(ground.end)
        settings = Settings(
            home=ground.folder / "home", api_port=process.free_port(), watch=ground.folder / "inbox", mqtt_url=mqtt.url, mqtt_topics=(MQTT_TOPIC,),
            kafka_brokers=log.brokers, kafka_topics=(KAFKA_TOPIC,),
        )  # fmt: skip
        (ground.folder / "inbox").mkdir()
        wire = Wire(mqtt=mqtt.port, http=settings.api_port, kafka=int(log.brokers.rpartition(":")[2]), inbox=ground.folder / "inbox")
        trace, wal = _traced(ground, server, access, settings, sources, found)
        _judge(ground, access, list(wire.acknowledgements(calls(trace))), wal, wal.durable(calls(trace)), sources, found)
    _edge(ground, found)
    return found


def _edge(ground: Ground, found: Found) -> None:
    """The same for an edge."""
    imported()
    broker, word, sent = Mosquitto(ground), plant.Word(), ground.folder / "sent"
    broker.start()
    sent.mkdir()
    topics = [{"filter": "plant/+", "value": "v", "at": "at", "sequence": "n"}]
    more = {"mqtt": [{"name": "mq", "url": f"mqtt://{HOST}:{broker.port}", "version": "3.1.1", "readings": topics}]}
    edges = Edges(ground, None, more, {})
    go, ready = os.pipe()
    trace: Strace | None = None
    try:
        edge = ground.fork("edge", _traced_edge, go, edges.config)
        trace = Strace(ground.folder / "edge-trace", (*CALLS, *edge_syncs.CALLS), [edge.pid])
        os.write(ready, b".")
        assert process.wait_until(lambda: answers(edges.http_port), 30), process.tail(ground.log)
        assert process.wait_until(lambda: sum(one["connected"] for one in edges.status().get("sources", [])) == 2, 30), edges.status()
        pace = plant.Pace({"mqtt": 20.0, "http": 10.0}, time.time_ns() // 1000)
        machines = [
            ground.fork("edge mqtt", plant.run_mqtt, sent, word, pace, broker.port, ground.seed, hub=False),
            ground.fork("edge http", plant.run_http, sent, word, pace, edges.http_port, hub=False),
        ]
        enough = ground.size(40, 400)
        process.wait_until(
            lambda: min((p.stat().st_size for p in sent.glob("*.sent")), default=0) > 24 * enough, ground.size(40, 600), every=0.1
        )
        for machine in machines:
            machine.send(signal.SIGTERM)
        found.wrong["machines not ended"] = sum(not machine.wait(20) or machine.code != 0 for machine in machines)
        time.sleep(0.5)
        edge.send(signal.SIGTERM)
        found.wrong["edge not ended by SIGTERM"] = int(not edge.wait(60))  # a traced one is slow
    finally:
        os.close(go)
        os.close(ready)
        if trace is not None:
            trace.stop()
        broker.stop()
    assert found.exercised is not None
    made = list(calls(trace.output))
    durable = edge_syncs.Durable(edges.spool, ground.folder / "cut", made)
    wire = Wire(mqtt=broker.port, http=edges.http_port, kafka=0, inbox=ground.folder / "none")
    early: Counter[str] = Counter()
    for ack in wire.acknowledgements(made):
        assert isinstance(ack.of, bytes)
        way, bodies = ("edge mqtt", _numbers(ack.of)) if ack.way == "mqtt" else ("edge http", {ack.of})
        early[way] += bool(bodies) and not bodies & durable.holds(ack.entered)
        found.exercised[way] += 1
        found.runs += 1
    found.lost += early.total()
    found.also |= {"left before its sync at the edge": dict(+early), "syncs of the spool": durable.syncs}


def _traced_edge(go: int, config: Path) -> None:
    os.read(go, 1)  # until it is traced
    run_edge(config)


def _numbers(payload: bytes) -> set[bytes]:
    """How the spool may name a reading of MQTT: the topic is not in the acknowledgement, and no two machines publish the same at the same time."""
    said = json.loads(payload)
    return {f"plant/m{n} {said['v']} {said['at']}".encode() for n in range(plant.TOPICS)}


def _traced(ground: Ground, server: Server, access: Access, settings: Settings, sources: list[Source], found: Found) -> tuple[Path, Wal]:
    """Let the hub take what the sources send, under strace from before its first connection; the trace, and the log meanwhile."""
    mappings()  # imported before the forks, as are the modules above: what they read would be in the trace
    go, ready = os.pipe()
    hub = [ground.fork(f"hub-{role}", _hub, go, role, access.owner, settings) for role in ("api", "intake")]
    trace = Strace(
        ground.folder / "trace", (*CALLS, "pwrite64", "fsync", "fdatasync"), [c.pid for c in hub] + leftovers(server.cluster.home)
    )
    try:
        if not process.wait_until(lambda: all(trace.has(pid) for pid in leftovers(server.cluster.home)), 10):
            raise AssertionError("a process of PostgreSQL is not traced")  # it began while strace was starting
        ((start, method),) = access.ask("select pg_current_wal_insert_lsn()::text, current_setting('wal_sync_method')")
        assert method in ("fdatasync", "fsync"), f"wal_sync_method = {method} syncs without a call that strace shows"
        os.write(ready, b"." * len(hub))
        senders = [ground.fork(f"{s.way} {s.number}", *_sender(ground, settings, s), hub=False) for s in sources]
        _hold(access, sources, senders, ground.size(20, 200), found)
        for sender in senders:
            sender.send(signal.SIGTERM)
        found.wrong["sources not drained"] = sum(not s.wait(60) or s.code != 0 for s in senders)
        sent = {id_ for s in sources for n in range(len(_rows(s))) for id_ in s.sent(ground.seed, n).ids}
        found.wrong["not all taken"] = int(not process.wait_until(lambda: sent <= stored(access).ids.keys(), 20, every=0.2))
        for child in hub:
            child.send(signal.SIGTERM)
        found.wrong["not ended by SIGTERM"] = sum(not child.wait(60) for child in hub)
    finally:
        os.close(go)
        os.close(ready)
        trace.stop()
    ((end, _),) = access.ask("select pg_current_wal_insert_lsn()::text, pg_switch_wal()")  # which flushes all
    return trace.output, Wal(server.cluster.home.pg / "pg_wal", lsn(start), lsn(end))


def _hub(go: int, role: str, owner_url: str, settings: Settings) -> None:
    os.read(go, 1)  # until it is traced
    run_shipped(role, owner_url, settings)


def _sender(ground: Ground, settings: Settings, source: Source) -> tuple[Callable[..., None], *tuple[Any, ...]]:
    """The function that is a source, and its arguments."""
    body = partial(source.body, ground.seed)
    told = source.counts, source.record, PAUSE_S
    if source.way == "mqtt":
        return publish, body, urlsplit(settings.mqtt_url).port, MQTT_TOPIC, *told
    if source.way == "folder":
        return drop, body, settings.watch, *told
    if source.way == "kafka":
        return produce, body, settings.kafka_brokers, KAFKA_TOPIC, *told
    return post, body, settings.api_port, "/epcis/capture" if source.way == "http epcis" else "/v1/facts", *told


def _hold(access: Access, sources: list[Source], senders: list[Child], enough: int, found: Found) -> None:
    """Hold the append lock again and again until each source has its acknowledgements; each time all go on in between."""
    with psycopg.connect(access.owner) as connection:
        while any(s.counts.acked < enough for s in sources):
            if dead := [s.name for s in senders if s.ended()]:
                raise AssertionError(f"sources ended by themselves: {', '.join(dead)}")
            connection.execute("select pg_advisory_xact_lock(%s)", [APPEND_LOCK])
            time.sleep(HELD_S)
            found.in_flight = (found.in_flight or 0) + sum(s.counts.open for s in sources if s.way.startswith("http"))
            connection.rollback()
            before = [s.counts.acked for s in sources]
            process.wait_until(lambda: all(s.counts.acked > n + 1 for s, n in zip(sources, before, strict=True)), 2)  # noqa: B023


def _rows(source: Source) -> list[list[int]]:
    """(call, acknowledgement, position or offset) of each delivery of a source."""
    rows: list[list[int]] = json.loads(source.record.read_text())["rows"] if source.record.exists() else []
    return rows


def _judge(ground: Ground, access: Access, acks: list[Ack], wal: Wal, durable: Durable, sources: list[Source], found: Found) -> None:
    """Every acknowledgement against what was on the disk when it left."""
    assert found.exercised is not None
    ids: dict[bytes, tuple[str, ...]] = {}
    files: dict[str, bytes] = {}
    offsets: dict[int, bytes] = {}
    for source in sources:
        for n, (_, _, position) in enumerate(_rows(source)):
            sent = source.sent(ground.seed, n)
            ids[sent.body] = sent.ids or ids[sent.body.rstrip()]  # what comes again has the ids that it had
            if source.way == "folder":
                files[file_name(n)] = sent.body
            elif source.way == "kafka":
                offsets[position] = sent.body
    log, commits = stored(access), wal.commits()
    of_position: dict[int, int] = dict(access.ask("select position, xmin::text::bigint from log.event"))
    of_body: dict[str, int] = dict(access.ask("select encode(sha256, 'hex'), xmin::text::bigint from log.delivery"))
    acked: set[str] = set()
    early: Counter[str] = Counter()
    shared: Counter[int] = Counter()
    for ack in acks:
        for body in _bodies(ack, files, offsets):
            acked.update(ids[body])
            stores = {of_body.get(hashlib.sha256(body).hexdigest(), 0)} | {of_position.get(log.at.get(id_, 0), 0) for id_ in ids[body]}
            needed = max(commits.get(transaction, NEVER) for transaction in stores)
            early[ack.way] += durable.before(ack.entered) < needed
            shared[durable.first(needed)] += 1
            found.exercised[ack.way] += 1
            found.runs += 1
    judge(found, log, {id_ for one in ids.values() for id_ in one}, acked)
    found.lost += early.total()
    found.also.update(
        {"left before its sync": dict(+early), "syncs of the log": durable.syncs, "most behind one sync": max(shared.values(), default=0)}
    )


def _bodies(ack: Ack, files: dict[str, bytes], offsets: dict[int, bytes]) -> list[bytes]:
    """What is acknowledged and was not before; an offset acknowledges all below it."""
    if isinstance(ack.of, bytes):
        return [ack.of]
    if isinstance(ack.of, str):
        return [files[ack.of]]
    return [offsets.pop(n) for n in sorted(offsets) if n < ack.of]


TRIAL = Trial(
    "fsync-order",
    run,
    seconds=(120, 1800),
    without={
        "fsync-before-ack": mechanisms.fsync_before_ack,
        "manual-ack": mechanisms.manual_ack,
        "ack-before-commit": mechanisms.ack_before_commit,
        "spool-sync": mechanisms.spool_sync,
        "spool-before-ack": mechanisms.spool_before_ack,
    },
)
