"""Supervisor: starts a home's processes, restarts what dies and says so, and ends them all, so that nothing is left running.

One per home (`run/supervisor.lock`). It is a user of the home, so the keeper and its PostgreSQL (role `postgres`) live as long as it does.
Children get SIGTERM when it dies, even by kill -9. `step()` does what is due and never waits; `run_until` calls it. Start, step and
stop from one thread that lives as long as the children: the kernel's parent-death signal belongs to the thread that started them.

Errors: `AlreadySupervised`, an `Unavailable` (exit code 3).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import FrameType, TracebackType
from typing import Any, Self

from events.errors import Unavailable
from hub.app.home import Home, write_atomically
from hub.app.logs import last_said
from hub.app.servers import process
from hub.app.servers.postgres import PrivateServer

STEP_S = 0.05
PAUSE_S_MAX = 5.0
STEADY_S = 5.0
"""A child that lived this long is restarted at once again when it dies."""

TERM_S = 6.0
"""After SIGTERM children have this long, all together, before SIGKILL; with the keeper's end it stays below 10 s."""

LOG_CHECK_S = 1.0


STOP_S = 9.5
KEEPER_PAUSE_S = 1.0
"""A keeper that is gone is started again at most this often."""


class AlreadySupervised(Unavailable):
    """Another supervisor has this home."""


@dataclass(frozen=True)
class Child:
    """One process to keep: its role is unique in the home and names its log. `env` None means ours. `ready` must not block long.

    While `down` says so it is killed and not started again; it is asked at every step.
    """

    role: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    ready: Callable[[], bool] | None = None
    restart: bool = True
    down: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Process:
    """One line of `run/processes.json`; `started` are the kernel's ticks, which tell a pid from its next holder."""

    role: str
    pid: int
    since: str
    restarts: int
    started: int


@dataclass
class _Kept:
    child: Child
    popen: subprocess.Popen[bytes] | None = None
    since: str = ""
    begun: float = 0.0
    restarts: int = 0
    deaths: int = 0
    due: float = 0.0
    done: bool = False
    shown: Process | None = field(default=None)

    def down(self) -> bool:
        return self.child.down is not None and self.child.down()


