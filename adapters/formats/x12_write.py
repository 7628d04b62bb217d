"""X12 out: transaction sets into an interchange, with every element checked before a byte is written. Pure: no clock, no random, no counter.

Control numbers and times are the caller's, counts are made here. What the standard or the reader at the other end would not take is `Refused` with
the name of its element: an element too long or too short, a character that is not of the agreed set, or a delimiter inside of data, for which X12
has no escape.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from events.errors import Refused

CONTROL_MAX = 999_999_999

_BASIC = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !\"&'()*+,-./:;?=")
# Without the letters of other languages: not every reader has them.
_EXTENDED = _BASIC | frozenset("abcdefghijklmnopqrstuvwxyz%~@[]_{}\\|<>#$")

# Type, shortest and longest of each element of the segments that are written (releases 004010 and later); `!`: mandatory. A decimal's length
# counts its digits. The last element of PO1 and ACK stands for all pairs.
_NUMBERS = " ".join(["ID2/2 AN1/48"] * 10)
_SEGMENTS = {
    "ST": "ID3/3! AN4/9!",
    "SE": "N0 1/10! AN4/9!",
    "GS": "ID2/2! AN1/15! AN1/15! DT8/8! TM4/8! N0 1/9! ID1/2! AN1/12!",  # codes of one character are in use, though the standard has two
    "GE": "N0 1/6! N0 1/9!",
    "IEA": "N0 1/5! N0 9/9!",
    "BEG": "ID2/2! ID2/2! AN1/22! AN1/30 DT8/8! AN1/30",
    "BAK": "ID2/2! ID2/2! AN1/22! DT8/8! AN1/30 AN1/45 AN1/30 AN1/30 DT8/8",
    "DTM": "ID3/3! DT8/8 TM4/8 ID2/2",
    "PO1": f"AN1/20 R1/15 ID2/2 R1/17 ID2/2 {_NUMBERS}",
    "ACK": f"ID2/2! R1/15 ID2/2 ID3/3 DT8/8 AN1/45 {_NUMBERS}",
    "CTT": "N0 1/6! R1/10",
    "AK1": "ID2/2! N0 1/9!",
    "AK2": "ID3/3! AN1/9!",  # an echo: control numbers that are too short are received too
    "AK3": "ID2/3! N0 1/6! AN1/6 ID1/3 ID1/3 ID1/3 ID1/3 ID1/3",
    "AK4": "N0 1/2! N0 1/4 ID1/3! AN1/99",
    "AK5": "ID1/1! ID1/3 ID1/3 ID1/3 ID1/3 ID1/3",
    "AK9": "ID1/1! N0 1/6! N0 1/6! N0 1/6! ID1/3 ID1/3 ID1/3 ID1/3 ID1/3",
}
_ELEMENT = re.compile(r"(ID|AN|DT|TM|R|N0) ?(\d+)/(\d+)(!?)")
_SPECS = {tag: [(m[1], int(m[2]), int(m[3]), bool(m[4])) for m in _ELEMENT.finditer(text)] for tag, text in _SEGMENTS.items()}
_FORMS = {
    "R": re.compile(r"-?(?:\d+\.?\d*|\.\d+)", re.ASCII),
    "N0": re.compile(r"\d+", re.ASCII),
    "DT": re.compile(r"\d{8}", re.ASCII),
    "TM": re.compile(r"\d{4}(?:\d\d(?:\d\d)?)?", re.ASCII),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The delimiters, and whether elements may have the extended character set."""

    element: str = "*"
    segment: str = "~"
    component: str = ">"
    repetition: str = "U"  # ISA11 up to 004010 says who controls the standard; from 004020 on it is one more delimiter
    extended: bool = True

    def check(self) -> None:
        """Raises `Refused` for delimiters that a reader could not tell from data or from one another."""
        delimiters = self.delimiters()
        for mark, what in delimiters.items():
            printable = len(mark) == 1 and mark.isascii() and mark.isprintable() and not mark.isalnum() and mark != " "
            if not (printable or (mark == "\n" and mark == self.segment)):
                raise Refused(f"{mark!r} cannot be the {what}: it must be one printable ASCII character, no letter, digit or blank")
        if len(delimiters) < (3 if self.repetition == "U" else 4):
            raise Refused("two delimiters are the same character: give the element, segment, component and repetition marks different ones")

    def delimiters(self) -> dict[str, str]:
        """Each delimiter with its name."""
        found = {self.element: "element separator", self.segment: "segment terminator", self.component: "component separator"}
        return found if self.repetition == "U" else found | {self.repetition: "repetition separator"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Who sends to whom, with which numbers and when. Sender and receiver are `ZZ:ACME`: qualifier and id of ISA05 to ISA08.

    `at` is written as it stands, without an offset: give the local time that the partner expects. The codes of the group (GS02, GS03) are the ids
    where they are not given.
    """

    sender: str
    receiver: str
    control: int  # ISA13
    at: datetime
    release: str = "004010"  # GS08; ISA12 is made of it
    test: bool = False  # ISA15
    group_sender: str = ""
    group_receiver: str = ""
    marks: Marks = Marks()


@dataclass(frozen=True, slots=True)
class OutSet:
    """A transaction set: its code, control number (ST02), and the segments between ST and SE as lists of elements, the tag first."""

    code: str
    control: int
    segments: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class OutGroup:
    """A functional group: its kind (GS01, such as PO), control number (GS06), and sets."""

    functional_id: str
    control: int
    sets: Sequence[OutSet]


def write(envelope: Envelope, groups: Sequence[OutGroup]) -> bytes:
    """The bytes of one interchange. Raises `Refused`."""
    marks = envelope.marks
    marks.check()
    if not groups or not all(group.sets for group in groups):
        raise Refused("an interchange needs a group, and a group a transaction set: there is nothing to send")
    _distinct([group.control for group in groups], "group control number (GS06)")
    out = [_isa(envelope)]
    date, time = f"{envelope.at:%Y%m%d}", f"{envelope.at:%H%M}"
    sender, receiver = (name.partition(":")[2] for name in (envelope.sender, envelope.receiver))
    for group in groups:
        number = str(_control(group.control, "group control number (GS06)"))
        codes = [envelope.group_sender or sender, envelope.group_receiver or receiver]
        out.append(_segment(["GS", group.functional_id, *codes, date, time, number, "X", envelope.release], marks, "the group"))
        _distinct([one.control for one in group.sets], "transaction set control number (ST02)")
        for one in group.sets:
            control = f"{_control(one.control, 'transaction set control number (ST02)'):04}"
            where = f"the {one.code} {control}"
            out.append(_segment(["ST", one.code, control], marks, where))
            out += [_segment(elements, marks, f"{where}, segment {n}") for n, elements in enumerate(one.segments, 2)]
            out.append(_segment(["SE", str(len(one.segments) + 2), control], marks, where))
        out.append(_segment(["GE", str(len(group.sets)), number], marks, "the group"))
    out.append(_segment(["IEA", str(len(groups)), f"{envelope.control:09}"], marks, "the interchange"))
    return "".join(segment + marks.segment for segment in out).encode("ascii")


def fits(text: str, marks: Marks) -> bool:
    """Whether a text may stand in an element: not empty, no blank at its ends, only characters of the agreed set, no delimiter."""
    agreed = _EXTENDED if marks.extended else _BASIC
    return bool(text) and text == text.strip() and all(c in agreed for c in text) and not any(c in text for c in marks.delimiters())


def _isa(e: Envelope) -> str:
    """ISA has fixed widths: a reader finds the delimiters by counting."""
    parts = []
    for name, what in ((e.sender, "sender"), (e.receiver, "receiver")):
        qualifier, colon, number = name.partition(":")
        if not colon or len(qualifier) != 2 or not 0 < len(number) <= 15:
            raise Refused(f"the {what} {name!r} is not written as QUALIFIER:ID, such as ZZ:ACME, with 2 and at most 15 characters")
        for text in (qualifier, number):
            _characters(text, e.marks, f"the {what} {name!r}")
        parts += [qualifier, f"{number:15}"]
    if not re.fullmatch(r"00[3-9]\d{3}[A-Z0-9 ]{0,6}", e.release, re.ASCII):
        raise Refused(f"the release {e.release!r} (GS08) is none: write it as 004010")
    repeats = e.release >= "004020"
    if repeats != (e.marks.repetition != "U"):
        need = "a repetition separator in ISA11" if repeats else "U in ISA11 and no repetition separator"
        raise Refused(f"release {e.release} has {need}: give the marks that belong to it")
    control = f"{_control(e.control, 'interchange control number (ISA13)'):09}"
    first = ["ISA", "00", " " * 10, "00", " " * 10, *parts, f"{e.at:%y%m%d}", f"{e.at:%H%M}"]
    return e.marks.element.join([*first, e.marks.repetition, e.release[:5], control, "0", "T" if e.test else "P", e.marks.component])


def _segment(elements: Sequence[str], marks: Marks, where: str) -> str:
    """One segment without its terminator, each element as its specification says."""
    tag = elements[0]
    spec = _SPECS.get(tag)
    if spec is None:
        raise Refused(f"{where}: the segment {tag!r} is not one that the hub writes ({', '.join(sorted(_SPECS))})")
    if len(elements) - 1 > len(spec):
        raise Refused(f"{where}: {tag} has {len(elements) - 1} elements, it may have {len(spec)}")
    for n, (kind, shortest, longest, needed) in enumerate(spec, 1):
        text = elements[n] if n < len(elements) else ""
        if text:
            _element(text, kind, shortest, longest, marks, f"{tag}{n:02} of {where}")
        elif needed:
            raise Refused(f"{tag}{n:02} of {where} is empty, but must be there")
    return marks.element.join(elements).rstrip(marks.element)


def _element(text: str, kind: str, shortest: int, longest: int, marks: Marks, where: str) -> None:
    _characters(text, marks, where)
    length = sum(c.isdigit() for c in text) if kind == "R" else len(text)
    if not shortest <= length <= longest:
        raise Refused(f"{where} is {text[:40]!r}, {length} characters: X12 takes {shortest} to {longest}")
    form = _FORMS.get(kind)
    if form is not None and not form.fullmatch(text):
        raise Refused(f"{where} is {text[:40]!r}, which is no {kind} (X12 data type)")


def _characters(text: str, marks: Marks, where: str) -> None:
    if fits(text, marks):
        return
    if text != text.strip():
        raise Refused(f"{where} is {text[:40]!r}: a blank at its beginning or end would be lost")
    for mark, what in marks.delimiters().items():
        if mark in text:
            raise Refused(f"{where} is {text[:40]!r} and holds {mark!r}, the {what}, for which X12 has no escape: agree on another one")
    agreed = _EXTENDED if marks.extended else _BASIC
    wrong = next(c for c in text if c not in agreed)
    name = "extended" if marks.extended else "basic"
    raise Refused(f"{where} is {text[:40]!r} and holds {wrong!r}, which is not in the {name} character set of X12")


def _control(number: int, what: str) -> int:
    if not 0 < number <= CONTROL_MAX:
        raise Refused(f"the {what} is {number}: it must be 1 to {CONTROL_MAX}")
    return number


def _distinct(numbers: Sequence[int], what: str) -> None:
    if len(set(numbers)) < len(numbers):
        raise Refused(f"a {what} stands twice in {list(numbers)[:10]}: each needs its own")
