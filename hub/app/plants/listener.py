"""The listener of the plants: takes batches of edges over mutual TLS and answers when everything in them is durable.

An entry is known by its edge, epoch, lane and number. What is known is not taken again; numbers that jump are refused, unless the edge says that
it lost those between: that is a gap, told as a fact. The answer says how far each lane is durable here, and nothing is acknowledged sooner.
"""

import json
import logging
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adapters.edge import wire
from events.base import Envelope, Event, Fact
from events.canonical import time_text
from events.errors import HubError, Refused, Unavailable
from events.integration import EdgeEpochBegan, GapDetected
from hub import limits
from hub.app.plants.authority import Authority, NotEnrolled
from hub.app.web import body_of, problem
from hub.intake.delivery import Delivery
from hub.intake.door import Intake
from hub.log.store import Log

_log = logging.getLogger(__name__)


class PeerProtocol(HttpToolsProtocol):
    """Hands the certificate that a client showed (DER) on to the application, as `request.state.peer`: uvicorn itself does not."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        self.app_state = {**self.app_state, "peer": tls.getpeercert(binary_form=True) if tls else None}


class _Jumped(Refused):
    """An entry that does not follow on what is here."""

    def __init__(self, lane: str, last: int, n: int) -> None:
        super().__init__(f"lane {lane} is at {last} here, entry {n} does not follow: ask how far the hub is, and send from there")


class Taker:
    """Makes batches durable; one at a time for each edge."""

    def __init__(self, log: Log, intake: Intake, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._log, self._intake, self._now = log, intake, now
        self._busy: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def lanes(self, edge: str, epoch: str) -> wire.Answer:
        """How far each lane is durable."""
        return self._answer(epoch, self._log.lanes(edge, epoch))

    def take(self, batch: wire.Batch) -> wire.Answer:
        """Take what is new of a batch. Raises `Refused` for entries out of order, `Unavailable`."""
        with self._guard:
            busy = self._busy.setdefault(batch.edge, threading.Lock())
        with busy:
            known = self._log.lanes(batch.edge, batch.epoch)
            said: list[Fact] = [] if known else self._epoch_began(batch)
            outcomes: Counter[str] = Counter()
            new: list[Delivery] = []
            upto = dict(known)
            for lane, first, last in batch.lost:
                at, run = upto.get(lane, (0, ""))
                if first != at + 1 or last < first:
                    raise _Jumped(lane, at, first)
                said.append(self._gap(batch, lane, first, last))
                upto[lane] = last, run
            for entry in batch.entries:
                last, _ = upto.get(entry.lane, (0, ""))
                if entry.n <= last and not entry.again:
                    outcomes["duplicate"] += 1
                    continue
                if entry.n > last + 1 or (entry.again and entry.n > last):
                    raise _Jumped(entry.lane, last, entry.n)
                if entry.n > last:
                    upto[entry.lane] = entry.n, entry.run
                new.append(self._delivery(batch, entry))
            for start in range(0, len(new), limits.INTAKE_BATCH_MAX):
                outcomes.update(outcome.outcome for outcome in self._intake.take(new[start : start + limits.INTAKE_BATCH_MAX]))
            if said:
                self._log.append(said)
            if upto != known:
                self._log.move_lanes(batch.edge, batch.epoch, upto)
            return self._answer(batch.epoch, upto, dict(outcomes))

    def _answer(self, epoch: str, upto: Mapping[str, tuple[int, str]], outcomes: dict[str, int] | None = None) -> wire.Answer:
        numbers, runs = {name: n for name, (n, _) in upto.items()}, {name: run for name, (_, run) in upto.items()}
        return wire.Answer(epoch, numbers, time_text(self._now()), outcomes or {}, runs)

    def _delivery(self, batch: wire.Batch, entry: wire.WireEntry) -> Delivery:
        try:
            headers = {str(name): str(value) for name, value in json.loads(entry.headers).items()}
            received_at = datetime.fromisoformat(entry.received_at)
        except (ValueError, AttributeError) as error:
            raise Refused(f"entry {entry.n} of lane {entry.lane} has headers or a time that are none ({error})") from error
        more = {"edge": batch.edge, "epoch": batch.epoch, "lane": entry.lane, "n": str(entry.n)}
        return Delivery(entry.body, entry.transport, received_at, headers | more)

    def _epoch_began(self, batch: wire.Batch) -> list[Fact]:
        rows = self._log.select(
            "select epoch from intake.lane where edge = %s and epoch <> %s order by heard_at desc limit 1", [batch.edge, batch.epoch]
        )
        if not rows:
            return []
        reason = "the edge began to count anew: its spool was lost, or put back from a copy"
        event = EdgeEpochBegan(edge=batch.edge, epoch=batch.epoch, previous=rows[0][0], reason=reason)
        return [self._fact(batch, f"epoch:{batch.epoch}", event)]

    def _gap(self, batch: wire.Batch, lane: str, first: int, last: int) -> Fact:
        key = f"{batch.epoch}/{lane}/{first}-{last}"
        event = GapDetected(
            gap=key,
            edge=batch.edge,
            producer=lane,
            kind="sequence",
            reason="the hub was put back to before these entries, and the edge does not have them any more",
            first=first,
            last=last,
        )
        return self._fact(batch, key, event)

    def _fact(self, batch: wire.Batch, key: str, event: Event) -> Fact:
        at = self._now()
        return Fact(Envelope(source=_source(batch.edge), key=key, occurred_at=at, effective_at=at, actor="hub", mapping="plants/1"), event)


def _source(edge: str) -> str:
    """Whose words facts about an edge are that the hub itself finds."""
    return f"hub:edge:{edge}"


def make_app(taker: Taker, authority: Authority) -> Starlette:
    """The application behind the listener."""

    async def batch(request: Request) -> Response:
        edge = authority.who(getattr(request.state, "peer", None))
        body = await body_of(request, limits.EDGE_BATCH_BYTES_MAX)
        if body is None:
            return problem(413, f"the batch is larger than {limits.EDGE_BATCH_BYTES_MAX} bytes: send fewer entries")
        found = await run_in_threadpool(wire.unpacked, body)
        if found.edge != edge:
            raise NotEnrolled(f"the batch is of the edge {found.edge[:80]!r}, the certificate of {edge!r}: correct `edge` in its edge.yaml")
        return _answer(await run_in_threadpool(taker.take, found))

    async def lanes(request: Request) -> Response:
        edge = authority.who(getattr(request.state, "peer", None))
        if request.query_params.get("edge") != edge:
            raise NotEnrolled(f"the certificate is of the edge {edge!r}: correct `edge` in edge.yaml")
        return _answer(await run_in_threadpool(taker.lanes, edge, request.query_params.get("epoch", "")))

    app = Starlette(routes=[Route(wire.PATH, batch, methods=["POST"]), Route(wire.HELLO, lanes)])
    app.add_exception_handler(HubError, _trouble)
    return app


def _answer(answer: wire.Answer) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _trouble(request: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return problem(409 if isinstance(error, _Jumped) else 403 if isinstance(error, NotEnrolled) else 400, str(error))
    if isinstance(error, Unavailable):
        return problem(503, str(error), {"Retry-After": "1"})
    _log.error("%s: %s", request.url.path, error)
    return problem(500, str(error))
