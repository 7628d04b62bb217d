"""Purchase orders (850) and their acknowledgements (855): segments to a header and lines, checked. Pure; what cannot be read says where.

Both have one shape: BEG or BAK, the header, a loop PO1 for each line, CTT. Dates and references count for the header or the line they stand
in directly, not for loops within (a party, a schedule, a subline), which may say others. The totals of CTT are not believed: real senders always
write 1, and SE01 tells a document that lost something.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from adapters.formats.x12 import Broken, Segment, TransactionSet
from adapters.formats.x12_dates import check_time
from adapters.formats.x12_names import pairs
from adapters.formats.x12_values import local_time

LINES_MAX = 10_000  # of one document, as many as a fact's list may have
BYTES_MAX = 16_000_000  # what is kept of one document, about: ten thousand lines with all that is usual of each
_SEGMENT_BYTES, _ELEMENT_BYTES = 100, 30  # of a segment and of each element in it, besides the characters

_LOOPS = frozenset({"N9", "N1", "SPI", "LM", "AMT", "ADV", "SCH", "QTY", "PKG", "LDT", "SLN", "ACK"})  # each begins one

# Data element 353 in words, for what is refused: a purpose that is not that of an original is no order, and no acknowledgement, by itself.
PURPOSES = {
    "00": "original", "01": "cancellation", "02": "add", "03": "delete", "04": "change", "05": "replace", "06": "confirmation", "07": "duplicate",
    "15": "re-submission", "16": "proposed", "17": "cancel, to be reissued", "18": "reissue", "19": "seller initiated change",
    "22": "information copy", "24": "draft", "25": "incremental",
}  # fmt: skip

# Data element 92: what is ordered by itself, and what is not.
ORDERS = frozenset({"NE", "SA", "RE", "RO", "OS", "DS", "NP", "NS", "PR", "SS", "WO", "UE", "CF", "AC", "AO", "US", "RN", "SP", "FH", "JL"})
NO_ORDERS = {
    "AB": "assortment against a blanket order", "BE": "blanket order, estimated quantities", "BK": "blanket order", "BL": "bailment", "BD": "bidding",
    "BQ": "budgetary quote", "CA": "contract award", "CP": "change to a purchase order", "CR": "change to a release", "IN": "information copy",
    "KO": "close out", "LB": "blanket lease", "LS": "lease", "RA": "release against an assortment", "RL": "release or delivery order",
    "RR": "repair and return", "RT": "rental", "SO": "shipped order", "ST": "standing order", "SW": "stop work", "TC": "toll conversion order",
    "TM": "time and materials", "TR": "termination", "BY": "buying", "ZZ": "mutually defined",
}  # fmt: skip

# Data element 587 (BAK02) and 668 (ACK01) as what the supplier says of the order, or of the line.
ACKNOWLEDGED = {
    "AC": "changed", "AD": "accepted", "AE": "changed", "AH": "held", "AK": "accepted", "AT": "accepted", "RD": "rejected", "RF": "rejected",
    "RJ": "rejected", "RN": "rejected", "RO": "rejected", "RV": "rejected",
}  # fmt: skip
ANSWERED = {
    "AA": "accepted", "AC": "accepted", "AR": "accepted", "BP": "backordered", "DR": "changed", "IA": "accepted", "IB": "backordered", "IC": "changed",
    "ID": "rejected", "IE": "accepted", "IF": "held", "IH": "held", "IP": "changed", "IQ": "changed", "IR": "rejected", "IS": "changed", "IW": "held",
    **{f"R{n}": "rejected" for n in range(1, 9)}, "SP": "accepted",
}  # fmt: skip

REQUESTED = ("002", "106")  # data element 374: delivery requested, required by
DELIVERED = ("067", "069", "017", "002")  # current schedule, promised, estimated, (as) requested
SHIPPED = ("068", "079", "011", "010")  # current schedule, promised, shipped, (as) requested


@dataclass(slots=True)
class Line:
    """One PO1 loop: its own segments, the schedules (SCH) in it, and each ACK with the dates that follow it."""

    po1: Segment
    number: str  # PO101, else its place in the document
    own: list[Segment] = field(default_factory=list)
    schedules: list[Segment] = field(default_factory=list)
    answers: list[tuple[Segment, list[Segment]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Document:
    """An order or an acknowledgement. `head` are the header's own segments without the first; `parties` its N1."""

    first: Segment
    head: Sequence[Segment]
    parties: Sequence[Segment]
    lines: Sequence[Line]


