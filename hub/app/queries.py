"""What people ask: the queries behind the command line, the API and the console, as plain JSON-ready rows (contracts.md, Commands)."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import sql

from events import canonical
from events.base import Recorded
from events.errors import Corrupt
from events.vocabulary import Thing, bounded
from hub import limits
from hub.app.wiring import views
from hub.log.codec import COLUMNS, decode, receipt_key
from hub.log.follow import RELAY, Cursor, Tables, enter, live_schema
from hub.log.follow import position as sound_position
from hub.log.store import Log, read
from projections.base import EXCEPTION_TABLE
from projections.movements import OWN
from projections.naming import traced

Row = dict[str, Any]


def stock(cursor: Cursor, *, everything: bool = False) -> Iterator[Row]:
    """Balances that are not zero: of own locations, or with `everything` of all accounts (their sum is zero in each unit)."""
    cursor.execute(
        """select b.account, b.status, b.item, b.lot, b.serial, b.unit, b.quantity, b.position, coalesce(l.owner, 'own')
           from view_stock.balance b left join view_references.location l on l.location = substr(b.account, %s)
                and b.account like %s
           where b.quantity <> 0 order by b.item, b.lot, b.serial, b.account, b.status, b.unit""",
        [len(OWN) + 1, OWN + "%"],
    )
    for account, status, item, lot, serial, unit, quantity, position, owner in cursor:
        at = account.removeprefix(OWN) if account.startswith(OWN) else None
        if everything or (at is not None and owner == "own"):
            yield {
                "account": account,
                "item": item,
                "lot": lot or None,
                "serial": serial or None,
                "location": at,
                "status": status or None,
                "quantity": canonical.decimal_text(quantity),
                "unit": unit,
                "position": position,
            }


def ledger(cursor: Cursor) -> dict[str, str]:
    """The sum over all accounts in each unit: zero, or the ledger is broken."""
    cursor.execute("select unit, sum(quantity) from view_stock.balance group by unit order by unit")
    return {unit: canonical.decimal_text(total) for unit, total in cursor}


def items(cursor: Cursor) -> dict[str, str]:
    """Descriptions of items that master data knows."""
    cursor.execute("select item, description from view_references.item where description <> ''")
    return dict(cursor.fetchall())


def exceptions(cursor: Cursor) -> list[Row]:
    """All open exceptions of all views, oldest first."""
    parts = [
        sql.SQL("select kind, subject, source, business_key, place, reason, first_seen, position from {}.exception").format(
            sql.Identifier(live_schema(view.name))
        )
        for view in views()
        if EXCEPTION_TABLE in view.tables
    ]
    query = sql.SQL("select * from ({}) x order by first_seen, kind, subject").format(sql.SQL(" union all ").join(parts))
    rows = cursor.execute(query).fetchall()
    return [
        {
            "id": hashlib.sha256(f"{kind}|{subject}".encode()).hexdigest()[:12],
            "kind": kind,
            "subject": subject,
            "source": source,
            "business_key": key,
            # the subject of a conflict is its held entry: the bytes that were refused, not those of the fact that stays
            "sha256": _raw_of(cursor, UUID(subject) if kind == "content_conflict" else receipt_key(source, key)),
            "place": place,
            "reason": reason,
            "first_seen": canonical.time_text(first_seen),
            "times": 1,
            "position": position,
        }
        for kind, subject, source, key, place, reason, first_seen, position in rows
    ]


def exception_counts(cursor: Cursor) -> dict[str, int]:
    """Open exceptions by kind."""
    counts: dict[str, int] = {}
    for view in views():
        if EXCEPTION_TABLE in view.tables:
            query = sql.SQL("select kind, count(*) from {}.exception group by kind").format(sql.Identifier(live_schema(view.name)))
            for kind, count in cursor.execute(query):
                counts[kind] = counts.get(kind, 0) + count
    return dict(sorted(counts.items()))


def _raw_of(cursor: Cursor, receipt: UUID) -> str | None:
    row = cursor.execute("select meta from log.event where key = %s", [receipt]).fetchone()
    return canonical.loads(bytes(row[0])).get("raw") if row else None


def event_row(fact: Recorded) -> Row:
    """A recorded fact as `hub events read` prints it."""
    e = fact.envelope
    return {
        "position": fact.position,
        "stream": fact.stream,
        "version": fact.version,
        "type": fact.event.type,
        "schema_version": fact.event.version,
        "source": e.source,
        "business_key": e.key,
        "occurred_at": canonical.time_text(e.occurred_at),
        "effective_at": canonical.time_text(e.effective_at),
        "recorded_at": canonical.time_text(fact.recorded_at),
        "time_quality": e.time_quality,
        "correlation": e.correlation,
        "causation": e.causation,
        "actor": e.actor,
        "mapping": e.mapping,
        "raw": e.raw,
        "traceparent": e.traceparent or None,
        "details": canonical.loads(canonical.dumps(e.details)) if e.details else None,
        "data": fact.event.data(),
    }


def events(log: Log, first: int = 1, *, stream: str | None = None, type_: str | None = None, last: int | None = None) -> Iterator[Row]:
    """Facts from a position on, up to the head as of the call (or `last`)."""
    upto = log.head() if last is None else last
    after = first - 1
    while found := log.read(after, limits.READ_BATCH_MAX, stream=stream, type_=type_):
        for fact in found:
            if fact.position > upto:
                return
            yield event_row(fact)
        after = found[-1].position


def find_facts(cursor: Cursor, what: str) -> list[Recorded]:
    """The facts that a position or a business key (of any source) names."""
    if what.isascii() and what.isdigit() and len(what) < 19:
        found = read(cursor, int(what) - 1, 1)
        if found and found[0].position == int(what):
            return found
    rows = cursor.execute(f"select {COLUMNS} from log.event where business_key = %s order by position limit 50", [what], binary=True)  # noqa: S608 - constant
    return [decode(row) for row in rows.fetchall()]


def effects(cursor: Cursor, fact: Recorded) -> dict[str, dict[str, list[Row]]]:
    """The rows of every view that name a fact's position as the one that last changed them."""
    found: dict[str, dict[str, list[Row]]] = {}
    for view in views():
        for table in view.tables:
            if "position" not in table.columns:
                continue
            query = sql.SQL("select to_jsonb(t)::text from {} t where position = %s limit 50").format(
                sql.Identifier(live_schema(view.name), table.name)
            )
            if rows := [canonical.loads(row[0]) for row in cursor.execute(query, [fact.position])]:
                found.setdefault(view.name, {})[table.name] = rows
    return found


