"""What is missing of an edge node: numbers that did not come, times in which it was not heard, and what filled them after all."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from hub import limits
from hub.intake.readings import Filled, Gap, GapKind


class Open(msgspec.Struct, array_like=True):
    """A time in which the node was not heard, which history may fill, and how far it did."""

    id: str
    since: datetime | None
    until: datetime
    low: datetime | None = None
    high: datetime | None = None
    rest: bool = False  # what a history left that may not be over
    live: bool = False  # it was no history that came


@dataclass(slots=True)
class Hole:
    """Numbers of this session that were given up, and may still come."""

    gap: Gap
    missing: range


class Missing:
    """The gaps of one edge node. `told` and `filled` are new since `taken`."""

    def __init__(self, name: str, producer: str, reach_s: float) -> None:
        self._name, self._producer, self._reach = name, producer, timedelta(seconds=reach_s)
        self.told: list[Gap] = []
        self.filled: list[Filled] = []
        self.open: list[Open] = []
        self.holes: list[Hole] = []
        self._history_s: float | None = None  # monotonic; when history came last

    def remember(self, known: list[Open]) -> None:
        self.open = known

    def taken(self) -> tuple[list[Gap], list[Filled]]:
        found = self.told, self.filled
        self.told, self.filled = [], []
        return found

    def tell(
        self,
        name: str,
        reason: str,
        since: datetime | None,
        until: datetime | None,
        *,
        kind: GapKind = "sequence",
        numbers: tuple[int | None, int | None] = (None, None),
        tags: Sequence[str] = (),
    ) -> Gap:
        gap = Gap(f"{self._name}/{name}", self._producer, kind, reason, *numbers, since, until, tags)
        self.told.append(gap)
        return gap

    # -- numbers

    def hole(self, numbers: range, since: datetime | None, until: datetime | None) -> None:
        """Numbers that did not come in time."""
        first, last = numbers[0], numbers[-1]
        gap = self.tell(f"sequence@{first}-{last}", "its sequence numbers jump", since, until, numbers=(first, last))
        self.holes.append(Hole(gap, numbers))

    def late(self, number: int, span: tuple[datetime, datetime]) -> bool:
        """Whether a number was given up; then what is left of its gap is told anew."""
        hole = next((hole for hole in self.holes if number in hole.missing), None)
        if hole is None:
            return False
        self.holes.remove(hole)
        self.filled.append(Filled(hole.gap.id, self._producer, "late"))
        if before := range(hole.missing[0], number):
            self.hole(before, hole.gap.since, span[0])
        if after := range(number + 1, hole.missing[-1] + 1):
            self.hole(after, span[1], hole.gap.until)
        return True

    # -- times

    def away(self, gap: Gap) -> None:
        """A gap that was told with its end, and may be filled."""
        if gap.until is not None:
            self.open = [*self.open, Open(gap.id, gap.since, gap.until)][-limits.SPARKPLUG_GAPS_MAX :]

    def came(self, at: datetime, now: float, *, live: bool) -> None:
        """Something of that time came after all: history, or what was said before a birth and sent after it (`live`)."""
        for gap in self.open:
            if (gap.since is None or gap.since < at) and at < gap.until:
                gap.low = at if gap.low is None else min(gap.low, at)
                gap.high = at if gap.high is None else max(gap.high, at)
                gap.live = gap.live or live
                self._history_s = now

    def due(self) -> float | None:
        """When `expire` has something to do, monotonic."""
        if self._history_s is None:
            return None
        filling = any(gap.low is not None for gap in self.open)
        return self._history_s + (limits.SPARKPLUG_HISTORY_PAUSE_S if filling else limits.SPARKPLUG_HISTORY_QUIET_S)

    def expire(self, now: float) -> None:
        if self._history_s is None or now < (self.due() or 0.0):
            return
        self._settle()
        if now >= self._history_s + limits.SPARKPLUG_HISTORY_QUIET_S:  # and live data goes on: after what came there was nothing
            self._history_s = None
            for gap in [gap for gap in self.open if gap.rest]:
                self._fill(gap, "history")

    def broken(self) -> None:
        """A session is over: what was on its way in it is lost, so quiet does not show any more that a history is over."""
        self._settle()
        for gap in self.open:
            gap.rest = False

    def _settle(self) -> None:
        """Tell what history has filled; what it left of a gap, before it and after it, is told anew. More of it may come."""
        for gap in [gap for gap in self.open if gap.low is not None]:
            self._fill(gap, "late" if gap.live else "history")
            name = gap.id.removeprefix(f"{self._name}/")
            if gap.low is not None and gap.since is not None and gap.low - gap.since > self._reach:
                self.tell(f"{name}<", "the edge node's history begins later than what was heard last", gap.since, gap.low, kind="history")
            if gap.high is not None and gap.high < gap.until:
                rest = self.tell(f"{name}>", "the edge node's history is not over", gap.high, gap.until, kind="history")
                self.open.append(Open(rest.id, gap.high, gap.until, rest=not gap.live))

    def _fill(self, gap: Open, how: str) -> None:
        self.open.remove(gap)
        self.filled.append(Filled(gap.id, self._producer, how))
