"""Equipment: its state and counts, when it was down, when a value was beyond its limits; and what an edge says of itself: gaps, clocks, lanes.

What is told of now is the latest in effective time. A downtime, an excursion and a gap end with the first fact that ends it, whichever of the two
facts came first. Facts of one edge with the same time are ordered by their number there.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from psycopg import sql

from events import canonical
from events.base import Recorded
from events.equipment import (
    CounterReset,
    CountReported,
    DowntimeEnded,
    DowntimeStarted,
    LimitExceeded,
    LimitKept,
    ReadingsRecorded,
    StateChanged,
)
from events.integration import ClockSkewDetected, GapDetected, GapFilled
from hub.log.codec import receipt_key
from hub.log.follow import Cursor
from projections.base import Rows, Table, TableView
from projections.naming import identity

_AT = {"effective_at": "timestamptz not null", "ordinal": "text not null", "position": "bigint not null"}
_IN_PROCESS = dict.fromkeys(("order_id", "item", "lot"), "text")
_MADE = {"made": "bigint not null", "position": "bigint not null"}

STATE = Table(
    "state",
    {"fact": "uuid", "equipment": "text not null", "state": "text not null", "cause": "text", **_IN_PROCESS, **_AT},
    key=("fact",),
    indexes=("equipment, effective_at", "order_id", "lot", "position"),
)
# The orders and lots that equipment ever named: most of a trace has never been in a machine that speaks
NAMED = Table("named", {"kind": "text", "name": "text", "position": "bigint not null"}, key=("kind", "name"), first=True)
MACHINE = Table(
    "machine",
    {"equipment": "text", "state": "text not null", "cause": "text", **_IN_PROCESS, **_AT},
    key=("equipment",),
)
REPORT = Table(
    "report",  # how a totaliser stood; what it counted, or that it was reset
    {
        "fact": "uuid",
        "equipment": "text not null",
        "counter": "text not null",
        "rejected": "boolean not null",
        "unit": "text not null",
        **_IN_PROCESS,
        "quantity": "numeric not null",
        "total": "numeric not null",
        "kind": "text not null",  # counted | reset | rolled_over
        **_AT,
        "identity": "uuid not null",  # of all that `made` is summed by
    },
    key=("fact",),
    indexes=("equipment, counter, effective_at", "position"),
)
COUNTER = Table(
    "counter",
    {
        "equipment": "text",
        "counter": "text",
        "unit": "text not null",
        "rejected": "boolean not null",
        "counted": "numeric not null",  # altogether
        "resets": "bigint not null",
        "total": "numeric not null",  # as it stood last
        **_AT,
    },
    key=("equipment", "counter"),
)
MADE = Table(
    "made",
    {
        "equipment": "text not null",
        "counter": "text not null",
        "rejected": "boolean not null",
        "unit": "text not null",
        **dict.fromkeys(_IN_PROCESS, "text not null"),  # "" where nobody said it
        "quantity": "numeric not null",
        "position": "bigint not null",
        "identity": "uuid",
    },
    key=("equipment", "counter", "rejected", "unit", "order_id", "item", "lot"),
    unique="identity",
    indexes=("equipment", "order_id", "lot"),
)
DOWNTIME = Table(
    "downtime",
    {
        "fact": "uuid",
        "episode": "uuid not null",  # of equipment and beginning
        "equipment": "text not null",
        "state": "text not null",
        "reason": "text",
        **_IN_PROCESS,
        "started_at": "timestamptz not null",
        "ended_at": "timestamptz",
        **_MADE,
    },
    key=("fact",),
    technical=("made", "position"),
    indexes=("episode", "started_at", "ended_at, started_at", "equipment, ended_at", "order_id", "lot", "made", "position"),
)
DOWNTIME_END = Table(
    "downtime_end", {"fact": "uuid", "episode": "uuid not null", **_AT}, key=("fact",), indexes=("episode, effective_at", "position")
)
EXCURSION = Table(
    "excursion",
    {
        "fact": "uuid",
        "episode": "uuid not null",  # of equipment, tag and beginning
        "equipment": "text not null",
        "tag": "text not null",
        "value": "numeric not null",
        "beyond": "numeric not null",  # the limit
        "above": "boolean not null",
        "unit": "text",
        **_IN_PROCESS,
        "started_at": "timestamptz not null",
        "ended_at": "timestamptz",
        "worst": "numeric not null",
        **_MADE,
    },
    key=("fact",),
    technical=("made", "position"),
    indexes=("episode", "started_at", "ended_at, started_at", "equipment, ended_at", "order_id", "lot", "made", "position"),
)
EXCURSION_END = Table(
    "excursion_end",
    {"fact": "uuid", "episode": "uuid not null", "worst": "numeric not null", **_AT},
    key=("fact",),
    indexes=("episode, effective_at", "position"),
)
GAP = Table(
    "gap",
    {
        "fact": "uuid",
        "episode": "uuid not null",  # of edge and gap
        "edge": "text not null",
        "producer": "text not null",
        "kind": "text not null",
        "gap": "text not null",
        "reason": "text not null",
        "first": "numeric",  # the producer's own numbers, both missing
        "last": "numeric",
        "since": "timestamptz",
        "until": "timestamptz",
        "tags": "text not null",  # a line each, none for all
        "started_at": "timestamptz not null",  # when it was noticed
        "ended_at": "timestamptz",
        "how": "text",
        **_MADE,
    },
    key=("fact",),
    technical=("made", "position"),
    indexes=("episode", "ended_at", "made", "position"),
)
GAP_END = Table(
    "gap_end",
    {"fact": "uuid", "episode": "uuid not null", "how": "text not null", **_AT},
    key=("fact",),
    indexes=("episode, effective_at", "position"),
)
SKEW = Table(
    "skew",
    {
        "fact": "uuid",
        "edge": "text not null",
        "clock": "text not null",
        "seconds": "numeric not null",
        "compared_with": "text not null",
        **_AT,
    },
    key=("fact",),
    indexes=("effective_at", "position"),
)
BATCH = Table(
    "batch",
    {
        "fact": "uuid",
        "edge": "text not null",
        "lane": "text not null",
        "epoch": "text not null",
        "number": "numeric not null",
        "producer": "text not null",
        "readings": "numeric not null",
        "first_at": "timestamptz not null",
        "last_at": "timestamptz not null",
        "ordinal": "text not null",
        "position": "bigint not null",
    },
    key=("fact",),
    indexes=("position",),
)
LANE = Table(
    "lane",  # the last batch of each, and all of them together
    {
        **{
            name: kind.removesuffix(" not null") if name in ("edge", "lane") else kind
            for name, kind in BATCH.columns.items()
            if name != "fact"
        },
        "batches": "bigint not null",
        "all_readings": "numeric not null",
    },
    key=("edge", "lane"),
)


class Equipment(TableView):
    """See the module's docstring."""

    name = "equipment"
    tables = (
        STATE, NAMED, MACHINE, REPORT, COUNTER, MADE, DOWNTIME, DOWNTIME_END, EXCURSION, EXCURSION_END, GAP, GAP_END, SKEW, BATCH, LANE,
    )  # fmt: skip

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """What each fact says by itself."""
        found: dict[str, list[tuple[Any, ...]]] = {}
        for fact in facts:
            for name, row in _rows(fact):
                found.setdefault(name, []).append(row)
        first = {name: fact.position for fact in reversed(facts) for name in _named(fact)}
        if first:
            found["named"] = [(*name, at) for name, at in first.items()]
        return ((table, found[table.name]) for table in self.tables if table.name in found)

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """What is told of now, the sums, and the ends of what began or ended in the span."""
        window: dict[str, Any] = {"first": first, "last": last}
        for statements in _DERIVED.values():
            for statement in statements:
                cursor.execute(statement, window)
        for began, copied in _ENDED.items():
            cursor.execute(_end(began, copied), window)


