"""What all process managers share: instances whose state is a fold over the facts that concern them, and the decisions that follow.

A process is four pure functions: which instance a fact starts and by which names it may concern one (`starts`, `refs`), what it changes
(`evolve`), what then is to happen (`decide`), and until when at the latest something must (`wakes`). A fact that concerns nobody yet waits under
its names; when an instance answers to one of them, it is applied there. A decision is a fact with a key of its own: the row here says that it
follows from the log, `decider.py` appends it, and the log takes it once. So a rebuild decides the same again and changes nothing outside.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from events.base import Event, Recorded
from hub.log.codec import COLUMNS, decode
from hub.log.follow import Cursor
from projections.base import EXCEPTION_TABLE, Rows, Table, TableView

CHUNK = 500  # facts that are applied together
S = TypeVar("S", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Decision:
    """A fact that is to be: `key` names it within its instance for ever, whatever leads to it again."""

    key: str
    event: Event
    effective_at: datetime


@dataclass(frozen=True, slots=True)
class ToDecide:
    """Something a person must decide, as long as the state says so: `subject` names it within the instance."""

    kind: str
    subject: str
    source: str
    business_key: str
    place: str
    reason: str
    since: datetime


class Process(ABC, Generic[S]):
    """One process manager; everything here is pure. `version` is that of its rules, and stands in what it decides."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    state: type[S]

    @abstractmethod
    def starts(self, event: Event) -> Iterable[str]:
        """The instances that a fact begins, if they are not there."""

    @abstractmethod
    def refs(self, event: Event) -> Iterable[str]:
        """Names by which a fact may concern an instance that another one began."""

    def names(self, state: S) -> Iterable[str]:
        """The names that an instance answers to."""
        return ()

    @abstractmethod
    def evolve(self, state: S, fact: Recorded) -> None:
        """Change the state by a fact."""

    @abstractmethod
    def decide(self, state: S, fact: Recorded) -> Iterable[Decision]:
        """What follows from the state that the fact led to. What was decided before may be said again: it is one decision by its key."""

    def wakes(self, state: S) -> Mapping[str, datetime]:
        """By which time at the latest something must happen, by the name of what is waited for."""
        return {}

    def to_decide(self, state: S) -> Iterable[ToDecide]:
        """What a person must decide now."""
        return ()


INPUT = Table(
    "input",
    {"position": "bigint", "ref": "text", "starts": "boolean not null"},
    key=("position", "ref"),
    technical=("position",),
    indexes=("md5(ref), position",),
)
NAMED = Table("named", {"ref": "text", "instance": "text", "position": "bigint not null"}, key=("ref", "instance"))
APPLIED = Table(  # an instance's history: the fact, and when it was known whom it concerns
    "applied",
    {"instance": "text", "fact": "bigint", "position": "bigint not null"},
    key=("instance", "fact"),
    technical=("fact", "position"),
    indexes=("fact",),
)
STATE = Table("state", {"instance": "text", "said": "text not null", "position": "bigint not null"}, key=("instance",))
DECISION = Table(
    "decision",
    {
        "instance": "text",
        "key": "text",
        "n": "int not null",  # within its position
        "type": "text not null",
        "schema_version": "int not null",
        "data": "text not null",  # canonical JSON
        "effective_at": "timestamptz not null",
        "because": "bigint not null",  # position of the fact that led to it
        "rules": "int not null",
        "position": "bigint not null",
    },
    key=("instance", "key"),
    technical=("n", "because", "position"),
    indexes=("position, n",),
)
WAKE = Table(
    "wake",
    {"instance": "text", "what": "text", "at": "timestamptz not null", "position": "bigint not null"},
    key=("instance", "what"),
    indexes=("at",),
)


class Workflow(TableView):
    """The view that a process is kept in."""

    tables = (INPUT, NAMED, APPLIED, STATE, DECISION, WAKE, EXCEPTION_TABLE)
    by_arrival = True

    def __init__(self, process: Process[Any]) -> None:
        self.process, self.name = process, process.name

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """Under which names facts may concern an instance."""
        yield INPUT, (row for fact in facts for row in self._inputs(fact))

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """Apply the facts of these positions, one after the other."""
        while True:
            query = "select distinct position from input where position between %s and %s order by position limit %s"
            positions = [position for (position,) in cursor.execute(query, [first, last, CHUNK])]
            if not positions:
                return
            _Chunk(cursor, self.process, positions).apply()
            first = positions[-1] + 1

    def _inputs(self, fact: Recorded) -> Iterator[tuple[Any, ...]]:
        starts = set(self.process.starts(fact.event))
        for ref in sorted(starts | set(self.process.refs(fact.event))):
            yield fact.position, ref, ref in starts


