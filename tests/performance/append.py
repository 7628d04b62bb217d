"""The append rows: our door against raw COPY, the eventsourcing library's recorder and UmaDB, each with its best batching.

Timed from event objects to receipts in hand: encoding, digest, receipts, versions, order and commit are all in it.
"""

import asyncio
import contextlib
import gc
import multiprocessing
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from events import Fact
from events.base import microseconds
from hub.app.servers.process import free_port
from hub.log.codec import COPY, COPY_BEGIN, COPY_END, encode, packed, row_of
from hub.log.group import GroupLog
from hub.log.migrate import migrate
from hub.log.store import Accepted, Duplicate, Log
from tests.conftest import new_database
from tests.facts import START, as_role, fact
from tests.performance.report import Against, Row, Sample, measure

STREAMS = 10_000


def facts(count: int, seed: int = 1) -> list[Fact]:
    """Facts of about 300 bytes of data over 10,000 streams, with random business keys."""
    chance = random.Random(seed)
    found = []
    for n in range(count):
        things = [
            {
                "item": f"0952100{chance.randrange(10**7):07d}",
                "lot": f"L{chance.randrange(10**6):06d}",
                "quantity": {"value": str(chance.randrange(1, 500)), "unit": "EA"},
            }
            for _ in range(2)
        ]
        data = {
            "order": f"{chance.randrange(STREAMS):07d}",
            "things": things,
            "location": "LINE-1",
            "operation": "0020",
            "equipment": "ASSEMBLY-4",
        }
        found.append(fact(str(uuid.UUID(int=chance.getrandbits(128))), "production.material_issued", data, n / 60))
    return found


def batches(all_: Sequence[Fact], size: int) -> list[Sequence[Fact]]:
    return [all_[n : n + size] for n in range(0, len(all_), size)]


