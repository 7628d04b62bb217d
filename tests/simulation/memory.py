"""A log and its views in memory, for the shipped append, loop and replay: what they ask of a store, and the faults of one.

It keeps the very bytes that the codec makes for PostgreSQL and gives them back as psycopg would; it obeys the same unique keys. A view's
tables are what its Python reference makes of the facts that were folded into them (`references`).
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from events.base import Recorded
from events.errors import Unavailable
from hub.log.codec import decode, receipt_bytes
from hub.log.follow import Follower, View, live_schema, shadow_schema, shape
from hub.log.store import Log
from hub.points import reach
from projections.base import Bare, Table, TableView
from replay.tables import ReplayTables, TableDifference
from tests import copied
from tests.simulation.references import Rows, tables_of


@dataclass
class Schema:
    """The tables of a view: what was folded into them, in order."""

    shape: str
    positions: list[tuple[int, bytes | None]]
    facts: list[Recorded] = field(default_factory=list)
    dressed: bool = True
    mark: dict[str, object] = field(default_factory=dict)


class Store:
    """The database. `fault` is called at each moment when one may fail; `between` before each transaction, when others may work."""

    def __init__(self, fault: Callable[[str], None] = lambda moment: None, between: Callable[[], None] = lambda: None) -> None:
        self.fault, self.between = fault, between
        self.rows: list[tuple[Any, ...]] = []  # as `hub.log.codec.COLUMNS` are selected
        self.receipts: dict[bytes, tuple[int, bytes]] = {}
        self.versions: dict[str, int] = {}
        self.deliveries: dict[bytes, bytes] = {}
        self.seen: Counter[bytes] = Counter()
        self.schemas: dict[str, Schema] = {}
        self.alone: set[str] = set()
        self._undo: list[Callable[[], object]] | None = None
        self._made: dict[tuple[object, ...], Rows] = {}

    @contextlib.contextmanager
    def transaction(self) -> Iterator["Store"]:
        """All or nothing, one at a time."""
        assert self._undo is None, "a transaction was begun within another one"
        self.between()
        self.fault("begin")
        self._undo = []
        try:
            yield self
            self.fault("commit")
        except BaseException:
            for undo in reversed(self._undo):
                undo()
            raise
        finally:
            self._undo = None
        self.fault("committed")

    def undone_by(self, undo: Callable[[], object]) -> None:
        """What takes back a change of this transaction."""
        assert self._undo is not None, "a change outside of a transaction"
        self._undo.append(undo)

    def insert(self, block: bytes) -> None:
        """Add rows in the binary COPY format. Raises `UniqueViolation` as the table's keys do."""
        for fields in copied.rows(block):
            self._insert_row(copied.as_selected(fields), key=fields[copied.KEY], digest=fields[copied.DIGEST])

    def _insert_row(self, row: tuple[Any, ...], key: bytes, digest: bytes) -> None:
        position, name, number = row[:3]
        before = self.versions.get(name, 0)
        if position <= len(self.rows) or key in self.receipts or number <= before:
            raise psycopg.errors.UniqueViolation(f"position {position}, version {number} of {name} or the key is there already")
        self.rows.append(row)
        self.receipts[key], self.versions[name] = (position, digest), number

        def undo() -> None:
            self.rows.pop()
            del self.receipts[key]
            self.versions[name] = before

        self.undone_by(undo)

    def read(self, after: int, limit: int) -> list[Recorded]:
        """Facts after a position."""
        return [decode(row) for row in self.rows[after : after + limit]]

    def tables_of(self, view: View, facts: Sequence[Recorded]) -> Rows:
        """The tables that a view makes of facts of this log; those made last are remembered, since live and shadow are often the same."""
        which = (view.name, *(fact.position for fact in facts))
        if which not in self._made:
            while len(self._made) >= 8:
                del self._made[next(iter(self._made))]
            self._made[which] = tables_of(view, facts)
        return self._made[which]

    def key(self, position: int) -> bytes | None:
        """The receipt of the fact at a position."""
        row = self.rows[position - 1] if 0 < position <= len(self.rows) else None
        return None if row is None else receipt_bytes(row[5], row[6])