class Supervisor:
    """Keeps `children` and, unless `private_database` is False, the home's PostgreSQL. Use it as a context manager."""

    def __init__(
        self,
        home: Home,
        children: Sequence[Child],
        *,
        private_database: bool = True,
        on_event: Callable[[str], None] = lambda text: None,
    ) -> None:
        roles = [child.role for child in children]
        taken = sorted({role for role in roles if roles.count(role) > 1 or role in ("supervisor", "postgres") or "/" in role})
        if taken:
            raise ValueError(f"roles {taken} of children are repeated, reserved or no file names: give each child a role of its own")
        self.home, self.on_event = home, on_event
        self.exit_codes: dict[str, int] = {}
        self.asked = threading.Event()
        """Set by SIGTERM, SIGINT or SIGHUP between `start` and `stop` in the main thread: whoever waits for something long looks at it."""
        self._handlers: dict[signal.Signals, Any] = {}
        self._kept = [_Kept(child) for child in children]
        self._private = PrivateServer(home) if private_database else None
        self._lock: int | None = None
        self._me = Process(
            "supervisor",
            os.getpid(),
            process.now_text(),
            0,
            process.start_ticks(os.getpid()) or 0,
        )
        self._postgres: Process | None = None
        self._keeper_due = 0.0
        self._written: list[Process] = []
        self._unwritten = False  # it was told that they cannot be
        self._logs_checked = time.monotonic()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Take the home, start PostgreSQL and wait for it, then start the children in order without waiting for them."""
        self._lock = process.try_lock(self.home.supervisor_lock)
        if self._lock is None:
            holder = process.tail(self.home.supervisor_lock) or "unknown"
            raise AlreadySupervised(
                f"home {self.home.path} has a supervisor already (pid {holder}): "
                f"use it, end it (kill {holder}), or set HUB_HOME to another folder"
            )
        process.sign_lock(self._lock)
        try:
            if self._private is not None:
                self._private.join()
                self._private.ensure()
            self._take_signals()
            self.step()
        except BaseException:
            self.stop()
            raise

    def step(self) -> None:
        """Notice deaths, restart what is due, keep the keeper, and write `processes.json` if anything changed."""
        now = time.monotonic()
        self._keep_postgres()
        for kept in self._kept:
            if kept.popen is not None and (code := process.ended(kept.popen)) is not None:
                self._died(kept, code, now)
            if kept.down():
                if kept.popen is not None:
                    kept.popen.kill()
            elif kept.popen is None and not kept.done and now >= kept.due:
                self._spawn(kept, now)
        if now - self._logs_checked > LOG_CHECK_S:
            self._logs_checked = now
            for log in self.home.log.glob("*.log"):
                process.bound_log(log)
        self._write()

    def wait_ready(self, timeout: float) -> bool:
        """Step until all children are ready (one that has ended for good counts); False once time is over or we are asked to end."""
        deadline = time.monotonic() + timeout
        while True:
            self.step()
            if self._all_ready():
                return True
            if time.monotonic() >= deadline or self.asked.is_set():
                return False
            time.sleep(STEP_S)

    def run_until(self, stop: threading.Event) -> None:
        """Step until `stop` or `asked` is set; then end everything."""
        try:
            while not (stop.is_set() or self.asked.wait(STEP_S)):
                self.step()
        finally:
            self.stop()

    def stop(self) -> None:
        """End the children in reverse order, then leave the home, which ends PostgreSQL unless others use it. Within 10 s."""
        begun = time.monotonic()
        try:
            self._end_children()
        finally:
            if self._private is not None:
                self._private.leave(max(1.0, STOP_S - (time.monotonic() - begun)))
            if self._lock is not None:
                self.home.processes_json.unlink(missing_ok=True)
                os.close(self._lock)
                self._lock = None
            self._give_signals_back()

    # -- parts --

    def _take_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():

            def ask(signum: int, frame: FrameType | None) -> None:
                self.asked.set()

            self._handlers = {signum: signal.signal(signum, ask) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def _give_signals_back(self) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._handlers = {}

    def _keep_postgres(self) -> None:
        if self._private is None:
            return
        server = self._private.current()
        if server is None and time.monotonic() >= self._keeper_due:
            failure = self._private.failure()
            if self._private.start_keeper():
                self._keeper_due = time.monotonic() + KEEPER_PAUSE_S
                self.on_event(f"keeper of postgres was gone{f' ({failure})' if failure else ''}: started again")
        if server is None or (self._postgres is not None and self._postgres.pid == server.pid):
            return
        before, self._postgres = self._postgres, None
        restarts = 0 if before is None else before.restarts + 1
        self._postgres = Process("postgres", server.pid, server.since, restarts, server.started)
        self.on_event(f"postgres {'runs' if before is None else 'was restarted'} as pid {server.pid}")

    def _spawn(self, kept: _Kept, now: float) -> None:
        child = kept.child
        try:
            kept.popen = process.spawn(
                child.argv,
                self.home.log / f"{child.role}.log",
                env=child.env,
                death=signal.SIGTERM,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(
                f"{child.role}: {child.argv[0]} cannot be started ({error}): install it or correct its permissions"
            ) from error
        kept.since, kept.begun = process.now_text(), now
        kept.shown = Process(
            child.role,
            kept.popen.pid,
            kept.since,
            kept.restarts,
            process.start_ticks(kept.popen.pid) or 0,
        )
        self.on_event(f"{child.role} {'restarted' if kept.restarts else 'started'} as pid {kept.popen.pid}")

    def _died(self, kept: _Kept, code: int, now: float) -> None:
        role, pid = kept.child.role, kept.popen.pid if kept.popen else 0
        kept.popen = kept.shown = None
        self.exit_codes[role] = code
        ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        if not kept.child.restart:
            kept.done = True
            self.on_event(f"{role} (pid {pid}) {ending}")
            return
        kept.deaths = 1 if now - kept.begun >= STEADY_S else kept.deaths + 1
        pause = 0.0 if kept.deaths == 1 else min(PAUSE_S_MAX, 0.25 * 2 ** min(kept.deaths - 2, 10))
        kept.restarts += 1
        kept.due = now + pause
        when = "when it may run again" if kept.down() else "now" if pause == 0 else f"in {pause:g} s"
        said = last_said(self.home.log / f"{role}.log") if code > 0 else ""
        self.on_event(f"{role} (pid {pid}) {ending}{f' ({said})' if said else ''}: restarting {when}")

    def _all_ready(self) -> bool:
        if self._private is not None and self._private.current() is None:
            return False
        for kept in self._kept:
            if kept.done:
                continue
            if kept.popen is None or (kept.child.ready is not None and not kept.child.ready()):
                return False
        return True

    def _end_children(self) -> None:
        running = [kept.popen for kept in reversed(self._kept) if kept.popen is not None]
        deadline = time.monotonic() + TERM_S
        for popen in running:  # each gets a moment to end before those that started before it, on which it may lean
            if process.ended(popen) is None:
                popen.terminate()
                _wait_for(popen, min(1.0, TERM_S / 2 / len(running)))
        for popen in running:
            _wait_for(popen, deadline - time.monotonic())
        for kept in self._kept:
            if kept.popen is not None:
                if process.ended(kept.popen) is None:
                    self.on_event(f"{kept.child.role} (pid {kept.popen.pid}) did not end within {TERM_S:g} s of SIGTERM: killed")
                    process.kill_group(kept.popen.pid)
                self.exit_codes[kept.child.role] = kept.popen.wait()
                kept.popen = kept.shown = None

    def _write(self) -> None:
        present = [self._me, self._postgres, *(kept.shown for kept in self._kept)]
        shown = [one for one in present if one is not None]
        if shown == self._written:
            return
        try:
            write_atomically(self.home.processes_json, json.dumps([asdict(one) for one in shown]) + "\n")
        except OSError as error:  # a full disk must not end what runs; the next step tries again
            if not self._unwritten:
                self.on_event(
                    f"{self.home.processes_json} cannot be written ({error}): free some space; `hub status` shows old pids until then"
                )
            self._unwritten = True
            return
        self._written, self._unwritten = shown, False


def _wait_for(popen: subprocess.Popen[bytes], seconds: float) -> None:
    process.wait_until(lambda: process.ended(popen) is not None, seconds)


def read_processes(home: Home) -> list[Process]:
    """The home's processes that are alive now, for `hub status`; PostgreSQL too where it runs without a supervisor."""
    try:
        known = [Process(**entry) for entry in json.loads(home.processes_json.read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        known = []
    live = [one for one in known if process.start_ticks(one.pid) == one.started]
    server = PrivateServer(home).current()
    if server is not None and all(one.role != "postgres" for one in live):
        live.append(Process("postgres", server.pid, server.since, server.restarts, server.started))
    return live
