"""What servers that are run for tests and demonstrations have in common: one in one folder, run by one process at a time, and not outliving it.

<folder>/lock          held by who runs it; the kernel frees it even after kill -9
<folder>/<record>      JSON: what must be known again (ports), and whose pid it was
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, ClassVar, NoReturn, Self

from events.errors import Unavailable
from hub.app.home import write_atomically
from hub.app.servers import process


class Single(ABC):
    """One server: `with Made(folder) as server`. Start it from a thread that outlives it."""

    program: ClassVar[str]
    stop_s: ClassVar[float]  # then it is killed

    def __init__(self, folder: Path | str, log: str, record: str, start_s: float) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.log = self.folder / log
        self._record, self._start_s = self.folder / record, start_s
        self._lock: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running server's process id."""
        if self._child is None:
            raise Unavailable(f"{self.program} in {self.folder} is not running: start it first")
        return self._child.pid

    @abstractmethod
    def start(self) -> Self:
        """Start it and wait until it answers."""

    def ended(self) -> bool:
        """Whether it is not running (any more)."""
        return self._child is None or process.ended(self._child) is not None

    def stop(self) -> None:
        """End it in good order, or else by force; harmless when it has ended."""
        if self._child is not None and not self.ended():
            self._child.terminate()
            process.wait_until(self.ended, self.stop_s, every=0.05)
        self.kill()

    def kill(self) -> None:
        """kill -9. The same folder can be started again."""
        if self._child is not None and process.ended(self._child) is None:
            process.kill_group(self._child.pid)
            self._child.wait()
        self._child = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def until_ended(self) -> NoReturn:
        """Wait for its end, which nobody asked for. Raises `Unavailable`."""
        while not self.ended():
            time.sleep(0.2)
        raise Unavailable(f"{self.program} in {self.folder} ended by itself ({process.tail(self.log)}): see {self.log}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # -- for `start`

    @abstractmethod
    def _answers(self) -> bool: ...

    def _take_folder(self) -> None:
        """Be the one who runs it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = process.try_lock(self.folder / "lock")
        if self._lock is None:
            raise Unavailable(f"{self.program} in {self.folder} is run by another process already: use that one, or another folder")

    def _kill_left_over(self) -> None:
        """Whoever recorded a pid here has lost the lock: what still runs under it was to end with its parent."""
        record = recorded(self._record)
        if (pid := running(record)) is not None:
            process.kill_group(pid)
            process.wait_until(lambda: process.start_ticks(pid) != record["start_ticks"], self.stop_s)

    def _free_port(self, wanted: int | None, known: int) -> int:
        """A port: the one that is wanted, else the known one where it is free, else any."""
        port = wanted or (known if is_free(known) else process.free_port())
        if not is_free(port):
            raise Unavailable(f"{self.program}: port {port} of 127.0.0.1 is in use: end what listens there or choose another port")
        return port

    def _spawn(self, argv: Sequence[str], env: Mapping[str, str], known: Mapping[str, Any]) -> None:
        """Let it run, remember it together with what is known, and wait until it answers."""
        self._child = process.spawn(argv, self.log, env=dict(env), death=signal.SIGKILL)
        record = {**known, "pid": self._child.pid, "start_ticks": process.start_ticks(self._child.pid)}
        write_atomically(self._record, json.dumps(record) + "\n")
        deadline = time.monotonic() + self._start_s
        while not self._answers():
            if self.ended():
                raise Unavailable(f"{self.program} in {self.folder} ended while starting ({process.tail(self.log)}): see {self.log}")
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"{self.program} in {self.folder} did not answer within {self._start_s:.0f} s ({process.tail(self.log)}): see {self.log}"
                )
            time.sleep(0.05)


def recorded(path: Path) -> dict[str, Any]:
    """What a record says; {} where there is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def running(record: Mapping[str, Any]) -> int | None:
    """The pid of a record whose process still runs; None if it does not, or is another by now."""
    pid, started = record.get("pid"), record.get("start_ticks")
    return pid if isinstance(pid, int) and started is not None and process.start_ticks(pid) == started else None


def is_free(port: int) -> bool:
    """Whether a server could listen there on 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a port in TIME_WAIT is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return port != 0


def listens(port: int, wait_s: float) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=wait_s).close()
    except OSError:
        return False
    return True


def end_by_sigterm() -> None:
    """Let SIGTERM end this program as Ctrl-C does."""

    def ended(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, ended)


def say(text: str) -> None:
    """To who ran the program, if anybody still reads it."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)
