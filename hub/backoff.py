"""How a loop waits for what is out of reach: longer with each failure, for ever, and visibly."""

import threading
from collections.abc import Callable

from hub import limits, telemetry


class Backoff:
    """The waits of one loop. `name` is its own in the numbers, `report` tells people."""

    def __init__(self, name: str, report: Callable[[str], None]) -> None:
        self._name, self._report = name, report
        self._wait_s = limits.RETRY_FIRST_S

    def wait(self, stop: threading.Event, what: str, error: Exception) -> bool:
        """Tell that `what` waits and why, and wait; whether it is to stop."""
        self._report(f"{what} {self._wait_s:.1f} s: {error}")
        telemetry.backs_off(self._name, self._wait_s)
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * 2, limits.RETRY_MAX_S)
        return stop.wait(wait_s)

    def over(self) -> None:
        """It works again."""
        if self._wait_s > limits.RETRY_FIRST_S:
            telemetry.backs_off(self._name, 0)
        self._wait_s = limits.RETRY_FIRST_S
