"""The 997 functional acknowledgement: segments to what a partner's system says of one functional group. Pure; what cannot be read says where."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.formats.x12 import Broken, Segment, TransactionSet

# Data elements 715 (AK901) and 717 (AK501). M, W and X are rejections too, for reasons of security.
STATUS = {
    "A": "accepted", "E": "accepted_with_errors", "P": "partially_accepted", "R": "rejected", "M": "rejected", "W": "rejected", "X": "rejected",
}  # fmt: skip
BYTES_MAX = 16_000_000  # what is kept of one group in memory, about: ten thousand sets of which most were accepted
_SEGMENT_BYTES = 400


@dataclass(slots=True)
class _Reader:
    one: TransactionSet
    sets: list[dict[str, Any]] = field(default_factory=list)
    open: dict[str, Any] | None = None  # the set of which AK5 has not come

    def take(self, s: Segment) -> None:
        """A segment between AK1 and AK9."""
        match s.tag:
            case "AK2" if self.open is None:
                self.open = {
                    "set": _needed(s, 1, "the code of a transaction set"),
                    "control": _needed(s, 2, "its control number"),
                    "segments": [],
                }
            case "AK3" if self.open is not None:
                self.open["segments"].append(_segment(s))
            case "AK4" if self.open is not None and self.open["segments"]:
                self.open["segments"][-1]["elements"].append(self.element(s))
            case "AK5" if self.open is not None:
                code = s[1]
                if code not in STATUS or code == "P":
                    raise Broken(f"AK501 is {code[:20]!r}, which says neither accepted nor rejected", s, "7" if code else "1", 1)
                self.sets.append(self.open | {"status": STATUS[code], "code": code, "errors": _codes(s, 2)})
                self.open = None
            case _:
                raise Broken(f"the segment {s.tag[:12]!r} stands where a 997 has none", s, "2")

    def element(self, s: Segment) -> dict[str, Any]:
        """An AK4. AK401 may be position, component, repetition."""
        parts = s[1].split(self.one.component) if self.one.component else [s[1]]
        numbers = [_count(s, 1, part) for part in parts[:2] if part] or [_count(s, 1, "")]
        found: dict[str, Any] = {"position": numbers[0], "code": _needed(s, 3, "what is wrong with the element"), "value": s[4] or None}
        if len(numbers) > 1:
            found["component"] = numbers[1]
        if s[2]:
            found["element"] = s[2]
        return found


def read(one: TransactionSet) -> dict[str, Any]:
    """The data of the acknowledgement, without its partner. Raises `Broken`."""
    if not one.segments:
        raise Broken("the transaction set is empty: a 997 begins with AK1", None)
    ak1, ak9 = one.segments[0], one.segments[-1]
    if ak1.tag != "AK1":
        raise Broken(f"a 997 begins with AK1, not with {ak1.tag[:12]}", ak1, "2")
    if ak9.tag != "AK9":
        raise Broken(f"a 997 ends with AK9, not with {ak9.tag[:12]}", ak9, "3")
    reader, size = _Reader(one), 0
    for s in one.segments[1:-1]:
        size += _SEGMENT_BYTES + sum(map(len, s.elements))
        if size > BYTES_MAX:
            why = "the acknowledgement names more sets and errors than one fact can hold: look into the delivery that is kept"
            raise Broken(why, s, "4", remedy="")
        reader.take(s)
    if reader.open is not None:
        raise Broken("AK5 is missing for the last AK2", ak9, "3")
    control = _needed(ak1, 2, "the control number of our functional group")
    code = ak9[1]
    if code not in STATUS:
        raise Broken(f"AK901 is {code[:20]!r}, which says neither accepted nor rejected", ak9, "7" if code else "1", 1)
    return {
        "functional_id": _needed(ak1, 1, "the kind of our functional group"),
        "control": control.lstrip("0") or control,  # a number: leading zeros are padding
        "status": STATUS[code],
        "code": code,
        "errors": _codes(ak9, 5),
        **{name: _count(ak9, n, ak9[n]) for n, name in ((2, "included"), (3, "received"), (4, "accepted"))},
        "sets": reader.sets,
    }


def _segment(s: Segment) -> dict[str, Any]:
    """An AK3."""
    found: dict[str, Any] = {
        "segment": _needed(s, 1, "the segment that is meant"),
        "position": _count(s, 2, s[2]),
        "codes": _codes(s, 4),
        "elements": [],
    }
    return found | {"loop": s[3]} if s[3] else found


def _needed(s: Segment, n: int, what: str) -> str:
    if not s[n]:
        raise Broken(f"{s.tag}{n:02} is empty: it must say {what}", s, "1", n)
    return s[n]


def _count(s: Segment, n: int, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise Broken(f"{s.tag}{n:02} is {text[:20]!r}, which is no number", s, "6" if text else "1", n)
    return int(text)


def _codes(s: Segment, first: int) -> Sequence[str]:
    return [s[n] for n in range(first, len(s.elements)) if s[n]]
