"""What the console shows live: one snapshot of the hub, read at most once a second however many browsers look, and how old it is.

A refresh runs in a thread of its own, and the next only starts after it: a database that hangs costs one thread, and the pages, which only
look at the last state, say how long it has not answered.
"""

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from events.base import Recorded
from events.errors import Unavailable
from hub.app import answers, queries
from hub.app.home import Home
from hub.app.supervisor import Process, read_processes
from hub.app.wiring import Hub, views
from hub.log.follow import Cursor, live_schema
from hub.log.store import read
from projections import equipment_answers, quarantine
from projections.base import EXCEPTION_TABLE

REFRESH_S = 1.0
STALE_S = 4.0  # a snapshot older than this is not shown as if it were true
FAILING_S = 2.0  # one failed try is no news: views are swapped by a promotion
SLOW_S = 10.0  # how often what is beside the log (repetitions, the ledger) is read anew without a new fact
STATEMENT_S = 5  # of one query of a snapshot
LIST_MAX = 50  # rows of each list on the overview; the page says how many there are in all
NEWEST_MAX = 10
_CONFLICT = "a fact that is known came again with other content: the first stays, this one is kept"
WINDOW_S = 300
WINDOW_MAX = 20_000  # facts that are counted by source


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a view is; `position` None: its tables are not there yet."""

    view: str
    position: int | None
    behind: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Source:
    """Facts of a source in the window, and when its last one was recorded."""

    source: str
    facts: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """Entries of the quarantine that have a reason and a source in common: `count` of them, received `times` times."""

    kind: str
    reason: str
    source: str
    count: int
    times: int
    last: datetime
    newest: str


@dataclass(frozen=True, slots=True)
class Lists:
    """What only changes with the log: exceptions, what is held, the ledger, equipment."""

    exceptions: dict[str, int] = field(default_factory=dict)
    exception_rows: list[dict[str, Any]] = field(default_factory=list)
    held: int = 0
    held_groups: tuple[Held, ...] = ()
    ledger: dict[str, str] = field(default_factory=dict)
    items: dict[str, str] = field(default_factory=dict)
    machines: list[dict[str, Any]] = field(default_factory=list)
    gaps: int = 0  # that are open


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The hub at one instant of the database."""

    at: datetime
    head: int
    last: datetime | None
    per_minute: int
    lags: tuple[Lag, ...]
    sources: tuple[Source, ...]
    window_cut: bool
    newest: tuple[Recorded, ...]
    lists: Lists
    processes: tuple[Process, ...]

    @property
    def oldest_s(self) -> float:
        return max((lag.seconds for lag in self.lags), default=0.0)

    @property
    def behind(self) -> int:
        return max((lag.behind for lag in self.lags), default=0)


@dataclass(frozen=True, slots=True)
class State:
    """The last snapshot and since when there is none newer; `error` is what the last try met."""

    snapshot: Snapshot | None = None
    taken: float = 0.0
    error: str = ""

    def silent_s(self, now: float) -> float:
        """Seconds without an answer of the database; 0 while it answers."""
        age = now - self.taken
        return age if age > (FAILING_S if self.error else STALE_S) else 0.0


