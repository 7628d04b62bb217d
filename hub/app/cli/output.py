"""How commands print: JSON for programs, plain lines and tables for people. No control character of a source reaches a terminal."""

import io
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from events import canonical

# C0 and C1 controls, line and paragraph separators, what turns the direction of text, half surrogates
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_ENDS = re.compile("[\x7f-\x9f\u2028\u2029]")  # what JSON may hold as it is and some readers take for the end of a line or a command


def printable(text: str) -> str:
    """A text with its control characters as escapes, on one line."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def line(text: str = "") -> None:
    """One line for a person on standard output."""
    print(printable(text))


def document(value: object) -> None:
    """One JSON document on standard output, on one line."""
    text = json.dumps(value, ensure_ascii=False, default=_plain)
    sys.stdout.write(_LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def rows(values: Iterable[object]) -> None:
    """One JSON object a line, as long as somebody reads them."""
    for value in values:
        document(value)
        if unheard():
            break


def unheard() -> bool:
    """Whether nobody reads standard output any more, so that a list may end (`head -1`)."""
    return getattr(sys.stdout, "lost", None) is not None


def _plain(value: object) -> Any:
    return canonical.loads(canonical.dumps(value))


def table(columns: Sequence[str], values: Iterable[Mapping[str, Any]], empty: str, right: Sequence[str] = ()) -> None:
    """A table for a terminal or a file."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        shown.add_column(name.replace("_", " "), justify="right" if name in right else "left", overflow="fold")
    for value in values:
        shown.add_row(*(Text("" if value.get(name) is None else printable(str(value[name]))) for name in columns))
    if not shown.row_count:
        print(empty)
        return
    tty, text = sys.stdout.isatty(), io.StringIO()  # rich ends the process by itself when it meets a closed pipe
    # a pipe has no width of its own: never fold what a program or a pager may want to read
    Console(file=text, force_terminal=tty, width=None if tty else 240, soft_wrap=False).print(shown)
    sys.stdout.write(text.getvalue())


def note(text: str) -> None:
    """Something a person should know, on standard error."""
    print(printable(text), file=sys.stderr, flush=True)
