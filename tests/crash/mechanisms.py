"""Mechanisms taken away, one at a time, to see that the trial that guards each one fails. Called in forked processes of the hub only.

Each replaces the function that holds the mechanism by what somebody would have written who did not think of it; none of them raises.
"""

import contextlib
import secrets
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from events import base
from events.errors import Unavailable
from hub.intake.delivery import Delivery, Outcome
from hub.intake.door import Loop
from hub.log import codec
from hub.log.follow import Tables, View, enter
from hub.log.store import Log
from replay import shadow

SEQUENCE = "trial_position"


def lock() -> None:
    """Positions come from a sequence, as in a table with an identity column: taken in one order, committed in another."""

    def locked(self: Log, cursor: psycopg.Cursor[tuple[Any, ...]], rows: Sequence[Any]) -> tuple[int, dict[bytes, tuple[int, bytes]]]:
        keys = "{" + ",".join({row.key.hex() for row in rows}) + "}"
        found = cursor.execute("select key, position, digest from log.event where key = any(%s::text::uuid[])", [keys]).fetchall()
        # one block a call, as a sequence with a cache hands them out
        query = f"select setval('{SEQUENCE}', nextval('{SEQUENCE}') + %s - 1), pg_advisory_unlock(1) from pg_advisory_lock(1)"  # noqa: S608
        ((last, _),) = cursor.execute(query, [len(rows)]).fetchall()
        return int(last) - len(rows), {key.bytes: (at, bytes(digest)) for key, at, digest in found}

    Log._locked = locked  # type: ignore[method-assign]


def prepare_lock(owner_url: str) -> None:
    """The sequence that positions then come from."""
    with psycopg.connect(owner_url) as connection:
        connection.execute(f"create sequence {SEQUENCE}".encode())
        connection.execute(f"grant usage, update on sequence {SEQUENCE} to hub_door".encode())


def receipt() -> None:
    """Every attempt has a key of its own, as with an id made when a message arrives."""
    codec.receipt_bytes = lambda source, business_key: secrets.token_bytes(16)


def position_guard() -> None:
    """The follower takes no lock on its position and does not look whether it is still the one it read."""

    def lock(self: Tables, schema: str) -> None:
        self.cursor.execute("set local synchronous_commit = off")
        enter(self.cursor, schema)

    def move(self: Tables, last: int, to: int) -> bool:
        self.cursor.execute("update position p set position = e.position, fact = e.key from log.event e where e.position = %s", [to])
        return True

    Tables.lock, Tables.move = lock, move  # type: ignore[method-assign]


def one_transaction() -> None:
    """Rows are committed, and then, in a transaction of its own, the position: as with a position that is kept elsewhere."""

    lock, fold = Tables.lock, Tables.fold

    def locked(self: Tables, schema: str) -> None:
        lock(self, schema)
        self.schema = schema  # type: ignore[attr-defined]

    def committed(self: Tables, view: View, facts: Sequence[Any]) -> None:
        fold(self, view, facts)
        self.cursor.execute("commit")
        self.cursor.execute("begin")
        enter(self.cursor, self.schema)  # type: ignore[attr-defined]

    Tables.lock, Tables.fold = locked, committed  # type: ignore[method-assign]


def shadow_mark() -> None:
    """A rebuild goes on with any shadow that is not finished, whichever code folded it."""

    def begun(self: shadow.Shadow) -> bool:
        with self._session.transaction() as tables:
            mark = tables.mark(self.schema)
        return mark is not None and "digest" not in mark

    shadow.Shadow.begun = property(begun)  # type: ignore[assignment, method-assign]


def upcasting() -> None:
    """Data of an older schema version are read as today's, what is missing taken for empty: nobody wrote an upcaster."""
    base.upcast = lambda type_name, version, data: {"things": [], **data}


def ack_before_commit() -> None:
    """Deliveries are acknowledged when they have arrived, and then made durable, as with automatic acknowledgement."""
    until_durable = Loop._until_durable

    def at_once(self: Loop, deliveries: Sequence[Delivery], stop: threading.Event) -> list[Outcome] | None:
        for delivery in deliveries:
            delivery.done(Outcome("", ()))
            delivery.done = lambda outcome: None
        return until_durable(self, deliveries, stop)

    Loop._until_durable = at_once  # type: ignore[method-assign]


def until_durable() -> None:
    """A batch that the log does not take is told and given up, as where a handler's error is only written down."""

    def once(self: Loop, deliveries: Sequence[Delivery], stop: threading.Event) -> list[Outcome] | None:
        try:
            return self._intake.take(deliveries)
        except Unavailable as error:
            self._report(f"{self.adapter.name}: {len(deliveries)} deliveries are given up: {error}")
            return [Outcome("", ())] * len(deliveries)

    Loop._until_durable = once  # type: ignore[method-assign]


def push_back() -> None:
    """What comes while a queue is full is dropped: HTTP says thank you, MQTT says nothing."""
    import queue
    from concurrent.futures import Future

    from adapters.http_queue import HttpQueue, QueueFull
    from adapters.mqtt import MqttAdapter

    submit = HttpQueue.submit

    def thanked(self: HttpQueue, *arguments: Any) -> "Future[Outcome]":
        try:
            return submit(self, *arguments)
        except QueueFull:
            future: Future[Outcome] = Future()
            future.set_result(Outcome("", ()))
            return future

    def dropped(self: MqttAdapter, client: Any, data: Any, message: Any) -> None:
        if not bytes(message._topic).startswith(b"hub/heartbeat/"):
            with contextlib.suppress(queue.Full):
                self._messages.put_nowait((self._session, message))
        self._beat_missing_since = 0.0

    HttpQueue.submit = thanked  # type: ignore[assignment, method-assign]
    MqttAdapter._on_message = dropped  # type: ignore[method-assign]


