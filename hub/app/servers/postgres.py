"""PostgreSQL as a command finds it: `with database(settings) as db` gives a server of one's own, or starts or joins the home's private one.

The private server belongs to the keeper (`keeper.py`). Being a user means holding `run/users.lock` shared; the kernel frees it even
after kill -9. The last user to leave waits until keeper and server have gone, so that nothing is left running.

Errors: `Unavailable` (exit 3) when no server can be had, `ConfigError` (exit 2) when it is one we cannot use.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
from psycopg import conninfo, sql

from events.errors import Unavailable
from hub import limits
from hub.app.home import Home, write_atomically
from hub.app.servers import process
from hub.app.servers.cluster import DATABASE, OWNER, leftovers
from hub.app.settings import ConfigError, Settings
from hub.log.migrate import ROLES, login_name

START_S = 150.0
"""Longest wait for the private server: another one's shutdown, initdb, recovery."""

LEAVE_S = 10.0
CONNECT_S = 10
SERVER_VERSION_MIN = 150000

_NOT_FOR_SERVERS = ("HUB_API_TOKEN", "HUB_DATABASE_URL", "HUB_TOKEN", "PYTHONPATH")
_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Server:
    """The private server as it runs now, from `run/postgres.json`."""

    pid: int
    started: int
    socket_dir: str
    port: int
    since: str
    restarts: int
    keeper: int

    @property
    def alive(self) -> bool:
        return process.start_ticks(self.pid) == self.started


@dataclass(frozen=True)
class Database:
    """Where the log is: libpq URLs by role. `passwords` is None where the private server trusts its socket folder."""

    owner_url: str = field(repr=False)
    passwords: dict[str, str] | None = field(default=None, repr=False)
    private: PrivateServer | None = None

    def url(self, role: str) -> str:
        """The URL to connect as one of `ROLES`."""
        if role not in ROLES:
            raise ValueError(f"role {role!r} is none of the hub's: use one of {', '.join(ROLES)}, or owner_url in migrations")
        parts = conninfo.conninfo_to_dict(self.owner_url)
        parts.pop("passfile", None)
        options = f"{parts.get('options') or ''} -c timezone=UTC -c datestyle=ISO".strip()  # whatever the server and PGTZ say
        if role != "hub_read":  # a reader may wait for a pager with its answer; who writes and stops holds up everybody
            options += f" -c idle_in_transaction_session_timeout={limits.IDLE_IN_TRANSACTION_S * 1000:.0f}"
        if self.passwords is None:
            return to_url({**parts, "user": role, "password": None, "options": options})
        login = login_name(role, self.passwords)
        return to_url({**parts, "user": login, "password": self.passwords[role], "options": f"{options} -c role={role}"})


@contextlib.contextmanager
def database(settings: Settings, *, wait_s: float = START_S) -> Iterator[Database]:
    """The database for the time of a `with` block; it exists and takes connections, its tables and roles are the migrations' work."""
    home = Home.open(settings.home)
    if settings.database_url is not None:
        yield Database(external(settings.database_url), role_passwords(home))
        return
    private = PrivateServer(home)
    private.join(wait_s)
    try:
        server = private.ensure(wait_s)
        yield Database(
            to_url(
                {
                    "user": OWNER,
                    "dbname": DATABASE,
                    "host": server.socket_dir,
                    "port": server.port,
                }
            ),
            None,
            private,
        )
    finally:
        private.leave()


