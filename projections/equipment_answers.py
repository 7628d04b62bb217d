"""What is asked of the view `equipment`: machines, downtime, gaps, clocks, lanes, and what machines did with an order or a lot. Live view, JSON-ready rows."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from events import canonical
from hub.log.follow import Cursor

Row = dict[str, Any]


def machines(cursor: Cursor) -> list[Row]:
    """All equipment with its state, since when, what was in it then, what it counted, and what is open: downtime, values beyond limits."""
    found = _rows(
        cursor,
        """select coalesce(m.equipment, c.equipment) as equipment, state, effective_at as since, cause, order_id as "order", item, lot, position,
             (select min(started_at) from view_equipment.downtime d where d.equipment = m.equipment and ended_at is null) as down_since,
             (select count(distinct episode) from view_equipment.excursion x where x.equipment = m.equipment and ended_at is null) as beyond_limits
           from view_equipment.machine m full join (select distinct equipment from view_equipment.counter) c using (equipment)
           order by 1""",
    )
    counts: dict[str, list[Row]] = {}
    for row in _rows(
        cursor, "select equipment, counter, rejected, unit, counted, resets, total from view_equipment.counter order by equipment, counter"
    ):
        counts.setdefault(row.pop("equipment"), []).append(row)
    return [{**row, "counts": counts.get(row["equipment"], [])} for row in found]


def downtimes(cursor: Cursor, limit: int) -> list[Row]:
    """The newest downtimes, open ones (`ended_at` null) first."""
    columns = 'equipment, state, reason, order_id as "order", item, lot, started_at, ended_at, position'
    return _rows(cursor, _newest("downtime", columns), [limit] * 3)


def excursions(cursor: Cursor, limit: int) -> list[Row]:
    """The newest excursions beyond a limit, open ones (`ended_at` null) first."""
    columns = 'equipment, tag, value, beyond as "limit", above, worst, unit, order_id as "order", item, lot, started_at, ended_at, position'
    return _rows(cursor, _newest("excursion", columns), [limit] * 3)


def _newest(table: str, columns: str) -> str:
    """Open episodes, then closed ones, newest first. An episode that was told twice is shown once."""
    once = f"not exists (select from view_equipment.{table} o where o.episode = e.episode and o.fact < e.fact)"
    part = f"(select {columns} from view_equipment.{table} e where ended_at is %s null and {once} order by started_at desc limit %%s)"  # noqa: S608
    both = f"{part % ''} union all {part % 'not'}"
    return f"select * from ({both}) x order by ended_at is null desc, started_at desc, equipment limit %s"  # noqa: S608


def gaps(cursor: Cursor, *, filled: bool = False) -> list[Row]:
    """What never came and is still missing, with its bounds; `filled`: also what was missing once. Oldest first."""
    found = _rows(
        cursor,
        """select * from (
             select distinct on (episode) edge, producer, kind, gap, reason, first, last, since, until, tags, started_at as noticed_at, ended_at as filled_at, how,
               position from view_equipment.gap where %s or ended_at is null order by episode, until is null, position) g
           order by noticed_at, edge, producer, first, gap""",
        [filled],
    )
    return [{**row, "tags": row["tags"].splitlines(), **{name: _whole(row[name]) for name in ("first", "last")}} for row in found]


def gap_counts(cursor: Cursor) -> list[Row]:
    """How many gaps are open and were filled, by edge, producer and kind."""
    return _rows(
        cursor,
        """select edge, producer, kind, count(distinct episode) filter (where ended_at is null) as open,
             count(distinct episode) filter (where ended_at is not null) as filled, max(position) as position
           from view_equipment.gap group by 1, 2, 3 order by 1, 2, 3""",
    )


def skews(cursor: Cursor, limit: int) -> list[Row]:
    """Clocks that were found to be wrong, the newest first."""
    return _rows(
        cursor,
        """select edge, clock, seconds, compared_with, effective_at as noticed_at, position from view_equipment.skew
           order by effective_at desc, ordinal collate "C" desc limit %s""",
        [limit],
    )


def lanes(cursor: Cursor) -> list[Row]:
    """The last batch of readings of each lane, and how many there were."""
    found = _rows(
        cursor,
        """select edge, lane, epoch, number, producer, readings, first_at, last_at, batches, all_readings, position
           from view_equipment.lane order by 1, 2""",
    )
    return [{**row, **{name: _whole(row[name]) for name in ("number", "readings", "all_readings")}} for row in found]


def worked_on(cursor: Cursor, nodes: Iterable[Row]) -> list[Row]:
    """What equipment did while orders and lots of a trace were in it: states, counts, downtime and excursions of each node and machine.

    A machine that named a lot without its item counts for every item's lot of that name: a link too many costs less than one that is missed.
    Seconds are those of states and downtimes that are over.
    """
    if cursor.execute("select from view_equipment.named limit 1").fetchone() is None:
        return []  # no machine speaks here, and a trace may have a million nodes
    wanted = [(n["kind"], n["id"], n.get("item", ""), n["lot"] if n["kind"] == "lot" else n["id"]) for n in nodes if _asked(n)]
    if wanted:
        cursor.execute(_KNOWN, ["\x1f".join(column) for column in (_columns(wanted)[0], _columns(wanted)[3])])
        known = set(cursor.fetchall())
        wanted = [one for one in wanted if (one[0], one[3]) in known]
    if not wanted:
        return []
    found: dict[tuple[str, str, str], Row] = {}
    columns = _columns(wanted)
    for part, query in _WORKED.items():
        for row in _rows(cursor, query, columns):
            key = (row.pop("kind"), row.pop("id"), row.pop("equipment"))
            entry = found.setdefault(
                key, {"kind": key[0], "id": key[1], "equipment": key[2], "states": [], "counts": [], "downtimes": [], "excursions": []}
            )
            entry[part].append(row)
    return [found[key] for key in sorted(found)]


def _asked(node: Row) -> bool:
    return node["kind"] == "order" or (node["kind"] == "lot" and "lot" in node)


def _columns(wanted: Sequence[tuple[str, ...]]) -> list[list[str]]:
    return [list(column) for column in zip(*wanted, strict=True)]


_WANTED = "unnest(%s::text[], %s::text[], %s::text[], %s::text[]) w(kind, id, of_item, name)"
# Two texts are many times faster to send than arrays of texts, and most nodes go no further. A name of a fact has no control characters.
_KNOWN = r"""select kind, name from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) w(kind, name)
  join view_equipment.named using (kind, name)"""


def _worked(columns: str, table: str, more: str, order: str) -> str:
    """Rows of a table about the wanted nodes, grouped by node and equipment."""
    return f"""
