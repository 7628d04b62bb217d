"""replay: rebuilt is live, however the log was cut and however often the rebuild died.

Promise: a rebuilt view is byte-identical to the live one (P5).
Way: a long history of all event types, some facts in an old schema version, is rebuilt in batches of 1, 7, 100 and 5,000, each view in a process
    of its own that is killed by SIGKILL half way and gone on with by another, twice, beside a writer and two followers of all views that are
    killed too. A shadow that an older program left half done lies in the way. Then `verify` and `promote`, again beside traffic.
Oracle: at the same position, every table of every view as text, all columns, read by plain SQL and hashed here, is the same live and rebuilt in
    each batch size; a tally has each position of the log once; what the old facts made is in the stock's movements. `verify` and the digests
    must say the same as that.
"""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
from psycopg import sql

from events.base import Recorded
from hub import points
from hub.app.servers import process
from hub.log.codec import Row
from hub.log.follow import live_schema, shadow_schema
from hub.log.store import Log
from projections.base import Rows, TableView
from replay import shadow
from replay.promote import promote
from replay.rebuild import rebuild
from replay.verify import verify
from tests.crash import mechanisms
from tests.crash.ground import Access, Child, Ground, Trial
from tests.crash.hubs import Stops, Tally, followed, followed_to, run_follow
from tests.crash.report import Found
from tests.histories import copies

# (windows of 490 facts, sizes of batches) of each log. One fact a batch costs 20 ms over all views, so it gets a shorter log of its own.
LOGS = {
    "small": ((1, (1, 7, 100, 5000)), (6, (100, 5000))),
    "whole": ((40, (1, 7, 100, 5000)), (2041, (7, 100, 5000))),
}
DEATHS = 2  # of each rebuild, each time half way to the head
FOLLOWERS = 2  # of the same views: one must not do again what the other did
PIECE, PAUSE_S = 10, 0.1  # facts the writer appends at a time, and how long it rests: traffic, not load
PIECES = {
    "small": 5,
    "whole": 500,
}  # beside the rebuilds of one size until each has died: on a slow machine the log must not outgrow the trial


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    names = [
        "rebuild killed",
        "gone on with",
        "older shadow thrown away",
        "follower killed",
        "in an old version",
        "appended beside",
        "compared",
    ]
    if ground.complete:
        names += ["verified beside traffic", "promoted beside traffic"]
    found = Found(runs=0, exercised=dict.fromkeys(names, 0))
    found.also["logs"] = {}
    for windows, sizes in LOGS[_size(ground)]:
        with ground.database() as access:
            _Trial(ground, access, found, windows, sizes).run()
    return found


class _Older(Tally):
    """The tally of an older program with a mistake: it folds every fact twice."""

    def rows(self, facts: Sequence[Recorded]) -> Rows:
        return super().rows([fact for fact in facts for _ in range(2)])


