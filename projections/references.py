"""References: master data as it stands, and the items, partners, locations, lots and serials that facts name and nothing brought in.

A lot or serial is known by what made it ours: receipt, output, return, or the output of a transformation, split, merge or rework. A fact
that was undone neither names nor defines anything. A later definition or origin closes the exception.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from psycopg import sql

from events.base import Event, Recorded
from events.masterdata import ItemDefined, LocationDefined, PartnerDefined
from events.vocabulary import bounded
from hub.log.codec import receipt_key
from hub.log.follow import Cursor
from projections.base import EXCEPTION_TABLE, Rows, Table, TableView
from projections.naming import named, things
from projections.undone import REVERSAL, mark_undone, reversals

_SUBJECT = {"kind": "text", "id": "text", "fact": "uuid"}
_STATE = {
    "source": "text not null",
    "business_key": "text not null",
    "effective_at": "timestamptz not null",
    "undone": "boolean not null",
    "position": "bigint not null",
}
# Who names a subject, and who defines it or brings it in; the first or last of them by effective time is one look into the index.
_INDEXES = ("kind, id, undone, effective_at", "kind, id, position", "position", "fact")
NAMED = Table("named", {**_SUBJECT, **_STATE}, key=("kind", "id", "fact"), indexes=_INDEXES)
KNOWN = Table("known", {**_SUBJECT, "data": "text[] not null", **_STATE}, key=("kind", "id", "fact"), indexes=_INDEXES)
ITEM = Table(
    "item",
    {
        "item": "text",
        "description": "text not null",
        "base_unit": "text not null",
        "tracking": "text not null",
        "position": "bigint not null",
    },
    key=("item",),
)
PARTNER = Table(
    "partner", {"partner": "text", "name": "text not null", "role": "text not null", "position": "bigint not null"}, key=("partner",)
)
LOCATION = Table(
    "location",
    {"location": "text", "description": "text not null", "owner": "text not null", "position": "bigint not null"},
    key=("location",),
)
_MASTER = (ITEM, PARTNER, LOCATION)
_MASTER_KINDS = tuple(table.name for table in _MASTER)
_TRACED_KINDS = ("lot", "serial")


class References(TableView):
    """Known and unknown names: see the module's docstring."""

    name = "references"
    tables = (ITEM, PARTNER, LOCATION, NAMED, KNOWN, REVERSAL, EXCEPTION_TABLE)

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """Who names and who defines what."""
        yield reversals(facts)
        yield NAMED, (row for fact in facts for row in _named(fact))
        yield KNOWN, (row for fact in facts for row in _known(fact))

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """Master data and exceptions of what was touched."""
        window = {"first": first, "last": last}
        for table in ("named", "known"):
            mark_undone(cursor, table, first, last)
        for master in _MASTER:
            names = {"table": sql.Identifier(master.name), "key": sql.Identifier(master.key[0])}
            fields = [name for name in master.columns if name not in (*master.key, "position")]
            data = sql.SQL(", ").join(sql.SQL("data[{}]").format(sql.Literal(n)) for n in range(1, len(fields) + 1))
            cursor.execute(sql.SQL(_MASTER_CLEAR).format(**names), {**window, "kind": master.name})
            cursor.execute(sql.SQL(_MASTER_WRITE).format(**names, data=data), {**window, "kind": master.name})
        cursor.execute(_CLEAR, window)
        cursor.execute(_UNKNOWN, window)


def _named(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    if fact.event.keyed_only:
        return  # its time is that of whoever told it first: what is kept by it would depend on the order of arrival
    defined = {(kind, id_) for kind, id_, _ in _defined(fact.event)}
    subjects = {subject for subject in named(fact.event) if subject[0] in _MASTER_KINDS}
    for role, thing in things(fact.event):
        node = thing.node()
        if role == "use" and node and node[0] in _TRACED_KINDS:
            subjects.add((node[0], bounded(node[1])))
    for kind, id_ in sorted(subjects - defined):
        yield kind, id_, *_fact(fact)


def _known(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    for kind, id_, data in sorted(set(_defined(fact.event))):
        head, *state = _fact(fact)
        yield kind, id_, head, list(data), *state


def _defined(event: Event) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """kind, id and content (in the order of the table's columns) of all that an event defines or brings in."""
    if isinstance(event, ItemDefined):
        yield "item", event.item, (event.description, event.base_unit, event.tracking)
    elif isinstance(event, PartnerDefined):
        yield "partner", event.partner, (event.name, event.role)
    elif isinstance(event, LocationDefined):
        yield "location", event.location, (event.description, event.owner)
    for role, thing in things(event):
        node = thing.node()
        if role == "origin" and node and node[0] in _TRACED_KINDS:
            yield node[0], bounded(node[1]), ()


def _fact(fact: Recorded) -> tuple[Any, ...]:
    e = fact.envelope
    return receipt_key(e.source, e.key), e.source, e.key, e.effective_at, False, fact.position


_TOUCHED = """touched as (
  select kind, id from named where position between %(first)s and %(last)s
  union select kind, id from known where position between %(first)s and %(last)s)"""

_MASTER_CLEAR = """
delete from {table} t using known k where k.position between %(first)s and %(last)s and (k.kind, k.id) = (%(kind)s, t.{key})
"""
# Of several definitions the last by effective time stands; all of them are inputs.
_MASTER_WRITE = """
with touched as (select distinct id from known where kind = %(kind)s and position between %(first)s and %(last)s)
insert into {table}
select k.id, {data}, (select max(position) from known p where (p.kind, p.id) = (k.kind, k.id))
from touched cross join lateral (
  select kind, id, data from known k where (k.kind, k.id) = (%(kind)s, touched.id) and not undone
  order by effective_at desc, source collate "C" desc, business_key collate "C" desc limit 1) k
"""

_CLEAR = f"""
with {_TOUCHED} delete from exception e using touched t where (e.kind, e.subject) = ('unknown_' || t.kind, t.id)
"""  # noqa: S608 - made of the names above

_UNKNOWN = f"""
insert into exception
with {_TOUCHED}
select 'unknown_' || t.kind, t.id, cause.source, cause.business_key, t.kind || ' ' || t.id,
       case when t.kind in ('lot', 'serial') then format('%%s %%s is used, but nothing received, made or returned it', t.kind, t.id)
            else format('%%s %%s is named, but master data does not define it', t.kind, t.id) end,
       cause.effective_at,
       greatest((select max(position) from named n where (n.kind, n.id) = (t.kind, t.id)),
                (select max(position) from known k where (k.kind, k.id) = (t.kind, t.id)))
from touched t cross join lateral (
  select source, business_key, effective_at from named n where (n.kind, n.id) = (t.kind, t.id) and not undone
  order by effective_at, source collate "C", business_key collate "C" limit 1) cause
where not exists (select from known k where (k.kind, k.id) = (t.kind, t.id) and not undone)
"""  # noqa: S608 - made of the names above
