"""Postings: what each target was to be told, how far that is, and what a person must decide.

The state of a posting is a function of the set of its facts: skipped or verified settle it; otherwise the last attempt speaks (accepted, rejected,
unknown, sent; one that never left or was answered by a retry counts as intended again), unless more holds than resumptions stop it. A
lane is in the order of its intents' positions, so `place` is technical.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from events import canonical
from events.base import Recorded
from events.posting import (
    PostingAccepted,
    PostingHeld,
    PostingIntended,
    PostingOutcomeUnknown,
    PostingRejected,
    PostingResumed,
    PostingRetried,
    PostingSent,
    PostingSkipped,
    PostingUnsent,
    PostingVerified,
)
from hub.log.codec import receipt_key
from hub.log.follow import Cursor
from projections.base import EXCEPTION_TABLE, Rows, Table, TableView
from projections.naming import subject_sql

INTENT = Table(
    "intent",
    {
        "fact": "uuid",
        "posting": "text not null",
        "source": "text not null",
        "business_key": "text not null",
        "target": "text not null",
        "lane": "text not null",
        "document": "text not null",
        "body": "text not null",  # canonical JSON
        "because_source": "text not null",
        "because_key": "text not null",
        "effective_at": "timestamptz not null",
        "position": "bigint not null",
    },
    key=("fact",),
    indexes=("posting", "position"),
)
STEP = Table(
    "step",
    {
        "fact": "uuid",
        "posting": "text not null",
        "step": "text not null",
        "number": "int not null",  # attempt, or which hold; 0 where there is only one
        "document_id": "text not null",
        "reason": "text not null",
        "actor": "text not null",
        "at": "timestamptz not null",  # the hub's clock
        "position": "bigint not null",
    },
    key=("fact",),
    technical=("position", "at"),
    indexes=("posting", "position"),
)
POSTING = Table(
    "posting",
    {
        "posting": "text",
        "target": "text not null",
        "lane": "text not null",
        "document": "text not null",
        "place": "bigint not null",
        "state": "text not null",  # intended | sent | unknown | rejected | accepted | held | verified | skipped
        "open": "boolean not null",
        "attempt": "int not null",
        "holds": "int not null",
        "document_id": "text not null",
        "reason": "text not null",
        "effective_at": "timestamptz not null",
        "since": "timestamptz not null",  # when it came into this state, by the hub's clock
        "position": "bigint not null",
    },
    key=("posting",),
    technical=("position", "place", "since"),
    indexes=("open, target, lane, place",),
)

_STEPS = {
    PostingSent: "sent", PostingUnsent: "unsent", PostingAccepted: "accepted", PostingRejected: "rejected", PostingOutcomeUnknown: "unknown",
    PostingVerified: "verified", PostingRetried: "retried", PostingHeld: "held", PostingResumed: "resumed", PostingSkipped: "skipped",
}  # fmt: skip


class Postings(TableView):
    """The posting ledger: see the module's docstring."""

    name = "postings"
    tables = (INTENT, STEP, POSTING, replace(EXCEPTION_TABLE, technical=("position", "first_seen")))

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """Intents and steps."""
        yield INTENT, (row for fact in facts for row in _intents(fact))
        yield STEP, (row for fact in facts for row in _steps(fact))

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """The state of each posting that was touched, and its exception."""
        for statement in (_STATE, _CLEAR, _TO_DECIDE):
            cursor.execute(statement, {"first": first, "last": last})


