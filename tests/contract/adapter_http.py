"""The HTTP adapter of the suite: the queue with a real uvicorn before it, as in the hub's API process."""

import socket
import threading
from pathlib import Path

import uvicorn

from adapters.http_queue import HttpQueue
from hub.app.api import make_app
from hub.app.servers.postgres import Database
from hub.app.settings import Settings
from hub.app.wiring import Hub


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
