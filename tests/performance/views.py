"""The rows of views: following live, rebuilding, against what PostgreSQL does in one statement and what the eventsourcing library does.

Events are the demo's, a million of them. Every peer's tables are compared with ours, row by row, by plain SQL: a ratio between different
results would say nothing. Our time goes from an empty shadow to tables with all their keys and indexes, the seal's digest apart; the
command's row has all of it.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from hub import limits
from hub.app.wiring import named_views, views
from hub.log.follow import Follower, enter, shadow_schema
from hub.log.migrate import migrate
from hub.log.store import Log
from projections.base import TableView
from replay.shadow import Shadow
from replay.tables import Postgres
from tests.conftest import new_database
from tests.facts import as_role
from tests.performance import plant_log
from tests.performance.report import Against, Row, Sample, measure

PEER = "peer"  # the schema that a peer writes
FOLLOWED = 5000  # facts a batch
REBUILD_BATCH = limits.FOLLOW_BATCH_MAX


class Bench:
    """What the rows share: logs of the demo's mix on a server, made when they are first needed."""

    def __init__(self, owner_url: str, small: bool) -> None:
        self.small, self.rounds = small, 3 if small else 5
        self._owner_url = owner_url
        self._closing = contextlib.ExitStack()
        self._same: set[tuple[str, str]] = set()  # peers that were compared with us

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @cached_property
    def whole(self) -> tuple[str, int]:
        """The owner's URL of the log and how many facts it has: about a million, small 8,000."""
        return self._made(4 if self.small else 510)

    @cached_property
    def quarter(self) -> tuple[str, int]:
        """A log that is the first quarter of that."""
        return self._made(1 if self.small else 127)

    def _made(self, stories: int) -> tuple[str, int]:
        url = self._closing.enter_context(new_database(self._owner_url))
        migrate(url)
        return url, plant_log.write(url, stories)

    # -- ours

    def rebuild(self, name: str, place: tuple[str, int]) -> Sample:
        """Facts a second of filling a view's shadow."""
        url, head = place
        (view,) = named_views([name])
        self._begin(url)
        begun = time.perf_counter()
        with Postgres(as_role(url, "hub_follow")).alone([view]) as session:
            shadow = Shadow(session, view)
            shadow.restart()
            for _ in shadow.fill(REBUILD_BATCH, head):
                pass
        return Sample(head / (time.perf_counter() - begun))

    def rebuilds(self) -> Sample:
        """The same of all views, one after the other."""
        _, head = self.whole
        return Sample(head / sum(head / self.rebuild(view.name, self.whole).value for view in views()))

    def command(self) -> Sample:
        """The same by `hub replay rebuild --all`, from the start of the process to its end."""
        url, head = self.whole
        self._begin(url)
        with tempfile.TemporaryDirectory() as home:
            env = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
            hub = Path(sys.executable).with_name("hub")
            begun = time.perf_counter()
            done = subprocess.run(
                [hub, "replay", "rebuild", "--all", "--restart", "--json"],
                env={**env, "HUB_HOME": home, "HUB_DATABASE_URL": url},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            took = time.perf_counter() - begun
        said = json.loads(done.stdout)
        assert said["position"] == head
        assert [found["events"] for found in said["views"].values()] == [head] * len(views())
        return Sample(head / took)

    def follow(self) -> Sample:
        """Facts a second of following them live, from the first on."""
        url, head = self.quarter
        (view,) = named_views(["stock"])
        self._begin(url)
        follower = Follower(as_role(url, "hub_follow"), view)
        follower.ensure()
        try:
            begun = time.perf_counter()
            while follower.step(FOLLOWED):
                pass
            took = time.perf_counter() - begun
            assert follower.position() == head
            return Sample(head / took)
        finally:
            with psycopg.connect(url) as owner:
                owner.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(follower.schema)))
            follower.close()

    # -- the peers

    def read(self) -> Sample:
        """Facts a second of reading and decoding the same."""
        url, head = self.quarter
        self._begin(url)
        with Log(as_role(url, "hub_follow")) as log:
            at, begun = 0, time.perf_counter()
            while facts := log.read(at, FOLLOWED):
                at = facts[-1].position
            took = time.perf_counter() - begun
        assert at == head
        return Sample(head / took)

    def statement(self, name: str) -> Sample:
        """One statement from typed columns into empty tables, their keys and indexes made afterwards, all in one transaction."""
        url, head = self.whole
        (view,) = named_views([name])
        with psycopg.connect(as_role(url, "hub_follow")) as connection, connection.cursor() as cursor:
            self._begin(url)
            begun = time.perf_counter()
            cursor.execute("set local synchronous_commit = off")  # as our own fold
            cursor.execute(sql.SQL("drop schema if exists {0} cascade; create schema {0}").format(sql.Identifier(PEER)))
            enter(cursor, PEER)
            for table in view.tables:
                cursor.execute(f"create table {table.name} ({', '.join(map(' '.join, table.columns.items()))})".encode())
            cursor.execute(STATEMENTS[name].encode(), {"head": head})
            for table in view.tables:
                key = f"unique ({table.unique})" if table.unique else f"primary key ({', '.join(table.key)})"
                cursor.execute(f"alter table {table.name} add {key}".encode())
                for columns in table.indexes:
                    cursor.execute(f"create index on {table.name} ({columns})".encode())
            connection.commit()
            took = time.perf_counter() - begun
        self._compare(url, view, "one statement", head)
        return Sample(head / took)

    def library(self, name: str) -> Sample:
        """The eventsourcing library's ProjectionRunner on 20,000 of the facts (small: 300): it hands our fold one event, one transaction each."""
        from tests.performance.library import run

        url, _ = self.whole
        count = 300 if self.small else 20_000
        (view,) = named_views([name])
        took = run(url, view, PEER, count)
        self._compare(url, view, "library", count)
        return Sample(count / took)

    def _begin(self, url: str) -> None:
        """No shadow, no peer, and nothing left to write for the server."""
        with psycopg.connect(url, autocommit=True) as owner:
            for schema in (PEER, *(shadow_schema(view.name) for view in views())):
                owner.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))
            owner.execute("checkpoint")

    def _compare(self, url: str, view: TableView, peer: str, head: int) -> None:
        """Once for each peer: its tables hold just the rows that our rebuild makes of the same facts."""
        if (view.name, peer) in self._same:
            return
        with Postgres(as_role(url, "hub_follow")).alone([view]) as session:
            shadow = Shadow(session, view)
            shadow.restart()
            for _ in shadow.fill(REBUILD_BATCH, head):
                pass
        with psycopg.connect(url) as owner:
            for table in view.tables:
                ours, theirs = sql.Identifier(shadow.schema, table.name), sql.Identifier(PEER, table.name)
                query = sql.SQL("select count(*) from ((table {0} except all table {1}) union all (table {1} except all table {0})) d")
                (different,) = owner.execute(query.format(ours, theirs)).fetchone() or (None,)
                if different != 0:
                    raise AssertionError(f"{peer}: {different} rows of {view.name}.{table.name} are not what our rebuild makes")
        self._same.add((view.name, peer))


