"""Whether the clock of a producer is right, told by when its readings are received. It changes no order."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

from adapters.edge.plant import ClockRule
from adapters.edge.tracks import Producer, printable
from events.integration import ClockSkewDetected
from hub.intake.edge_document import EdgeFact


def look(producer: Producer, name: str, newest: datetime, received: datetime, rule: ClockRule, edge: str) -> Iterator[EdgeFact]:
    """A fact at the beginning of each episode in which the clock is wrong, or wrong by another amount. `newest`: of the live readings of a batch.

    Ahead of the receive time no delay can put a reading. Behind it old values and backlogs are too, so that a clock is behind only where readings
    advance and are late by the same for `confirm_s`. An episode ends within half the bound.
    """
    ahead_s = (newest - received).total_seconds()
    advanced, producer.last = producer.last is not None and newest > producer.last, newest
    goes_on = producer.wrong and abs(ahead_s - producer.offset_s) <= rule.bound_s and abs(ahead_s) > rule.bound_s / 2
    if goes_on or (ahead_s < -rule.bound_s and not advanced):
        return
    if ahead_s > rule.bound_s or (ahead_s < -rule.bound_s and _stays(producer, ahead_s, received, rule)):
        producer.wrong, producer.offset_s, producer.behind_since = "ahead" if ahead_s > 0 else "behind", ahead_s, None
        seconds = Decimal(str(round(ahead_s, 3)))
        event = ClockSkewDetected(
            edge=edge, clock=printable(name), seconds=seconds, compared_with="the edge's clock as it received the readings"
        )
        yield EdgeFact(event, received, rule.id, time_quality="edge_clock")
        return
    producer.wrong = ""
    if ahead_s >= -rule.bound_s:
        producer.behind_since = None


def _stays(producer: Producer, ahead_s: float, received: datetime, rule: ClockRule) -> bool:
    """Whether readings have been behind by the same for long enough; a backlog catches up."""
    if producer.behind_since is None or abs(ahead_s - producer.behind_s) > rule.bound_s:
        producer.behind_since, producer.behind_s = received, ahead_s
    return received - producer.behind_since >= timedelta(seconds=rule.confirm_s)
