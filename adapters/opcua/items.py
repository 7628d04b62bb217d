"""What an OPC UA source knows of each variable, and the pieces in which it hands on what it learns."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from adapters.opcua.settings import Sequence as Counting
from hub import limits
from hub.intake.readings import Filled, Gap, GapKind, Reading

_SAME_TIME_MAX = 100  # values of one time that are told apart


@dataclass(slots=True)
class Last:
    """The last reading of a variable: its time, its number if it counts, and what it and others of the same time said."""

    counting: Counting | None = None
    at: datetime | None = None
    count: int | None = None
    keys: list[bytes] = field(default_factory=list)  # digests of the values at that time
    same: list[tuple[Any, ...]] = field(default_factory=list)  # those of them that were not digested yet

    @property
    def known(self) -> bool:
        """Whether there was one."""
        return bool(self.keys or self.same)

    def put(self, reading: Reading) -> None:
        """This reading is the last now."""
        if reading.at != self.at or reading.at is None:
            self.at, self.keys, self.same = reading.at, [], [_said(reading)]
        elif len(self.same) < _SAME_TIME_MAX:
            self.same.append(_said(reading))
        if reading.sequence is not None:
            self.count = reading.sequence

    def has(self, reading: Reading) -> bool:
        """Whether it is the last, or one of the same time."""
        return reading.at == self.at and _digest(_said(reading)) in self.digests()

    def repeats(self, reading: Reading) -> bool:
        """Whether it is the very last again: some servers send that once more when a session is taken up."""
        return reading.at is not None and reading.at == self.at and self.digests()[-1:] == [_digest(_said(reading))]

    def digests(self) -> list[bytes]:
        """Of the values at the last time, in their order."""
        self.keys += [_digest(said) for said in self.same]
        self.same = []
        return self.keys

    def copy(self) -> "Last":
        return replace(self, keys=[*self.digests()], same=[])

    def saved(self) -> tuple[str | None, int | None, list[bytes]]:
        """For `recalled`."""
        return self.at.isoformat() if self.at else None, self.count, self.digests()

    @staticmethod
    def recalled(saved: tuple[str | None, int | None, list[bytes]], counting: Counting | None) -> "Last":
        at, count, keys = saved
        return Last(counting, datetime.fromisoformat(at) if at else None, count, keys)

    # -- numbers

    def counts(self, number: int | None) -> bool:
        """Whether a number goes on from the last, with or without a jump."""
        if number is None or self.count is None or self.counting is None:
            return False
        modulus = self.counting.modulus
        ahead = number - self.count
        return 0 < (ahead % modulus if modulus else ahead) <= (modulus or 2**64) // 2

    def missing(self, number: int | None) -> list[tuple[int, int]]:
        """The numbers between the last and this one: first and last, inclusive; two pairs where they roll over."""
        if not self.counts(number):
            return []
        assert number is not None
        assert self.count is not None
        assert self.counting is not None
        modulus = self.counting.modulus
        first, last = (self.count + 1) % modulus if modulus else self.count + 1, number - 1
        if modulus and first > number:
            return [(first, modulus - 1)] + ([(0, last)] if last >= 0 else [])
        return [(first, last)] if first <= last else []


@dataclass(slots=True, eq=False)
class Item:
    """A variable, and where its readings are: what was the last, in which subscription, and what of its history is still to be read back.

    `handle` is its number on the wire, a new one each time that the server is asked to watch it: what was made before a kill then says nothing.
    `lag_s` is how much later by the server's clock than its own time a reading leaves at least: how far the clocks are apart.
    """

    number: int
    tag: str
    node: str
    history: bool
    gone: str = ""  # the gap that says that the server does not watch it
    watched: bool = False
    handle: int = 0
    ordinal: int = 0  # of the subscription that its last reading came by
    lag_s: float | None = None
    last: Last = field(default_factory=Last)
    backs: list["Back"] = field(default_factory=list)

    def late(self, reading: Reading, published: datetime) -> None:
        """Learn from a reading that just came how far the clocks are apart. A queue makes it later, nothing makes it earlier."""
        if reading.at is not None:
            lag_s = (published - reading.at).total_seconds()
            back = self.last.at is not None and reading.at < self.last.at
            self.lag_s = lag_s if self.lag_s is None or back else min(self.lag_s, lag_s)

    def saved(self) -> bytes:
        """What is to be remembered of its readings."""
        return msgspec.msgpack.encode((self.ordinal, self.lag_s, self.last.saved(), [back.saved() for back in self.backs]))

    def recall(self, saved: bytes) -> None:
        self.ordinal, self.lag_s, last, backs = msgspec.msgpack.decode(saved)
        counting = self.last.counting
        self.last = Last.recalled(last, counting)
        self.backs = [Back.recalled(self, back, counting) for back in backs]


@dataclass(slots=True, eq=False)
class Back:
    """What is read back of a variable: what came after `last`, which goes on with each page, and before `until`, which came itself.

    `cut` says why something is missing, and `since` from when on, where its history does not reach back to `last`; it is `begun` when it does, or
    when that was told, or where numbers say it better.
    """

    item: Item
    cut: "Cut"
    since: datetime | None
    last: Last
    until: Last
    begun: bool
    tries: int = 0  # that brought nothing
    size: int = limits.OPCUA_HISTORY_PAGE
    point: bytes | None = None  # where the server goes on
    ended: bool = False  # it holds something as new as `until`
    over: bool = False  # there is no more
    why: str = ""  # the last answer brought it no further

    def asks(self) -> tuple[str, datetime, datetime, int, bytes | None]:
        """What of the server: node, from when to when, how many values, and where to go on."""
        assert self.last.at is not None
        assert self.until.at is not None
        end = self.until.at + timedelta(microseconds=1)  # some leave the end itself out
        return self.item.node, self.last.at, end, self.size, self.point

    def take(self, readings: Sequence[Reading]) -> list[Reading]:
        """Those of a page, in the order of their times, that are new."""
        assert self.last.at is not None
        assert self.until.at is not None
        before, found, seen = self.last.at, [], self.last.copy()
        for one in readings:
            assert one.at is not None
            self.begun = self.begun or one.at <= before
            self.ended = self.ended or one.at >= self.until.at
            assert seen.at is not None
            if seen.at <= one.at <= self.until.at and not seen.has(one):
                seen.put(one)
                if not self.until.has(one):
                    found.append(one)
        return found

    def turn(self, values: int, brought: bool, point: bytes | None, why: str) -> None:
        """Where it stands after an answer of so many values, some of them new or not."""
        self.point, self.why = point, f"its history cannot be read ({why})" if why else ""
        if not why and not point:
            self.over = self.ended
            if not self.over and not brought and values < self.size:
                self.why = "its history does not reach up to what came then"
            elif not self.over and not brought:
                self.size *= 2  # more values of one time than a page has
        self.tries = self.tries + 1 if self.why else 0 if brought else self.tries

    def saved(self) -> tuple[Any, ...]:
        """For `recalled`."""
        return self.cut.saved(), self.since.isoformat() if self.since else None, self.last.saved(), self.until.saved()

    @staticmethod
    def recalled(item: Item, saved: Sequence[Any], counting: Counting | None) -> "Back":
        cut, since, *ends = saved
        last, until = (Last.recalled(one, counting) for one in ends)
        return Back(item, Cut.recalled(cut), datetime.fromisoformat(since) if since else None, last, until, last.counts(until.count))


@dataclass(frozen=True, slots=True)
class Cut:
    """Why something is missing, and the server's time of the last that was heard before."""

    kind: GapKind
    reason: str
    heard: datetime

    def saved(self) -> tuple[str, str, str]:
        """For `recalled`."""
        return self.kind, self.reason, self.heard.isoformat()

    @staticmethod
    def recalled(saved: tuple[GapKind, str, str]) -> "Cut":
        kind, reason, heard = saved
        return Cut(kind, reason, datetime.fromisoformat(heard))