def _rows(fact: Recorded) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The base rows of a fact, each with its table's name."""
    e, event = fact.envelope, fact.event
    key, at = receipt_key(e.source, e.key), (e.effective_at, _ordinal(fact), fact.position)
    head: tuple[Any, ...]
    what: tuple[Any, ...]
    match event:
        case StateChanged():
            yield "state", (key, event.equipment, event.state, event.cause, *_in_process(event), *at)
        case CountReported():
            quantity, unit = event.quantity.value, event.quantity.unit
            what = (event.equipment, event.counter, event.rejected, unit, *_in_process(event))
            yield "report", (key, *what, quantity, event.total, "counted", *at, identity(*(str(one or "") for one in what)))
        case CounterReset():
            kind = "rolled_over" if event.rolled_over else "reset"
            what = (event.equipment, event.counter, False, event.unit, None, None, None)
            yield "report", (key, *what, 0, event.after, kind, *at, identity(*(str(one or "") for one in what)))
        case DowntimeStarted():
            episode = _episode(event.equipment, e.effective_at)
            head = (key, episode, event.equipment, event.state, event.reason, *_in_process(event))
            yield "downtime", (*head, e.effective_at, None, fact.position, fact.position)
        case DowntimeEnded():
            yield "downtime_end", (key, _episode(event.equipment, event.started_at), *at)
        case LimitExceeded():
            episode = _episode(event.equipment, event.tag, e.effective_at)
            measured = (event.value, event.limit, event.above, event.unit)
            head = (key, episode, event.equipment, event.tag, *measured, *_in_process(event))
            yield "excursion", (*head, e.effective_at, None, event.value, fact.position, fact.position)
        case LimitKept():
            yield "excursion_end", (key, _episode(event.equipment, event.tag, event.exceeded_at), event.worst, *at)
        case GapDetected():
            what = (event.edge, event.producer, event.kind, event.gap, event.reason, event.first, event.last, event.since, event.until)
            head = (key, _episode(event.edge, event.gap), *what, "\n".join(event.tags))
            yield "gap", (*head, e.effective_at, None, None, fact.position, fact.position)
        case GapFilled():
            yield "gap_end", (key, _episode(event.edge, event.gap), event.how, *at)
        case ClockSkewDetected():
            yield "skew", (key, event.edge, event.clock, event.seconds, event.compared_with, *at)
        case ReadingsRecorded():
            head = (key, event.edge, event.lane, event.epoch, event.number, event.producer, event.readings)
            yield "batch", (*head, event.first_at, event.last_at, *at[1:])


