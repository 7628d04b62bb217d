"""Local times of a plant as moments: the offset that the plant's time zone had then, and how sure that is."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hub.intake.readings import Reading

OFFSET = "offset"  # the source gave one
PLANT_ZONE = "plant_zone"  # the plant's time zone says it
AMBIGUOUS = "plant_zone_ambiguous"  # the hour was lived through twice: one of two moments
MISSING = "plant_zone_nonexistent"  # the clocks were put forward over it
RECEIVED = "received"  # the source sent none that can be: the edge's clock when it received the reading


def moment(at: datetime, zone: ZoneInfo, near: datetime | None = None) -> tuple[datetime, str]:
    """A time of a source in UTC, and its quality.

    Without an offset it is local to the plant. Of two moments of a repeated hour the one closer to `near` (when it was received) is taken, the
    first without it; a time that the clocks skipped is read with the offset before the change, so that it comes after it.
    """
    if at.tzinfo is not None:
        return at.astimezone(UTC), OFFSET
    first, second = (at.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return first, PLANT_ZONE
    if first.astimezone(zone).replace(tzinfo=None, fold=0) != at.replace(fold=0):
        return first, MISSING
    return (first if near is None or abs(near - first) <= abs(near - second) else second), AMBIGUOUS


def time_of(reading: Reading, received: datetime, zone: ZoneInfo) -> tuple[datetime, str]:
    """When a reading was, and the quality of that. A clock that was never set (the log takes no such time) counts as none."""
    if reading.at is None or not 1800 < reading.at.year < 9000:
        return received, RECEIVED
    return moment(reading.at, zone, None if reading.historical else received)
