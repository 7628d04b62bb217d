"""The spool: what a plant said, kept on its disk until the hub has it.

One SQLite file. An entry is one delivery in a lane (a producer); its number counts up by one within the lane and epoch and is never used
again. `append` returns when the entries are on the disk (write-ahead log, `synchronous=FULL`), and only then is a source told. An entry goes
when the hub has acknowledged it durably and it has been kept for `resend` long enough; never before. A spool that is full refuses
(`SpoolFull`), so that the source keeps what it has.
"""

import json
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from events.canonical import time_text
from events.errors import Corrupt, Refused, Unavailable
from hub.points import reach

FORMAT = 1
_TABLES = """
create table meta (format integer not null, edge text not null, epoch text not null, made_at text not null);
create table lane (name text primary key, last integer not null, acked integer not null default 0, bytes integer not null default 0,
  kept integer not null default 0) without rowid;
create table entry (seq integer primary key autoincrement, lane text not null, n integer not null, received_at text not null,
  transport text not null, headers text not null, body blob not null, run text not null, unique (lane, n));
create table state (name text primary key, value blob not null) without rowid;
create table again (lane text not null, n integer not null, primary key (lane, n)) without rowid;
"""


class SpoolFull(Unavailable):
    """There is no room: the source must keep what it has and come again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A delivery on its way into the spool."""

    body: bytes
    transport: str
    received_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Addition:
    """Entries of one lane, made when the number of the first is known."""

    lane: str
    make: Callable[[int], Sequence[Entry]]


