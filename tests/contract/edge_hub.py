"""A hub's listener for edges with its own database, as the hub runs it, a line to it that can be cut, and an edge enrolled there."""

import contextlib
import multiprocessing
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import uvicorn

from adapters.edge.forwarder import Forwarder
from adapters.edge.spool import Spool
from hub.app.demo.line import PASS, Line, order
from hub.app.home import Home
from hub.app.plants.authority import Authority
from hub.app.plants.listener import PeerProtocol, Taker, make_app
from hub.app.servers.process import free_port
from hub.app.wiring import mappings
from hub.intake.door import Intake
from hub.log.migrate import migrate
from hub.log.store import Log
from tests.conftest import new_database
from tests.facts import as_role


class EdgeHub:
    """`url` is the listener's, `line_url` the same through the line."""

    def __init__(self, owner_url: str, folder: Path) -> None:
        self.owner_url, self.folder = owner_url, folder
        (folder / "home").mkdir(exist_ok=True)
        self.authority = Authority(Home.open(folder / "home"))
        self.port, self.line_port = free_port(), free_port()
        self.url, self.line_url = f"https://127.0.0.1:{self.port}", f"https://127.0.0.1:{self.line_port}"
        self.word = folder / "line"
        self._server: tuple[uvicorn.Server, threading.Thread] | None = None
        self._logs: list[Log] = []
        self.lines: list[Forwarder] = []

    def start(self) -> None:
        """Listen."""
        log = Log(as_role(self.owner_url, "hub_door"))
        self._logs.append(log)
        app = make_app(Taker(log, Intake(log, mappings(), {})), self.authority)
        config = uvicorn.Config(
            app,
            http=PeerProtocol,
            ssl_context_factory=lambda *_: self.authority.context([]),
            log_config=None,
            lifespan="off",
            loop="asyncio",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        sockets = [socket.create_server(("127.0.0.1", self.port))]
        thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
        thread.start()
        self._server = server, thread
        until(lambda: server.started)

    def stop(self) -> None:
        """Listen no more."""
        for line in self.lines:
            line.close()
        if self._server is not None:
            server, thread = self._server
            server.should_exit = True
            thread.join(10)
            self._server = None
        for log in self._logs:
            log.close()
        self._logs.clear()

    def say(self, word: str) -> None:
        """Tell the line what to do, and give it the time to."""
        order(self.word, word)
        time.sleep(0.15)

    def tls(self, edge: str = "plant-1") -> ssl.SSLContext:
        """What an edge that is enrolled now speaks with."""
        certificate, key = self.authority.enrol(edge)
        (self.folder / f"{edge}.pem").write_bytes(certificate)
        (self.folder / f"{edge}.key").write_bytes(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority.certificate())
        context.load_cert_chain(self.folder / f"{edge}.pem", self.folder / f"{edge}.key")
        return context

    def line(self, spool: Spool, tls: ssl.SSLContext | None = None, url: str | None = None, **more: Any) -> Forwarder:
        """A forwarder through the line, or to another address."""
        self.lines.append(Forwarder(spool, url or self.line_url, tls or self.tls(spool.edge), **more))
        return self.lines[-1]

    def logged(self) -> list[str]:
        """Business keys of the log, in its order: read by SQL, not by the hub's code."""
        with psycopg.connect(self.owner_url) as connection:
            return [key for (key,) in connection.execute("select business_key from log.event order by position")]

    def select(self, query: str) -> list[tuple[object, ...]]:
        """Rows of a query."""
        with psycopg.connect(self.owner_url) as connection:
            return connection.execute(query.encode()).fetchall()


@contextlib.contextmanager
def edge_hub(pg_owner_url: str, folder: Path) -> Iterator[EdgeHub]:
    """A hub that listens for edges, and its line."""
    with new_database(pg_owner_url) as url:
        migrate(url)
        hub = EdgeHub(url, folder)
        order(hub.word, PASS)
        line = multiprocessing.get_context("fork").Process(target=_line, args=(hub.line_port, hub.port, hub.word), daemon=True)
        line.start()
        hub.start()
        try:
            yield hub
        finally:
            hub.stop()
            line.kill()
            line.join()


def _line(port: int, target: int, word: Path) -> None:
    import asyncio

    asyncio.run(Line(port, ("127.0.0.1", target), word).serve())


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError("it did not come about in time")
        time.sleep(0.02)
