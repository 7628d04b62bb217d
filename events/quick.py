"""Reads data that are right several times faster than `validated` judges any: the same event, or None for what is not surely right.

No rule is made here. The data are read twice: as their class, and as its twin, whose fields are the texts that the source wrote. What is
unknown, stands twice, or would be changed on the way in shows in the twin; a field of a type that has none is left to `validated`.
"""

import threading
import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from annotated_types import MaxLen, MinLen
from msgspec import UNSET, Meta, UnsetType
from pydantic.fields import FieldInfo

from events.base import Event, decoder, event_class
from events.errors import Refused
from events.vocabulary import DECIMAL_CHARS_MAX, Count, Name, Text, Unit, read_decimal, rec20

NAME = Annotated[str, Meta(min_length=1, max_length=200)]
_TEXTS: list[tuple[Any, Any, str]] = [  # a type, the text that its twin has, and what is not right about a text `x`
    (Text, Annotated[str, Meta(max_length=4000)], ""),
    (Name, NAME, "x.strip() != x"),  # and Item, which is the same
    (Unit, str, "x not in units"),
    (Count, Annotated[str, Meta(max_length=DECIMAL_CHARS_MAX)], "(d := decimal(x)) is None or d < 0"),
]


def clean(raw: bytes) -> bool:
    """Whether no text in JSON holds a quote, half a surrogate or a control character: unescaped, it takes none of these but DEL."""
    return b"\\" not in raw and b"\x7f" not in raw


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the data of one event type, of its current version."""

    version: int
    twin: Callable[[Any], Any]  # the twin of JSON; a `ValueError` where there is none
    right: Callable[[Any], bool]  # whether `validated` would take what a twin says as it is
    event: Callable[[Any], Event]  # the event of JSON whose twin is right; a `ValueError` where fields contradict one another


_BOUND: Any = Annotated  # types of what is only known when it runs
_LIST: Any = list
_readers: dict[str, Reader] = {}
_twins: dict[type[Any], tuple[Any, Callable[[Any], bool]]] = {}
_making = threading.Lock()


def reader(type_name: str) -> Reader | None:
    """The reader of an event type; None for one that is not known."""
    try:
        return _readers[type_name]
    except KeyError:
        pass
    try:
        cls = event_class(type_name)
    except Refused:
        return None  # not remembered: names from outside have no bound
    with _making:
        twin, right = _twin(cls)
        found = _readers[type_name] = Reader(cls.version, msgspec.json.Decoder(twin).decode, right, decoder(cls).decode)
    return found


def _twin(cls: type[Any]) -> tuple[Any, Callable[[Any], bool]]:
    """The twin of a dataclass, and the function that says whether one is right: a line of source a field."""
    if cls not in _twins:
        hints, names = get_type_hints(cls, include_extras=True), {"UNSET": UNSET, "units": rec20(), "decimal": read_decimal}
        members: list[Any] = []
        lines = []
        for f in fields(cls):
            kind, wrong = _of_type(hints[f.name], f.name, names)
            if f.default is MISSING and f.default_factory is MISSING:
                members.append((f.name, kind))
                lines.append(f"    x = twin.{f.name}\n    if {wrong or False}: return False\n")
            else:
                members.append((f.name, Union[kind, UnsetType], UNSET))  # noqa: UP007 - made of values
                lines.append(f"    if (x := twin.{f.name}) is not UNSET and ({wrong or False}): return False\n")
        exec(f"def right(twin):\n{''.join(lines)}    return True\n", names)  # names of fields of our own classes, nothing from outside
        made = msgspec.defstruct(cls.__name__, members, omit_defaults=True, kw_only=True)
        _twins[cls] = made, names["right"]  # type: ignore[assignment]
    return _twins[cls]


def _of_type(hint: Any, name: str, names: dict[str, Any]) -> tuple[Any, str]:
    """The type of a field's twin, and source that says what is not right about its value `x`; `UnsetType` where only absence is."""
    for known, text, wrong in _TEXTS:
        if hint == known:
            return text, wrong
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) and len(inner) == 2 and inner[1] is type(None):
        return _of_type(inner[0], name, names)  # null is left to `validated`
    if is_dataclass(hint):
        twin, names[f"right_{name}"] = _twin(hint)  # type: ignore[arg-type]
        return twin, f"not right_{name}(x)"
    if origin is Annotated and (bounds := _bounds(hint.__metadata__)):
        kind, wrong = _of_type(inner[0], name, names)
        return (kind if kind is UnsetType else _BOUND[kind, bounds]), wrong
    if origin is tuple and inner[1:] == (Ellipsis,):
        kind, wrong = _of_type(inner[0], name, names)
        return (kind if kind is UnsetType else _LIST[kind]), f"any([{wrong or False} for x in x])"
    return UnsetType, ""


def _bounds(marks: tuple[Any, ...]) -> Meta | None:
    """The bounds of a list; None where anything else is said of it."""
    said = [mark for one in marks for mark in (one.metadata if isinstance(one, FieldInfo) else [one])]
    least, most = [one.min_length for one in said if isinstance(one, MinLen)], [one.max_length for one in said if isinstance(one, MaxLen)]
    if len(least) + len(most) < len(said):
        return None
    return Meta(min_length=max(least, default=None), max_length=min(most, default=None))