class Live:
    """Shared by all pages. `state()` never waits."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.home = Home(hub.settings.home)
        self._started = time.monotonic()
        self._state = State(taken=self._started)
        self._tried = 0.0
        self._thread: threading.Thread | None = None
        self._mutex = threading.Lock()
        self._lists = Lists()
        self._lists_of: tuple[object, ...] = ()
        self._lists_at = 0.0
        self._sources: dict[str, datetime] = {}

    def state(self) -> State:
        """The last state; starts a refresh where that is due."""
        with self._mutex:
            now = time.monotonic()
            if now - self._tried >= REFRESH_S and (self._thread is None or not self._thread.is_alive()):
                self._tried = now
                self._thread = threading.Thread(target=self._refresh, name="console snapshot", daemon=True)
                self._thread.start()
            return self._state

    def _refresh(self) -> None:
        try:
            found = self._read()
        except (Unavailable, psycopg.Error) as error:
            self._state = State(self._state.snapshot, self._state.taken, first_line(error))
        else:
            self._state = State(found, time.monotonic())

    def _read(self) -> Snapshot:
        with answers.reading(self.hub) as cursor:
            cursor.execute(sql.SQL("set local statement_timeout = {}").format(sql.Literal(f"{STATEMENT_S}s")))
            head, at, last = _head(cursor)
            positions = queries.view_positions(cursor)
            first = _first_since(cursor, head, WINDOW_S)
            sources = self._window(cursor, max(first, head - WINDOW_MAX + 1), head)
            return Snapshot(
                at=at,
                head=head,
                last=last,
                per_minute=head - _first_since(cursor, head, 60) + 1,
                lags=_lags(cursor, positions, head),
                sources=sources,
                window_cut=first < head - WINDOW_MAX + 1,
                newest=tuple(reversed(read(cursor, max(0, head - NEWEST_MAX), NEWEST_MAX))),
                lists=self._read_lists(cursor, positions),
                processes=tuple(read_processes(self.home)),
            )

    def _window(self, cursor: Cursor, first: int, head: int) -> tuple[Source, ...]:
        """Sources with their facts from `first` on; those known from before stay with none."""
        if not self._sources:  # the first look goes further back than the window
            self._sources = _by_source(cursor, max(1, head - WINDOW_MAX + 1), head)[1]
        counts, last = _by_source(cursor, first, head)
        self._sources |= last
        return tuple(Source(name, counts.get(name, 0), self._sources[name]) for name in sorted(self._sources))

    def _read_lists(self, cursor: Cursor, positions: dict[str, int]) -> Lists:
        """Read anew only after a view moved, or after a while: repetitions are counted beside the log."""
        now, of = time.monotonic(), tuple(sorted(positions.items()))
        if len(positions) < len(views()):
            return Lists()
        if of != self._lists_of or now - self._lists_at > SLOW_S:
            held = quarantine.entries(cursor)
            self._lists = Lists(
                exceptions=queries.exception_counts(cursor),
                exception_rows=_exceptions(cursor),
                held=len(held),
                held_groups=_grouped(held),
                ledger=queries.ledger(cursor),
                items=queries.items(cursor),
                machines=equipment_answers.machines(cursor),
                gaps=sum(row["open"] for row in equipment_answers.gap_counts(cursor)),
            )
            self._lists_of, self._lists_at = of, now
        return self._lists


def first_line(error: BaseException) -> str:
    """An error in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _head(cursor: Cursor) -> tuple[int, datetime, datetime | None]:
    row = cursor.execute(
        """select coalesce(e.position, 0), clock_timestamp(), e.recorded_at
           from (select) one left join lateral (select position, recorded_at from log.event order by position desc limit 1) e on true"""
    ).fetchone()
    return row or (0, datetime.min.replace(tzinfo=UTC), None)


def _first_since(cursor: Cursor, head: int, seconds: int) -> int:
    """The first position recorded in the last so many seconds, head + 1 if none: recorded times grow with positions, so halving finds it."""
    low, high = 1, head + 1
    while low < high:
        middle = (low + high) // 2
        row = cursor.execute(
            "select recorded_at > clock_timestamp() - make_interval(secs => %s) from log.event where position = %s", [seconds, middle]
        ).fetchone()
        if row is None or row[0]:
            high = middle
        else:
            low = middle + 1
    return low


def _by_source(cursor: Cursor, first: int, head: int) -> tuple[dict[str, int], dict[str, datetime]]:
    rows = cursor.execute(
        "select source, count(*), max(recorded_at) from log.event where position between %s and %s group by source", [first, head]
    ).fetchall()
    return {source: count for source, count, _ in rows}, {source: last for source, _, last in rows}


def _lags(cursor: Cursor, positions: dict[str, int], head: int) -> tuple[Lag, ...]:
    waiting = sorted({positions.get(view.name, 0) + 1 for view in views()})
    ages: dict[int, float] = dict(
        cursor.execute(
            "select position, extract(epoch from clock_timestamp() - recorded_at)::float8 from log.event where position = any(%s)",
            [waiting],
        ).fetchall()
    )
    found = []
    for view in views():
        at = positions.get(view.name)
        found.append(Lag(view.name, at, head - (at or 0), max(0.0, ages.get((at or 0) + 1, 0.0))))
    return tuple(found)


def _grouped(held: list[dict[str, Any]]) -> tuple[Held, ...]:
    """Entries, oldest first, by reason: those that came last first."""
    found: dict[tuple[str, str, str], Held] = {}
    for row in held:
        conflict = row["kind"] == "conflict"  # their reasons name a key each
        key = row["kind"], _CONFLICT if conflict else row["reason"], row["source"]
        before = found.pop(key, None)
        count, times = (before.count, before.times) if before else (0, 0)
        found[key] = Held(*key, count + 1, times + row["times"], row["first_seen"], row["id"])
    return tuple(reversed(found.values()))


def _exceptions(cursor: Cursor) -> list[dict[str, Any]]:
    """The newest open exceptions of all views."""
    names = ("kind", "subject", "source", "business_key", "place", "reason", "first_seen", "position")
    parts = [
        sql.SQL("(select {} from {}.exception order by position desc limit {})").format(
            sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(live_schema(view.name)), sql.Literal(LIST_MAX)
        )
        for view in views()
        if EXCEPTION_TABLE.name in {table.name for table in view.tables}
    ]
    query = sql.SQL("select * from ({}) x order by position desc, kind, subject limit {}").format(
        sql.SQL(" union all ").join(parts), sql.Literal(LIST_MAX)
    )
    return [dict(zip(names, row, strict=True)) for row in cursor.execute(query).fetchall()]
