"""OPC UA in: readings of one server, and what is missing of them.

A message of the server is confirmed when its readings are durable. After a cut, and after a kill -9, the session and its subscription are taken
up again, and the server sends again what was not confirmed; so a cut shorter than the server's patience costs nothing. Where it has forgotten
them, each item's first value afterwards is set against the last that was durable: the same time and value means that nothing happened, else the
server's history is read for what lies between, and what even that does not give is a gap.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from adapters.formats.opcua_values import overflowed, quality_of, value_of
from adapters.opcua.settings import OpcUaSettings
from adapters.opcua.settings import Sequence as Counting
from events.errors import Unavailable
from hub import limits
from hub.intake.readings import Filled, Gap, GapKind, Observed, Reading

if TYPE_CHECKING:
    from adapters.opcua.browse import Found
    from adapters.opcua.line import Line, Message, Session

_NO_BOUND = 0x80D70000  # BadBoundNotFound: what a server puts where its history begins later than asked for
_SAME_TIME_MAX = 100  # values of one time that are told apart


@dataclass(slots=True)
class Item:
    """A variable, and where its readings are: what was the last, in which subscription, and what it said at that time."""

    number: int
    tag: str
    node: str
    history: bool
    gone: str = ""  # the gap that says that the server does not watch it
    watched: bool = False
    handle: int = (
        0  # its number on the wire, a new one each time that the server is asked to watch it: what was made before a kill says nothing
    )
    ordinal: int = 0  # of the subscription that its last reading came by
    at: datetime | None = None
    lag_s: float | None = None  # how much later than its time by the source's clock a reading leaves at least, by the server's
    keys: list[bytes] = field(default_factory=list)  # digests of the values at that time
    same: list[tuple[Any, ...]] = field(default_factory=list)  # those of them that were not digested yet
    count: int | None = None  # the number that a value that counts had

    @property
    def known(self) -> bool:
        """Whether it ever said something."""
        return bool(self.keys or self.same)

    def put(self, reading: Reading) -> None:
        """This reading is the last now."""
        said = (reading.type, reading.value, reading.quality)
        if reading.at != self.at or reading.at is None:
            self.at, self.keys, self.same = reading.at, [], [said]
        elif len(self.same) < _SAME_TIME_MAX:
            self.same.append(said)

    def has(self, reading: Reading) -> bool:
        """Whether it is the last, or one of the same time."""
        return reading.at == self.at and _digest((reading.type, reading.value, reading.quality)) in self._digests()

    def repeats(self, reading: Reading) -> bool:
        """Whether it is the very last again: some servers send that once more when a session is taken up."""
        return (
            reading.at is not None
            and reading.at == self.at
            and self._digests()[-1:] == [_digest((reading.type, reading.value, reading.quality))]
        )

    def _digests(self) -> list[bytes]:
        self.keys += [_digest(said) for said in self.same]
        self.same = []
        return self.keys

    def saved(self) -> bytes:
        at = self.at.isoformat() if self.at else None
        return msgspec.msgpack.encode((self.ordinal, at, self.lag_s, self._digests(), self.count))

    def recall(self, saved: bytes) -> None:
        self.ordinal, at, self.lag_s, self.keys, self.count = msgspec.msgpack.decode(saved)
        self.at = datetime.fromisoformat(at) if at else None


@dataclass(frozen=True, slots=True)
class Cut:
    """Why a subscription began anew, and the server's time of the last that was heard before."""

    kind: GapKind
    reason: str
    heard: datetime