@dataclass
class _Trial:
    """One log and its rebuilds."""

    ground: Ground
    access: Access
    found: Found
    windows: int
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        self.rng = self.ground.rng(f"log of {self.windows}")
        self.stops = Stops(FOLLOWERS + len(followed()))
        self.live: list[Child | None] = [None] * FOLLOWERS
        self.writer: Child | None = None
        self.more = -1  # a byte in this pipe lets the writer append a piece
        self.pieces = 0  # how many more it may
        self.rested_at = 0.0
        self.next_window = self.windows
        self._older: int | None = None  # the identity of the shadow that the older program left

    def run(self) -> None:
        with Log(self.access.door) as log:
            for window in range(self.windows):
                log.append_rows(copies.rows(self.ground.seed, window))
        self._begin_traffic()
        for size in self.sizes:
            self._leave_older()
            for _ in range(DEATHS):
                self.pieces = PIECES[_size(self.ground)]
                self._rebuild(size, dies=True)
            self._rename(shadow_schema, partial(_parked, size))
        self._end_traffic()
        ((head, old),) = self.access.ask(
            "select max(position), count(*) filter (where type = %s and schema_version = 1) from log.event", OLD
        )
        self._count("in an old version", old)
        self.found.also["logs"][f"{head} facts"] = f"{old} in an old version, batches of {', '.join(map(str, self.sizes))}"
        live = self._judged(live_schema, head)
        said: dict[str, set[str]] = {}  # the digests of a view over all sizes, as rebuild says them
        for size in self.sizes:
            self._rename(partial(_parked, size), shadow_schema)
            digests = self._rebuild(size, dies=False)
            self._compare(live, self._judged(shadow_schema, head), f"batches of {size}")
            for view, digest in digests.items():
                said.setdefault(view, set()).add(digest)
            if self.ground.complete:
                self._wrong("verify says otherwise", self._verified() != head)
            if size != self.sizes[-1]:
                self._drop(shadow_schema)
        self._wrong("digests that differ between sizes", sum(len(different) - 1 for different in said.values()))
        if self.ground.complete:
            self._beside_traffic()

    def _beside_traffic(self) -> None:
        """Verify, promote, verify again, while the log grows and followers die; then what was promoted against a shadow of the end."""
        before = self.access.head()
        self._begin_traffic()
        until = time.monotonic() + 30
        while self.access.head() == before and time.monotonic() < until:
            self._go_on()
            time.sleep(0.02)
        self._count("verified beside traffic", (self._verified() or 0) > before)
        promoting = self.ground.fork("promote", _promote, self.access.follow)
        self._await([promoting])
        self._count("promoted beside traffic", promoting.code == 0)
        self._wrong("verify says otherwise", self._verified() is None)
        self._end_traffic()
        head = self.access.head()
        self._wrong("verify says otherwise", self._verified() != head)
        self._compare(self._judged(live_schema, head), self._judged(shadow_schema, head), "promoted")

    # -- the program, in processes of its own ----------------------------------------------------------------------------------------------

    def _rebuild(self, size: int, *, dies: bool) -> dict[str, str]:
        """Every view in a process of its own; what each said its digest is. With `dies` each is killed half way from where it stands."""
        head = self.access.head()
        children, before = [], {}
        for n, view in enumerate(followed()):
            at, _ = before[view.name] = self._shadow(view)
            batches = max(1, (head - at) // size // 2)
            self.stops.give(FOLLOWERS + n, self.rng.choice(("view written", "position moved")) if dies else None, batches)
            work = partial(_rebuild, self.stops, FOLLOWERS + n)
            children.append(self.ground.fork(f"rebuild {view.name} {size}", work, self.access.follow, view, size, self._record(view)))
        self._await(children)
        for n, (view, child) in enumerate(zip(followed(), children, strict=True)):
            killed = child.code == -signal.SIGKILL and self.stops.take(FOLLOWERS + n) is not None
            self._count("rebuild killed", killed)
            self._wrong("rebuilds that failed", not killed if dies else child.code != 0)
            at, oid = before[view.name]
            same = oid is not None and self._shadow(view)[1] == oid
            if view.name == Tally.name and self._older == oid:
                self._count("older shadow thrown away", not same)
            else:
                self._count("gone on with", same and at > 0)
                self._wrong("begun again", oid is not None and not same)
        return {v.name: self._record(v).read_text() for v, c in zip(followed(), children, strict=True) if not dies and c.code == 0}

    def _leave_older(self) -> None:
        """A rebuild of the tally by an older program, killed half way through a batch of its own size."""
        self.stops.give(FOLLOWERS, "view written", 3)
        work = partial(_rebuild, self.stops, FOLLOWERS)
        child = self.ground.fork("older", _as_older, work, self.access.follow, _Older(), 100, self._record(Tally()))
        self._await([child])
        self._older = self._shadow(Tally())[1]
        self._wrong("rebuilds that failed", self.stops.take(FOLLOWERS) is None)

    def _verified(self) -> int | None:
        """The position at which verify, in a process of its own, found everything equal."""
        record = self._record(Tally())
        child = self.ground.fork("verify", _verify, self.access.follow, record)
        self._await([child])
        position, different = json.loads(record.read_text()) if child.code == 0 else (0, ["verify failed"])
        if different:
            print(f"verify says: {different}")
        return None if different else position

    def _begin_traffic(self) -> None:
        first, self.next_window = self.next_window, self.next_window + 10_000
        self._began_at = self.access.head()
        asked, self.more = os.pipe()
        # No part of the program that is tried here: what it writes are rows as older and newer hubs encode them.
        self.writer = self.ground.fork("writer", _write, self.access.door, self.ground.seed, first, asked, self.more, hub=False)
        os.close(asked)
        self.pieces = PIECES[_size(self.ground)]
        self._go_on()

    def _go_on(self) -> None:
        """Let the writer append, and start again each follower that died, with another death before it."""
        if self.pieces and time.monotonic() > self.rested_at + PAUSE_S:
            os.write(self.more, b".")
            self.pieces, self.rested_at = self.pieces - 1, time.monotonic()
        for slot, child in enumerate(self.live):
            if child is None or child.ended():
                if child is not None:
                    self._count("follower killed", self.stops.take(slot) is not None)
                    self._wrong("followers that ended by themselves", child.code != -signal.SIGKILL)
                self.stops.give(slot, self.rng.choice(points.FOLLOW), self.rng.randint(1, 60))
                self.live[slot] = self.ground.fork(f"follow {slot}", _follow, self.stops, slot, self.access.owner)

    def _await(self, children: Sequence[Child]) -> None:
        """Until all have ended; the trial's bound ends what hangs. While there is traffic, followers die and come back."""
        while not all(child.ended() for child in children):
            if self.writer is not None:
                self._go_on()
            time.sleep(0.005)

    def _end_traffic(self) -> None:
        """Nothing new is written, and followers that do not die bring the live views to the head."""
        assert self.writer is not None
        for child in self.live:
            if child is not None:
                child.kill()
        self.live = [None] * FOLLOWERS
        writer, self.writer = self.writer, None
        os.close(self.more)  # the last end: whoever was forked meanwhile had it too, and has ended
        self._await([writer])
        self._wrong("writers that failed", writer.code != 0)
        self._count("appended beside", self.access.head() - self._began_at)
        follower = self.ground.fork("follow to the head", run_follow, self.access.owner)
        there = process.wait_until(
            lambda: followed_to(self.access, self.access.head()), self.ground.size(30, 7200) if self.ground.complete else 8, every=0.05
        )
        self._wrong("live views behind", not there)
        follower.send(signal.SIGTERM)
        if not follower.wait(10):
            follower.kill()

    # -- the oracle: plain SQL -------------------------------------------------------------------------------------------------------------

    def _judged(self, schema_of: Callable[[str], str], head: int) -> dict[str, dict[str, str]]:
        """What is in the schemas of all views: sha256 over the text of each table's rows. Counts what tally and stock lack or have twice."""
        tally, stock = schema_of("tally"), schema_of("stock")
        ((rows, distinct),) = self.access.ask(f"select count(*), count(distinct position) from {tally}.seen where position <= %s", head)  # noqa: S608
        self.found.twice += rows - distinct
        self.found.skipped += head - distinct
        ((unmade,),) = self.access.ask(
            f"""select count(*) from log.event e, lateral (select convert_from(e.data, 'UTF8')::jsonb as said) d
                where type = %s and schema_version = 1 and position <= %s and not exists (
                  select from {stock}.movement m where m.position = e.position and not m.inverse and m.item = said->>'item'
                  and m.lot = said->>'lot' and m.quantity = (said->>'quantity')::numeric and m.account = 'location/' || (said->>'location'))""",  # noqa: S608
            OLD,
            head,
        )
        self.found.skipped += unmade
        return {view.name: _contents(self.access, schema_of(view.name)) for view in followed()}

    def _compare(self, live: dict[str, dict[str, str]], other: dict[str, dict[str, str]], what: str) -> None:
        """Both have the same tables with the same rows."""
        for view, tables in live.items():
            for table in tables.keys() | other[view].keys():
                self._count("compared", 1)
                if tables.get(table) != other[view].get(table):
                    print(f"{what}: {view}.{table} is not what the live view has")
                    self._wrong("tables that differ", 1)
            self.found.runs += 1

    def _shadow(self, view: TableView) -> tuple[int, int | None]:
        """Position and identity of a shadow: one that is thrown away and made anew has another."""
        ((oid,),) = self.access.ask("select to_regnamespace(%s)::oid::bigint", shadow_schema(view.name))
        if oid is None:
            return 0, None
        return int(self.access.ask(f"select position from {shadow_schema(view.name)}.position")[0][0]), int(oid)  # noqa: S608 - our own names

    def _rename(self, old: Callable[[str], str], new: Callable[[str], str]) -> None:
        """Put the shadows of one size aside, or back: they keep mark and identity."""
        with psycopg.connect(self.access.owner) as connection:
            for view in followed():
                names = sql.Identifier(old(view.name)), sql.Identifier(new(view.name))
                connection.execute(sql.SQL("alter schema {} rename to {}").format(*names))

    def _drop(self, schema_of: Callable[[str], str]) -> None:
        with psycopg.connect(self.access.owner) as connection:
            for view in followed():
                connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema_of(view.name))))

    def _record(self, view: TableView) -> Path:
        return self.ground.folder / f"said-{view.name}"

    def _count(self, name: str, n: int) -> None:
        assert self.found.exercised is not None
        self.found.exercised[name] += n

    def _wrong(self, name: str, n: int) -> None:
        self.found.wrong[name] = self.found.wrong.get(name, 0) + n


