"""What one reading does by one rule: the machine's memory changes, facts come out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from pydantic import TypeAdapter, ValidationError

from adapters.edge.plant import UNKNOWN, ContextRule, CountRule, DowntimeRule, LimitRule, Rule, StateRule
from adapters.edge.tracks import SLOTS_MAX, Counter, Machine, Mark, Stop, Track, When, printable, sound
from events.base import Event
from events.equipment import CounterReset, CountReported, DowntimeEnded, DowntimeStarted, LimitExceeded, LimitKept, StateChanged
from events.errors import Refused
from events.vocabulary import Name, Quantity
from hub.intake.edge_document import EdgeFact
from hub.intake.readings import Reading, Value

_NAME: TypeAdapter[str] = TypeAdapter(Name)
_DIGITS = Context(prec=40)
_STEP, _TOO_LARGE = Decimal("1e-12"), Decimal("1e20")  # what an exact number of the log can be (events/vocabulary.py)


@dataclass(slots=True)
class Said:
    """A reading on its way through the rules. `rules`: all by name. `ignored`: why a rule could not use it."""

    reading: Reading
    when: When
    received: datetime
    rules: Mapping[str, Rule]
    ignored: str = ""

    @property
    def bad(self) -> bool:
        return self.reading.quality == "bad" or self.reading.value is None


def apply(rule: Rule, equipment: str, machine: Machine, said: Said) -> list[EdgeFact]:
    """The facts that a reading leads to by one rule."""
    if said.reading.historical and said.reading.at is None:
        said.ignored = "late"  # nobody knows of when it is
        return []
    match rule:
        case StateRule():
            return list(_state(rule, equipment, machine, said))
        case CountRule() if not said.bad:
            return list(_count(rule, equipment, machine, said))
        case LimitRule() if not said.bad:
            return list(_limit(rule, equipment, machine, said))
        case ContextRule() if not said.bad:
            return list(_context(rule, equipment, machine, said))
    return []


# -- states


def _state(rule: StateRule, equipment: str, machine: Machine, said: Said) -> Iterator[EdgeFact]:
    if said.bad:
        state = UNKNOWN if rule.unknown_when_bad else None
    elif (state := rule.states.get(_key(said.reading.value), rule.otherwise)) is None:
        said.ignored = "unmapped"
    if state is None:
        return
    machine.rule, track = rule.name, machine.state
    mark = Mark(said.when, state, sound(said.reading.tag))
    if not track.is_present(mark, said.reading.historical):
        if not track.reaches(said.when.effective):
            said.ignored = "late"
        elif placed := track.put_late(mark):
            yield _changed(rule, equipment, machine, mark, placed.before, said.when.effective)
            if placed.again and placed.after:
                yield _changed(rule, equipment, machine, placed.after, mark, placed.after.when.effective)
        return
    track.latest = mark
    settle = timedelta(seconds=rule.settle_s)
    if track.wait and said.when.effective - track.wait.when.effective >= settle:
        yield from _settled(rule, equipment, machine)
    if machine.stop and rule.downtime and said.when.effective - machine.stop.when.effective >= timedelta(seconds=rule.downtime.after_s):
        yield from _down(rule.downtime, equipment, machine, said.when)
    if state == track.now:
        track.wait = None
    elif not settle:
        yield from _commit(rule, equipment, machine, mark, said.received, None)
    elif track.wait is None or track.wait.value != state:
        track.wait, track.heard = mark, said.received


def state_due(rule: StateRule, equipment: str, machine: Machine, now: datetime) -> Iterator[EdgeFact]:
    """The change of a state that has held for long enough."""
    track = machine.state
    if track.wait and track.heard and now - track.heard >= timedelta(seconds=rule.settle_s):
        yield from _settled(rule, equipment, machine)


def stands_due(rule: StateRule, equipment: str, machine: Machine, now: datetime) -> Iterator[EdgeFact]:
    """Downtime of equipment that has stood for too long."""
    if rule.downtime and machine.stop and now - machine.stop.heard >= timedelta(seconds=rule.downtime.after_s):
        yield from _down(rule.downtime, equipment, machine, When(now, now, "edge_clock"))


def _settled(rule: StateRule, equipment: str, machine: Machine) -> Iterator[EdgeFact]:
    track = machine.state
    if track.wait and track.heard:
        mark, track.wait = track.wait, None
        yield from _commit(rule, equipment, machine, mark, track.heard, mark.when.effective)


def _commit(rule: StateRule, equipment: str, machine: Machine, mark: Mark, heard: datetime, time: datetime | None) -> Iterator[EdgeFact]:
    """The present changes; downtime begins to be waited for, or ends. `time`: of what was in process then; None: what is now."""
    if placed := machine.state.put(mark):
        yield _changed(rule, equipment, machine, mark, placed.before, time)
    if (down := rule.downtime) is None or mark.value == UNKNOWN:
        return
    if mark.value not in (*down.running, *down.planned):
        machine.stop = machine.stop or Stop(mark.when, mark.value, heard)
    elif stop := machine.stop:
        if mark.when.effective - stop.when.effective >= timedelta(seconds=down.after_s):
            yield from _down(down, equipment, machine, mark.when)
        if stop.told:
            event = DowntimeEnded(equipment=equipment, state=mark.value, started_at=stop.when.effective)
            yield _fact(event, mark.when, down)
        machine.stop = None


def _changed(rule: StateRule, equipment: str, machine: Machine, mark: Mark, before: Mark | None, time: datetime | None) -> EdgeFact:
    previous = before.value if before else None
    event = StateChanged(
        equipment=equipment, state=mark.value, previous=previous, cause=printable(mark.cause), **_in_process(machine, time)
    )
    return _fact(event, mark.when, rule)


def _down(rule: DowntimeRule, equipment: str, machine: Machine, noticed: When) -> Iterator[EdgeFact]:
    """Told once, effective from when it stopped; noticed at some time after."""
    stop = machine.stop
    if stop and not stop.told:
        stop.told = True
        reason = machine.context["reason"].at(noticed.effective) if "reason" in machine.context else None
        event = DowntimeStarted(
            equipment=equipment,
            state=stop.state,
            reason=(reason.value or None) if reason else None,
            **_in_process(machine, stop.when.effective),
        )
        yield EdgeFact(event, noticed.occurred, rule.id, stop.when.effective, noticed.quality)


# -- counts


def _count(rule: CountRule, equipment: str, machine: Machine, said: Said) -> Iterator[EdgeFact]:
    total, slot = number(said.reading.value), f"{rule.name} {sound(said.reading.tag)}"
    if total is None:
        said.ignored = "unusable"
        return
    counter = machine.counters.get(slot)
    if counter is None:
        if _crowded(machine.counters, said):
            return
        machine.counters[slot] = Counter(total, said.when, Decimal(0), said.when.effective, said.received)
        return
    if said.reading.historical and said.when.effective <= counter.when.effective:
        return  # what it counted is in the total that was read after it
    before, made = counter.total, total - counter.total
    if made < 0:
        rolled = _rolled(rule, before, total)
        reset = CounterReset(
            equipment=equipment, counter=rule.counter, before=before, after=total, unit=rule.unit, rolled_over=rolled is not None
        )
        if rolled is None and counter.pending:
            yield _report(rule, equipment, machine, counter)
        yield _fact(reset, said.when, rule)
        made = rolled or Decimal(0)
    if made and not counter.pending:
        counter.heard = said.received
    counter.total, counter.when, counter.pending = total, said.when, counter.pending + made
    if counter.pending and said.when.effective - counter.reported >= timedelta(seconds=rule.every_s):
        yield _report(rule, equipment, machine, counter)


def _rolled(rule: CountRule, before: Decimal, after: Decimal) -> Decimal | None:
    """What a totaliser counted that came around; None where it was reset."""
    if rule.rolls_at is None or not rule.rolls_to <= after < before < rule.rolls_at:
        return None
    made = (rule.rolls_at - before) + (after - rule.rolls_to)
    return made if made * 4 <= rule.rolls_at - rule.rolls_to else None


def _report(rule: CountRule, equipment: str, machine: Machine, counter: Counter) -> EdgeFact:
    event = CountReported(
        equipment=equipment,
        counter=rule.counter,
        quantity=Quantity(value=counter.pending, unit=rule.unit),
        total=counter.total,
        rejected=rule.rejected,
        **_in_process(machine, None),
    )
    counter.pending, counter.reported = Decimal(0), counter.when.effective
    return _fact(event, counter.when, rule)


def count_due(rules: Mapping[str, Rule], equipment: str, machine: Machine, now: datetime) -> Iterator[EdgeFact]:
    """Reports of what was counted in an interval that is over."""
    for rule, counter in _pending(rules, machine):
        if now - counter.heard >= timedelta(seconds=rule.every_s):
            yield _report(rule, equipment, machine, counter)


def _pending(rules: Mapping[str, Rule], machine: Machine) -> Iterator[tuple[CountRule, Counter]]:
    for slot, counter in machine.counters.items():
        if counter.pending and isinstance(rule := rules.get(slot.partition(" ")[0]), CountRule):
            yield rule, counter


# -- limits


def _limit(rule: LimitRule, equipment: str, machine: Machine, said: Said) -> Iterator[EdgeFact]:
    value, tag = number(said.reading.value), sound(said.reading.tag)
    if value is None:
        said.ignored = "unusable"
        return
    slot = f"{rule.name} {tag}"
    if slot not in machine.limits and _crowded(machine.limits, said):
        return
    track = machine.limits.setdefault(slot, Track())
    present = track.is_present(Mark(said.when, ""), said.reading.historical)
    if not present and not track.reaches(said.when.effective):
        said.ignored = "late"
        return
    known = (track.marks[-1] if track.marks else None) if present else track.at(said.when.effective)
    side = _side(rule, value, known.value if known else "within")
    mark = Mark(said.when, side, tag, value)
    if present:
        track.latest = Mark(said.when, side, tag, value)
    placed = track.put(mark) if present else track.put_late(mark)
    if placed is None:
        if known and known.number is not None and known.value == side:
            known.number = max(known.number, value) if side == "above" else min(known.number, value) if side == "below" else known.number
        return
    if placed.before and placed.before.value != "within":
        yield _kept(rule, equipment, placed.before, mark)
    if side != "within":
        event = LimitExceeded(
            equipment=equipment,
            tag=printable(tag),
            value=value,
            limit=(rule.high if side == "above" else rule.low) or Decimal(0),
            unit=rule.unit,
            above=side == "above",
            **_in_process(machine, None if present else said.when.effective),
        )
        yield _fact(event, said.when, rule)
        if placed.after and placed.after.value != side:  # a late one: what came after it ended it at the latest
            yield _kept(rule, equipment, mark, placed.after)


def _side(rule: LimitRule, value: Decimal, before: str) -> str:
    """Which side of its limits a value is on, coming from a side: within only when it is back by the dead band."""
    if rule.high is not None and value > rule.high - (rule.dead_band if before == "above" else 0):
        return "above"
    if rule.low is not None and value < rule.low + (rule.dead_band if before == "below" else 0):
        return "below"
    return "within"


def _kept(rule: LimitRule, equipment: str, exceeded: Mark, back: Mark) -> EdgeFact:
    event = LimitKept(
        equipment=equipment,
        tag=printable(exceeded.cause),
        value=back.number or Decimal(0),
        worst=exceeded.number or Decimal(0),
        unit=rule.unit,
        exceeded_at=exceeded.when.effective,
    )
    return _fact(event, back.when, rule)


# -- what is in process


def _context(rule: ContextRule, equipment: str, machine: Machine, said: Said) -> Iterator[EdgeFact]:
    raw = said.reading.value
    text = raw.strip() if isinstance(raw, str) else _key(raw)
    value = "" if text in rule.none else name(text)
    if value is None or isinstance(raw, bool):
        said.ignored = "unusable"
        return
    track = machine.context.setdefault(rule.field, Track())
    mark = Mark(said.when, value)
    present = track.is_present(mark, said.reading.historical)
    if not present and not track.reaches(said.when.effective):
        said.ignored = "late"
    elif not present:
        track.put_late(mark)
    else:
        track.latest = mark
        if value != track.now and rule.field != "reason":  # what was counted so far belongs to what was in process so far
            for count, counter in _pending(said.rules, machine):
                yield _report(count, equipment, machine, counter)
        track.put(mark)


def _in_process(machine: Machine, time: datetime | None) -> dict[str, Any]:
    """Order, item and lot in the equipment at a time, or now."""
    found = {}
    for field in ("order", "item", "lot"):
        if track := machine.context.get(field):
            mark = (track.marks[-1] if track.marks else None) if time is None else track.at(time)
            found[field] = (mark.value or None) if mark else None
    return found


# -- values


def number(value: Value) -> Decimal | None:
    """A value as the exact number that the log can hold, to 12 decimals; None for what is no such number. Texts are texts."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    found = Decimal(value) if isinstance(value, int) else Decimal(repr(value))
    if not found.is_finite() or abs(found) >= _TOO_LARGE:
        return None
    exponent = found.as_tuple().exponent
    return found.quantize(_STEP, context=_DIGITS) if isinstance(exponent, int) and exponent < -12 else found


def _key(value: Value) -> str:
    """A value as tables of states name it: true, 6, Execute."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def name(text: str) -> str | None:
    """A text as a name of the log; None for what cannot be one."""
    try:
        return _NAME.validate_python(text)
    except (ValidationError, Refused):
        return None


def _crowded(slots: Mapping[str, object], said: Said) -> bool:
    if len(slots) >= SLOTS_MAX:
        said.ignored = "crowded"
    return bool(said.ignored)


def _fact(event: Event, when: When, rule: Rule) -> EdgeFact:
    return EdgeFact(event, when.occurred, rule.id, when.effective, when.quality)