@dataclass(slots=True)
class Step:
    """What belongs together in one transaction, with the state that the source has when it gives it out."""

    readings: Sequence[Reading] = ()
    gaps: Sequence[Gap] = ()
    filled: Sequence[Filled] = ()
    confirm: int = 0


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
        self._counting: dict[str, Counting] = {}
        self._dirty: set[int] = set()
        self._changed: set[str] = set()  # names of what else is to be remembered anew
        self._ordinal, self._cuts = 0, dict[int, Cut]()
        self._heard: datetime | None = None
        self._next, self._done = 1, 0  # the message that is expected, and how many of its values are durable
        self._told: list[Step] = []  # what is to be said before anything else
        self._stream: Iterator[Step | None] = iter(())
        self._wait_s, self._page = 0.0, limits.OPCUA_HISTORY_PAGE
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
                self._begin(line, "disconnected", "the server did not keep our subscription: it was started anew, or the cut was too long")
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
        self._wait_s, self._page, begun = wait_s, min(limit, limits.OPCUA_HISTORY_PAGE), time.monotonic()
        found: list[Step] = []
        size = 0
        while size < limit and time.monotonic() - begun < wait_s + 1.0:
            try:
                if self._ended is not None:
                    raise self._ended
                self._look_again(self._line)
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
        from adapters.opcua.line import Line

        s, line = self._settings, Line(self._settings)
        try:
            line.open(None)
            name, theirs, ours = line.server()
            found = line.browse()
            line.subscribe()
            watched = line.monitor(list(enumerate((one.node for one in found), 1)))
        finally:
            line.close(end=True)
        ahead = (theirs - ours).total_seconds()
        how = "not encrypted" if s.security == "None" else f"{s.security}, {s.mode}"
        who = f"user {s.user}" if s.user else "no user"
        if s.user and s.security == "None":
            who += ", whose password is only as safe as the line"
        history = f"of {sum(one.history for one in found)} of them" if s.history else "not read (history is off)"
        lines = [
            f"{s.url}: {name}",
            f"security: {how}; {who}",
            f"items: {len(found)} below {len(s.starts)} start{'s' if len(s.starts) > 1 else ''}",
            f"history: {history}",
            f"clock: {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} ours",
        ]
        if kept := [one for one in watched if not one.why]:
            queue, sampling_s = min(one.queue for one in kept), max(one.sampling_s for one in kept)
            lines.append(f"queues: {s.queue_size} values of each item asked for, {queue} given; sampled every {sampling_s:g} s at best")
        lines += [f"not watched: {one.tag} ({result.why})" for one, result in zip(found, watched, strict=True) if result.why]
        return lines

    # -- what is remembered --------------------------------------------------------------------------------------------------------------------

    def _name(self, what: str) -> str:
        return f"opcua/{self._settings.producer}/{what}"

    def _recall(self, remembered: Callable[[str], bytes | None]) -> "Session | None":
        """Take up what was durable; how to go on with the session, if it is of the same settings."""
        from adapters.opcua.line import Session

        def load(what: str) -> Any:
            saved = remembered(self._name(what))
            return None if saved is None else msgspec.msgpack.decode(saved)

        for row in load("items") or ():
            item = Item(*row)
            if saved := remembered(self._name(f"item/{item.number}")):
                item.recall(saved)
            self._know(item)
        if at := load("at"):
            self._next, self._done, heard = at
            self._heard = datetime.fromisoformat(heard) if heard else None
        if (line := load("line")) is None:
            return None
        token, nonce, subscription, self._ordinal, about, cuts = line
        self._cuts = {n: Cut(kind, reason, datetime.fromisoformat(heard)) for n, kind, reason, heard in cuts}
        return Session(token, nonce, subscription, self._next) if about == self._settings.about_subscription() else None

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
            cuts = [(n, cut.kind, cut.reason, cut.heard.isoformat()) for n, cut in self._cuts.items()]
            memory[self._name("line")] = encode((session.token, session.nonce, session.subscription, self._ordinal, about, cuts))
        memory[self._name("at")] = encode((self._next, self._done, self._heard.isoformat() if self._heard else None))
        self._changed.clear()
        return memory

    def _observed(self, steps: Sequence[Step], line: "Line") -> Observed:
        confirm = [step.confirm for step in steps if step.confirm]

        def done() -> None:
            for number in confirm:
                line.confirm(number)

        return Observed(
            self._settings.producer,
            datetime.now(UTC),
            [reading for step in steps for reading in step.readings],
            _merged([gap for step in steps for gap in step.gaps], timedelta(seconds=self._settings.publishing_s)),
            [filled for step in steps for filled in step.filled],
            self._memory(line),
            done,
        )

    # -- items -----------------------------------------------------------------------------------------------------------------------------------

    def _know(self, item: Item) -> None:
        self._items[item.tag] = self._numbers[item.number] = item
        if item.handle:
            self._handles[item.handle] = item
        for counting in self._settings.sequences:
            if counting.tag == item.tag:
                self._counting[item.tag] = counting

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
        for tag, one in there.items():
            if tag not in self._items:
                self._know(Item(max(self._numbers, default=0) + 1, tag, one.node, one.history))
            item = self._items[tag]
            item.node, item.history = one.node, one.history
        wanted = [item for item in self._items.values() if not item.watched and item.tag in there]
        for item in wanted:
            self._handles.pop(item.handle, None)
            item.handle = secrets.randbits(31) + 1
            self._handles[item.handle] = item
        why = {item.tag: "the server has it no more" for item in self._items.values() if item.tag not in there}
        said = line.monitor([(item.handle, item.node) for item in wanted]) if wanted else []
        why |= {item.tag: f"the server does not watch it ({one.why})" for item, one in zip(wanted, said, strict=True) if one.why}
        for item in wanted:
            if item.tag not in why:
                item.watched = True
                item.ordinal = min(item.ordinal, self._ordinal - 1)  # its next value is a first one
        for tag, reason in why.items():
            self._lose(self._items[tag], reason)
        if wanted or why:
            self._changed.add("items")

    def _lose(self, item: Item, why: str) -> None:
        """Say once that an item is not watched."""
        item.watched = False
        if not item.gone:
            item.gone = secrets.token_hex(8)
            since = max((at for at in (item.at, self._heard) if at), default=datetime.now(UTC))
            self._told.append(Step(gaps=[Gap(item.gone, self._settings.producer, "disconnected", why, since=since, tags=(item.tag,))]))

    def _look_again(self, line: "Line") -> None:
        """Look for items that were missing, less and less often."""
        if all(item.watched for item in self._items.values()):
            self._look_at, self._look_s = 0.0, limits.OPCUA_AGAIN_S
        elif not self._look_at:
            self._look_at = time.monotonic() + self._look_s
        elif self._look_at <= time.monotonic():
            self._look_s = min(self._look_s * 2, limits.OPCUA_AGAIN_MAX_S)
            self._look_at = time.monotonic() + self._look_s
            self._compare(line, line.browse())

    # -- values ------------------------------------------------------------------------------------------------------------------------------------

    def _steps(self, line: "Line") -> Iterator[Step | None]:
        """What comes, a step at a time; None when there is nothing now. At each step the source's state is what goes with it."""
        from adapters.opcua.line import Hole

        while True:
            came = line.take(self._wait_s)
            if came is None:
                yield None
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
            status = data.StatusCode.value if data.StatusCode is not None else 0
            reading = self._reading(item, data, status, line.namespaces)
            if item.ordinal != self._ordinal:
                yield from self._first(line, item, reading, n)
                continue
            if item.repeats(reading):
                continue
            if overflowed(status) or self._jumps(item, reading):
                yield from self._between(
                    line, item, reading, Cut("overflow" if overflowed(status) else "sequence", _SHORT, came.published), item.at
                )
            if reading.at is not None:
                lag_s = (came.published - reading.at).total_seconds()
                back = item.at is not None and reading.at < item.at
                item.lag_s = lag_s if item.lag_s is None or back else min(item.lag_s, lag_s)
            self._done = n + 1
            yield self._put(item, reading, "sequence", _SHORT)
        self._next, self._done, self._heard = came.number % (2**32 - 1) + 1, 0, came.published
        yield Step(confirm=came.number)

    def _first(self, line: "Line", item: Item, reading: Reading, n: int) -> Iterator[Step]:
        """An item's first value in this subscription: what lies between it and the last that was durable is read back, or is a gap."""
        repeated = item.known and item.has(reading)
        cut = None
        if item.known and not repeated:
            after = min((ordinal for ordinal in self._cuts if ordinal > item.ordinal), default=0)
            cut = self._cuts.get(after) or Cut("disconnected", "it was not watched", item.at or datetime.now(UTC))
            since = cut.heard - timedelta(seconds=item.lag_s or 0.0)
            if item.at is not None and reading.at is not None:
                since = max(item.at, min(since, reading.at))
            yield from self._between(line, item, reading, cut, since)
        item.ordinal, self._done = self._ordinal, n + 1
        self._dirty.add(item.number)
        why: tuple[GapKind, str] = (cut.kind, cut.reason) if cut else ("sequence", _SHORT)
        step = Step() if repeated else self._put(item, reading, *why)
        if item.gone:
            how = "the server watches it again; what is missing even so is a gap of its own"
            step.filled, item.gone = [Filled(item.gone, self._settings.producer, how)], ""
            self._changed.add("items")
        yield step

    def _between(self, line: "Line", item: Item, reading: Reading, cut: Cut, since: datetime | None) -> Iterator[Step]:
        """What the server's history has between an item's last reading and this one, page by page, and the gap that is left."""
        counted = self._counts(item, reading)  # jumps of the numbers say it more exactly than times do
        gap = Gap(secrets.token_hex(8), self._settings.producer, cut.kind, cut.reason, since=since, until=reading.at, tags=(item.tag,))
        reads = self._settings.history and item.history and item.at is not None and reading.at is not None and item.at <= reading.at
        told = counted
        for readings, reaches, why in self._pages(line, item, reading) if reads else ():
            gaps: list[Gap] = []
            if not told and not reaches:
                reason = f"{cut.reason}; its history {f'cannot be read ({why})' if why else 'does not reach back so far'}"
                gaps.append(replace(gap, kind="history", reason=reason, until=readings[0].at if readings else reading.at))
            told = True
            steps = [self._put(item, one, "history", "its history is not complete") for one in readings]
            gaps += [one for step in steps for one in step.gaps]
            yield Step([one for step in steps for one in step.readings], gaps)
        if not told:
            yield Step(gaps=[gap])

    def _pages(self, line: "Line", item: Item, reading: Reading) -> Iterator[tuple[list[Reading], bool, str]]:
        """History up to a reading: pages of what is not known yet, whether it reaches back to the last one known, and why it cannot be read."""
        assert item.at is not None
        assert reading.at is not None
        anchor = start = item.at
        point, size, reaches = None, max(2, self._page), False
        while True:
            values, point, why = line.history(item.node, start, reading.at, size, point)
            found: list[Reading] = []
            seen = Item(0, "", "", False, at=item.at, keys=list(item._digests()))
            last = start
            for data in values:
                status = data.StatusCode.value if data.StatusCode is not None else 0
                one = self._reading(item, data, status, line.namespaces, historical=True)
                if status == _NO_BOUND or one.at is None:
                    continue
                reaches = reaches or one.at <= anchor
                if one.at < start or one.at > reading.at or seen.has(one):
                    continue
                last = one.at
                if (one.at, one.type, repr(one.value), one.quality) == (reading.at, reading.type, repr(reading.value), reading.quality):
                    continue  # it came itself
                found.append(one)
                seen.put(one)
            yield found, reaches, why
            if not point:
                if why or len(values) < size:
                    return
                if last == start:  # more values of one time than a page has
                    size *= 2
                start = last

    def _reading(self, item: Item, data: Any, status: int, namespaces: Sequence[str], *, historical: bool = False) -> Reading:
        value, kind = value_of(data.Value, namespaces)
        at = data.SourceTimestamp or data.ServerTimestamp
        number = value if item.tag in self._counting and type(value) is int else None
        return Reading(item.tag, value, _aware(at) if at else None, quality_of(status), kind, number, historical)

    # -- numbers -------------------------------------------------------------------------------------------------------------------------------------

    def _counts(self, item: Item, reading: Reading) -> bool:
        """Whether this reading's number goes on from the last."""
        if reading.sequence is None or item.count is None:
            return False
        modulus = self._counting[item.tag].modulus
        return 0 < ((reading.sequence - item.count) % modulus if modulus else reading.sequence - item.count) <= (modulus or 2**64) // 2

    def _jumps(self, item: Item, reading: Reading) -> bool:
        return self._counts(item, reading) and reading.sequence not in (item.count, self._after(item))

    def _after(self, item: Item) -> int:
        assert item.count is not None
        modulus = self._counting[item.tag].modulus
        return (item.count + 1) % modulus if modulus else item.count + 1

    def _put(self, item: Item, reading: Reading, kind: GapKind, reason: str) -> Step:
        """A reading is the item's last; numbers that are missing before it are a gap."""
        gaps: list[Gap] = []
        if reading.sequence is not None:
            if self._jumps(item, reading):
                counting, first, last = self._counting[item.tag], self._after(item), reading.sequence - 1
                tags = (item.tag, *(tag for tag in self._items if any(fnmatchcase(tag, one) for one in counting.of)))
                ends = [(first, last)] if first <= last else [(first, (counting.modulus or 0) - 1)] + ([(0, last)] if last >= 0 else [])
                gaps = [
                    Gap(secrets.token_hex(8), self._settings.producer, kind, reason, *bounds, since=item.at, until=reading.at, tags=tags)
                    for bounds in ends
                ]
            item.count = reading.sequence
        item.put(reading)
        self._dirty.add(item.number)
        return Step([reading], gaps)


_SHORT = "the server dropped values before it sent them: its queue is too short (raise queue, or rate_hz), or it was too slow"


def _digest(said: tuple[Any, ...]) -> bytes:
    return hashlib.blake2b(repr(said).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _merged(gaps: Sequence[Gap], apart: timedelta) -> list[Gap]:
    """Gaps of several tags for the same reason and, but for a little, with the same ends as one."""
    found: list[Gap] = []
    for gap in gaps:
        for n, one in enumerate(found):
            if one.first is None and gap.first is None and (one.kind, one.reason) == (gap.kind, gap.reason) and _near(one, gap, apart):
                since, until = (
                    min(filter(None, (one.since, gap.since)), default=None),
                    max(filter(None, (one.until, gap.until)), default=None),
                )
                found[n] = replace(one, since=since, until=until, tags=(*one.tags, *gap.tags))
                break
        else:
            found.append(gap)
    return found


def _near(one: Gap, other: Gap, apart: timedelta) -> bool:
    if one.until is None or other.until is None or one.since is None or other.since is None:
        return False  # that of an item that is gone is closed by its own name
    return abs(one.since - other.since) <= apart and abs(one.until - other.until) <= apart