def read(one: TransactionSet, first: str) -> Document:
    """The document of a sound transaction set that begins with `first`, BEG or BAK. Raises `Broken`."""
    what = f"an {one.code}"
    if not one.segments:
        raise Broken(f"the transaction set is empty: {what} begins with {first}", None)
    begin, head, parties, lines = one.segments[0], list[Segment](), list[Segment](), list[Line]()
    if begin.tag != first:
        raise Broken(f"{what} begins with {first}, not with {begin.tag[:12]}", begin, "2")
    into: list[Segment] | None = head
    ended: Segment | None = None
    size = 0
    for s in one.segments[1:]:
        size += _SEGMENT_BYTES + _ELEMENT_BYTES * len(s.elements) + sum(map(len, s.elements))
        if size > BYTES_MAX:
            raise Broken("the document says too much for one: send it in several", s, "4", remedy="")
        if s.tag == first:
            raise Broken(f"{first} stands twice in one transaction set", s, "5")
        if ended is not None and s.tag not in ("AMT", "CTT"):
            raise Broken(f"a segment follows CTT, which ends {what}", s, "7")
        check_time(s)
        if s.tag == "CTT":
            if ended is not None:
                raise Broken("CTT stands twice in one transaction set", s, "5")
            ended = s
        elif s.tag == "PO1":
            if len(lines) >= LINES_MAX:
                raise Broken(f"the document has more than {LINES_MAX} lines: send it in several", s, "4", remedy="")
            lines.append(Line(s, s[1] or str(len(lines) + 1)))
            into = lines[-1].own
        elif s.tag == "ACK" and lines:
            dates: list[Segment] = []
            lines[-1].answers.append((s, dates))
            into = dates
        else:
            if s.tag in _LOOPS:
                into = None
                if s.tag == "SCH" and lines:
                    lines[-1].schedules.append(s)
            if s.tag == "N1" and not lines:
                parties.append(s)
            if into is not None:
                into.append(s)
    _check_numbers(lines)
    return Document(begin, head, parties, lines)


def _check_numbers(lines: Sequence[Line]) -> None:
    known: dict[str, Line] = {}
    for line in lines:
        if (before := known.setdefault(line.number, line)) is not line:
            raise Broken(f"the line {line.number[:20]} stands twice: the first is {before.po1.place}", line.po1, "7", 1)


def date_of(s: Segment, n: int) -> datetime:
    """The date in element n, local. Raises `Broken`."""
    try:
        return local_time(s[n], "")
    except ValueError as error:
        raise Broken(f"{s.tag}{n:02}: {error}", s, "8" if s[n] else "1", n) from None


def number_of(s: Segment, n: int, most: int, what: str) -> str:
    """The number that names a document, in element n, 1 to `most` characters. Raises `Broken`."""
    if not 0 < len(s[n]) <= most:
        raise Broken(f"{s.tag}{n:02} must be {what}, 1 to {most} characters", s, "5" if s[n] else "1", n)
    return s[n]


def numbers(po1: Segment) -> dict[str, str]:
    """The item numbers of a line, PO106 to PO125. Raises `Broken` for a qualifier without its number: the one that is missing may name the item."""
    for n in range(6, min(len(po1.elements), 26), 2):
        if po1[n] and not po1[n + 1]:
            raise Broken(f"PO1{n:02} is {po1[n][:20]}, but PO1{n + 1:02} is empty", po1, "2", n + 1)
        if po1[n + 1] and not po1[n]:
            raise Broken(f"PO1{n + 1:02} is a number without its qualifier (PO1{n:02})", po1, "2", n)
    return pairs(po1, 6, 25)
