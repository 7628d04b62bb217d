"""Rebuild: folds the whole log into a shadow schema beside the live view, with the live fold, in steps that survive an interruption."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hub import limits
from projections.base import TableView
from replay.shadow import Shadow
from replay.tables import Ground, ground_of


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rebuild is: events folded in this run, the position reached, the position it goes to, seconds so far."""

    view: str
    events: int
    position: int
    target: int
    seconds: float

    @property
    def left_s(self) -> float | None:
        """Seconds until the target at the rate so far; None before there is a rate."""
        return (self.target - self.position) * self.seconds / self.events if self.events else None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One rebuilt view: events folded in this run, seconds, the sha256 (hex) of all its tables and columns."""

    events: int
    seconds: float
    digest: str


def rebuild(
    place: str | Ground,
    views: Sequence[TableView],
    progress: Callable[[Progress], None] = lambda p: None,
    *,
    batch: int = limits.FOLLOW_BATCH_MAX,
    restart: bool = False,
) -> tuple[int, dict[str, Rebuilt]]:
    """Fill the shadows of views up to the log's head as of the call; the position reached and what was done for each view.

    A shadow whose rebuild was interrupted is gone on with (`restart`: not); one that is whole or of other code is thrown away first.
    """
    ground = ground_of(place)
    target = ground.head()
    with ground.alone(views) as session:
        works = [_Work(Shadow(session, view), view.name, batch, target, restart) for view in views]
        going = list(works)
        while going:  # side by side, so that what one has read is at hand for the next
            for work in list(going):
                if work.step():
                    progress(work.progress())
                else:
                    going.remove(work)
        return target, {work.name: Rebuilt(work.events, work.seconds, work.digest) for work in works}


class _Work:
    """One view on its way."""

    def __init__(self, shadow: Shadow, name: str, batch: int, target: int, restart: bool) -> None:
        self.name, self.events, self.seconds, self.digest = name, 0, 0.0, ""
        self._shadow, self._target, self._began = shadow, target, time.monotonic()
        if restart or not shadow.begun:
            shadow.restart()
        self._batches = shadow.fill(batch, target)

    def step(self) -> bool:
        """Fold a batch, or end; whether there was one."""
        began = time.monotonic()
        folded = next(self._batches, 0)
        if folded:
            self.events += folded
        else:
            self.digest = self._shadow.seal()
        self.seconds += time.monotonic() - began
        return bool(folded)

    def progress(self) -> Progress:
        """Where it is."""
        return Progress(self.name, self.events, self._shadow.position(), self._target, time.monotonic() - self._began)
