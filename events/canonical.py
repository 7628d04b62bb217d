"""Strict JSON in, canonical JSON out: the only two ways by which JSON enters or leaves the log.

In: no duplicate keys, no NaN or Infinity, numbers with a point stay exact decimals, bounded depth, no NUL, no lone surrogate.
Out: sorted keys, no spaces, UTF-8, decimals as strings without exponent or trailing zeros, times in UTC with a `Z`: equal values give
equal bytes, so that a sha256 of them can tell a duplicate from a conflict.
"""

import hashlib
import json
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from events.errors import Refused

Json = Any  # a JSON value as this module reads it: dict, list, str, int, Decimal, bool, None

DEPTH_MAX = 64  # levels; real EPCIS documents stay under 20
DIGITS_MAX = 38  # digits of a number; PostgreSQL's and most ERPs' numeric limit


def loads(raw: bytes | str) -> Json:
    """The value of one JSON text. Raises `Refused` with the place for everything that two readers could understand differently."""
    found = quick(raw) if isinstance(raw, bytes) else None
    return checked(parse(raw), escaped=escaped(raw)) if found is None else found


def quick(raw: bytes) -> Json:
    """What `loads` gives, several times faster, where nothing in the text could be refused; else None: ask `parse` and `checked`.

    Without an escape no text holds a quote, NUL or half a surrogate, and each has two quotes: they are as many in what is written from the
    value, unless a key that stood twice was lost. A number that is refused cannot be written.
    """
    if b"\\" in raw or _LONG in raw.translate(_DIGITS):
        return None
    try:
        value = _decode(raw)
        if _encode(value).count(b'"') != raw.count(b'"'):
            return None
        return value if raw.count(b"{") + raw.count(b"[") <= DEPTH_MAX else checked(value, escaped=False)
    except (ValueError, TypeError, RecursionError, Refused):
        return None


def parse(raw: bytes | str) -> Json:
    """The value of one JSON text, not yet checked: a number or an object that is refused stands in it as its `Refused`.

    For a batch whose rows are judged one by one; each must go through `checked`. Raises `Refused` for what is not JSON at all.
    """
    try:
        text = raw if isinstance(raw, str) else raw.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_object, parse_float=_decimal, parse_int=_integer, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise Refused(f"not UTF-8 at byte {error.start}: send JSON as UTF-8") from None
    except json.JSONDecodeError as error:
        raise Refused(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise Refused(f"JSON nested deeper than {DEPTH_MAX} levels") from None


def dumps(value: object) -> bytes:
    """Canonical JSON bytes of a value made of dicts, lists, tuples, strings, ints, Decimals, aware datetimes, dates, bools and None."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_default).encode()


def digest(value: object) -> bytes:
    """sha256 (32 bytes) of a value's canonical JSON."""
    return hashlib.sha256(dumps(value)).digest()


def decimal_text(value: Decimal) -> str:
    """A decimal as the hub writes it: plain digits, no exponent, no trailing zeros, no negative zero."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def time_text(value: datetime) -> str:
    """An aware time as the hub writes it: ISO 8601 in UTC, `Z`, microseconds only where there are any."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _default(value: object) -> str:
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no canonical JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Refused:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return Refused(f"the key {twice!r} stands twice in one JSON object: which value is meant?")
    return found


def _decimal(text: str) -> Decimal | Refused:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return Refused(f"the number {text[:40]} is out of range")
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or max(len(digits) + exponent, 0) + max(-exponent, 0) > DIGITS_MAX:  # as written without an exponent
        return Refused(f"the number {text[:40]} has more than {DIGITS_MAX} digits")
    return value


def _integer(text: str) -> int | Refused:
    return int(text) if len(text.removeprefix("-")) <= DIGITS_MAX else Refused(f"the number {text[:40]} has more than {DIGITS_MAX} digits")


_decode = msgspec.json.Decoder(float_hook=_decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * (DIGITS_MAX + 1)


def _constant(text: str) -> Refused:
    return Refused(f"{text} is not a JSON number")


def escaped(raw: bytes | str) -> bool:
    """Whether texts of this JSON may hold what `check_text` refuses: in UTF-8 nothing can but by an escape such as \\u0000."""
    return isinstance(raw, str) or b"\\u" in raw


def checked(value: Json, *, escaped: bool = True) -> Json:
    """A value of `parse`, if nothing in it is refused. Level by level: a hostile text must not reach Python's own limits."""
    depth, level = 0, [value]
    while level:
        depth += 1
        if escaped:
            for text in level:
                if type(text) is str:
                    check_text(text)
        nodes, level = [node for node in level if type(node) is not str], []
        for node in nodes:
            if isinstance(node, dict | list):
                if depth > DEPTH_MAX:
                    raise Refused(f"JSON nested deeper than {DEPTH_MAX} levels")
                if isinstance(node, dict):
                    level += node.values()
                if escaped or isinstance(node, list):
                    level += node  # of an object its keys, which are texts
            elif isinstance(node, Refused):
                raise node
    return value


def check_text(text: str) -> None:
    """Refuse what PostgreSQL's text cannot hold."""
    if "\x00" in text:
        raise Refused(f"the text {text[:40]!r} holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Refused(f"the text {text[:40]!r} holds half of a surrogate pair") from None
