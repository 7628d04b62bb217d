"""HTTP for the adapter suite: the queue with a real uvicorn before it, as in the hub's API process, and clients that send until they are answered."""

import http.client
import queue
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from adapters.http_queue import HttpQueue
from hub.app.api import make_app
from hub.app.servers.postgres import Database
from hub.app.servers.process import free_port
from hub.app.settings import Settings
from hub.app.wiring import Hub
from tests.contract.adapter_sources import HOST, WAIT_S


class Served(HttpQueue):
    """A queue whose API listens while it is open: to close it is to end the process that has both."""

    def __init__(self, port: int, waiting_max: int) -> None:
        super().__init__(waiting_max)
        self._port = port
        self._running: tuple[uvicorn.Server, threading.Thread] | None = None

    def open(self) -> None:
        super().open()
        hub = Hub(Settings(home=Path(".hub")), Database("postgresql:///nowhere"))  # what takes facts asks no database by itself
        config = uvicorn.Config(make_app(hub, self), log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=0)
        server = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", self._port))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        self._running = server, thread

    def close(self) -> None:
        """Who waits for an answer gets none."""
        super().close()
        if self._running is not None:
            server, thread = self._running
            server.should_exit = server.force_exit = True
            thread.join(10)
            self._running = None


@dataclass(frozen=True)
class HttpRoad:
    """A port on which the API listens; an adapter brings its server with it, as in the hub's API process."""

    port: int
    waiting_max: int = 64

    def adapter(self) -> HttpQueue:
        return Served(self.port, self.waiting_max)


class Http:
    """Clients that send each body until it is answered, one after the other in each lane."""

    takes_empty = False  # answered with 400: the client knows

    def __init__(self, lanes: int = 4) -> None:
        self.lanes = lanes
        self.road = HttpRoad(free_port())
        self.answers: list[int] = []
        self._outboxes: list[queue.Queue[bytes | None]] = [queue.Queue() for _ in range(lanes)]
        self._sent = 0
        self._ends = threading.Event()
        self._clients = [threading.Thread(target=self._run, args=(outbox,), daemon=True) for outbox in self._outboxes]
        for client in self._clients:
            client.start()

    def send(self, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            self._outboxes[self._sent % self.lanes].put(body)
            self._sent += 1

    def held(self) -> int:
        return self._sent - sum(map(_settles, self.answers))

    def close(self) -> None:
        self._ends.set()
        for outbox in self._outboxes:
            outbox.put(None)
        for client in self._clients:
            client.join(WAIT_S)

    def _run(self, outbox: "queue.Queue[bytes | None]") -> None:
        while (body := outbox.get()) is not None:
            while not self._ends.is_set():
                self.answers.append(code := self._post(body))
                if _settles(code):
                    break
                time.sleep(0.02)

    def _post(self, body: bytes) -> int:
        """The status, or 0 if there was none."""
        connection = http.client.HTTPConnection(HOST, self.road.port, timeout=1)
        try:
            connection.request("POST", "/v1/facts", body, {"Content-Type": "application/json"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def stop(self) -> None:
        raise NotImplementedError

    start = freeze = thaw = stop


def _settles(code: int) -> bool:
    """Whether a client may forget what it sent: it was taken, or refused for good."""
    return 0 < code < 500
