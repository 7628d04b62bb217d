"""Shadows: the tables beside a live view that `rebuild` and `verify` fill and `promote` swaps in, and whether what they hold can be trusted.

The mark of a shadow (the comment of its schema) names the code that folded it and, once it is whole, its position and the digest of all its
rows there. A shadow that is not what its mark says is no evidence about anything: it is folded anew.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

import events
import projections
from events.errors import Corrupt, Unavailable
from hub import limits
from hub.log import codec
from hub.log.follow import Cursor, ensure, position, shadow_schema, step
from projections.base import TableView
from projections.digest import view_digest

Connection = psycopg.Connection[tuple[Any, ...]]
# A table is not there, or it is another one: it lacks columns, or they have types that do not compare.
GONE = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction)
_LOCK = 0x7265706C  # advisory, with the hash of a view's name: one `hub replay` a view at a time


@cache
def code() -> str:
    """What identifies the code that folds: sha256 (hex) over the sources of views, events, upcasters and the log's codec."""
    found = hashlib.sha256()
    packages = [path for package in (events, projections) for folder in package.__path__ for path in Path(folder).rglob("*")]
    for path in sorted([Path(codec.__file__), *packages]):
        if path.suffix in (".py", ".json", ".sql"):
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


@contextlib.contextmanager
def alone(url: str, views: Sequence[TableView]) -> Iterator[Connection]:
    """A connection, in autocommit, that nobody else who replays these views has at the same time. Raises `Unavailable`, as does its use."""
    try:
        with psycopg.connect(url, application_name="hub replay", autocommit=True) as connection:
            connection.execute(f"set lock_timeout = '{limits.LOCK_TIMEOUT_S}s'")
            for view in sorted(views, key=lambda v: v.name):
                try:
                    connection.execute("select pg_advisory_lock(%s::int, hashtext(%s))", [_LOCK, view.name])
                except psycopg.errors.LockNotAvailable as error:
                    raise Unavailable(f"another `hub replay` works on view {view.name}: wait until it has ended, then try again") from error
            yield connection
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise Unavailable(f"somebody else holds tables that replay needs; nothing was swapped, try again: {error}") from error
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
        raise Unavailable(f"the database cannot be reached; nothing was swapped, try again: {error}") from error


class Shadow:
    """The shadow of a view, in the hands of who is `alone` with it."""

    def __init__(self, connection: Connection, view: TableView) -> None:
        self.schema = shadow_schema(view.name)
        self._connection = connection
        self._view = view

    def restart(self) -> None:
        """Throw away what is there and begin at position 0."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(self.schema)))
            ensure(cursor, self._view, self.schema)
            self._set_mark(cursor, {"code": code()})

    def resume(self) -> None:
        """Begin to fold on: until `seal` nobody takes this shadow for whole."""
        self._set_mark(self._connection.cursor(), {"code": code()})

    def step(self, limit: int, upto: int) -> int:
        """Fold one batch, durably; how many facts there were."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            return step(cursor, self._view, self.schema, limit, upto)

    def position(self) -> int:
        """The last position folded in."""
        return position(self._connection.cursor(), self.schema)

    def seal(self) -> str:
        """Mark the shadow as whole; the digest of all its rows and columns."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            mark = self._whole(cursor)
            self._set_mark(cursor, mark)
        return str(mark["digest"])

    @property
    def begun(self) -> bool:
        """A rebuild by the same code was interrupted: it can go on."""
        if self._mark() != {"code": code()}:
            return False
        try:
            return self.position() >= 0
        except (Corrupt, *GONE):
            return False

    def flaw(self) -> str:
        """Why these tables cannot be taken for the fold of the log up to their position, as the end of a sentence; empty where they can."""
        mark = self._mark()
        if mark is None:
            return "is not there"
        if mark.get("code") != code():
            return "was folded by other code than this"
        if "digest" not in mark:
            return "is not finished"
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                return "" if mark == self._whole(cursor) else "was changed by somebody after it was folded"
        except (Corrupt, *GONE) as error:
            return f"cannot be used: {error}"

    def _whole(self, cursor: Cursor) -> dict[str, object]:
        digest = view_digest(cursor, self.schema, self._view, business=False)
        return {"code": code(), "position": position(cursor, self.schema), "digest": digest}

    def _mark(self) -> dict[str, object] | None:
        query = "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s"
        row = self._connection.execute(query, [self.schema]).fetchone()
        try:
            return dict(json.loads(row[0] or "{}")) if row else None
        except ValueError:
            return {}  # not ours

    def _set_mark(self, cursor: Cursor, mark: dict[str, object]) -> None:
        text = sql.Literal(json.dumps(mark))
        cursor.execute(sql.SQL("comment on schema {} is {}").format(sql.Identifier(self.schema), text))
