"""Home: the folder that holds a hub's state, its private servers and its locks, and the check that we can read it.

    home/            0700
      VERSION        the home's format; another one is refused, never half read
      hub.toml       settings (optional, written by people)
      pg/            the private PostgreSQL cluster         broker/   the demo broker's store and configuration
      inbox/         watched folder of the demo             spool/    the edge's durable store
      secrets/       files of mode 0600                     run/      locks, pids and sockets; run/log/ what processes say, run/metrics/ in numbers

Errors: `HomeRefused`, a `ConfigError` (exit code 2).
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from hub.app.settings import ConfigError

FORMAT = "1"
"""Format of a home. Raise it when an older hub could misread what a newer one keeps here, and migrate in `Home.open`."""

SOCKET_PATH_BYTES_MAX = 100
"""A unix socket's path has 108 bytes on Linux, 104 elsewhere."""

_SOCKET_NAME = "/.s.PGSQL.5432.lock"
_FOLDERS = ("run", "run/log", "run/metrics", "run/pg", "broker", "inbox", "spool", "secrets")
_KNOWN = {"VERSION", "hub.toml", "pg", *(name for name in _FOLDERS if "/" not in name)}


class HomeRefused(ConfigError):
    """This folder cannot be used as a home: foreign, of another format, or not ours."""


class Home:
    """Paths of one home. Making the object touches nothing; `Home.open` creates and checks."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(os.path.abspath(path))
        self.pg = self.path / "pg"
        self.broker = self.path / "broker"
        self.inbox = self.path / "inbox"
        self.spool = self.path / "spool"
        self.secrets = self.path / "secrets"
        self.run = self.path / "run"
        self.log = self.run / "log"
        self.metrics = self.run / "metrics"
        self.users_lock = self.run / "users.lock"
        self.leave_lock = self.run / "leave.lock"
        self.keeper_lock = self.run / "keeper.lock"
        self.supervisor_lock = self.run / "supervisor.lock"
        self.postgres_json = self.run / "postgres.json"
        self.postgres_error = self.run / "postgres.error"
        self.processes_json = self.run / "processes.json"
        self._socket_record = self.run / "socket_dir"

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    @classmethod
    def open(cls, path: Path | str) -> Home:
        """Create the home or check that it is one of ours; raises `HomeRefused`. Safe when several processes do it at once."""
        home = cls(path)
        try:
            home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            home._check_owner()
            home._check_format()
            for name in _FOLDERS:
                (home.path / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise HomeRefused(
                f"home {home.path} cannot be used ({error}): correct its permissions or set HUB_HOME to another folder"
            ) from error
        return home

    def _check_owner(self) -> None:
        info = self.path.stat()
        if info.st_uid != os.geteuid():
            raise HomeRefused(
                f"home {self.path} belongs to uid {info.st_uid}, not to you (uid {os.geteuid()}): set HUB_HOME to a folder of your own"
            )
        if info.st_mode & 0o066:
            self.path.chmod(0o700)

    def _check_format(self) -> None:
        marker = self.path / "VERSION"
        if not marker.exists():
            foreign = sorted(
                entry for entry in os.listdir(self.path) if entry not in _KNOWN and not entry.startswith((".VERSION-", "pg.init-"))
            )
            if foreign or (self.pg / "PG_VERSION").exists():
                what = foreign[0] if foreign else "pg"
                raise HomeRefused(
                    f"folder {self.path} has no VERSION but holds {what!r}, so it is no home of this hub: "
                    "set HUB_HOME to an empty folder, or move its content away"
                )
            write_atomically(marker, FORMAT + "\n")
        found = marker.read_text("utf-8", "replace").strip()
        if found != FORMAT:
            newer = found.isdigit() and int(found) > int(FORMAT)
            remedy = "use the newer hub that made it" if newer else "use the hub that made it"
            raise HomeRefused(
                f"home {self.path} has format {found[:40]!r}, this hub reads {FORMAT}: {remedy}, or set HUB_HOME to another folder "
                "and copy the log there (docs: moving a log)"
            )

    # -- the folder of the database's unix socket --

    def socket_dir(self) -> Path | None:
        """Where the private database's socket is, or None if a short folder is needed and none is recorded or left."""
        usual = self.run / "pg"
        if len(os.fsencode(str(usual) + _SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX:
            return usual
        try:
            recorded = Path(self._socket_record.read_text("utf-8").strip())
            info = recorded.lstat()
        except (OSError, ValueError):
            return None
        ours = info.st_uid == os.geteuid() or os.geteuid() == 0  # root may have handed it to the server's own uid
        private = stat.S_ISDIR(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o700 and ours
        return recorded if private else None

    def make_socket_dir(self) -> Path:
        """As `socket_dir`, making a private folder in the system's temp folder where the home's own path is too long."""
        found = self.socket_dir()
        if found is None:
            found = Path(tempfile.mkdtemp(prefix="hub-"))
            if len(os.fsencode(str(found) + _SOCKET_NAME)) > SOCKET_PATH_BYTES_MAX:
                found.rmdir()
                raise HomeRefused(
                    f"temp folder {found.parent} has too long a path for a unix socket: set TMPDIR to a short one such as /tmp"
                )
            write_atomically(self._socket_record, f"{found}\n")
        return found

    def drop_socket_dir(self) -> None:
        """Remove the folder in the temp folder, if there is one; for the keeper, once the server has gone."""
        found = self.socket_dir()
        if found is None or found == self.run / "pg":
            return
        for entry in found.iterdir():
            if entry.name.startswith(".s.PGSQL."):
                entry.unlink(missing_ok=True)
        found.rmdir()
        self._socket_record.unlink(missing_ok=True)


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a small file so that a reader sees the old or the new one, whole, even after power loss."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, mode)
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
