"""OPC UA in: readings of one server, and what is missing of them.

A message of the server is confirmed when its readings are durable. After a cut, and after a kill -9, the session and its subscription are taken
up again, and the server sends again what was not confirmed; so a cut shorter than the server's patience costs nothing. Where it has forgotten
them, each item's first value afterwards is set against the last that was durable: the same time and value means that nothing happened, else the
server's history is read for what lies between, and what even that does not give is a gap. A short history comes before what is new, as it
happened; what is new does not wait for a long one, which is read beside it, a page at a time (`Back`).
"""

import heapq
import itertools
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from adapters.formats.opcua_values import overflowed, quality_of, value_of
from adapters.opcua.items import Back, Cut, Item, Last, Step, aware, merged
from adapters.opcua.settings import OpcUaSettings
from events.errors import Unavailable
from hub import limits
from hub.intake.readings import Filled, Gap, GapKind, Observed, Reading

if TYPE_CHECKING:  # asyncua is heavy: it is imported when a server is opened
    from adapters.opcua.browse import Found
    from adapters.opcua.line import Line, Message, Page
    from adapters.opcua.session import Session

_NO_BOUND = 0x80D70000  # BadBoundNotFound: what a server puts where its history begins later than asked for
_NO_NODE = (0x80330000, 0x80340000)  # BadNodeIdInvalid, BadNodeIdUnknown: said of one that is taken away; made anew it is not watched
_NO_MORE = "the server has it no more"
_SHORT = "the server dropped values before it sent them: its queue is too short (raise queue, or rate_hz), or it was too slow"
_TOO_SHORT = "its history does not reach back so far"
_INCOMPLETE = "its history is not complete"
_FORGOT = "the server did not keep our subscription: it was started anew, or the cut was too long"


