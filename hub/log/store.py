"""The log: one door in (`append`) and ordered reads, on one PostgreSQL connection.

Any number of processes append at once. A transaction-scoped advisory lock makes the order of positions the order of commits, so a reader
that has seen position n has seen everything below n that will ever exist.
"""

import select
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from operator import itemgetter
from typing import Any, LiteralString, Self, TypeVar

import msgspec
import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import Dumper
from psycopg.copy import LibpqWriter
from psycopg.generators import copy_end
from psycopg.pq import Format
from psycopg.pq.abc import PGresult
from psycopg.waiting import Wait

from events.base import Fact, Recorded, microseconds
from events.errors import Refused, Unavailable
from hub import limits, telemetry
from hub.log.codec import COLUMNS, COPY, COPY_BEGIN, COPY_END, Row, decode, encode, packed, receipt_key, row_of
from hub.points import reach

R = TypeVar("R")
APPEND_LOCK = 0x6C6F67  # advisory lock, per database
_CANNOT_HOLD = ("22", "23", "54")  # SQLSTATE classes data exception, integrity constraint, program limit: the same again fails again
_NAME = "hub log"  # of its sessions
CHANNEL = "hub_log"  # NOTIFY: one per append, only a wake-up


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The fact is new and durable at `position`."""

    position: int


class Duplicate(msgspec.Struct, frozen=True, gc=False):
    """The same fact is already there, at `position`: a success."""

    position: int


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """Another fact has this source and key, at `position`: nothing was written for this one."""

    position: int
    stored: bytes
    refused: bytes


Result = Accepted | Duplicate | Conflict
COPY_ROWS = 200  # rows a COPY: the server writes those of one at its end (or a thousand), while the next are encoded


class VersionTaken(Refused):
    """An append asked for a stream version that is not the next one."""


_ARRAY, _LENGTH, _INT8 = struct.Struct("!iiiii").pack, struct.Struct("!i").pack, struct.Struct("!q").pack


@dataclass(frozen=True, slots=True)
class Array:
    """Values in PostgreSQL's binary format as an array of their type; the statement names it by a cast."""

    element: int  # oid
    values: Sequence[bytes]


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Array) -> bytes:
        """Packed by hand: through objects of Python an array of keys costs as much as their look-up."""
        lengths = map(_LENGTH, map(len, obj.values))
        return b"".join((_ARRAY(1, 0, obj.element, len(obj.values), 1), *chain.from_iterable(zip(lengths, obj.values, strict=True))))


Raw = tuple[bytes, bytes, str, bytes, datetime]  # a delivery as it is kept: sha256, body, transport, headers as JSON, received_at


def bounded(deliveries: Iterable[Raw]) -> Iterator[list[Raw]]:
    """Parts that one statement takes: as many deliveries as are together no larger than `KEEP_BYTES_MAX`, or a larger one alone."""
    part: list[Raw] = []
    size = 0
    for delivery in deliveries:
        bytes_ = len(delivery[1]) + len(delivery[3])
        if part and size + bytes_ > limits.KEEP_BYTES_MAX:
            yield part
            part, size = [], 0
        part.append(delivery)
        size += bytes_
    if part:
        yield part


