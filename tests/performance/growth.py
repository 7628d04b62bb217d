"""The growth row: appending with ten million facts there, over several checkpoints, against appending to an empty log; the same for raw COPY.

The log is filled by SQL into the live table with its indexes in place, as appends leave them, because ten million appends take many minutes. Its rows are
what the door would have written: some that are read back and appended again must all be known, at the same positions.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import psycopg

from hub.log.codec import COPY, encode, packed, row_of
from hub.log.migrate import migrate
from hub.log.store import Accepted, Duplicate, Log
from tests import copied
from tests.conftest import new_database
from tests.facts import START, as_role
from tests.performance import append
from tests.performance.report import Row

SIZE = 5000
CHECKPOINT_FACTS = 20_000  # so many are appended between two checkpoints, after which whole pages go to the WAL again
SETTINGS = f"rows written by SQL into the live indexes; a checkpoint before every {CHECKPOINT_FACTS} facts, not timed itself; door and COPY on one table"

# Fact n: one of 10,000 streams in turn, data and envelope of one of the bench's own facts, key and digest as the door makes them.
_FILL = """
insert into log.event
select n, stream, (n - 1) / 10000 + 1, 'production.material_issued', 1, encode(substr(sha256(head || '\\x00'::bytea || key), 1, 16), 'hex')::uuid,
       sha256('production.material_issued'::bytea || '\\x00'::bytea || head || '\\x00'::bytea || key || '\\x00'::bytea
              || convert_to(us || ' ' || us, 'UTF8') || '\\x00'::bytea || data),
       'erp:main', convert_from(key, 'UTF8'), at, at, now(), %(meta)s, data
from (
  select n, 'erp:main'::bytea as head, convert_to(md5(n::text), 'UTF8') as key, at, (extract(epoch from at - '2000-01-01Z') * 1000000)::bigint::text as us,
         stream, data
  from (select n, %(start)s + n * interval '1 second' as at, replace(%(stream)s, '0000000', of) as stream,
               convert_to(replace(%(data)s, '"0000000"', '"' || of || '"'), 'UTF8') as data
        from generate_series(%(first)s::bigint, %(last)s) n, lateral (select lpad(((n - 1) %% 10000)::text, 7, '0') as of) o) a) f
"""


def rows(bench: append.Bench, only: str = "") -> Iterator[list[Row]]:
    """The rows of this file whose name begins with `only`."""
    if "append-at-10m".startswith(only):
        yield [Growth(bench).row("append-at-10m")]


class Growth:
    """The full log, and rounds that append to it and to an empty one."""

    def __init__(self, bench: append.Bench) -> None:
        self._bench = bench
        self.there = 100_000 if bench.small else 10_000_000
        self._each = len(bench.facts)
        self._seed = 100

    def row(self, name: str) -> Row:
        """Rates of the door with so much there, the door's own ratio of full to empty against that of COPY."""
        rounds = []
        with new_database(self._bench.owner_url) as full:
            self.fill(full)
            for _ in range(self._bench.rounds):
                with self._bench.log_url() as empty:
                    door_empty = self._door(empty)
                with self._bench.log_url() as empty:
                    copy_empty = self._copy(empty)
                door_full, copy_full = self._door(full), self._copy(full)
                rounds.append(
                    {
                        "value": door_full,
                        "peer_value": copy_full,
                        "empty": door_empty,
                        "peer_empty": copy_empty,
                        "ratio": (door_full / door_empty) / (copy_full / copy_empty),
                    }
                )
        value, peer, ratio = (statistics.median(r[name] for r in rounds) for name in ("value", "peer_value", "ratio"))
        return Row(name, "facts/s", value, "raw COPY, each against its own when empty", peer, ratio, ">=", 0.8, rounds, settings=SETTINGS)

    def fill(self, url: str) -> None:
        """A log of so many facts. Raises `AssertionError` where the door would have written others."""
        migrate(url)
        (sample,) = append.facts(1, 1)
        (fields,) = copied.rows(packed(encode(row_of(sample)), 1, 1, 0))
        *_, meta, data = fields
        stream = sample.event.stream()
        order = stream.partition("/")[2]
        said = {
            "meta": meta,
            "start": START,
            "stream": stream.replace(order, "0000000"),
            "data": data.decode().replace(f'"{order}"', '"0000000"'),
        }
        with psycopg.connect(url, autocommit=True) as owner:
            for first in range(1, self.there, 500_000):
                owner.execute(_FILL, {**said, "first": first, "last": min(first + 499_999, self.there)})
            owner.execute("vacuum (analyze) log.event")
        with Log(as_role(url, "hub_door")) as log:
            for after in (0, self.there // 2, self.there - 100):
                found = log.read(after, 100)
                results = log.append([one.fact for one in found])
                assert results == [Duplicate(after + n) for n in range(1, 101)], "the door would have written other rows than SQL did"
                assert all(one.version == (one.position - 1) // 10_000 + 1 and one.stream == one.event.stream() for one in found)

    def _door(self, url: str) -> float:
        """Facts a second through the door."""
        self._seed += 1
        parts = append.batches(append.facts(self._each, self._seed), SIZE)
        with Log(as_role(url, "hub_door")) as log:
            log.append(append.facts(10, self._seed + 10_000))

            def one(n: int) -> None:
                assert all(isinstance(result, Accepted) for result in log.append(parts[n]))

            return self._over_checkpoints(url, one, len(parts))

    def _copy(self, url: str) -> float:
        """Rows a second by raw COPY into the log's own table, in streams and positions of their own: encoded beforehand, a transaction a batch."""
        self._seed += 1
        with psycopg.connect(url) as owner:
            (head,) = owner.execute("select coalesce(max(position), 0) from log.event").fetchone() or (0,)
            owner.commit()
            bodies = append.packed_batches(append.facts(self._each, self._seed), SIZE, head, f"{self._seed}/", plain=False)

            def one(n: int) -> None:
                with owner.cursor().copy(COPY) as copy:
                    copy.write(bodies[n])
                owner.commit()

            return self._over_checkpoints(url, one, len(bodies))

    def _over_checkpoints(self, url: str, work: Callable[[int], None], parts: int) -> float:
        took = 0.0
        with psycopg.connect(url, autocommit=True) as owner:
            for n in range(parts):
                if n % (CHECKPOINT_FACTS // SIZE) == 0:
                    owner.execute("checkpoint")
                begun = time.perf_counter()
                work(n)
                took += time.perf_counter() - begun
        return self._each / took
