"""The edge's rows.

spool: entries a second that are durable when `append` returns, against transactions of the same bytes in a plain SQLite table with the same settings on
the same disk.
drain: readings a second that leave a backlog by the shipped forwarder over mutual TLS, until the spool knows that the hub's log has them durably,
against the hub's door alone: the same documents in batches as large, in one process. What is between the two is spool, line and listener.
mqtt: messages a second that machines publish with QoS 1, from the first one until all are in the hub's log and acknowledged to the broker, through the
shipped edge and listener in processes of their own, against a paho client that acknowledges what comes and does nothing with it.
opcua: values that one client takes from a server in a second of its processor's time (the server, Python too, runs beside it and is slower), ours
through `receive` with what is to be remembered, against asyncua's own subscription with a handler that keeps value and time.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import multiprocessing
import os
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import psycopg
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from adapters.edge import forwarder
from adapters.edge.forwarder import Forwarder
from adapters.edge.loops import DOCUMENT
from adapters.edge.spool import Addition, Entry, Spool
from adapters.opcua import OpcUaSettings, OpcUaSource, Start
from hub import limits
from hub.app.edge.config import Configured
from hub.app.edge.process import tls_of
from hub.app.home import Home
from hub.app.plants.authority import Authority
from hub.app.servers import process
from hub.app.wiring import mappings
from hub.intake.delivery import Delivery
from hub.intake.door import Intake
from hub.intake.edge_document import EdgeDocument
from hub.intake.readings import Reading
from hub.log.group import GroupLog
from hub.log.store import Log
from tests.contract.edge_mqtt import Broker, broker, installed
from tests.contract.opcua_plant import HOST, URI, PlantServer
from tests.crash.edges import answers
from tests.facts import START, as_role
from tests.performance import append
from tests.performance.intake import hub_process
from tests.performance.report import Against, Row, Sample, measure

EDGE = "bench"
PRODUCERS = 20  # machines of the plant, each a lane
WAIT_S = 120.0
_HUB = "from hub.app.cli import main; raise SystemExit(main())"  # as the script `hub`, of the code that measures


def rows(bench: append.Bench, only: str = "") -> Iterator[list[Row]]:
    """The rows of this file whose name begins with `only`."""
    gc.freeze()  # the facts of other rows: as the hub's processes and the edge do with what is there when they start
    yield from spool_rows(bench, only)
    yield from line_rows(bench, only)
    yield from opcua_rows(bench, only)


# -- spool -------------------------------------------------------------------------------------------------------------------------------


def spool_rows(bench: append.Bench, only: str) -> Iterator[list[Row]]:
    """The rows `edge-spool-1` and `edge-spool-100`."""
    with tempfile.TemporaryDirectory() as folder:
        for size, appends in ((1, 500 if bench.small else 3000), (100, 100 if bench.small else 1000)):
            if not (name := f"edge-spool-{size}").startswith(only):
                continue
            bodies = [document(n, 1, "e", 1) for n in range(size * appends)]
            parts = [bodies[n : n + size] for n in range(0, len(bodies), size)]
            plain = Against("plain SQLite commits")
            said = f"{appends} appends of {size} entries of {len(bodies[-1])} bytes, write-ahead log, synchronous=FULL"
            ours, theirs = partial(_spooled, Path(folder), parts), partial(_committed, Path(folder), parts)
            yield measure(name, "entries/s", ours, {plain: theirs}, bench.rounds, said)


def _spooled(folder: Path, parts: Sequence[Sequence[bytes]]) -> Sample:
    entries = [[Entry(body, DOCUMENT, START) for body in part] for part in parts]
    spool = Spool(folder / f"{uuid.uuid4().hex}.db", EDGE)
    try:
        return _timed(lambda part: spool.append("line1", part), entries)
    finally:
        spool.close()


def _committed(folder: Path, parts: Sequence[Sequence[bytes]]) -> Sample:
    with contextlib.closing(sqlite3.connect(folder / f"{uuid.uuid4().hex}.db", isolation_level=None)) as db:
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        db.execute("create table entry (n integer primary key, body blob not null)")

        def commit(part: Sequence[bytes]) -> None:
            db.execute("begin immediate")
            db.executemany("insert into entry (body) values (?)", ((body,) for body in part))
            db.execute("commit")

        return _timed(commit, parts)


def _timed(work: Callable[[Any], object], parts: Sequence[Sequence[Any]]) -> Sample:
    """Entries a second, and the seconds of each call, once the file has its first."""
    work(parts[0])
    calls = [time.perf_counter()]
    for part in parts[1:]:
        work(part)
        calls.append(time.perf_counter())
    count = sum(map(len, parts[1:]))
    return Sample(count / (calls[-1] - calls[0]), [after - before for before, after in itertools.pairwise(calls)])


def document(n: int, readings: int, epoch: str, entry: int, lane: str = "machines/m00") -> bytes:
    """An entry of an edge: so many readings of one machine, the first with the number n."""
    found = [
        Reading(f"{lane}/v", n + one, START + timedelta(milliseconds=n + one), type="integer", sequence=n + one) for one in range(readings)
    ]
    return EdgeDocument(EDGE, epoch, lane, entry, lane, START, found, run="0123abcd").json()


# -- over the line to the hub ------------------------------------------------------------------------------------------------------------


def line_rows(bench: append.Bench, only: str) -> Iterator[list[Row]]:
    """The rows `edge-drain-1`, `edge-drain-100` and `edge-mqtt`, over one listener and one log."""
    names = [name for name in ("edge-drain-1", "edge-drain-100", "edge-mqtt") if name.startswith(only)]
    if not names:
        return
    with contextlib.ExitStack() as kept:
        line = Line(bench, Path(kept.enter_context(tempfile.TemporaryDirectory())), kept)
        for size, entries in ((1, 2_000 if bench.small else 20_000), (100, 600 if bench.small else 5_000)):
            if (name := f"edge-drain-{size}") in names:
                door = Against("the hub's door, same batches")
                said = f"{entries} entries of {size} readings in {PRODUCERS} lanes, {forwarder.ENTRIES_MAX} entries a batch"
                ours, theirs = partial(line.drained, entries, size), partial(line.door, entries, size)
                yield measure(name, "readings/s", ours, {door: theirs}, bench.rounds, said)
        if "edge-mqtt" in names:
            if not (program := installed()):
                reason = "mosquitto is not installed (Debian: apt-get install mosquitto)"
                if os.environ.get("HUB_CI") == "1":
                    raise RuntimeError(reason)
                print(f"edge-mqtt: not measured, {reason}", flush=True)
                return
            count = 2_000 if bench.small else 20_000
            plant = line.plant(program)
            said = f"MQTT 5, {count} messages a round of {PRODUCERS} machines in turn, mosquitto with 1,000 under way, nothing of it on its disk"
            only_acknowledges = Against("a paho client that acknowledges")
            yield measure(
                "edge-mqtt", "messages/s", lambda: plant.through(count), {only_acknowledges: lambda: plant.heard(count)}, bench.rounds, said
            )


class Line:
    """`hub-plants` over a log of its own, and an edge that is enrolled there. What is started ends with `kept`."""

    def __init__(self, bench: append.Bench, folder: Path, kept: contextlib.ExitStack) -> None:
        self.url, self.folder, self._kept = kept.enter_context(bench.log_url()), folder, kept
        self._port, self.http_port = process.free_port(), process.free_port()
        Authority(Home.open(folder / "home")).hand_over(EDGE, folder)
        listen = f"{HOST}:{self._port}"
        kept.enter_context(hub_process("plants", self.url, folder / "home", lambda: answers(self._port), HUB_EDGE_LISTEN=listen))
        self._db, self._seen = kept.enter_context(psycopg.connect(self.url, autocommit=True)), 0
        self._tls = tls_of(Configured(self.config()))

    def config(self, **more: Any) -> Path:
        """An edge.yaml."""
        file = self.folder / "edge.yaml"
        said = {"edge": EDGE, "hub": {"url": f"https://{HOST}:{self._port}"}, "listen": f"{HOST}:{self.http_port}", **more}
        file.write_text(json.dumps(said))  # JSON is YAML
        return file

    # -- a backlog

    def drained(self, entries: int, size: int) -> Sample:
        """By a forwarder that has said its first word."""
        spool = Spool(self.folder / f"{uuid.uuid4().hex}.db", EDGE)
        sender = Forwarder(spool, f"https://{HOST}:{self._port}", self._tls)
        stop = threading.Event()
        try:
            spool.append_all(_backlog(spool.epoch, PRODUCERS, size), {})
            while sender.step(stop):
                pass
            spool.append_all(_backlog(spool.epoch, entries, size), {})
            self.look()
            begun = time.perf_counter()
            while sender.step(stop):
                pass
            took = time.perf_counter() - begun
            assert not any(lane.backlog for lane in spool.lanes())
        finally:
            sender.close()
            spool.close()
        found = self.look()
        assert found == entries * size, f"{found} readings are in the log, {entries * size} were in the spool"
        return Sample(found / took)

    def door(self, entries: int, size: int) -> Sample:
        """The door as the listener uses it, in batches as large as the forwarder's."""
        epoch = uuid.uuid4().hex
        lanes = [
            [
                Delivery(entry.body, DOCUMENT, START, {"edge": EDGE, "epoch": epoch, "lane": one.lane, "n": str(n)})
                for n, entry in enumerate(one.make(1), 1)
            ]
            for one in _backlog(epoch, entries, size)
        ]
        found = list(itertools.chain.from_iterable(zip(*lanes, strict=True)))  # some of every lane in a batch, as the spool hands them out
        with GroupLog(Log(as_role(self.url, "hub_door"))) as log:
            intake = Intake(log, mappings(), {})
            intake.take([Delivery(document(0, size, epoch, 0), DOCUMENT, START, {"edge": EDGE})])
            begun = time.perf_counter()
            for start in range(0, len(found), forwarder.ENTRIES_MAX):
                outcomes = intake.take(found[start : start + forwarder.ENTRIES_MAX])
                assert all(outcome.outcome == "accepted" for outcome in outcomes)
            took = time.perf_counter() - begun
        return Sample(entries * size / took)

    def look(self) -> int:
        """How many readings the log has that it had not when it was last looked at."""
        row = self._db.execute(
            """select coalesce(max(position), %(after)s), coalesce(sum((convert_from(data, 'UTF8')::jsonb ->> 'readings')::bigint), 0)
               from log.event where position > %(after)s and type = 'equipment.readings_recorded'""",
            {"after": self._seen},
        ).fetchone()
        assert row is not None
        self._seen = row[0]
        return int(row[1])

    def numbers(self) -> tuple[int, int]:
        """How many readings of the plant's messages the hub keeps, and how many different ones."""
        row = self._db.execute(
            """select count(*), count(distinct (reading ->> 0, reading ->> 5))
               from (select convert_from(body, 'UTF8')::jsonb as said from log.delivery where transport = 'edge') found,
                 jsonb_array_elements(said -> 'readings') reading where said ->> 'producer' like 'machines/plant/%'"""
        ).fetchone()
        assert row is not None
        return row[0], row[1]

    # -- a plant that goes on

    def plant(self, program: str) -> "Plant":
        """A broker, and the edge as a plant runs it, that has taken its first messages."""
        place = self.folder / "broker"
        place.mkdir()
        made = self._kept.enter_context(broker(program, place, persistence=False))
        readings = [{"filter": "plant/#", "at": "ts", "sequence": "seq"}]
        config = self.config(mqtt=[{"name": "machines", "url": f"mqtt://{HOST}:{made.port}", "readings": readings}])
        said = self.folder / "edge.log"
        running = process.spawn([sys.executable, "-c", _HUB, "edge", "--config", str(config)], said, death=signal.SIGKILL)
        self._kept.callback(_acknowledged, made)
        self._kept.callback(running.wait, 30)
        self._kept.callback(running.terminate)
        found = Plant(self, made)
        if not process.wait_until(found.connected, 60):
            raise RuntimeError(f"the edge does not run: {process.tail(said)}")
        found.through(PRODUCERS * 10)
        return found