OLD = "production.output_produced"  # the type that has an older version


def _size(ground: Ground) -> str:
    return "small" if ground.small else "whole"


def _parked(size: int, view: str) -> str:
    return f"parked_{size}_{view}"


def _contents(access: Access, schema: str) -> dict[str, str]:
    """Each table of a schema, `position` too: sha256 over its rows as text, all columns, sorted."""
    found = {}
    tables = access.ask("select relname from pg_class where relnamespace = %s::regnamespace and relkind = 'r'", schema)
    with psycopg.connect(access.owner) as connection:
        for (table,) in tables:
            query = sql.SQL('copy (select t::text from {} t order by t::text collate "C") to stdout').format(sql.Identifier(schema, table))
            digest = hashlib.sha256()
            with connection.cursor().copy(query) as copy:
                for block in copy:
                    digest.update(block)
            found[table] = digest.hexdigest()
    return found


def _rebuild(stops: Stops, slot: int, url: str, view: TableView, size: int, record: Path) -> None:
    stops.arm(slot, signal.SIGKILL)
    _, done = rebuild(url, [view], batch=size)
    record.write_text(done[view.name].digest)


def _as_older(work: Callable[..., None], *arguments: object) -> None:
    shadow.code = lambda: "older"  # type: ignore[assignment]
    work(*arguments)


def _verify(url: str, record: Path) -> None:
    position, result = verify(url, followed())
    different = [f"{view}.{name}: {table}" for view, tables in result.items() for name, table in tables.items() if not table.equal]
    record.write_text(json.dumps((position, different)))


def _promote(url: str) -> None:
    promote(url, followed())


def _follow(stops: Stops, slot: int, owner_url: str) -> None:
    stops.arm(slot, signal.SIGKILL)
    run_follow(owner_url)


def _write(url: str, seed: int, window: int, asked: int, more: int) -> None:
    """Append a piece for each byte that is asked, until the other end of the pipe is closed."""
    os.close(more)
    with Log(url) as log:
        rows: list[Row] = []
        while os.read(asked, 1):
            if not rows:
                rows, window = copies.rows(seed, window), window + 1
            log.append_rows(rows[:PIECE])
            del rows[:PIECE]


TRIAL = Trial(
    "replay",
    run,
    seconds=(240, 28_800),
    without={
        "position-guard": mechanisms.position_guard,
        "one-transaction": mechanisms.one_transaction,
        "shadow-mark": mechanisms.shadow_mark,
        "upcasting": mechanisms.upcasting,
    },
)
