"""The edge's page: is the line up, what waits, how long the disk lasts, what each source says. All zeros is healthy."""

from typing import Any

from hub.app.html import Html, name, table, tag, text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; color: #1a2129; background: #f6f7f9 }
h1 { font-size: 1.3rem } h2 { font-size: 1rem; margin-top: 2rem }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem }
.tile { background: #fff; border: 1px solid #d9dee4; border-radius: 6px; padding: .6rem .8rem }
.tile b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums } .tile span { color: #57616c }
.bad { border-color: #b3261e } .bad b { color: #b3261e } .good b { color: #14713a }
table { border-collapse: collapse; width: 100%; background: #fff } td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #e3e7eb }
.number { text-align: right; font-variant-numeric: tabular-nums } .scroll { overflow-x: auto }
@media (prefers-color-scheme: dark) { body { background: #14181c; color: #e4e8ec } .tile, table { background: #1c2227; border-color: #333c44 }
  .tile span { color: #9aa5b0 } td, th { border-color: #2c343b } .bad b { color: #ff8a80 } .good b { color: #7bd69b } }
"""


def page(status: dict[str, Any]) -> str:
    """The page of a status, as HTML."""
    line = status["line"]
    full = status["full_in_s"]
    wrong = not line["up"] or status["backlog"] > 0
    tiles = [
        _tile("line to the hub", "up" if line["up"] else "down", f"for {_span(line['for_s'])}", bad=not line["up"]),
        _tile("backlog", f"{status['backlog']:,}", "entries wait for the hub", bad=wrong and status["backlog"] > 0),
        _tile("oldest waits", _span(status["oldest_s"]), "since it came", bad=status["oldest_s"] > 60),
        _tile("arrive", f"{status['arrival_rate']:,}/s", "last minute"),
        _tile(
            "drain",
            f"{status['drain_rate']:,}/s",
            "last minute",
            bad=status["backlog"] > 0 and status["drain_rate"] < status["arrival_rate"],
        ),
        _tile(
            "disk",
            f"{100 * status['backlog_bytes'] / status['bytes_max']:.0f} %",
            _disk(status, full),
            bad=full is not None and full < 3600,
        ),
    ]
    trouble = [line["trouble"], *(f"{one['name']}: {one['trouble']}" for one in status["sources"] if one["trouble"])]
    body = text(
        tag("h1", "Edge ", name(status["edge"])),
        tag("div", tiles, cls="tiles"),
        tag("div", [tag("p", one) for one in trouble if one], role="alert") if any(trouble) else None,
        tag("h2", "Sources"),
        table(
            [("source", ""), ("connected", ""), ("last said", ""), ("taken", "number")],
            [
                [name(s["name"]), "yes" if s["connected"] else "no", s["last_at"] or "nothing yet", f"{s['taken']:,}"]
                for s in status["sources"]
            ],
        ),
        tag("h2", "Lanes"),
        table(
            [("lane", ""), ("given", "number"), ("durable in the hub", "number"), ("waiting", "number"), ("oldest", "")],
            [[name(s["lane"]), f"{s['last']:,}", f"{s['acked']:,}", f"{s['backlog']:,}", s["oldest_at"] or ""] for s in status["lanes"]],
        ),
        tag("p", "epoch ", name(status["epoch"])),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="3"><title>{tag("x", status["edge"])[3:-4]} · edge</title><style>{_STYLE}</style></head>'
        f"<body>{body}</body></html>"
    )


def _tile(what: str, value: str, more: str, *, bad: bool = False) -> Html:
    return tag("div", tag("span", what), tag("b", value), tag("span", more), cls=f"tile {'bad' if bad else 'good'}")


def _disk(status: dict[str, Any], full: float | None) -> str:
    room = f"of {status['bytes_max'] / (1 << 20):,.0f} MiB"
    return f"{room}, full in {_span(full)}" if full is not None else f"{room}, not growing"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