def _named(fact: Recorded) -> Iterator[tuple[str, str]]:
    event = fact.event
    if isinstance(event, StateChanged | CountReported | DowntimeStarted | LimitExceeded):
        yield from ((kind, name) for kind, name in (("order", event.order), ("lot", event.lot)) if name)


def _in_process(event: Any) -> tuple[str | None, str | None, str | None]:
    return event.order, event.item, event.lot


def _episode(*parts: str | datetime) -> Any:
    return identity(*(canonical.time_text(one) if isinstance(one, datetime) else one for one in parts))


def _ordinal(fact: Recorded) -> str:
    """A text by which facts of a source sort as their keys count: 9 before 10."""
    return f"{fact.envelope.source} {re.sub('[0-9]+', lambda digits: digits[0].zfill(12), fact.envelope.key)}"


_BATCH_ROWS = "position between %(first)s and %(last)s"
_NEWER = '(excluded.effective_at, excluded.ordinal collate "C") > (t.effective_at, t.ordinal collate "C")'
_LAST = 'effective_at desc, ordinal collate "C" desc'
_MACHINE_COLUMNS = ", ".join(MACHINE.columns)
_LANE_LAST = ", ".join(name for name in LANE.columns if name not in ("edge", "lane", "batches", "all_readings", "position"))