class Plant:
    """Machines that publish to a broker, and who hears them."""

    def __init__(self, line: Line, made: Broker) -> None:
        self._line, self._broker = line, made
        self._said = 0  # messages that were for the edge

    def connected(self) -> bool:
        """Whether the edge is, to the broker and to the hub."""
        said = self._status()
        return bool(said) and said["line"]["up"] and all(one["connected"] for one in said["sources"])

    def through(self, count: int) -> Sample:
        """All must be in the log, each once, and acknowledged."""
        found = 0
        self._line.look()  # what came by other ways is no part of it
        with self._publishing("plant", count) as begin:
            begun = begin()
            while found < count or self._taken() < self._said:
                assert time.perf_counter() - begun < WAIT_S, f"{found} of {count} readings are in the log"
                time.sleep(0.005)
                found += self._line.look()
            took = time.perf_counter() - begun
        kept = self._line.numbers()
        assert kept == (self._said, self._said), f"{kept} readings and distinct ones are kept, {self._said} were published"
        return Sample(count / took)

    def heard(self, count: int) -> Sample:
        """By a client that subscribes as the edge does, and acknowledges each message when it comes."""
        came, done, ready = itertools.count(1), threading.Event(), threading.Event()

        def on_message(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
            if next(came) == count:
                done.set()

        client = mqtt.Client(CallbackAPIVersion.VERSION2, f"peer-{uuid.uuid4().hex[:8]}", protocol=mqtt.MQTTv5)
        asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        asked.ReceiveMaximum = limits.MQTT_WAITING_MAX
        client.on_message = on_message
        client.on_subscribe = lambda *_: ready.set()
        with self._publishing("peer", count) as begin:
            client.connect(HOST, self._broker.port, properties=asked)
            client.loop_start()
            client.subscribe("peer/#", qos=1)
            assert ready.wait(WAIT_S)
            begun = begin()
            assert done.wait(WAIT_S), f"not all of {count} messages came"
            took = time.perf_counter() - begun
            client.disconnect()
            client.loop_stop()
        return Sample(count / took)

    @contextlib.contextmanager
    def _publishing(self, below: str, count: int) -> Iterator[Callable[[], float]]:
        """A process that is ready to publish as fast as the broker takes it; what is called lets it begin and says when that was."""
        numbers = range(self._said, self._said + count)
        bodies = (json.dumps({"ts": round(time.time(), 6), "seq": n // PRODUCERS, "value": n / 8}) for n in numbers)
        said = [_packet(f"{below}/m{n % PRODUCERS:02}", body, n % 65535 + 1) for n, body in zip(numbers, bodies, strict=True)]
        if below == "plant":
            self._said += count
        fork = multiprocessing.get_context("fork")
        ready = fork.Barrier(2)
        child = fork.Process(target=_publish, args=(self._broker.port, said, ready))
        child.start()

        def begin() -> float:
            ready.wait(WAIT_S)
            return time.perf_counter()

        try:
            yield begin
            child.join(WAIT_S)
        finally:
            child.kill()
            child.join()
        assert child.exitcode == 0, "the publisher failed: see above"

    def _taken(self) -> int:
        """Readings whose messages the edge has acknowledged."""
        return sum(one["taken"] for one in self._status().get("sources", ()))

    def _status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{self._line.http_port}/status", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
        return {}


def _packet(topic: str, body: str, number: int) -> bytes:
    """A PUBLISH of MQTT 3.1.1 with QoS 1."""
    rest = len(topic).to_bytes(2) + topic.encode() + number.to_bytes(2) + body.encode()
    assert len(rest) < 128
    return bytes((0x32, len(rest))) + rest


def _publish(port: int, packets: Sequence[bytes], ready: Any) -> None:
    """Hand packets to the broker and wait until it has confirmed them all; a client library would be slower than who is measured."""
    with socket.create_connection((HOST, port), WAIT_S) as line:
        line.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")  # CONNECT, a clean session
        said, broker_says = b"".join(packets), line.makefile("rb")
        assert broker_says.read(4) == b"\x20\x02\x00\x00"
        ready.wait()
        sender = threading.Thread(target=line.sendall, args=(said,))
        sender.start()
        confirmed = broker_says.read(4 * len(packets))
        sender.join()
    assert confirmed[::4] == b"\x40" * len(packets), "the broker has not confirmed all that was published"


def _acknowledged(made: Broker) -> None:
    """What the edge took it has acknowledged: the broker holds nothing for it."""
    held = made.held(f"{EDGE}-machines-readings", "5")
    assert not held, f"{len(held)} messages are not acknowledged that are in the hub's log"


def _backlog(epoch: str, entries: int, size: int) -> list[Addition]:
    """Entries of so many readings, shared out to all lanes."""
    share = entries // PRODUCERS

    def make(lane: str, first: int) -> list[Entry]:
        bodies = (document(n * size, size, epoch, n, lane) for n in range(first, first + share))
        return [Entry(body, DOCUMENT, START) for body in bodies]

    return [Addition(lane, partial(make, lane)) for lane in (f"machines/m{n:02}" for n in range(PRODUCERS))]


# -- opcua -------------------------------------------------------------------------------------------------------------------------------

OPCUA_ITEMS = 100
OPCUA_PUBLISHING_S = 0.1
OPCUA_WAIT_S = 120.0


def opcua_rows(bench: append.Bench, only: str) -> Iterator[list[Row]]:
    """The row `edge-opcua`, where its name begins with `only`."""
    if not "edge-opcua".startswith(only):
        return
    each = 20 if bench.small else 200
    with tempfile.TemporaryDirectory() as folder, PlantServer(Path(folder) / "plant.log") as server:
        server.do("add_many", names=OPCUA_ITEMS)
        peer = Against("asyncua's own client")
        said = f"{OPCUA_ITEMS} items, {OPCUA_ITEMS * each} values a round, published every {OPCUA_PUBLISHING_S} s"
        yield measure("edge-opcua", "values/s", lambda: _ours(server, each), {peer: lambda: _theirs(server, each)}, bench.rounds, said)


def _ours(server: PlantServer, each: int) -> Sample:
    start = (Start("p:Line1", "line1", only=("V*",)),)
    settings = OpcUaSettings(server.url, "bench", start, {"p": URI}, publishing_s=OPCUA_PUBLISHING_S, queue=10_000)
    source = OpcUaSource(settings)
    source.open(lambda name: None)

    def take(count: int) -> None:
        found, until = 0, time.monotonic() + OPCUA_WAIT_S
        while found < count:
            assert time.monotonic() < until, f"{found} of {count} values came"
            for one in source.receive(500, 1.0):
                found += len(one.readings)
                one.done()

    try:
        take(OPCUA_ITEMS)
        server.do("later", do="burst", names=OPCUA_ITEMS, each=each)
        gc.collect()
        begun = time.process_time()
        take(OPCUA_ITEMS * each)
        took = time.process_time() - begun
    finally:
        source.close()
        server.do("forget")
    return Sample(OPCUA_ITEMS * each / took)


def _theirs(server: PlantServer, each: int) -> Sample:
    return Sample(OPCUA_ITEMS * each / asyncio.run(_handled(server, each)))


async def _handled(server: PlantServer, each: int) -> float:
    """Processor's seconds for the same values in a handler."""
    from asyncua import Client, ua

    kept: list[tuple[str, Any, Any]] = []

    class Handler:
        def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
            kept.append((node.nodeid, value, data.monitored_item.Value.SourceTimestamp))

    async def wait(count: int) -> None:
        until = time.monotonic() + OPCUA_WAIT_S
        while len(kept) < count:
            assert time.monotonic() < until, f"{len(kept)} of {count} values came"
            await asyncio.sleep(0.05)

    async with Client(server.url) as client:
        index = await client.get_namespace_index(URI)
        subscription = await client.create_subscription(1000 * OPCUA_PUBLISHING_S, Handler())
        nodes = [client.get_node(ua.NodeId(f"Line1.V{n}", index)) for n in range(OPCUA_ITEMS)]
        await subscription.subscribe_data_change(nodes, queuesize=10_000)
        await wait(OPCUA_ITEMS)
        server.do("later", do="burst", names=OPCUA_ITEMS, each=each)
        gc.collect()
        begun = time.process_time()
        await wait(OPCUA_ITEMS * (each + 1))
        return time.process_time() - begun
