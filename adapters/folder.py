"""A watched folder: a file is taken when it is whole, and moved to `done/` or `held/` after its outcome is durable.

Whole means renamed in, or not changed for a set time. A file that was durable but not yet moved when the hub died is taken again, answers as
duplicate, and is moved then. Names are kept for people and never used to tell what is in a file.
"""

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
BATCH_BYTES_MAX = 32 * 1024 * 1024  # what one batch reads into memory


class FolderAdapter:
    """Takes files from one folder; subfolders, links and hidden names are left alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._taken: set[str] = set()  # handed over and not yet moved

    @property
    def name(self) -> str:
        return f"folder {self.path}"

    def open(self) -> None:
        """Make the folder and its two for what was taken."""
        try:
            for folder in (self.path, self.path / "done", self.path / "held"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"the watched folder {self.path} cannot be used ({error}): correct its permissions or HUB_WATCH") from error
        self._taken.clear()

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
            if len(found) == limit or (found and size + bytes_ > BATCH_BYTES_MAX):
                break
            if bytes_ > limits.DELIVERY_BYTES_MAX:
                self._move(name, "held", "too-large")
                continue
            body = self._read(name)
            if body is not None:
                found.append(self._delivery(name, body))
                self._taken.add(name)
                size += len(body)
        return found

    def _whole(self) -> list[tuple[str, int]]:
        """(name, bytes) of regular files that have settled, in the order of their times, then names."""
        found: list[tuple[int, str, int]] = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name.lower().endswith(_PARTIAL) or entry.name in self._taken:
                        continue
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(info.st_mode) and time.time() - info.st_mtime >= limits.FOLDER_SETTLED_S:
                        found.append((info.st_mtime_ns, entry.name, info.st_size))
        except FileNotFoundError:
            return []  # moved by a person between listing and looking
        except OSError as error:
            raise Unavailable(f"the watched folder {self.path} cannot be read ({error}): correct its permissions") from error
        return [(name, size) for _, name, size in sorted(found)]

    def _read(self, name: str) -> bytes | None:
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                return file.read(limits.DELIVERY_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:  # one file must not hold up the others; it is told once and looked at again after a restart
            _log.warning("%s cannot be read (%s): correct its permissions or move it away", self.path / name, error)
            self._taken.add(name)
            return None

    def _delivery(self, name: str, body: bytes) -> Delivery:
        def done(outcome: Outcome) -> None:
            self._move(name, "held" if outcome.outcome in ("quarantined", "conflict") else "done", outcome.sha256[:12])
            self._taken.discard(name)

        headers = {"file_name": os.fsencode(name).decode("utf-8", "backslashreplace")}
        return Delivery(body, "folder", datetime.now(UTC), headers, done)

    def _move(self, name: str, folder: str, mark: str) -> None:
        """Move a file without ever overwriting another one of its name."""
        target = self.path / folder / name
        for n in range(1000):
            try:
                os.link(self.path / name, target, follow_symlinks=False)
                break
            except FileExistsError:
                target = self.path / folder / f"{mark}-{n}-{name}"[:250]
            except FileNotFoundError:
                return  # a person took it away; its content is kept in the log
        os.unlink(self.path / name)
        for changed in (target.parent, self.path):
            descriptor = os.open(changed, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(descriptor)
            os.close(descriptor)