_MACHINES = f"""
insert into machine as t
select distinct on (equipment) {_MACHINE_COLUMNS} from state where {_BATCH_ROWS} order by equipment, {_LAST}
on conflict (equipment) do update set ({_MACHINE_COLUMNS}) = row({", ".join(f"excluded.{name}" for name in MACHINE.columns)}) where {_NEWER}
"""  # noqa: S608 - constants

# All facts of a counter change its row: the last by what it says of now, the others by what they add
_COUNTERS = f"""
insert into counter as t
select equipment, counter, (array_agg(unit order by {_LAST}))[1], bool_or(rejected), trim_scale(sum(quantity)), count(*) filter (where kind = 'reset'),
       (array_agg(total order by {_LAST}))[1], max(effective_at), (array_agg(ordinal order by {_LAST}))[1], max(position)
from report where {_BATCH_ROWS} group by equipment, counter
on conflict (equipment, counter) do update set
  (unit, total, effective_at, ordinal) = (select l.unit, l.total, l.effective_at, l.ordinal
    from (values (t.unit, t.total, t.effective_at, t.ordinal), (excluded.unit, excluded.total, excluded.effective_at, excluded.ordinal))
         l (unit, total, effective_at, ordinal) order by {_LAST} limit 1),
  rejected = t.rejected or excluded.rejected, counted = trim_scale(t.counted + excluded.counted), resets = t.resets + excluded.resets,
  position = excluded.position
"""  # noqa: S608 - constants

_MADE_SUMS = f"""
insert into made as t
select equipment, counter, rejected, unit, coalesce(order_id, ''), coalesce(item, ''), coalesce(lot, ''), trim_scale(sum(quantity)), max(position),
       identity
from report where {_BATCH_ROWS} and kind = 'counted' group by identity, 1, 2, 3, 4, 5, 6, 7
on conflict (identity) do update set quantity = trim_scale(t.quantity + excluded.quantity), position = excluded.position
"""  # noqa: S608 - constants

_LANES = f"""
insert into lane as t
select distinct on (edge, lane) edge, lane, epoch, number, producer, readings, first_at, last_at, ordinal, max(position) over whole,
       count(*) over whole, sum(readings) over whole
from batch where {_BATCH_ROWS} window whole as (partition by edge, lane)
order by edge, lane, epoch collate "C" desc, number desc, ordinal collate "C" desc
on conflict (edge, lane) do update set
  ({_LANE_LAST}) = (select {", ".join(f"l.{name.strip()}" for name in _LANE_LAST.split(","))} from (select t.* union all select excluded.*) l
    order by epoch collate "C" desc, number desc, ordinal collate "C" desc limit 1),
  batches = t.batches + excluded.batches, all_readings = t.all_readings + excluded.all_readings, position = excluded.position
"""  # noqa: S608 - constants

_DERIVED = {"state": (_MACHINES,), "report": (_COUNTERS, _MADE_SUMS), "batch": (_LANES,)}
_ENDED: dict[str, tuple[str, ...]] = {"downtime": (), "excursion": ("worst",), "gap": ("how",)}  # what the end says besides


def _end(began: str, copied: Iterable[str]) -> sql.Composed:
    """Ends of what a batch began or ended, by the first fact that says so."""
    return sql.SQL(
        """with touched as (
             select episode from {began} where made between %(first)s and %(last)s
             union select episode from {end} where position between %(first)s and %(last)s),
           ends as (
             select e.* from touched cross join lateral (
               select * from {end} where episode = touched.episode order by effective_at, ordinal collate "C" limit 1) e)
           update {began} b set ended_at = ends.effective_at{copied}, position = greatest(b.made, ends.position)
           from ends where b.episode = ends.episode"""
    ).format(
        began=sql.Identifier(began),
        end=sql.Identifier(f"{began}_end"),
        copied=sql.SQL("").join(sql.SQL(", {0} = ends.{0}").format(sql.Identifier(name)) for name in copied),
    )
