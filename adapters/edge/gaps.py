"""What a producer's own numbers say is missing, where no protocol tells; and producers that fall silent. Pure, like `rules`.

A gap has one name for each range that is missing. When a part of a range comes after all, its gap is filled and what is still missing is told as
gaps of their own, so that the open gaps of a producer are at any time exactly the numbers that never came since it was heard of first, or was
restarted. Numbers that wrap are told apart within half their range: a longer loss looks shorter by a multiple of it.
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

from adapters.edge.local_time import RECEIVED, time_of
from adapters.edge.plant import SequenceRule, pattern
from adapters.edge.tracks import printable, read, sound
from events.base import Event
from events.integration import GapDetected, GapFilled
from hub.intake.edge_document import EdgeFact
from hub.intake.readings import Filled, Gap, Observed, Reading

OPEN_MAX = 1000  # missing ranges of a producer that can still be filled; older ones stay open in the log, and are counted
PRODUCERS_MAX = 10_000  # a source that makes up names must not fill the edge
_NAME = "gaps/"


class Missing(msgspec.Struct, array_like=True, frozen=True):
    """A range of numbers, inclusive and counted on over wraps, between two readings by the source's clock."""

    first: int
    last: int
    since: datetime | None
    until: datetime | None


class Numbers(msgspec.Struct, array_like=True):
    """How far a producer is. `begun` names the run of its numbers: when the edge heard the first of them."""

    begun: str = ""
    next: int = 0
    missing: list[Missing] = []
    newest: datetime | None = None  # the source's clock, of the highest number
    heard: datetime | None = None  # the edge's clock
    silent: str = ""  # the gap that its silence is
    forgotten: int = 0


@dataclass(slots=True)
class Missed:
    """What is known to be missing now, and what came after all; what must be remembered with it; and what was observed, with every reading whose
    number is below one that came before marked as historical: it says nothing of now."""

    observed: Observed
    rule: SequenceRule | None
    gaps: list[Gap] = field(default_factory=list)
    filled: list[Filled] = field(default_factory=list)
    state: dict[str, bytes] = field(default_factory=dict)


class Sequences:
    """The numbers of all producers of an edge, each by the first rule that is for it."""

    def __init__(self, rules: Sequence[SequenceRule], zone: str = "UTC") -> None:
        self._zone = ZoneInfo(zone)  # of times without an offset
        self._rules = [(pattern(rule.producers), rule) for rule in rules]

    def fold(self, observed: Observed, state: Mapping[str, bytes]) -> Missed:
        """What a producer's readings say of those that did not come. `state` holds what earlier folds gave to be remembered."""
        rule, name = self._rule(observed.producer), _NAME + sound(observed.producer)
        missed = Missed(observed, rule)
        if rule is None or not observed.readings or (name not in state and len(state) >= PRODUCERS_MAX):
            return missed
        numbers = read(Numbers, name, state)
        numbers.heard = observed.received_at
        if numbers.silent:
            missed.filled.append(Filled(numbers.silent, observed.producer, "heard again"))
            numbers.silent = ""
        known, readings = list(numbers.missing), list(observed.readings)
        for place, reading in enumerate(observed.readings):
            if reading.sequence is None or not observed.numbered:
                continue
            time, quality = time_of(reading, observed.received_at, self._zone)
            at = None if quality == RECEIVED else time
            if not numbers.begun or _restarted(numbers, reading, at, rule):
                _tell(missed, known, numbers)  # of the run that is over
                numbers.begun, numbers.next, numbers.missing = f"{observed.received_at:%Y%m%dT%H%M%S.%fZ}", reading.sequence, []
                known = []
            if _is_late(numbers, reading.sequence, at, rule):
                readings[place] = replace(reading, historical=True)
        _tell(missed, known, numbers)
        if readings != observed.readings:
            missed.observed = replace(observed, readings=readings)
        missed.state[name] = msgspec.msgpack.encode(numbers)
        return missed

    def due(self, now: datetime, state: Mapping[str, bytes]) -> dict[str, Missed]:
        """Producers that have said nothing for longer than their rule allows, told once. `now` is on the clock of `Observed.received_at`.

        A producer that a rule names without wildcards is waited for from the first call on, though it never said anything.
        """
        expected = {rule.producers for found, rule in self._rules if rule.silent_s and found.pattern == re.escape(rule.producers)}
        names = {name.removeprefix(_NAME) for name in state if name.startswith(_NAME)}
        found: dict[str, Missed] = {}
        for producer in sorted(names | expected):
            rule, name = self._rule(producer), _NAME + producer
            numbers = read(Numbers, name, state)
            if rule is None or rule.silent_s is None or numbers.silent:
                continue
            missed = Missed(Observed(producer, now), rule)
            if numbers.heard is None:
                numbers.heard = now
            elif (quiet_s := (now - numbers.heard).total_seconds()) > rule.silent_s:
                numbers.silent = f"silent/{_digest(producer)}/{numbers.heard:%Y%m%dT%H%M%S.%fZ}"
                reason = f"nothing came for {quiet_s:.0f} s, {rule.silent_s:g} s are allowed"
                missed.gaps.append(Gap(numbers.silent, producer, "silent", reason, since=numbers.heard))
            if (kept := msgspec.msgpack.encode(numbers)) != state.get(name):
                missed.state[name] = kept
                found[producer] = missed
        return found

    def missing(self, producer: str, state: Mapping[str, bytes]) -> list[tuple[int, int]]:
        """The ranges of a producer that are still waited for, first and last number, counted on over wraps."""
        return [(one.first, one.last) for one in read(Numbers, _NAME + sound(producer), state).missing]

    def _rule(self, producer: str) -> SequenceRule | None:
        return next((rule for found, rule in self._rules if found.fullmatch(producer)), None)


