"""X12 interchanges: bytes to transaction sets with their envelopes checked. Pure, bounded, never raises.

Real files bring BOMs, unpadded ISA segments, any separator, line breaks inside or between segments, and several interchanges; all of that is sound.
A wrong count or control number, a missing trailer or a stray segment is a fault, and a fault holds the transaction sets it is about.
"""

import re
from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where."""

    reason: str
    place: str = ""


@dataclass(slots=True)
class TransactionSet:
    """ST to SE without the two. `code` is "" where none can be told; `fault` is the first thing wrong with it or with what encloses it."""

    code: str
    control: str
    sender: str  # ISA05:ISA06, "" where it is not known
    component: str = ""  # ISA16
    segments: list[Segment] = field(default_factory=list)
    fault: Fault | None = None

    def blame(self, fault: Fault | None) -> None:
        self.fault = self.fault or fault


def parse(body: bytes) -> Sequence[TransactionSet]:
    """All transaction sets of a file, in order. An interchange in which no set can be told gives one with code "" and its fault."""
    text = decode(body)
    found: list[TransactionSet] = []
    position, line, segments = 0, 1, 0
    while True:
        start = position
        while position < len(text) and text[position] in _BLANK:
            position += 1
        line += text.count("\n", start, position)
        if position >= len(text):
            return found
        if segments >= SEGMENTS_MAX or len(found) >= SETS_MAX:
            most = f"{SEGMENTS_MAX} segments or {SETS_MAX} transaction sets"
            found.append(
                TransactionSet("", "", "", fault=Fault(f"the file has more than {most}: send the rest in files of its own", f"line {line}"))
            )
            return found
        reader = _Reader(text, position, line, SEGMENTS_MAX - segments)
        found += reader.read()
        position, line, segments = reader.position, reader.line, segments + reader.number


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
        self._sets: list[TransactionSet] = []
        self._fault: Fault | None = None  # of the whole interchange
        self._head = ""  # how a text begins that is no interchange
        self._isa = self._gs = self._st = Segment(("",), 0, 0)
        self._in_group = False
        self._set: TransactionSet | None = None
        self._group_start = 0  # index of its first set
        self._group_fault: Fault | None = None
        self._groups = 0

    def read(self) -> list[TransactionSet]:
        """The sets of the interchange, each with its fault; at least one."""
        self._read()
        for one in self._sets:
            one.blame(self._fault)
        if self._sets:
            return self._sets
        if (fragment := FRAGMENT.match(self._head)) is not None:
            reason = "it stands outside an interchange (ISA to IEA), so its sender is not known: send the whole interchange"
            return [TransactionSet(fragment[3], "", "", fault=Fault(reason, self._fault.place if self._fault else ""))]
        fault = self._fault or Fault("the interchange holds no transaction set", self._isa.place)
        return [TransactionSet("", "", self._sender(), fault=fault)]

    def _read(self) -> None:
        if not NEXT_ISA.match(self.text, self.position):
            return self._lost(f"expected an ISA segment, found {self.text[self.position : self.position + 20]!r}")
        if (told := separators(self.text, self.position)) is None:
            return self._lost("the ISA segment is broken: its 16 elements and its terminator cannot be told")
        self._separator, self._terminator, self._component = told
        for segment in self._segments():
            if self._take(segment):
                return None
        if self._set is not None or self._in_group:
            self._end_group(None)
        return self._blame_all(Fault("the interchange has no IEA: the file is cut short", self._isa.place))

    def _lost(self, reason: str) -> None:
        """Nothing can be told here; the text goes on at the next interchange."""
        self._fault = Fault(reason, f"line {self.line}")
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
                return self._blame_all(Fault("the file ends amid a segment", segment.place))
            if self.number > self._most:
                self.position = len(text)
                return self._blame_all(Fault(f"the file has more than {SEGMENTS_MAX} segments: send it in parts", segment.place))
            if not _TAG.fullmatch(segment.tag):
                self._blame(Fault(f"{segment.tag[:12]!r} is no segment tag", segment.place))
            elif len(content) > ELEMENT_CHARS_MAX and any(len(element) > ELEMENT_CHARS_MAX for element in segment.elements):
                self._blame(Fault(f"an element is longer than {ELEMENT_CHARS_MAX} characters", segment.place))
            elif any(c not in control_ok for c in _CONTROL.findall(content)):
                self._blame(Fault("a control character stands in an element", segment.place))
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
            case "TA1" if not self._in_group:
                pass  # an acknowledgement of an interchange of ours
            case _:
                self._blame(Fault(f"the segment {s.tag[:12]!r} stands outside any transaction set", s.place))
        return False

    def _blame(self, fault: Fault) -> None:
        """The smallest thing that is open: the set, the group, the interchange."""
        if self._set is not None:
            self._set.blame(fault)
        elif self._in_group:
            self._group_fault = self._group_fault or fault
        else:
            self._blame_all(fault)

    def _blame_all(self, fault: Fault) -> None:
        self._fault = self._fault or fault

    def _sender(self) -> str:
        said = f"{self._isa[5]}:{self._isa[6]}"
        return said if self._isa[6] and len(said) <= 40 and said.isprintable() else ""

    def _start(self, s: Segment) -> None:
        self._isa = s
        for n, name, most in ((5, "qualifier", 2), (6, "id", 15)):
            if len(s[n]) > most:
                self._blame_all(Fault(f"the sender's {name} (ISA{n:02}) has more than {most} characters", s.place))
        if not self._sender():
            self._blame_all(Fault("the sender's id (ISA06) is not there", s.place))

    def _start_group(self, s: Segment) -> None:
        if self._in_group:
            self._end_group(None)
        elif self._set is not None:
            self._end_set(None)
        self._gs, self._in_group = s, True
        self._group_start, self._group_fault = len(self._sets), None
        self._groups += 1

    def _start_set(self, s: Segment) -> None:
        if self._set is not None:
            self._end_set(None)
        self._st = s
        self._set = TransactionSet(s[1], s[2], self._sender(), self._component)
        if len(self._sets) > SETS_MAX:
            self.position = len(self.text)
            return self._blame_all(Fault(f"the interchange has more than {SETS_MAX} transaction sets: send it in parts", s.place))
        self._sets.append(self._set)
        if not self._in_group:
            self._set.blame(Fault("the transaction set stands outside a functional group (GS)", s.place))
        if not re.fullmatch(r"[0-9]{3}", s[1]):
            self._set.blame(Fault(f"ST01 is {s[1][:20]!r}, which is no transaction set's code", s.place))
        if not 0 < len(s[2]) <= 9:
            self._set.blame(Fault("ST02 must be a control number of 1 to 9 characters", s.place))
        return None

    def _end_set(self, s: Segment | None) -> None:
        one, self._set = self._set, None
        if s is None:
            if one is not None:
                one.blame(Fault("the transaction set has no SE", self._st.place))
        elif one is None:
            self._blame(Fault("SE without ST", s.place))
        else:
            count = len(one.segments) + 2
            if _number(s[1]) != count:
                one.blame(Fault(f"SE01 says {s[1][:20]!r} segments, there are {count}", s.place))
            if s[2] != one.control:
                one.blame(Fault(f"SE02 is {s[2][:20]!r}, but ST02 is {one.control[:20]!r}", s.place))

    def _end_group(self, s: Segment | None) -> None:
        if self._set is not None:
            self._end_set(None)
        sets = self._sets[self._group_start :]
        if s is None:
            self._blame(Fault("the functional group has no GE", self._gs.place))
        elif not self._in_group:
            return self._blame_all(Fault("GE without GS", s.place))
        elif not _same(s[2], self._gs[6]):
            self._blame(Fault(f"GE02 is {s[2][:20]!r}, but GS06 is {self._gs[6][:20]!r}", s.place))
        elif _number(s[1]) != len(sets):
            self._blame(Fault(f"GE01 says {s[1][:20]!r} transaction sets, there are {len(sets)}", s.place))
        for one in sets:
            one.blame(self._group_fault)
        self._in_group = False
        return None

    def _end(self, s: Segment) -> None:
        if self._in_group:
            self._end_group(None)
        elif self._set is not None:
            self._end_set(None)
        if not _same(s[2], self._isa[13]):
            self._blame_all(Fault(f"IEA02 is {s[2][:20]!r}, but ISA13 is {self._isa[13][:20]!r}", s.place))
        elif _number(s[1]) != self._groups:
            self._blame_all(Fault(f"IEA01 says {s[1][:20]!r} functional groups, there are {self._groups}", s.place))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _same(one: str, other: str) -> bool:
    """Whether two control numbers are equal; leading zeros are padding."""
    return bool(one) and bool(other) and one.lstrip("0") == other.lstrip("0")