class _Chunk:
    """Facts in their order, the states that they concern, and what comes of it."""

    def __init__(self, cursor: Cursor, process: Process[Any], positions: Sequence[int]) -> None:
        self._cursor, self._process = cursor, process
        self._facts = self._read(positions)
        self._refs: dict[int, list[tuple[str, bool]]] = {}
        for position, ref, starts in cursor.execute(
            "select position, ref, starts from input where position = any(%s) order by position, ref", [list(positions)]
        ):
            self._refs.setdefault(position, []).append((ref, starts))
        asked = sorted({ref for refs in self._refs.values() for ref, _ in refs})
        self._instances: dict[str, set[str]] = {}
        for ref, instance in cursor.execute("select ref, instance from named where ref = any(%s)", [asked]):
            self._instances.setdefault(ref, set()).add(instance)
        wanted = sorted({instance for found in self._instances.values() for instance in found} | set(asked))
        query = "select instance, said from state where instance = any(%s)"
        self._states: dict[str, Any] = {}
        self._at: dict[str, int] = {}  # by instance that was touched: the last position
        for instance, said in cursor.execute(query, [wanted]).fetchall():
            self._states[instance] = msgspec.json.decode(said, type=process.state)
        self._answers = {instance: set(process.names(state)) for instance, state in self._states.items()}
        self._named: list[tuple[str, str, int]] = []
        self._applied: dict[tuple[str, int], int] = {}
        query = "select instance, fact from applied where instance = any(%s) and fact = any(%s)"
        self._known = set(cursor.execute(query, [wanted, list(positions)]).fetchall())
        self._decisions: dict[tuple[str, str], tuple[Any, ...]] = {}

    def apply(self) -> None:
        """Apply all, and write what changed."""
        for position, refs in self._refs.items():
            for instance in self._concerned(refs):
                self._apply(instance, self._facts[position], position)
        self._write()

    def _concerned(self, refs: Sequence[tuple[str, bool]]) -> list[str]:
        found: dict[str, None] = {}
        for ref, starts in refs:
            if starts:
                self._states.setdefault(ref, self._process.state())
            if ref in self._states:
                found[ref] = None
            for instance in sorted(self._instances.get(ref, ())):
                found[instance] = None
        return list(found)

    def _apply(self, instance: str, fact: Recorded, at: int) -> None:
        key = (instance, fact.position)
        if key in self._applied or key in self._known:
            return
        self._applied[key] = at
        state = self._states[instance]
        self._process.evolve(state, fact)
        self._at[instance] = at
        for n, one in enumerate(self._process.decide(state, fact)):
            row = (one.event.type, one.event.version, one.event.json().decode(), one.effective_at, fact.position, self._process.version, at)
            self._decisions.setdefault((instance, one.key), (n, *row))
        answers = set(self._process.names(state))
        for ref in sorted(answers - self._answers.setdefault(instance, set())):
            self._answers[instance].add(ref)
            self._instances.setdefault(ref, set()).add(instance)
            self._named.append((ref, instance, at))
            query = "select position from input where md5(ref) = md5(%s) and ref = %s and position <= %s order by position"
            waiting = [position for (position,) in self._cursor.execute(query, [ref, ref, at])]
            query = "select instance, fact from applied where instance = %s and fact = any(%s)"
            self._known |= set(self._cursor.execute(query, [instance, waiting]).fetchall())
            waiting = [position for position in waiting if (instance, position) not in self._known]
            facts = self._facts | self._read([position for position in waiting if position not in self._facts])
            for position in waiting:
                self._apply(instance, facts[position], at)

    def _read(self, positions: Sequence[int]) -> dict[int, Recorded]:
        if not positions:
            return {}
        query = f"select {COLUMNS} from log.event where position = any(%s)"  # noqa: S608 - constant
        found = [decode(row) for row in self._cursor.execute(query, [list(positions)], binary=True)]
        return {fact.position: fact for fact in found}

    def _write(self) -> None:
        cursor, process = self._cursor, self._process
        touched = sorted(self._at)
        cursor.executemany(
            "insert into state values (%s, %s, %s) on conflict (instance) do update set said = excluded.said, position = excluded.position",
            [(instance, msgspec.json.encode(self._states[instance]).decode(), self._at[instance]) for instance in touched],
        )
        cursor.executemany("insert into named values (%s, %s, %s) on conflict do nothing", self._named)
        cursor.executemany("insert into applied values (%s, %s, %s)", [(*key, at) for key, at in self._applied.items()])
        cursor.executemany(
            "insert into decision values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
            [(*key, *row) for key, row in self._decisions.items()],
        )
        cursor.execute("delete from wake where instance = any(%s)", [touched])
        cursor.executemany(
            "insert into wake values (%s, %s, %s, %s)",
            [(one, what, at, self._at[one]) for one in touched for what, at in sorted(process.wakes(self._states[one]).items())],
        )
        cursor.execute("delete from exception where place = any(%s)", [[f"{process.name} {one}" for one in touched]])
        cursor.executemany(
            "insert into exception values (%s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (one.kind, f"{instance}/{one.subject}", one.source, one.business_key, f"{process.name} {instance}", one.reason, one.since, self._at[instance])
                for instance in touched
                for one in process.to_decide(self._states[instance])
            ],
        )  # fmt: skip
