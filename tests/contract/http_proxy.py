"""An HTTP proxy that a test lets misbehave for some requests: hold them past any time-out and let them through later, or lose what is answered.

A request a connection, as servers that close after each answer have it.
"""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)", re.IGNORECASE)
Wanted = Callable[[bytes], bool]


def calls(method: str) -> Wanted:
    """Requests of JSON-RPC for one method of any model."""
    return lambda request: b'.%b"' % method.encode() in request


class HttpProxy:
    """Listens on a free port of this machine and passes requests to `port`; in threads of its own."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.requests: list[bytes] = []  # all that came, whole
        self._held: list[bytes] = []
        self._holds: Wanted = lambda request: False
        self._loses: Wanted = lambda request: False
        self._listening = socket.create_server((HOST, 0))
        self.port = int(self._listening.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listening.close()

    def hold(self, wanted: Wanted) -> None:
        """Keep such requests, and say nothing."""
        self._holds = wanted

    def lose(self, wanted: Wanted) -> None:
        """Pass such requests on, and end the connection once they are answered."""
        self._loses = wanted

    def mend(self) -> None:
        """Pass everything; what is held stays held."""
        self._holds = self._loses = lambda request: False

    @property
    def held(self) -> int:
        """Requests that are held now."""
        return len(self._held)

    def release(self) -> list[bytes]:
        """Let held requests through, whether or not their senders are still there; the answers."""
        held, self._held = self._held, []
        return [self._pass(request) for request in held]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = _request(connection)
            if not request:
                return
            self.requests.append(request)
            if self._holds(request):
                self._held.append(request)
                while connection.recv(1):  # until its sender has given up
                    time.sleep(0.01)
                return
            loses = self._loses(request)
            answer = self._pass(request)
            if not loses:
                connection.sendall(answer)

    def _pass(self, request: bytes) -> bytes:
        with socket.create_connection((HOST, self.target)) as there:
            there.sendall(request)
            return b"".join(iter(lambda: there.recv(65536), b""))


def _request(connection: socket.socket) -> bytes:
    """All of a request; nothing where its sender left before."""
    said = b""
    while more := connection.recv(65536):
        said += more
        head, end, body = said.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and len(body) >= (int(length[1]) if length else 0):
            return said
    return b""
