"""What every view shares: the description of its tables, bulk writes, exception rows, and the identity of a fact in a view.

A view is one file: its tables, its fold, its queries. A fold derives rows from facts by pure functions and keeps totals by set-based SQL
over the rows of its batch, so that the result does not depend on how the log was cut into batches. Every row names the position that last
changed it. A view that finds something a person must decide keeps a table `exception` (`EXCEPTION_TABLE`); `hub exceptions` reads them
all.
"""

from collections.abc import Iterable, Mapping, Sequence
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
    a column that stands for a key whose own columns may be too long for an index entry (`naming.identity`)."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    technical: tuple[str, ...] = field(default=("position",), compare=False)  # a matter of digests: it makes no other table
    indexes: tuple[str, ...] = ()
    unique: str = ""

    def ddl(self) -> str:
        body = ", ".join(f"{name} {type_}" for name, type_ in self.columns.items())
        key = f"unique ({self.unique})" if self.unique else f"primary key ({', '.join(self.key)})"
        lines = [f"create table {self.name} ({body}, {key});"]
        lines += [f"create index on {self.name} ({columns});" for columns in self.indexes]
        return "\n".join(lines)


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


class TableView:
    """Base of the views: `name`, `tables`, and the DDL made of them."""

    name: str
    tables: tuple[Table, ...]

    @property
    def ddl(self) -> str:
        return "\n".join(table.ddl() for table in self.tables)

    def fold(self, cursor: Cursor, facts: Sequence[Recorded]) -> None:
        """Write what the facts change. Same rows for every way to cut the log into batches."""
        raise TypeError(f"view {self.name} has no fold")


def insert(cursor: Cursor, table: Table, rows: Iterable[Sequence[Any]], *, ignore_known: bool = False) -> None:
    """Add rows, whose values are in the order of the table's columns; with `ignore_known` a row whose key exists is left as it is."""
    pending = list(rows)
    if not pending:
        return
    name, columns = sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    if ignore_known:  # which COPY cannot
        types = sql.SQL(", ").join(sql.SQL(f"%s::{kind.split()[0]}[]") for kind in table.columns.values())
        query = sql.SQL("insert into {} ({}) select * from unnest({}) on conflict do nothing").format(name, columns, types)
        cursor.execute(query, [list(values) for values in zip(*pending, strict=True)])
        return
    with cursor.copy(sql.SQL("copy {} ({}) from stdin").format(name, columns)) as copy:
        for row in pending:
            copy.write_row(row)


def fact_id(fact: Recorded) -> tuple[str, str]:
    """(source, business key): what other facts name this one by."""
    return fact.envelope.source, fact.envelope.key


ZERO = Decimal(0)
