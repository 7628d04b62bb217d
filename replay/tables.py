"""What replay asks of a database: shadow schemas with their marks, comparison row by row, and the lock that one `hub replay` holds.

All SQL of replay is here; the other files say what is done with it, on any store that has these methods.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg
from psycopg import IsolationLevel, sql

from events.base import Recorded
from events.errors import Unavailable
from hub import limits
from hub.log.follow import Cursor, Tables, live_schema, misfit, position, shadow_schema, shape
from hub.log.store import Log
from projections.base import Bare, Table, TableView
from projections.digest import view_digest

# A table is not there, or it is another one: it lacks columns, or they have types that do not compare.
GONE = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction)
_LOCK = 0x7265706C  # advisory, with the hash of a view's name: one `hub replay` a view at a time


@dataclass(slots=True)
class TableDifference:
    """How a live table differs from the rebuilt one: rows with other content, rows that live lacks, rows that only live has.

    `keys` holds the primary keys of the first of them, each with what is wrong with it."""

    rows: int
    differing: int = 0
    missing: int = 0
    extra: int = 0
    keys: list[dict[str, Any]] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return not (self.differing or self.missing or self.extra)


@dataclass(slots=True)
class Batch:
    """What was read last: the log never changes, so who asks for the same gets the same."""

    after: int = 0
    limit: int = 0
    facts: Sequence[Recorded] = ()


class ReplayTables(Tables):
    """The tables of live views and shadows, in one transaction. Views that are rebuilt side by side share what they read in `batch`."""

    def __init__(self, cursor: Cursor, batch: Batch | None = None) -> None:
        super().__init__(cursor)
        self._batch = batch or Batch()

    def read(self, after: int, limit: int) -> list[Recorded]:
        """See `Tables`."""
        known = self._batch
        if (known.after, known.limit) != (after, limit) or len(known.facts) < limit:  # what is not full may have grown
            known.after, known.limit, known.facts = after, limit, super().read(after, limit)
        return list(known.facts)

    def attempt(self) -> AbstractContextManager[object]:
        """What fails inside leaves the transaction as it was before."""
        return self.cursor.connection.transaction()

    def dress(self, view: TableView, schema: str) -> None:
        """Make of the bare tables of a schema what the view's own fold would have made of the same facts, and go on with."""
        self.lock(schema)
        last = position(self, schema)
        try:
            Bare(view).dress(self.cursor, last)
        except psycopg.IntegrityError as error:
            raise misfit(schema, 1, last, error) from error
        self.cursor.execute("update position set shape = %s", [shape(view)])

    def drop(self, schema: str) -> None:
        """Throw a schema away, if it is there."""
        self.cursor.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))

    def swap(self, view: str) -> None:
        """Put a shadow in the place of the live view."""
        live, shadow = live_schema(view), shadow_schema(view)
        self.drop(live)
        self.cursor.execute(sql.SQL("alter schema {} rename to {}").format(sql.Identifier(shadow), sql.Identifier(live)))
        self.cursor.execute(sql.SQL("comment on schema {} is null").format(sql.Identifier(live)))

    def hold(self, schema: str) -> None:
        """Let nobody read or follow a view until the transaction ends, if it is there."""
        (found,) = self.cursor.execute("select to_regclass(%s)", [f"{schema}.position"]).fetchone() or (None,)
        if found is not None:
            self.cursor.execute(sql.SQL("lock table {} in access exclusive mode").format(sql.Identifier(schema, "position")))

    def mark(self, schema: str) -> dict[str, object] | None:
        """The mark of a schema: None where it is not there, empty where it has none of ours."""
        query = "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s"
        row = self.cursor.execute(query, [schema]).fetchone()
        try:
            return dict(json.loads(row[0] or "{}")) if row else None
        except ValueError:
            return {}  # not ours

    def set_mark(self, schema: str, mark: dict[str, object]) -> None:
        """Replace the mark of a schema."""
        self.cursor.execute(sql.SQL("comment on schema {} is {}").format(sql.Identifier(schema), sql.Literal(json.dumps(mark))))

    def digest(self, view: TableView, schema: str) -> str:
        """sha256 (hex) over all rows and columns of a view."""
        return view_digest(self.cursor, schema, view, business=False)

    def compare(self, view: TableView, table: Table, at: int) -> TableDifference:
        """How a live table differs from its shadow; both are at position `at`."""
        live, shadow = sql.Identifier(live_schema(view.name), table.name), sql.Identifier(shadow_schema(view.name), table.name)
        try:
            with self.attempt():
                return self._compare_rows(table, live, shadow)
        except GONE:  # of a table that is not there, or is another one, all rows are missing
            found = self._compare_rows(table, sql.SQL("(select * from {} where false)").format(shadow), shadow)
            if found.equal and at:  # and so is a table that would be empty, once anything happened
                found.missing, found.keys = 1, [{"table": table.name, "is": "missing"}]
            return found

    def _compare_rows(self, table: Table, live: sql.Composable, shadow: sql.Composable) -> TableDifference:
        cursor = self.cursor
        (rows,) = cursor.execute(sql.SQL("select count(*) from {} l").format(live)).fetchone() or (0,)
        keys = sql.SQL(", ").join(map(sql.Identifier, table.key))
        query = sql.SQL(
            """select case when l is null then 'missing' when s is null then 'extra' else 'differing' end as what,
                      to_jsonb(coalesce(l.k, s.k)) from
               (select l.*::text as l, jsonb_build_object({pairs}) as k, {keys} from {live} l) l full join
               (select s.*::text as s, jsonb_build_object({pairs}) as k, {keys} from {shadow} s) s using ({keys})
               where l.l is distinct from s.s order by {keys}"""
        ).format(
            pairs=sql.SQL(", ").join(sql.SQL("{}, {}").format(sql.Literal(k), sql.Identifier(k)) for k in table.key),
            keys=keys,
            live=live,
            shadow=shadow,
        )
        found = TableDifference(rows)
        with psycopg.ServerCursor(cursor.connection, "differing") as differing:
            for what, key in differing.execute(query):
                setattr(found, what, getattr(found, what) + 1)
                if len(found.keys) < limits.EXPORT_KEYS_MAX:
                    found.keys.append({**key, "is": what})
        return found


