"""The trace rows: the shipped query against a plain recursive CTE and a walk in memory over the same edges, and what a larger graph costs.

A graph has 8 levels of lots. Those of the first were received, 100 on a purchase order; each other one was made by an order of its own from two or
three lots of the level before, one link in seven to one of a hundredth of that level that all share; the last were shipped, four together. Its rows are written by SQL into
the tables of the genealogy view, because folding millions of facts takes hours; `proven` folds the facts of a small one and compares all rows.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from events import Fact
from hub.log.follow import Cursor, Follower, ensure, enter, live_schema
from hub.log.migrate import migrate
from hub.log.store import Log
from projections.digest import table_digest
from projections.genealogy import Genealogy
from projections.trace import trace
from tests.conftest import new_database
from tests.facts import as_role, fact
from tests.performance.report import Against, Row, Sample, measure

LEVELS = 8
NODES = 10_000  # of the answer that is asked for
FILLED = "rows written by SQL, indexes built afterwards, vacuumed and analysed; equal to the fold's rows for the same facts (checked on a small graph)"
VIEW = Genealogy()
SCHEMA = live_schema(VIEW.name)
Node = tuple[str, str]

# Lot n: its level, its name, the lots it was made of. Every fact has the position n + 1, the shipments come after them.
_LOTS = f"""
create unlogged table public.lot as
with base as (select n, n / (%(lots)s / {LEVELS}) as level, 'I' || n %% 997 as item from generate_series(0, %(lots)s - 1) n),
made as (
  select base.*, array(
    select distinct (level - 1) * w + (case when h %% 100 < 15 then (h / 100) %% greatest(w / 100, 1) else (h / 100) %% w end)
    from generate_series(1, 2 + (n %% 4 = 0)::int) k, (select %(lots)s / {LEVELS} as w) width, lateral (select hashint8extended(n * 4 + k, 7) & 9223372036854775807 as h) h
    where level > 0 order by 1)::bigint[] as inputs
  from base)
select n, level, item, item || '/L' || lpad(n::text, 8, '0') as id, 'L' || lpad(n::text, 8, '0') as name, inputs,
       'O' || lpad(n::text, 8, '0') as made_by, 'P' || lpad((n / 100)::text, 6, '0') as bought_by,
       'S' || lpad(((n - %(lots)s / {LEVELS} * {LEVELS - 1}) / 4)::text, 7, '0') as shipped_by, (n - %(lots)s / {LEVELS} * {LEVELS - 1}) / 4 as shipment
from made"""  # noqa: S608 - constants
_HELP = """
create function pg_temp.receipt(key text) returns uuid immutable language sql as
  $$ select encode(substr(sha256(convert_to('erp:main', 'UTF8') || '\\x00'::bytea || convert_to(key, 'UTF8')), 1, 16), 'hex')::uuid $$;
create function pg_temp.at(nth bigint) returns timestamptz immutable language sql as
  $$ select '2026-01-05T06:00:00Z'::timestamptz + (nth - 1) * interval '1 second' $$;
create unique index on public.lot (n);
create temp view used as select l.*, i.line - 1 as line, p.id as input
  from public.lot l cross join lateral unnest(l.inputs) with ordinality i(n, line) join public.lot p on p.n = i.n;