class Connection:
    """As much of a connection as the hub uses."""

    def __init__(self, store: Store) -> None:
        self._store, self.closed = store, False
        store.fault("connect")

    def transaction(self) -> AbstractContextManager[Store]:
        return self._store.transaction()

    def cursor(self) -> AbstractContextManager[Store]:
        return contextlib.nullcontext(self._store)

    def close(self) -> None:
        self.closed = True


class MemoryLog(Log):
    """The shipped log; only its statements are others."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        super().__init__("", now)
        self.store = store

    def _connect(self) -> Any:
        return Connection(self.store)

    def _locked(self, cursor: Any, rows: Sequence[Any]) -> tuple[int, dict[bytes, tuple[int, bytes]]]:
        return len(cursor.rows), {row.key: cursor.receipts[row.key] for row in rows if row.key in cursor.receipts}

    def _versions(self, cursor: Any, streams: list[str]) -> Iterable[tuple[str, int]]:
        return [(stream, cursor.versions[stream]) for stream in streams if cursor.versions.get(stream)]

    def _write(self, cursor: Any, blocks: Iterable[bytes]) -> None:
        reach("copying")
        for block in blocks:
            cursor.insert(block)

    def _stored(self, cursor: Any, position: int) -> Recorded | None:
        found = cursor.read(position - 1, 1)
        return found[0] if found else None

    def keep(self, deliveries: Sequence[tuple[bytes, bytes, str, bytes, datetime]]) -> None:
        def work(store: Any) -> None:
            for sha256, body, *_ in deliveries:
                if sha256 not in store.deliveries:
                    store.deliveries[sha256] = body
                    store.undone_by(lambda sha256=sha256: store.deliveries.pop(sha256))

        self._run(work)

    def flush(self) -> None:
        self._run(lambda store: None)

    def body(self, sha256: bytes) -> bytes | None:
        def work(store: Any) -> bytes | None:
            return store.deliveries.get(sha256)  # type: ignore[no-any-return]

        return self._run(work)

    def head(self) -> int:
        return self._run(lambda store: len(store.rows))  # type: ignore[attr-defined]

    def read(self, after: int, limit: int, *, stream: str | None = None, type_: str | None = None) -> list[Recorded]:
        def work(store: Any) -> list[Recorded]:
            wanted = [row for row in store.rows[after:] if stream in (None, row[1]) and type_ in (None, row[3])]
            return [decode(row) for row in wanted[:limit]]

        return self._run(work)

    def find(self, source: str, key: str) -> Recorded | None:
        def work(store: Any) -> Recorded | None:
            known = store.receipts.get(receipt_bytes(source, key))
            return store.read(known[0] - 1, 1)[0] if known else None

        return self._run(work)

    def count_again(self, keys: Sequence[tuple[str, str]]) -> None:
        def work(store: Any) -> None:
            found = [receipt_bytes(*key) for key in keys]
            store.seen.update(found)
            store.undone_by(lambda: store.seen.subtract(found))

        self._run(work)


class MemoryTables(ReplayTables):
    """What the loop and replay ask, of a `Store`."""

    cursor: Any
    _locked = ""

    def ensure(self, view: View, schema: str) -> None:
        known = self.cursor.schemas.get(schema)
        if known is None or known.shape != shape(view):
            self._put(schema, Schema(shape(view), [(0, None)], dressed=not isinstance(view, Bare)))

    def lock(self, schema: str) -> None:
        self._schema(schema)
        self._locked = schema

    def positions(self, schema: str) -> list[tuple[int, bool]]:
        return [(at, key == self.cursor.key(at)) for at, key in self._schema(schema).positions]

    def head(self) -> int:
        return len(self.cursor.rows)

    def read(self, after: int, limit: int) -> list[Recorded]:
        return self.cursor.read(after, limit)  # type: ignore[no-any-return]

    def fold(self, view: View, facts: Sequence[Recorded]) -> None:
        schema = self._schema(self._locked)
        assert schema.dressed != isinstance(view, Bare), "the tables are not those that this fold writes"
        into = schema.facts
        before = len(into)
        into.extend(facts)
        self.cursor.undone_by(lambda: into.__delitem__(slice(before, None)))

    def move(self, last: int, to: int) -> bool:
        schema = self._schema(self._locked)
        before = schema.positions
        schema.positions = [(to, self.cursor.key(to)) if at == last else (at, key) for at, key in before]
        self.cursor.undone_by(lambda: setattr(schema, "positions", before))
        return schema.positions != before

    def dress(self, view: TableView, schema: str) -> None:
        known = self._schema(schema)
        before = known.shape, known.dressed
        known.shape, known.dressed = shape(view), True

        def undo() -> None:
            known.shape, known.dressed = before

        self.cursor.undone_by(undo)

    def attempt(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def drop(self, schema: str) -> None:
        self._put(schema, None)

    def swap(self, view: str) -> None:
        shadow = self._whole(shadow_schema(view))
        self._put(shadow_schema(view), None)
        self._put(live_schema(view), shadow)
        self._mark(shadow, {})

    def hold(self, schema: str) -> None:
        """Nobody else is in a transaction."""

    def mark(self, schema: str) -> dict[str, object] | None:
        known = self.cursor.schemas.get(schema)
        return None if known is None else known.mark

    def set_mark(self, schema: str, mark: dict[str, object]) -> None:
        self._mark(self._schema(schema), mark)

    def digest(self, view: TableView, schema: str) -> str:
        return hashlib.sha256(repr(self.cursor.tables_of(view, self._whole(schema).facts)).encode()).hexdigest()

    def compare(self, view: TableView, table: Table, at: int) -> TableDifference:
        live, shadow = (
            {
                tuple(row[list(table.columns).index(k)] for k in table.key): row
                for row in self.cursor.tables_of(view, self._whole(s).facts)[table.name]
            }
            for s in (live_schema(view.name), shadow_schema(view.name))
        )
        return TableDifference(
            len(live),
            differing=sum(live[key] != shadow[key] for key in live.keys() & shadow.keys()),
            missing=len(shadow.keys() - live.keys()),
            extra=len(live.keys() - shadow.keys()),
        )

    def _schema(self, name: str) -> Schema:
        try:
            return self.cursor.schemas[name]  # type: ignore[no-any-return]
        except KeyError:
            raise psycopg.errors.UndefinedTable(f"there is no schema {name}") from None

    def _whole(self, name: str) -> Schema:
        schema = self._schema(name)
        assert schema.dressed, "what is written is not settled"
        return schema

    def _put(self, name: str, schema: Schema | None) -> None:
        schemas = self.cursor.schemas
        before = schemas.pop(name, None)
        if schema is not None:
            schemas[name] = schema

        def undo() -> None:
            schemas.pop(name, None)
            if before is not None:
                schemas[name] = before

        self.cursor.undone_by(undo)

    def _mark(self, schema: Schema, mark: dict[str, object]) -> None:
        before, schema.mark = schema.mark, mark
        self.cursor.undone_by(lambda: setattr(schema, "mark", before))


class MemoryFollower(Follower):
    """The shipped follower, on a `Store`."""

    _tables = MemoryTables

    def __init__(self, store: Store, view: View) -> None:
        super().__init__("", view)
        self._store = store

    def _connected(self) -> Any:
        if self._connection is None or self._connection.closed:
            self._connection = Connection(self._store)  # type: ignore[assignment]
        return self._connection


class MemoryGround:
    """The ground that replay works on."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def head(self) -> int:
        return len(self._store.rows)

    @contextlib.contextmanager
    def alone(self, views: Sequence[TableView]) -> Iterator["MemorySession"]:
        names = {view.name for view in views}
        if taken := names & self._store.alone:
            raise Unavailable(f"another `hub replay` works on view {', '.join(taken)}")
        self._store.alone |= names
        try:
            yield MemorySession(self._store)
        except psycopg.OperationalError as error:
            raise Unavailable(f"the store cannot be reached: {error}") from error
        finally:
            self._store.alone -= names


@dataclass
class MemorySession:
    """One that replays."""

    store: Store

    @contextlib.contextmanager
    def transaction(self, *, snapshot: bool = False) -> Iterator[ReplayTables]:
        with self.store.transaction() as cursor:
            yield MemoryTables(cursor)  # type: ignore[arg-type]
