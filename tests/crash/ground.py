"""What trials stand on: servers of their own in a temporary folder, processes forked from one import, and the end of all of them."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from hub.app.home import Home
from hub.app.servers import process
from hub.app.servers.cluster import DATABASE, OWNER, Cluster
from hub.app.servers.postgres import Database, to_url
from hub.log.migrate import migrate
from tests.crash.report import Found, History


class Missing(Exception):
    """A tool that a trial needs is not on this machine."""


@dataclass(frozen=True)
class Trial:
    """One trial. `without` maps each mechanism that it guards to the function that takes it away in a forked process.

    `seconds` bounds a run, small and whole; `last` puts it behind those whose histories it reads.
    """

    name: str
    run: Callable[["Ground"], Found]
    seconds: tuple[int, int]
    without: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    last: bool = False


class Server:
    """A private PostgreSQL with the settings of the hub's own, that the trial may crash."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(Home.open(folder))
        self._process: subprocess.Popen[bytes] | None = None
        self.sockets = Path()

    def start(self) -> None:
        """Start it, with recovery if it needs that, and wait until it takes connections."""
        self.sockets = self.cluster.prepare()
        self._process = started = self.cluster.start(self.sockets)
        if not process.wait_until(lambda: self.cluster.accepts(started.pid), 60):
            raise Missing(f"the private PostgreSQL did not start: {process.tail(self.cluster.log)}")

    def crash(self) -> None:
        """`pg_ctl stop -m immediate`: no checkpoint, no goodbye."""
        command = [str(self.cluster.bin / "pg_ctl"), "stop", "-m", "immediate", "-s", "-D", str(self.cluster.home.pg)]
        reaper = self._process  # pg_ctl waits until the pid is gone, which is our child: somebody has to reap it
        with subprocess.Popen(command, preexec_fn=self.cluster.identity.change, stderr=subprocess.PIPE, cwd="/") as stopping:  # noqa: PLW1509 - no threads here
            while stopping.poll() is None:
                if reaper is not None:
                    reaper.poll()
                time.sleep(0.005)
            said = stopping.stderr.read().decode() if stopping.stderr else ""
        if stopping.returncode:
            raise Missing(f"pg_ctl stop -m immediate failed: {said.strip()}")

    def end(self) -> None:
        """Stop it for good."""
        if self._process is not None:
            self.cluster.stop(self._process)
            self.cluster.home.drop_socket_dir()

    def url(self, database: str = DATABASE) -> str:
        """The owner's URL."""
        return to_url({"host": str(self.sockets), "user": OWNER, "dbname": database, "port": "5432"})


@dataclass
class Child:
    """A forked process."""

    name: str
    pid: int
    code: int | None = None

    def ended(self) -> bool:
        """Whether it has, without waiting; then `code` is its exit code, or minus the signal."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def send(self, signum: signal.Signals) -> None:
        if not self.ended():
            os.kill(self.pid, signum)

    def wait(self, seconds: float) -> bool:
        return process.wait_until(self.ended, seconds, every=0.005)

    def kill(self) -> None:
        """End it by SIGKILL and reap it."""
        self.send(signal.SIGKILL)
        self.wait(10)


class Ground:
    """What one run of one trial gets. Everything that it starts here is ended and removed when the run is over."""

    def __init__(
        self, folder: Path, server: Callable[[], Server], history: History, *, small: bool, seed: int, remove: Callable[[], None] | None
    ) -> None:
        self.folder, self.small, self.seed, self.history = folder, small, seed, history
        self._server, self._remove = server, remove
        self._children: list[Child] = []
        self.log = folder / "processes.log"

    @property
    def complete(self) -> bool:
        """Whether no mechanism is taken away."""
        return self._remove is None

    @property
    def removed(self) -> str:
        """What takes the mechanism away, as `module:function`, for a process that is not forked; empty if none is to be."""
        return f"{self._remove.__module__}:{self._remove.__name__}" if self._remove is not None else ""

    def size(self, small: int, whole: int) -> int:
        return small if self.small else whole

    def rng(self, part: str) -> random.Random:
        """The random numbers of one part of the plan: the same for the same seed."""
        return random.Random(f"{self.seed}/{part}")

    @contextlib.contextmanager
    def database(self) -> Iterator["Access"]:
        """An empty log in a database of its own."""
        owner, name = self._server(), f"trial_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(owner.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("create database {} encoding 'UTF8' locale 'C' template template0").format(sql.Identifier(name)))
        try:
            migrate(owner.url(name))
            yield Access(owner.url(name))
        finally:
            self.end()
            with psycopg.connect(owner.url("postgres"), autocommit=True) as connection:
                connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def fork(self, name: str, work: Callable[..., None], *arguments: Any, hub: bool = True) -> Child:
        """Run a function in a process of its own, which dies with us. `hub`: it is the program, from which a mechanism may be taken."""
        enter = process.ends_with_parent(signal.SIGKILL)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                enter()
                for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                    signal.signal(signum, signal.SIG_DFL)
                said = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.dup2(said, 1)
                os.dup2(said, 2)
                if hub and self._remove is not None:
                    self._remove()
                work(*arguments)
                code = 0
            except BaseException:  # noqa: BLE001 - nothing may return into the parent's frames
                os.write(2, f"{name}: {traceback.format_exc()}".encode())
            finally:
                os._exit(code)
        child = Child(name, pid)
        self._children = [c for c in self._children if c.code is None]
        self._children.append(child)
        return child

    def end(self) -> None:
        """Kill what still runs."""
        for child in self._children:
            child.kill()
        self._children = []


@dataclass(frozen=True)
class Access:
    """URLs of one database, as the hub makes them."""

    owner: str

    @property
    def door(self) -> str:
        return Database(self.owner).url("hub_door")

    @property
    def follow(self) -> str:
        return Database(self.owner).url("hub_follow")

    def head(self) -> int:
        """The last position of the log."""
        return int(self.ask("select coalesce(max(position), 0) from log.event")[0][0])

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of a query as the owner, on a connection of its own."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()
