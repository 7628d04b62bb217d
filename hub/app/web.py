"""What HTTP servers of ours have in common: who may ask, what is posted, errors as problems, and how they run until they are stopped."""

import asyncio
import contextlib
import hashlib
import hmac
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

import anyio
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.http_queue import HttpQueue, QueueFull
from events.errors import Unavailable
from hub import limits
from hub.app.settings import Secret
from hub.intake.delivery import Outcome, trace_header

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Mapping[str, str]  # by lower-case name

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


def cookies(headers: Headers, wanted: str) -> Iterator[str]:
    """The values of all cookies of a name."""
    found = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return (value for name, _, value in found if name == wanted)


def own_page(headers: Headers) -> bool:
    """Whether a request says that it is from a page of the hub, as browsers do of whatever is posted."""
    return "origin" in headers and headers["origin"].lower().partition("://")[2] == headers.get("host", "").lower()


class Guard:
    """ASGI middleware before everything, WebSockets included: same origin, and the token where one is set, else only loopback names.

    Where a token is set, `enters` says whether a request shows a person instead (None: nobody does); people read and decide, `machines` are paths for the token alone,
    `open_` such as are for everybody.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        token: Secret | None,
        enters: Callable[[Headers], bool] | None = None,
        machines: Collection[str] = (),
        open_: Collection[str] = (),
    ) -> None:
        self._app = app
        self._token = token
        self._enters, self._machines, self._open = enters, machines, open_
        self._at_once = anyio.CapacityLimiter(limits.IDENTIFY_AT_ONCE_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "").lower()
        # a browser sends its cookie or password along with what other sites' pages ask for, but it says whose page it was
        if "origin" in headers and not own_page(headers):
            await _refuse(
                scope, receive, send, 403, "only the hub's own pages may ask: a proxy before the hub must hand Host on as it came"
            )
            return
        if self._token is None:
            if (host if host.endswith("]") else host.rsplit(":", 1)[0]) not in _LOOPBACK_NAMES:
                await _refuse(scope, receive, send, 403, "only this machine may ask: set HUB_API_TOKEN to listen for others")
                return
            await self._app(scope, receive, _unframed(send))
            return
        if self._has_cookie(headers) or scope["path"] in self._open:
            await self._app(scope, receive, _unframed(send))
            return
        if self._has_token(headers):
            await self._app(scope, receive, _unframed(send, f"{_COOKIE}={self._cookie()}; Path=/; HttpOnly; SameSite=Strict"))
            return
        try:
            person = await self._shows_person(headers)
        except Unavailable as error:
            await _refuse(scope, receive, send, 503, str(error))
            return
        if not person:
            await _refuse(
                scope, receive, send, 401, "the API token is missing or wrong: send Authorization: Bearer, or log in with it as password; "
                "a person signs in at /signin, or sends their own token as Bearer",
            )  # fmt: skip
        elif scope["path"] in self._machines:
            await _refuse(scope, receive, send, 403, "facts come from machines: send HUB_API_TOKEN, not a person's token or session")
        else:
            await self._app(scope, self._as_long_as(headers, receive), _unframed(send))

    async def _shows_person(self, headers: Headers) -> bool:
        return self._enters is not None and await anyio.to_thread.run_sync(self._enters, headers, limiter=self._at_once)

    def _as_long_as(self, headers: Headers, receive: Receive) -> Receive:
        """What a person's browser says, until they have no access any more: a socket lives longer than the look at who opened it."""
        checked = time.monotonic()

        async def received() -> MutableMapping[str, Any]:
            nonlocal checked
            message = await receive()
            if message["type"] == "websocket.receive" and time.monotonic() - checked > limits.SESSION_CHECK_S:
                with contextlib.suppress(Unavailable):  # it is looked up at the next word
                    if not await self._shows_person(headers):
                        return {"type": "websocket.disconnect", "code": 4401}
                    checked = time.monotonic()
            return message

        return received

    def _has_token(self, headers: Headers) -> bool:
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

    def _has_cookie(self, headers: Headers) -> bool:
        return any(hmac.compare_digest(value.encode(), self._cookie().encode()) for value in cookies(headers, _COOKIE))


def _unframed(send: Send, cookie: str = "") -> Send:
    """Answers that no page may show within itself, where a click meant for it would be one here; with a cookie where one is given."""
    more = [(b"content-security-policy", b"frame-ancestors 'none'"), *([(b"set-cookie", cookie.encode())] if cookie else [])]

    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return sent


async def _refuse(scope: Scope, receive: Receive, send: Send, code: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4401})
        return
    headers = {"WWW-Authenticate": 'Basic realm="Millwright", charset="UTF-8"'} if code == 401 else None
    await problem(code, reason, headers)(scope, receive, send)
