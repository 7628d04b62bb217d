"""What equipment did: readings that were kept, states, counts, limits, downtime. Made by an edge from readings, by rules that each fact names.

Equipment is named by its ISA-95 path, `site/area/work center/work unit` (ISA-95 part 1, equipment hierarchy). States are PackML's
(ISA-TR88.00.02) where the machine has them.
"""

from typing import ClassVar

from events.base import Event, event
from events.vocabulary import Exact, Name, Quantity, Text, Time, Unit


@event
class ReadingsRecorded(Event):
    """A batch of readings is kept, whole, as the raw delivery of this fact. Lane, epoch and number are the edge's (docs/edge.md)."""

    type: ClassVar[str] = "equipment.readings_recorded"
    keyed_only: ClassVar[bool] = True
    edge: Name
    epoch: Name
    lane: Name
    number: int
    producer: Text
    readings: int
    first_at: Time
    last_at: Time

    def stream(self) -> str:
        return f"lane/{self.edge}/{self.lane}"


@event
class StateChanged(Event):
    """Equipment went into a state. `previous` is the one it left, `cause` the tag or code that said so, `order` and `lot` what was in it."""

    type: ClassVar[str] = "equipment.state_changed"
    equipment: Name
    state: Name
    previous: Name | None = None
    cause: Text | None = None
    order: Name | None = None
    item: Name | None = None
    lot: Name | None = None

    def stream(self) -> str:
        return f"equipment/{self.equipment}"


@event
class CountReported(Event):
    """Equipment made or rejected so many since the last count: `quantity`. `total` is the totaliser as it stood, in the same unit.

    A totaliser of a signed register may stand below zero; a quantity is never negative.
    """

    type: ClassVar[str] = "equipment.count_reported"
    equipment: Name
    counter: Name
    quantity: Quantity
    total: Exact
    rejected: bool = False
    order: Name | None = None
    item: Name | None = None
    lot: Name | None = None

    def stream(self) -> str:
        return f"equipment/{self.equipment}"


@event
class CounterReset(Event):
    """A totaliser fell from `before` to `after`: it rolled over, and what it counted is in the next count, or it was reset, and what was counted
    between the two readings is in no count."""

    type: ClassVar[str] = "equipment.counter_reset"
    equipment: Name
    counter: Name
    before: Exact
    after: Exact
    unit: Unit
    rolled_over: bool = False

    def stream(self) -> str:
        return f"equipment/{self.equipment}"


@event
class LimitExceeded(Event):
    """A measured value went beyond a limit while `order` and `lot` were in process. `above` says on which side."""

    type: ClassVar[str] = "equipment.limit_exceeded"
    equipment: Name
    tag: Text
    value: Exact
    limit: Exact
    unit: Unit | None = None
    above: bool
    order: Name | None = None
    item: Name | None = None
    lot: Name | None = None

    def stream(self) -> str:
        return f"equipment/{self.equipment}"


@event
class LimitKept(Event):
    """A measured value is back within the limit that it had exceeded; `worst` is how far it went.

    Of several for one excursion (`equipment`, `tag`, `exceeded_at`) the first in effective time counts: late readings can show an earlier end.
    """

    type: ClassVar[str] = "equipment.limit_kept"
    equipment: Name
    tag: Text
    value: Exact
    worst: Exact
    unit: Unit | None = None
    exceeded_at: Time

    def stream(self) -> str:
        return f"equipment/{self.equipment}"


@event
class DowntimeStarted(Event):
    """Equipment that should have run stood still for longer than the rule allows; effective from when it stopped."""

    type: ClassVar[str] = "equipment.downtime_started"
    equipment: Name
    state: Name
    reason: Text | None = None
    order: Name | None = None
    item: Name | None = None
    lot: Name | None = None

    def stream(self) -> str:
        return f"equipment/{self.equipment}"


@event
class DowntimeEnded(Event):
    """It runs again, or stands as planned: `state`."""

    type: ClassVar[str] = "equipment.downtime_ended"
    equipment: Name
    state: Name
    started_at: Time

    def stream(self) -> str:
        return f"equipment/{self.equipment}"
