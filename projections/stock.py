"""Stock as a double-entry ledger: movement lines in two clocks, balances by account, and the intervals in which a balance is negative.

Each movement is two lines of opposite sign, so the sum over all accounts is zero in every unit. A reversal adds the opposite lines at its
own effective time, a retraction (errorDeclaration) at the original's; either may come before its original, and several count once.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from events.base import Recorded
from hub.log.codec import receipt_key
from hub.log.follow import Cursor
from projections.base import EXCEPTION_TABLE, Rows, Table, TableView
from projections.movements import OWN, movements
from projections.naming import identity, subject_sql
from projections.undone import REVERSAL, any_reversal, reversals

_NAMES = ("account", "status", "item", "lot", "serial", "unit")
_NAMES_SQL = ", ".join(_NAMES)

MOVEMENT = Table(
    "movement",
    {
        "position": "bigint",
        "line": "int",
        "inverse": "boolean",
        "fact": "uuid not null",  # receipt key of (source, business_key)
        "original": "uuid",  # of an inverse line: the receipt key of the fact that is undone
        "source": "text not null",
        "business_key": "text not null",
        **dict.fromkeys(_NAMES, "text not null"),
        "quantity": "numeric not null",
        "effective_at": "timestamptz not null",
        "identity": "uuid not null",  # of the names above
    },
    key=("position", "line", "inverse"),
    indexes=("fact", "original", "identity, effective_at"),
)
BALANCE = Table(
    "balance",
    {**dict.fromkeys(_NAMES, "text not null"), "quantity": "numeric not null", "position": "bigint not null", "identity": "uuid"},
    key=_NAMES,
    unique="identity",
    lookups=("item, lot", "serial"),
)
# The balances of own accounts in effective time: what each instant adds, and what holds as of it. Movements of one instant count together.
# A fact at the end costs a row; one that comes late costs the rows after it, never the history before it.
INSTANT = Table(
    "instant",
    {
        "identity": "uuid",
        "effective_at": "timestamptz",
        "delta": "numeric not null",
        "cause": "text[]",  # source and business key of the first fact, by these, that takes something
        "changed": "bigint not null",  # the last position that moved something at this instant
        "total": "numeric not null",
        "lowest": "numeric not null",  # of the totals up to here
        "since": "timestamptz",  # the first instant up to here whose total is below zero
        "position": "bigint not null",
    },
    key=("identity", "effective_at"),
    technical=("changed", "position"),
)


class Stock(TableView):
    """What is where: see the module's docstring."""

    name = "stock"
    tables = (MOVEMENT, BALANCE, INSTANT, REVERSAL, EXCEPTION_TABLE)

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """Movement lines."""
        yield reversals(facts)
        yield MOVEMENT, (line for fact in facts for line in _lines(fact))

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """The inverse lines of what is reversed, then balances, instants and exceptions of what was touched."""
        window: dict[str, Any] = {"first": first, "last": last, "own": OWN + "%"}
        gone = cursor.execute(_TAKE_BACK, window).fetchall() if any_reversal(cursor, first, last) else []
        cursor.execute(_INVERT, window)
        cursor.execute(_BALANCE, window)
        cursor.execute(_INSTANTS, {**window, "gone": [identity for identity, _ in gone], "gone_at": [at for _, at in gone]})
        cursor.execute(_NEGATIVE_CLEAR, window)
        cursor.execute(_NEGATIVE, window)


