"""The edge's HTTP server: takes posts as the hub does, shows the page, and does what `hub edge resend`, `drain`, `devices` and `command` ask.

A 2xx is sent only after the body is in the spool. On an address that others reach it needs a token (`HUB_EDGE_TOKEN`).
"""

import asyncio
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from events.errors import Refused, Unavailable
from hub import limits
from hub.app import web
from hub.app.edge.page import page
from hub.app.settings import TOKEN_CHARS_MIN, ConfigError, Secret, host_port, is_loopback
from hub.app.web import Guard, body_of, posted, problem
from hub.intake.delivery import Outcome

if TYPE_CHECKING:
    from hub.app.edge.process import Edge


def make_app(edge: "Edge") -> Starlette:
    """The application."""

    async def take(request: Request) -> Response:
        outcome = await posted(request, edge.posts, "the spool did not take it in time: send it again")
        if not isinstance(outcome, Outcome):
            return outcome
        (line,) = outcome.parts[0].lines
        return JSONResponse({"sha256": outcome.sha256, "spooled": line.business_key}, 202)

    async def status(request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(edge.status))

    async def shown(request: Request) -> Response:
        return HTMLResponse(page(await asyncio.to_thread(edge.status)))

    async def drain(request: Request) -> Response:
        asked = await _json(request)
        rate = asked.get("rate")
        if not isinstance(rate, int | float) or isinstance(rate, bool) or rate < 0:
            return problem(400, "rate is entries a second, 0 for no bound")
        edge.forwarder.rate_max = float(rate)
        return JSONResponse({"rate_max": edge.forwarder.rate_max})

    async def resend(request: Request) -> Response:
        asked = await _json(request)
        lane, first, last = asked.get("lane"), asked.get("first"), asked.get("last")
        known = {one.name: one for one in await asyncio.to_thread(edge.spool.lanes)}
        if lane not in known:
            return problem(404, f"there is no lane {str(lane)[:80]!r}: the lanes are {', '.join(known) or 'none yet'}")
        if not isinstance(first, int) or not isinstance(last, int) or not 1 <= first <= last:
            return problem(400, "first and last are numbers of the lane, 1 or more")
        count = await asyncio.to_thread(edge.spool.send_again, lane, first, last)
        edge.spool.arrived.set()
        return JSONResponse({"lane": lane, "asked": last - first + 1, "found": count, "waiting": known[lane].last - known[lane].acked})

    async def devices(request: Request) -> Response:
        def rows(of: str) -> list[dict[str, Any]]:
            return [{"source": name, **row} for name, source in edge.commandable.items() for row in source.devices(of)]

        return JSONResponse({"devices": await asyncio.to_thread(rows, request.query_params.get("of", ""))})

    async def command(request: Request) -> Response:
        asked = await _json(request)
        tag, name, known = asked.get("tag"), asked.get("source"), edge.commandable
        if not isinstance(tag, str) or "value" not in asked:
            return problem(400, "a command needs tag and value: tag is the name that its readings have")
        if name is None and len(known) == 1:
            (name,) = known
        if name not in known:
            return problem(404, f"name the source of the command: {', '.join(known) or 'no source of edge.yaml takes commands'}")
        by = f"{str(asked.get('by') or 'nobody named')[:80]} at {request.client.host if request.client else 'an unknown address'}"
        try:
            topic = await asyncio.to_thread(known[name].command, tag, asked["value"], by)
        except Refused as error:
            return problem(422, str(error))
        except Unavailable as error:
            return problem(503, str(error))
        return JSONResponse({"source": name, "tag": tag, "value": asked["value"], "topic": topic, "by": by})

    routes = [
        Route("/v1/facts", take, methods=["POST"]),
        Route("/epcis/capture", take, methods=["POST"]),
        Route("/status", status),
        Route("/", shown),
        Route("/v1/drain", drain, methods=["POST"]),
        Route("/v1/resend", resend, methods=["POST"]),
        Route("/v1/devices", devices),
        Route("/v1/command", command, methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    host, _ = host_port(edge.configured.config.listen, "listen")
    token = os.environ.get("HUB_EDGE_TOKEN", "")
    if not is_loopback(host) and len(token) < TOKEN_CHARS_MIN:
        raise edge.configured.document.fault(
            ("listen",), f"others can reach {host}: set HUB_EDGE_TOKEN to at least {TOKEN_CHARS_MIN} characters, or listen on 127.0.0.1"
        )
    app.add_middleware(Guard, token=Secret(token) if token else None)
    return app


async def _json(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(await body_of(request, limits.HTTP_BODY_BYTES_MAX) or b"null")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def serve(edge: "Edge", stop: threading.Event) -> None:
    """Serve until `stop` is set. Raises `ConfigError` for an address that cannot be had."""
    host, port = host_port(edge.configured.config.listen, "listen")
    config = uvicorn.Config(
        make_app(edge), host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=3, lifespan="off"
    )
    try:
        web.serve(config, stop)
    except SystemExit as error:  # uvicorn's word for an address that is taken
        raise ConfigError(f"{edge.configured.config.listen} cannot be listened on: free it, or change `listen`") from error
