"""The 856 ship notice: segments of a transaction set to a header and its hierarchical levels, checked. Pure; what cannot be read says where.

Every structure is one tree: levels have a parent and stand below the shipment. What lies in which pack, lot or serial is worked out by
`x12_items`; here is only what the hierarchy says.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from adapters.formats.x12 import Broken, Segment, TransactionSet
from adapters.formats.x12_dates import check_time
from adapters.formats.x12_names import LOT_REFERENCES
from adapters.formats.x12_values import local_time

LEVELS_DEEP_MAX = 32
_NUMBER_TYPES = frozenset({"UC", "UP", "UK", "EN", "S", "L"})  # marks that name a kind of pack or the whole, not one pack (element 88)
_DEPTH = {"S": 0, "O": 1, "T": 2, "P": 3, "I": 4}
_ITEM_FIRST = {"S": 0, "O": 1, "I": 2, "T": 3, "P": 4}  # BSN05 0002: packs stand below their item
_PURPOSE = re.compile(r"[0-9A-Z]{2}")


@dataclass(slots=True)
class Level:
    """One HL loop: its segments without the HL itself, its place in the tree, and the handling units marked on it (MAN)."""

    hl: Segment
    parent: "Level | None"
    depth: int = 1
    segments: list[Segment] = field(default_factory=list)
    children: list["Level"] = field(default_factory=list)
    _by_tag: dict[str, list[Segment]] = field(default_factory=dict)
    unit: str | None = None  # the handling unit it is, once `x12_items` has worked it out
    _marks: list[str] | None = None
    _lots: list[str] | None = None
    _orders: list[Segment] | None = None

    @property
    def number(self) -> str:
        return self.hl[1]

    @property
    def path(self) -> str:
        return f"HL{self.hl[1]}"

    @property
    def code(self) -> str:
        return self.hl[3]

    def add(self, s: Segment) -> None:
        self.segments.append(s)
        self._by_tag.setdefault(s.tag, []).append(s)

    def all(self, tag: str) -> list[Segment]:
        return self._by_tag.get(tag, [])

    def above(self) -> "Iterator[Level]":
        """Its parents, the nearest first."""
        level = self.parent
        while level is not None:
            yield level
            level = level.parent

    def marks(self) -> list[str]:
        """Ids of handling units on this level, as written, in order. Raises `Broken` for a mark without its number."""
        if self._marks is not None:
            return self._marks
        found: dict[str, None] = {}
        for s in self.all("MAN"):
            if s[1] and not s[2]:
                raise Broken("MAN02 is empty: the mark has no number", s, "1", 2)
            for qualifier, first, last in ((s[1], s[2], s[3]), (s[4], s[5], s[6])):
                if qualifier not in _NUMBER_TYPES:
                    found.update(dict.fromkeys(mark for mark in (first, last) if mark))
        self._marks = list(found)
        return self._marks

    def lots(self) -> list[str]:
        """The lots that references of this level name, each once."""
        if self._lots is None:
            self._lots = list(dict.fromkeys(s[2] for s in self.all("REF") if s[1] in LOT_REFERENCES and s[2]))
        return self._lots

    def order(self) -> Segment | None:
        """The first reference to a purchase order (PRF) on this level."""
        if self._orders is None:
            self._orders = [p for p in self.all("PRF") if p[1]]
        return self._orders[0] if self._orders else None


@dataclass(frozen=True, slots=True)
class Notice:
    """A ship notice. `head` are the segments before the first HL, without BSN and CTT."""

    bsn: Segment
    at: datetime  # BSN03 and BSN04, local
    head: Sequence[Segment]
    levels: Sequence[Level]

    @property
    def number(self) -> str:
        return self.bsn[2]


def read(one: TransactionSet) -> Notice:
    """The notice of a sound transaction set. Raises `Broken`."""
    if not one.segments:
        raise Broken("the transaction set is empty: an 856 begins with BSN", None)
    bsn, at = _bsn(one.segments[0])
    head: list[Segment] = []
    levels: list[Level] = []
    known: dict[str, Level] = {}
    depth = _ITEM_FIRST if bsn[5] == "0002" else _DEPTH
    ended: Segment | None = None
    for s in one.segments[1:]:
        if ended is not None and s.tag != "CTT":
            raise Broken("a segment follows CTT, which ends an 856", s, "7")
        if s.tag == "HL":
            level = _level(s, known, levels[-1] if levels else None, depth)
            if level.parent is not None:
                level.parent.children.append(level)
            levels.append(level)
        elif s.tag == "BSN":
            raise Broken("BSN stands twice in one transaction set", s, "5")
        elif s.tag == "CTT":
            ended = s
        else:
            check_time(s)
            (levels[-1].add if levels else head.append)(s)
    if not levels:
        raise Broken("the ship notice has no hierarchical level (HL)", bsn, "3")
    return Notice(bsn, at, head, levels)


def _bsn(s: Segment) -> tuple[Segment, datetime]:
    if s.tag != "BSN":
        raise Broken(f"an 856 begins with BSN, not with {s.tag[:12]}", s, "2")
    if not _PURPOSE.fullmatch(s[1]):
        raise Broken("BSN01 must be the purpose, a code of two characters", s, "7" if s[1] else "1", 1)
    if not 0 < len(s[2]) <= 30:
        raise Broken(
            "BSN02 must be the number of the notice, 1 to 30 characters: without it nothing tells this notice from another",
            s,
            "5" if s[2] else "1",
            2,
        )
    try:
        return s, local_time(s[3], s[4])
    except ValueError as error:
        raise Broken(f"BSN03 and BSN04: {error}", s, "8", 3) from None


def _level(s: Segment, known: dict[str, Level], last: Level | None, depth: dict[str, int]) -> Level:
    """The next level with its parent. An HL02 that is left out means the nearest level above, which some partners leave to the reader."""
    number = _key(s[1])
    if not 0 < len(s[1]) <= 12 or not (s[1].isascii() and s[1].isalnum()):
        raise Broken("HL01 must be the number of the level, 1 to 12 letters or digits", s, "6" if s[1] else "1", 1)
    if number in known:
        raise Broken(f"HL01 {s[1]} stands twice: the first is {known[number].hl.place}", s, "7", 1)
    if not 0 < len(s[3]) <= 2:
        raise Broken("HL03 must be the code of the level, such as S, O, P or I", s, "7" if s[3] else "1", 3)
    if last is None and s[3] != "S":
        raise Broken(f"the first level is {s[3]}, not the shipment (S)", s, "7", 3)
    parent = None
    if s[2]:
        parent = known.get(_key(s[2]))
        if parent is None:
            raise Broken(f"the parent HL {s[2][:20]} of HL {s[1]} does not exist before it", s, "7", 2)
    elif s[3] != "S":
        parent = last
        while parent is not None and parent.parent is not None and depth.get(parent.code, 4) >= depth.get(s[3], 4):
            parent = parent.parent
    if parent is not None:
        if s[3] == "S":
            raise Broken(f"the shipment level HL {s[1]} stands below HL {parent.number}", s, "7", 2)
        if s[3] == "O" and parent.code == "I":
            raise Broken(f"the order level HL {s[1]} stands below the item HL {parent.number}", s, "7", 2)
        if parent.depth >= LEVELS_DEEP_MAX:
            raise Broken(f"HL {s[1]} is nested deeper than {LEVELS_DEEP_MAX} levels", s, "4")
    known[number] = Level(s, parent, depth=parent.depth + 1 if parent else 1)
    return known[number]


def _key(number: str) -> str:
    return number.lstrip("0") or number
