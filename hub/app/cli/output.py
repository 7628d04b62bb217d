"""How commands print: JSON for programs, plain tables for people."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from events import canonical


def document(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(_text(value) + "\n")


def rows(values: Iterable[object]) -> int:
    """One JSON object a line; how many."""
    count = 0
    for value in values:
        sys.stdout.write(_text(value) + "\n")
        count += 1
    return count


def _text(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> Any:
    return canonical.loads(canonical.dumps(value))


def table(columns: Sequence[str], values: Iterable[Mapping[str, Any]], empty: str, right: Sequence[str] = ()) -> int:
    """A table for a terminal or a file; how many rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        shown.add_column(name.replace("_", " "), justify="right" if name in right else "left", overflow="fold")
    count = 0
    for value in values:
        shown.add_row(*(Text("" if value.get(name) is None else str(value[name])) for name in columns))
        count += 1
    if count:
        # a pipe has no width of its own: never fold what a program or a pager may want to read
        Console(width=None if sys.stdout.isatty() else 240, soft_wrap=False).print(shown)
    else:
        print(empty)
    return count


def note(text: str) -> None:
    """Something a person should know, on standard error."""
    print(text, file=sys.stderr, flush=True)
