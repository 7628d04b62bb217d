"""The log as recorders of the `eventsourcing` library: the same table and the same append as every other fact.

For streams that decide (process managers built on the library's `Application`). A stored event's receipt is its stream and version, so an
event that is already there is the conflict that the library expects; positions are its notification ids.
"""

import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    IntegrityError,
    ListenNotifySubscription,
    Notification,
    OperationalError,
    StoredEvent,
    Subscription,
)

from events.base import Envelope, Fact
from events.errors import Refused, Unavailable
from hub import limits
from hub.log.codec import AGGREGATE, AggregateEvent, Row
from hub.log.store import CHANNEL, Log

_SOURCE = "eventsourcing"


class LogAggregateRecorder(AggregateRecorder):
    """Stores and reads the events of one aggregate at a time."""

    def __init__(self, log: Log, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.log = log
        self._now = now

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """All or nothing. Raises the library's `IntegrityError` where a version is taken, `OperationalError` where the log is out of reach."""
        self._insert(stored_events)
        return None

    def _insert(self, stored_events: Sequence[StoredEvent]) -> list[int]:
        at = self._now()
        try:
            return self.log.append_rows([_row(event, at) for event in stored_events])
        except Refused as error:
            raise IntegrityError(str(error)) from error
        except Unavailable as error:
            raise OperationalError(str(error)) from error

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The events of one aggregate in order, or in reverse."""
        query = f"""select version, type, data from log.event where stream = %s and version > %s and version <= %s
                    order by version {"desc" if desc else "asc"} limit %s"""  # noqa: S608 - asc or desc
        values = [f"{AGGREGATE}{originator_id}", -1 if gt is None else gt, 2**62 if lte is None else lte, limit]
        rows = self.log.select(query, values)
        return [StoredEvent(originator_id, version, topic, bytes(data)) for version, topic, data in rows]


class LogRecorder(LogAggregateRecorder, ApplicationRecorder):
    """Besides, reads all events in their global order and subscribes to new ones."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """As above; the positions of the events."""
        return self._insert(stored_events)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Events by position, from `start` to `stop`, at most `limit`, of some topics or of all."""
        first = 0 if start is None else start if inclusive_of_start else start + 1
        query = """select position, stream, version, type, data from log.event where position >= %s and position <= %s
                   and (%s::text[] is null or type = any(%s)) and starts_with(stream, %s) order by position limit %s"""
        wanted = list(topics) or None
        rows = self.log.select(query, [first, 2**62 if stop is None else stop, wanted, wanted, AGGREGATE, limit])
        return [Notification(_originator(stream), version, topic, bytes(data), position) for position, stream, version, topic, data in rows]

    def max_notification_id(self) -> int | None:
        """The last position; None for an empty log."""
        return self.log.head() or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """All events after a position, waiting for new ones."""
        return LogSubscription(self, gt, topics)


class LogSubscription(ListenNotifySubscription[LogRecorder]):
    """The library's subscription, woken by our NOTIFY and, because that can be lost, by a poll."""

    def __init__(self, recorder: LogRecorder, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._wake = threading.Thread(target=self._wake_up, daemon=True)
        self._wake.start()

    def __exit__(self, *args: object, **kwargs: Any) -> None:
        super().__exit__(*args, **kwargs)
        self._wake.join()

    def _wake_up(self) -> None:
        try:
            with psycopg.connect(self._recorder.log.url, autocommit=True) as connection:
                connection.execute(f"listen {CHANNEL}")
                while not self._has_been_stopped:
                    self._has_been_notified.set()
                    for _ in connection.notifies(timeout=limits.POLL_S / 5, stop_after=1):
                        break
        except psycopg.OperationalError as error:
            self._thread_error = OperationalError(str(error))
            self.stop()


def _originator(stream: str) -> UUID | str:
    name = stream.removeprefix(AGGREGATE)
    try:
        return UUID(name)
    except ValueError:
        return name


def _row(event: StoredEvent, at: datetime) -> Row:
    stream, key = f"{AGGREGATE}{event.originator_id}", f"{event.originator_id}#{event.originator_version}"
    envelope = Envelope(source=_SOURCE, key=key, occurred_at=at, effective_at=at)
    receipt = uuid.uuid5(uuid.NAMESPACE_OID, f"{stream}#{event.originator_version}").bytes
    return Row(Fact(envelope, AggregateEvent(stream, event.topic, event.state)), receipt, stream, event.originator_version)