def _lines(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    """Two rows of `movement` for each thing that a fact moves."""
    e = fact.envelope
    for n, m in enumerate(movements(fact.event)):
        head = (False, receipt_key(e.source, e.key), None, e.source, e.key)
        for side, account, status, quantity in ((0, m.source, m.source_status, -m.quantity), (1, m.target, m.target_status, m.quantity)):
            names = (account, status, m.item, m.lot, m.serial, m.unit)
            yield fact.position, 2 * n + side, *head, *names, quantity, e.effective_at, identity(*names)


# Which of several reversals of one original counts is told by the reversals alone (projections/undone.py).
_COUNTS = """
  select distinct on (original) * from reversal join touched using (original)
  order by original, effective_at nulls first, business_key collate "C"
"""

# A reversal that comes later may count before the one that was inverted by: the lines of that one are taken back first, and with them the
# instants from theirs on. What is left of those is told by the movements, once more.
_TAKE_BACK = f"""
with touched as (select distinct original from reversal where position between %(first)s and %(last)s),
counts as ({_COUNTS}),
gone as (delete from movement m using counts c where m.original = c.original and m.fact <> c.fact returning m.*),
total as (select identity, sum(quantity) as quantity from gone group by identity),
less as (update balance b set quantity = trim_scale(b.quantity - total.quantity) from total where b.identity = total.identity),
spot as (select identity, min(effective_at) as at from gone where account like %(own)s group by identity),
forgotten as (delete from instant i using spot where i.identity = spot.identity and i.effective_at >= spot.at)
select identity, at from spot
"""  # noqa: S608 - made of the names above

# Lateral: reversals are few, and a plan that was made before anybody knew that reads all movements for them.
_INVERT = f"""
with touched as (
  select original from reversal where position between %(first)s and %(last)s
  union
  select r.original from movement m join reversal r on r.original = m.fact
  where m.position between %(first)s and %(last)s and not m.inverse),
counts as ({_COUNTS})
insert into movement
select greatest(c.position, m.position), m.line, true, c.fact, c.original, c.source, c.business_key,
       {", ".join("m." + n for n in _NAMES)}, -m.quantity, coalesce(c.effective_at, m.effective_at), m.identity
from counts c cross join lateral (
  select * from movement m where m.fact = c.original and not m.inverse
  and not exists (select from movement i where i.original = m.fact and i.line = m.line) offset 0) m
"""  # noqa: S608 - made of the names above

_BALANCE = f"""
insert into balance as b
select {_NAMES_SQL}, trim_scale(sum(quantity)), max(position), identity from movement
where position between %(first)s and %(last)s group by identity, {_NAMES_SQL} order by identity
on conflict (identity) do update set quantity = trim_scale(b.quantity + excluded.quantity), position = excluded.position
"""  # noqa: S608 - made of the names above

# `later`: from the first instant on that the batch touches in a balance; `before`: what holds as of the one before that. `offset 0` keeps
# the planner, which cannot know how few of the instants of a balance are late, from reading all of them.
_INSTANTS = """
with moved as (
  select identity, effective_at, quantity, source, business_key, position from movement
  where position between %(first)s and %(last)s and account like %(own)s
  union all
  select m.identity, m.effective_at, m.quantity, m.source, m.business_key, m.position
  from unnest(%(gone)s::uuid[], %(gone_at)s::timestamptz[]) gone(identity, at)
  join movement m on m.identity = gone.identity and m.effective_at >= gone.at and m.position < %(first)s),
added as (
  select identity, effective_at, sum(quantity) as delta, max(position) as changed,
         min(array[source, business_key] collate "C") filter (where quantity < 0) as cause
  from moved group by identity, effective_at),
start as (select identity, min(effective_at) as at from added group by identity),
later as (
  select identity, effective_at, sum(delta) as delta, min(cause) as cause, max(changed) as changed
  from (select identity, effective_at, delta, cause, changed from added
        union all
        select i.* from start cross join lateral (
          select identity, effective_at, delta, cause, changed from instant i
          where i.identity = start.identity and i.effective_at >= start.at offset 0) i) known
  group by identity, effective_at),
before as (
  select i.* from start cross join lateral (
    select identity, total, lowest, since, position from instant i
    where i.identity = start.identity and i.effective_at < start.at order by i.effective_at desc limit 1) i),
running as (
  select l.*, coalesce(b.total, 0) + sum(delta) over w as total, greatest(b.position, max(changed) over w) as position,
         b.lowest as lowest_before, b.since as since_before
  from later l left join before b using (identity) window w as (partition by l.identity order by effective_at))
insert into instant
select identity, effective_at, trim_scale(delta), cause, changed, trim_scale(total), trim_scale(least(lowest_before, min(total) over w)),
       coalesce(since_before, min(effective_at) filter (where total < 0) over w), position
from running window w as (partition by identity order by effective_at)
on conflict (identity, effective_at) do update set delta = excluded.delta, cause = excluded.cause, changed = excluded.changed,
  total = excluded.total, lowest = excluded.lowest, since = excluded.since, position = excluded.position
"""

_SUBJECT = subject_sql(*_NAMES, separator="|")
_TOUCHED = "touched as (select distinct identity from movement where position between %(first)s and %(last)s and account like %(own)s)"

_NEGATIVE_CLEAR = f"""
with {_TOUCHED}
delete from exception where kind = 'negative_stock' and subject in (select {_SUBJECT} from balance join touched using (identity))
"""  # noqa: S608 - made of the names above

# A balance is negative in effective time from the first instant at which all that was effective until then sums below zero, however the
# facts arrived.
_NEGATIVE = f"""
insert into exception
with {_TOUCHED}
select 'negative_stock', {_SUBJECT}, first.cause[1], first.cause[2], account,
       format('%%s %%s of %%s is the lowest balance at %%s, first below zero %%s', last.lowest, unit,
              concat_ws('/', item, nullif(lot, ''), nullif(serial, '')), account, to_char(last.since, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
       last.since, b.position
from touched join balance b using (identity)
cross join lateral (select lowest, since from instant i where i.identity = touched.identity order by effective_at desc limit 1) last
join instant first on (first.identity, first.effective_at) = (touched.identity, last.since)
"""  # noqa: S608 - made of the names above