@dataclass(slots=True)
class Step:
    """What belongs together in one transaction, with the state that the source has when it gives it out."""

    readings: Sequence[Reading] = ()
    gaps: Sequence[Gap] = ()
    filled: Sequence[Filled] = ()
    confirm: tuple[int, int] | None = None  # a subscription and the message of it that is through


def aware(at: datetime) -> datetime:
    """OPC UA's times are UTC."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def merged(gaps: Sequence[Gap], apart: timedelta) -> list[Gap]:
    """Gaps of several tags for the same reason and, but for a little, with the same ends as one."""
    found: list[Gap] = []
    tags: list[set[str]] = []
    for gap in gaps:
        for n, one in enumerate(found):
            if _alike(one, gap, apart) and tags[n].isdisjoint(gap.tags):
                tags[n].update(gap.tags)
                since, until = (one.since, gap.since), (one.until, gap.until)
                found[n] = replace(one, since=min(filter(None, since)), until=max(filter(None, until)), tags=(*one.tags, *gap.tags))
                break
        else:
            found.append(gap)
            tags.append({*gap.tags})
    return found


def _alike(one: Gap, other: Gap, apart: timedelta) -> bool:
    if (one.kind, one.reason) != (other.kind, other.reason) or one.first is not None or other.first is not None:
        return False
    if one.until is None or other.until is None or one.since is None or other.since is None:
        return False  # that of an item that is gone is closed by its own name
    return abs(one.since - other.since) <= apart and abs(one.until - other.until) <= apart


def _said(reading: Reading) -> tuple[Any, ...]:
    return reading.type, reading.value, reading.quality


def _digest(said: tuple[Any, ...]) -> bytes:
    return hashlib.blake2b(repr(said).encode("utf-8", "surrogatepass"), digest_size=8).digest()
