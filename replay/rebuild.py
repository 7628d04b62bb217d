"""Rebuild: folds the whole log into a shadow schema beside the live view, with the live fold, in steps that survive an interruption."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from events.errors import Unavailable
from hub import limits
from hub.log.follow import Follower, shadow_schema
from hub.log.store import Log
from projections.base import TableView
from projections.digest import view_digest

_RUNNING = "rebuild running"  # the schema's comment while a rebuild is on its way: the next one goes on where it stopped
_DONE = "rebuilt"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rebuild is: events folded in this run, the position reached, the position it goes to, seconds so far."""

    view: str
    events: int
    position: int
    target: int
    seconds: float

    @property
    def left_s(self) -> float | None:
        """Seconds until the target at the rate so far; None before there is a rate."""
        return (self.target - self.position) * self.seconds / self.events if self.events else None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One rebuilt view: events folded in this run, seconds, the sha256 (hex) of all its tables and columns."""

    events: int
    seconds: float
    digest: str


def rebuild(
    url: str,
    views: Sequence[TableView],
    progress: Callable[[Progress], None] = lambda p: None,
    *,
    batch: int = limits.FOLLOW_BATCH_MAX,
    restart: bool = False,
) -> tuple[int, dict[str, Rebuilt]]:
    """Fill the shadows of views up to the log's head as of the call; the position reached and what was done for each view.

    A shadow whose rebuild was interrupted is gone on with (`restart`: not); one that was complete is thrown away first.
    """
    with Log(url) as log:
        target = log.head()
    return target, {view.name: _rebuild_one(url, view, target, progress, batch, restart) for view in views}


def _rebuild_one(url: str, view: TableView, target: int, progress: Callable[[Progress], None], batch: int, restart: bool) -> Rebuilt:
    follower = Follower(url, view, shadow_schema(view.name))
    started = time.monotonic()
    events = 0
    try:
        if restart or _mark(url, follower.schema) != _RUNNING:
            drop(url, follower.schema)
        follower.ensure()
        _set_mark(url, follower.schema, _RUNNING)
        while folded := follower.step(batch, target):
            events += folded
            progress(Progress(view.name, events, follower.position(), target, time.monotonic() - started))
        with connect(url) as connection, connection.cursor() as cursor:
            digest = view_digest(cursor, follower.schema, view, business=False)
        _set_mark(url, follower.schema, _DONE)
    finally:
        follower.close()
    return Rebuilt(events, time.monotonic() - started, digest)


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection for replay. Raises `Unavailable`."""
    try:
        return psycopg.connect(url, application_name="hub replay")
    except psycopg.OperationalError as error:
        raise Unavailable(f"the database cannot be reached: {error}") from error


def drop(url: str, schema: str) -> None:
    """Remove a shadow and all it holds."""
    with connect(url) as connection:
        connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))


def _mark(url: str, schema: str) -> str | None:
    with connect(url) as connection:
        row = connection.execute("select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s", [schema]).fetchone()
    return str(row[0]) if row and row[0] else None


def _set_mark(url: str, schema: str, mark: str) -> None:
    with connect(url) as connection:
        connection.execute(sql.SQL("comment on schema {} is {}").format(sql.Identifier(schema), sql.Literal(mark)))
