"""What the rules remember of equipment and producers: bounded, and bytes that are spooled together with what they led to."""

from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

import msgspec

from events.errors import Corrupt

MARKS_MAX = 64  # changes of one track; a late reading from before them makes no fact, since nothing tells it from a repetition
SLOTS_MAX = 1000  # counters, and limits, of one piece of equipment
SEEN_MAX = 1024  # readings of a producer that are known when they come again: more than a source has unacknowledged


class When(msgspec.Struct, array_like=True, frozen=True):
    """When something was: by the source's clock, by the time that counts, and how sure that is."""

    occurred: datetime
    effective: datetime
    quality: str


class Mark(msgspec.Struct, array_like=True):
    """From when on something was so. `number`: of a measured value, how far it went while this counted."""

    when: When
    value: str
    cause: str = ""
    number: Decimal | None = None


class Placed(msgspec.Struct, array_like=True):
    """Where a mark went: what was before it, what comes after it (None: it is the present). `again`: what comes after was not known to be a
    change, but what was thought to have gone on since `before`."""

    before: Mark | None
    after: Mark | None
    again: bool = False


class Track(msgspec.Struct, array_like=True):
    """What something was, from when on: the last changes, in their order. `latest` is what it was by the last reading that said something of now,
    `wait` a change that has not held for long enough yet."""

    marks: list[Mark] = []
    latest: Mark | None = None
    wait: Mark | None = None
    heard: datetime | None = None  # the edge's clock, when `wait` was heard of

    @property
    def now(self) -> str | None:
        return self.marks[-1].value if self.marks else None

    def at(self, time: datetime) -> Mark | None:
        """What counted at a time; None where that is not known."""
        return next((mark for mark in reversed(self.marks) if mark.when.effective <= time), None)

    def is_present(self, mark: Mark, historical: bool) -> bool:
        """Whether something is news of now: whatever comes live, in its order; of what is read back, only what is not older than the latest."""
        if not historical or self.latest is None:
            return True
        time, latest = mark.when.effective, self.latest.when.effective
        return time > latest or (time == latest and not self._has(mark))

    def _has(self, mark: Mark) -> bool:
        return any(m.when.effective == mark.when.effective and m.value == mark.value for m in self.marks)

    def put(self, mark: Mark) -> Placed | None:
        """Add a change of now; None where it is none."""
        before = self.marks[-1] if self.marks else None
        if before is not None and before.value == mark.value:
            return None
        self._insert(len(self.marks), mark)
        return Placed(before, None)

    def put_late(self, mark: Mark) -> Placed | None:
        """Add a change of the past at its time; None where it is none. What is now stays."""
        if self._has(mark):
            return None
        place = next((n for n in range(len(self.marks), 0, -1) if self.marks[n - 1].when.effective <= mark.when.effective), 0)
        before = self.marks[place - 1] if place else None
        if before is not None and before.value == mark.value:
            return None
        if place == len(self.marks) and before is not None and self.latest is not None:
            goes_on = Mark(self.latest.when, before.value, self.latest.cause, self.latest.number)
            self._insert(place, mark, goes_on)
            return Placed(before, goes_on, again=True)
        after = self.marks[place] if place < len(self.marks) else None
        self._insert(place, mark)
        return Placed(before, after)

    def _insert(self, place: int, *marks: Mark) -> None:
        self.marks[place:place] = marks
        del self.marks[:-MARKS_MAX]

    def reaches(self, time: datetime) -> bool:
        """Whether everything that changed since a time is still known."""
        return len(self.marks) < MARKS_MAX or self.at(time) is not None


class Counter(msgspec.Struct, array_like=True):
    """A totaliser: how it stood, and what it counted since the last report."""

    total: Decimal
    when: When
    pending: Decimal
    reported: datetime  # effective time of the last report
    heard: datetime  # the edge's clock, of the first of what is pending


class Stop(msgspec.Struct, array_like=True):
    """Equipment stands: since when, and whether that was told as downtime."""

    when: When
    state: str
    heard: datetime  # the edge's clock
    told: bool = False


class Machine(msgspec.Struct, array_like=True):
    """One piece of equipment. `producer` is who spoke of it last."""

    producer: str = ""
    rule: str = ""  # the name of its state rule
    state: Track = msgspec.field(default_factory=Track)
    stop: Stop | None = None
    context: dict[str, Track] = {}
    counters: dict[str, Counter] = {}
    limits: dict[str, Track] = {}


class Producer(msgspec.Struct, array_like=True):
    """Who sends readings: how its clock is, and which readings came last."""

    last: datetime | None = None  # the newest time of its last batch
    offset_s: float = 0.0  # while its clock is wrong: how far it is ahead (negative: behind)
    wrong: str = ""  # ahead | behind
    behind_since: datetime | None = None  # the edge's clock; not confirmed yet
    behind_s: float = 0.0
    seen: bytes = b""  # eight bytes a reading

    def news(self, digests: Sequence[int]) -> list[bool]:
        """Whether each of some readings is new, and remember them."""
        order = array("q", self.seen)
        known, found = set(order), []
        for digest in digests:
            found.append(digest not in known)
            if digest not in known:
                known.add(digest)
                order.append(digest)
        self.seen = order[-SEEN_MAX:].tobytes()
        return found


T = TypeVar("T", bound=msgspec.Struct)


def read(kind: type[T], name: str, state: Mapping[str, bytes]) -> T:
    """What was remembered under a name, or a fresh one. Raises `Corrupt`."""
    try:
        return msgspec.msgpack.decode(state[name], type=kind) if name in state else kind()
    except msgspec.MsgspecError as error:
        raise Corrupt(f"what the edge remembers as {name!r} cannot be read ({error}): was its spool written by a newer edge?") from error


def sound(text: str) -> str:
    """A text that can be encoded: a source may name things by halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """A name of a source's as a text of the log: what that cannot hold is shown as a question mark, what is too long cut."""
    return "".join(c if c.isprintable() else "?" for c in text)[:4000]