def view_positions(cursor: Cursor) -> dict[str, int]:
    """The position of every view that exists."""
    found = {}
    for view in views():
        row = cursor.execute("select to_regclass(%s)", [f"{live_schema(view.name)}.position"]).fetchone()
        if row and row[0] is not None:
            query = sql.SQL("select position from {}.position").format(sql.Identifier(live_schema(view.name)))
            found[view.name] = int((cursor.execute(query).fetchone() or (0,))[0])
    return found


def position_trouble(cursor: Cursor, positions: dict[str, int]) -> dict[str, str]:
    """Why views cannot go on from their positions, as when they are beyond the head, by the view's name."""
    found = {}
    for view in positions:
        try:
            sound_position(Tables(cursor), live_schema(view))
        except Corrupt as error:
            found[view] = str(error)
    return found


def relay(cursor: Cursor, head: int) -> Row | None:
    """How far the Kafka relay is and what is wrong with it; None where there never was one."""
    if cursor.execute("select to_regclass(%s)", [f"{RELAY}.position"]).fetchone() == (None,):
        return None
    row = cursor.execute(
        """select position, split_part(shape, ' ', 1), (select reason from relay.trouble limit 1),
                  extract(epoch from clock_timestamp() - (select recorded_at from log.event e where e.position = p.position + 1))
           from relay.position p limit 1"""
    ).fetchone()
    try:
        sound_position(Tables(cursor), RELAY)
        trouble = row[2] if row else None
    except Corrupt as error:
        trouble = str(error)
    position, topic, lag_s = (row[0], row[1] or None, row[3]) if row else (0, None, None)
    return {
        "topic": topic,
        "position": position,
        "lag": head - position,
        "lag_s": round(max(0.0, float(lag_s or 0)), 3),
        "trouble": trouble,
    }


