"""The HTTP API: facts and EPCIS documents in, per-row answers out; stock, traces, exceptions and health for programs.

A 2xx is sent only after everything in the request is durable. With a token set every request needs it, as `Authorization: Bearer` or as the
password of HTTP Basic (so that a browser can ask for it); without one only names of the loopback interface are answered. Pages of other sites
are never answered. A person's token, as Bearer, or their session opens everything but the intake where the other is needed, and alone decides
(hub/app/signin.py). Whatever goes wrong is answered as application/problem+json.
"""

import logging
from collections.abc import Callable

import msgspec
import psycopg
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute, APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from adapters.http_queue import HttpQueue
from events import canonical
from events.errors import HubError, Refused, Unavailable
from hub.app import answers, metrics, queries, signin
from hub.app.ready import Readiness
from hub.app.web import Guard, posted, problem
from hub.app.wiring import Hub
from hub.intake.delivery import Outcome
from hub.security.people import NotAllowed
from hub.security.tokens import NotIdentified

_INTAKE = ("/v1/facts", "/epcis/capture")
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_log = logging.getLogger(__name__)


def make_app(hub: Hub, queue: HttpQueue, trouble: Callable[[], str] = lambda: "") -> FastAPI:
    """The application; `queue` is drained by an intake loop, `trouble` says why that cannot go on."""
    app = FastAPI(title="Millwright", version="1", docs_url=None, redoc_url=None)  # their pages load scripts from elsewhere
    app.include_router(signin.routes(hub))
    app.include_router(_routes(hub, queue, Readiness(hub, trouble)))
    app.add_middleware(Guard, token=hub.settings.api_token, enters=signin.entering(hub), machines=_INTAKE, open_=(signin.PATH,))
    for kind in (HubError, psycopg.Error, ClientDisconnect, HTTPException, Exception):
        app.add_exception_handler(kind, _answer_to)
    return app


def _answer_to(request: Request, error: Exception) -> Response:
    """What went wrong as a problem: the caller's fault, try again, or ours, which goes to the log in one line too."""
    if isinstance(error, HTTPException):
        return problem(error.status_code, str(error.detail), dict(error.headers or {}))
    if isinstance(error, ClientDisconnect):
        return problem(400, "the connection was closed before all of the body was there")  # nobody reads it
    detail = " ".join(str(error).split())
    if isinstance(error, Unavailable | psycopg.OperationalError):
        return problem(503, detail, {"Retry-After": "1"})
    if isinstance(error, NotIdentified):
        return problem(401, detail, {"WWW-Authenticate": 'Bearer realm="Millwright"'})
    if isinstance(error, NotAllowed):
        return problem(403, detail)
    if isinstance(error, Refused | psycopg.DataError):
        return problem(400, detail)
    if not isinstance(error, HubError | psycopg.Error):
        return problem(500, "this is the hub's own fault: its trace is in hub-api.log, report it")  # where whoever called us writes it
    _log.error("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, detail)
    return problem(500, detail)


def _routes(hub: Hub, queue: HttpQueue, readiness: Readiness) -> APIRouter:
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
            return problem(400, f"direction is both, forward or backward, not {direction[:40]!r}")
        canonical.check_text(id_)
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
        """As `hub status --json`, but for the database's addresses: they hold passwords."""
        return JSONResponse({name: value for name, value in answers.status(hub).items() if not name.endswith("_url")})

    @router.get("/health/live")
    def live() -> Response:
        return JSONResponse({"live": True})

    @router.get("/health/ready")
    def ready() -> Response:
        """Ready means: the log answers and takes what is posted, there is room on the disk, no view is behind by more than the bound."""
        lag_s, reasons = readiness.ask()
        answer = {"ready": not reasons, "oldest_unprocessed_s": lag_s, "reasons": reasons}
        if not reasons:
            return JSONResponse(answer)
        return JSONResponse({"status": 503, "detail": "; ".join(reasons), **answer}, 503, {"Retry-After": "1"}, "application/problem+json")

    @router.get("/metrics", include_in_schema=False)
    def metrics_() -> Response:
        """The numbers of all processes of this hub, for Prometheus (docs/telemetry.md)."""
        return Response(metrics.text(hub, "hub-api"), media_type=metrics.CONTENT_TYPE)

    @router.api_route("/v1/{rest:path}", methods=_METHODS, include_in_schema=False)
    @router.api_route("/epcis/{rest:path}", methods=_METHODS, include_in_schema=False)
    def nowhere(request: Request, rest: str) -> Response:
        """What is left: the console below would answer with a page."""
        found = (route for route in router.routes if isinstance(route, APIRoute) and route.matches(request.scope)[0] is Match.PARTIAL)
        allowed = sorted({method for route in found for method in route.methods or ()})
        if allowed:
            return problem(
                405, f"{request.method} is not for {request.url.path}: use {' or '.join(allowed)}", {"Allow": ", ".join(allowed)}
            )
        return problem(404, f"there is nothing at {request.url.path}: see /openapi.json")

    return router


async def _take(request: Request, queue: HttpQueue, *, accepted_status: int) -> Response:
    outcome = await posted(request, queue, "the log did not confirm in time: send it again, what is known already will answer as duplicate")
    return _answer(outcome, accepted_status) if isinstance(outcome, Outcome) else outcome


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
    return Response(msgspec.json.encode(body), code, media_type="application/json")  # of thousands of rows: many times faster than json's