class OpcUaSource:
    """A `ReadingSource` for one server."""

    def __init__(self, settings: OpcUaSettings) -> None:
        self._settings = settings
        self._line: Line | None = None
        self._forget()

    @property
    def name(self) -> str:
        return f"opcua {self._settings.url}"

    def _forget(self) -> None:
        self._items: dict[str, Item] = {}
        self._numbers: dict[int, Item] = {}
        self._handles: dict[int, Item] = {}
        self._dirty: set[int] = set()
        self._changed: set[str] = set()  # names of what else is to be remembered anew
        self._ordinal, self._cuts = 0, dict[int, Cut]()
        self._heard: datetime | None = None
        self._next, self._done = 1, 0  # the message that is expected, and how many of its values are durable
        self._told: list[Step] = []  # what is to be said before anything else
        self._stream: Iterator[Step | None] = iter(())
        self._wait_s = 0.0
        self._backs: list[tuple[float, int, Back]] = []  # a heap: when they are next, by the monotonic clock
        self._turns = itertools.count()
        self._asked: Back | None = None  # for which a page is under way
        self._held_until = 0.0  # by the monotonic clock: so long what came may wait for history
        self._ended: Unavailable | None = None
        self._look_at, self._look_s = 0.0, limits.OPCUA_AGAIN_S

    # -- the source ---------------------------------------------------------------------------------------------------------------------------

    def open(self, remembered: Callable[[str], bytes | None]) -> None:
        """Connect, go on with what is remembered, and compare the items. Raises `Unavailable`."""
        from adapters.opcua.line import Line

        self.close()
        self._forget()
        session = self._recall(remembered)
        line = Line(self._settings)
        try:
            line.open(session)
            found = line.browse()
            moved = any((item := self._items.get(one.tag)) and item.node != one.node for one in found)
            if not line.resumed or moved:
                self._begin(line, "disconnected", _FORGOT)
            self._compare(line, found)
            line.go_on()
        except BaseException:
            line.close()
            raise
        self._line = line
        self._changed |= {"line", "at"}
        self._stream = self._steps(line)

    def receive(self, limit: int, wait_s: float) -> Sequence[Observed]:
        """What came, in one piece. Raises `Unavailable` when the line is lost or silent, after all that came before."""
        if self._line is None:
            raise Unavailable(f"{self.name} is not open")
        self._wait_s, begun = wait_s, time.monotonic()
        found: list[Step] = []
        size = 0
        looked = False
        while size < limit and time.monotonic() - begun < wait_s + 1.0:
            try:
                if self._ended is not None:
                    raise self._ended
                if not looked:
                    looked = self._look_again(self._line)
                step = self._told.pop(0) if self._told else next(self._stream)
            except Unavailable as error:
                self._ended = error  # what came before it is handed over first
                if not found:
                    raise
                break
            if step is None:
                break
            found.append(step)
            size += len(step.readings)
            self._wait_s = 0.0
        if not found and not self._changed:
            return []
        return [self._observed(found, self._line)]

    def close(self) -> None:
        """Drop the connection; the server keeps what is not confirmed, as long as it has patience."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def check(self) -> Sequence[str]:
        """Connect, look around, and leave nothing behind. Raises `Unavailable` naming the remedy."""
        from adapters.opcua.check import looked

        return looked(self._settings)

    # -- what is remembered --------------------------------------------------------------------------------------------------------------------

    def _name(self, what: str) -> str:
        return f"opcua/{self._settings.producer}/{what}"

    def _recall(self, remembered: Callable[[str], bytes | None]) -> "Session | None":
        """Take up what was durable; how to go on with the session, if it is of the same settings."""
        from adapters.opcua.session import Session

        def load(what: str) -> Any:
            saved = remembered(self._name(what))
            return None if saved is None else msgspec.msgpack.decode(saved)

        for row in load("items") or ():
            item = Item(*row)
            self._know(item)
            if saved := remembered(self._name(f"item/{item.number}")):
                item.recall(saved)
            self._due(item.backs)
        if at := load("at"):
            self._next, self._done, heard = at
            self._heard = datetime.fromisoformat(heard) if heard else None
        if (line := load("line")) is None:
            return None
        token, nonce, subscription, started, self._ordinal, about, cuts = line
        self._cuts = {n: Cut.recalled(cut) for n, cut in cuts}
        return Session(token, nonce, subscription, started, self._next) if about == self._settings.about_subscription() else None

    def _memory(self, line: "Line") -> dict[str, bytes]:
        """What is to be durable together with what is said now."""
        memory = {self._name(f"item/{number}"): self._numbers[number].saved() for number in self._dirty}
        self._dirty.clear()
        encode = msgspec.msgpack.encode
        if "items" in self._changed:
            rows = [(i.number, i.tag, i.node, i.history, i.gone, i.watched, i.handle) for i in self._items.values()]
            memory[self._name("items")] = encode(rows)
        if "line" in self._changed:
            session, about = line.session(), self._settings.about_subscription()
            cuts = [(n, cut.saved()) for n, cut in self._cuts.items()]
            memory[self._name("line")] = encode(
                (session.token, session.nonce, session.subscription, session.started, self._ordinal, about, cuts)
            )
        memory[self._name("at")] = encode((self._next, self._done, self._heard.isoformat() if self._heard else None))
        self._changed.clear()
        return memory

    def _observed(self, steps: Sequence[Step], line: "Line") -> Observed:
        confirm = [step.confirm for step in steps if step.confirm]

        def done() -> None:
            for subscription, number in confirm:
                line.confirm(subscription, number)

        return Observed(
            self._settings.producer,
            datetime.now(UTC),
            [reading for step in steps for reading in step.readings],
            merged([gap for step in steps for gap in step.gaps], timedelta(seconds=self._settings.publishing_s)),
            [filled for step in steps for filled in step.filled],
            self._memory(line),
            done,
        )

    # -- items -----------------------------------------------------------------------------------------------------------------------------------

    def _know(self, item: Item) -> None:
        self._items[item.tag] = self._numbers[item.number] = item
        if item.handle:
            self._handles[item.handle] = item
        item.last.counting = next((one for one in self._settings.sequences if one.tag == item.tag), None)

    def _begin(self, line: "Line", kind: GapKind, reason: str) -> None:
        """A new subscription: from here on each item's next value is the first after a cut."""
        line.subscribe()
        self._ordinal += 1
        if self._heard is not None:
            self._cuts[self._ordinal] = Cut(kind, reason, self._heard)
            if len(self._cuts) > limits.OPCUA_CUTS_MAX:
                del self._cuts[min(self._cuts)]
        self._next, self._done = 1, 0
        self._changed |= {"line", "items"}
        for item in self._items.values():
            item.watched = False

    def _compare(self, line: "Line", found: "Sequence[Found]") -> None:
        """Let the server watch what it does not watch yet; say of which known items that cannot be."""
        there = {one.tag: one for one in found}
        number = max(self._numbers, default=0)
        for tag, one in there.items():
            if tag not in self._items:
                self._know(Item(number := number + 1, tag, one.node, one.history))
            item = self._items[tag]
            item.node, item.history = one.node, one.history
        wanted = [item for item in self._items.values() if not item.watched and item.tag in there]
        for item in wanted:
            self._handles.pop(item.handle, None)
            item.handle = secrets.randbits(31) + 1
            self._handles[item.handle] = item
        why = {item.tag: _NO_MORE for item in self._items.values() if item.tag not in there}
        said = line.monitor([(item.handle, item.node) for item in wanted]) if wanted else []
        why |= {item.tag: f"the server does not watch it ({one.why})" for item, one in zip(wanted, said, strict=True) if one.why}
        for item in wanted:
            if item.tag not in why:
                item.watched = True
                item.ordinal = min(item.ordinal, self._ordinal - 1)  # its next value is a first one
        if gaps := [gap for tag, reason in why.items() for gap in self._lose(self._items[tag], reason)]:
            self._told.append(Step(gaps=gaps))
        if wanted:
            self._changed.add("items")

    def _lose(self, item: Item, why: str) -> list[Gap]:
        """An item is not watched: said once."""
        item.watched = False
        self._changed.add("items")
        if item.gone:
            return []
        item.gone = secrets.token_hex(8)
        since = max((at for at in (item.last.at, self._heard) if at), default=datetime.now(UTC))
        return [Gap(item.gone, self._settings.producer, "disconnected", why, since=since, tags=(item.tag,))]

    def _look_again(self, line: "Line") -> bool:
        """Look for items that were missing, less and less often."""
        if all(item.watched for item in self._items.values()):
            self._look_at, self._look_s = 0.0, limits.OPCUA_AGAIN_S
        elif not self._look_at:
            self._look_at = time.monotonic() + self._look_s
        elif self._look_at <= time.monotonic():
            self._look_s = min(self._look_s * 2, limits.OPCUA_AGAIN_MAX_S)
            self._look_at = time.monotonic() + self._look_s
            self._compare(line, line.browse())
        return True

    # -- values ------------------------------------------------------------------------------------------------------------------------------------

    def _steps(self, line: "Line") -> Iterator[Step | None]:
        """What comes, a step at a time; None when there is nothing now. At each step the source's state is what goes with it."""
        from adapters.opcua.line import Hole, Page

        while True:
            self._ask(line)
            came = line.take(self._wait_s)
            if came is None:
                self._held_until = 0.0
                yield None
            elif isinstance(came, Page):
                yield self._read_back(line, came)
            elif isinstance(came, Hole):
                lost = "we had no room for what the server sent" if came.full else "the server did not keep what it sent long enough"
                self._begin(line, "overflow" if came.full else "disconnected", f"{lost} (its messages {came.first} to {came.last})")
                self._compare(line, line.browse())
                line.go_on()
            elif came.values:
                yield from self._message(line, came)
            else:
                self._heard = came.published
                yield Step()

    def _message(self, line: "Line", came: "Message") -> Iterator[Step]:
        """The values of a message, but for those that were durable before, and then that it is through."""
        begin = self._done if came.number == self._next else 0
        self._next = came.number
        for n in range(begin, len(came.values)):
            self._done = n
            handle, data = came.values[n]
            if (item := self._handles.get(handle)) is None:
                continue  # made before a kill, and known under another handle since
            status = _status(data)
            reading = self._reading(item, data, line.namespaces)
            if item.ordinal != self._ordinal:
                yield from self._first(line, item, reading, n, status)
            elif not item.last.repeats(reading):
                gaps: list[Gap] = []
                if overflowed(status) or item.last.missing(reading.sequence):
                    cut = Cut("overflow" if overflowed(status) else "sequence", _SHORT, came.published)
                    gaps = yield from self._between(line, item, reading, cut, item.last.at)
                item.late(reading, came.published)
                self._done = n + 1
                yield self._also_gone(status, item, self._put(item, reading, "sequence", _SHORT, gaps))
        self._next, self._done = came.number % (2**32 - 1) + 1, 0
        if not came.more:
            self._heard = came.published
        yield Step(confirm=(line.subscription, came.number))

    def _also_gone(self, status: int, item: Item, step: Step) -> Step:
        """What a value said, and if it says that there is no such variable, that too."""
        if status in _NO_NODE:
            step.gaps = [*step.gaps, *self._lose(item, _NO_MORE)]
        return step

    def _first(self, line: "Line", item: Item, reading: Reading, n: int, status: int) -> Iterator[Step]:
        """An item's first value in this subscription: what lies between it and the last that was durable is read back, or is a gap."""
        repeated = item.last.known and item.last.has(reading)
        why: tuple[GapKind, str] = ("sequence", _SHORT)
        gaps: list[Gap] = []
        if item.last.known and not repeated:
            after = min((ordinal for ordinal in self._cuts if ordinal > item.ordinal), default=0)
            if (cut := None if item.gone else self._cuts.get(after)) is None:
                since = item.last.at or datetime.now(UTC)
                cut = Cut("disconnected", "it was not watched", since)
            else:
                since = cut.heard - timedelta(seconds=item.lag_s or 0.0)
                if item.last.at is not None and reading.at is not None:
                    since = max(item.last.at, min(since, reading.at))
            gaps = yield from self._between(line, item, reading, cut, since)
            why = cut.kind, cut.reason
        item.ordinal, self._done = self._ordinal, n + 1
        self._dirty.add(item.number)
        step = Step() if repeated else self._put(item, reading, *why, gaps)
        if item.gone:
            how = "the server watches it again; what is missing even so is a gap of its own"
            step.filled, item.gone = [Filled(item.gone, self._settings.producer, how)], ""
            self._changed.add("items")
        yield self._also_gone(status, item, step)

    # -- history -----------------------------------------------------------------------------------------------------------------------------------

    def _between(self, line: "Line", item: Item, reading: Reading, cut: Cut, since: datetime | None) -> Generator[Step, None, list[Gap]]:
        """What lies between an item's last reading and this one: read back before it as far as there is patience, and else beside what comes.

        Returns the gaps that go with this one.
        """
        last = item.last
        counted = last.counts(reading.sequence)  # jumps of the numbers say it more exactly than times do
        if last.at is not None and reading.at is not None and last.at > reading.at:
            cut = replace(cut, reason=f"{cut.reason}; its clock was set back meanwhile")
        elif self._settings.history and item.history and last.at is not None and reading.at is not None:
            until = Last(last.counting)
            until.put(reading)
            back = Back(item, cut, since, last, until, counted)
            if not self._held_until:
                self._held_until = time.monotonic() + limits.OPCUA_HISTORY_FIRST_S
            while not back.tries and time.monotonic() < self._held_until:
                step = self._page(line, back, line.history(*back.asks()))
                if back.over:
                    yield step
                    return [] if counted else self._rest(back, "")
                yield step
            if len(item.backs) < limits.OPCUA_BACKS_MAX:
                back.last, last.count = last.copy(), None
                item.backs.append(back)
                self._due([back], limits.OPCUA_HISTORY_AGAIN_S if back.why else 0.0)
                return []
            cut = replace(cut, reason=f"{cut.reason}; the history of {len(item.backs)} cuts is still being read")
            since = back.since
        return [] if counted else [self._gap(item, cut.kind, cut.reason, since, reading.at)]

    def _due(self, backs: Iterable[Back], wait_s: float = 0.0) -> None:
        for back in backs:
            heapq.heappush(self._backs, (time.monotonic() + wait_s, next(self._turns), back))

    def _ask(self, line: "Line") -> None:
        """Let a page of history come, of what was not served the longest."""
        if self._asked is None and self._backs and self._backs[0][0] <= time.monotonic():
            self._asked = heapq.heappop(self._backs)[-1]
            line.ask(*self._asked.asks())

    def _read_back(self, line: "Line", page: "Page") -> Step:
        """The page that was asked for; what does not come after some tries is a gap."""
        back, self._asked = self._asked, None
        assert back is not None
        step = self._page(line, back, page)
        if back.over or back.tries >= limits.OPCUA_HISTORY_TRIES:
            step.gaps = [*step.gaps, *self._rest(back, back.why)]
            back.item.backs.remove(back)
        else:
            self._due([back], limits.OPCUA_HISTORY_AGAIN_S if back.why else 0.0)
        return step

    def _page(self, line: "Line", back: Back, page: "Page") -> Step:
        """What a page of history says that is not known yet."""
        item = back.item
        readings = [
            self._reading(item, data, line.namespaces, historical=True)
            for data in page.values
            if _status(data) != _NO_BOUND and (data.SourceTimestamp or data.ServerTimestamp)
        ]
        found = back.take(readings)
        gaps = []
        if found and not back.begun:
            gaps.append(self._gap(item, "history", f"{back.cut.reason}; {_TOO_SHORT}", back.since, found[0].at))
            back.begun = True
        for one in found:
            gaps += self._jumps(item, back.last, one.sequence, one.at, "history", _INCOMPLETE)
            back.last.put(one)
            back.since = one.at
        self._dirty.add(item.number)
        back.turn(len(page.values), bool(found), page.point, page.why)
        return Step(found, gaps)

    def _rest(self, back: Back, why: str) -> list[Gap]:
        """What is missing at the end: `why` it did not come, or "" where all came that the history has."""
        if back.last.counts(back.until.count):
            reason = f"{back.cut.reason}; {why or _INCOMPLETE}"
            return self._jumps(back.item, back.last, back.until.count, back.until.at, "history", reason)
        if back.begun and not why:
            return []
        return [self._gap(back.item, "history", f"{back.cut.reason}; {why or _TOO_SHORT}", back.since, back.until.at)]

    # -- readings and gaps -------------------------------------------------------------------------------------------------------------------------

    def _reading(self, item: Item, data: Any, namespaces: Sequence[str], *, historical: bool = False) -> Reading:
        value, kind = value_of(data.Value, namespaces)
        at = data.SourceTimestamp or data.ServerTimestamp
        number = value if item.last.counting is not None and type(value) is int else None
        return Reading(item.tag, value, aware(at) if at else None, quality_of(_status(data)), kind, number, historical)

    def _put(self, item: Item, reading: Reading, kind: GapKind, reason: str, gaps: Sequence[Gap] = ()) -> Step:
        """A reading is the item's last; numbers that are missing before it are a gap."""
        gaps = [*gaps, *self._jumps(item, item.last, reading.sequence, reading.at, kind, reason)]
        item.last.put(reading)
        self._dirty.add(item.number)
        return Step([reading], gaps)

    def _jumps(self, item: Item, last: Last, number: int | None, at: datetime | None, kind: GapKind, reason: str) -> list[Gap]:
        """The numbers that are missing before one."""
        if not (missing := last.missing(number)):
            return []
        assert last.counting is not None
        tags = (item.tag, *(tag for tag in self._items if any(fnmatchcase(tag, one) for one in last.counting.of)))
        return [
            Gap(secrets.token_hex(8), self._settings.producer, kind, reason, *ends, since=last.at, until=at, tags=tags) for ends in missing
        ]

    def _gap(self, item: Item, kind: GapKind, reason: str, since: datetime | None, until: datetime | None) -> Gap:
        return Gap(secrets.token_hex(8), self._settings.producer, kind, reason, since=since, until=until, tags=(item.tag,))


def _status(data: Any) -> int:
    return data.StatusCode.value if data.StatusCode is not None else 0
