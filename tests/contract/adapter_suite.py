"""What the laws of adapters stand on: a real log that can be made unavailable, and a hub's intake loop in a thread or in a child process."""

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg import conninfo, sql

from adapters import canonical_json, unsupported
from events import canonical
from hub.app.servers.process import wait_until
from hub.intake.delivery import Adapter, Delivery, Outcome
from hub.intake.door import Intake, Loop
from hub.log.migrate import migrate
from hub.log.store import Log
from tests.contract.adapter_sources import WAIT_S, Road, Source
from tests.facts import as_role

MAPPINGS = (canonical_json.MAPPING, unsupported.MAPPING)


def facts(first: int, count: int) -> list[bytes]:
    """Bodies of one fact each, with the keys K<first>, …"""
    rows = (
        {
            "type": "masterdata.item_defined", "source": "wms:contract", "key": f"K{n}", "occurred_at": "2026-01-05T06:00:00Z",
            "data": {"item": f"ITEM-{n}", "base_unit": "EA"},
        }
        for n in range(first, first + count)
    )  # fmt: skip
    return [canonical.dumps(row) for row in rows]


class Store:
    """The database behind the log, asked without the hub's code."""

    def __init__(self, owner_url: str) -> None:
        migrate(owner_url)
        self.owner_url, self.door_url = owner_url, as_role(owner_url, "hub_door")
        self._name = str(conninfo.conninfo_to_dict(owner_url)["dbname"])
        self._server_url = conninfo.make_conninfo(owner_url, dbname="postgres")

    def _rows(self, query: sql.SQL) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.owner_url) as connection:
            return connection.execute(query).fetchall()

    def keys(self) -> list[str]:
        """The business keys of the facts that were sent, in the order of their positions; once a fact, however often it is there."""
        query = sql.SQL("select business_key from log.event where type not like 'integration.%' order by position")
        return [key for (key,) in self._rows(query)]

    def count(self) -> int:
        """How many facts there are."""
        return int(self._rows(sql.SQL("select count(*) from log.event"))[0][0])

    def bodies(self) -> list[bytes]:
        """The bytes that were kept, in no order."""
        return [bytes(body) for (body,) in self._rows(sql.SQL("select body from log.delivery"))]

    def quarantined(self) -> list[bytes]:
        """The bodies that a quarantine fact names."""
        query = sql.SQL(
            """select d.body from log.event e join log.delivery d on encode(d.sha256, 'hex') = convert_from(e.data, 'UTF8')::json->>'raw_sha256'
               where e.type = 'integration.delivery_quarantined' order by e.position"""
        )
        return [bytes(body) for (body,) in self._rows(query)]

    def down(self) -> None:
        """Nobody gets in any more, and who is in is thrown out."""
        self._allow(False)
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", [self._name])

    def up(self) -> None:
        self._allow(True)

    def _allow(self, allowed: bool) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            change = sql.SQL("alter database {} allow_connections {}").format(sql.Identifier(self._name), sql.Literal(allowed))
            connection.execute(change)


class Witness(Intake):
    """The hub's intake, with what became of each delivery written down; the first `faults` batches end in an error of ours."""

    def __init__(self, store: Store, faults: int = 0) -> None:
        self.log = Log(store.door_url)
        super().__init__(self.log, MAPPINGS)
        self.outcomes: list[Outcome] = []
        self.batches: list[int] = []
        self._faults = faults

    def take(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        self.batches.append(len(deliveries))
        if len(self.batches) <= self._faults:
            raise ArithmeticError("an error of ours")
        outcomes = super().take(deliveries)
        self.outcomes += outcomes
        return outcomes


class Running:
    """An intake loop in a thread, as the hub runs it."""

    def __init__(self, adapter: Adapter, store: Store) -> None:
        self.witness = Witness(store)
        self.said: list[str] = []
        self._stop = threading.Event()
        self._loop = Loop(adapter, self.witness, self.said.append)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._loop.step(self._stop, 0.05)  # shorter than the hub's wait: most of a test's time would go into ends of loops
        self._loop.run(self._stop)  # ended already: closes the adapter

    def end(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "the loop does not end"
        self.witness.log.close()


@contextlib.contextmanager
def running(adapter: Adapter, store: Store) -> Iterator[Running]:
    """An intake loop until the end of the block; then its adapter is closed."""
    loop = Running(adapter, store)
    try:
        yield loop
    finally:
        loop.end()


def drain(source: Source, store: Store, count: int) -> list[Outcome]:
    """Run a loop until the log has so many facts and the source has nothing left; what became of what came."""
    outcomes: list[Outcome] = []
    until, moment = time.monotonic() + WAIT_S, 0.2
    while True:
        with running(source.road.adapter(), store) as loop:
            assert wait_until(lambda: len(store.keys()) >= count, WAIT_S, every=0.05), (len(store.keys()), loop.said[-3:])
            settle(loop, moment)
        outcomes += loop.witness.outcomes
        if not (held := source.held()):
            return outcomes
        assert time.monotonic() < until, f"the source still holds {held}"  # until then a slow one may not have sent all that it had
        moment *= 2  # nor have let us into its group


def settle(loop: Running, moment: float = 0.2) -> None:
    """Until nothing comes any more: no batch for a moment, in seconds."""
    seen = -1
    while seen != (seen := len(loop.witness.batches)):
        time.sleep(moment)


def receive(adapter: Adapter, count: int, limit: int = 200) -> list[Delivery]:
    """So many deliveries, in batches, none acknowledged."""
    found: list[Delivery] = []
    until = time.monotonic() + WAIT_S
    while len(found) < count and time.monotonic() < until:
        batch = adapter.receive(limit, 0.2)
        assert len(batch) <= limit
        found += batch
    return found


# -- children that are killed ---------------------------------------------------------------------------------------------------------

_fork = multiprocessing.get_context("forkserver")  # imports once, and forks from a process without threads
_fork.set_forkserver_preload(["tests.contract.adapter_suite", "tests.contract.adapter_mqtt", "tests.contract.adapter_http"])


def _live(road: Road, door_url: str) -> None:
    Loop(road.adapter(), Intake(Log(door_url), MAPPINGS), lambda _: None).run(threading.Event())


@contextlib.contextmanager
def child(road: Road, store: Store) -> Iterator[None]:
    """A process that runs the intake loop until the end of the block; then kill -9."""
    process = _fork.Process(target=_live, args=(road, store.door_url), daemon=True)
    process.start()
    try:
        yield
        assert process.is_alive()
    finally:
        process.kill()
        process.join(WAIT_S)
        process.close()