create temp view shipped as select *, (select count(*) from public.lot) + shipment + 1 as position from public.lot where level = 7;
"""
_ROWS = (
    """insert into edge
       select pg_temp.receipt('R' || n), 0, 'purchase_order', bought_by, 'lot', id, 'received', 100, 'KGM', pg_temp.at(n + 1),
              'procurement.goods_received', false, n + 1, n + 1 from public.lot where level = 0
       union all
       select pg_temp.receipt('T' || n), line, 'lot', input, 'order', made_by, 'consumed', 2.5, 'KGM', pg_temp.at(n + 1),
              'production.lot_transformed', false, n + 1, n + 1 from used
       union all
       select pg_temp.receipt('T' || n), cardinality(inputs), 'order', made_by, 'lot', id, 'produced', 100, 'KGM', pg_temp.at(n + 1),
              'production.lot_transformed', false, n + 1, n + 1 from public.lot where level > 0
       union all
       select pg_temp.receipt('S' || shipment), row_number() over (partition by shipment order by n) - 1, 'lot', id, 'shipment', shipped_by,
              'shipped', 40, 'KGM', pg_temp.at(position), 'logistics.shipment_dispatched', false, position, position from shipped""",
    """insert into mention
       select 'lot', id, pg_temp.receipt('R' || n), 'origin', 'procurement.goods_received', pg_temp.at(n + 1), null, null, '', false, n + 1, n + 1
       from public.lot where level = 0
       union all
       select 'purchase_order', bought_by, pg_temp.receipt('R' || n), 'seen', 'procurement.goods_received', pg_temp.at(n + 1), null, null, '',
              false, n + 1, n + 1 from public.lot where level = 0
       union all
       select 'lot', input, pg_temp.receipt('T' || n), 'use', 'production.lot_transformed', pg_temp.at(n + 1), null, null, '', false, n + 1, n + 1
       from used
       union all
       select kind, id, pg_temp.receipt('T' || n), role, 'production.lot_transformed', pg_temp.at(n + 1), null, null, '', false, n + 1, n + 1
       from (select n, 'lot' as kind, id, 'origin' as role from public.lot where level > 0
             union all select n, 'order', made_by, 'seen' from public.lot where level > 0) t
       union all
       select kind, id, pg_temp.receipt('S' || shipment), role, 'logistics.shipment_dispatched', pg_temp.at(position), null, null, '',
              false, position, position
       from (select shipment, position, 'lot' as kind, id, 'use' as role from shipped
             union select shipment, position, 'shipment', shipped_by, 'seen' from shipped) t""",
    """insert into alias
       select alias, kind, id, position
       from (select 'lot' as kind, id, n + 1 as position from public.lot
             union all select 'order', made_by, n + 1 from public.lot where level > 0
             union all select 'purchase_order', bought_by, min(n) + 1 from public.lot where level = 0 group by bought_by
             union all select 'shipment', shipped_by, min(position) from shipped group by shipped_by) node
            cross join lateral (values (id), (kind || ':' || id)) a(alias)
       union all select name, 'lot', id, n + 1 from public.lot""",
    "insert into traced select 'lot', id, item, name, n + 1 from public.lot",
    """update position set position = last.position, fact = pg_temp.receipt('S' || last.shipment)
       from (select position, shipment from shipped order by position desc limit 1) last""",
)
_REACHED = """with recursive reached(kind, id) as (
                select %(kind)s::text, %(id)s::text
                union select e.to_kind, e.to_id from reached r join edge e on (e.from_kind, e.from_id) = (r.kind, r.id) where not e.undone)"""


@dataclass(frozen=True, slots=True)
class Graph:
    """A database with a filled genealogy, and a lot from which so many nodes can be reached as are asked for, as a plain CTE finds them."""

    url: str
    root: str
    reached: frozenset[Node]

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Cursor]:
        """As the API reads."""
        with psycopg.connect(as_role(self.url, "hub_read")) as connection, connection.cursor() as cursor:
            enter(cursor, SCHEMA)
            yield cursor


class Bench:
    """What the rows share: graphs by their number of lots, dropped at the end."""

    def __init__(self, owner_url: str, small: bool, kept: contextlib.ExitStack) -> None:
        self._owner_url, self._kept, self._graphs = owner_url, kept, dict[int, Graph]()
        self.lots = 24_000 if small else 1_000_000
        self.nodes = 4_000 if small else NODES
        self.rounds = 3 if small else 5
        self._edges: dict[Node, list[Node]] = {}

    def graph(self, lots: int) -> Graph:
        """A graph of a size, made when it is first asked for."""
        if lots not in self._graphs:
            if not self._graphs:
                proven(self._owner_url)
            url = self._kept.enter_context(new_database(self._owner_url))
            migrate(url)
            with psycopg.connect(url) as owner:
                fill(owner, lots)
            with psycopg.connect(url, autocommit=True) as owner:
                owner.execute(f"vacuum (analyze) {SCHEMA}.edge, {SCHEMA}.mention, {SCHEMA}.alias, {SCHEMA}.traced")
                owner.execute("checkpoint")
            self._graphs[lots] = Graph(url, *self._root(url, lots))
        return self._graphs[lots]

    def _root(self, url: str, lots: int) -> tuple[str, frozenset[Node]]:
        """The shared lot of the first two levels whose reach is nearest to what is asked for."""
        with psycopg.connect(url) as owner, owner.cursor() as cursor:
            enter(cursor, SCHEMA)
            width = lots // LEVELS
            shared = cursor.execute(
                "select id from public.lot where n = any(%s)", [[at for n in range(20) for at in (n, width + n)]]
            ).fetchall()
            found = {}
            for (id_,) in shared:
                cursor.execute(f"{_REACHED} select kind, id from reached", {"kind": "lot", "id": id_})  # noqa: S608 - constants
                found[id_] = frozenset((kind, name) for kind, name in cursor.fetchall())
            return min(found.items(), key=lambda one: abs(len(one[1]) - self.nodes))

    def ours(self, lots: int) -> Sample:
        """Milliseconds for 10,000 nodes of the shipped answer: nodes with their facts' times, edges with their quantities, shipments."""
        graph = self.graph(lots)
        with graph.cursor() as cursor:
            took, answer = _timed(lambda: trace(cursor, f"lot:{graph.root}", "forward"))
        assert {(n["kind"], n["id"]) for n in answer["nodes"]} == graph.reached, "the answer has other nodes than a plain CTE finds"
        assert answer["complete"], answer["because"]
        assert all(e["quantity"] for e in answer["edges"])
        assert any(e["kind"] == "shipped" for e in answer["edges"])
        return Sample(took * NODES / len(graph.reached))

    def cte(self, rows: str) -> Sample:
        """The same for a plain recursive CTE: the nodes alone, or with their edges, quantities and shipments."""
        graph = self.graph(self.lots)
        with graph.cursor() as cursor:
            took, found = _timed(
                lambda: cursor.execute((_REACHED + rows).encode(), {"kind": "lot", "id": graph.root}, binary=True).fetchall()
            )
        assert {(row[0], row[1]) for row in found} | {(row[2], row[3]) for row in found if len(row) > 2} == graph.reached
        return Sample(took * NODES / len(graph.reached))

    def memory(self) -> Sample:
        """The same for a breadth-first search over a dict of all edges."""
        graph = self.graph(self.lots)
        if not self._edges:
            with graph.cursor() as cursor, cursor.copy("copy (select from_kind, from_id, to_kind, to_id from edge) to stdout") as copy:
                known: dict[Node, Node] = {}
                for from_kind, from_id, to_kind, to_id in copy.rows():
                    source, target = (from_kind, from_id), (to_kind, to_id)
                    self._edges.setdefault(known.setdefault(source, source), []).append(known.setdefault(target, target))
        took, found = _timed(lambda: _walked(self._edges, ("lot", graph.root)))
        assert found == graph.reached
        return Sample(took * NODES / len(graph.reached))


