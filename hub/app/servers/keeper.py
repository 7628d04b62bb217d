"""Keeper: the small process that owns a home's private PostgreSQL for as long as anybody uses the home.

`python -m hub.app.servers.keeper HOME [LOCK_FD]`. One per home: it holds `run/keeper.lock`, handed over by the user that started it so
that two are never started at once. Every user of the home holds `run/users.lock` shared. The keeper tries it exclusively; once it has
succeeded for `GRACE_S`, nobody is there, and it keeps that lock until it has gone: a user who comes meanwhile waits for it and then
starts a fresh keeper. While the server takes connections `run/postgres.json` says where; a failure is told in `run/postgres.error`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from events.errors import Unavailable
from hub.app.home import Home, write_atomically
from hub.app.servers import process
from hub.app.servers.cluster import PORT, Cluster
from hub.app.settings import ConfigError

GRACE_S = 0.3
"""How long nobody must have used the home before its server is stopped: commands that follow one another share it."""

PROBE_S = 0.05
READY_S = 120.0
"""Longest wait for a start: recovery after a crash reads up to max_wal_size."""

FIRST_TRIES = 3
"""Starts that may fail in a row before the first success; after it the keeper never gives up while it has users."""

PAUSE_S_MAX = 5.0
LEAVE_S = 5.0
"""On SIGTERM users get this long to leave before the server is stopped under them."""


class Keeper:
    """The loop: server up, users there, or else end. `lock` is the descriptor that holds the keeper lock."""

    def __init__(self, home: Home, lock: int) -> None:
        self.home, self.lock = home, lock
        self.users: int | None = None
        self.alone_since: float | None = None
        self.told_to_stop_at: float | None = None
        self.failed = self.restarts = 0

    def run(self) -> None:
        """Until nobody uses the home or we are told to stop."""
        cluster = Cluster(self.home)
        server: subprocess.Popen[bytes] | None = None
        try:
            while not self._finished():
                if server is None or server.poll() is not None:
                    if server is not None:
                        self._died(server)
                    server = self._start(cluster)
                time.sleep(PROBE_S)
        finally:
            self.home.postgres_json.unlink(missing_ok=True)
            if server is not None:
                cluster.stop(server)
            self.home.drop_socket_dir()

    def stop_soon(self, signum: int, frame: FrameType | None) -> None:
        if self.told_to_stop_at is None:
            self.told_to_stop_at = time.monotonic()

    def _finished(self) -> bool:
        now = time.monotonic()
        self.users = process.try_lock(self.home.users_lock)
        if self.users is None:
            self.alone_since = None
            return self.told_to_stop_at is not None and now - self.told_to_stop_at > LEAVE_S
        self.alone_since = self.alone_since if self.alone_since is not None else now
        if now - self.alone_since >= GRACE_S or self.told_to_stop_at is not None:
            return True  # still holding users.lock: who comes now waits until we have gone
        os.close(self.users)
        self.users = None
        return False

    def _died(self, server: subprocess.Popen[bytes]) -> None:
        self.home.postgres_json.unlink(missing_ok=True)
        self.restarts += 1
        say(f"postgres {server.pid} ended with {server.returncode}: starting it again (restart {self.restarts})")

    def _start(self, cluster: Cluster) -> subprocess.Popen[bytes] | None:
        """A server that takes connections, or None after a failure that is worth another try."""
        if self.failed:
            time.sleep(min(PAUSE_S_MAX, 0.25 * 2 ** (self.failed - 1)))
        sockets = cluster.prepare()
        server = cluster.start(sockets)
        process.wait_until(lambda: cluster.accepts(server.pid) or server.poll() is not None, READY_S)
        if server.poll() is None and cluster.accepts(server.pid):
            try:
                self._publish(server.pid, sockets)
            except OSError as error:  # a full disk: nobody would find this server
                cause = f"{self.home.postgres_json} cannot be written: {error}"
            else:
                self.failed = 0
                return server
        else:
            cause = process.tail(cluster.log)
        cluster.stop(server)
        self.failed += 1
        say(f"postgres did not start ({cause}), try {self.failed}")
        if self.failed >= FIRST_TRIES and self.restarts == 0:
            raise Unavailable(
                f"private PostgreSQL of {self.home.path} does not start ({cause}): "
                f"correct the cause and try again; all it said is in {cluster.log}"
            )
        return None

    def _publish(self, pid: int, sockets: Path) -> None:
        server = {
            "pid": pid,
            "started": process.start_ticks(pid),
            "socket_dir": str(sockets),
            "port": PORT,
            "since": process.now_text(),
            "restarts": self.restarts,
            "keeper": os.getpid(),
        }
        write_atomically(self.home.postgres_json, json.dumps(server) + "\n")
        say(f"postgres {pid} takes connections in {sockets}")


def say(text: str) -> None:
    """One line to the log; where the disk is full it is left out, since the server must be kept."""
    with contextlib.suppress(OSError):
        print(f"{process.now_text()} keeper {os.getpid()}: {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Detach from the caller, take the lock, keep the server."""
    home = Home(arguments[0])
    handed = int(arguments[1]) if len(arguments) > 1 else None
    if os.fork() != 0:
        os._exit(0)  # the keeper belongs to nobody, so nobody has to reap it
    lock = handed if handed is not None else process.try_lock(home.keeper_lock)
    if lock is None:
        return 0
    os.set_inheritable(lock, False)
    process.sign_lock(lock)
    os.chdir("/")
    os.umask(0o077)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    keeper = Keeper(home, lock)
    signal.signal(signal.SIGTERM, keeper.stop_soon)
    try:
        keeper.run()
    except (Unavailable, ConfigError, OSError) as error:
        say(str(error))
        write_atomically(home.postgres_error, f"{error}\n")
        return 3
    say("nobody uses this home any more: stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