class Log:
    """Access to one log. Thread-safe by a lock: one connection, one statement at a time; `Unavailable` means try again."""

    def __init__(self, url: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.url = url
        self._now = now
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._mutex = threading.Lock()
        self._heads: dict[str, int] = {}  # last versions of streams, true while `_at` is the last position
        self._at = -1
        self._unsure = self._heads, self._at
        self._others = False  # another process appended between our last two

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; the next call opens another."""
        with self._mutex:
            self._drop()

    @telemetry.appending
    def append(self, facts: Sequence[Fact]) -> list[Result]:
        """Append what is new, in order, in one transaction; one result a fact, in their order.

        After an error of the connection the outcome is unknown: call again with the same facts, and what was committed answers `Duplicate`.
        """
        if len(facts) > limits.FACTS_PER_APPEND_MAX:
            raise Refused(f"{len(facts)} facts in one append, at most {limits.FACTS_PER_APPEND_MAX} are taken: send them in parts")
        rows = [row_of(fact) for fact in facts]
        return self._committed(lambda cursor: self._append(cursor, rows)) if rows else []

    @telemetry.appending
    def append_rows(self, rows: Sequence[Row]) -> list[int]:
        """Append rows with versions of the caller's own, all or nothing. Raises `VersionTaken`. Returns their positions."""

        def work(cursor: psycopg.Cursor[tuple[Any, ...]]) -> list[int]:
            results = self._append(cursor, rows)
            positions = [result.position for result in results if isinstance(result, Accepted)]
            if len(positions) < len(rows):
                raise VersionTaken("a stream already has an event of this version: read the stream again and decide anew")
            return positions

        return self._committed(work) if rows else []

    def keep(self, deliveries: Sequence[Raw]) -> None:
        """Keep raw deliveries; what is kept already stays as it is.

        Not flushed by itself: the append that follows flushes everything before it, or else `flush`, and nothing is acknowledged sooner.
        """

        def work(cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
            cursor.execute("set local synchronous_commit = off")
            for part in bounded(sorted(deliveries, key=itemgetter(0))):  # one order of keys everywhere: two processes that keep the same
                sums, bodies, transports, headers, times = zip(*part, strict=True)  # files do not deadlock
                cursor.execute(
                    """insert into log.delivery (sha256, body, transport, headers, received_at)
                       select * from unnest(%b::bytea[], %b::bytea[], %b::text[], %b::bytea[], %b::timestamptz[]) on conflict do nothing""",
                    [
                        Array(17, sums),
                        Array(17, bodies),
                        Array(25, [transport.encode() for transport in transports]),
                        Array(17, headers),
                        Array(1184, [_INT8(microseconds(time)) for time in times]),
                    ],
                )

        self._run(work)

    def flush(self) -> None:
        """When this returns, all that was committed before is on the disk."""
        self._run(lambda c: c.execute("select pg_logical_emit_message(true, 'hub', '')"))  # only what writes is flushed when it commits

    def body(self, sha256: bytes) -> bytes | None:
        """The bytes of a kept delivery."""
        row = self._run(lambda c: c.execute("select body from log.delivery where sha256 = %b", [sha256]).fetchone())
        return bytes(row[0]) if row else None

    def head(self) -> int:
        """The last position; 0 for an empty log."""
        return self._run(head)

    def read(self, after: int, limit: int, *, stream: str | None = None, type_: str | None = None) -> list[Recorded]:
        """At most `limit` facts after a position, in order."""

        return self._run(lambda cursor: read(cursor, after, limit, stream=stream, type_=type_))

    def find(self, source: str, key: str) -> Recorded | None:
        """The fact that has a business key."""
        query = f"select {COLUMNS} from log.event where key = %s"  # noqa: S608 - constant
        row = self._run(lambda c: c.execute(query, [receipt_key(source, key)], binary=True).fetchone())
        return decode(row) if row else None

    def select(self, query: LiteralString, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """The rows of a reading query."""
        return self._run(lambda cursor: cursor.execute(query, values).fetchall())

    def lanes(self, edge: str, epoch: str) -> dict[str, tuple[int, str]]:
        """The last number that is durable here of each lane of an edge in an epoch, and who wrote that entry."""
        query = "select name, number, run from intake.lane where edge = %s and epoch = %s"
        rows = self._run(lambda cursor: cursor.execute(query, [edge, epoch]).fetchall())
        return {name: (number, run) for name, number, run in rows}

    def move_lanes(self, edge: str, epoch: str, upto: Mapping[str, tuple[int, str]]) -> None:
        """Everything up to these numbers is durable; so is this, when it returns."""

        def work(cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
            cursor.executemany(
                """insert into intake.lane as l values (%s, %s, %s, %s, %s, %s) on conflict (edge, epoch, name)
                   do update set number = excluded.number, heard_at = excluded.heard_at, run = excluded.run where l.number <= excluded.number""",
                [(edge, epoch, name, number, self._now(), run) for name, (number, run) in sorted(upto.items())],
            )

        self._run(work)

    def count_again(self, keys: Sequence[tuple[str, str]]) -> None:
        """Count one more arrival of held entries (source, key)."""

        def work(cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
            cursor.execute("set local synchronous_commit = off")
            cursor.executemany(
                "insert into intake.seen as s values (%s, 1) on conflict (key) do update set times = s.times + 1",
                sorted([(receipt_key(*key),) for key in keys]),
            )

        self._run(work)

    # -- inside one transaction -------------------------------------------------------------------------------------------------------

    def _append(self, cursor: psycopg.Cursor[tuple[Any, ...]], rows: Sequence[Row]) -> list[Result]:
        mine = self._at
        position, known = self._locked(cursor, rows)
        self._others = position != mine
        heads = self._heads_of(cursor, rows, position)
        results: list[Result] = []
        first: dict[bytes, Row] = {}  # the rows that bring a new key
        for row in rows:
            if known and (found := known.get(row.key)) is not None:
                results.append(self._again(cursor, _encoded(row), *found))
                continue
            if (brought := first.get(row.key)) is not None:
                results.append(_repeated(row, brought))
                continue
            version = heads.get(row.stream, 0) + 1
            if row.version is not None and row.version != version:
                if version > 1:
                    raise VersionTaken(
                        f"stream {row.stream} is at version {version - 1}, not at {row.version - 1}: read it again and decide anew"
                    )
                version = row.version
            position += 1
            heads[row.stream] = row.given = version
            row.position = position
            first[row.key] = row
            results.append(Accepted(position))
        if first:
            self._copy(cursor, list(first.values()))
        self._unsure = heads, position
        reach("before commit")
        return results

    def _copy(self, cursor: psycopg.Cursor[tuple[Any, ...]], new: Sequence[Row]) -> None:
        """Write new rows, each part encoded while the server writes the one before."""
        recorded = microseconds(self._now())
        parts = (new[start : start + COPY_ROWS] for start in range(0, len(new), COPY_ROWS))
        self._write(cursor, (b"".join([packed(_encoded(row), row.position, row.given, recorded) for row in part]) for part in parts))

    def _write(self, cursor: psycopg.Cursor[tuple[Any, ...]], blocks: Iterator[bytes]) -> None:
        """Add rows in the binary COPY format to `log.event`, and wake whoever follows."""
        block = next(blocks, b"")
        while block:
            writer = _Writer(cursor, blocks)
            with cursor.copy(COPY, writer=writer) as copy:
                copy.write(COPY_BEGIN)
                reach("copying")
                copy.write(block + COPY_END)
            block = writer.next()
        cursor.execute(f"notify {CHANNEL}")

    def _locked(self, cursor: psycopg.Cursor[tuple[Any, ...]], rows: Sequence[Row]) -> tuple[int, dict[bytes, tuple[int, bytes]]]:
        """Take the append lock; the last position and what of the rows' keys is known. One trip to the server."""
        connection = cursor.connection
        streams = list({row.stream for row in rows}) if self._others else []
        with connection.pipeline():
            cursor.execute("select pg_advisory_xact_lock(%s)", [APPEND_LOCK])
            head = connection.cursor().execute("select coalesce(max(position), 0) from log.event")
            found = connection.cursor(binary=True).execute(
                "select key, position, digest from log.event where key = any(%b::uuid[])", [Array(2950, list({row.key for row in rows}))]
            )
            versions = self._versions(connection.cursor(binary=True), streams) if streams else None
            if len(rows) > COPY_ROWS // 2:  # fewer are encoded sooner than an answer more comes and goes
                connection.pgconn.send_flush_request()
                connection.pgconn.flush()
                _encode_until(connection, rows)
        (position,) = head.fetchone() or (0,)
        if versions:
            self._heads, self._at = dict.fromkeys(streams, 0) | dict(versions), position
        return int(position), {key.bytes: (at, digest) for key, at, digest in found}

    def _heads_of(self, cursor: psycopg.Cursor[tuple[Any, ...]], rows: Sequence[Row], position: int) -> dict[str, int]:
        """The last version of each stream of the rows. What this process wrote last is remembered as long as nobody wrote after it."""
        heads = self._heads if position == self._at and len(self._heads) < limits.STREAM_HEADS_MAX else {}
        self._heads, self._at = {}, -1  # until the transaction has committed nothing is sure
        if missing := list({row.stream for row in rows} - heads.keys()):
            heads.update(dict.fromkeys(missing, 0))
            heads.update(self._versions(cursor, missing))
        return heads

    def _versions(self, cursor: psycopg.Cursor[tuple[Any, ...]], streams: list[str]) -> Iterable[tuple[str, int]]:
        """The last version of each stream that has one."""
        query = """select s, e.version from unnest(%s::text[]) s cross join lateral
                   (select version from log.event where stream = s order by version desc limit 1) e"""
        return cursor.execute(query, [streams])

    def _again(self, cursor: psycopg.Cursor[tuple[Any, ...]], row: Row, position: int, digest: bytes) -> Result:
        """A key that is known: the same content or another. A fact stored in an older version is compared as what it means today."""
        if digest == row.digest:
            return Duplicate(position)
        stored = self._stored(cursor, position)
        if stored is not None:
            digest = stored.fact.digest()
        return Duplicate(position) if digest == row.digest else Conflict(position, digest, row.digest)

    def _stored(self, cursor: psycopg.Cursor[tuple[Any, ...]], position: int) -> Recorded | None:
        found = read(cursor, position - 1, 1)
        return found[0] if found and found[0].position == position else None

    # -- the connection ---------------------------------------------------------------------------------------------------------------

    def _committed(self, work: Callable[[psycopg.Cursor[tuple[Any, ...]]], R]) -> R:
        """Run an append; once it is committed, remember the heads that it left."""
        result = self._run(work)
        reach("after commit")
        self._heads, self._at = self._unsure
        return result

    def _run(self, work: Callable[[psycopg.Cursor[tuple[Any, ...]]], R]) -> R:
        with self._mutex:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = self._connect()
                    self._heads, self._at = {}, -1
                with self._connection.transaction(), self._connection.cursor() as cursor:
                    return work(cursor)
            except psycopg.Error as error:
                self._drop()
                if isinstance(error, psycopg.errors.LockNotAvailable):
                    end_paused(self.url, _NAME)
                code = error.sqlstate or ""
                if code[:2] in _CANNOT_HOLD:
                    raise Refused(f"the log cannot hold it: {error}") from error
                if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | psycopg.errors.IdleInTransactionSessionTimeout):
                    raise Unavailable(f"the log cannot be reached: {error}") from error
                raise

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection = psycopg.connect(self.url, application_name=_NAME, autocommit=True)
        connection.adapters.register_dumper(Array, _ArrayDumper)
        connection.execute(f"set lock_timeout = '{limits.LOCK_TIMEOUT_S}s'")
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Writer(LibpqWriter):
    """One COPY. While the server writes what it was handed, the next block is made."""

    def __init__(self, cursor: psycopg.Cursor[tuple[Any, ...]], blocks: Iterator[bytes]) -> None:
        super().__init__(cursor, flush_threshold=sys.maxsize)  # libpq keeps what the server is too busy to take
        self._blocks = blocks
        self.following: bytes | Exception | None = None

    def finish(self, exc: BaseException | None = None) -> None:
        """End the COPY and wait for its answer."""
        if exc:
            super().finish(exc)
        else:
            self.connection.wait(self._ended())

    def _ended(self) -> PQGen[PGresult]:
        """psycopg's own steps, and ours before it first waits for the answer."""
        ending = copy_end(self._pgconn, None)
        try:
            waits = next(ending)
            while True:
                if waits == Wait.R and self.following is None:
                    self._make()
                waits = ending.send((yield waits))
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]

    def next(self) -> bytes:
        """The next block, empty when there is none."""
        if self.following is None:
            self._make()
        if isinstance(self.following, Exception):
            raise self.following
        return self.following or b""

    def _make(self) -> None:
        try:
            self.following = next(self._blocks, b"")
        except Exception as error:  # noqa: BLE001 - raised by `next`, when the connection has had its answer
            self.following = error


def end_paused(url: str, name: str) -> None:
    """End our sessions of that name whose process was paused in the middle of a statement: no time-out of the server reaches those.

    A session that waits in COPY, or to hand out a large answer, is not idle. Who waited in vain for a lock calls this. A time in the future, which
    the server's clock was set back from, is as good as one long ago. Raises `Unavailable`.
    """
    try:
        with psycopg.connect(url, application_name="hub", autocommit=True) as connection:
            connection.execute("set role none")  # sessions are of the role that logged in
            connection.execute(
                """select pg_terminate_backend(pid) from pg_stat_activity
                   where usename = session_user and datname = current_database() and application_name = %s and state = 'active'
                   and wait_event in ('ClientRead', 'ClientWrite') and abs(extract(epoch from clock_timestamp() - state_change)) > %s""",
                [name, limits.IDLE_IN_TRANSACTION_S],
            )
    except psycopg.OperationalError as error:
        raise Unavailable(f"the log cannot be reached: {error}") from error


def _encode_until(connection: psycopg.Connection[tuple[Any, ...]], rows: Sequence[Row]) -> None:
    """Encode rows while the server looks keys up, or waits for the lock that another process has."""
    answered = select.poll()
    answered.register(connection.fileno(), select.POLLIN)
    for start in range(0, len(rows), 16):
        if answered.poll(0):
            return
        for row in rows[start : start + 16]:
            encode(row)


def _encoded(row: Row) -> Row:
    return row if row.body else encode(row)


def _repeated(row: Row, first: Row) -> Result:
    """A row whose key another row of its batch has brought."""
    said, known = _encoded(row).digest, _encoded(first).digest
    return Duplicate(first.position) if said == known else Conflict(first.position, known, said)


def head(cursor: psycopg.Cursor[tuple[Any, ...]]) -> int:
    """The last position, in the caller's transaction."""
    (last,) = cursor.execute("select coalesce(max(position), 0) from log.event").fetchone() or (0,)
    return int(last)


def read(
    cursor: psycopg.Cursor[tuple[Any, ...]], after: int, limit: int, *, stream: str | None = None, type_: str | None = None
) -> list[Recorded]:
    """At most `limit` facts after a position, in order, read in the caller's transaction."""
    clauses, values = ["position > %s"], [after]
    for column, value in (("stream", stream), ("type", type_)):
        if value is not None:
            clauses.append(f"{column} = %s")
            values.append(value)  # type: ignore[arg-type]
    query = f"select {COLUMNS} from log.event where {' and '.join(clauses)} order by position limit %s"  # noqa: S608 - constants
    cursor.execute(query, [*values, limit], binary=True)
    return [decode(row) for row in cursor.fetchall()]


def last_of(cursor: psycopg.Cursor[tuple[Any, ...]], stream: str) -> Recorded | None:
    """The last fact of a stream, read in the caller's transaction."""
    query = f"select {COLUMNS} from log.event where stream = %s order by version desc limit 1"  # noqa: S608 - constants
    row = cursor.execute(query, [stream], binary=True).fetchone()
    return decode(row) if row else None


def read_rows(cursor: psycopg.Cursor[tuple[Any, ...]], after: int, limit: int) -> list[tuple[Any, ...]]:
    """At most `limit` facts after a position as they are stored, nothing decoded: the key as text, then `COLUMNS`."""
    query = f"select key::text, {COLUMNS} from log.event where position > %s order by position limit %s"  # noqa: S608 - constants
    return cursor.execute(query, [after, limit], binary=True).fetchall()
