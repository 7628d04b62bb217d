"""Numbers and names in orders and ship notices: which of several item numbers names the item, handling units, and what is kept as it is."""

from collections.abc import Sequence

from adapters.formats.x12 import Segment
from events.vocabulary import gtin14, sscc18

_GTIN = ("UK", "UP", "EN", "UI", "UA", "UD", "UE", "UN", "U2", "EO")
_BUYER = ("BP", "IN", "PI", "CB", "SK", "IT")
_VENDOR = ("VP", "VN", "VA", "VC", "VS", "MG", "MF", "MN", "PN")
# Qualifiers (element 235) that say something of the item but do not name it: lots, serials, orders, changes, colours, sizes, countries.
_NOT_A_NAME = frozenset({"LT", "B8", "SN", "PO", "PL", "EC", "DR", "DV", "RC", "CH", "CL", "SZ", "BO", "IZ", "HD", "RN", "CN", "XX"})
LOT_REFERENCES = frozenset({"LT", "BT", "LS"})  # element 128: lot, batch, bar-coded label
_TEXT_MAX = 4000


def handling_unit(mark: str) -> str:
    """A mark as SSCC-18 where its check digit is right, else as written."""
    return sscc18(mark.replace("(00)", "00", 1).replace(" ", "")) or mark


def pairs(s: Segment, first: int, last: int = 1_000_000) -> dict[str, str]:
    """Qualifier and value of each pair in the elements `first` to `last`; a qualifier that comes again gets `#2`, `#3`, …"""
    found: dict[str, str] = {}
    times: dict[str, int] = {}
    for n in range(first, min(len(s.elements) - 1, last), 2):
        qualifier, value = s[n], s[n + 1]
        if qualifier and value:
            times[qualifier] = times.get(qualifier, 0) + 1
            found[qualifier if times[qualifier] == 1 else f"{qualifier}#{times[qualifier]}"] = value
    return found


def of(numbers: dict[str, str], *qualifiers: str) -> list[str]:
    if not any(qualifier in numbers for qualifier in qualifiers):
        return []
    return [value for qualifier, value in numbers.items() if qualifier.partition("#")[0] in qualifiers]


def name_of(numbers: dict[str, str]) -> str:
    """The item: its GTIN-14, else the buyer's number, the vendor's, any."""
    for qualifier in _GTIN:
        for value in of(numbers, qualifier):
            if found := gtin14(value):
                return found
    for qualifier in (*_BUYER, *_VENDOR):
        if qualifier in numbers:
            return numbers[qualifier]
    return next((value for qualifier, value in numbers.items() if qualifier.partition("#")[0] not in _NOT_A_NAME), "")


def references(segments: Sequence[Segment]) -> dict[str, str]:
    """What else the item says: references by qualifier, dates by theirs, descriptions."""
    found: dict[str, list[str]] = {}
    for s in segments:
        if s.tag == "REF" and s[1] and s[1] not in LOT_REFERENCES and s[1] != "SE" and (s[2] or s[3]):
            found.setdefault(s[1], []).append(s[2] or s[3])
        elif s.tag == "DTM" and s[1] and s[2]:
            found.setdefault(f"DTM {s[1]}", []).append(f"{s[2]} {s[3]} {s[4]}".strip())
        elif s.tag == "PID" and s[5]:
            found.setdefault("description", []).append(s[5])
    return joined(found)


def joined(found: dict[str, list[str]]) -> dict[str, str]:
    """Several values of a name as one text, cut where the vocabulary's texts end; the delivery has the rest."""
    return {name: text if len(text := ", ".join(values)) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…" for name, values in found.items()}