def oldest_unprocessed_s(cursor: Cursor, positions: dict[str, int], trouble: Collection[str] = ()) -> float:
    """Seconds since the oldest fact that some view has not folded was recorded; 0 when all are at the head.

    A view in trouble has folded nothing that counts; where the log is empty besides, there is no fact to tell since when: since 1970.
    """
    if not positions:
        return 0.0
    after = min(0 if view in trouble else at for view, at in positions.items())
    row = cursor.execute(
        """select extract(epoch from clock_timestamp() -
                  coalesce((select recorded_at from log.event where position = %s), case when %s then 'epoch'::timestamptz end))""",
        [after + 1, bool(trouble)],
    ).fetchone()
    return round(max(0.0, float(row[0])), 3) if row and row[0] is not None else 0.0


def view_waits(cursor: Cursor, positions: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Of each view behind the head: seconds since the first fact that it has not folded was recorded, and since it moved last."""
    found = {}
    for view in positions:
        query = sql.SQL(
            """select extract(epoch from clock_timestamp() - e.recorded_at), extract(epoch from clock_timestamp() - coalesce(m.at, e.recorded_at))
               from {} p join log.event e on e.position = p.position + 1 left join intake.moved m on m.schema = %s"""
        ).format(sql.Identifier(live_schema(view), "position"))
        if row := cursor.execute(query, [live_schema(view)]).fetchone():
            found[view] = (round(max(0.0, float(row[0])), 3), round(max(0.0, float(row[1])), 3))
    return found


def where_now(cursor: Cursor, nodes: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Balances above zero of the lots and serials among trace nodes: where each is now, partners' accounts included."""
    found: dict[tuple[str, str], list[Row]] = {}
    for account, status, item, lot, serial, unit, quantity in balances_of(cursor, nodes):
        place = {"account": account, "status": status or None, "quantity": canonical.decimal_text(Decimal(quantity)), "unit": unit}
        for key in nodes_of(item, lot, serial):
            found.setdefault(key, []).append(place)
    return found


def nodes_of(item: str, lot: str, serial: str) -> list[tuple[str, str]]:
    """The nodes in genealogy that a balance is of: its serial, its lot."""
    thing = Thing(item=item or None, lot=lot or None, serial=serial or None) if item or serial else None
    return [(kind, bounded(name)) for (kind, name), _ in traced(thing)] if thing else []


def balances_of(cursor: Cursor, nodes: Iterable[Row]) -> list[tuple[Any, ...]]:
    """account, status, item, lot, serial, unit and quantity of every balance above zero of the lots and serials among trace nodes, once."""
    wanted = [(n["kind"], n.get("item", ""), n[n["kind"]]) for n in nodes if n["kind"] in ("lot", "serial") and n["kind"] in n]
    enter(cursor, live_schema("stock"))
    cursor.execute(
        """select distinct account, status, b.item, lot, serial, unit, quantity
           from unnest(%s::text[], %s::text[], %s::text[]) wanted(kind, item, name) cross join lateral (
             select * from balance b where wanted.kind = 'lot' and (b.item, b.lot) = (wanted.item, wanted.name)
             union all
             select * from balance b where wanted.kind = 'serial' and (b.serial, b.item) = (wanted.name, wanted.item)) b
           where quantity > 0 order by account, status, b.item, lot, serial, unit""",
        [[kind for kind, _, _ in wanted], [item for _, item, _ in wanted], [name for _, _, name in wanted]],
    )
    return cursor.fetchall()
