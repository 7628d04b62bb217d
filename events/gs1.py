"""GS1 keys in all their spellings: URNs of the EPC Tag Data Standard, GS1 Digital Link URIs and scanned element strings give one key.

A key is its application identifiers with their values, check digits included: `01/04012345123456/21/12`. Anything else is no GS1 key (`parse`
gives None) and is kept as it was written. A URN whose digits do not add up to its key's length is no GS1 key either: it names something,
but nobody can say what.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from events.vocabulary import gs1_check_digit

_URN = re.compile(r"urn:epc:(id|idpat|class):([a-z]+):(.+)", re.IGNORECASE)
_LINK = re.compile(r"https?://[^/?#]+(/[^?#]*)", re.IGNORECASE)
# What a scanner reads off a label: a symbology identifier may come first; dates between key and lot are passed over.
_SCAN = re.compile(r"(?:\][A-Za-z]\d)?\(?01\)?(\d{14})(?:\(?1[1-7]\)?\d{6})*(?:\(?(10|21)\)?([^()]{1,20}))?")
_SCAN_UNIT = re.compile(r"(?:\][A-Za-z]\d)?\(?00\)?(\d{18})")

# Digital Link: the primary keys and the key qualifiers that may follow each (GS1 Digital Link URI Syntax, section 4.2).
_QUALIFIERS: Mapping[str, tuple[str, ...]] = {
    "00": (),
    "01": ("22", "10", "21", "235"),
    "253": (),
    "255": (),
    "401": (),
    "402": (),
    "414": ("254", "7040"),
    "417": ("7040",),
    "8003": (),
    "8004": ("7040",),
    "8006": ("22", "10", "21"),
    "8010": ("8011",),
    "8017": ("8019",),
    "8018": ("8019",),
}


_PARTS_MAX = 2 + 2 * max(map(len, _QUALIFIERS.values()))  # of a path: a key with all its qualifiers
_UNITS = {"00", "401", "402", "8003", "8004"}  # keys of what holds or is moved as one: logistic units, consignments, shipments, assets


@dataclass(frozen=True, slots=True)
class Key:
    """A GS1 key: application identifier and value, and those of its qualifiers in the order of the standard."""

    ai: str
    value: str
    qualifiers: tuple[tuple[str, str], ...] = ()

    def qualifier(self, ai: str) -> str | None:
        """The value of a qualifier: lot (10), serial (21), …"""
        return dict(self.qualifiers).get(ai)

    @property
    def path(self) -> str:
        """`01/04012345123456/21/12`: the key in one line, values as they are."""
        return "/".join(part for pair in ((self.ai, self.value), *self.qualifiers) for part in pair)

    @property
    def link(self) -> str:
        """The canonical Digital Link URI, values percent-encoded."""
        pairs = ((self.ai, self.value), *self.qualifiers)
        return "https://id.gs1.org/" + "/".join(part for ai, value in pairs for part in (ai, quote(value, safe="")))


def parse(uri: str) -> Key | None:
    """The GS1 key that a URI names; None where it names none."""
    key = None
    if urn := _URN.fullmatch(uri):
        key = _of_urn(urn[1].lower(), urn[2].lower(), urn[3])
    elif link := _LINK.match(uri):
        key = _of_link(link[1])
    return key if key is not None and key.path.isprintable() else None  # %00 and its like stand in no key


def scanned(text: str) -> Key | None:
    """The key of an element string: an SSCC, or a GTIN with a lot (10) or a serial (21), brackets and spaces or not."""
    plain = text.replace(" ", "").replace("\x1d", "")
    if unit := _SCAN_UNIT.fullmatch(plain):
        return Key("00", unit[1])
    if item := _SCAN.fullmatch(plain):
        return Key("01", item[1], _pairs((item[2] or "", item[3] or "")))
    return None


def thing(uri: str, other: str = "serial") -> dict[str, str]:
    """What a URI names, as the fields of a `Thing`; what is no GS1 key is one of `other` (serial, item, handling_unit), by its URI."""
    key = parse(uri)
    return {other: uri} if key is None else thing_of(key, other)


def thing_of(key: Key, other: str = "serial") -> dict[str, str]:
    """What a key names, as the fields of a `Thing`: an item by its GTIN alone, other keys as `AI/value`."""
    if key.ai in ("01", "8006", "8010"):
        item = key.value if key.ai == "01" else f"{key.ai}/{key.value}"
        serial = key.qualifier("21") or key.qualifier("235") or key.qualifier("8011")
        parts = {"item": item, "lot": key.qualifier("10"), "serial": serial}
        return {name: value for name, value in parts.items() if value}
    class_digits = {"253": 13, "255": 13, "8003": 14}.get(key.ai)
    if class_digits == len(key.value):
        return {"item": key.path}
    if key.ai in _UNITS:
        return {"handling_unit": key.value if key.ai == "00" else key.path}
    return {other: key.path}


def _of_link(path: str) -> Key | None:
    """The last primary key in a path counts, so that a resolver may put folders of its own before it."""
    parts = [unquote(part) for part in path.strip("/").rsplit("/", _PARTS_MAX)[-_PARTS_MAX:]]
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] in _QUALIFIERS and (key := _primary(parts[at], parts[at + 1])):
            rest = parts[at + 2 :]
            pairs = tuple(zip(rest[::2], rest[1::2], strict=False))
            known = _QUALIFIERS[key.ai]
            if len(rest) % 2 or not all(ai in known and value for ai, value in pairs):
                continue
            return Key(key.ai, key.value, tuple(sorted(pairs, key=lambda pair: known.index(pair[0]))))
    return None


def _primary(ai: str, value: str) -> Key | None:
    if ai == "01" and value.isascii() and value.isdigit() and len(value) in (8, 12, 13, 14):
        return Key(ai, value.zfill(14))
    wanted = {"00": 18, "402": 17, "414": 13, "417": 13, "8006": 18, "8017": 18, "8018": 18, "01": 14}.get(ai)
    if wanted is not None:
        return Key(ai, value) if len(value) == wanted and value.isascii() and value.isdigit() else None
    digits = {"253": 13, "255": 13, "8003": 14}.get(ai, 0)
    head = value[:digits]
    return Key(ai, value) if value and len(head) == digits and (not digits or (head.isascii() and head.isdigit())) else None


def _of_urn(form: str, scheme: str, body: str) -> Key | None:
    if (form == "class") != (scheme == "lgtin"):
        return None
    rule = _SCHEMES.get(scheme)
    if rule is None:
        return None
    count, make = rule
    parts = body.split(".", count - 1)  # the last one may hold dots
    if form == "idpat":
        if len(parts) != count or parts[-1] != "*" or "*" in "".join(parts[:-1]):
            return None
        parts[-1] = ""
    elif len(parts) != count or not all(parts):
        return None
    try:
        return make(*parts[:-1], unquote(parts[-1]))
    except ValueError:
        return None


def _digits(text: str, length: int) -> str:
    """Digits of one length, with their check digit."""
    if len(text) != length or not (text.isascii() and text.isdigit()):
        raise ValueError
    return text + gs1_check_digit(text)


def _gtin(prefix: str, reference: str) -> str:
    return _digits(reference[:1] + prefix + reference[1:], 13)


def _pairs(*found: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((ai, value) for ai, value in found if value)


def _sgtin(prefix: str, reference: str, serial: str) -> Key:
    return Key("01", _gtin(prefix, reference), _pairs(("21", serial)))


def _lgtin(prefix: str, reference: str, lot: str) -> Key:
    return Key("01", _gtin(prefix, reference), _pairs(("10", lot)))


def _upui(prefix: str, reference: str, serial: str) -> Key:
    return Key("01", _gtin(prefix, reference), _pairs(("235", serial)))


def _itip(prefix: str, reference: str, piece: str, total: str, serial: str) -> Key:
    if not re.fullmatch(r"[0-9]{4}", piece + total):
        raise ValueError
    return Key("8006", _gtin(prefix, reference) + piece + total, _pairs(("21", serial)))


def _sscc(prefix: str, reference: str) -> Key:
    return Key("00", _digits(reference[:1] + prefix + reference[1:], 17))


def _sgln(prefix: str, reference: str, extension: str) -> Key:
    return Key("414", _digits(prefix + reference, 12), _pairs(("254", extension if extension != "0" else "")))


def _cpi(prefix: str, reference: str, serial: str) -> Key:
    return Key("8010", prefix + reference, _pairs(("8011", serial)))


def _serialised(ai: str, head: str = "") -> Callable[..., Key]:
    """A key whose serial follows its digits without a separator: GRAI, GDTI, GCN."""
    return lambda prefix, reference, serial: Key(ai, head + _digits(prefix + reference, 12) + serial)


def _checked(ai: str, length: int) -> Callable[..., Key]:
    return lambda prefix, reference: Key(ai, _digits(prefix + reference, length))


def _plain(ai: str) -> Callable[..., Key]:
    return lambda prefix, reference: Key(ai, prefix + reference)


# How many parts a scheme's body has, and the key they make (EPC Tag Data Standard 1.13, section 6.3 and 7).
_SCHEMES: Mapping[str, tuple[int, Callable[..., Key]]] = {
    "sgtin": (3, _sgtin),
    "lgtin": (3, _lgtin),
    "upui": (3, _upui),
    "itip": (5, _itip),
    "sscc": (2, _sscc),
    "sgln": (3, _sgln),
    "pgln": (2, _checked("417", 12)),
    "grai": (3, _serialised("8003", "0")),
    "giai": (2, _plain("8004")),
    "gsrn": (2, _checked("8018", 17)),
    "gsrnp": (2, _checked("8017", 17)),
    "gdti": (3, _serialised("253")),
    "cpi": (3, _cpi),
    "sgcn": (3, _serialised("255")),
    "ginc": (2, _plain("401")),
    "gsin": (2, _checked("402", 16)),
}