class Session(Protocol):
    """Somebody who is alone with some views."""

    def transaction(self, *, snapshot: bool = False) -> AbstractContextManager[ReplayTables]:
        """One transaction; with `snapshot` all its reads see the same instant."""
        ...


class Ground(Protocol):
    """A log and its views."""

    def head(self) -> int:
        """The last position of the log."""
        ...

    def alone(self, views: Sequence[TableView]) -> AbstractContextManager[Session]:
        """A session that nobody else who replays these views has at the same time. Raises `Unavailable`, as does its use."""
        ...


@dataclass
class PostgresSession:
    """One connection, in autocommit."""

    connection: psycopg.Connection[tuple[Any, ...]]
    batch: Batch = field(default_factory=Batch)

    @contextlib.contextmanager
    def transaction(self, *, snapshot: bool = False) -> Iterator[ReplayTables]:
        """See `Session`."""
        self.connection.isolation_level = IsolationLevel.REPEATABLE_READ if snapshot else None
        with self.connection.transaction(), self.connection.cursor() as cursor:
            yield ReplayTables(cursor, self.batch)


class Postgres:
    """The log and the views of a database."""

    def __init__(self, url: str) -> None:
        self._url = url

    def head(self) -> int:
        """See `Ground`."""
        with Log(self._url) as log:
            return log.head()

    @contextlib.contextmanager
    def alone(self, views: Sequence[TableView]) -> Iterator[PostgresSession]:
        """See `Ground`."""
        try:
            with psycopg.connect(self._url, application_name="hub replay", autocommit=True) as connection:
                connection.execute(f"set lock_timeout = '{limits.LOCK_TIMEOUT_S}s'")
                for view in sorted(views, key=lambda v: v.name):
                    try:
                        connection.execute("select pg_advisory_lock(%s::int, hashtext(%s))", [_LOCK, view.name])
                    except psycopg.errors.LockNotAvailable as error:
                        raise Unavailable(
                            f"another `hub replay` works on view {view.name}: wait until it has ended, then try again"
                        ) from error
                yield PostgresSession(connection)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            raise Unavailable(f"somebody else holds tables that replay needs; nothing was swapped, try again: {error}") from error
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
            raise Unavailable(f"the database cannot be reached; nothing was swapped, try again: {error}") from error


def ground_of(place: str | Ground) -> Ground:
    """The ground that a URL names, or the one that was given."""
    return Postgres(place) if isinstance(place, str) else place
