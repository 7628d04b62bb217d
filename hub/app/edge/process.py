"""The edge process: a loop a source, the forwarder, and a small HTTP server for posts, the page and what `hub edge` asks.

SIGTERM ends it: what a source handed over is in the spool, what is not stays with the source.
"""

import gc
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from adapters.edge.forwarder import CLOCK_S, Forwarder
from adapters.edge.loops import DeliveryLoop, EdgeLoop, Meaning, Numbers, ReadingLoop
from adapters.edge.spool import Addition, Spool
from adapters.http_queue import HttpQueue
from events.canonical import time_text
from events.errors import HubError, Unavailable
from events.integration import ClockSkewDetected
from hub import limits
from hub.app.edge.config import Configured
from hub.app.edge.sources import delivery_sources, reading_sources
from hub.app.settings import ConfigError
from hub.intake.edge_document import EdgeFact
from hub.intake.readings import Commandable
from hub.tls import Unusable, client_context

_log = logging.getLogger(__name__)
LOOK_S = 2.0
TIMER_S = 1.0
STOP_S = 8.0  # for all that is under way at the end, before what still waits is left
WARN_S = 3600.0  # a spool that is full within this long is told


class Edge:
    """Everything of one edge, opened; `run` until stopped."""

    def __init__(self, configured: Configured, report: Callable[[str], None]) -> None:
        self.configured, self._report = configured, report
        config = configured.config
        self.spool = Spool(
            configured.at(config.spool.path),
            config.edge,
            bytes_max=config.spool.max,
            keep_bytes=config.spool.keep,
            keep_s=config.spool.keep_hours * 3600,
        )
        self.posts = HttpQueue(limits.HTTP_WAITING_MAX, limits.HTTP_WAITING_BYTES_MAX)
        self.meaning = Meaning(config.plant, self.spool)
        self._skew_told = False
        self.commandable: dict[str, Commandable] = {}  # by the names of edge.yaml
        self.loops: list[EdgeLoop] = [DeliveryLoop(self.posts, "http", self.meaning, self.spool, report), *self._sources()]
        self.forwarder = Forwarder(self.spool, config.hub.url, tls_of(configured), rate_max=config.hub.rate_max, skewed=self._skewed)
        self.numbers = Numbers(self.spool)

    def _sources(self) -> Iterator[EdgeLoop]:
        from adapters.folder import FolderAdapter

        for part in self.configured.config.folders:
            yield DeliveryLoop(FolderAdapter(self.configured.at(part.path)), part.name, self.meaning, self.spool, self._report)
        for lane, adapter in delivery_sources(self.configured):
            yield DeliveryLoop(adapter, lane, self.meaning, self.spool, self._report, lambda adapter=adapter: adapter.resumed)  # type: ignore[misc]
        for name, source in reading_sources(self.configured):
            if isinstance(source, Commandable):
                self.commandable[name] = source
            yield ReadingLoop(source, self.meaning, self.spool, self._report)

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        from hub.app.edge.http import serve

        gc.freeze()
        works: list[tuple[str, Callable[[], None]]] = [(loop.seen.name, lambda loop=loop: loop.run(stop)) for loop in self.loops]  # type: ignore[misc]
        works += [
            (self.forwarder.name, lambda: self.forwarder.run(stop, self._report)),
            ("numbers", lambda: self._look(stop)),
            ("timers", lambda: self._timers(stop)),
            ("http", lambda: serve(self, stop)),
        ]
        threads = [threading.Thread(target=_guarded(name, work, stop), name=name, daemon=True) for name, work in works]
        for thread in threads:
            thread.start()
        stop.wait()
        end = time.monotonic() + STOP_S
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        self.spool.close()

    def status(self) -> dict[str, Any]:
        """What `hub edge status --json` prints and the page shows; all zeros is healthy."""
        arrival, drain, full_in_s = self.numbers.rates()
        line = self.forwarder.line
        return {
            **spool_status(self.spool),
            "line": {
                "url": self.configured.config.hub.url,
                "up": line.up,
                "for_s": round(time.monotonic() - line.since, 1),
                "trouble": line.trouble,
                "last_heard_at": line.last_heard_at,
                "skew_s": None if line.skew_s is None else round(line.skew_s, 3),
                "rate_max": self.forwarder.rate_max,
            },
            "arrival_rate": round(arrival, 1),
            "drain_rate": round(drain, 1),
            "full_in_s": None if full_in_s is None else round(full_in_s),
            "sources": [
                {
                    "name": one.seen.name,
                    "connected": one.seen.connected,
                    "trouble": one.seen.trouble,
                    "last_at": None if one.seen.last_at is None else time_text(one.seen.last_at),
                    "taken": one.seen.taken,
                }
                for one in self.loops
            ],
        }

    def _timers(self, stop: threading.Event) -> None:
        """Facts that time alone brings: a threshold passed, a producer silent. The clock runs on from the start, whatever is done to the machine's."""
        began, from_ = time.monotonic(), datetime.now(UTC)
        while not stop.wait(TIMER_S):
            self.meaning.due(from_ + timedelta(seconds=time.monotonic() - began), self._durable)

    def _durable(self, additions: Sequence[Addition], memory: Mapping[str, bytes]) -> bool:
        self.spool.append_all(additions, memory)
        return True

    def _skewed(self, seconds: float) -> None:
        """Our clock against the hub's: told once an episode."""
        beyond = abs(seconds) > CLOCK_S
        if beyond and not self._skew_told:
            at = datetime.now(UTC)
            event = ClockSkewDetected(
                edge=self.spool.edge, clock=f"edge {self.spool.edge}", seconds=Decimal(f"{seconds:.3f}"), compared_with="hub"
            )
            self.meaning.say("edge", [EdgeFact(event, at, "clock/1", time_quality="edge_clock")], self._durable)
            self._report(f"our clock is {seconds:+.1f} s from the hub's: set it; nothing is ordered by it")
        self._skew_told = beyond

    def _look(self, stop: threading.Event) -> None:
        warned = False
        while not stop.wait(LOOK_S):
            self.numbers.look()
            disk, (_, _, full_in_s) = self.spool.disk(), self.numbers.rates()
            near = disk["backlog_bytes"] > self.configured.config.spool.warn_at * disk["bytes_max"]
            if (near or (full_in_s is not None and full_in_s < WARN_S)) and not warned:
                when = "" if full_in_s is None else f", full in {full_in_s / 60:.0f} min if it goes on so"
                self._report(
                    f"the spool fills: {disk['backlog_bytes']} of {disk['bytes_max']} bytes wait for the hub{when}; when it is full the sources "
                    "must keep what they have: bring the line back, or raise spool.max"
                )
            warned = near or (full_in_s is not None and full_in_s < WARN_S)


