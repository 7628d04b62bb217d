"""Stock as a double-entry ledger: movement lines in two clocks, balances by account, and the intervals in which a balance is negative.

Each movement is two lines of opposite sign, so the sum over all accounts is zero in every unit. A reversal adds the opposite lines at its own
effective time, a retraction (errorDeclaration) at the original's; both work whichever of the two facts comes first.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from events.base import Recorded
from events.integration import FactRetracted
from events.inventory import MovementReversed
from hub.log.follow import Cursor
from projections.base import EXCEPTION_TABLE, Table, TableView, insert
from projections.movements import OWN, movements

_IDENTITY = ("account", "status", "item", "lot", "serial", "unit")
_IDENTITY_SQL = ", ".join(_IDENTITY)

MOVEMENT = Table(
    "movement",
    {
        "position": "bigint",
        "line": "int",
        "inverse": "boolean",
        "source": "text not null",
        "business_key": "text not null",
        **{name: "text not null" for name in _IDENTITY},
        "quantity": "numeric not null",
        "effective_at": "timestamptz not null",
    },
    key=("position", "line", "inverse"),
    indexes=("source, business_key", f"{_IDENTITY_SQL}, effective_at"),
)
BALANCE = Table(
    "balance",
    {**{name: "text" for name in _IDENTITY}, "quantity": "numeric not null", "position": "bigint not null"},
    key=_IDENTITY,
    indexes=("item, lot",),
)
REVERSAL = Table(
    "reversal",
    {
        "source": "text",
        "original": "text",
        "business_key": "text not null",
        "effective_at": "timestamptz",  # null: as of the original's own time
        "position": "bigint not null",
    },
    key=("source", "original"),
    indexes=("position",),
)


class Stock(TableView):
    """What is where: see the module's docstring."""

    name = "stock"
    tables = (MOVEMENT, BALANCE, REVERSAL, EXCEPTION_TABLE)

    def fold(self, cursor: Cursor, facts: Sequence[Recorded]) -> None:
        """Movement lines of the batch, the inverse lines of what is reversed, then balances and exceptions of what was touched."""
        first, last = facts[0].position, facts[-1].position
        insert(cursor, "reversal", list(REVERSAL.columns), filter(None, map(_reversal, facts)), ignore_known=True)
        insert(cursor, "movement", list(MOVEMENT.columns), (line for fact in facts for line in _lines(fact)))
        cursor.execute(_INVERT, {"first": first, "last": last})
        cursor.execute(_BALANCE, {"first": first, "last": last})
        cursor.execute(_NEGATIVE_CLEAR, {"first": first, "last": last})
        cursor.execute(_NEGATIVE, {"first": first, "last": last, "own": OWN + "%"})


def _lines(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    """Two rows of `movement` for each thing that a fact moves."""
    e = fact.envelope
    for n, m in enumerate(movements(fact.event)):
        identity = (m.item, m.lot, m.serial, m.unit)
        head = (False, e.source, e.key)
        yield fact.position, 2 * n, *head, m.source, m.source_status, *identity, -m.quantity, e.effective_at
        yield fact.position, 2 * n + 1, *head, m.target, m.target_status, *identity, m.quantity, e.effective_at


def _reversal(fact: Recorded) -> tuple[Any, ...] | None:
    e = fact.envelope
    if isinstance(fact.event, MovementReversed):
        return e.source, fact.event.original, e.key, e.effective_at, fact.position
    if isinstance(fact.event, FactRetracted):
        return e.source, fact.event.original, e.key, None, fact.position
    return None


_INVERT = """
insert into movement
select greatest(r.position, m.position), m.line, true, r.source, r.business_key, m.account, m.status, m.item, m.lot, m.serial, m.unit,
       -m.quantity, coalesce(r.effective_at, m.effective_at)
from reversal r join movement m on (m.source, m.business_key) = (r.source, r.original) and not m.inverse
where r.position between %(first)s and %(last)s or m.position between %(first)s and %(last)s
"""

_BALANCE = f"""
insert into balance as b
select {_IDENTITY_SQL}, trim_scale(sum(quantity)), max(position) from movement
where position between %(first)s and %(last)s group by {_IDENTITY_SQL}
on conflict ({_IDENTITY_SQL}) do update set quantity = trim_scale(b.quantity + excluded.quantity), position = excluded.position
"""  # noqa: S608

_SUBJECT = "concat_ws('|', account, status, item, lot, serial, unit)"

_NEGATIVE_CLEAR = f"""
delete from exception where kind = 'negative_stock' and subject in
  (select {_SUBJECT} from movement where position between %(first)s and %(last)s)
"""  # noqa: S608

# A balance is negative in effective time from the first instant at which all that was effective until then sums below zero, however the
# facts arrived; movements of one instant count together.
_NEGATIVE = f"""
insert into exception
with touched as (select distinct {_IDENTITY_SQL} from movement where position between %(first)s and %(last)s and account like %(own)s),
instant as (select {_IDENTITY_SQL}, effective_at, sum(quantity) as delta, max(position) as position,
                   min(array[source, business_key]) filter (where quantity < 0) as cause
            from movement join touched using ({_IDENTITY_SQL}) group by {_IDENTITY_SQL}, effective_at),
running as (select *, sum(delta) over w as total, max(position) over (partition by {_IDENTITY_SQL}) as last
            from instant window w as (partition by {_IDENTITY_SQL} order by effective_at)),
low as (select {_IDENTITY_SQL}, last, min(effective_at) as since, min(total) as lowest from running where total < 0 group by {_IDENTITY_SQL}, last)
select 'negative_stock', {_SUBJECT}, running.cause[1], running.cause[2], account,
       format('%%s %%s of %%s is the lowest balance at %%s, first below zero %%s', trim_scale(lowest), unit,
              concat_ws('/', item, nullif(lot, ''), nullif(serial, '')), account, to_char(since, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
       since, low.last
from low join running using ({_IDENTITY_SQL}) where running.effective_at = low.since
"""  # noqa: S608