def told(edge: str, gaps: Iterable[Gap], filled: Iterable[Filled], at: datetime, rule: str) -> Iterator[EdgeFact]:
    """Gaps, of a source's protocol or of its numbers, as facts. `at`: when the edge noticed, by its clock; `rule` is the name and version of
    who did. A gap that is told and filled in one breath is filled last."""
    events: list[Event] = [
        GapDetected(
            gap=one.id, edge=edge, producer=printable(one.producer), kind=one.kind, reason=one.reason, first=one.first, last=one.last,
            since=one.since, until=one.until, tags=tuple(map(printable, one.tags)),
        )
        for one in gaps
    ]  # fmt: skip
    events += [GapFilled(gap=one.gap, edge=edge, producer=printable(one.producer), how=one.how) for one in filled]
    return (EdgeFact(event, at, rule, time_quality="edge_clock") for event in events)


def _restarted(numbers: Numbers, reading: Reading, at: datetime | None, rule: SequenceRule) -> bool:
    """Whether a producer counts anew: the number that it begins with comes again in a reading that is newer than all before."""
    if (
        reading.sequence is None
        or reading.sequence != rule.restarts_at
        or reading.historical
        or _counted(numbers, reading.sequence, rule) >= numbers.next
    ):
        return False
    return at is not None and numbers.newest is not None and at > numbers.newest


def _is_late(numbers: Numbers, sequence: int, at: datetime | None, rule: SequenceRule) -> bool:
    """Count a reading; whether a higher number came before it."""
    n = _counted(numbers, sequence, rule)
    if n >= numbers.next:
        if n > numbers.next:
            numbers.missing.append(Missing(numbers.next, n - 1, numbers.newest, at))
        numbers.next, numbers.newest = n + 1, at or numbers.newest
        return False
    if n == numbers.next - 1:  # one more value of the same message, or the same again, which the rules know
        return False
    place = bisect_right(numbers.missing, n, key=lambda one: one.first) - 1
    if place >= 0 and (gap := numbers.missing[place]).last >= n:
        parts = (Missing(gap.first, n - 1, gap.since, gap.until), Missing(n + 1, gap.last, gap.since, gap.until))
        numbers.missing[place : place + 1] = [part for part in parts if part.first <= part.last]
    return True


def _counted(numbers: Numbers, sequence: int, rule: SequenceRule) -> int:
    """A producer's number counted on over wraps: of those that it can be the one closest to the next."""
    if rule.wraps is None:
        return sequence
    ahead = (sequence - numbers.next) % rule.wraps
    return numbers.next + (ahead if ahead < rule.wraps / 2 else ahead - rule.wraps)


def _tell(missed: Missed, known: Sequence[Missing], numbers: Numbers) -> None:
    """What changed: ranges that were known and are not missing as a whole any more are filled, what is missing of them and beside them is new."""
    producer, rule = missed.observed.producer, missed.rule
    before, after = {(m.first, m.last) for m in known}, {(m.first, m.last) for m in numbers.missing}
    for one in known:
        if (one.first, one.last) not in after:
            rest = any(one.first <= m.first and m.last <= one.last for m in numbers.missing)
            missed.filled.append(
                Filled(_gap_id(producer, numbers, one), producer, "late, in part: the rest is told anew" if rest else "late")
            )
    for one in numbers.missing:
        if (one.first, one.last) not in before and rule is not None:
            first, last = (n if rule.wraps is None else n % rule.wraps for n in (one.first, one.last))
            reason = f"{one.last - one.first + 1} of the producer's numbers did not come"
            missed.gaps.append(Gap(_gap_id(producer, numbers, one), producer, "sequence", reason, first, last, one.since, one.until))
    numbers.forgotten += len(numbers.missing[:-OPEN_MAX])
    del numbers.missing[:-OPEN_MAX]


def _gap_id(producer: str, numbers: Numbers, one: Missing) -> str:
    return f"sequence/{_digest(producer)}/{numbers.begun}/{one.first}-{one.last}"


def _digest(producer: str) -> str:
    return hashlib.blake2b(producer.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
