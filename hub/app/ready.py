"""Readiness: may a load balancer send work here? Asked again and again in one process, so that no time of day enters it: clocks jump."""

import shutil
import threading
import time
from collections.abc import Callable, Mapping

from events.errors import Unavailable
from hub import limits
from hub.app import answers
from hub.app.wiring import Hub, views


class Lag:
    """How long views have been behind. Each look gives those that have no goal the head as it is then; until it is reached, the view is behind."""

    def __init__(self) -> None:
        self._goals: dict[str, tuple[int, float]] = {}  # (position, since when) by view
        self._one = threading.Lock()

    def seen(self, head: int, positions: Mapping[str, int]) -> float:
        """Seconds, of the view that is longest behind."""
        now, longest = time.monotonic(), 0.0
        with self._one:
            for view, at in positions.items():
                goal, since = self._goals.get(view, (0, now))
                if at >= goal:
                    self._goals[view] = head, now
                else:
                    longest = max(longest, now - since)
        return round(longest, 3)


class Readiness:
    """Of one API process. `trouble` says why its own door does not take what is posted."""

    def __init__(self, hub: Hub, trouble: Callable[[], str]) -> None:
        self._hub, self._trouble, self._lag = hub, trouble, Lag()

    def ask(self) -> tuple[float, list[str]]:
        """Seconds that a view is behind, and why the hub is not ready; empty if it is."""
        lag_s, reasons = 0.0, [text for text in (self._disk(), self._trouble()) if text]
        try:
            status = answers.status(self._hub)
        except Unavailable as error:
            return lag_s, [*reasons, " ".join(str(error).split())]
        reasons += status["trouble"].values()
        lag_s = self._lag.seen(status["head"], {view.name: status["views"].get(view.name, 0) for view in views()})
        if lag_s >= limits.READY_LAG_S:
            reasons.append(f"a view is behind by {lag_s:.0f} s: hub status names it, hub-follow.log says why")
        return lag_s, reasons

    def _disk(self) -> str:
        """Whether the private server has room; a server of one's own is not ours to look at."""
        if self._hub.database.private is None:
            return ""
        free = shutil.disk_usage(self._hub.settings.home).free
        if free >= limits.DISK_FREE_BYTES_MIN:
            return ""
        return (
            f"the disk under {self._hub.settings.home} has {free // 1024**2} MiB free, of which the database needs "
            f"{limits.DISK_FREE_BYTES_MIN // 1024**2}: free some space"
        )