def heads(cursor: Cursor, target: str) -> list[dict[str, Any]]:
    """The first posting of each lane of a target that is not settled, in the live view, with its body."""
    names = ("posting", "lane", "document", "state", "attempt", "document_id", "holds", "body", "position")
    cursor.execute(
        """select p.posting, p.lane, p.document, state, attempt, document_id, holds, body, p.position
           from (select distinct on (lane) * from view_postings.posting where open and target = %s order by lane, place) p
           join view_postings.intent i on (i.posting, i.position) = (p.posting, p.place) order by place""",
        [target],
    )
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def listed(cursor: Cursor, *, target: str = "", state: str = "", settled: bool = False) -> list[dict[str, Any]]:
    """Postings of the live view in the order of their intents: open ones, or all."""
    names = ("posting", "target", "lane", "document", "state", "attempt", "document_id", "reason", "effective_at", "since", "position")
    cursor.execute(
        f"""select {", ".join(names)} from view_postings.posting
            where (%(settled)s or open) and (%(target)s = '' or target = %(target)s) and (%(state)s = '' or state = %(state)s)
            order by place""",  # noqa: S608 - the columns named above
        {"target": target, "state": state, "settled": settled},
    )
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def told(cursor: Cursor, posting: str) -> list[dict[str, Any]]:
    """All that happened to a posting after its intent, in the order of the log."""
    names = ("position", "step", "number", "document_id", "reason", "actor", "at")
    cursor.execute(f"select {', '.join(names)} from view_postings.step where posting = %s order by position", [posting])  # noqa: S608
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _intents(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    e, event = fact.envelope, fact.event
    if isinstance(event, PostingIntended):
        body = canonical.dumps(event.body).decode()
        yield (
            receipt_key(e.source, e.key), event.posting, e.source, e.key, event.target, event.lane, event.document, body, event.because_source, event.because_key,
            e.effective_at, fact.position,
        )  # fmt: skip


def _steps(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    e, event = fact.envelope, fact.event
    if (step := _STEPS.get(type(event))) is not None:
        said: Any = event
        number = getattr(said, "attempt", getattr(said, "number", 0))
        yield (
            receipt_key(e.source, e.key), said.posting, step, number, getattr(said, "document_id", ""), getattr(said, "reason", ""),
            e.actor or "", e.effective_at, fact.position,
        )  # fmt: skip


_TOUCHED = """touched as (
  select posting from intent where position between %(first)s and %(last)s
  union select posting from step where position between %(first)s and %(last)s)"""

# Of an attempt the weightiest word counts: an answer after all stands above "unknown", and what the target has it has.
_STATE = f"""
with {_TOUCHED},
said as (select s.*, case step when 'sent' then 1 when 'unknown' then 2 when 'unsent' then 3 when 'rejected' then 4 when 'retried' then 5
                              when 'accepted' then 6 end as weight
         from step s join touched using (posting)),
meant as (select distinct on (posting) i.* from intent i join touched using (posting)
          order by posting, effective_at, source collate "C", business_key collate "C"),
attempt as (select distinct on (posting) * from said where weight is not null order by posting, weight = 6 desc, number desc, weight desc, fact),
hold as (select distinct on (posting) * from said where step = 'held' order by posting, number desc, fact),
total as (select posting, max(position) as position, max(at) as at, bool_or(step = 'skipped') as skipped, bool_or(step = 'verified') as verified,
                 coalesce(max(number) filter (where step = 'resumed'), 0) as resumed,
                 max(document_id collate "C") filter (where step in ('accepted', 'verified')) as document_id
          from said group by posting),
latest as (select posting, max(position) as position from intent join touched using (posting) group by posting),
state as (
  select m.posting, m.target, m.lane, m.document, m.position as place, coalesce(a.number, 0) as attempt, coalesce(h.number, 0) as holds,
         coalesce(t.document_id, '') as document_id, m.effective_at, coalesce(t.at, m.effective_at) as since,
         greatest(l.position, t.position) as position, coalesce(a.reason, '') as reason, coalesce(h.reason, '') as hold,
         case when t.skipped then 'skipped' when t.verified then 'verified' when h.number > t.resumed then 'held'
              when a.step is null or a.step in ('unsent', 'retried') then 'intended' else a.step end as state
  from meant m join latest l using (posting) left join attempt a using (posting) left join hold h using (posting)
    left join total t using (posting))
insert into posting
select posting, target, lane, document, place, state, state not in ('verified', 'skipped'), attempt, holds, document_id,
       case when state = 'held' then hold when state in ('verified', 'skipped', 'accepted') then '' else reason end, effective_at, since, position
from state
on conflict (posting) do update set target = excluded.target, lane = excluded.lane, document = excluded.document, place = excluded.place,
  state = excluded.state, open = excluded.open, attempt = excluded.attempt, holds = excluded.holds, document_id = excluded.document_id,
  reason = excluded.reason, effective_at = excluded.effective_at, since = excluded.since, position = excluded.position
"""  # noqa: S608 - made of the names above

_SUBJECT = subject_sql("posting")

_CLEAR = f"""
with {_TOUCHED}, subject as (select {_SUBJECT} as name from touched)
delete from exception using subject s where kind in ('posting_rejected', 'posting_held') and subject = s.name
"""  # noqa: S608 - made of the names above

_TO_DECIDE = f"""
insert into exception
with {_TOUCHED}
select 'posting_' || p.state, {subject_sql("p.posting")}, i.source, i.business_key, p.document || ' for ' || p.target,
       case p.state when 'rejected' then format('%%s does not take it: %%s', p.target, p.reason) else format('held: %%s', p.reason) end,
       p.since, p.position
from touched join posting p using (posting) join intent i on (i.posting, i.position) = (p.posting, p.place)
where p.state in ('rejected', 'held')
"""  # noqa: S608 - made of the names above
