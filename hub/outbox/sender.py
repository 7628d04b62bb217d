"""The sender: takes the first open posting of each lane, and lets the target have it exactly once.

An attempt is claimed in the log before anything leaves (`posting_sent`, whose key the log accepts once), so no two senders send one attempt, and
a sender that comes back from a pause finds its claim answered. After that whatever happens is asked, never guessed: a claim without an answer
is *unknown*, and an unknown posting is sent again only when the target has been asked for it until no request can be under way any more, and only
to a target that refuses a second document with the same key. A posting that a person must decide stops its own lane and no other.

What was done is facts; the view says what is to be done. The view is behind the log for a moment, so what this sender has said is remembered
until the view shows it.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from events import canonical
from events.base import Envelope, Event, Fact
from events.errors import Unavailable
from events.posting import (
    PostingAccepted,
    PostingHeld,
    PostingOutcomeUnknown,
    PostingRejected,
    PostingSent,
    PostingUnsent,
    PostingVerified,
)
from hub import limits
from hub.backoff import Backoff
from hub.log.store import Accepted as Taken
from hub.log.store import Result
from hub.outbox.target import Document, OutcomeUnknown, Posting, Rejected, Target
from hub.points import reach

SOURCE = "outbox"  # of the facts that the sender says
State = Literal["intended", "sent", "unknown", "rejected", "accepted", "held", "verified", "skipped"]


@dataclass(frozen=True, slots=True)
class Head:
    """The first open posting of a lane, as the view has it at a position. `holds`: how often it was held."""

    posting: str
    lane: str
    document: str
    state: State
    attempt: int
    document_id: str
    holds: int
    body: Mapping[str, Any]
    position: int


class Appender(Protocol):
    """Where facts go."""

    def append(self, facts: Sequence[Fact]) -> list[Result]: ...


Action = Literal["send", "ask", "verify", "wait"]


def due(head: Head, waited_s: float, *, settle_s: float) -> Action:
    """What is to be done now for a posting that has been seen in its state for so long. Pure."""
    if head.state == "intended":
        return "send"
    if head.state == "accepted":
        return "verify"
    if head.state == "unknown" or (head.state == "sent" and waited_s >= settle_s):
        return "ask"
    return "wait"  # sent just now, by us or another; or a person must decide


class Sender:
    """The sender of one target. `step()` does what is due once; `run()` is the loop of the program.

    `settle_s`: how long an attempt that somebody claimed may be silent; `late_s`: how long after its time-out a request may still land.
    """

    def __init__(
        self,
        target: Target,
        log: Appender,
        heads: Callable[[], Sequence[Head]],
        *,
        at_once: int = limits.POSTINGS_AT_ONCE,
        rate_max: float = 0.0,
        settle_s: float = limits.POSTING_SETTLE_S,
        late_s: float = limits.POSTING_LATE_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target, self._log, self._heads, self._now, self._clock = target, log, heads, now, clock
        self._settle_s, self._late_s, self._gap_s = settle_s, late_s, 1 / rate_max if rate_max else 0.0
        self._pool, self._at_once = ThreadPoolExecutor(at_once, thread_name_prefix=f"posts to {target.name}"), at_once
        self._under_way: dict[str, Future[None]] = {}  # by lane
        self._said: dict[str, int] = {}  # by posting: the position of what was said last, until the view shows it
        self._seen: dict[tuple[str, State, int], float] = {}  # since when a posting has been in its state, for this process
        self._asked: dict[str, tuple[float, float]] = {}  # when an unknown one is asked for next, and the wait after that
        self._next_at = 0.0
        self._pace = threading.Lock()

    @property
    def name(self) -> str:
        return f"posts to {self.target.name}"

    def step(self) -> int:
        """Take in what is done, and begin what is due for the first posting of each lane that nothing is under way for; how many of both.

        Raises `Unavailable` where the target, or the log, is out of reach.
        """
        ended = self._collect()
        heads = {head.posting: head for head in self._heads()}
        now = self._clock()
        self._said = {posting: at for posting, at in self._said.items() if posting in heads and heads[posting].position < at}
        self._seen = {key: self._seen.get(key, now) for head in heads.values() for key in [_key(head)]}
        self._asked = {posting: until for posting, until in self._asked.items() if posting in heads}
        todo = [
            (head, action)
            for head in heads.values()
            if head.posting not in self._said and head.lane not in self._under_way and (action := self._due(head, now)) != "wait"
        ]
        if todo and not self._under_way:
            self.target.ready()
        begun = todo[: self._at_once - len(self._under_way)]
        for head, action in begun:
            self._under_way[head.lane] = self._pool.submit(self._do, head, action)
        return ended + len(begun)

    def settle(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            wait(self._under_way.values(), return_when=FIRST_COMPLETED)
            self._collect()

    def _collect(self) -> int:
        done = {lane: work for lane, work in self._under_way.items() if work.done()}
        for lane in done:
            del self._under_way[lane]
        errors = [error for work in done.values() if (error := work.exception()) is not None]
        if errors:
            raise next((error for error in errors if not isinstance(error, Unavailable)), errors[0])
        return len(done)

    def run(self, stop: threading.Event, report: Callable[[str], None]) -> None:
        """Step until `stop` is set; a target that cannot be reached is waited for with back-off, for ever and visibly."""
        backoff = Backoff(self.name, report)
        while not stop.is_set():
            try:
                made = self.step()
            except Unavailable as error:
                backoff.wait(stop, f"{self.name} waits", error)
                continue
            backoff.over()
            if made:
                stop.wait(limits.POSTING_VIEW_S)
            elif self._under_way:
                wait(self._under_way.values(), limits.POSTING_POLL_S, FIRST_COMPLETED)
            else:
                stop.wait(limits.POSTING_POLL_S)

    def close(self) -> None:
        """Let what is under way end."""
        self._pool.shutdown()

    # -- one posting

    def _due(self, head: Head, now: float) -> Action:
        action = due(head, now - self._seen[head.posting, head.state, head.attempt], settle_s=self._settle_s)
        return "wait" if action == "ask" and now < self._asked.get(head.posting, (0.0, 0.0))[0] else action

    def _do(self, head: Head, action: Action) -> None:
        posting = Posting(head.posting, head.document, head.body)
        if action == "send":
            self._send(posting, head, head.attempt + 1)
            return
        found = self.target.find(posting)
        if action == "verify":
            self._verify(posting, head, found)
        elif found is not None:
            self._say(head, PostingAccepted(posting=head.posting, attempt=head.attempt, document_id=found.id))
            self._verify(posting, head, found)
        elif head.state == "sent":
            reason = "whoever sent it did not say what became of it, and the target does not have it yet"
            self._say(head, PostingOutcomeUnknown(posting=head.posting, attempt=head.attempt, reason=reason))
        elif self._clock() - self._seen[_key(head)] >= self._late_s and self.target.refuses_twice:
            self._send(posting, head, head.attempt + 1)
        else:
            _, wait_s = self._asked.get(head.posting, (0.0, limits.RETRY_FIRST_S))
            self._asked[head.posting] = self._clock() + wait_s, min(wait_s * 2, limits.RETRY_MAX_S)

    def _send(self, posting: Posting, head: Head, attempt: int) -> None:
        self._paced()
        if not self._say(head, PostingSent(posting=head.posting, attempt=attempt)):
            return  # somebody else's
        reach("posting claimed")
        try:
            answer = self.target.send(posting)
        except OutcomeUnknown as error:
            self._say(head, PostingOutcomeUnknown(posting=head.posting, attempt=attempt, reason=str(error)[:4000]))
            return
        except Unavailable as error:
            self._say(head, PostingUnsent(posting=head.posting, attempt=attempt, reason=str(error)[:4000]))
            raise
        reach("posting answered")
        if isinstance(answer, Rejected):
            self._say(head, PostingRejected(posting=head.posting, attempt=attempt, reason=answer.reason[:4000]))
            return
        self._say(head, PostingAccepted(posting=head.posting, attempt=attempt, document_id=answer.document_id))
        reach("posting accepted")
        self._verify(posting, replace(head, attempt=attempt, document_id=answer.document_id), self.target.find(posting))

    def _verify(self, posting: Posting, head: Head, found: Document | None) -> None:
        """Read back (rule 17). What does not say what was intended is held: a person looks at both."""
        if found is not None and not (wrong := differing(posting.body, found.says)):
            self._say(head, PostingVerified(posting=head.posting, document_id=found.id))
            return
        if found is None:
            if self._clock() - self._seen.get((head.posting, "accepted", head.attempt), self._clock()) < self._late_s:
                return  # perhaps it does not show yet
            wrong = f"{self.target.name} accepted it as {head.document_id} and does not have it"
        else:
            wrong = f"{found.id} of {self.target.name} says otherwise: {wrong}"
        self._say(head, PostingHeld(posting=head.posting, number=head.holds + 1, reason=wrong[:4000]))

    def _say(self, head: Head, event: Event) -> bool:
        """Append a fact; whether it was new."""
        (result,) = self._log.append([said(event, SOURCE, self._now())])
        self._said[head.posting] = result.position
        return isinstance(result, Taken)

    def _paced(self) -> None:
        if self._gap_s:
            with self._pace:
                wait_s, self._next_at = self._next_at - self._clock(), max(self._next_at, self._clock()) + self._gap_s
            time.sleep(max(0.0, wait_s))


def said(event: Event, actor: str, at: datetime) -> Fact:
    """The fact that something became of a posting, as the hub says it. Attempts and holds are numbered, so each is said once."""
    what: Any = event
    number = getattr(what, "attempt", getattr(what, "number", 0))
    key = f"{event.type.removeprefix('integration.posting_')}/{number}/{what.posting}"
    return Fact(Envelope(source=SOURCE, key=key, occurred_at=at, effective_at=at, actor=actor), event)


def _key(head: Head) -> tuple[str, State, int]:
    return head.posting, head.state, head.attempt


def differing(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What of `wanted` is not so in `found`, for people; "" if all is. What the target says beyond it does not count."""
    wrong = [
        f"{name} is {canonical.dumps(found[name]).decode() if name in found else 'not there'}, not {canonical.dumps(value).decode()}"
        for name, value in wanted.items()
        if name not in found or canonical.dumps(found[name]) != canonical.dumps(value)
    ]
    return "; ".join(wrong)