def rows(bench: Bench, only: str = "") -> Iterator[list[Row]]:
    """The rows of this file whose name begins with `only`."""
    b, small = bench, bench.lots
    plain = "select kind, id from reached"
    full = "select e.from_kind, e.from_id, e.to_kind, e.to_id, e.kind, quantity, unit, effective_at from reached r join edge e on (e.from_kind, e.from_id) = (r.kind, r.id) where not undone"
    table: dict[str, Callable[[str], list[Row]]] = {
        "trace-10000": lambda name: measure(
            name,
            "ms",
            lambda: b.ours(small),
            {
                Against("recursive CTE, edges, quantities", "<=", 4.0): lambda: b.cte(full),
                Against("recursive CTE, nodes alone"): lambda: b.cte(plain),
                Against("walk of a dict in memory"): b.memory,
            },
            b.rounds,
            FILLED,
        ),
        "trace-growth": lambda name: measure(
            name, "ms", lambda: b.ours(4 * small), {Against("trace-10000", "<=", 1.5): lambda: b.ours(small)}, b.rounds, FILLED
        ),
    }
    yield from (make(name) for name, make in table.items() if name.startswith(only))


def fill(owner: psycopg.Connection[tuple[Any, ...]], lots: int) -> None:
    """Write the view of a graph, whose facts are `facts_of`, and commit."""
    with owner.cursor() as cursor:
        cursor.execute((_LOTS % {"lots": lots}).encode())
        ensure(cursor, VIEW, SCHEMA)
        enter(cursor, SCHEMA)
        cursor.execute(_HELP.encode())
        cursor.execute("analyze public.lot")
        with without_indexes(cursor, SCHEMA, ("edge", "mention", "alias", "traced")):
            for statement in _ROWS:
                cursor.execute(statement.encode())
    owner.commit()


