"""Processes and locks: the few operating system means by which nothing of ours is left running and nothing runs twice.

`flock` belongs to an open file, so the kernel drops it with the last process that has it, however that one ended. A parent-death
signal (Linux) ends a child with its parent, even after kill -9. A process is named by pid and start time, since pids come again.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

LOG_BYTES_MAX = 8 * 1024 * 1024
"""A child's log is moved to `<name>.1` beyond this, so two of these are the most a role keeps."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


# -- locks --


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """A descriptor that holds the lock, or None if somebody else does. Closing the descriptor frees it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for an exclusive lock that is only ever held for an instant."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def sign_lock(fd: int) -> None:
    """Write our pid into a lock file, for people and for messages; on a full disk it stays empty."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


# -- who is alive --


def start_ticks(pid: int) -> int | None:
    """When that process started, in clock ticks since boot; None if it is gone or only a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def name(pid: int) -> str:
    """What that process calls itself; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def now_text() -> str:
    """Now, as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def wait_until(happened: Callable[[], bool], seconds: float, *, every: float = 0.01) -> bool:
    """Poll until it happened; False once the time is over."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


# -- children --


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ends_with_parent(signum: signal.Signals, before: Callable[[], None] | None = None) -> Callable[[], None]:
    """A `preexec_fn`: the child gets this signal when the thread that started it ends. `before` may change user or namespace."""
    parent = os.getpid()

    def enter() -> None:
        if before is not None:
            before()  # first: a change of credentials clears the parent-death signal
        if sys.platform == "linux":
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return enter


def spawn(
    argv: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    death: signal.Signals,
    before: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own (so that Ctrl-C reaches only us), its output appended to a bounded log."""
    bound_log(log)
    with open(log, "ab") as output:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env) if env is not None else None,
            start_new_session=True,
            preexec_fn=ends_with_parent(death, before),  # noqa: PLW1509 - it only makes system calls; no other way sets the signal
        )


def ended(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code once the child has ended, after what it left in its session is killed; None while it runs."""
    if process.returncode is not None:
        return process.returncode
    if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return None
    kill_group(process.pid)  # before it is reaped, while its pid cannot be anybody else's
    return process.wait()


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def bound_log(path: Path) -> None:
    """Keep a log below `LOG_BYTES_MAX`. It is copied and emptied in place, because a running child has it open for appending."""
    older = path.with_name(path.name + ".1")
    try:
        if path.stat().st_size <= LOG_BYTES_MAX:
            return
        shutil.copyfile(path, older)
    except FileNotFoundError:
        return
    except OSError:  # the disk is full: neither can it grow, and the next look tries again
        older.unlink(missing_ok=True)
        return
    os.truncate(path, 0)


def tail(path: Path, lines: int = 4) -> str:
    """The end of a log, for an error message."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())
