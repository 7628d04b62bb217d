"""Requests inside the API process as deliveries: what waits together shares one append, and each request gets its own outcome."""

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime

from events.errors import Unavailable
from hub import limits
from hub.intake.delivery import Delivery, Outcome


class QueueFull(Unavailable):
    """As many requests wait for the log as may: the caller is told to come back."""


class HttpQueue:
    """An adapter whose source is the API: `submit` from any thread, driven by one intake loop."""

    name = "http"

    def __init__(self, limit: int, bytes_max: int = limits.HTTP_WAITING_BYTES_MAX) -> None:
        self._waiting: queue.Queue[Delivery] = queue.Queue(limit)
        self._bytes_max = bytes_max
        self._held = 0  # bytes of the bodies that have come and have no outcome yet
        self._counting = threading.Lock()

    def submit(self, body: bytes, headers: Mapping[str, str], received_at: datetime) -> "Future[Outcome]":
        """Hand in a body; the future gives its durable outcome. Raises `QueueFull`."""
        with self._counting:
            if self._held and self._held + len(body) > self._bytes_max:
                raise QueueFull(f"{self._held} bytes wait for the log already: send it again in a moment")
            self._held += len(body)
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()  # from here on nobody can cancel it, so `done` cannot find it cancelled

        def done(outcome: Outcome) -> None:
            self._let_go(body)
            future.set_result(outcome)

        try:
            self._waiting.put_nowait(Delivery(body, "http", received_at, headers, done))
        except queue.Full:
            self._let_go(body)
            raise QueueFull(f"{self._waiting.maxsize} requests wait for the log already: send it again in a moment") from None
        return future

    def open(self) -> None:
        """Nothing to connect."""

    def receive(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        """All that waits, at most `limit`."""
        found: list[Delivery] = []
        until = time.monotonic() + wait_s
        try:
            found.append(self._waiting.get(timeout=max(0.0, until - time.monotonic())))
            while len(found) < limit:
                found.append(self._waiting.get_nowait())
        except queue.Empty:
            pass
        return found

    def close(self) -> None:
        """Nothing to disconnect: waiting requests time out and are sent again by their clients; what was in hand comes again too."""
        with self._counting:
            self._held = sum(len(one.body) for one in self._waiting.queue)

    def _let_go(self, body: bytes) -> None:
        with self._counting:
            self._held -= len(body)