_NAMES = "account, status, item, lot, serial, unit"
_SUBJECT = "account || '|' || status || '|' || item || '|' || lot || '|' || serial || '|' || unit"

_STOCK = f"""
with line as materialized (
  select position, 2 * line + side as line, fact, source, business_key, account, status, item, lot, serial, unit, amount, effective_at, identity
  from typed.moved cross join lateral (values
    (0, from_account, from_status, -quantity, from_identity), (1, to_account, to_status, quantity, to_identity)) s(side, account, status, amount, identity)
  where position <= %(head)s),
counts as (
  select distinct on (original) * from typed.reversed where position <= %(head)s
  order by original, effective_at nulls first, business_key collate "C"),
moved as materialized (
  select position, line, false as inverse, fact, null::uuid as original, source, business_key, {_NAMES}, amount, effective_at, identity from line
  union all
  select greatest(c.position, l.position), line, true, c.fact, c.original, c.source, c.business_key, {_NAMES}, -amount,
         coalesce(c.effective_at, l.effective_at), identity
  from counts c join line l on l.fact = c.original),
movements as (insert into movement select * from moved),
balances as materialized (
  select {_NAMES}, trim_scale(sum(amount)) as quantity, max(position) as position, identity from moved group by identity, {_NAMES}),
balanced as (insert into balance select * from balances),
instants as materialized (
  select identity, effective_at, delta, cause, changed, total, trim_scale(min(total) over w) as lowest,
         min(effective_at) filter (where total < 0) over w as since, max(changed) over w as position
  from (select identity, effective_at, trim_scale(sum(amount)) as delta, max(position) as changed,
               trim_scale(sum(sum(amount)) over (partition by identity order by effective_at)) as total,
               min(array[source, business_key] collate "C") filter (where amount < 0) as cause
        from moved where starts_with(account, 'location/') group by identity, effective_at) i
  window w as (partition by identity order by effective_at)),
instant as (insert into instant select * from instants),
reversals as (insert into reversal select * from typed.reversed where position <= %(head)s)
insert into exception
select 'negative_stock', {_SUBJECT}, first.cause[1], first.cause[2], account,
       format('%%s %%s of %%s is the lowest balance at %%s, first below zero %%s', last.lowest, unit,
              concat_ws('/', item, nullif(lot, ''), nullif(serial, '')), account, to_char(last.since, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
       last.since, b.position
from (select distinct on (identity) identity, lowest, since from instants order by identity, effective_at desc) last
join balances b using (identity) join instants first on (first.identity, first.effective_at) = (last.identity, last.since)
where last.since is not null
"""  # noqa: S608 - made of the names above