@contextlib.contextmanager
def without_indexes(cursor: Cursor, schema: str, tables: Sequence[str]) -> Iterator[None]:
    """Take the indexes of tables away and build them again at the end."""
    named = {"schema": schema, "tables": list(tables)}
    keys = cursor.execute(
        """select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
           where connamespace = %(schema)s::regnamespace and contype in ('p', 'u') and conrelid::regclass::text = any(%(tables)s)""",
        named,
    ).fetchall()
    for table, name, _ in keys:
        cursor.execute(f"alter table {table} drop constraint {name}".encode())
    indexes = cursor.execute(
        "select indexname, indexdef from pg_indexes where schemaname = %(schema)s and tablename = any(%(tables)s)", named
    ).fetchall()
    for name, _ in indexes:
        cursor.execute(f"drop index {name}".encode())
    yield
    for table, name, definition in keys:
        cursor.execute(f"alter table {table} add constraint {name} {definition}".encode())
    for _, definition in indexes:
        cursor.execute(definition.encode())


def facts_of(owner: psycopg.Connection[tuple[Any, ...]]) -> list[Fact]:
    """The facts of a graph in their order, from the lots and links that its database has."""
    lots = owner.execute(
        "select n, level, item, name, inputs, made_by, bought_by, shipped_by, shipment from public.lot order by n"
    ).fetchall()
    things = {n: {"item": item, "lot": name} for n, _, item, name, *_ in lots}
    found, shipments = [], dict[int, tuple[str, list[int]]]()
    for n, level, _, _, inputs, made_by, bought_by, shipped_by, shipment in lots:
        if level == 0:
            data = {
                "receipt": f"R{n}",
                "things": [_some(things[n], "100")],
                "location": "WH",
                "supplier": "ACME",
                "purchase_order": bought_by,
            }
            found.append(fact(f"R{n}", "procurement.goods_received", data, n / 60))
            continue
        data = {
            "transformation": f"T{n}",
            "order": made_by,
            "inputs": [_some(things[i], "2.5") for i in inputs],
            "outputs": [_some(things[n], "100")],
            "location": "LINE",
        }
        found.append(fact(f"T{n}", "production.lot_transformed", data, n / 60))
        if level == LEVELS - 1:
            shipments.setdefault(shipment, (shipped_by, []))[1].append(n)
    for shipment, (name, shipped) in sorted(shipments.items()):
        data = {"shipment": name, "things": [_some(things[n], "40") for n in shipped], "from_location": "WH", "customer": "C1"}
        found.append(fact(f"S{shipment}", "logistics.shipment_dispatched", data, len(found) / 60))
    return found


def proven(owner_url: str, lots: int = 800) -> None:
    """Fold the facts of a small graph beside its filled view: every column of every table must be the same. Raises `AssertionError`."""
    with new_database(owner_url) as url:
        migrate(url)
        with psycopg.connect(url) as owner:
            fill(owner, lots)
            facts = facts_of(owner)
            with Log(as_role(url, "hub_door")) as log:
                log.append(facts)
            follower = Follower(as_role(url, "hub_follow"), VIEW, "folded")
            follower.ensure()
            while follower.step():
                pass
            follower.close()
            with owner.cursor() as cursor:
                for table in VIEW.tables:
                    digests = [table_digest(cursor, schema, table, list(table.columns)) for schema in (SCHEMA, "folded")]
                    assert digests[0] == digests[1], f"the rows of {table.name} that SQL wrote are not the fold's"
                at = [
                    cursor.execute(f"select position, fact from {schema}.position".encode()).fetchall()  # noqa: S608 - constants
                    for schema in (SCHEMA, "folded")
                ]
                assert at[0] == at[1], at


def _some(thing: dict[str, str], value: str) -> dict[str, Any]:
    return {**thing, "quantity": {"value": value, "unit": "KGM"}}


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds of the second of two runs, and its answer."""
    work()
    begun = time.perf_counter()
    found = work()
    return (time.perf_counter() - begun) * 1000, found


def _walked(edges: dict[Node, list[Node]], root: Node) -> set[Node]:
    seen, frontier = {root}, [root]
    while frontier:
        frontier = [end for node in frontier for end in edges.get(node, ()) if end not in seen and not seen.add(end)]  # type: ignore[func-returns-value]
    return seen
