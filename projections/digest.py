"""Digests of views: one sha256 for the same rows, on any machine, server, collation and time zone.

The full digest covers every column; the business digest leaves out what `Table.technical` names, so that the same facts in another order of
arrival give the same one. Rows are streamed, never held together.
"""

import hashlib
from collections.abc import Sequence

from psycopg import sql

from events.errors import Corrupt
from hub.log.follow import Cursor
from projections.base import Table, TableView


def table_digest(cursor: Cursor, schema: str, table: Table, columns: Sequence[str]) -> str:
    """sha256 (hex) over the text of some columns of all rows by primary key, or by all `columns` where those lack a part of it."""
    order = table.key if set(table.key) <= set(columns) else tuple(columns)
    query = sql.SQL("copy (select {} from {} order by {}) to stdout (format text, encoding 'UTF8')").format(
        sql.SQL(", ").join(_text(table, name) for name in columns),
        sql.Identifier(schema, table.name),
        sql.SQL(", ").join(_order(table, name) for name in order),
    )
    found = hashlib.sha256()
    with cursor.copy(query) as copy:
        for block in copy:
            found.update(block)
    return found.hexdigest()


def view_digest(cursor: Cursor, schema: str, view: TableView, business: bool) -> str:
    """sha256 (hex) over all tables of a view: every column, or with `business` all but the technical ones."""
    found = hashlib.sha256()
    for table in sorted(view.tables, key=lambda t: t.name):
        columns = [name for name in table.columns if not (business and name in table.technical)]
        found.update(f"{table.name}({','.join(columns)})={table_digest(cursor, schema, table, columns)}\n".encode())
    return found.hexdigest()


def row_count(cursor: Cursor, schema: str, table: str) -> int:
    """How many rows a table of a view has."""
    row = cursor.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(schema, table))).fetchone()
    return int(row[0]) if row else 0


def _kind(table: Table, name: str) -> str:
    return table.columns[name].split()[0]


def _text(table: Table, name: str) -> sql.Composable:
    """A column as text that depends on no setting of server or session. Raises `Corrupt` for a type that cannot be."""
    kind = _kind(table, name)
    if kind not in _TEXT:
        raise Corrupt(f"column {name} of table {table.name} is a {kind}: a digest knows {', '.join(sorted(_TEXT))}; use one of them")
    return sql.SQL(_TEXT[kind]).format(sql.Identifier(name))


def _order(table: Table, name: str) -> sql.Composable:
    plain = sql.Identifier(name)
    return sql.SQL('{} collate "C"').format(plain) if _kind(table, name) in ("text", "text[]") else plain


_TEXT = {
    "text": "{}",
    "text[]": "{}",
    "uuid": "{}",
    "boolean": "{}",
    "bool": "{}",
    "int": "{}",
    "integer": "{}",
    "bigint": "{}",
    "smallint": "{}",
    "date": "to_char({}, 'YYYY-MM-DD')",
    "bytea": "encode({}, 'hex')",
    "numeric": "trim_scale({})",
    "timestamptz": "to_char({} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
}
