"""What of PostgreSQL's write-ahead log a power cut would leave, from the system calls on its files, and where transactions commit in it."""

import bisect
import re
import struct
from collections.abc import Iterable
from pathlib import Path

from tests.crash.strace import Call

SEGMENT = 16 * 1024 * 1024
PAGE = 8192
_NAME = re.compile(r".*/pg_wal/[0-9A-F]{8}([0-9A-F]{8})([0-9A-F]{8})")
_RECORD = struct.Struct("<IIQBB")  # xl_tot_len, xl_xid, xl_prev, xl_info, xl_rmid, as on every machine that the wheel is for
_RECORD_BYTES = 24
_TRANSACTION, _COMMIT, _OPERATION = 1, 0x00, 0x70  # resource manager, its operation, the mask of operations in xl_info


def lsn(text: str) -> int:
    """A position in the log as SQL shows it, such as 0/1A2B3C4."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


class Wal:
    """The log from one position to another, as its files hold it now."""

    def __init__(self, folder: Path, start: int, end: int) -> None:
        self.start, self.end = start, end
        self._base = start - start % SEGMENT
        (timeline,) = {path.name[:8] for path in folder.iterdir() if _NAME.fullmatch(str(path))}
        self._bytes = bytearray()
        for at in range(self._base, end, SEGMENT):
            self._bytes += (folder / f"{timeline}{at >> 32:08X}{at % (1 << 32) // SEGMENT:08X}").read_bytes()

    def commits(self) -> dict[int, int]:
        """The position behind the commit record of each transaction."""
        found: dict[int, int] = {}
        at = self.start
        while at < self.end:
            head, _ = self._take(at, _RECORD_BYTES)
            length, transaction, _, info, manager = _RECORD.unpack_from(head)
            if not length:
                break
            _, end = self._take(at, length)
            if manager == _TRANSACTION and info & _OPERATION == _COMMIT:
                found[transaction] = end
            at = end + -end % 8
        return found

    def _take(self, at: int, length: int) -> tuple[bytes, int]:
        """Bytes of records, which go on behind the header of each page; the position behind them."""
        found = b""
        while len(found) < length:
            if at % PAGE == 0:
                at += 24 if at % SEGMENT else 40
            part = min(length - len(found), PAGE - at % PAGE)
            found += self._bytes[at - self._base : at - self._base + part]
            at += part
        return found, at

    def durable(self, calls: Iterable[Call]) -> "Durable":
        """How far the log was on the disk, each time one of its files had been synced.

        A write counts that had returned when a sync of its file by whatever process was entered, from the return of that sync. The log reaches as
        far as the bytes so counted are those that its files hold in the end: a commit record that was not yet among them was not on the disk.
        """
        disk = bytearray(len(self._bytes))
        at = self.start - self.start % PAGE  # pages are written whole
        waiting: dict[str, list[tuple[int, int, bytes]]] = {}
        reached = Durable(at)
        for call in calls:
            name = _NAME.fullmatch(call.target)
            if name is None or call.result < 0:
                continue
            file = waiting.setdefault(call.target, [])
            if call.name == "pwrite64":
                offset = int(call.arguments.rpartition(", ")[2])
                file.append((call.returned, (int(name[1], 16) << 32) + int(name[2], 16) * SEGMENT + offset - self._base, call.data()))
            elif call.name in ("fdatasync", "fsync"):
                waiting[call.target] = [write for write in file if write[0] > call.entered]
                for returned, place, data in file:
                    if returned < call.entered and 0 <= place < len(disk):
                        disk[place : place + len(data)] = data
                at = self._same(disk, at)
                reached.add(call.returned, at)
        return reached

    def _same(self, disk: bytearray, at: int) -> int:
        """How far from a position on the disk holds what the log is."""
        while at < self.end:
            upto = min(at - at % PAGE + PAGE, self.end)
            mine, right = disk[at - self._base : upto - self._base], self._bytes[at - self._base : upto - self._base]
            if mine != right:
                return at + next(n for n, (a, b) in enumerate(zip(mine, right, strict=True)) if a != b)
            at = upto
        return at


class Durable:
    """How far the log was on the disk, by line of the trace."""

    def __init__(self, start: int) -> None:
        self._lines, self._reached = [-1], [start]

    def add(self, line: int, reached: int) -> None:
        self._lines.append(line)
        self._reached.append(reached)

    @property
    def syncs(self) -> int:
        return len(self._lines) - 1

    def before(self, line: int) -> int:
        """How far at the last sync that had returned."""
        return self._reached[bisect.bisect_left(self._lines, line) - 1]

    def first(self, position: int) -> int:
        """The number of the first sync that reached a position; `syncs` + 1 for one that none reached."""
        return bisect.bisect_left(self._reached, position)
