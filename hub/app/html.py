"""HTML made safely: whatever comes from data is escaped unless it was made here, so a lot called `<script>` is shown, not run."""

from collections.abc import Iterable
from html import escape
from importlib import resources
from urllib.parse import quote


class Html(str):
    """Markup that is already safe."""

    __slots__ = ()


EMPTY = Html()
_VOID = {"input", "br", "meta", "link"}
Child = object  # a text, a number, Html, None, or an iterable of these


def text(*children: Child) -> Html:
    """Children one after the other; everything that is not `Html` is escaped, None is left out."""
    return Html("".join(_pieces(children)))


def tag(name: str, /, *children: Child, **attributes: object) -> Html:
    """An element. `cls` is its class, an underscore a hyphen; attributes that are None or False are left out, True has no value."""
    head = name
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = "class" if key == "cls" else key.replace("_", "-")
        head += f" {attribute}" if value is True else f' {attribute}="{escape(str(value))}"'
    return Html(f"<{head}>" if name in _VOID else f"<{head}>{text(*children)}</{name}>")


def table(heads: Iterable[tuple[str, str]], rows: Iterable[Iterable[Child]], *, cls: str = "") -> Html:
    """A table of (heading, class of the column) and rows of cells; on a phone each cell carries its heading."""
    columns = list(heads)
    head = tag("tr", [tag("th", name, cls=kind or None, scope="col") for name, kind in columns])
    body = [
        tag("tr", [tag("td", cell, cls=kind or None, data_head=name) for (name, kind), cell in zip(columns, row, strict=True)])
        for row in rows
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", body), cls=cls or None), cls="scroll")


def name(value: object) -> Html:
    """An identifier: its own direction, so that no character in it turns round what follows."""
    return tag("bdi", value, cls="id")


def trace_url(identifier: str) -> str:
    """The address of an identifier's trace. Segments a browser would resolve away go into the query instead."""
    if any(part in ("", ".", "..") for part in identifier.split("/")):
        return f"/trace?id={quote(identifier, safe='')}"
    return f"/trace/{quote(identifier, safe='/:')}"


def trace_link(kind: str, identifier: str, shown: object = None) -> Html:
    """A link to the trace of a node; the kind goes with it, so that it names one thing for sure."""
    return tag("a", name(identifier if shown is None else shown), href=trace_url(f"{kind}:{identifier}"), cls="trace")


def command(words: str) -> Html:
    """A command to type."""
    return tag("code", words, cls="cmd")


def style() -> str:
    """The style sheet of the console's pages."""
    return (
        resources.files("hub.app").joinpath("console", "console.css").read_text("utf-8")
    )  # not the package, which would begin the console


def _pieces(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            yield child
        elif isinstance(child, str) or not isinstance(child, Iterable):
            yield escape(str(child))
        else:
            yield from _pieces(child)