@dataclass(frozen=True, slots=True)
class Spooled:
    """An entry of the spool: its lane, its number there, and what came."""

    seq: int
    lane: str
    n: int
    received_at: str
    transport: str
    headers: str  # as JSON
    body: bytes
    run: str  # who wrote it: a random name of each opening of the spool


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane: the last number given and the last that the hub has, entries and bytes between, when the oldest of those came."""

    name: str
    last: int
    acked: int
    bytes: int
    oldest: str | None

    @property
    def backlog(self) -> int:
        return self.last - self.acked


class Spool:
    """One spool; safe to use from several threads. A second process may only look (`read_only`)."""

    def __init__(
        self,
        path: Path,
        edge: str,
        *,
        bytes_max: int = 1 << 30,
        keep_bytes: int = 64 << 20,
        keep_s: float = 24 * 3600,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        read_only: bool = False,
    ) -> None:
        self.path, self.bytes_max, self._keep_bytes, self._keep_s, self._now = path, bytes_max, keep_bytes, keep_s, now
        self._mutex, self._run = threading.Lock(), secrets.token_hex(8)
        self.arrived = threading.Event()  # set when something was spooled
        try:
            self._db = self._open(read_only)
            self.edge, self.epoch = self._identity(edge, read_only)
        except sqlite3.DatabaseError as error:
            raise _trouble(path, error) from error

    def _open(self, read_only: bool) -> sqlite3.Connection:
        if read_only and not self.path.exists():
            raise Unavailable(f"there is no spool at {self.path}: start the edge, or correct spool.path")
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        uri = f"{self.path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5)
        if not read_only:
            db.execute("pragma auto_vacuum = incremental")
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = full")
            db.execute("pragma journal_size_limit = 4194304")
        return db

    def _identity(self, edge: str, read_only: bool) -> tuple[str, str]:
        if not self._db.execute("select 1 from sqlite_master where name = 'meta'").fetchone():
            if read_only:
                raise Unavailable(f"the spool {self.path} is empty: start the edge first")
            with self._writing():
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute("insert into meta values (?, ?, ?, ?)", (FORMAT, edge, new_epoch(self._now()), time_text(self._now())))
        format_, owner, epoch = self._db.execute("select format, edge, epoch from meta").fetchone()
        if format_ != FORMAT:
            raise Refused(f"the spool {self.path} has format {format_}, this edge writes {FORMAT}: use the edge that wrote it to drain it")
        if edge and owner != edge:
            raise Refused(f"the spool {self.path} is of the edge {owner!r}, not of {edge!r}: correct `edge` or `spool.path`")
        return owner, epoch

    def close(self) -> None:
        """Close the file; what is in it stays."""
        with self._mutex:
            self._db.close()

    # -- in

    def append(self, lane: str, entries: Sequence[Entry], memory: Mapping[str, bytes] | None = None) -> int:
        """Make entries of one lane durable, in order; the number of the first. Raises `SpoolFull`."""
        return self.append_all([Addition(lane, lambda first: entries)], memory or {})[0]

    def append_all(self, additions: Sequence["Addition"], memory: Mapping[str, bytes]) -> list[int]:
        """Make additions durable together, with what is to be remembered; the number of the first entry of each.

        Raises `SpoolFull`, and then there is nothing of any; an empty spool takes any size.
        """
        firsts = []
        with self._mutex, self._writing():
            (held,) = self._db.execute("select coalesce(sum(bytes), 0) from lane").fetchone()
            alone = held == 0  # what alone is more than the bound must go through too, or it stops its source for ever
            for addition in additions:
                row = self._db.execute("select last from lane where name = ?", (addition.lane,)).fetchone()
                first = row[0] + 1 if row else 1
                entries = addition.make(first)
                size = sum(len(entry.body) for entry in entries)
                held += size
                if size and held > self.bytes_max and not alone:
                    raise SpoolFull(
                        f"the spool {self.path} would hold {held} bytes, at most {self.bytes_max} are allowed: bring the line to the hub back, or "
                        "raise spool.max"
                    )
                self._put(addition.lane, first, entries, size)
                firsts.append(first)
            self._db.executemany("insert into state values (?, ?) on conflict (name) do update set value = excluded.value", memory.items())
            reach("before spooled")
        reach("spooled")
        self.arrived.set()
        return firsts

    def _put(self, lane: str, first: int, entries: Sequence[Entry], size: int) -> None:
        if not entries:
            return
        self._db.executemany(
            "insert into entry (lane, n, received_at, transport, headers, body, run) values (?, ?, ?, ?, ?, ?, ?)",
            (
                (lane, n, time_text(e.received_at), e.transport, json.dumps(dict(e.headers)), e.body, self._run)
                for n, e in enumerate(entries, first)
            ),
        )
        self._db.execute(
            "insert into lane (name, last, bytes) values (?, ?, ?) on conflict (name) do update set last = excluded.last, bytes = bytes + excluded.bytes",
            (lane, first + len(entries) - 1, size),
        )

    def state(self, name: str) -> bytes | None:
        """What a source remembered."""
        with self._mutex:
            row = self._db.execute("select value from state where name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def states(self, prefix: str) -> dict[str, bytes]:
        """All that was remembered under names that begin so."""
        with self._mutex:
            rows = self._db.execute("select name, value from state where substr(name, 1, ?) = ?", (len(prefix), prefix)).fetchall()
        return {name: bytes(value) for name, value in rows}

    # -- out

    def waiting(self, limit: int, bytes_max: int) -> list[Spooled]:
        """What the hub does not have yet, oldest first in each lane and some of every lane, so that a long backlog in one holds up no other."""
        with self._mutex:
            lanes = self._db.execute("select name, acked from lane where last > acked order by last - acked, name").fetchall()
            found: list[Spooled] = []
            left, room = limit, bytes_max
            for done, (name, acked) in enumerate(lanes):
                share = -(-left // (len(lanes) - done))
                share_bytes = -(-room // (len(lanes) - done))
                for row in self._db.execute(f"{_ENTRY} where lane = ? and n > ? order by n limit ?", (name, acked, share)):
                    one = Spooled(*row)
                    if found and share_bytes < len(one.body):
                        break
                    found.append(one)
                    left -= 1
                    room -= len(one.body)
                    share_bytes -= len(one.body)
        return found

    def acknowledge(self, upto: Mapping[str, int]) -> None:
        """The hub has everything up to these numbers, durably."""
        with self._mutex, self._writing():
            for lane, n in upto.items():
                last, acked = self._db.execute("select last, acked from lane where name = ?", (lane,)).fetchone() or (0, 0)
                if n > last:
                    raise Corrupt(
                        f"the hub says that it has {n} of lane {lane}, of which the spool gave {last}: see epochs in docs/edge.md"
                    )
                if n > acked:
                    (size,) = self._db.execute(
                        "select sum(length(body)) from entry where lane = ? and n > ? and n <= ?", (lane, acked, n)
                    ).fetchone()
                    self._db.execute("update lane set acked = ?, bytes = bytes - ?, kept = kept + ? where name = ?", (n, size, size, lane))
        reach("spool acknowledged")

    def rewind(self, behind: Mapping[str, int]) -> list[tuple[str, int, int]]:
        """The hub has less than it said: what is still here of lanes behind these numbers waits again; (lane, first, last) of what is not."""
        lost = []
        with self._mutex, self._writing():
            for lane, n in behind.items():
                (first,) = self._db.execute(
                    "select coalesce(min(n), (select last + 1 from lane where name = ?1)) from entry where lane = ?1 and n > ?2", (lane, n)
                ).fetchone()
                (size,) = self._db.execute(
                    "select coalesce(sum(length(body)), 0) from entry join lane on name = lane where lane = ? and n > ? and n <= acked",
                    (lane, n),
                ).fetchone()
                self._db.execute(
                    "update lane set acked = ?, bytes = bytes + ?, kept = kept - ? where name = ?", (first - 1, size, size, lane)
                )
                if first > n + 1:
                    lost.append((lane, n + 1, first - 1))
        return lost

    def prune(self, limit: int = 5000) -> int:
        """Drop entries that the hub has and that were kept long enough for `resend`; how many."""
        before = time_text(datetime.fromtimestamp(self._now().timestamp() - self._keep_s, UTC))
        gone = 0
        with self._mutex, self._writing():
            lanes = self._db.execute("select name, acked, kept from lane where kept > 0").fetchall()
            kept = sum(lane[2] for lane in lanes)
            for lane, acked, _ in lanes:
                size = last = 0
                for n, length, at in self._db.execute(
                    "select n, length(body), received_at from entry where lane = ? and n <= ? order by n limit ?", (lane, acked, limit)
                ):
                    if at >= before and kept <= self._keep_bytes:
                        break
                    last, kept, size, gone = n, kept - length, size + length, gone + 1
                if last:
                    self._db.execute("delete from entry where lane = ? and n <= ?", (lane, last))
                    self._db.execute("update lane set kept = kept - ? where name = ?", (size, lane))
            if gone:
                self._db.execute("pragma incremental_vacuum(256)")
        return gone

    # -- again

    def send_again(self, lane: str, first: int, last: int) -> int:
        """Let entries that the hub has, and that are still here, be sent once more; how many."""
        with self._mutex, self._writing():
            return self._db.execute(
                """insert or ignore into again select e.lane, n from entry e join lane l on l.name = e.lane
                   where e.lane = ? and n between ? and ? and n <= acked""",
                (lane, first, last),
            ).rowcount

    def again(self, limit: int, bytes_max: int) -> list[Spooled]:
        """What was asked for once more."""
        with self._mutex:
            rows = self._db.execute(f"{_ENTRY} join again using (lane, n) order by lane, n limit ?", (limit,))
            found: list[Spooled] = []
            room = bytes_max
            for one in (Spooled(*row) for row in rows):
                room -= len(one.body)
                if found and room < 0:
                    break
                found.append(one)
        return found

    def sent_again(self, sent: Iterable[Spooled]) -> None:
        """The hub has it once more."""
        with self._mutex, self._writing():
            self._db.executemany("delete from again where lane = ? and n = ?", [(one.lane, one.n) for one in sent])

    # -- epochs and numbers

    def differs(self, upto: Mapping[str, int], runs: Mapping[str, str]) -> bool:
        """Whether the hub has, as the last of some lane, an entry that this spool never gave or another than it gave under that number: this spool
        was lost or put back from a copy, and since then numbers were used again. `runs`: who wrote the hub's last of each lane."""
        with self._mutex:
            for lane, n in upto.items():
                last, acked = self._db.execute("select last, acked from lane where name = ?", (lane,)).fetchone() or (0, 0)
                row = self._db.execute("select run from entry where lane = ? and n = ?", (lane, n)).fetchone()
                if n > last or (n > acked and row and runs.get(lane) and row[0] != runs[lane]):
                    return True
        return False

    def new_epoch(self) -> str:
        """Begin a new epoch, because the numbers of this one are not sure any more: what the hub does not have is numbered from 1 again."""
        with self._mutex, self._writing():
            self.epoch = new_epoch(self._now())
            self._db.execute("update meta set epoch = ?", (self.epoch,))
            self._db.execute("delete from again")
            for name, acked in self._db.execute("select name, acked from lane").fetchall():
                self._db.execute("delete from entry where lane = ? and n <= ?", (name, acked))
                self._db.execute("update entry set n = -(n - ?) where lane = ?", (acked, name))  # two steps: numbers are unique
                self._db.execute("update entry set n = -n where lane = ?", (name,))
            self._db.execute("update lane set last = last - acked, acked = 0, kept = 0")
        return self.epoch

    def lanes(self) -> list[Lane]:
        """All lanes by name."""
        with self._mutex:
            return [
                Lane(*row)
                for row in self._db.execute(
                    """select name, last, acked, bytes, (select received_at from entry e where e.lane = l.name and e.n = l.acked + 1)
                       from lane l order by name"""
                )
            ]

    def disk(self) -> dict[str, int]:
        """Bytes of the file and of what the hub does not have, and the bound."""
        with self._mutex:
            (held,) = self._db.execute("select coalesce(sum(bytes), 0) from lane").fetchone()
        size = sum(f.stat().st_size for f in (self.path, self.path.with_name(self.path.name + "-wal")) if f.exists())
        return {"file_bytes": size, "backlog_bytes": held, "bytes_max": self.bytes_max}

    # -- inside

    def _writing(self) -> "_Transaction":
        return _Transaction(self)


class _Transaction:
    """One transaction: durable when it ends well, nothing of it otherwise."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def __enter__(self) -> None:
        try:
            self._spool._db.execute("begin immediate")
        except sqlite3.DatabaseError as error:
            raise _trouble(self._spool.path, error) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        db = self._spool._db
        try:
            if error is None:
                db.execute("commit")
            elif db.in_transaction:
                db.execute("rollback")
        except sqlite3.DatabaseError as failed:
            if db.in_transaction:
                db.execute("rollback")
            raise _trouble(self._spool.path, failed) from failed
        if isinstance(error, sqlite3.DatabaseError):
            raise _trouble(self._spool.path, error) from error


_ENTRY = "select seq, lane, n, received_at, transport, headers, body, run from entry"


def new_epoch(now: datetime) -> str:
    """A name for a run of numbers that nobody else has used: its time, for people, and 64 random bits."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}"


def _trouble(path: Path, error: sqlite3.DatabaseError) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return SpoolFull(f"the disk of the spool {path} is full: make room; until then the sources keep what they have")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt(f"the spool {path} cannot be read ({error}): keep the file, move it away, and start the edge with an empty one")
    return Unavailable(f"the spool {path} cannot be used ({error}): look at its disk and rights")
