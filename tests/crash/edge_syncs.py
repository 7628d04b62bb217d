"""The edge's part of `fsync-order`: what a power cut would leave of its spool when an acknowledgement leaves.

The spool's two files are put together from the system calls of the edge: the bytes whose write had returned before a sync of that file was entered that
has itself returned before the acknowledgement was entered, and nothing else. SQLite opens that as it would after the power cut.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.plant import microseconds
from tests.crash.strace import Call

CALLS = ("pwrite64", "fsync", "fdatasync", "ftruncate", "unlink")


@dataclass
class _File:
    """The writes to one file in the order of their returns, and its syncs as (returned, writes that it covers)."""

    writes: list[tuple[int, bytes, int]] = field(default_factory=list)  # line of the return, bytes (none: cut off there), offset
    syncs: list[tuple[int, int]] = field(default_factory=list)

    def take(self, call: Call) -> None:
        if call.name == "pwrite64" and call.result > 0:
            self.writes.append((call.returned, call.data(), int(call.arguments.rpartition(", ")[2])))
        elif call.name == "ftruncate" and call.result == 0:
            self.writes.append((call.returned, b"", int(call.arguments.rpartition(", ")[2])))
        elif call.name in ("fsync", "fdatasync") and call.result == 0:
            self.syncs.append((call.returned, sum(returned < call.entered for returned, _, _ in self.writes)))

    def covered(self, line: int) -> int:
        """How many of its writes are on the disk for sure at a line of the trace."""
        return max((count for returned, count in self.syncs if returned < line), default=0)

    def image(self, count: int) -> bytes:
        made = bytearray()
        for _, data, at in self.writes[:count]:
            if not data:
                del made[at:]
            made.extend(bytes(max(0, at + len(data) - len(made))))
            made[at : at + len(data)] = data
        return bytes(made)


class Durable:
    """The spool as the disk has it. `calls` are those of the edge."""

    def __init__(self, spool: Path, folder: Path, calls: Sequence[Call]) -> None:
        self._folder, self._files = folder, {"": _File(), "-wal": _File()}
        self._known: dict[tuple[int, ...], frozenset[bytes]] = {}
        for call in calls:
            for end, file in self._files.items():
                if call.target == f"{spool}{end}":
                    file.take(call)

    @property
    def syncs(self) -> int:
        return sum(len(file.syncs) for file in self._files.values())

    def holds(self, line: int) -> frozenset[bytes]:
        """What is in the spool after a power cut at that line: posted bodies, and `TOPIC NUMBER MICROSECONDS` of each reading."""
        counts = tuple(file.covered(line) for file in self._files.values())
        if counts not in self._known:
            self._known[counts] = frozenset(self._read(counts))
        return self._known[counts]

    def _read(self, counts: Sequence[int]) -> Iterator[bytes]:
        self._folder.mkdir(exist_ok=True)
        for old in self._folder.iterdir():
            old.unlink()
        for (end, file), count in zip(self._files.items(), counts, strict=True):
            (self._folder / f"cut.db{end}").write_bytes(file.image(count))
        with contextlib.closing(sqlite3.connect(self._folder / "cut.db")) as db:
            if not db.execute("select 1 from sqlite_master where name = 'entry'").fetchone():
                return
            for transport, body in db.execute("select transport, body from entry"):
                if transport != "edge":
                    yield bytes(body)
                    continue
                for tag, value, at, *_ in json.loads(body)["readings"]:
                    yield f"{tag} {value} {microseconds(at)}".encode()
