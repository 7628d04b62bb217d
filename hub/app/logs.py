"""What hub processes write about themselves: one line a message, as JSON or for people, in which repetitions are counted and not written.

Messages of one level and logger that differ only in words with digits in them are of one kind. The first of a kind is written at once. What
repeats it is counted, and told by a line with the same `entry`, the newest message, `first` and `times`, after 1 s, 2 s, 4 s, … at most once a
minute and at the end: a million repetitions are one entry, and `times` in its last line is their number. After a quiet time a kind begins
anew. What a person did (a record with `whole`) is of a kind with its very words only. Kinds beyond `limits.LOG_KINDS_MAX` share an entry a
level. A process that is killed loses what it counted since the last line.

`writing` takes all there is in a process: logging, warnings, uncaught exceptions, and what libraries print. What C code writes by itself
goes into the same file as it is. The supervisor bounds the file.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from hub import limits, telemetry

TELL_S = 0.25  # how often it is looked for what is due
_VARIES = re.compile(r"[^\s,;:=()\[\]{}'\"]*\d[^\s,;:=()\[\]{}'\"]*")
_SHARED = "messages of more kinds than are kept apart, the newest: "
_OURS = ("hub", "adapters", "projections", "replay", "events")


@dataclass(slots=True)
class _Kind:
    """Messages that are counted together. Times of `first` and `last` are seconds since 1970, those of `due` and `seen` monotonic."""

    entry: str
    level: str
    logger: str
    message: str
    first: float
    last: float
    times: int
    told: int
    wait_s: float
    due: float
    seen: float


class Lines(logging.Handler):
    """Writes lines to a descriptor, each whole; `tell` writes what is due. `clock` is monotonic."""

    def __init__(self, role: str, fd: int, *, as_json: bool, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._role, self._fd, self._json, self._clock = role, fd, as_json, clock
        self._kinds: OrderedDict[tuple[str, str, str], _Kind] = OrderedDict()  # the one that was seen last is last

    def emit(self, record: logging.LogRecord) -> None:
        """Write the first of its kind; count the others."""
        try:
            text = record.getMessage()
        except Exception as error:  # noqa: BLE001 - said as it is, whatever is wrong with it: what is logged must not fail for it
            text = f"{record.msg!r:.300} (this log message cannot be made: {error!r:.300})"
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        level, now = record.levelname.lower(), self._clock()
        telemetry.LOGGED.labels(level).inc()
        key = (level, record.name, shortened(text) if getattr(record, "whole", False) else template(text))
        if key not in self._kinds and not self._room(now):
            key, text = (level, "", _SHARED), _SHARED + text
        text = shortened(text)
        kind = self._kinds.get(key)
        if kind is not None:
            kind.message, kind.last, kind.seen = text, record.created, now
            kind.times += 1
            self._kinds.move_to_end(key)
            return
        entry = hashlib.sha256("\0".join(key).encode("utf-8", "replace")).hexdigest()[:8]
        first = limits.LOG_TELL_FIRST_S
        kind = _Kind(entry, level, key[1], text, record.created, record.created, 1, 0, first, now + first, now)
        self._kinds[key] = kind
        self._write(kind)

    def tell(self, *, all_: bool = False) -> None:
        """Write what was counted and is due, or all of it; forget kinds that are quiet."""
        with self.lock or contextlib.nullcontext():
            now = self._clock()
            for kind in [k for k in self._kinds.values() if k.times > k.told and (all_ or now >= k.due)]:
                self._write(kind)
                kind.wait_s = min(kind.wait_s * 2, limits.LOG_TELL_MAX_S)
                kind.due = now + kind.wait_s
            self._forget(now)

    def _room(self, now: float) -> bool:
        if len(self._kinds) >= limits.LOG_KINDS_MAX:
            self._forget(now)
        return len(self._kinds) < limits.LOG_KINDS_MAX

    def _forget(self, now: float) -> None:
        while self._kinds:
            key, kind = next(iter(self._kinds.items()))
            if kind.times > kind.told or now - kind.seen < limits.LOG_QUIET_S:
                return
            del self._kinds[key]

    def _write(self, kind: _Kind) -> None:
        kind.told = kind.times
        line = (_as_json if self._json else _as_text)(self._role, kind).encode("utf-8", "backslashreplace") + b"\n"
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError:  # a full disk or a reader that has gone: there is nowhere to say it but in the numbers
            telemetry.LOG_LOST.inc()


def _as_json(role: str, kind: _Kind) -> str:
    said: dict[str, Any] = {"time": _time(kind.last), "level": kind.level, "role": role, "logger": kind.logger, "message": kind.message}
    said |= {"entry": kind.entry, "times": kind.times}
    return json.dumps(said | ({"first": _time(kind.first)} if kind.times > 1 else {}), ensure_ascii=False)


def _as_text(role: str, kind: _Kind) -> str:
    again = f"  ({kind.times} times since {_time(kind.first)})" if kind.times > 1 else ""
    level = "" if kind.level == "info" else f"{kind.level} "
    return f"{_time(kind.last)} {role} {level}{kind.message}{again}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def template(text: str) -> str:
    """What messages of one kind have in common: words with a digit are left out, and the middle of a long one."""
    most = limits.LOG_TEMPLATE_CHARS // 2
    return _VARIES.sub("#", text if len(text) <= 2 * most else text[:most] + text[-most:])


def shortened(text: str) -> str:
    """A message within its bound: its beginning and its end, as the end of a trace says most."""
    most = limits.LOG_MESSAGE_CHARS_MAX
    return text if len(text) <= most else f"{text[: most // 2]} … {len(text) - most} characters left out … {text[-(most // 2) :]}"


class _Printed(io.TextIOBase):
    """Standard output or error as a logger: a message a line."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger, self._begun, self._lock, self._inside = logger, "", threading.RLock(), False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            if self._inside:  # logging itself prints
                return len(text)
            self._inside = True
            try:
                *lines, self._begun = (self._begun + text).split("\n")
                for line in lines:
                    if line.strip():
                        self._logger.warning("%s", line)
                if len(self._begun) > limits.LOG_MESSAGE_CHARS_MAX:
                    self._logger.warning("%s", self._begun)
                    self._begun = ""
            finally:
                self._inside = False
        return len(text)