def _marked(table: str, columns: str) -> str:
    """An insert of typed rows, with what a reversal of their facts makes of them."""
    return f"""{table}s as (
  insert into {table} select {columns}, undone is not null, t.position, greatest(t.position, undone)
  from typed.{table} t left join latest on original = t.fact where t.position <= %(head)s)"""  # noqa: S608 - made of the names below


_GENEALOGY = f"""
with latest as (select original, max(position) as undone from typed.reversed where position <= %(head)s group by original),
{_marked("edge", "fact, line, from_kind, from_id, to_kind, to_id, kind, quantity, unit, effective_at, type")},
{_marked("emptied", "fact, kind, id, effective_at")},
{_marked("mention", "kind, id, fact, role, type, effective_at, equipment, operation, raw")},
{_marked("content", "fact, line, kind, id, item, quantity, unit")},
node as materialized (
  select kind, id, printed, min(position) as position from typed.mention where position <= %(head)s group by kind, id, printed),
thing as materialized (
  select kind, id, item, name, min(position) as position from typed.traced where position <= %(head)s group by kind, id, item, name),
aliases as (
  insert into alias select alias, kind, id, min(position) from (
    select id as alias, kind, id, position from node
    union all select kind || ':' || id, kind, id, position from node
    union all select printed, kind, id, position from node where printed is not null
    union all select name, kind, id, position from thing
    union all select item || '/' || name, kind, id, position from thing where item <> ''
    union all select kind || ':' || item || '/' || name, kind, id, position from thing where item <> '') said
  group by alias, kind, id),
things as (insert into traced select * from thing),
helds as (insert into held select * from typed.held where position <= %(head)s),
settleds as (insert into settled select entry, min(position) from typed.settled where position <= %(head)s group by entry)
insert into reversal select * from typed.reversed where position <= %(head)s
"""  # noqa: S608 - made of the names above

STATEMENTS = {"stock": _STOCK, "genealogy": _GENEALOGY}


def rows(bench: Bench, only: str = "") -> Iterator[list[Row]]:
    """The rows of this file whose name begins with `only`, in the order of the issue's table."""
    b = bench
    table: dict[str, Callable[[str], list[Row]]] = {
        "follow-stock": lambda name: measure(name, "facts/s", b.follow, {Against("read and decode", ">=", 0.15): b.read}, b.rounds),
        "rebuild-stock": lambda name: _rebuild(b, name, "stock"),
        "rebuild-genealogy": lambda name: _rebuild(b, name, "genealogy"),
        "rebuild-command": lambda name: measure(
            name, "facts/s", b.command, {Against("every view as in the rows above", ">=", 0.75): b.rebuilds}, b.rounds
        ),
        **{f"rebuild-growth-{view}": lambda name, v=view: _growth(b, name, v) for view in ("stock", "genealogy")},  # type: ignore[misc]
    }
    yield from (make(name) for name, make in table.items() if name.startswith(only))


def _rebuild(b: Bench, name: str, view: str) -> list[Row]:
    peers = {
        Against("one SQL statement, typed columns", ">=", 0.35): lambda: b.statement(view),
        Against("eventsourcing ProjectionRunner", ">=", 30.0): lambda: b.library(view),
    }
    return measure(name, "facts/s", lambda: b.rebuild(view, b.whole), peers, b.rounds)


def _growth(b: Bench, name: str, view: str) -> list[Row]:
    def each(place: tuple[str, int]) -> Sample:
        return Sample(1e9 / b.rebuild(view, place).value)

    return measure(name, "ns/fact", lambda: each(b.whole), {Against("a quarter of the log", "<=", 1.15): lambda: each(b.quarter)}, b.rounds)
