"""What a payload of MQTT says, as readings: each value of a JSON document under its topic and path, anything else as it is. Pure.

A document is kept whole, as text of type `json`, where taking it apart would lose something or mislead: keys that stand twice, more than
`VALUES_MAX` values or `DEPTH_MAX` levels, two values under one name, keys that no log takes. A text that is no JSON is of type `text`, bytes that
are no UTF-8 are hex of type `bytes`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from adapters.formats.mqtt_filters import sound
from hub import limits
from hub.intake.readings import Reading, Value

DEPTH_MAX = 16  # levels of a JSON payload that are taken apart
VALUES_MAX = 2000  # readings of one message
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_YEARS = range(1900, 3000)  # a source's time in any other is none
_UNITS = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (10**20, 10**9))  # numbers below are seconds, milliseconds, … since 1970

Path = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Topics:
    """How the messages of some topics are read.

    `producer`: how many levels of the topic name the producer, 0 for all. `value`: dotted path of what holds the values, "" for all of the payload.
    `at` and `sequence`: dotted paths of the source's time (RFC 3339, or seconds, milliseconds … since 1970) and of the producer's own number.
    """

    filter: str
    producer: int = 0
    value: str = ""
    at: str | None = None
    sequence: str | None = None

    def __post_init__(self) -> None:
        if not sound(self.filter):
            raise ValueError(f"{self.filter[:80]!r} is no topic filter: + stands alone in its level, # alone in the last")
        if self.producer < 0:
            raise ValueError("producer is a number of levels, 0 for all")


def read(body: bytes, topic: str, rule: Topics, *, historical: bool) -> list[Reading]:
    """The readings of one message, at least one."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return [Reading(topic, body.hex(), None, type="bytes", historical=historical)]
    if len(body) > limits.MQTT_BODY_BYTES_MAX:
        return [Reading(topic, text, None, type="text", historical=historical)]
    try:
        said = _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        return [Reading(topic, text, None, type="json" if isinstance(error, _Twice) else "text", historical=historical)]
    if isinstance(said, _Said) and not said.plain(text.strip()):
        return [Reading(topic, text, None, type="text", historical=historical)]
    at, used = _moment_at(said, rule.at)
    sequence, counted = _sequence_at(said, rule.sequence)
    skip = {path for path in (used, counted) if path is not None}
    below = _path(said, rule.value)
    leaves = list(_leaves(*below, skip)) if below else list(_leaves(said, (), skip))
    start = len(below[1]) if below else 0
    names = ["/".join((topic, *path[start:])) for path, _ in leaves]
    if len(leaves) > VALUES_MAX or len(set(names)) < len(names) or not all(_plain(path) for path, _ in leaves):
        return [Reading(topic, text, at, type="json", sequence=sequence, historical=historical)]
    readings = [
        Reading(name, value, at, type=kind, sequence=sequence, historical=historical)
        for name, (kind, value) in zip(names, (_valued(one) for _, one in leaves), strict=True)
    ]
    # nothing beside time and number: the producer is there, and its number counts
    return readings or [Reading(topic, None, at, sequence=sequence, historical=historical)]


@dataclass(frozen=True, slots=True)
class _Said:
    """A number of a document: its type, and its value as a reading has it."""

    kind: str
    value: Value

    def plain(self, text: str) -> bool:
        """Whether a payload that is nothing but this number is surely meant as one: `1E5` may be a serial, `1e-05` is how programs write a number."""
        return not set(text) & set("eE") or text in (str(self.value), repr(self.value))


class _Twice(ValueError):
    """A key stands twice in one object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice
    return found


def _integer(text: str) -> _Said:
    found = int(text)
    return _Said("integer", found if str(found) == text and -(2**63) <= found < 2**64 else text)


def _number(text: str) -> _Said:
    """A float where that is the same number, else exactly as it stands."""
    found = float(text)
    return _Said("number", found if found - found == 0 and Decimal(repr(found)) == Decimal(text) else text)


_JSON = json.JSONDecoder(  # one for all: `json.loads` makes one for each text
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=lambda word: _Said("number", float(word))
)


def _valued(leaf: Any) -> tuple[str, Value]:
    match leaf:
        case _Said():
            return leaf.kind, leaf.value
        case dict() | list():  # the empty ones
            return "json", "{}" if isinstance(leaf, dict) else "[]"
        case bool():
            return "boolean", leaf
        case str():
            return "string", leaf
    return "null", None


def _leaves(value: Any, path: Path, skip: set[Path]) -> Iterator[tuple[Path, Any]]:
    """Values with their paths; of an object that holds nothing but what is skipped, nothing."""
    if not value or not isinstance(value, dict | list) or len(path) > DEPTH_MAX:
        yield path, value
        return
    for name, one in value.items() if isinstance(value, dict) else enumerate(value):
        inner = (*path, str(name))
        if inner not in skip:
            yield from _leaves(one, inner, skip)


def _plain(path: Path) -> bool:
    return len(path) <= DEPTH_MAX and not any("\x00" in name or any("\ud800" <= c <= "\udfff" for c in name) for name in path)


def _path(said: Any, dotted: str | None) -> tuple[Any, Path] | None:
    """What stands at a dotted path, and the path; None where nothing does."""
    if not dotted:
        return None
    path = tuple(dotted.split("."))
    for name in path:
        if not isinstance(said, dict) or name not in said:
            return None
        said = said[name]
    return said, path


def _sequence_at(said: Any, dotted: str | None) -> tuple[int | None, Path | None]:
    """The producer's own number, and its path where it says nothing more than that."""
    match _path(said, dotted):
        case (_Said(kind="integer", value=int(number)), path) if number < 2**63:
            return number, path
    return None, None


def _moment_at(said: Any, dotted: str | None) -> tuple[datetime | None, Path | None]:
    """The source's time, and its path where the time is no more exact than ours."""
    found = _path(said, dotted)
    if found is None:
        return None, None
    at, exact = _moment(found[0].value if isinstance(found[0], _Said) else found[0])
    return at, found[1] if at and exact else None


def _moment(value: Any) -> tuple[datetime | None, bool]:
    """A time with its offset, and whether it is exact; one without stays without (the plant's zone is asked later); a number counts from 1970."""
    try:
        if isinstance(value, str) and (match := _TIME.fullmatch(value)):
            at, exact = datetime.fromisoformat(value), not (match[1] or "")[6:].strip("0")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            unit = next(unit for bound, unit in _UNITS if abs(value) < bound)
            micros = Decimal(repr(value)) * 10**6 / unit
            at, exact = _EPOCH + timedelta(microseconds=round(micros)), micros == round(micros)
        else:
            return None, False
    except (ValueError, OverflowError, ArithmeticError, StopIteration):
        return None, False
    return (at, exact) if at.year in _YEARS else (None, False)