@contextlib.contextmanager
def writing(role: str, *, text: bool | None = None, fd: int = 2, printed: bool = True) -> Iterator[Lines]:
    """Write what this process says for the time of a `with` block. `text` None: for people on a terminal, else JSON, unless HUB_LOG says."""
    if text is None:
        text = wants_text(fd)
    lines, root, stop = Lines(role, fd, as_json=not text), logging.getLogger(), threading.Event()
    levels = {name: logging.getLogger(name).level for name in _OURS}
    hooks = sys.excepthook, threading.excepthook, sys.stdout, sys.stderr
    root.addHandler(lines)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    if printed:
        logging.captureWarnings(True)
        sys.excepthook, threading.excepthook = _uncaught, lambda a: _uncaught(a.exc_type, a.exc_value, a.exc_traceback)
        sys.stdout = sys.stderr = _Printed(logging.getLogger("hub.printed"))

    def tell() -> None:
        while not stop.wait(TELL_S):
            lines.tell()

    teller = threading.Thread(target=tell, name="log", daemon=True)
    teller.start()
    try:
        yield lines
    finally:
        stop.set()
        teller.join(timeout=1)
        lines.tell(all_=True)
        if printed:
            sys.excepthook, threading.excepthook, sys.stdout, sys.stderr = hooks
            logging.captureWarnings(False)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        root.removeHandler(lines)


def wants_text(fd: int) -> bool:
    """Whether people read this descriptor: HUB_LOG says `text` or `json`, else a terminal is for people."""
    return {"text": True, "json": False}.get(os.environ.get("HUB_LOG", ""), os.isatty(fd))


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and not issubclass(kind, SystemExit):
        logging.getLogger("hub").critical("nobody caught this", exc_info=(kind, error, trace))


def last_said(log: Path) -> str:
    """The last trouble in a log of such lines, else its last line; for an event of whoever started the process."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16 * limits.LOG_MESSAGE_CHARS_MAX))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        with contextlib.suppress(ValueError, TypeError, KeyError):  # what is not of ours
            said = json.loads(line)
            if said["level"] in ("error", "critical"):
                return " ".join(str(said["message"]).split())[-300:]
    return lines[-1].strip()[-300:] if lines else ""
