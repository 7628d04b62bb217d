"""Requests inside the API process as deliveries: what waits together shares one append, and each request gets its own outcome."""

import queue
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime

from events.errors import Unavailable
from hub.intake.delivery import Delivery, Outcome


class QueueFull(Unavailable):
    """As many requests wait for the log as may: the caller is told to come back."""


class HttpQueue:
    """An adapter whose source is the API: `submit` from any thread, driven by one intake loop."""

    name = "http"

    def __init__(self, limit: int) -> None:
        self._waiting: queue.Queue[Delivery] = queue.Queue(limit)

    def submit(self, body: bytes, headers: Mapping[str, str], received_at: datetime) -> "Future[Outcome]":
        """Hand in a body; the future gives its durable outcome. Raises `QueueFull`."""
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()  # from here on nobody can cancel it, so `done` cannot find it cancelled

        def done(outcome: Outcome) -> None:
            future.set_result(outcome)

        try:
            self._waiting.put_nowait(Delivery(body, "http", received_at, headers, done))
        except queue.Full:
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
        """Nothing to disconnect: waiting requests time out and are sent again by their clients."""
