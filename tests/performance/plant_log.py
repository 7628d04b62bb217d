"""A log as long as one likes of what the demo's plant says, and the same facts in typed columns, as the peers of the views' rows read them.

Each story is a plan of the simulated plant with numbers of its own, mapped by the shipped mappings, in the order in which it is sent; all
share items, partners and places. Repeats and conflicts become of it what the door makes of them.
"""

import multiprocessing
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import sql

from events.base import Fact, Recorded
from events.vocabulary import sscc18
from hub.app.demo.plant.plan import PARTS, follow_seed, plan
from hub.app.wiring import mappings
from hub.intake.delivery import Delivery
from hub.intake.door import Intake
from hub.log.codec import Row, encode, receipt_key, row_of
from hub.log.store import Accepted, Conflict, Duplicate, Log, Result
from projections.genealogy import Genealogy
from projections.movements import movements
from projections.naming import identity
from tests.facts import START, as_role

ORDERS = 40  # of a story, some 2,000 facts
_CHUNK = 5000

# What the views' tables are made of, one row a thing moved, edge, object named, …, keys and names' identities worked out beforehand.
TYPED = {
    "moved": """line int, fact uuid, source text, business_key text, from_account text, from_status text, to_account text,
                to_status text, item text, lot text, serial text, unit text, quantity numeric, effective_at timestamptz,
                from_identity uuid, to_identity uuid, position bigint""",
    "reversed": """original uuid, fact uuid, source text, original_key text, business_key text, effective_at timestamptz, position bigint""",
    "edge": """fact uuid, line int, from_kind text, from_id text, to_kind text, to_id text, kind text, quantity numeric, unit text,
               effective_at timestamptz, type text, position bigint""",
    "emptied": "fact uuid, kind text, id text, effective_at timestamptz, position bigint",
    "mention": """kind text, id text, fact uuid, role text, type text, effective_at timestamptz, equipment text, operation text, raw text,
                  printed text, position bigint""",  # printed: how labels and notices write it
    "content": "fact uuid, line int, kind text, id text, item text, quantity numeric, unit text, position bigint",
    "traced": "kind text, id text, item text, name text, position bigint",
    "held": "entry uuid, format text, raw text, refused uuid, position bigint",
    "settled": "entry uuid, position bigint",
}


def write(owner_url: str, stories: int) -> int:
    """Fill an empty log and the typed tables of schema `typed`; how many facts there are."""
    head = 0
    with (
        Log(as_role(owner_url, "hub_door")) as log,
        psycopg.connect(owner_url) as owner,
        multiprocessing.get_context("fork").Pool(2) as pool,
    ):
        owner.execute("create schema typed; grant usage on schema typed to hub_follow")
        for name, columns in TYPED.items():
            owner.execute(f"create table typed.{name} ({columns})".encode())
        for rows, typed in pool.imap(_story, range(stories)):
            for start in range(0, len(rows), _CHUNK):
                log.append_rows(rows[start : start + _CHUNK])
            for name, found in typed.items():
                copy_rows(owner, sql.Identifier("typed", name), ((*row[:-1], head + row[-1]) for row in found))
            head += len(rows)
            assert log.head() == head
        owner.execute("grant select on all tables in schema typed to hub_follow")
        owner.commit()
        owner.autocommit = True
        owner.execute("vacuum analyze")
    return head


def copy_rows(connection: psycopg.Connection[Any], table: sql.Identifier, rows: Iterator[Sequence[Any]]) -> None:
    """Add rows to a table."""
    with connection.cursor().copy(sql.SQL("copy {} from stdin").format(table)) as copy:
        for row in rows:
            copy.write_row(row)


class _Door:
    """What intake needs of a log, in memory: the facts that a log would accept."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.facts: list[Fact] = []
        self._known: dict[bytes, tuple[int, bytes]] = {}

    def append(self, facts: Sequence[Fact]) -> list[Result]:
        return [self._append(fact, encode(row_of(fact))) for fact in facts]

    def _append(self, fact: Fact, row: Row) -> Result:
        if row.key not in self._known:
            self.rows.append(row)
            self.facts.append(fact)
            self._known[row.key] = len(self.rows), row.digest
            return Accepted(len(self.rows))
        position, digest = self._known[row.key]
        return Duplicate(position) if digest == row.digest else Conflict(position, digest, row.digest)

    def keep(self, deliveries: object) -> None: ...
    def flush(self) -> None: ...
    def count_again(self, keys: object) -> None: ...


def _story(n: int) -> tuple[list[Row], dict[str, list[tuple[Any, ...]]]]:
    """The rows of a story for the log, and its typed rows with positions from 1."""
    planned = plan(follow_seed(7, n), ORDERS, 1 + n * ORDERS)
    sent = sorted(((m.due, part, i, m) for part in PARTS for i, m in enumerate(planned.messages[part])), key=lambda found: found[:3])
    door = _Door()
    intake = Intake(door, mappings())
    for *_, message in sent:
        intake.take([Delivery(message.body, "bench", START)])
    typed: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TYPED}
    for position, fact in enumerate(door.facts, 1):
        for name, rows in _typed(Recorded(position, "", 1, START + timedelta(days=1), fact)).items():
            typed[name] += rows
    return door.rows, typed


def _typed(fact: Recorded) -> dict[str, list[tuple[Any, ...]]]:
    e, at = fact.envelope, fact.position
    key = receipt_key(e.source, e.key)
    moved = []
    for line, m in enumerate(movements(fact.event)):
        rest = (m.item, m.lot, m.serial, m.unit)
        ends = (m.source, m.source_status, m.target, m.target_status)
        ids = (identity(m.source, m.source_status, *rest), identity(m.target, m.target_status, *rest))
        moved.append((line, key, e.source, e.key, *ends, *rest, m.quantity, e.effective_at, *ids, at))
    said = {table.name: [tuple(row) for row in rows] for table, rows in Genealogy().rows([fact])}
    return {
        "moved": moved,
        "reversed": said["reversal"],
        **{name: [(*row[:-3], at) for row in said[name]] for name in ("edge", "emptied", "content")},
        "mention": [(*row[:-3], _printed(row[0], row[1]), at) for row in said["mention"]],
        **{name: said[name] for name in ("traced", "held", "settled")},
    }


def _printed(kind: str, name: str) -> str | None:
    if kind == "asn":
        return name.partition("/")[2]
    return f"00{name}" if kind == "handling_unit" and sscc18(name) else None
