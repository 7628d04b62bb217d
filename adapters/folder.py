"""A watched folder: a file is taken when it is whole, and moved to `done/` or `held/` after its outcome is durable.

Whole means not changed for a set time while it was looked at; a file renamed in that was written to last so long before is taken at once. No
time of day enters this: clocks jump, and those of other machines differ. A file that was durable but not yet moved when the hub died is taken
again, answers as duplicate, and is moved then. Only the very file that was read is moved: one that has come under its name meanwhile stays and
is taken next. Names are kept for people and never used to tell what is in a file.
"""

import itertools
import logging
import os
import stat
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from events.errors import Unavailable
from hub import limits
from hub.intake.delivery import Delivery, Outcome

_log = logging.getLogger(__name__)
_PARTIAL = (".tmp", ".part", ".partial", ".filepart")

_Look = tuple[int, int, int]  # time of the last write, of the last change of any kind, bytes
_Stamp = tuple[int, int, int, int]  # device, inode, bytes, time of the last change: which file it was, and that it has not changed since


class FolderAdapter:
    """Takes files from one folder; subfolders, links and hidden names are left alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._taken: set[str] = set()  # handed over and not yet moved
        self._seen: dict[str, tuple[_Look, float]] = {}  # how each file that is there looks, and since when on the monotonic clock
        self._made = False

    @property
    def name(self) -> str:
        return f"folder {self.path}"

    def open(self) -> None:
        """Make the folder and its two for what was taken; a folder that was there and is gone is waited for."""
        try:
            if not self._made:
                self.path.mkdir(parents=True, exist_ok=True)
            for name in ("done", "held"):
                (self.path / name).mkdir(exist_ok=True)
        except OSError as error:
            raise Unavailable(
                f"the watched folder {self.path} cannot be used ({error}): bring it back, correct its permissions, or correct HUB_WATCH"
            ) from error
        self._made = True
        self._taken.clear()
        self._seen.clear()

    def receive(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        """Whole files, oldest first."""
        until = time.monotonic() + wait_s
        while True:
            found = self._look(limit)
            if found or time.monotonic() >= until:
                return found
            time.sleep(min(0.2, max(0.0, until - time.monotonic())))

    def close(self) -> None:
        """Nothing to disconnect."""

    def _look(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        size = 0
        for name, bytes_ in self._whole():
            if len(found) == limit or (found and size + bytes_ > limits.FOLDER_BATCH_BYTES_MAX):
                break
            if (read := self._read(name)) is None:
                continue
            body, stamp = read
            self._taken.add(name)
            if len(body) > limits.DELIVERY_BYTES_MAX:
                _log.warning("%s is larger than %d bytes and was not read: it is in held/", self.path / name, limits.DELIVERY_BYTES_MAX)
                self._put_away(name, "held", "too-large", stamp)
                continue
            found.append(self._delivery(name, body, stamp))
            size += len(body)
        return found

    def _whole(self) -> list[tuple[str, int]]:
        """(name, bytes) of regular files that have settled, in the order of their times, then names."""
        found: list[tuple[int, str, int]] = []
        before, self._seen = self._seen, {}
        now = time.monotonic()
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name.lower().endswith(_PARTIAL) or entry.name in self._taken:
                        continue
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # moved by a person between listing and looking
                    if not stat.S_ISREG(info.st_mode):
                        continue
                    look = info.st_mtime_ns, info.st_ctime_ns, info.st_size
                    known, since = before.get(entry.name, (look, now))
                    self._seen[entry.name] = look, since if known == look else now
                    # a write sets both times to the same: the second is later by so much only if it was renamed, or its times set, so long after
                    came_whole = info.st_ctime_ns - info.st_mtime_ns >= limits.FOLDER_SETTLED_S * 1e9
                    if came_whole or now - self._seen[entry.name][1] >= limits.FOLDER_SETTLED_S:
                        found.append((info.st_mtime_ns, entry.name, info.st_size))
        except OSError as error:
            raise Unavailable(
                f"the watched folder {self.path} cannot be read ({error}): bring it back, or correct its permissions"
            ) from error
        return [(name, size) for _, name, size in sorted(found)]

    def _read(self, name: str) -> tuple[bytes, _Stamp] | None:
        """The bytes, or the first of those that are too many, and which file it was."""
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                stamp = _stamp(os.fstat(descriptor))
                size = stamp[2]
                body = file.read(limits.DELIVERY_BYTES_MAX + 1)
                if len(body) != min(size, limits.DELIVERY_BYTES_MAX + 1) or _stamp(os.fstat(descriptor)) != stamp:
                    return None  # it is being written: looked at again when it has settled
                return body, stamp
        except FileNotFoundError:
            return None
        except OSError as error:  # one file must not hold up the others; it is told once and looked at again after a restart
            _log.warning("%s cannot be read (%s): correct its permissions or move it away", self.path / name, error)
            self._taken.add(name)
            return None

    def _delivery(self, name: str, body: bytes, stamp: _Stamp) -> Delivery:
        def done(outcome: Outcome) -> None:
            folder = "held" if outcome.outcome in ("quarantined", "conflict") else "done"
            self._put_away(name, folder, outcome.sha256[:12], stamp)

        headers = {"file_name": os.fsencode(name).decode("utf-8", "backslashreplace")}
        return Delivery(body, "folder", datetime.now(UTC), headers, done)

    def _put_away(self, name: str, folder: str, mark: str, stamp: _Stamp) -> None:
        """Move a file that is dealt with; what cannot be moved is told, and is taken again after a restart."""
        try:
            self._move(name, folder, mark, stamp)
        except OSError as error:  # one file must not hold up the others
            _log.warning("%s is in the log but cannot be moved to %s/ (%s): move it away", self.path / name, folder, error)
            return
        self._taken.discard(name)

    def _move(self, name: str, folder: str, mark: str, stamp: _Stamp) -> None:
        (self.path / folder).mkdir(exist_ok=True)
        try:
            if _stamp(os.stat(self.path / name, follow_symlinks=False)) != stamp:
                return  # another one has come under its name, or it was written to: what was read is in the log, this is taken next
            target = _rename(self.path / name, self.path / folder, mark)
        except FileNotFoundError:
            return  # a person took it away; its content is kept in the log
        if _stamp(os.stat(target, follow_symlinks=False)) != stamp:  # it came between the look and the move
            _rename(target, self.path, mark)
        for changed in (target.parent, self.path):
            descriptor = os.open(changed, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(descriptor)
            os.close(descriptor)


def _stamp(info: os.stat_result) -> _Stamp:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _rename(source: Path, folder: Path, mark: str) -> Path:
    """Move a file under its name, or one with a mark before it, without ever overwriting another one; where it is now."""
    for n in itertools.count():
        name = source.name if n == 0 else os.fsdecode(os.fsencode(f"{mark}-{n}-{source.name}")[:250])
        target = folder / name
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # the name is ours, also where there are no hard links
        except FileExistsError:
            continue
        try:
            os.rename(source, target)
        except BaseException:
            os.unlink(target)
            raise
        return target
    raise AssertionError("unreachable")
