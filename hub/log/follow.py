"""One loop out: a follower reads a batch of facts after its position, folds it, and moves the position in the same transaction.

Views are followers; so are their shadows while `replay/` rebuilds them. A follower that is paused and comes back cannot write: its position
is locked and checked in the transaction that folds. Beside its position it keeps the key of the fact there, so that it notices a position
that somebody changed and a log that is not the one it followed (restored from an older backup). The relay out (`adapters/kafka_relay.py`)
keeps its position in the same way, but what it writes is elsewhere, so its position moves in a transaction of its own, afterwards.
"""

import contextlib
import gc
import hashlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import psycopg
from psycopg import sql

from events.base import Recorded
from events.errors import Corrupt, Unavailable
from hub import limits, telemetry
from hub.backoff import Backoff
from hub.log.store import CHANNEL, end_paused, head, read, read_rows
from hub.points import reach

Cursor = psycopg.Cursor[tuple[Any, ...]]
RELAY = "relay"  # schema of the relay's position, which no rebuild touches
# fact: the key of the fact at position. A change of it must alter the relay's too
POSITION = "create table position (position bigint not null, fact uuid, shape text not null)"
# When a position moved last, by the server's clock: beside the tables, since these are what the log says and nothing else
MOVED = "insert into intake.moved select current_schema(), clock_timestamp() from {} on conflict (schema) do update set at = excluded.at"


class View(Protocol):
    """What a follower keeps: tables in a schema of their own, and the fold that fills them.

    `ddl` creates the tables, unqualified (the search path names the schema). `fold` is deterministic: it reads only these tables and the
    facts, and gives the same rows whatever the size of the batches.
    """

    @property
    def name(self) -> str: ...
    @property
    def ddl(self) -> str: ...
    def fold(self, cursor: Cursor, facts: Sequence[Recorded]) -> None: ...


def live_schema(view: str) -> str:
    """The schema that queries read."""
    return f"view_{view}"


def shadow_schema(view: str) -> str:
    """The schema that a rebuild fills."""
    return f"shadow_{view}"


