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
    return target, {view.name: _rebuild_one(ground, view, target, progress, batch, restart) for view in views}


def _rebuild_one(ground: Ground, view: TableView, target: int, progress: Callable[[Progress], None], batch: int, restart: bool) -> Rebuilt:
    started = time.monotonic()
    events = 0
    with ground.alone([view]) as session:
        shadow = Shadow(session, view)
        if restart or not shadow.begun:
            shadow.restart()
        for folded in shadow.fill(batch, target):
            events += folded
            progress(Progress(view.name, events, shadow.position(), target, time.monotonic() - started))
        digest = shadow.seal()
    return Rebuilt(events, time.monotonic() - started, digest)
