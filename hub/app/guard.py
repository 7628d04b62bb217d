"""Who may ask an HTTP server of ours: the guard before everything, and errors as problems."""

import hashlib
import hmac
from base64 import b64decode
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse, Response

from hub.app.settings import Secret

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]"}
_COOKIE = "millwright"


def problem(code: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as RFC 9457 says it."""
    return JSONResponse({"status": code, "detail": detail}, code, headers, "application/problem+json")


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
