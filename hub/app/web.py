"""What HTTP servers of ours have in common: who may ask, what is posted, errors as problems, and how they run until they are stopped."""

import asyncio
import hashlib
import hmac
import socket
import threading
from base64 import b64decode
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.http_queue import HttpQueue, QueueFull
from hub import limits
from hub.app.settings import Secret
from hub.intake.delivery import Outcome, trace_header

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]"}
_COOKIE = "millwright"


def problem(code: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as RFC 9457 says it."""
    return JSONResponse({"status": code, "detail": detail}, code, headers, "application/problem+json")


async def body_of(request: Request, bytes_max: int) -> bytes | None:
    """The body of a request; None for one that is larger."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            return None
    return bytes(body)


async def posted(request: Request, queue: HttpQueue, late: str) -> Outcome | Response:
    """The durable outcome of what was posted, or what to answer instead; `late` is said of what was not durable in time."""
    body = await body_of(request, limits.HTTP_BODY_BYTES_MAX)
    if body is None:
        return problem(413, f"the body is larger than {limits.HTTP_BODY_BYTES_MAX} bytes: send it in parts")
    if not body:
        return problem(400, "the body is empty: send a fact, a batch or a document")
    headers = {"content_type": request.headers.get("content-type", "")[:200], "path": request.url.path}
    headers |= trace_header(request.headers.get("traceparent"))
    try:
        future = queue.submit(body, headers, datetime.now(UTC))
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), limits.HTTP_DURABLE_WAIT_S)
    except QueueFull as full:
        return problem(503, str(full), {"Retry-After": "1"})
    except TimeoutError:
        return problem(503, late, {"Retry-After": "2"})


def serve(config: uvicorn.Config, stop: threading.Event, sockets: list[socket.socket] | None = None) -> None:
    """Run a server in this thread until `stop` is set."""
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # ours end all threads together

    def watch() -> None:
        stop.wait()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets)


class Guard:
    """ASGI middleware before everything, WebSockets included: same origin, and the token where one is set, else only loopback names."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: Secret | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        # a browser sends its cookie or password along with what other sites' pages ask for, but it says whose page it was
        if "origin" in headers and origin.partition("://")[2] != host:
            await _refuse(
                scope, receive, send, 403, "only the hub's own pages may ask: a proxy before the hub must hand Host on as it came"
            )
            return
        if self._token is None:
            if (host if host.endswith("]") else host.rsplit(":", 1)[0]) not in _LOOPBACK_NAMES:
                await _refuse(scope, receive, send, 403, "only this machine may ask: set HUB_API_TOKEN to listen for others")
                return
            await self._app(scope, receive, send)
            return
        if not (self._has_token(headers) or self._has_cookie(headers)):
            await _refuse(
                scope, receive, send, 401, "the API token is missing or wrong: send Authorization: Bearer, or log in with it as password"
            )
            return

        async def with_cookie(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and not self._has_cookie(headers):
                cookie = f"{_COOKIE}={self._cookie()}; Path=/; HttpOnly; SameSite=Strict".encode()
                message = {**message, "headers": [*message.get("headers", []), (b"set-cookie", cookie)]}
            await send(message)

        await self._app(scope, receive, with_cookie)

    def _has_token(self, headers: dict[str, str]) -> bool:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                value = b64decode(value, validate=True).decode().partition(":")[2]
            except ValueError:
                return False
        elif scheme.lower() != "bearer":
            return False
        return self._token is not None and self._token.matches(value.strip())

    def _cookie(self) -> str:
        secret = self._token.reveal() if self._token else ""
        return hmac.new(secret.encode(), b"console", hashlib.sha256).hexdigest()

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        found = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        return any(name == _COOKIE and hmac.compare_digest(value.encode(), self._cookie().encode()) for name, _, value in found)


async def _refuse(scope: Scope, receive: Receive, send: Send, code: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4401})
        return
    headers = {"WWW-Authenticate": 'Basic realm="Millwright", charset="UTF-8"'} if code == 401 else None
    await problem(code, reason, headers)(scope, receive, send)
