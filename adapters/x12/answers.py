"""The 997 that goes back for what a partner sent: which of his transaction sets could be read, and where one could not.

A 997 speaks of syntax alone. A set that was taken is accepted, also where it was a duplicate or a conflict: its content is for people (824), and a
partner who was told that it was unreadable would send it again. A set of which lines are held is accepted with errors: they wait here for a
person. A set that is held whole, or that is not supported, is rejected. 997 and 999 are never answered.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from adapters.formats import x12, x12_write
from adapters.formats.x12 import Fault, Group, Interchange, TransactionSet
from adapters.formats.x12_write import Envelope, Marks, OutGroup, OutSet
from adapters.x12 import mapping
from adapters.x12.common import Faulty
from events.errors import Refused
from hub.intake.delivery import PartOutcome
from hub.intake.mapping import Context, Partner

_NEVER = frozenset({"997", "999"})
_VALUE_CHARS_MAX = 99  # AK404
_COUNT_MAX = 999_999  # AK902
_ELEMENT_MAX = 99  # AK401


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to one partner for one interchange: the source that sent it (`x12:ZZ:ACME`) and the bytes of the 997.

    `unanswered` says which groups cannot be answered and why: a 997 names a group by its kind and number, and these had none.
    """

    to: str
    control: int
    body: bytes
    unanswered: tuple[str, ...] = ()


def answers(
    body: bytes,
    decided: Sequence[PartOutcome],
    control: Callable[[str], int],
    at: datetime,
    partners: Mapping[str, Partner] | None = None,
    marks: Marks | None = None,
) -> list[Answer]:
    """An answer for each interchange of a delivery that has something to answer, in order.

    `decided` is what intake made of the delivery, a part for each transaction set. `control(to)` gives the next interchange control number for a
    partner and is asked once for each answer; groups within take the same number. `at` is written as it stands. `partners` are those that
    intake had, so that the faults are found again that it found. Raises `Refused` where a set was not decided: what nobody could judge is not
    answered.
    """
    outcomes = {part.number: part for part in decided}
    context = Context(raw="", partners=partners or {})
    found, number = [], 0
    for interchange in x12.interchanges(body):
        first = number + 1
        number += len(interchange.sets)
        if not interchange.groups:
            continue
        numbers = {id(one): n for n, one in enumerate(interchange.sets, first)}
        maker = _Maker(numbers, outcomes, context, marks or _marks(interchange))
        if (answer := maker.answer(interchange, control, at)) is not None:
            found.append(answer)
    return found


def _marks(interchange: Interchange) -> Marks:
    """Those of a release that everybody reads; what is echoed and has one of them inside is left out."""
    return Marks(repetition="^") if _release(interchange) >= "004020" else Marks()


def _release(interchange: Interchange) -> str:
    """The release of the 997: that of the first group it answers, without what an industry calls its own."""
    said = next((group.gs[8][:6] for group in interchange.groups if group.gs[8][:6].isdigit() and len(group.gs[8]) >= 6), "004010")
    return said if "003000" <= said < "010000" else "004010"