class Tables:
    """All that the loop asks of a database: the tables of views and the log beside them, in one transaction. Another store has others."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor

    def ensure(self, view: View, schema: str) -> None:
        """See `ensure`."""
        ensure(self.cursor, view, schema)

    def lock(self, schema: str) -> None:
        """Work in the tables of a schema until the transaction ends, as the only one."""
        self.cursor.execute("set local synchronous_commit = off")  # row and position are lost or kept together, and the log is the truth
        enter(self.cursor, schema)
        self.cursor.execute("select from position for update")

    def positions(self, schema: str) -> list[tuple[int, bool]]:
        """Every position that the view has, which should be one, and whether the log holds the fact that it names."""
        query = "select position, fact is not distinct from (select key from log.event e where e.position = p.position) from {} p"
        return self.cursor.execute(sql.SQL(query).format(sql.Identifier(schema, "position"))).fetchall()

    def head(self) -> int:
        """The last position of the log."""
        return head(self.cursor)

    def read(self, after: int, limit: int) -> list[Recorded]:
        """At most `limit` facts after a position, in order."""
        return read(self.cursor, after, limit)

    def rows(self, after: int, limit: int) -> list[tuple[Any, ...]]:
        """The same as stored: rows of the key and `COLUMNS`."""
        return read_rows(self.cursor, after, limit)

    def fold(self, view: View, facts: Sequence[Recorded]) -> None:
        """Write what the facts change, in the tables that are locked."""
        view.fold(self.cursor, facts)

    def move(self, last: int, to: int) -> bool:
        """Let the position of what is locked be that of another fact, if it still is `last`."""
        query = """with moved as (update position p set position = e.position, fact = e.key from log.event e
                   where e.position = %s and p.position = %s returning 1) """ + MOVED.format("moved")  # noqa: S608 - constants
        return self.cursor.execute(query, [to, last]).rowcount == 1


class Following(ABC):
    """Somebody whose position in the log is kept in a schema: one connection, and the loop of the program."""

    _tables: type[Tables] = Tables

    def __init__(self, url: str, what: str, schema: str) -> None:
        self.what = what
        self.schema = schema
        self._url = url
        self._name = f"hub follow {what.removeprefix('view ')}"  # of its session
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._listens = False

    @abstractmethod
    def ensure(self) -> None:
        """Make what is missing in the schema."""

    @abstractmethod
    def step(self) -> int:
        """Do what is due for the next facts; 0 when nothing was. Raises `Unavailable`, `Corrupt`."""

    def close(self) -> None:
        """Give the connection back; the next step opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def position(self) -> int:
        """The last position that is done with."""
        return int(self._run(lambda cursor: position(self._tables(cursor), self.schema)))

    def run(self, stop: threading.Event, report: Callable[[str], None]) -> None:
        """Follow until `stop` is set; reconnects for ever with back-off, visibly. Ends by an error only where it cannot go on."""
        backoff = Backoff(self.what, report)
        ready = False
        while not stop.is_set():
            try:
                if not ready:
                    self.ensure()
                    ready = True
                if self.step() == 0:
                    self._await_news(stop)
                backoff.over()
            except Unavailable as error:
                backoff.wait(stop, f"{self.what} waits", error)
                ready = False
        self.close()

    def _await_news(self, stop: threading.Event) -> None:
        """Sleep until a NOTIFY or the poll interval, whichever is first: the notification may be lost, the poll is the truth."""
        until = time.monotonic() + limits.POLL_S
        try:
            connection = self._connected()
            if not self._listens:
                connection.execute(f"listen {CHANNEL}")
                connection.commit()
                self._listens = True
                return  # something may have come before LISTEN: look once more
            while not stop.is_set() and (left := until - time.monotonic()) > 0:
                for _ in connection.notifies(timeout=min(left, 0.2), stop_after=1):
                    return
        except (psycopg.OperationalError, psycopg.InternalError) as error:
            self.close()
            raise Unavailable(f"the database cannot be reached: {error}") from error

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._url, application_name=self._name)
            self._connection.execute(f"set lock_timeout = '{limits.FOLLOW_LOCK_TIMEOUT_S}s'")
            self._connection.commit()
            self._listens = False
        return self._connection

    def _run(self, work: Callable[[Cursor], Any]) -> Any:
        try:
            connection = self._connected()
            with connection.transaction(), connection.cursor() as cursor:
                return work(cursor)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.InternalError_) as error:
            self.close()  # promote renamed the tables under a batch that waited for them
            raise Unavailable(
                f"the tables of {self.what} were swapped just now, or are gone: try again; if it stays, {_remedy(self.schema)}: {error}"
            ) from error
        except psycopg.errors.LockNotAvailable as error:
            self.close()
            end_paused(self._url, self._name)
            raise Unavailable(
                f"somebody holds {self.what} locked for more than {limits.FOLLOW_LOCK_TIMEOUT_S:.0f} s (pg_stat_activity names them; "
                f"a paused process of the hub loses its lock after {limits.IDLE_IN_TRANSACTION_S:.0f} s): try again: {error}"
            ) from error
        except psycopg.errors.IdleInTransactionSessionTimeout as error:
            self.close()
            raise Unavailable(f"{self.what} was paused in the middle of a batch, which was undone: try again: {error}") from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.close()
            raise Unavailable(f"the database cannot be reached: {error}") from error


class Follower(Following):
    """Keeps one view up to the log in one schema. `step()` makes it drivable by tests and by replay; `run()` is the loop of the program."""

    def __init__(self, url: str, view: View, schema: str | None = None) -> None:
        super().__init__(url, f"view {view.name}", schema or live_schema(view.name))
        self.view = view

    def ensure(self) -> None:
        """Make the schema and its tables where they are missing or were made by another version of the view (then from position 0)."""
        self._run(lambda cursor: self._tables(cursor).ensure(self.view, self.schema))

    def step(self, limit: int = limits.FOLLOW_BATCH_MAX, upto: int | None = None) -> int:
        """Fold at most `limit` facts (up to a position) in one transaction; how many there were. Raises `Unavailable`, `Corrupt`."""
        began = time.perf_counter()
        folded = int(self._run(lambda cursor: step(self._tables(cursor), self.view, self.schema, limit, upto)))
        if folded:
            reach("view committed")
            telemetry.followed(self.view.name, folded, time.perf_counter() - began)
        return folded


def shape(view: View) -> str:
    """What identifies a version of a view's tables."""
    return hashlib.sha256(f"{POSITION}\n{view.ddl}".encode()).hexdigest()[:16]


def ensure(cursor: Cursor, view: View, schema: str) -> None:
    """Create a view's schema and tables unless they are there in this shape; readers of the hub may select from them.

    Raises `Corrupt` where the position was lost: what the tables then hold is of no known position.
    """
    cursor.execute("select pg_advisory_xact_lock(hashtext(%s))", [schema])
    cursor.execute("select to_regclass(%s)", [f"{schema}.position"])
    (found,) = cursor.fetchone() or (None,)
    name = sql.Identifier(schema)
    if found is not None:
        shapes = cursor.execute(sql.SQL("select shape from {}.position").format(name)).fetchall()
        if not shapes:
            raise Corrupt(f"the view in schema {schema} has lost its position: {_remedy(schema)}")
        if (shape(view),) in shapes:
            return
    cursor.execute(sql.SQL("drop schema if exists {} cascade").format(name))
    make(cursor, schema, view.ddl, shape(view))


