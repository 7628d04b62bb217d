"""People: who has access, under which name and in which roles, as the last change of each says. Tokens are not here (hub/security).

The last change is the one of the highest number, whatever clocks say. Facts about people are taken back by further facts alone: a retraction
from a source moves nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from events.base import Recorded
from events.security import AccessGranted, AccessRevoked, PersonRenamed
from hub.log.codec import receipt_key
from hub.log.follow import Cursor, enter, live_schema
from hub.security.register import Entry, folded
from projections.base import Rows, Table, TableView

CHANGE = Table(
    "change",
    {
        "fact": "uuid",
        "person": "text not null",
        "number": "bigint not null",
        "name": "text not null",
        "roles": "text[] not null",  # all that they have after it
        "effective_at": "timestamptz not null",
        "source": "text not null",
        "business_key": "text not null",
        "position": "bigint not null",
    },
    key=("fact",),
    indexes=("person, number", "position"),
)
PERSON = Table(
    "person",
    {
        "person": "text",
        "name": "text not null",
        "roles": "text[] not null",
        "since": "timestamptz not null",
        "changed_at": "timestamptz not null",
        "number": "bigint not null",
        "position": "bigint not null",
    },
    key=("person",),
)


class People(TableView):
    """Who has access: see the module's docstring."""

    name = "people"
    tables = (CHANGE, PERSON)

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """Changes."""
        yield CHANGE, (row for fact in facts for row in _changes(fact))

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """The people who changed, as they are now."""
        for statement in (_CLEAR, _WRITE):
            cursor.execute(statement, {"first": first, "last": last})


def people(cursor: Cursor) -> list[dict[str, Any]]:
    """Everybody in the live view, by name: person, name, roles (none: access has ended), since (the first grant), changed_at."""
    enter(cursor, live_schema(People.name))
    rows = cursor.execute('select person, name, roles, since, changed_at from person order by name collate "C", person').fetchall()
    return [dict(zip(("person", "name", "roles", "since", "changed_at"), row, strict=True)) for row in rows]


def register(cursor: Cursor) -> dict[str, Entry]:
    """Everybody in the live view, with all names that they ever had, as changes are decided by."""
    enter(cursor, live_schema(People.name))
    names: dict[str, set[str]] = {}
    for person, name in cursor.execute("select distinct person, name from change"):
        names.setdefault(person, set()).add(folded(name))
    rows = cursor.execute("select person, name, roles, number from person").fetchall()
    return {person: Entry(person, name, frozenset(roles), number, frozenset(names[person])) for person, name, roles, number in rows}


def _changes(fact: Recorded) -> Iterator[tuple[Any, ...]]:
    e, event = fact.envelope, fact.event
    if isinstance(event, AccessGranted | AccessRevoked | PersonRenamed):
        said = event.person, event.change, event.name, list(event.held)
        yield receipt_key(e.source, e.key), *said, e.effective_at, e.source, e.key, fact.position


_CLEAR = """
delete from person p using change c where c.position between %(first)s and %(last)s and p.person = c.person
"""

_WRITE = """
with touched as (select distinct person from change where position between %(first)s and %(last)s)
insert into person
select t.person, late.name, late.roles, early.effective_at, late.effective_at, late.number, greatest(early.position, late.position)
from touched t
cross join lateral (select * from change c where c.person = t.person
                    order by number, source collate "C", business_key collate "C" limit 1) early
cross join lateral (select * from change c where c.person = t.person
                    order by number desc, source collate "C" desc, business_key collate "C" desc limit 1) late
"""