class Bench:
    """What the rows share: a server, and how large they are."""

    def __init__(self, owner_url: str, small: bool) -> None:
        self.owner_url, self.small, self.rounds = owner_url, small, 3 if small else 5
        self.facts = facts(10_000 if small else 60_000)

    @contextlib.contextmanager
    def log_url(self) -> Iterator[str]:
        """An empty log; the owner's URL."""
        with new_database(self.owner_url) as url:
            migrate(url)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("checkpoint")
            yield url

    # -- ours

    def door(self, size: int) -> Sample:
        """One caller, batches of a size."""
        with self.log_url() as url, Log(as_role(url, "hub_door")) as log:
            log.append(facts(10, 99))
            parts = batches(self.facts, size)
            gc.freeze()  # as the hub's processes do once they have started
            for one in self.facts:  # a peer's fork left their memory shared: the first touch of each page would be timed
                encode(row_of(one))
            begun = time.perf_counter()
            found = [log.append(part) for part in parts]
            took = time.perf_counter() - begun
        assert all(isinstance(result, Accepted) for results in found for result in results)
        return Sample(len(self.facts) / took)

    def door_processes(self, size: int, processes: int) -> Sample:
        """Several processes, batches of a size."""
        with self.log_url() as url:
            shares = [self.facts[n::processes] for n in range(processes)]
            return Sample(len(self.facts) / together([(_append_share, (as_role(url, "hub_door"), share, size)) for share in shares]))

    def singles(self, callers: int) -> Sample:
        """Tasks of one event loop, each waiting for its one fact to be durable before it sends the next."""
        each = max(20, (2_000 if self.small else 10_000) // callers)
        pool = facts(callers * each, 5)
        calls: list[float] = []

        async def caller(group: GroupLog, mine: Sequence[Fact]) -> None:
            for one in mine:
                begun = time.perf_counter()
                await group.append_soon([one])
                calls.append(time.perf_counter() - begun)

        async def run(group: GroupLog) -> float:
            begun = time.perf_counter()
            await asyncio.gather(*(caller(group, pool[n * each : (n + 1) * each]) for n in range(callers)))
            return time.perf_counter() - begun

        with self.log_url() as url, GroupLog(Log(as_role(url, "hub_door"))) as group:
            group.append(facts(10, 99))
            interval = sys.getswitchinterval()
            sys.setswitchinterval(0.0002)
            try:
                took = asyncio.run(run(group))
            finally:
                sys.setswitchinterval(interval)
        return Sample(len(pool) / took, calls)

    def duplicates(self) -> Callable[[], tuple[Sample, Sample]]:
        """Rates of batches of 1,000: all known, and when they were new."""

        def run() -> tuple[Sample, Sample]:
            with self.log_url() as url, Log(as_role(url, "hub_door")) as log:
                parts = batches(self.facts[:10_000], 1000)
                begun = time.perf_counter()
                for part in parts:
                    log.append(part)
                between = time.perf_counter()
                found = [log.append(part) for part in parts]
                ended = time.perf_counter()
            assert all(isinstance(result, Duplicate) for results in found for result in results)
            return Sample(10_000 / (ended - between)), Sample(10_000 / (between - begun))

        return run

    # -- raw COPY

    def raw(self, size: int, connections: int = 1, *, plain: bool = False) -> Sample:
        """Rows packed beforehand, one transaction a batch, into a table of our shape and indexes (`plain`: of events alone)."""
        share = len(self.facts) // connections
        with self.log_url() as url:
            with psycopg.connect(url) as owner:
                if plain:
                    owner.execute(
                        "create table raw (position bigint primary key, stream text, version bigint, type text, payload bytea, unique (stream, version))"
                    )
                else:
                    owner.execute("create table raw (like log.event including all)")
            works: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
            for n in range(connections):
                mine = self.facts[n * share : (n + 1) * share]
                works.append((_copy_share, (url, packed_batches(mine, size, n * share, f"{n}/" if connections > 1 else "", plain), plain)))
            return Sample(share * connections / together(works))

    # -- the library

    def library(self, size: int, callers: int = 1) -> Sample:
        """The eventsourcing library's own PostgreSQL recorder: batches of a size, or single events by so many threads."""
        from eventsourcing.persistence import StoredEvent
        from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
        from psycopg import conninfo

        with self.log_url() as url:
            parts = conninfo.conninfo_to_dict(url)
            host, port = str(parts.get("host", "")), str(parts.get("port", "5432"))
            store = PostgresDatastore(
                str(parts["dbname"]), host, port, str(parts["user"]), "", pool_size=max(2, min(callers, 40)), max_overflow=10
            )
            recorder = PostgresApplicationRecorder(store, events_table_name="library_events")
            recorder.create_table()
            versions: dict[str, int] = {}
            stored = []
            for one in self.facts if callers == 1 else self.facts[: 1_000 if self.small else 3_000]:
                stream = one.event.stream()
                versions[stream] = version = versions.get(stream, 0) + 1
                stored.append(StoredEvent(uuid.uuid5(uuid.NAMESPACE_OID, stream), version, one.event.type, one.event.json()))
            try:
                if callers == 1 and size > 1:
                    begun = time.perf_counter()
                    for n in range(0, len(stored), size):
                        recorder.insert_events(stored[n : n + size])
                    return Sample(len(stored) / (time.perf_counter() - begun))
                with ThreadPoolExecutor(callers) as pool:
                    begun = time.perf_counter()
                    list(pool.map(lambda one: recorder.insert_events([one]), stored[: 300 if callers == 1 else None]))
                    took = time.perf_counter() - begun
                return Sample(len(stored[: 300 if callers == 1 else None]) / took)
            finally:
                store.close()

    # -- UmaDB

    def umadb(self, size: int, callers: int = 1) -> Sample:
        """UmaDB's server and client, one tag an event, no condition and no dedupe."""
        import umadb

        sent = self.facts if size > 1 else self.facts[: 10_000 if self.small else 30_000]
        made = [umadb.Event(event_type=one.event.type, data=one.event.json(), tags=[one.event.stream()]) for one in sent]
        with _umadb_server() as address:
            clients = [umadb.Client(address) for _ in range(min(callers, 8))]
            parts = [made[n : n + size] for n in range(0, len(made), size)]
            if callers == 1:
                parts = parts if size > 1 else parts[:2_000]
                begun = time.perf_counter()
                for part in parts:
                    clients[0].append(part)
                took = time.perf_counter() - begun
            else:
                shares = [(clients[n % len(clients)], parts[n::callers]) for n in range(callers)]
                took = _threads([lambda c=client, s=share: [c.append(part) for part in s] for client, share in shares])  # type: ignore[misc]
            return Sample(sum(map(len, parts)) / took)


def rows(bench: Bench, only: str = "") -> Iterator[list[Row]]:
    """The rows of this file whose name begins with `only`, in the order of the issue's table."""
    b, n = bench, bench.rounds
    table: dict[str, Callable[[str], list[Row]]] = {
        "append-5000": lambda name: measure(
            name, "facts/s", lambda: b.door(5000), {Against("raw COPY, same shape", ">=", 0.6): lambda: b.raw(5000)}, n
        ),
        "append-5000-plain": lambda name: measure(
            name, "facts/s", lambda: b.door(5000), {Against("raw COPY, plain table"): lambda: b.raw(5000, plain=True)}, n
        ),
        "append-1000": lambda name: measure(
            name,
            "facts/s",
            lambda: b.door(1000),
            {
                Against("raw COPY, same shape", ">=", 0.6): lambda: b.raw(1000),
                Against("eventsourcing recorder", ">=", 2.0): lambda: b.library(1000),
                Against("UmaDB, no dedupe"): lambda: b.umadb(1000),
            },
            n,
        ),
        "append-1000-8": lambda name: measure(
            name,
            "facts/s",
            lambda: b.door_processes(1000, 8),
            {
                Against("raw COPY, two connections", ">=", 0.5): lambda: b.raw(1000, 2),
                Against("UmaDB, 8 callers"): lambda: b.umadb(1000, 8),
            },
            n,
        ),
        **{f"single-{callers}": lambda name, c=callers: _single(b, name, c) for callers in (1, 8, 32, 128, 512)},  # type: ignore[misc]
        "duplicates-1000": lambda name: [_duplicates(b)],
    }
    yield from (make(name) for name, make in table.items() if name.startswith(only))


def _single(b: Bench, name: str, callers: int) -> list[Row]:
    library, uma = {32: (8.0, 0.6), 128: (15.0, 1.2)}.get(callers, (None, None))
    peers = {
        Against(f"eventsourcing recorder, {callers} callers", ">=" if library else None, library): lambda: b.library(1, callers),
        Against(f"UmaDB, {callers} callers", ">=" if uma else None, uma): lambda: b.umadb(1, callers),
    }
    return measure(name, "facts/s", lambda: b.singles(callers), peers, b.rounds)


def _duplicates(b: Bench) -> Row:
    run = b.duplicates()
    pairs = [run() for _ in range(b.rounds)]
    rounds = [{"value": known.value, "peer_value": new.value, "ratio": known.value / new.value} for known, new in pairs]
    median = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    return Row(
        "duplicates-1000",
        "facts/s",
        median["value"],
        "append of the same when new",
        median["peer_value"],
        median["ratio"],
        ">=",
        1.0,
        rounds,
    )


def packed_batches(mine: Sequence[Fact], size: int, before: int, mark: str, plain: bool) -> list[bytes]:
    import struct

    recorded, versions = microseconds(START + timedelta(days=1)), dict[str, int]()
    found, at = [], before
    for part in batches(mine, size):
        body = [COPY_BEGIN]
        for one in part:
            row = encode(row_of(one))
            row.stream = mark + row.stream
            versions[row.stream] = version = versions.get(row.stream, 0) + 1
            at += 1
            if plain:
                s, t, data = row.stream.encode(), one.event.type.encode(), one.event.json()
                body.append(struct.pack(f"!hiqi{len(s)}siqi{len(t)}si", 5, 8, at, len(s), s, 8, version, len(t), t, len(data)) + data)
            else:
                body.append(packed(row, at, version, recorded))
        found.append(b"".join((*body, COPY_END)))
    return found


def _copy_share(url: str, bodies: Sequence[bytes], plain: bool, ready: Any) -> None:
    statement = "copy raw from stdin (format binary)" if plain else COPY.replace("log.event", "raw")
    with psycopg.connect(url) as connection:
        ready.wait()
        for body in bodies:
            with connection.cursor().copy(statement.encode()) as copy:
                copy.write(body)
            connection.commit()


def _append_share(url: str, share: Sequence[Fact], size: int, ready: Any) -> None:
    with Log(url) as log:
        log.head()
        ready.wait()
        for part in batches(share, size):
            log.append(part)


def together(works: Sequence[tuple[Callable[..., None], tuple[Any, ...]]]) -> float:
    """Seconds that processes of their own take together, from the moment when all are ready."""
    fork = multiprocessing.get_context("fork")
    ready = fork.Barrier(len(works) + 1)
    processes = [fork.Process(target=work, args=(*args, ready)) for work, args in works]
    for process in processes:
        process.start()
    ready.wait()
    begun = time.perf_counter()
    for process in processes:
        process.join()
    took = time.perf_counter() - begun
    if any(process.exitcode for process in processes):
        raise RuntimeError("a process of the bench failed: see above")
    return took


def _threads(works: Sequence[Callable[[], object]]) -> float:
    threads = [threading.Thread(target=work) for work in works]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


@contextlib.contextmanager
def _umadb_server() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        address = f"127.0.0.1:{free_port()}"
        program = Path(sys.executable).with_name("umadb")
        server = subprocess.Popen(
            [program, "--listen", address, "--db-path", f"{folder}/uma.db"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection((address.split(":")[0], int(address.split(":")[1])), 0.2):
                    break
                time.sleep(0.05)
            yield f"http://{address}"
        finally:
            server.terminate()
            server.wait(10)
