"""Stock as a double-entry ledger: movement lines in two clocks, balances by account, and the intervals in which a balance is negative.

Each movement is two lines of opposite sign, so the sum over all accounts is zero in every unit. A reversal adds the opposite lines at its
own effective time, a retraction (errorDeclaration) at the original's; either may come before its original, and several count once.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from events.base import Recorded
from hub.log.codec import receipt_key
from hub.log.follow import Cursor
from projections.base import EXCEPTION_TABLE, Table, TableView, insert
from projections.movements import OWN, movements
from projections.naming import subject_sql
from projections.undone import REVERSAL, keep_reversals

_IDENTITY = ("account", "status", "item", "lot", "serial", "unit")
_IDENTITY_SQL = ", ".join(_IDENTITY)

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
        **dict.fromkeys(_IDENTITY, "text not null"),
        "quantity": "numeric not null",
        "effective_at": "timestamptz not null",
    },
    key=("position", "line", "inverse"),
    indexes=("fact", "original", f"{_IDENTITY_SQL}, effective_at"),
)
BALANCE = Table(
    "balance",
    {**dict.fromkeys(_IDENTITY, "text"), "quantity": "numeric not null", "position": "bigint not null"},
    key=_IDENTITY,
    indexes=("item, lot",),
)


class Stock(TableView):
    """What is where: see the module's docstring."""

    name = "stock"
    tables = (MOVEMENT, BALANCE, REVERSAL, EXCEPTION_TABLE)

    def fold(self, cursor: Cursor, facts: Sequence[Recorded]) -> None:
        """Movement lines of the batch, the inverse lines of what is reversed, then balances and exceptions of what was touched."""
        window = {"first": facts[0].position, "last": facts[-1].position}
        more_reversals = keep_reversals(cursor, facts)
        insert(cursor, "movement", list(MOVEMENT.columns), (line for fact in facts for line in _lines(fact)))
        if more_reversals:
            cursor.execute(_TAKE_BACK, window)
        cursor.execute(_INVERT, window)
        cursor.execute(_BALANCE, window)
        cursor.execute(_NEGATIVE_CLEAR, window)
        cursor.execute(_NEGATIVE, {**window, "own": OWN + "%"})


def _lines(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    """Two rows of `movement` for each thing that a fact moves."""
    e = fact.envelope
    for n, m in enumerate(movements(fact.event)):
        identity = (m.item, m.lot, m.serial, m.unit)
        head = (False, receipt_key(e.source, e.key), None, e.source, e.key)
        yield fact.position, 2 * n, *head, m.source, m.source_status, *identity, -m.quantity, e.effective_at
        yield fact.position, 2 * n + 1, *head, m.target, m.target_status, *identity, m.quantity, e.effective_at


# Which of several reversals of one original counts is told by the reversals alone (projections/undone.py).
_COUNTS = """
  select distinct on (original) * from reversal join touched using (original)
  order by original, effective_at nulls first, business_key collate "C"
"""

# A reversal that comes later may count before the one that was inverted by: the lines of that one are taken back first.
_TAKE_BACK = f"""
with touched as (select distinct original from reversal where position between %(first)s and %(last)s),
counts as ({_COUNTS}),
gone as (delete from movement m using counts c where m.original = c.original and m.fact <> c.fact returning m.*),
total as (select {_IDENTITY_SQL}, sum(quantity) as quantity from gone group by {_IDENTITY_SQL})
update balance b set quantity = trim_scale(b.quantity - total.quantity) from total
where ({", ".join("b." + name for name in _IDENTITY)}) = ({", ".join("total." + name for name in _IDENTITY)})
"""  # noqa: S608 - made of the names above

_INVERT = f"""
with touched as (
  select original from reversal where position between %(first)s and %(last)s
  union
  select r.original from movement m join reversal r on r.original = m.fact
  where m.position between %(first)s and %(last)s and not m.inverse),
counts as ({_COUNTS})
insert into movement
select greatest(c.position, m.position), m.line, true, c.fact, c.original, c.source, c.business_key,
       {", ".join("m." + n for n in _IDENTITY)}, -m.quantity, coalesce(c.effective_at, m.effective_at)
from counts c join movement m on m.fact = c.original and not m.inverse
where not exists (select from movement i where i.original = c.original and i.line = m.line)
"""  # noqa: S608 - made of the names above

_BALANCE = f"""
insert into balance as b
select {_IDENTITY_SQL}, trim_scale(sum(quantity)), max(position) from movement
where position between %(first)s and %(last)s group by {_IDENTITY_SQL}
on conflict ({_IDENTITY_SQL}) do update set quantity = trim_scale(b.quantity + excluded.quantity), position = excluded.position
"""  # noqa: S608 - made of the names above

_SUBJECT = subject_sql(*_IDENTITY, separator="|")

_NEGATIVE_CLEAR = f"""
delete from exception where kind = 'negative_stock' and subject in
  (select {_SUBJECT} from movement where position between %(first)s and %(last)s)
"""  # noqa: S608 - made of the names above

# A balance is negative in effective time from the first instant at which all that was effective until then sums below zero, however the
# facts arrived; movements of one instant count together.
_NEGATIVE = f"""
insert into exception
with touched as (select distinct {_IDENTITY_SQL} from movement where position between %(first)s and %(last)s and account like %(own)s),
instant as (select {_IDENTITY_SQL}, effective_at, sum(quantity) as delta, max(position) as position,
                   min(array[source, business_key] collate "C") filter (where quantity < 0) as cause
            from movement join touched using ({_IDENTITY_SQL}) group by {_IDENTITY_SQL}, effective_at),
running as (select *, sum(delta) over w as total, max(position) over (partition by {_IDENTITY_SQL}) as last
            from instant window w as (partition by {_IDENTITY_SQL} order by effective_at)),
low as (select {_IDENTITY_SQL}, last, min(effective_at) as since, min(total) as lowest
        from running where total < 0 group by {_IDENTITY_SQL}, last)
select 'negative_stock', {_SUBJECT}, running.cause[1], running.cause[2], account,
       format('%%s %%s of %%s is the lowest balance at %%s, first below zero %%s', trim_scale(lowest), unit,
              concat_ws('/', item, nullif(lot, ''), nullif(serial, '')), account, to_char(since, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
       since, low.last
from low join running using ({_IDENTITY_SQL}) where running.effective_at = low.since
"""  # noqa: S608 - made of the names above
