"""What all parts of the plant share: the command line, the sent-log, progress that survives a restart, and the loop that sends.

A line of the sent-log is written before its message is sent, once. What was not acknowledged is sent again after a restart; whether a message was
logged already is read off the sent-log itself, from the place that the last progress names.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from hub.app.demo.plant.plan import Message, follow_seed, plan

SAVE_S = 0.25  # progress is written at most this often: what it misses is sent again, as a protocol would
TELL_S = 1.0
POLL_S = 0.05
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 5.0
INTERRUPTED = 143  # 128 + SIGTERM: not everything was sent


class Stopped(Exception):
    """SIGTERM came while a message waited to be acknowledged: no error, somebody asked us to end."""


class Road(Protocol):
    """A protocol that carries messages. `offer` hands one over and may block; `acknowledged` tells which ones have arrived since."""

    window: int  # messages that may be on their way at once

    def offer(self, index: int, message: Message) -> None: ...
    def acknowledged(self, wait_s: float) -> Sequence[int]: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Progress:
    """How far a part is: its plan, messages logged and acknowledged of the current batch, and where in the sent-log its last line ends."""

    seed: int
    orders: int
    start: int
    batch: int = 0
    logged: int = 0
    acked: int = 0
    log_end: int = 0


def arguments(part: str, road: str) -> argparse.ArgumentParser:
    """The options that all parts have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m hub.app.demo.plant.{part}", description=f"The {part} of the simulated plant, over {road}."
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--orders", type=_positive, default=40, help="production orders of the finished product; of one batch with --follow"
    )
    parser.add_argument("--start-order", type=_positive, default=1, help="number of the first of them")
    parser.add_argument("--sent-log", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True, help="folder of the progress that a restart goes on from")
    parser.add_argument("--pace", type=float, default=0.0, metavar="SECONDS", help="seconds an order takes; 0: as fast as the hub takes it")
    parser.add_argument("--follow", action="store_true", help="go on with further batches of orders until SIGTERM")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def stop_on_sigterm() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def note(part: str, text: str) -> None:
    """A line for people, on standard error."""
    print(f"{part}: {text}", file=sys.stderr, flush=True)


class Part:
    """One system of the plant: sends its share of the plan over a road, in order, and remembers how far it is."""

    def __init__(self, name: str, options: argparse.Namespace, stop: threading.Event, *, with_wms: bool = False) -> None:
        self.name = name
        self._options = options
        self._stop = stop
        self._with_wms = with_wms
        self._file: Path = options.state / f"{name}.json"
        options.state.mkdir(parents=True, exist_ok=True)
        options.sent_log.parent.mkdir(parents=True, exist_ok=True)
        self._log = os.open(options.sent_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.progress = self._load()
        self._saved = self._told = 0.0
        self._open: set[int] = set()  # on their way
        self._ahead: set[int] = set()  # acknowledged, with others before them still open
        self._clock = time.monotonic()

    def run(self, road: Road) -> int:
        """Send until all is acknowledged (0) or SIGTERM (143)."""
        try:
            while not self._stop.is_set():
                messages = self._messages()
                self._recover(messages)
                self._batch(road, messages)
                if self._stop.is_set():
                    break
                if not self._options.follow:
                    self._tell(messages, always=True)
                    return 0
                p = self.progress
                p.batch, p.logged, p.acked = p.batch + 1, 0, 0
                self._save(always=True)
        except Stopped:
            pass
        finally:
            self._save(always=True)
            road.close()
            os.close(self._log)
        return INTERRUPTED

    def _messages(self) -> Sequence[Message]:
        p = self.progress
        whole = plan(follow_seed(p.seed, p.batch), p.orders, p.start + p.batch * p.orders)
        return whole.of(self.name, with_wms=self._with_wms)

    def _batch(self, road: Road, messages: Sequence[Message]) -> None:
        p = self.progress
        following = p.acked
        self._open, self._ahead = set(), set()
        if messages and p.acked < len(messages):  # what lies behind is not waited for again
            self._clock = time.monotonic() - (messages[p.acked - 1].due if p.acked else 0.0) * self._options.pace
        while p.acked < len(messages) and not self._stop.is_set():
            wait_s = self._blocked_s(messages, following, road.window)
            if wait_s is None:
                self._write(messages, following)
                self._open.add(following)
                road.offer(following, messages[following])
                following += 1
                wait_s = 0.0
            for index in road.acknowledged(min(wait_s, POLL_S)):
                self._open.discard(index)
                self._ahead.add(index)
            while p.acked in self._ahead:
                self._ahead.remove(p.acked)
                p.acked += 1
            self._save()
            self._tell(messages)

    def _blocked_s(self, messages: Sequence[Message], following: int, window: int) -> float | None:
        """Seconds until it is worth looking again whether the next message may go; None: it may go now."""
        if following >= len(messages) or len(self._open) >= window:
            return POLL_S
        message = messages[following]
        if message.after is not None and message.after >= self.progress.acked and message.after not in self._ahead:
            return POLL_S
        early_s = self._clock + message.due * self._options.pace - time.monotonic() if self._options.pace else 0.0
        return early_s if early_s > 0 else None

    def _write(self, messages: Sequence[Message], index: int) -> None:
        """The sent-log's lines of a message, unless a run before this one wrote them."""
        if index < self.progress.logged:
            return
        os.write(self._log, messages[index].log_lines())
        self.progress.log_end = os.lseek(self._log, 0, os.SEEK_CUR)
        self.progress.logged = index + 1

    def _recover(self, messages: Sequence[Message]) -> None:
        """Count what was logged after progress was last saved: the lines of the next messages, in order, behind its last known line."""
        p = self.progress
        with self._options.sent_log.open("rb") as file:
            begin = p.log_end if p.log_end <= os.fstat(file.fileno()).st_size else 0  # somebody began a new log
            file.seek(begin)
            written = file.read()
        place = 0
        while p.logged < len(messages):
            lines = messages[p.logged].log_lines()
            found = written.find(lines, place)
            if found < 0:
                break
            place = found + len(lines)
            p.log_end = begin + place
            p.logged += 1

    def _load(self) -> Progress:
        o = self._options
        asked = Progress(o.seed, o.orders, o.start_order)
        try:
            known = Progress(**json.loads(self._file.read_text("utf-8")))
        except FileNotFoundError:
            return asked
        except (ValueError, TypeError) as error:
            raise SystemExit(f"{self._file} is no progress of this plant ({error}): remove the folder to begin anew") from None
        if (known.seed, known.orders, known.start) != (asked.seed, asked.orders, asked.start):
            what = f"{self._file} is of seed {known.seed}, {known.orders} orders from {known.start}"
            if not o.follow:
                raise SystemExit(f"{what}: give the same, or another --state folder")
            note(self.name, f"{what}: goes on with them")
        return known

    def _save(self, *, always: bool = False) -> None:
        """Progress to disk, whole or not at all."""
        if not always and time.monotonic() - self._saved < SAVE_S:
            return
        hidden = self._file.with_name(f".{self._file.name}.tmp")
        with hidden.open("w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self.progress)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(self._file)
        self._saved = time.monotonic()

    def _tell(self, messages: Sequence[Message], *, always: bool = False) -> None:
        if always or time.monotonic() - self._told >= TELL_S:
            self._told = time.monotonic()
            p = self.progress
            told = {"part": self.name, "batch": p.batch, "sent": p.logged, "of": len(messages), "acked": p.acked}
            print(json.dumps(told), flush=True)