def make(cursor: Cursor, schema: str, ddl: str, shape: str) -> None:
    """Create the tables of who follows the log, at position 0, in a schema that readers of the hub may select from."""
    name = sql.Identifier(schema)
    cursor.execute(sql.SQL("create schema if not exists {}").format(name))
    enter(cursor, schema)
    cursor.execute(ddl.encode())
    cursor.execute(POSITION)
    cursor.execute("insert into position (position, shape) values (0, %s)", [shape])
    cursor.execute(MOVED.format("position"))
    cursor.execute(sql.SQL("grant usage on schema {} to hub_read, hub_door").format(name))
    cursor.execute(sql.SQL("grant select on all tables in schema {} to hub_read, hub_door").format(name))


def enter(cursor: Cursor, schema: str) -> None:
    """Let unqualified names of this transaction mean the tables of a schema, and times print in UTC."""
    cursor.execute("select set_config('search_path', %s, true), set_config('timezone', 'UTC', true)", [f'"{schema}"'])


def position(tables: Tables, schema: str) -> int:
    """The position of the view in a schema. Raises `Corrupt` where there is not one, or where the log does not hold the fact it names."""
    rows = tables.positions(schema)
    if len(rows) != 1:
        raise Corrupt(f"{_owner(schema)} has {f'{len(rows)} positions' if rows else 'lost its position'}: {_remedy(schema)}")
    ((at, known),) = rows
    if not known:
        head = tables.head()
        wrong = f"the log ends at {head}" if at > head else "the log has another fact there than the one that was there"
        raise Corrupt(
            f"{_owner(schema)} is at position {at}, but {wrong}: the log was restored from an older backup, or the position "
            f"was changed by hand; {_remedy(schema)}"
        )
    return int(at)


def step(tables: Tables, view: View, schema: str, limit: int, upto: int | None = None) -> int:
    """One batch, inside the caller's transaction: facts after the position are folded and the position moves; how many there were.

    Raises `Corrupt` where view and log contradict each other, and says what to rebuild.
    """
    with _no_collection():
        return _step(tables, view, schema, limit, upto)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Facts and rows hold no cycles: to look for some among those of a batch, again and again, costs a quarter of the time it takes."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _step(tables: Tables, view: View, schema: str, limit: int, upto: int | None) -> int:
    tables.lock(schema)
    began = time.perf_counter()
    last = position(tables, schema)
    facts = tables.read(last, limit)
    if upto is not None:
        facts = [fact for fact in facts if fact.position <= upto]
    if not facts:
        return 0
    check_whole(last, [fact.position for fact in facts])
    try:
        tables.fold(view, facts)
    except psycopg.IntegrityError as error:
        raise misfit(schema, last + 1, facts[-1].position, error) from error
    reach("view written")
    if not tables.move(last, facts[-1].position):
        raise Corrupt(f"the view in schema {schema} was moved from position {last} by somebody else while it was locked")
    reach("position moved")
    telemetry.folded("follow batch" if schema == live_schema(view.name) else "replay batch", view.name, facts, time.perf_counter() - began)
    return len(facts)


def misfit(schema: str, first: int, last: int, error: psycopg.IntegrityError) -> Corrupt:
    """The refusal of facts whose rows break a key of the view."""
    return Corrupt(f"facts {first} to {last} do not fit what the view in schema {schema} holds: {error}; {_remedy(schema)}")


def check_whole(last: int, positions: Sequence[int]) -> None:
    """Raise `Corrupt` where what was read after a position does not follow it without a hole."""
    if positions and (positions[0] != last + 1 or positions[-1] != last + len(positions)):
        raise Corrupt(f"the log has a hole after position {last}: stop, and compare it with a backup (hub doctor)")


def _owner(schema: str) -> str:
    return "the Kafka relay" if schema == RELAY else f"the view in schema {schema}"


def _remedy(schema: str) -> str:
    if schema == RELAY:
        return "see what its topic holds, then run `hub relay restart --from POSITION` (1: all facts once more)"
    again = " --restart" if schema.startswith("shadow_") else ""
    return f"run `hub replay rebuild --all{again}`, then `hub replay promote --all`"