def spool_status(spool: Spool) -> dict[str, Any]:
    """What the spool alone tells."""
    lanes, disk = spool.lanes(), spool.disk()
    oldest = min((lane.oldest for lane in lanes if lane.oldest), default=None)
    age = 0.0 if oldest is None else max(0.0, (datetime.now(UTC) - datetime.fromisoformat(oldest)).total_seconds())
    return {
        "edge": spool.edge,
        "epoch": spool.epoch,
        "backlog": sum(lane.backlog for lane in lanes),
        "oldest_s": round(age, 1),
        **disk,
        "lanes": [
            {
                "lane": one.name,
                "last": one.last,
                "acked": one.acked,
                "backlog": one.backlog,
                "backlog_bytes": one.bytes,
                "oldest_at": one.oldest,
            }
            for one in lanes
        ],
    }


def tls_of(configured: Configured) -> ssl.SSLContext:
    """What the line to the hub is encrypted and known by. Raises `ConfigError`."""
    part = configured.config.hub
    try:
        return client_context(configured.at(part.authority), configured.at(part.certificate), configured.at(part.key))
    except Unusable as error:
        raise configured.document.fault(("hub", error.field), f"{error}; `hub edge enrol` made it") from error


def _guarded(name: str, work: Callable[[], None], stop: threading.Event) -> Callable[[], None]:
    """A loop never dies silently: what ends it is told, and it starts again after a pause. What no repetition mends ends the edge."""

    def run() -> None:
        while not stop.is_set():
            try:
                work()
            except ConfigError as error:
                _log.error("%s: %s", name, error)
                stop.set()
            except Unavailable as error:
                _log.warning("%s waits %.0f s: %s", name, limits.RETRY_MAX_S, error)
            except HubError as error:
                _log.error("%s waits %.0f s: %s", name, limits.RETRY_MAX_S, error)
            except Exception:  # noqa: BLE001 - the outermost net of a loop: told with its trace, then tried again
                _log.exception("%s failed and is started again in %.0f s", name, limits.RETRY_MAX_S)
            stop.wait(limits.RETRY_MAX_S)

    return run
