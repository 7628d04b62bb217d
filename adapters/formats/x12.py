"""X12 interchanges: bytes to transaction sets with their envelopes checked. Pure, bounded, never raises.

Real files bring BOMs, unpadded ISA segments, any separator, line breaks inside or between segments, and several interchanges; all of that is sound.
A wrong count or control number, a missing trailer or a stray segment is a fault, and a fault holds the transaction sets it is about.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from adapters.formats.x12_text import FRAGMENT, ISA_CHARS_MAX, NEXT_ISA, decode, separators

SEGMENTS_MAX = 500_000  # of one file: some 200 MiB of memory, besides what is made of them
SETS_MAX = 50_000  # of one file
ELEMENT_CHARS_MAX = 4_000
_TAG = re.compile(r"[A-Z][A-Z0-9]{1,2}")
_BLANK = " \t\r\n\x1a\x00\ufeff"
_BREAKS = str.maketrans({"\r": None, "\n": None, "\t": " "})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: its elements (0 is the tag), its number in the interchange and its line in the file, both from 1."""

    elements: tuple[str, ...]
    number: int
    line: int

    @property
    def tag(self) -> str:
        return self.elements[0]

    def __getitem__(self, n: int) -> str:
        """Element n without spaces around it; "" where it is not there."""
        return self.elements[n].strip() if n < len(self.elements) else ""

    @property
    def place(self) -> str:
        return f"segment {self.number} ({self.tag[:12]}), line {self.line}"