@dataclass(slots=True)
class _Maker:
    """Makes the answer to one interchange."""

    numbers: Mapping[int, int]
    outcomes: Mapping[int, PartOutcome]
    context: Context
    marks: Marks

    def answer(self, interchange: Interchange, control: Callable[[str], int], at: datetime) -> Answer | None:
        """The answer; None where there is nothing to answer, or nobody to send it to."""
        sender, receiver = x12.party_of(interchange.isa, 5), x12.party_of(interchange.isa, 7)
        sets: list[list[list[str]]] = []
        unanswered = []
        for group in interchange.groups:
            if group.gs[1] == "FA" or (group.sets and all(one.code in _NEVER for one in group.sets)):
                continue
            segments = list(self._group(group))
            if not (self._party(sender) and self._party(receiver)):
                unanswered.append(f"{group.gs.place}: the interchange does not say from whom and to whom it is, so that an answer could")
            elif not (len(group.gs[1]) == 2 and self._fits(group.gs[1], 2) and group.gs[6].isdigit() and self._fits(group.gs[6], 9)):
                unanswered.append(f"{group.gs.place}: the group has no kind (GS01) or no number (GS06) by which an answer could name it")
            else:
                sets.append(segments)
        to = f"x12:{sender}"
        if not sets:
            return Answer(to, 0, b"", tuple(unanswered)) if unanswered else None
        number = control(to)
        envelope = Envelope(
            sender=receiver,
            receiver=sender,
            control=number,
            at=at,
            release=_release(interchange),
            test=interchange.isa[15] == "T",
            **self._codes(interchange.groups),
            marks=self.marks,
        )
        group_out = OutGroup("FA", number, [OutSet("997", n, segments) for n, segments in enumerate(sets, 1)])
        return Answer(to, number, x12_write.write(envelope, [group_out]), tuple(unanswered))

    def _party(self, name: str) -> bool:
        qualifier, _, number = name.partition(":")
        return len(qualifier) == 2 and self._fits(qualifier, 2) and self._fits(number, 15)

    def _codes(self, groups: Sequence[Group]) -> dict[str, str]:
        """GS02 and GS03 of the first group the other way round, as far as they can be written."""
        sender, receiver = groups[0].gs[3], groups[0].gs[2]
        fits = all(self._fits(code, 15) for code in (sender, receiver))
        return {"group_sender": sender, "group_receiver": receiver} if fits else {}

    def _group(self, group: Group) -> Iterator[list[str]]:
        """AK1 to AK9."""
        yield ["AK1", group.gs[1], group.gs[6]]
        codes = []
        for one in group.sets:
            code, segments = self._set(one)
            codes.append(code)
            if len(one.code) == 3 and self._fits(one.code, 3) and self._fits(one.control, 9):
                yield from segments
        taken = sum(code != "R" for code in codes)
        status = "R" if not taken else "P" if taken < len(codes) else "E" if "E" in codes else "A"
        errors = [group.fault.code] if group.fault and group.fault.code else []
        if all(self._unsupported(one) for one in group.sets) and group.sets:
            errors.append("1")
        declared = group.declared if group.declared is not None and group.declared <= _COUNT_MAX else len(group.sets)
        yield ["AK9", status, str(declared), str(len(group.sets)), str(taken), *errors]

    def _unsupported(self, one: TransactionSet) -> bool:
        return self._outcome(one).format.startswith("unsupported:")

    def _outcome(self, one: TransactionSet) -> PartOutcome:
        number = self.numbers[id(one)]
        outcome = self.outcomes.get(number)
        if outcome is None or not outcome.lines or not outcome.format.removeprefix("unsupported:").startswith("x12"):
            what = f"part {number} (X12 {one.code[:20]} {one.control[:20]})"
            raise Refused(f"{what} was not judged: drive the delivery again before it is answered")
        return outcome

    def _set(self, one: TransactionSet) -> tuple[str, list[list[str]]]:
        """AK501 of a set, and AK2 to AK5."""
        outcome = self._outcome(one)
        held = [line for line in outcome.lines if line.outcome == "quarantined"]
        whole = any(line.path == "" for line in held)
        out = [["AK2", one.code, one.control]]
        faults = self._faults(one, {line.path for line in held}) if held and not self._unsupported(one) else []
        for fault in faults:
            out += self._segment(one, fault)
        code = "R" if whole else "E" if held else "A"
        told = ["1"] if self._unsupported(one) else ["5"] if faults else []
        if one.fault is not None and one.fault.code and _of_set(one.fault, one):
            told = [one.fault.code]
        return code, [*out, ["AK5", code, *told]]

    def _faults(self, one: TransactionSet, paths: set[str]) -> list[Fault]:
        """The faults of held lines that lie in a segment of the set, in the order of the segments. The set is read once more to find them."""
        lines = mapping.part(self.numbers[id(one)], one, self.context).lines
        held = [line for line in lines if isinstance(line, Faulty) and line.path in paths]
        found = {_position(line.fault, one): line.fault for line in held if line.fault is not None}
        return [found[position] for position in sorted(found) if 1 < position <= len(one.segments) + 1]

    def _segment(self, one: TransactionSet, fault: Fault) -> list[list[str]]:
        """AK3, and AK4 where an element is meant. A segment whose tag cannot be written is told by AK5 alone."""
        segment = fault.segment or x12.NOWHERE
        if not (2 <= len(segment.tag) <= 3 and self._fits(segment.tag, 3)):
            return []
        ak3 = ["AK3", segment.tag, str(_position(fault, one)), ""]
        if not fault.element:
            return [[*ak3, fault.code or "2"]]
        if fault.element > _ELEMENT_MAX:
            return [[*ak3, "8"]]
        value = segment[fault.element]
        return [[*ak3, "8"], ["AK4", str(fault.element), "", fault.code or "7", *([value] if self._fits(value, _VALUE_CHARS_MAX) else [])]]

    def _fits(self, text: str, most: int) -> bool:
        return len(text) <= most and x12_write.fits(text, self.marks)


def _position(fault: Fault, one: TransactionSet) -> int:
    """The place of a fault's segment in its set, where ST is 1; 0 for one that is in none."""
    return fault.segment.number - one.start + 1 if fault.segment is not None else 0


def _of_set(fault: Fault, one: TransactionSet) -> bool:
    """Whether a fault is one of the set as a whole: of its ST or SE, not of a group or interchange around it."""
    return _position(fault, one) in (1, len(one.segments) + 2)
