"""Group commit: whoever waits for the log shares one append, so that a single fact costs its share of one flush to disk.

One leader thread takes everything that waits, appends it in one transaction and hands each caller its own results. While it commits, the next
group gathers; nobody waits for a timer. Callers may be threads (`append`) or tasks of an event loop (`append_soon`).
"""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Self

from events.base import Fact
from events.errors import HubError, Refused, Unavailable
from hub import limits
from hub.log.store import Log, Raw, Result

Waiter = Future[list[Result]] | asyncio.Future[list[Result]]


class GroupLog:
    """A log for many callers of one process. Use it as a context manager; what still waits when it closes gets `Unavailable`."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._beside = Log(log.url)  # raw deliveries and counts need no lock: they do not wait for the leader
        self._waiting: deque[tuple[Sequence[Fact], Waiter]] = deque()
        self._news = threading.Condition()
        self._closed = False
        self._leader = threading.Thread(target=self._lead, name="log leader", daemon=True)
        self._leader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the leader after the group at hand; one that hangs on a server that is gone is left behind."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._leader.join(timeout=limits.POLL_S * 3)
        if self._leader.is_alive():
            return
        self._log.close()
        self._beside.close()

    def append(self, facts: Sequence[Fact]) -> list[Result]:
        """As `Log.append`, together with whoever else waits; blocks until it is durable."""
        waiter: Future[list[Result]] = Future()
        self._put(facts, waiter)
        return waiter.result()

    async def append_soon(self, facts: Sequence[Fact]) -> list[Result]:
        """The same for a task of an event loop."""
        waiter: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._put(facts, waiter)
        return await waiter

    def keep(self, deliveries: Sequence[Raw]) -> None:
        """As `Log.keep`."""
        self._beside.keep(deliveries)

    def flush(self) -> None:
        """As `Log.flush`."""
        self._beside.flush()

    def count_again(self, keys: Sequence[tuple[str, str]]) -> None:
        """As `Log.count_again`."""
        self._beside.count_again(keys)

    def _put(self, facts: Sequence[Fact], waiter: Waiter) -> None:
        if len(facts) > limits.FACTS_PER_APPEND_MAX:
            raise Refused(f"{len(facts)} facts in one append, at most {limits.FACTS_PER_APPEND_MAX} are taken: send them in parts")
        with self._news:
            if self._closed:
                raise Unavailable("the log of this process is closed: it is ending")
            self._waiting.append((facts, waiter))
            self._news.notify()

    def _lead(self) -> None:
        while group := self._gather():
            try:
                results = self._log.append([fact for facts, _ in group for fact in facts])
            except Refused as error:  # something in it cannot be held: each caller alone, so that it is nobody else's trouble
                for one in group:
                    _answer([one], self._alone(one[0]) if len(group) > 1 else error)
            except Exception as error:  # noqa: BLE001 - handed to every caller, who knows what to do with it; the leader must live
                _answer(group, error)
            else:
                _answer(group, results)
        with self._news:
            left, self._waiting = list(self._waiting), deque()
        _answer(left, Unavailable("the log of this process is closed: it is ending"))

    def _alone(self, facts: Sequence[Fact]) -> list[Result] | HubError:
        try:
            return self._log.append(facts)
        except HubError as error:
            return error

    def _gather(self) -> list[tuple[Sequence[Fact], Waiter]]:
        """What waits now, at most one append's worth; waits for the first. Empty: closed."""
        with self._news:
            while not self._waiting and not self._closed:
                self._news.wait()
            group: list[tuple[Sequence[Fact], Waiter]] = []
            size = 0
            while self._waiting and not self._closed and (not group or size + len(self._waiting[0][0]) <= limits.FACTS_PER_APPEND_MAX):
                group.append(self._waiting.popleft())
                size += len(group[-1][0])
            return group


def _answer(group: Sequence[tuple[Sequence[Fact], Waiter]], outcome: list[Result] | Exception) -> None:
    """Hand each caller its part of the results, or the error; tasks of one event loop are woken together."""
    tasks: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[list[Result]], list[Result] | Exception]]] = {}
    at = 0
    for facts, waiter in group:
        part = outcome if isinstance(outcome, Exception) else outcome[at : at + len(facts)]
        at += len(facts)
        if isinstance(waiter, asyncio.Future):
            tasks.setdefault(waiter.get_loop(), []).append((waiter, part))
        elif isinstance(part, Exception):
            waiter.set_exception(part)
        else:
            waiter.set_result(part)
    for loop, answers in tasks.items():
        try:
            loop.call_soon_threadsafe(_wake, answers)
        except RuntimeError:
            pass  # its event loop has ended, and with it whoever waited there; the facts are durable, a repeat is a duplicate


def _wake(answers: Sequence[tuple[asyncio.Future[list[Result]], list[Result] | Exception]]) -> None:
    for waiter, part in answers:
        if waiter.done():
            continue  # cancelled
        if isinstance(part, Exception):
            waiter.set_exception(part)
        else:
            waiter.set_result(part)
