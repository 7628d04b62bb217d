"""A message of an edge node, and what is read off it: its number on the circle of 256, its times, its session, a metric's quality."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from adapters.formats.sparkplug import BDSEQ, Metric, Payload, Topic
from hub.intake.readings import Quality

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True, eq=False)
class Message:
    """One message of an edge node. `digest` tells its bytes from others', `size` is their number, `done` acknowledges it."""

    topic: Topic
    payload: Payload
    received_at: datetime
    size: int = 0
    digest: bytes = b""
    done: Callable[[], None] = lambda: None
    arrived: float = 0.0  # monotonic

    @property
    def seq(self) -> int | None:
        return None if self.payload.seq is None else self.payload.seq % 256

    @property
    def is_birth(self) -> bool:
        return self.topic.kind.endswith("BIRTH")

    @property
    def sent_at(self) -> datetime:
        """By the node's clock; when it came, where that says nothing."""
        return time_of(self.payload.timestamp) or self.received_at

    def span(self, *, history: bool = True) -> tuple[datetime, datetime]:
        """The first and last time of its metrics, by the node's clock; of a birth, when it was sent."""
        metrics = () if self.is_birth else self.payload.metrics
        times = [at for m in metrics if (history or not m.historical) and (at := time_of(m.timestamp)) is not None]
        return (min(times), max(times)) if times else (self.sent_at, self.sent_at)


def time_of(ms: int | None) -> datetime | None:
    """A time of the wire; None where there is none, or none that a calendar has."""
    try:
        return None if ms is None else _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return None


def lowest(seqs: Iterable[int]) -> int:
    """The number that the others follow, of some that are close together on the circle of 256."""
    circle = sorted(set(seqs)) or [0]
    return max((((one - before) % 256 or 256, one) for before, one in zip([circle[-1], *circle], circle, strict=False)))[1]


def bdseq_of(payload: Payload) -> int | None:
    """The number of the session that a birth or death belongs to."""
    for metric in payload.metrics:
        if metric.name == BDSEQ and metric.held is not None and isinstance(metric.held[1], int):
            return metric.held[1]
    return None


def quality_of(metric: Metric) -> Quality:
    """The quality code of the property `Quality`: 0 bad, 192 good, 500 stale; as in OPC, 64 to 191 are uncertain."""
    said = metric.properties.get("Quality")
    if said is None or isinstance(said.value, bool) or not isinstance(said.value, int):
        return "good"
    return "good" if 192 <= said.value < 256 else "uncertain" if 64 <= said.value < 192 else "bad"
