"""What every view shares: the description of its tables, bulk writes, exception rows, and the identity of a fact in a view.

A view is one file: its tables, its fold, its queries. A fold has two halves: `rows` derives rows from facts by pure functions, `settle` keeps
totals by set-based SQL over the rows of a span of positions, so that the result does not depend on how the log was cut into batches; so a
rebuild may write the rows of the whole log first and settle once (`Bare`). Every row names the position that last changed it. A view that
finds something a person must decide keeps a table `exception` (`EXCEPTION_TABLE`); `hub exceptions` reads them all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from psycopg import sql

from events.base import Recorded
from hub.log.follow import Cursor


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a view. `columns` maps names to SQL types, `key` is the primary key, `technical` names the columns that a digest of
    business content leaves out (positions, ids): what the same facts in another order would change. `indexes` are column lists. `unique` is
    a column that stands for a key whose own columns may be too long for an index entry (`naming.identity`). `first`: of several rows with
    one key the one of the lowest position stays. `lookups`: more indexes, that only queries use: a rebuild makes them last."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    technical: tuple[str, ...] = field(default=("position",), compare=False)  # a matter of digests: it makes no other table
    indexes: tuple[str, ...] = ()
    unique: str = ""
    first: bool = field(default=False, compare=False)
    lookups: tuple[str, ...] = ()

    def ddl(self) -> str:
        """The table with its key and indexes."""
        return "\n".join([f"create table {self.name} ({self._body()}, {self._key()});", *self._made(self.indexes + self.lookups)])

    def bare(self) -> str:
        """The table without them."""
        return f"create table {self.name} ({self._body()});"

    def dress(self) -> str:
        """What makes of a bare table with rows what `ddl` would have let in, without `lookups`."""
        again = f"select ctid, row_number() over (partition by {', '.join(self.key)} order by position) as n from {self.name}"  # noqa: S608
        later = [f"delete from {self.name} t using ({again}) r where t.ctid = r.ctid and r.n > 1;"] if self.first else []  # noqa: S608
        return "\n".join([*later, f"alter table {self.name} add {self._key()};", *self._made(self.indexes)])

    def finish(self) -> str:
        """What a dressed table still lacks."""
        return "\n".join(self._made(self.lookups))

    def _body(self) -> str:
        return ", ".join(f"{name} {type_}" for name, type_ in self.columns.items())

    def _key(self) -> str:
        return f"unique ({self.unique})" if self.unique else f"primary key ({', '.join(self.key)})"

    def _made(self, indexes: Iterable[str]) -> list[str]:
        return [f"create index on {self.name} ({columns});" for columns in indexes]


# An exception is open as long as its row is there; a fact that settles it removes the row. `subject` names it within its kind.
EXCEPTION_TABLE = Table(
    "exception",
    {
        "kind": "text",
        "subject": "text",
        "source": "text not null",
        "business_key": "text not null",
        "place": "text not null",
        "reason": "text not null",
        "first_seen": "timestamptz not null",
        "position": "bigint not null",
    },
    key=("kind", "subject"),
)


Rows = Iterator[tuple[Table, Iterable[Sequence[Any]]]]  # table by table, values in the order of its columns


class TableView:
    """Base of the views: `name`, `tables`, and the DDL made of them."""

    name: str
    tables: tuple[Table, ...]
    by_arrival: bool = False  # what it holds depends on the order in which facts came: a process cannot decide by what it does not know yet

    @property
    def ddl(self) -> str:
        return "\n".join(table.ddl() for table in self.tables)

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        """The rows that the facts add by themselves, whatever there is already."""
        raise TypeError(f"view {self.name} has no rows")

    def settle(self, cursor: Cursor, first: int, last: int) -> None:
        """What follows from the rows of positions first to last, which were just added. Same rows for every way to cut the log into spans."""

    def fold(self, cursor: Cursor, facts: Sequence[Recorded]) -> None:
        """Write what the facts change."""
        for table, rows in self.rows(facts):
            insert(cursor, table, rows)
        self.settle(cursor, facts[0].position, facts[-1].position)


class Bare:
    """A view on its way to be rebuilt: tables without keys and indexes that take rows alone, until `dress` makes of them the view's own."""

    def __init__(self, view: TableView) -> None:
        self.name = view.name
        self._view = view

    @property
    def ddl(self) -> str:
        return "\n".join(table.bare() for table in self._view.tables)

    def fold(self, cursor: Cursor, facts: Sequence[Recorded]) -> None:
        """Write the rows of the facts, which nothing looks at yet."""
        for table, rows in self._view.rows(facts):
            _copy(cursor, table, rows)

    def dress(self, cursor: Cursor, last: int) -> None:
        """Keys, indexes, and what follows from all rows up to a position."""
        cursor.execute("set local default_statistics_target = 10")  # enough to choose a plan by, and a tenth of the rows
        for table in self._view.tables:
            cursor.execute(table.dress().encode())
            cursor.execute(sql.SQL("analyze {}").format(sql.Identifier(table.name)))
        self._view.settle(cursor, 1, last)
        for table in self._view.tables:
            cursor.execute(table.finish().encode())


def insert(cursor: Cursor, table: Table, rows: Iterable[Sequence[Any]]) -> None:
    """Add rows, whose values are in the order of the table's columns; where of one key the first stays, a known one is left as it is."""
    if not table.first:
        _copy(cursor, table, rows)
    elif pending := list(rows):
        name, columns = sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
        types = sql.SQL(", ").join(sql.SQL(f"%s::{kind.split()[0]}[]") for kind in table.columns.values())
        query = sql.SQL("insert into {} ({}) select * from unnest({}) on conflict do nothing").format(name, columns, types)  # COPY cannot
        cursor.execute(query, [list(values) for values in zip(*pending, strict=True)])


def _copy(cursor: Cursor, table: Table, rows: Iterable[Sequence[Any]]) -> None:
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    name, columns = sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    with cursor.copy(sql.SQL("copy {} ({}) from stdin (format binary)").format(name, columns)) as copy:
        copy.set_types(["int4" if kind.split()[0] == "int" else kind.split()[0] for kind in table.columns.values()])
        copy.write_row(first)
        for row in rows:
            copy.write_row(row)


def fact_id(fact: Recorded) -> tuple[str, str]:
    """(source, business key): what other facts name this one by."""
    return fact.envelope.source, fact.envelope.key


ZERO = Decimal(0)
