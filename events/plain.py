"""The plain form of a fact's data: what JSON can hold, keys in order, nothing that is empty; by functions made once for each class.

Quantities are exact decimals as strings, times in UTC with a `Z`, so equal events have equal bytes (events/canonical.py says the same of any
value; this says it of a known shape, an order of magnitude faster).
"""

import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from events.canonical import decimal_text, time_text

Plain = Callable[[Any], Any]
_encode = msgspec.json.Encoder().encode


def plain(value: Any) -> dict[str, Any]:
    """A dataclass instance as a dict of dicts, lists, texts, whole numbers and truths."""
    found: dict[str, Any] = _of_class(type(value))(value)
    return found


def encoded(value: Any) -> bytes:
    """Its canonical JSON bytes."""
    return _encode(_of_class(type(value))(value))


def _of_class(cls: type[Any]) -> Plain:
    made = _made.get(cls)
    if made is None:
        made = _made[cls] = _new(cls)
    return made


_made: dict[type[Any], Plain] = {}


def _new(cls: type[Any]) -> Plain:
    hints = get_type_hints(cls)
    steps = [(f.name, _of_type(hints[f.name])) for f in sorted(fields(cls), key=lambda f: f.name)]

    def make(value: Any) -> dict[str, Any]:
        found = {}
        for name, step in steps:
            one = getattr(value, name)
            if one is None or one == () or one == {}:
                continue
            found[name] = one if step is None else step(one)
        return found

    return make


def _of_type(hint: Any) -> Plain | None:
    """What turns a value of a type into its plain form; None where it is plain already."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in inner if kind is not type(None)]
        return _of_type(kinds[0]) if len(kinds) == 1 else _anything
    if hint is Decimal:
        return decimal_text
    if hint is datetime:
        return time_text
    if is_dataclass(hint):
        return _of_class(hint)  # type: ignore[arg-type]
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        step = _of_type(inner[0])
        return list if step is None else lambda values: [step(value) for value in values]
    return None if hint in (str, int, bool) or (origin is not None and origin not in (dict, tuple)) else _anything


def _anything(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _anything(value[name]) for name in sorted(value) if value[name] not in (None, (), {})}
    if isinstance(value, list | tuple):
        return [_anything(one) for one in value]
    if isinstance(value, Decimal):
        return decimal_text(value)
    return time_text(value) if isinstance(value, datetime) else value