NOWHERE = Segment(("",), 0, 0)
SEND_AGAIN = "correct it at the sender and send it again"
NOT_YET = "it is kept here and can be driven again when a mapping for it exists"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where: in which segment and which element of it (0: the segment as a whole).

    `code` is what a 997 says of it: AK304 where a segment is meant, AK403 where an element is, AK502 of a transaction set and AK905 of a
    functional group. Empty: X12 has no code for it. `remedy` is the next step where the reason does not name it.
    """

    reason: str
    place: str = ""
    segment: Segment | None = None
    element: int = 0
    code: str = ""
    remedy: str = SEND_AGAIN

    @classmethod
    def at(cls, reason: str, segment: Segment, code: str = "", element: int = 0, remedy: str = SEND_AGAIN) -> "Fault":
        """A fault at a segment."""
        return cls(reason, segment.place, segment, element, code, remedy)


class Broken(Exception):
    """A transaction set, or a line of one, breaks the rules of its kind, or says what the hub cannot; `fault` says how and where."""

    def __init__(self, reason: str, segment: Segment | None, code: str = "", element: int = 0, remedy: str = SEND_AGAIN) -> None:
        super().__init__(reason)
        self.fault = Fault(reason) if segment is None else Fault.at(reason, segment, code, element, remedy)


@dataclass(slots=True)
class TransactionSet:
    """ST to SE without the two. `code` is "" where none can be told; `fault` is the first thing wrong with it or with what encloses it."""

    code: str
    control: str
    isa: Segment = NOWHERE
    group: "Group | None" = None  # None: it stands outside of any
    start: int = 0  # the number of ST
    component: str = ""  # ISA16
    segments: list[Segment] = field(default_factory=list)
    fault: Fault | None = None

    def blame(self, fault: Fault | None) -> None:
        self.fault = self.fault or fault

    @property
    def sender(self) -> str:
        """ISA05:ISA06, "" where it is not known."""
        return party_of(self.isa, 5)


@dataclass(slots=True)
class Group:
    """A functional group, GS to GE. `declared` is how many sets GE01 says, `fault` the first thing wrong with the two: it holds all its sets."""

    gs: Segment
    sets: list[TransactionSet] = field(default_factory=list)
    declared: int | None = None
    fault: Fault | None = None


@dataclass(slots=True)
class Interchange:
    """ISA to IEA. `sets` are all of it, one without a code where none can be told; `fault` is the first thing wrong with the whole."""

    isa: Segment = NOWHERE
    groups: list[Group] = field(default_factory=list)
    sets: list[TransactionSet] = field(default_factory=list)
    fault: Fault | None = None


def party_of(isa: Segment, qualifier: int) -> str:
    """`ZZ:ACME`, the sender (5) or the receiver (7) of an interchange; "" where it is not there or cannot be one."""
    name = f"{isa[qualifier]}:{isa[qualifier + 1]}"
    return name if isa[qualifier + 1] and len(name) <= 40 and name.isprintable() else ""


def parse(body: bytes) -> Sequence[TransactionSet]:
    """All transaction sets of a file, in order. An interchange in which no set can be told gives one with code "" and its fault."""
    return [one for interchange in interchanges(body) for one in interchange.sets]


def interchanges(body: bytes) -> Sequence[Interchange]:
    """All interchanges of a file, in order, each with at least one set; what cannot be read between them is one too, without ISA."""
    text = decode(body)
    found: list[Interchange] = []
    position, line, segments, sets = 0, 1, 0, 0
    while True:
        start = position
        while position < len(text) and text[position] in _BLANK:
            position += 1
        line += text.count("\n", start, position)
        if position >= len(text):
            return found
        if segments >= SEGMENTS_MAX or sets >= SETS_MAX:
            most = f"{SEGMENTS_MAX} segments or {SETS_MAX} transaction sets"
            fault = Fault(f"the file has more than {most}: send the rest in files of its own", f"line {line}")
            found.append(Interchange(sets=[TransactionSet("", "", fault=fault)], fault=fault))
            return found
        reader = _Reader(text, position, line, SEGMENTS_MAX - segments)
        found.append(reader.read())
        position, line, segments, sets = reader.position, reader.line, segments + reader.number, sets + len(found[-1].sets)


def canonical(one: TransactionSet) -> Iterator[list[str]]:
    """Segments as lists of elements without what two writers of the same content may do differently."""
    for s in one.segments:
        elements = [element.strip() for element in s.elements]
        if one.component:
            elements = [e.replace(one.component, "\x1f").rstrip("\x1f") if one.component in e else e for e in elements]
        while elements and not elements[-1]:
            elements.pop()
        yield elements


class _Reader:
    """Reads one interchange from a position; afterwards `position` and `line` are where the text goes on."""

    def __init__(self, text: str, position: int, line: int, most: int) -> None:
        self.text = text
        self.position = position
        self.line = line
        self.number = 0  # segments read
        self._most = most
        self._separator = self._terminator = self._component = ""
        self._found = Interchange()
        self._head = ""  # how a text begins that is no interchange
        self._st = NOWHERE
        self._group: Group | None = None  # the open one
        self._set: TransactionSet | None = None  # the open one

    def read(self) -> Interchange:
        """The interchange with its sets, each with its fault."""
        self._read()
        found = self._found
        for one in found.sets:
            one.blame(found.fault)
        if found.sets:
            return found
        if (fragment := FRAGMENT.match(self._head)) is not None:
            reason = "it stands outside an interchange (ISA to IEA), so its sender is not known: send the whole interchange"
            found.sets = [TransactionSet(fragment[3], "", fault=Fault(reason, found.fault.place if found.fault else ""))]
        else:
            fault = found.fault or Fault.at("the interchange holds no transaction set", found.isa)
            found.sets = [TransactionSet("", "", found.isa, fault=fault)]
        return found

    def _read(self) -> None:
        if not NEXT_ISA.match(self.text, self.position):
            return self._lost(f"expected an ISA segment, found {self.text[self.position : self.position + 20]!r}")
        if (told := separators(self.text, self.position)) is None:
            return self._lost("the ISA segment is broken: its 16 elements and its terminator cannot be told")
        self._separator, self._terminator, self._component = told
        for segment in self._segments():
            if self._take(segment):
                return None
        if self._set is not None or self._group is not None:
            self._end_group(None)
        return self._blame_all(Fault.at("the interchange has no IEA: the file is cut short", self._found.isa))

    def _lost(self, reason: str) -> None:
        """Nothing can be told here; the text goes on at the next interchange."""
        self._found.fault = Fault(reason, f"line {self.line}")
        self._head = self.text[self.position : self.position + ISA_CHARS_MAX]
        self.number = 1
        match = NEXT_ISA.search(self.text, self.position + 1)
        end = match.start() if match else len(self.text)
        self.line += self.text.count("\n", self.position, end)
        self.position = end

    def _segments(self) -> Iterator[Segment]:
        """Segments up to the end of the text or to the ISA of the next interchange. A fault in how one is written is blamed at once."""
        text, terminator, separator = self.text, self._terminator, self._separator
        wraps = terminator not in ("\n", "\r")
        line_ends = terminator.count("\n")
        control_ok = f"{separator}{self._component}"
        while self.position < len(text):
            end = text.find(terminator, self.position)
            raw = text[self.position : end] if end >= 0 else text[self.position :]
            stripped = raw.lstrip(_BLANK)
            at = self.line + raw.count("\n", 0, len(raw) - len(stripped))
            content = stripped.rstrip(_BLANK)
            if self.number and NEXT_ISA.match(content):
                return self._blame_all(Fault("the next interchange starts before IEA ended this one", f"line {at}"))
            self.line += raw.count("\n") + line_ends
            self.position = end + len(terminator) if end >= 0 else len(text)
            if not content:
                continue
            self.number += 1
            if wraps or "\t" in content:
                content = content.translate(_BREAKS)
            segment = Segment(tuple(content.split(separator)), self.number, at)
            if end < 0 and segment.tag != "IEA":
                return self._blame_all(Fault.at("the file ends amid a segment", segment))
            if self.number > self._most:
                self.position = len(text)
                return self._blame_all(Fault.at(f"the file has more than {SEGMENTS_MAX} segments: send it in parts", segment))
            if not _TAG.fullmatch(segment.tag):
                self._blame(Fault.at(f"{segment.tag[:12]!r} is no segment tag", segment, "1"))
            elif len(content) > ELEMENT_CHARS_MAX and (n := _first(segment, lambda element: len(element) > ELEMENT_CHARS_MAX)):
                self._blame(Fault.at(f"an element is longer than {ELEMENT_CHARS_MAX} characters", segment, "5", n))
            elif any(c not in control_ok for c in _CONTROL.findall(content)):
                n = _first(segment, lambda element: any(c not in control_ok for c in _CONTROL.findall(element)))
                self._blame(Fault.at("a control character stands in an element", segment, "6", n))
            yield segment
        return None

    def _take(self, s: Segment) -> bool:
        """Follows ISA/GS/ST … SE/GE/IEA and tells what does not fit; True after IEA."""
        match s.tag:
            case "ISA":
                self._start(s)
            case "GS":
                self._start_group(s)
            case "ST":
                self._start_set(s)
            case "SE":
                self._end_set(s)
            case "GE":
                self._end_group(s)
            case "IEA":
                self._end(s)
                return True
            case _ if self._set is not None:
                self._set.segments.append(s)
            case "TA1" if self._group is None:
                pass  # an acknowledgement of an interchange of ours
            case _:
                self._blame(Fault.at(f"the segment {s.tag[:12]!r} stands outside any transaction set", s))
        return False

    def _blame(self, fault: Fault) -> None:
        """The smallest thing that is open: the set, the group, the interchange."""
        if self._set is not None:
            self._set.blame(fault)
        elif self._group is not None:
            self._group.fault = self._group.fault or fault
        else:
            self._blame_all(fault)

    def _blame_all(self, fault: Fault) -> None:
        self._found.fault = self._found.fault or fault

    def _start(self, s: Segment) -> None:
        self._found.isa = s
        for n, name, most in ((5, "qualifier", 2), (6, "id", 15)):
            if len(s[n]) > most:
                self._blame_all(Fault.at(f"the sender's {name} (ISA{n:02}) has more than {most} characters", s))
        if not party_of(s, 5):
            self._blame_all(Fault.at("the sender's id (ISA06) is not there", s))

    def _start_group(self, s: Segment) -> None:
        if self._group is not None:
            self._end_group(None)
        elif self._set is not None:
            self._end_set(None)
        self._group = Group(s)
        self._found.groups.append(self._group)

    def _start_set(self, s: Segment) -> None:
        if self._set is not None:
            self._end_set(None)
        self._st = s
        self._set = TransactionSet(s[1], s[2], self._found.isa, self._group, s.number, self._component)
        if len(self._found.sets) > SETS_MAX:
            self.position = len(self.text)
            return self._blame_all(Fault.at(f"the interchange has more than {SETS_MAX} transaction sets: send it in parts", s))
        self._found.sets.append(self._set)
        if self._group is not None:
            self._group.sets.append(self._set)
        else:
            self._set.blame(Fault.at("the transaction set stands outside a functional group (GS)", s))
        if not re.fullmatch(r"[0-9]{3}", s[1]):
            self._set.blame(Fault.at(f"ST01 is {s[1][:20]!r}, which is no transaction set's code", s, "6"))
        if not 0 < len(s[2]) <= 9:
            self._set.blame(Fault.at("ST02 must be a control number of 1 to 9 characters", s, "7"))
        return None

    def _end_set(self, s: Segment | None) -> None:
        one, self._set = self._set, None
        if s is None:
            if one is not None:
                one.blame(Fault.at("the transaction set has no SE", self._st, "2"))
        elif one is None:
            self._blame(Fault.at("SE without ST", s))
        else:
            count = len(one.segments) + 2
            if _number(s[1]) != count:
                one.blame(Fault.at(f"SE01 says {s[1][:20]!r} segments, there are {count}", s, "4"))
            if s[2] != one.control:
                one.blame(Fault.at(f"SE02 is {s[2][:20]!r}, but ST02 is {one.control[:20]!r}", s, "3"))

    def _end_group(self, s: Segment | None) -> None:
        if self._set is not None:
            self._end_set(None)
        if self._group is None:
            if s is not None:
                self._blame_all(Fault.at("GE without GS", s))
            return
        gs, sets = self._group.gs, self._group.sets
        self._group.declared = _number(s[1]) if s is not None else None
        if s is None:
            self._blame(Fault.at("the functional group has no GE", gs, "3"))
        elif not _same(s[2], gs[6]):
            self._blame(Fault.at(f"GE02 is {s[2][:20]!r}, but GS06 is {gs[6][:20]!r}", s, "4"))
        elif _number(s[1]) != len(sets):
            self._blame(Fault.at(f"GE01 says {s[1][:20]!r} transaction sets, there are {len(sets)}", s, "5"))
        for one in sets:
            one.blame(self._group.fault)
        self._group = None

    def _end(self, s: Segment) -> None:
        if self._group is not None:
            self._end_group(None)
        elif self._set is not None:
            self._end_set(None)
        isa, groups = self._found.isa, self._found.groups
        if not _same(s[2], isa[13]):
            self._blame_all(Fault.at(f"IEA02 is {s[2][:20]!r}, but ISA13 is {isa[13][:20]!r}", s))
        elif _number(s[1]) != len(groups):
            self._blame_all(Fault.at(f"IEA01 says {s[1][:20]!r} functional groups, there are {len(groups)}", s))


def _first(s: Segment, wrong: Callable[[str], bool]) -> int:
    """The first element that is wrong; 0 where none is."""
    return next((n for n, element in enumerate(s.elements) if wrong(element)), 0)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _same(one: str, other: str) -> bool:
    """Whether two control numbers are equal; leading zeros are padding."""
    return bool(one) and bool(other) and one.lstrip("0") == other.lstrip("0")
