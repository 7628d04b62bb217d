"""From readings to facts: states, counts, limits, downtime, clocks, by rules that each fact names. Pure: readings and memory in, facts and memory out.

Order: live readings count in the order in which their source hands them over, whatever their clock says; a clock orders nothing. A reading that is
marked historical counts in that order too unless it is older than what its tag last did. Then it is late: a state, a limit or an order that it
shows is told as of its own time and the present stays as it is; a late count makes no fact, because the totaliser that was read after it has what
it counted; nor is downtime told of the past. A late reading from before all that is remembered (tracks.MARKS_MAX changes) makes no fact either and
is counted, and so is every other reading that a rule could not use: the readings themselves are kept in any case. A source does best to hand over
what it read back before what is new.

Repetitions of live readings are known by tag, value, time and number (tracks.SEEN_MAX of a producer). Bad readings change nothing, unless the
state's rule says that equipment is then unknown. While the clock of a producer is known to be wrong, its facts keep its time as `occurred_at` and
take the time that the edge puts it at as `effective_at` (`clock_corrected`).

The caller makes facts and memory durable in one transaction, in the producer's lane, and only then folds more: `Rules` keeps nothing itself.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from adapters.edge.local_time import OFFSET, PLANT_ZONE, RECEIVED, time_of
from adapters.edge.plant import Plant, Rule, StateRule, Tags, pattern
from adapters.edge.producer_clock import look
from adapters.edge.tag_rules import Said, apply, count_due, name, stands_due, state_due
from adapters.edge.tracks import Machine, Producer, When, read, sound
from hub.intake.edge_document import EdgeFact
from hub.intake.readings import Observed, Reading

MACHINES_MAX = 10_000  # names in the memory; a source that makes up tags must not fill the edge
_TAGS_MAX = 100_000  # tags whose rules are remembered, by look-up
_EQUIPMENT, _PRODUCER = "rules/equipment/", "rules/producer/"


@dataclass(slots=True)
class Folded:
    """What readings led to: facts in their order, what must be remembered with them, and how many readings a rule could not use, by reason:
    `unusable`, `unmapped`, `late` (from before what is remembered, or of no known time), `crowded` (more equipment or tags than are kept)."""

    facts: list[EdgeFact] = field(default_factory=list)
    state: dict[str, bytes] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)


class Rules:
    """The rules of a plant at an edge. Safe to use from several threads, if their calls are one after the other (a machine may have two sources)."""

    def __init__(self, plant: Plant, edge: str) -> None:
        self._plant, self._edge, self._zone = plant, edge, ZoneInfo(plant.zone)
        self._tags = [(pattern(entry.producers), pattern(entry.tags), entry) for entry in plant.tags]
        self._states = {rule.name: rule for rule in plant.rules() if isinstance(rule, StateRule)}
        self._rules = {rule.name: rule for rule in plant.rules()}
        self._meant: dict[tuple[str, str], list[tuple[str, Rule]]] = {}

    def timed(self, observed: Observed) -> Observed:
        """The same with every time of a reading as a moment: local ones by the plant's time zone (`local_time`), None for what the log takes not."""
        times = [time_of(r, observed.received_at, self._zone) for r in observed.readings]
        readings = [
            r if r.at is None or (r.at == time and r.at.tzinfo) else replace(r, at=None if quality == RECEIVED else time)
            for r, (time, quality) in zip(observed.readings, times, strict=True)
        ]
        return replace(observed, readings=readings)

    def fold(self, observed: Observed, state: Mapping[str, bytes]) -> Folded:
        """The facts of what a producer said. `state` holds what earlier folds gave to be remembered."""
        folded = Folded()
        remembered = _PRODUCER + sound(observed.producer)
        producer = read(Producer, remembered, state)
        times = [time_of(r, observed.received_at, self._zone) for r in observed.readings]
        folded.facts += self._clock(producer, observed, times)
        machines: dict[str, Machine] = {}
        used = [
            (r, time, rules)
            for r, time in zip(observed.readings, times, strict=True)
            if (rules := self._rules_of(observed.producer, r.tag))
        ]
        repeatable = [not r.historical and (r.at is not None or r.sequence is not None) for r, _, _ in used]
        news = iter(producer.news([_digest(one[0]) for one, known in zip(used, repeatable, strict=True) if known]))
        for (reading, time, rules), known in zip(used, repeatable, strict=True):
            if known and not next(news):
                continue
            when = _when(reading, *time, producer)
            for equipment, rule in rules:
                if not equipment or (machine := self._machine(equipment, machines, state)) is None:
                    _ignore(folded, "crowded" if equipment else "unusable")
                    continue
                machine.producer = sound(observed.producer)
                said = Said(reading, when, observed.received_at, self._rules)
                folded.facts += apply(rule, equipment, machine, said)
                if said.ignored:
                    _ignore(folded, said.ignored)
        folded.state = {_EQUIPMENT + path: msgspec.msgpack.encode(machine) for path, machine in machines.items()}
        if (kept := msgspec.msgpack.encode(producer)) != state.get(remembered):
            folded.state[remembered] = kept
        return folded

    def due(self, now: datetime, state: Mapping[str, bytes]) -> dict[str, Folded]:
        """Facts that time alone brings, by the producer in whose lane they belong: states that have held, counts of an interval, downtime.

        `now` is on the edge's clock, the one of `Observed.received_at`. Time runs from when a reading was received: what was said last is
        taken to hold, also while its source is not heard. Call it some times in the shortest of the rules' intervals.
        """
        found: dict[str, Folded] = {}
        for remembered in sorted(one for one in state if one.startswith(_EQUIPMENT)):
            machine, equipment = read(Machine, remembered, state), remembered.removeprefix(_EQUIPMENT)
            facts = [*self._state_due(equipment, machine, now), *count_due(self._rules, equipment, machine, now)]
            if (kept := msgspec.msgpack.encode(machine)) != state[remembered]:
                folded = found.setdefault(machine.producer, Folded())
                folded.facts += facts
                folded.state[remembered] = kept
        return found

    def _state_due(self, equipment: str, machine: Machine, now: datetime) -> Iterator[EdgeFact]:
        if rule := self._states.get(machine.rule):
            yield from state_due(rule, equipment, machine, now)
            yield from stands_due(rule, equipment, machine, now)

    def _machine(self, equipment: str, machines: dict[str, Machine], state: Mapping[str, bytes]) -> Machine | None:
        if equipment not in machines:
            if _EQUIPMENT + equipment not in state and len(state) + len(machines) >= MACHINES_MAX:
                return None
            machines[equipment] = read(Machine, _EQUIPMENT + equipment, state)
        return machines[equipment]

    def _rules_of(self, producer: str, tag: str) -> list[tuple[str, Rule]]:
        """The rules of a tag, each with its equipment: "" for what cannot be the name of any."""
        if (known := self._meant.get((producer, tag))) is None:
            known = []
            for entry, match in self._matching(producer, tag):
                path = entry.equipment_of(match)
                known += [(path if name(path) == path else "", rule) for rule in entry.rules]
            if len(self._meant) >= _TAGS_MAX:
                self._meant.clear()
            self._meant[producer, tag] = known
        return known

    def _matching(self, producer: str, tag: str) -> Iterator[tuple[Tags, re.Match[str]]]:
        for producers, tags, entry in self._tags:
            if producers.fullmatch(producer) and (match := tags.fullmatch(tag)):
                yield entry, match

    def _clock(self, producer: Producer, observed: Observed, times: Sequence[tuple[datetime, str]]) -> Iterator[EdgeFact]:
        told = [
            time
            for r, (time, quality) in zip(observed.readings, times, strict=True)
            if not r.historical and r.quality != "bad" and quality in (OFFSET, PLANT_ZONE)
        ]
        if self._plant.clock and told:
            yield from look(producer, observed.producer, max(told), observed.received_at, self._plant.clock, self._edge)


def _when(reading: Reading, at: datetime, quality: str, producer: Producer) -> When:
    if producer.wrong and not reading.historical and quality != RECEIVED:
        return When(at, at - timedelta(seconds=producer.offset_s), "clock_corrected" if quality == OFFSET else quality)
    return When(at, at, quality)


def _digest(reading: Reading) -> int:
    said = repr((reading.tag, reading.sequence, reading.at and reading.at.isoformat(), reading.value, reading.quality))
    return int.from_bytes(hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True)


def _ignore(folded: Folded, why: str) -> None:
    folded.ignored[why] = folded.ignored.get(why, 0) + 1
