"""What an OPC UA source knows of each variable, and the pieces in which it hands on what it learns."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from adapters.opcua.settings import Sequence as Counting
from hub.intake.readings import Filled, Gap, GapKind, Reading

_SAME_TIME_MAX = 100  # values of one time that are told apart


@dataclass(slots=True)
class Item:
    """A variable, and where its readings are: what was the last, in which subscription, and what it said at that time.

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
    counting: Counting | None = None
    ordinal: int = 0  # of the subscription that its last reading came by
    at: datetime | None = None
    lag_s: float | None = None
    keys: list[bytes] = field(default_factory=list)  # digests of the values at that time
    same: list[tuple[Any, ...]] = field(default_factory=list)  # those of them that were not digested yet
    count: int | None = None  # the number that a value that counts had

    @property
    def known(self) -> bool:
        """Whether it ever said something."""
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

    def late(self, reading: Reading, published: datetime) -> None:
        """Learn from a reading that just came how far the clocks are apart. A queue makes it later, nothing makes it earlier."""
        if reading.at is not None:
            lag_s = (published - reading.at).total_seconds()
            back = self.at is not None and reading.at < self.at
            self.lag_s = lag_s if self.lag_s is None or back else min(self.lag_s, lag_s)

    def digests(self) -> list[bytes]:
        """Of the values at the last time, in their order."""
        self.keys += [_digest(said) for said in self.same]
        self.same = []
        return self.keys

    def saved(self) -> bytes:
        """What is to be remembered of its readings."""
        at = self.at.isoformat() if self.at else None
        return msgspec.msgpack.encode((self.ordinal, at, self.lag_s, self.digests(), self.count))

    def recall(self, saved: bytes) -> None:
        self.ordinal, at, self.lag_s, self.keys, self.count = msgspec.msgpack.decode(saved)
        self.at = datetime.fromisoformat(at) if at else None

    # -- numbers

    def counts(self, reading: Reading) -> bool:
        """Whether this reading's number goes on from the last, with or without a jump."""
        if reading.sequence is None or self.count is None or self.counting is None:
            return False
        modulus = self.counting.modulus
        ahead = reading.sequence - self.count
        return 0 < (ahead % modulus if modulus else ahead) <= (modulus or 2**64) // 2

    def missing(self, reading: Reading) -> list[tuple[int, int]]:
        """The numbers between the last and this one: first and last, inclusive; two pairs where they roll over."""
        if not self.counts(reading):
            return []
        assert self.count is not None
        assert reading.sequence is not None
        assert self.counting is not None
        modulus = self.counting.modulus
        first, last = (self.count + 1) % modulus if modulus else self.count + 1, reading.sequence - 1
        if modulus and first > reading.sequence:
            return [(first, modulus - 1)] + ([(0, last)] if last >= 0 else [])
        return [(first, last)] if first <= last else []


@dataclass(frozen=True, slots=True)
class Cut:
    """Why something is missing, and the server's time of the last that was heard before."""

    kind: GapKind
    reason: str
    heard: datetime


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
    for gap in gaps:
        for n, one in enumerate(found):
            if one.first is None and gap.first is None and (one.kind, one.reason) == (gap.kind, gap.reason) and _near(one, gap, apart):
                since, until = (one.since, gap.since), (one.until, gap.until)
                found[n] = replace(one, since=min(filter(None, since)), until=max(filter(None, until)), tags=(*one.tags, *gap.tags))
                break
        else:
            found.append(gap)
    return found


def _near(one: Gap, other: Gap, apart: timedelta) -> bool:
    if one.until is None or other.until is None or one.since is None or other.since is None:
        return False  # that of an item that is gone is closed by its own name
    return abs(one.since - other.since) <= apart and abs(one.until - other.until) <= apart


def _said(reading: Reading) -> tuple[Any, ...]:
    return reading.type, reading.value, reading.quality


def _digest(said: tuple[Any, ...]) -> bytes:
    return hashlib.blake2b(repr(said).encode("utf-8", "surrogatepass"), digest_size=8).digest()
