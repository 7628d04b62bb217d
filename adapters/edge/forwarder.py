"""The forwarder: hands the spool's backlog to the hub, in order within each lane, and lets the spool forget what the hub has durably.

One batch is under way at a time. Whatever happens to it, the spool still has it and it is sent again; the hub knows entries by their numbers
and facts by their keys. A line that accepts and says nothing is given up after `SILENT_S`.
"""

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

from adapters.edge import wire
from adapters.edge.spool import Spool, Spooled
from events.canonical import time_text
from events.errors import HubError, Refused, Unavailable
from hub import limits
from hub.points import reach

ENTRIES_MAX = 500  # of a batch
BYTES_MAX = 4 * 1024 * 1024  # of their bodies, unless one alone is larger
SILENT_S = 20.0  # no byte for this long: the line is dead
CONNECT_S = 5.0
PRUNE_S = 1.0  # what may be dropped is dropped this often while there is always something to send
ASK_S = 10.0  # a line on which nothing is sent is asked this often whether it is there
CLOCK_S = 5.0  # the hub's clock and ours may differ by this much


@dataclass
class Line:
    """What the forwarder knows of the line to the hub, for people."""

    up: bool = False
    trouble: str = "not tried yet"
    since: float = field(default_factory=time.monotonic)  # monotonic; when `up` last changed
    last_heard_at: str | None = None
    skew_s: float | None = None  # how far our clock is ahead of the hub's


