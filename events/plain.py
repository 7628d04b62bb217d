"""The plain form of a fact's data: what JSON can hold, keys in order, nothing that is empty; by a function compiled once for each class.

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
_made: dict[type[Any], Plain] = {}


def plain(value: Any) -> dict[str, Any]:
    """A dataclass instance as a dict of dicts, lists, texts, whole numbers and truths."""
    found: dict[str, Any] = (_made.get(type(value)) or _of_class(type(value)))(value)
    return found


def encoded(value: Any) -> bytes:
    """Its canonical JSON bytes."""
    return _encode((_made.get(type(value)) or _of_class(type(value)))(value))


def _of_class(cls: type[Any]) -> Plain:
    """The function of a class: a line of source a field, so that nothing about its shape is looked at again."""
    if cls not in _made:
        hints, steps, lines = get_type_hints(cls), dict[str, Plain](), []
        for f in sorted(fields(cls), key=lambda f: f.name):
            make, empty = _of_type(hints[f.name], f.name, steps)
            test = f"if (x := value.{f.name}){' is not None' if empty == 'none' else ''}: " if empty else f"x = value.{f.name}; "
            lines.append(f"    {test}found[{f.name!r}] = {make}\n")
        source = f"def make(value):\n    found = {{}}\n{''.join(lines)}    return found\n"
        exec(source, steps)  # names of fields of our own classes, nothing from outside
        _made[cls] = steps["make"]
    return _made[cls]


def _of_type(hint: Any, name: str, steps: dict[str, Plain]) -> tuple[str, str]:
    """Source that makes the plain form of `x`, and when the field is left out: "" never, "none" for None, "empty" for what is empty."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in inner if kind is not type(None)]
        make, empty = _of_type(kinds[0], name, steps) if len(kinds) == 1 else ("anything(x)", "none")
        return make, empty or "none"
    if hint is Decimal or hint is datetime:
        steps["decimal"], steps["time"] = _decimal, time_text
        return ("decimal(x)" if hint is Decimal else "time(x)"), ""
    if is_dataclass(hint):
        steps[f"of_{name}"] = _of_class(hint)  # type: ignore[arg-type]
        return f"of_{name}(x)", ""
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis and is_dataclass(inner[0]):
        steps[f"of_{name}"] = _of_class(inner[0])  # type: ignore[arg-type]
        return f"[of_{name}(one) for one in x]", "empty"
    if hint in (str, int, bool) or (origin is not None and origin not in (dict, tuple)):
        return "x", ""
    steps["anything"] = _anything
    return "anything(x)", "empty" if origin in (dict, tuple) else "none"


def _decimal(value: Decimal) -> str:
    text = str(value)
    return text if text.isdigit() else decimal_text(value)


def _anything(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _anything(value[name]) for name in sorted(value) if value[name] not in (None, (), {})}
    if isinstance(value, list | tuple):
        return [_anything(one) for one in value]
    if isinstance(value, Decimal):
        return decimal_text(value)
    return time_text(value) if isinstance(value, datetime) else value
