"""Answers that command line, API and console share: a caught-up reading cursor, a trace with where things are now, the hub's status."""

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from events import canonical
from events.errors import Corrupt, Unavailable
from hub import limits
from hub.app import queries
from hub.app.home import Home
from hub.app.supervisor import read_processes
from hub.app.wiring import Hub, named_views, views
from hub.log.follow import Cursor, Tables, enter, live_schema, position
from projections import trace as traces
from projections.equipment_answers import worked_on

_catching_up = threading.Lock()


@contextlib.contextmanager
def caught_up(hub: Hub, views: Sequence[str] = ()) -> Iterator[Cursor]:
    """A reading cursor after the views have reached the head as of the call. Raises `Unavailable`, `Corrupt`."""
    for _ in range(limits.SNAPSHOT_TRIES_MAX):
        with _catching_up:  # in one process one thread is enough to help the followers along
            head = hub.catch_up(views)
        with reading(hub) as cursor:
            if _are_at(cursor, sorted(view.name for view in named_views(views)), head):
                yield cursor
                return
    raise Unavailable("the views were swapped again and again while this was asked: try again when `hub replay promote` is done")


def _are_at(cursor: Cursor, views: Sequence[str], head: int) -> bool:
    """Whether this snapshot has the views at the head, and from now on nobody swaps them: `promote` waits for whoever holds a position.

    All who read several views take their positions in one order. A snapshot from before a promote that it waited for sees what was then
    the shadow: behind the head, or nothing yet.
    """
    try:
        return all(position(Tables(cursor), live_schema(view)) >= head for view in views)
    except (Corrupt, psycopg.errors.UndefinedTable):
        return False  # what is wrong with the view itself, catching up tells


@contextlib.contextmanager
def reading(hub: Hub) -> Iterator[Cursor]:
    """One read-only snapshot as the reader role, with times in UTC and a bound on each statement. Raises `Unavailable`."""
    try:
        with psycopg.connect(hub.read_url, application_name="hub read") as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            with connection.cursor() as cursor:
                cursor.execute(f"set local statement_timeout = '{limits.STATEMENT_TIMEOUT_S}s'")
                cursor.execute("set local timezone = 'UTC'")
                yield cursor
    except psycopg.OperationalError as error:
        raise Unavailable(f"the views cannot be read: {error}") from error


def trace(cursor: Cursor, text: str, direction: str) -> dict[str, Any]:
    """The trace of any identifier (contracts.md), each lot and serial with the balances where it is now, and what machines did with its orders
    and lots."""
    enter(cursor, live_schema("genealogy"))
    found: dict[str, Any] = traces.trace(cursor, text, direction)
    if found.get("root"):
        places = queries.where_now(cursor, found["nodes"])
        for node in found["nodes"]:
            node["now"] = places.get((node["kind"], node["id"]), [])
        found["equipment"] = worked_on(cursor, found["nodes"])
    return found


def status(hub: Hub) -> dict[str, Any]:
    """`hub status --json`."""
    with reading(hub) as cursor:
        head = Tables(cursor).head()
        positions = queries.view_positions(cursor)
        complete = len(positions) == len(views())
        held = cursor.execute("select count(*) from view_quarantine.entry where not settled").fetchone() if complete else None
        counts = queries.exception_counts(cursor) if complete else {}
        trouble = queries.position_trouble(cursor, positions)
        relay = queries.relay(cursor, head)
        lag_s = queries.oldest_unprocessed_s(cursor, positions, trouble)
        waits = queries.view_waits(cursor, positions)
    return {
        "processes": [
            {"role": p.role, "pid": p.pid, "since": p.since, "restarts": p.restarts} for p in read_processes(Home(hub.settings.home))
        ],
        "database_url": hub.read_url,
        "owner_url": hub.database.owner_url,
        "head": head,
        "views": positions,
        "trouble": trouble,
        "relay": relay,
        "waits_s": {view: waits_s for view, (waits_s, _) in waits.items()},
        # by position alone: that its process or thread lives says nothing
        "stuck": {view: min(both) for view, both in waits.items() if min(both) >= limits.VIEW_STUCK_S},
        "oldest_unprocessed_s": lag_s,
        "quarantine": int(held[0]) if held else 0,
        "exceptions": sum(counts.values()),
        "exceptions_by_kind": counts,
    }


def plain_json(value: object) -> str:
    """JSON of rows that may hold exact decimals, which print as their digits."""
    return json.dumps(value, ensure_ascii=False, default=lambda v: canonical.loads(canonical.dumps(v)))