class PrivateServer:
    """One user's part in the home's private server: `join`, `ensure`, use it, `leave`."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._user: int | None = None

    def join(self, wait_s: float = START_S) -> None:
        """Become a user of the home; waits while a keeper that saw no users is shutting down."""

        def joined() -> bool:
            self._user = process.try_lock(self.home.users_lock, shared=True)
            return self._user is not None

        if self._user is None and not process.wait_until(joined, wait_s):
            raise Unavailable(
                f"home {self.home.path}: its keeper did not end within {wait_s:g} s: look into {self.home.log / 'keeper.log'}"
            )

    def current(self) -> Server | None:
        """The running server, if it takes connections."""
        try:
            found = Server(**json.loads(self.home.postgres_json.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.alive else None

    def start_keeper(self) -> bool:
        """Start a keeper unless there is one. The lock we test with is the one it inherits, so that there are never two."""
        lock = process.try_lock(self.home.keeper_lock)
        if lock is None:
            return False
        try:
            self.home.postgres_json.unlink(missing_ok=True)
            self.home.postgres_error.unlink(missing_ok=True)
            log = self.home.log / "keeper.log"
            process.bound_log(log)
            kept = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_SERVERS}
            kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
            with open(log, "ab") as output:
                subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "hub.app.servers.keeper",
                        str(self.home.path),
                        str(lock),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=kept,
                    pass_fds=(lock,),
                    start_new_session=True,
                    check=True,
                )
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(
                f"keeper of {self.home.path} cannot be started ({error}): {process.tail(self.home.log / 'keeper.log')}"
            ) from error
        finally:
            os.close(lock)
        return True

    def ensure(self, wait_s: float = START_S) -> Server:
        """The server, taking connections; starts the keeper if there is none. Call it again after losing the connection for good."""
        old = self._failed_at()
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if (server := self.current()) is not None and not self._keeper_gone():
                return server
            if self._failed_at() != old and (failure := self.failure()) is not None:
                raise Unavailable(failure)
            self.start_keeper()
            time.sleep(0.01)
        raise Unavailable(
            f"private PostgreSQL of {self.home.path} takes no connections after {wait_s:g} s: "
            f"look into {self.home.log / 'postgres.log'} and keeper.log"
        )

    def leave(self, wait_s: float = LEAVE_S) -> None:
        """Stop being a user; the last one waits, at most `wait_s`, until keeper and server have gone."""
        if self._user is None:
            return
        os.close(self._user)
        self._user = None
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline and not (self._keeper_gone() and not leftovers(self.home)):
            if self._others():
                return
            time.sleep(0.02)

    def _keeper_gone(self) -> bool:
        lock = process.try_lock(self.home.keeper_lock)
        if lock is not None:
            os.close(lock)
        return lock is not None

    def _others(self) -> bool:
        """Whether somebody uses the home: not exclusively to be had, yet shared. One asks at a time, or askers would see each other."""
        with process.locked(self.home.leave_lock):
            alone = process.try_lock(self.home.users_lock)
            if alone is not None:
                os.close(alone)
                return False
            beside = process.try_lock(self.home.users_lock, shared=True)
            if beside is not None:
                os.close(beside)
            return beside is not None

    def failure(self) -> str | None:
        """What the last keeper gave up for, while no other has been started."""
        try:
            return self.home.postgres_error.read_text("utf-8").strip() if self._keeper_gone() else None
        except OSError:
            return None

    def _failed_at(self) -> tuple[int, int] | None:
        """Which failure is on record, to tell a new one from an old one."""
        try:
            info = self.home.postgres_error.stat()
        except OSError:
            return None
        return info.st_ino, info.st_mtime_ns


# -- a server of one's own --


def external(url: str) -> str:
    """Check the owner's access, create the database if it is missing, and return the URL that names it."""
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise ConfigError(
            f"HUB_DATABASE_URL cannot be read ({str(error).strip()}): write postgresql://owner:password@host:5432/{DATABASE}"
        ) from error
    name = str(parts.get("dbname") or DATABASE)
    complete = to_url({"connect_timeout": CONNECT_S, **parts, "dbname": name})
    try:
        _check_version(complete)
    except psycopg.OperationalError as error:
        if not _create_missing(to_url({"connect_timeout": CONNECT_S, **parts, "dbname": "postgres"}), name):
            raise _unreachable(parts, name, error) from error
        _check_version(complete)
    return complete


def _check_version(url: str) -> None:
    with psycopg.connect(url) as connection:
        if connection.info.server_version < SERVER_VERSION_MIN:
            raise ConfigError(f"HUB_DATABASE_URL: the server is PostgreSQL {connection.info.server_version // 10000}: use 15 or newer")


def _create_missing(maintenance_url: str, name: str) -> bool:
    """True if the database was missing and is there now."""
    try:
        with psycopg.connect(maintenance_url, autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return False
            create = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0").format(sql.Identifier(name))
            with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(create)
            return True
    except psycopg.errors.InsufficientPrivilege as error:
        remedy = f"create it as an administrator (CREATE DATABASE {name} OWNER …) or name an existing one in HUB_DATABASE_URL"
        raise Unavailable(f"database {name!r} does not exist and this user may not create it: {remedy}") from error
    except psycopg.OperationalError:
        return False


def _unreachable(parts: Mapping[str, object], name: str, error: Exception) -> Unavailable:
    cause = " ".join(str(error).split())
    place = parts.get("host") or "the local socket"
    return Unavailable(f"database {name!r} on {place} cannot be used ({cause}): start the server or correct HUB_DATABASE_URL")


def role_passwords(home: Home) -> dict[str, str]:
    """The roles' passwords on a server of one's own, made once and kept in `secrets/roles.json` with mode 0600."""
    file = home.secrets / "roles.json"
    with process.locked(home.secrets / "roles.lock"):
        try:
            kept = json.loads(file.read_text("utf-8"))
            missing = [role for role in ROLES if not isinstance(kept.get(role), str)]
        except FileNotFoundError:
            kept, missing = {}, list(ROLES)
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{file} cannot be read ({error}): restore it, or remove it and run the migrations to set new passwords"
            ) from error
        if missing:
            kept.update({role: secrets.token_urlsafe(32) for role in missing})
            write_atomically(file, json.dumps(kept) + "\n")
        return {role: kept[role] for role in ROLES}


def to_url(parts: Mapping[str, object]) -> str:
    """A libpq URL of connection parameters; None and empty ones are left out."""
    given = {name: str(value) for name, value in parts.items() if value not in (None, "")}
    user, password, name = (
        given.pop("user", ""),
        given.pop("password", ""),
        given.pop("dbname", ""),
    )
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = urlencode(given, quote_via=quote, safe="")
    return f"postgresql://{login}{'@' if login else ''}/{quote(name, safe='')}{'?' if query else ''}{query}"