def monotonic() -> None:
    """Whether a file is whole is told by the time of day, as its times are."""
    import stat
    import time

    from adapters.folder import FolderAdapter
    from hub import limits

    def whole(self: FolderAdapter) -> list[tuple[str, int]]:
        found = []
        for entry in self.path.iterdir():
            if entry.name.startswith(".") or entry.name in self._taken or not stat.S_ISREG((info := entry.stat()).st_mode):
                continue
            if time.time() - info.st_mtime >= limits.FOLDER_SETTLED_S:
                found.append((info.st_mtime_ns, entry.name, info.st_size))
        return [(name, size) for _, name, size in sorted(found)]

    FolderAdapter._whole = whole  # type: ignore[method-assign]


def fsync_before_ack() -> None:
    """The session that appends does not wait for the disk, as somebody sets it who wants more appends a second."""
    append = Log._append

    def unflushed(self: Log, cursor: psycopg.Cursor[tuple[Any, ...]], rows: Sequence[Any]) -> list[Any]:
        cursor.execute("set local synchronous_commit = off")
        return append(self, cursor, rows)

    Log._append = unflushed  # type: ignore[method-assign]


def manual_ack() -> None:
    """The clients acknowledge by themselves, as they do where nobody asks for anything else: paho on arrival, Kafka's what was polled."""
    import paho.mqtt.client as mqtt

    from adapters import kafka

    settings = kafka.KafkaAdapter._settings

    class Client(mqtt.Client):
        def __init__(self, *positional: Any, **named: Any) -> None:
            super().__init__(*positional, **{**named, "manual_ack": False})

    mqtt.Client = Client  # type: ignore[misc]
    kafka.KafkaAdapter._settings = lambda self: {**settings(self), "enable.auto.offset.store": True}  # type: ignore[method-assign]


def position_after_report() -> None:
    """The relay notes what its client has taken as published, without waiting for the brokers' reports, as who takes `produce` for sent."""
    from adapters import kafka_relay

    waits = kafka_relay._Session.reported

    def taken(self: kafka_relay._Session) -> int | None:
        last = next((batch.last for batch in reversed(self.waiting) if batch.last), None)
        waits(self)
        return last

    kafka_relay._Session.reported = taken  # type: ignore[method-assign]


def spool_before_ack() -> None:
    """The edge acknowledges what came when it has come, and then spools it."""
    from adapters.edge import loops
    from adapters.http_queue import HttpQueue
    from hub.intake.readings import Observed

    keep, receive = loops.Meaning.keep, HttpQueue.receive

    def told(self: loops.Meaning, found: Sequence[Observed], durable: Any) -> bool:
        for one in found:
            one.done()
            one.done = lambda: None
        return keep(self, found, durable)

    def answered(self: HttpQueue, limit: int, wait_s: float) -> Sequence[Delivery]:
        deliveries = receive(self, limit, wait_s)
        for delivery in deliveries:
            delivery.done(loops._spooled(delivery, "soon"))
            delivery.done = lambda outcome: None
        return deliveries

    loops.Meaning.keep, HttpQueue.receive = told, answered  # type: ignore[method-assign]


def prune_after_ack() -> None:
    """The spool forgets entries when they are on their way to the hub, not when it has answered."""
    from adapters.edge.spool import Spool, Spooled

    waiting = Spool.waiting

    def forgetful(self: Spool, limit: int, bytes_max: int) -> list[Spooled]:
        entries = waiting(self, limit, bytes_max)
        self.acknowledge({entry.lane: entry.n for entry in entries})
        self._keep_bytes, self._keep_s = 0, -3600.0
        self.prune()
        return entries

    Spool.waiting = forgetful  # type: ignore[method-assign]


def memory_with_readings() -> None:
    """What a source must remember is written after its readings, in a transaction of its own."""
    from adapters.edge.spool import Addition, Spool

    append_all = Spool.append_all

    def apart(self: Spool, additions: Sequence[Addition], memory: Mapping[str, bytes]) -> list[int]:
        firsts = append_all(self, additions, {})
        append_all(self, [], memory)
        return firsts

    Spool.append_all = apart  # type: ignore[method-assign]


def spool_sync() -> None:
    """The spool does not wait for the disk at each commit, as SQLite's own advice for its write-ahead log has it."""
    from adapters.edge.spool import Spool

    opened = Spool._open

    def unsynced(self: Spool, read_only: bool) -> Any:
        db = opened(self, read_only)
        db.execute("pragma synchronous = normal")
        return db

    Spool._open = unsynced  # type: ignore[method-assign]


def edge_until_durable() -> None:
    """What the spool does not take is told and given up."""
    from adapters.edge.loops import EdgeLoop
    from adapters.edge.spool import Addition

    def once(
        self: EdgeLoop, additions: Sequence[Addition], stop: threading.Event, memory: Mapping[str, bytes] | None = None
    ) -> list[int] | None:
        try:
            return self._spool.append_all(additions, memory or {})
        except Unavailable as error:
            self._report(f"{self.seen.name}: given up: {error}")
            return [0] * len(additions)

    EdgeLoop._until_durable = once  # type: ignore[method-assign]
