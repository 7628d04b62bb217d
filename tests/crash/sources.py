"""A source in a process of its own, and the adapter by which the hub receives from it over a unix socket.

The source holds its deliveries and is never killed: it listens, sends in order, keeps what is not acknowledged, and begins again after its
last acknowledgement whenever a connection breaks. What it writes down is the truth of the trial: nothing that the hub says enters it
but the acknowledgements.
"""

import json
import select
import signal
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from events.errors import Unavailable
from hub.intake.delivery import Delivery, Outcome
from tests.crash.deliveries import delivery

_HEAD = struct.Struct("!QI")  # number of the delivery, length of its bytes
_ACK = struct.Struct("!QQ")  # number of the delivery, position of its first fact or 0
WINDOW = 24  # deliveries sent and not acknowledged


@dataclass
class Record:
    """What a source wrote down: for each delivery when it was first sent and when and with what position it was acknowledged."""

    sent: list[int] = field(default_factory=list)
    acks: list[tuple[int, int]] = field(default_factory=list)
    in_flight: int = 0  # deliveries that had no acknowledgement when a connection broke, all breaks together
    redelivered: int = 0
    astray: int = 0  # acknowledgements of what was never sent, or out of order

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> "Record":
        return cls(**json.loads(path.read_text()))


class Source:
    """The loop of a source; SIGTERM lets it send nothing new, and it ends when all is acknowledged."""

    def __init__(self, seed: int, number: int, place: Path, per_second: float) -> None:
        self.seed, self.number, self.per_second = seed, number, per_second
        self.record = Record()
        self.next = 0  # the next delivery to send on this connection
        self.ending = False
        self.connection: socket.socket | None = None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(place))
        self.listener.listen(4)
        self.unread = b""
        self.began = time.monotonic()

    def run(self, record: Path) -> None:
        signal.signal(signal.SIGTERM, self._end)
        while not (self.ending and len(self.record.acks) == len(self.record.sent)):
            self._send()
            waiting = [self.listener, *([self.connection] if self.connection else [])]
            for ready in select.select(waiting, [], [], 0.005)[0]:
                if ready is self.listener:
                    self._accept()
                elif ready is self.connection:
                    self._acknowledged()
        self.record.save(record)

    def _end(self, *_: object) -> None:
        self.ending = True

    def _accept(self) -> None:
        self._broken()
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(5)
        self.next, self.unread = len(self.record.acks), b""

    def _broken(self) -> None:
        if self.connection is not None:
            self.record.in_flight += max(0, self.next - len(self.record.acks))
            self.connection.close()
            self.connection = None

    def _send(self) -> None:
        record = self.record
        while self.connection is not None and self.next < len(record.acks) + WINDOW:
            if self.next == len(record.sent):
                if self.ending or len(record.sent) > (time.monotonic() - self.began) * self.per_second:
                    return
                record.sent.append(time.monotonic_ns())
            else:
                record.redelivered += 1
            body = delivery(self.seed, self.number, self.next).body
            try:
                self.connection.sendall(_HEAD.pack(self.next, len(body)) + body)
            except OSError:
                self._broken()
                return
            self.next += 1

    def _acknowledged(self) -> None:
        try:
            found = self.connection.recv(65536) if self.connection else b""
        except OSError:
            found = b""
        if not found:
            self._broken()
            return
        self.unread += found
        while len(self.unread) >= _ACK.size:
            number, position = _ACK.unpack_from(self.unread)
            self.unread = self.unread[_ACK.size :]
            if number == len(self.record.acks) < self.next:
                self.record.acks.append((time.monotonic_ns(), position))
            elif number >= len(self.record.acks):
                self.record.astray += 1


def run_source(seed: int, number: int, place: Path, record: Path, per_second: float) -> None:
    """A source as a process."""
    Source(seed, number, place, per_second).run(record)


class SourceAdapter:
    """The hub's road to a source: acknowledges in `done` and never sooner."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._connection: socket.socket | None = None
        self._unread = b""

    @property
    def name(self) -> str:
        return f"source {self.place.name}"

    def open(self) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._unread = b""
        try:
            self._connection.connect(str(self.place))
        except OSError as error:
            raise Unavailable(f"{self.name} cannot be reached: {error}") from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def receive(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        """What has arrived, waiting for the first."""
        assert self._connection is not None
        until = time.monotonic() + wait_s
        while not (found := self._parse(limit)):
            if not select.select([self._connection], [], [], max(0.0, until - time.monotonic()))[0]:
                return []
            try:
                more = self._connection.recv(262144)
            except OSError as error:
                raise Unavailable(f"{self.name}: {error}") from error
            if not more:
                raise Unavailable(f"{self.name} has closed the connection")
            self._unread += more
        return found

    def _parse(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        while len(self._unread) >= _HEAD.size and len(found) < limit:
            number, length = _HEAD.unpack_from(self._unread)
            if len(self._unread) < _HEAD.size + length:
                break
            body, self._unread = self._unread[_HEAD.size : _HEAD.size + length], self._unread[_HEAD.size + length :]
            found.append(Delivery(body, "trial", datetime.now(UTC), {}, lambda outcome, n=number: self._done(n, outcome)))  # type: ignore[misc]
        return found

    def _done(self, number: int, outcome: Outcome) -> None:
        lines = [line for part in outcome.parts for line in part.lines if line.outcome in ("accepted", "duplicate")]
        position = lines[0].position if lines else None
        try:
            assert self._connection is not None
            self._connection.sendall(_ACK.pack(number, position or 0))
        except OSError as error:
            raise Unavailable(f"{self.name}: {error}") from error