class HubClient:
    """What an edge asks the hub over HTTPS, on a connection that is kept. Raises `Refused`, `Unavailable`."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self.url, self._tls = url.rstrip("/"), tls
        self._client: httpx.Client | None = None

    def lanes(self, edge: str, epoch: str) -> wire.Answer:
        """How far the hub is."""
        return self._ask("GET", f"{wire.HELLO}?edge={edge}&epoch={epoch}")

    def send(self, batch: bytes) -> wire.Answer:
        """How far the hub is with a batch."""
        return self._ask("POST", wire.PATH, batch)

    def close(self) -> None:
        """Give the connection up; the next call makes another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, method: str, path: str, body: bytes | None = None) -> wire.Answer:
        if self._client is None:
            timeout = httpx.Timeout(SILENT_S, connect=CONNECT_S)
            self._client = httpx.Client(verify=self._tls or False, timeout=timeout, trust_env=False)
        headers = {"content-type": "application/vnd.millwright.batch"}
        try:
            reply = self._client.request(method, self.url + path, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            self.close()
            raise Unavailable(f"the hub at {self.url} cannot be reached ({type(error).__name__}: {error})") from error
        said = reply.text[:300] if reply.status_code != 200 else ""
        if reply.status_code in (400, 401, 403, 404, 409, 413, 422):
            raise Refused(f"the hub at {self.url} refuses this edge ({reply.status_code}): {said}")
        if reply.status_code != 200:
            raise Unavailable(f"the hub at {self.url} cannot take it now ({reply.status_code}): {said}")
        return wire.answered(reply.content)


class Forwarder:
    """Drives the line; `step()` for tests. `skewed` is told how far our clock is ahead of the hub's each time it says its own."""

    def __init__(
        self,
        spool: Spool,
        url: str,
        tls: ssl.SSLContext | None,
        *,
        rate_max: float = 0.0,
        skewed: Callable[[float], None] = lambda seconds: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._spool, self._hub, self._now, self._skewed = spool, HubClient(url, tls), now, skewed
        self.rate_max = rate_max  # entries a second, 0: as fast as the hub takes them
        self.line = Line()
        self._greeted = False
        self._pace_from = time.monotonic()

    @property
    def name(self) -> str:
        return f"line to {self._hub.url}"

    def step(self, stop: threading.Event) -> int:
        """Send one batch if there is one; how many entries the hub has now that it had not. Raises `Unavailable`."""
        if not self._greeted:
            self._greet()
        entries, again = self._spool.waiting(ENTRIES_MAX, BYTES_MAX), False
        if not entries and (entries := self._spool.again(ENTRIES_MAX, BYTES_MAX)):
            again = True
        if not entries:
            return 0
        reach("batch read")
        self._pace(len(entries), stop)
        answer = self._hub.send(wire.packed(self._spool.edge, self._spool.epoch, time_text(self._now()), entries, again=again))
        reach("batch answered")
        self._heard(answer)
        if again:
            self._spool.sent_again(entries)
        else:
            self._spool.acknowledge(_upto(entries, answer))
        return len(entries)

    def run(self, stop: threading.Event, report: Callable[[str], None]) -> None:
        """Step until `stop` is set; an unreachable hub is waited for with back-off, for ever and visibly."""
        wait_s = limits.RETRY_FIRST_S
        pruned = spoke = time.monotonic()
        while not stop.is_set():
            self._spool.arrived.clear()
            try:
                sent = self.step(stop)
            except (Unavailable, Refused) as error:  # Refused: another version, a certificate that was withdrawn; a person may mend it
                self._lost(str(error))
                report(f"{self.name}: {error}")
                stop.wait(wait_s)
                wait_s = min(wait_s * 2, limits.RETRY_MAX_S)
                continue
            wait_s = limits.RETRY_FIRST_S
            if not sent or time.monotonic() - pruned > PRUNE_S:
                self._spool.prune()
                pruned = time.monotonic()
            if sent:
                spoke = time.monotonic()
            elif not self._spool.arrived.wait(limits.POLL_S) and time.monotonic() - spoke > ASK_S:
                self._greeted, spoke = False, time.monotonic()  # asks how the line is
        self.close()

    def close(self) -> None:
        """Give the connection up."""
        self._hub.close()

    def _greet(self) -> None:
        """Ask the hub how far it is, and go on from there.

        Entries it has that we never gave: our spool was lost or put back from a copy, so a new epoch begins. Numbers we took for durable and it does
        not have: it was put back from a backup; what is still here is sent again, and what is not is told as lost.
        """
        answer = self._hub.lanes(self._spool.edge, self._spool.epoch)
        self._heard(answer)
        lanes = {lane.name: lane for lane in self._spool.lanes()}
        if self._spool.differs(answer.lanes, answer.runs):
            self._spool.new_epoch()
            return
        self._spool.acknowledge({name: n for name, n in answer.lanes.items() if n > lanes[name].acked})
        behind = {name: answer.lanes.get(name, 0) for name, lane in lanes.items() if answer.lanes.get(name, 0) < lane.acked}
        if behind and (lost := self._spool.rewind(behind)):
            self._heard(self._hub.send(wire.packed(self._spool.edge, self._spool.epoch, time_text(self._now()), [], lost=lost)))
        self._greeted = True

    def _heard(self, answer: wire.Answer) -> None:
        if answer.epoch != self._spool.epoch:
            raise Unavailable(f"the hub answered for epoch {answer.epoch}, the spool is in {self._spool.epoch}: asking again")
        ours = self._now()
        self.line.last_heard_at = time_text(ours)
        self.line.skew_s = answer.ahead_s(ours)
        self._skewed(self.line.skew_s)
        if not self.line.up:
            self.line.up, self.line.trouble, self.line.since = True, "", time.monotonic()

    def _lost(self, why: str) -> None:
        self._greeted = False
        self.line.trouble = why
        if self.line.up:
            self.line.up, self.line.since = False, time.monotonic()

    def _pace(self, entries: int, stop: threading.Event) -> None:
        """Wait so long that no more than `rate_max` entries a second leave."""
        if self.rate_max > 0:
            self._pace_from = max(self._pace_from, time.monotonic() - 1)
            stop.wait(max(0.0, self._pace_from - time.monotonic()))
            self._pace_from += entries / self.rate_max


def _upto(entries: list[Spooled], answer: wire.Answer) -> dict[str, int]:
    """The last number of each lane that was sent and that the hub says it has."""
    sent: dict[str, int] = {}
    for entry in entries:
        sent[entry.lane] = max(entry.n, sent.get(entry.lane, 0))
    short = {lane: n for lane, n in sent.items() if answer.lanes.get(lane, 0) < n}
    if short:
        raise HubError(f"the hub answered 200 and does not have {short}: this is a fault of the hub, nothing was dropped")
    return sent