select kind, id, t.equipment, {columns}
from {_WANTED} cross join lateral (
  select * from {table} where w.kind = 'order' and order_id = w.name
  union all
  select * from {table} where w.kind = 'lot' and lot = w.name and (coalesce(item, '') in ('', w.of_item))) t
{more} order by {order}"""  # noqa: S608 - constants


_NEXT = """cross join lateral (
  select (select effective_at from view_equipment.state n where n.equipment = t.equipment and n.effective_at > t.effective_at
          order by n.effective_at limit 1) as until) ended group by 1, 2, 3, 4"""
_WORKED = {
    "states": _worked(
        "state, count(*) as times, extract(epoch from sum(until - effective_at)) as seconds, min(effective_at) as first_at, max(effective_at) as last_at",
        "view_equipment.state", _NEXT, "1, 2, 3, 4",
    ),
    "counts": _worked(
        "counter, rejected, unit, sum(quantity) as quantity", "view_equipment.made", "group by 1, 2, 3, 4, 5, 6", "1, 2, 3, 4, 5, 6"
    ),
    "downtimes": _worked(
        "reason, count(distinct episode) as times, extract(epoch from sum(ended_at - started_at)) as seconds, min(started_at) as first_at, "
        "max(started_at) as last_at",
        "view_equipment.downtime", "group by 1, 2, 3, 4", "1, 2, 3, 4",
    ),
    "excursions": _worked(
        """tag, above, unit, count(distinct episode) as times, case when above then max(worst) else min(worst) end as worst,
           min(started_at) as first_at, max(started_at) as last_at""",
        "view_equipment.excursion", "group by 1, 2, 3, 4, 5, 6", "1, 2, 3, 4, 5, 6",
    ),
}  # fmt: skip


def _rows(cursor: Cursor, query: str, values: list[Any] | None = None) -> list[Row]:
    cursor.execute(query.encode(), values)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in cursor.fetchall()]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return canonical.time_text(value)
    return canonical.decimal_text(value) if isinstance(value, Decimal) else value


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)
