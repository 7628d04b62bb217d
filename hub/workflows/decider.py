"""The decider: appends what processes have decided, each decision once, and says when a time that an instance waits for has come.

How far it is lies beside the log (`intake.decided`), not in the view: after a rebuild was promoted nothing is decided again, and what the new
code would have decided otherwise of the past is listed (`left_out`), not done.
"""

import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import psycopg
from psycopg import sql

from events.base import Envelope, Fact, event_class
from events.errors import Corrupt, Unavailable
from events.workflow import WorkflowWoken
from hub import limits
from hub.backoff import Backoff
from hub.log.codec import receipt_key
from hub.log.follow import live_schema
from hub.log.store import Conflict, Result
from hub.points import reach

Row = tuple[Any, ...]
_DECIDED = """select d.instance, d.key, d.type, d.data, d.effective_at, d.rules, d.position, e.source, e.business_key, e.occurred_at
              from {}.decision d join log.event e on e.position = d.because"""

# a decider that was paused must not move it back: what it appends then is there already
_MOVE = """insert into intake.decided as d values (%s, %s)
           on conflict (process) do update set position = greatest(d.position, excluded.position)"""


class Appender(Protocol):
    """Where facts go."""

    def append(self, facts: list[Fact]) -> list[Result]: ...


class Decider:
    """The decider of one process. `step()` for tests."""

    def __init__(self, url: str, name: str, log: Appender, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.process, self._url, self._log, self._now = name, url, log, now
        self._schema = sql.Identifier(live_schema(name))
        self._connection: psycopg.Connection[Row] | None = None

    @property
    def name(self) -> str:
        return f"decides {self.process}"

    def step(self) -> int:
        """Append what was decided since the last time, and what has become due; how many facts. Raises `Unavailable`."""
        try:
            connection = self._connected()
            rows = connection.execute(
                sql.SQL(_DECIDED + " where d.position > %s order by d.position, d.n limit %s").format(self._schema),
                [self._mark(connection), limits.FOLLOW_BATCH_MAX],
            ).fetchall()
            if rows:
                self._append([_fact(self.process, row) for row in rows])
                reach("decided")
                whole = rows if len(rows) < limits.FOLLOW_BATCH_MAX else [row for row in rows if row[6] < rows[-1][6]]
                if not whole:
                    raise Corrupt(f"{self.process} decided more than {limits.FOLLOW_BATCH_MAX} facts at position {rows[-1][6]}")
                connection.execute(_MOVE, [self.process, whole[-1][6]])
            if woken := self._woken(connection):
                self._append(woken)
            return len(rows) + len(woken)
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            self.close()
            raise Unavailable(f"{self.name}: the database cannot be reached, or the view is being swapped: {error}") from error

    def run(self, stop: threading.Event, report: Callable[[str], None]) -> None:
        """Step until `stop` is set."""
        backoff = Backoff(self.name, report)
        while not stop.is_set():
            try:
                made = self.step()
            except Unavailable as error:
                backoff.wait(stop, f"{self.name} waits", error)
                continue
            backoff.over()
            if not made:
                stop.wait(limits.DECIDE_POLL_S)
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def left_out(self) -> list[dict[str, Any]]:
        """The sweep: decisions of the view that the log does not have, though the decider is beyond them."""
        connection = self._connected()
        rows = connection.execute(
            sql.SQL(_DECIDED + " where d.position <= %s order by d.position, d.n").format(self._schema), [self._mark(connection)]
        ).fetchall()
        missing = _missing(connection, [_fact(self.process, row) for row in rows])
        return [
            {"process": self.process, "instance": row[0], "key": row[1], "type": row[2], "because": row[8], "data": json.loads(row[3])}
            for row, fact in zip(rows, missing, strict=True)
            if fact is not None
        ]

    def _connected(self) -> psycopg.Connection[Row]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._url, autocommit=True, application_name=f"hub {self.name}")
        return self._connection

    def _mark(self, connection: psycopg.Connection[Row]) -> int:
        row = connection.execute("select position from intake.decided where process = %s", [self.process]).fetchone()
        return int(row[0]) if row else 0

    def _append(self, facts: list[Fact]) -> None:
        for fact, result in zip(facts, self._log.append(facts), strict=True):
            if isinstance(result, Conflict):
                raise Corrupt(
                    f"{self.process} decided {fact.envelope.key} otherwise than the log has it at position {result.position}: two versions of its "
                    "rules are at work, or a rule is not pure; stop the older hub, or see `hub events trace`"
                )

    def _woken(self, connection: psycopg.Connection[Row]) -> list[Fact]:
        now = self._now()
        rows = connection.execute(
            sql.SQL("select instance, what, at from {}.wake where at <= %s order by at, instance, what limit %s").format(self._schema),
            [now, limits.FOLLOW_BATCH_MAX],
        ).fetchall()
        facts = [
            Fact(
                Envelope(
                    source=f"workflow:{self.process}",
                    key=f"woken/{instance}/{what}/{at.isoformat()}"[:600],
                    occurred_at=at,
                    effective_at=at,
                    correlation=instance[:200],
                    actor=f"workflow:{self.process}",
                ),
                WorkflowWoken(process=self.process, instance=instance, what=what, at=at),
            )
            for instance, what, at in rows
        ]
        return [fact for fact in _missing(connection, facts) if fact is not None]  # what is there the view does not know yet


def _missing(connection: psycopg.Connection[Row], facts: Sequence[Fact]) -> list[Fact | None]:
    """The facts; None in the place of each that the log has."""
    keys = [receipt_key(fact.envelope.source, fact.envelope.key) for fact in facts]
    there = {key for (key,) in connection.execute("select key from log.event where key = any(%s)", [keys])} if keys else set()
    return [None if key in there else fact for key, fact in zip(keys, facts, strict=True)]


def _fact(process: str, row: Row) -> Fact:
    instance, key, type_, data, effective_at, rules, _, source, because, occurred_at = row
    envelope = Envelope(
        source=f"workflow:{process}",
        key=f"{instance}/{key}"[:600],
        occurred_at=occurred_at,
        effective_at=effective_at,
        correlation=instance[:200],
        causation=f"{source} {because}"[:200],
        actor=f"workflow:{process}",
        mapping=f"{process}/{rules}",
    )
    return Fact(envelope, event_class(type_).of(json.loads(data)))
