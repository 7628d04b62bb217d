"""The HTTP API: facts and EPCIS documents in, per-row answers out; stock, traces, exceptions and health for programs.

A 2xx is sent only after everything in the request is durable. With a token set every request needs it, as `Authorization: Bearer` or as the
password of HTTP Basic (so that a browser can ask for it); without one only names of the loopback interface are answered.
"""

import asyncio
import hashlib
import hmac
from base64 import b64decode
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRouter

from adapters.http_queue import HttpQueue, QueueFull
from events.errors import Unavailable
from hub import limits
from hub.app import answers, queries
from hub.app.settings import Secret
from hub.app.wiring import Hub
from hub.intake.delivery import Outcome

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

DURABLE_WAIT_S = 30.0  # a client that waits longer has gone; the delivery is still worked on, and a repeat is a duplicate
_LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]", "testserver"}
_COOKIE = "millwright"


def make_app(hub: Hub, queue: HttpQueue) -> FastAPI:
    """The application; `queue` is drained by an intake loop."""
    app = FastAPI(title="Millwright", version="1", docs_url=None, redoc_url=None)  # their pages load scripts from elsewhere
    app.include_router(_routes(hub, queue))
    app.add_middleware(Guard, token=hub.settings.api_token)

    @app.exception_handler(Unavailable)
    def unavailable(request: Request, error: Unavailable) -> Response:
        return _problem(503, str(error), {"Retry-After": "1"})

    return app


def _routes(hub: Hub, queue: HttpQueue) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/facts")
    async def facts(request: Request) -> Response:
        """Canonical JSON or CloudEvents: one, an array, or newline-delimited. 200 all taken, 207 with an answer a row, 422 nothing mapped."""
        return await _take(request, queue, accepted_status=200)

    @router.post("/epcis/capture")
    async def capture(request: Request) -> Response:
        """An EPCIS 2.0 JSON document or event. 202 all captured (durable already), 207 with an answer an event, 422 nothing mapped."""
        return await _take(request, queue, accepted_status=202)

    @router.get("/v1/stock")
    def stock(accounts: str = "own") -> Response:
        with answers.caught_up(hub, ("stock", "references")) as cursor:
            return JSONResponse(list(queries.stock(cursor, everything=accounts == "all")))

    @router.get("/v1/trace/{id_:path}")
    def trace(id_: str, direction: str = "both") -> Response:
        if direction not in ("both", "forward", "backward"):
            return _problem(400, f"direction is both, forward or backward, not {direction[:40]!r}")
        with answers.caught_up(hub) as cursor:
            found = answers.trace(cursor, id_, direction)
        return JSONResponse(found, 200 if found.get("root") else 300 if "candidates" in found else 404)

    @router.get("/v1/exceptions")
    def exceptions() -> Response:
        with answers.caught_up(hub) as cursor:
            return JSONResponse(queries.exceptions(cursor))

    @router.get("/v1/events")
    def events(first: int = 1, limit: int = 100) -> Response:
        """Facts from position `first` on, at most `limit` (up to 1,000)."""
        last = max(first, 1) + min(max(limit, 1), 1000) - 1
        return Response(answers.plain_json(list(queries.events(hub.log, max(first, 1), last=last))), media_type="application/json")

    @router.get("/v1/status")
    def status() -> Response:
        return JSONResponse(answers.status(hub))

    @router.get("/health/live")
    def live() -> Response:
        return JSONResponse({"live": True})

    @router.get("/health/ready")
    def ready() -> Response:
        """Ready means: the log answers and no view is behind by more than the bound."""
        lag_s = answers.status(hub)["oldest_unprocessed_s"]
        return JSONResponse({"ready": lag_s < 30, "oldest_unprocessed_s": lag_s}, 200 if lag_s < 30 else 503)

    return router


async def _take(request: Request, queue: HttpQueue, *, accepted_status: int) -> Response:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.HTTP_BODY_BYTES_MAX:
            return _problem(413, f"the body is larger than {limits.HTTP_BODY_BYTES_MAX} bytes: send it in parts")
    if not body:
        return _problem(400, "the body is empty: send a fact, a batch or a document")
    headers = {"content_type": request.headers.get("content-type", "")[:200], "path": request.url.path}
    try:
        future = queue.submit(bytes(body), headers, datetime.now(UTC))
        outcome = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), DURABLE_WAIT_S)
    except QueueFull as full:
        return _problem(503, str(full), {"Retry-After": "1"})
    except TimeoutError:
        return _problem(
            503, "the log did not confirm in time: send it again, what is known already will answer as duplicate", {"Retry-After": "2"}
        )
    return _answer(outcome, accepted_status)


def _answer(outcome: Outcome, accepted_status: int) -> Response:
    lines = [line for part in outcome.parts for line in part.lines]
    names = {line.outcome for line in lines}
    code = accepted_status
    if names == {"quarantined"}:
        code = 422
    elif names == {"conflict"}:
        code = 409
    elif names & {"quarantined", "conflict"}:
        code = 207
    body = {
        "sha256": outcome.sha256,
        "outcome": outcome.outcome,
        "parts": [
            {
                **part.as_json(),
                "rows": [
                    {
                        "row": n,
                        "line": line.path,
                        "outcome": line.outcome,
                        "source": line.source,
                        "business_key": line.business_key,
                        "position": line.position,
                        "reason": line.reason or None,
                        "place": line.place or None,
                    }
                    for n, line in enumerate(part.lines, 1)
                ],
            }
            for part in outcome.parts
        ],
    }
    return JSONResponse(body, code)


def _problem(code: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as RFC 9457 says it."""
    return JSONResponse({"status": code, "detail": detail}, code, headers, "application/problem+json")


class Guard:
    """ASGI middleware before everything, WebSockets included: the token where one is set, else only loopback names and same-origin posts."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: Secret | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self._token is None:
            host = headers.get("host", "").rsplit(":", 1)[0] if not headers.get("host", "").endswith("]") else headers["host"]
            origin = headers.get("origin")
            if host not in _LOOPBACK_NAMES or (origin is not None and origin.split("://", 1)[-1] != headers.get("host")):
                await _refuse(scope, send, 403, b"only this machine's own pages may ask: set HUB_API_TOKEN to listen for others")
                return
            await self._app(scope, receive, send)
            return
        if not (self._has_token(headers) or self._has_cookie(headers)):
            await _refuse(scope, send, 401, b"the API token is missing or wrong: send Authorization: Bearer, or log in with it as password")
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
        return any(name == _COOKIE and hmac.compare_digest(value, self._cookie()) for name, _, value in found)


async def _refuse(scope: Scope, send: Send, code: int, reason: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4401})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(reason)).encode())]
    if code == 401:
        headers.append((b"www-authenticate", b'Basic realm="Millwright", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": reason})
