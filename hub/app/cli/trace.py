"""`hub trace`: an answer as JSON, or as trees on a terminal with the counts that matter above them."""

from collections.abc import Iterator
from typing import Any

from events.errors import Refused
from hub.app import queries
from hub.app.answers import caught_up, trace
from hub.app.cli import output
from hub.app.wiring import open_hub
from projections.trace import as_tree


def show_trace(text: str, forward: bool, backward: bool, json_: bool) -> int:
    """`hub trace ID`; exit code 1 if the id is unknown or ambiguous."""
    if not text.strip():
        raise Refused("the id is empty: give a lot, serial, SSCC, order, purchase order, ASN or shipment")
    direction = "both" if forward == backward else "forward" if forward else "backward"
    with open_hub() as hub, caught_up(hub) as cursor:
        found = trace(cursor, text.strip(), direction)
        names = queries.items(cursor)
    if json_:
        output.document(found)
    elif found.get("root"):
        _print(found, direction, names)
    elif "candidates" in found:
        output.line(f"{text} names several things; say which, by its id or as KIND:ID")
        output.table(["kind", "id"], found["candidates"], "")
    else:
        output.note(
            f"hub: nothing is known by the name {text!r}: check its spelling; `hub stock --accounts all` lists lots, `hub quarantine list` what is held"
        )
    return 0 if found.get("root") else 1


def _print(found: dict[str, Any], direction: str, names: dict[str, str]) -> None:
    root = found["root"]
    counts: dict[str, int] = {}
    for node in found["nodes"]:
        counts[node["kind"]] = counts.get(node["kind"], 0) + 1
    output.line(
        f"{root['kind']} {root['id']}: {', '.join(f'{n} {kind}' for kind, n in sorted(counts.items()))}; {len(found['edges'])} edges"
    )
    output.line("complete" if found["complete"] else f"NOT complete because {', '.join(found['because'])}")
    for way in ("backward", "forward"):
        if direction in ("both", way):
            print(f"\n{'came from' if way == 'backward' else 'went into'}")
            for line in as_tree(found, way):
                output.line(line)
    places = [
        {"what": node["id"], "item": names.get(node.get("item", ""), ""), **place}
        for node in found["nodes"]
        for place in node.get("now", [])
    ]
    if places:
        print("\nwhere it is now")
        output.table(["what", "item", "account", "status", "quantity", "unit"], places, "", right=["quantity"])
    if found["equipment"]:
        print("\nwhat machines did with it")
        for row in found["equipment"]:
            for words in _worked(row):
                output.line(f"{row['kind']} {row['id']} on {row['equipment']}: {words}")


def _worked(row: dict[str, Any]) -> Iterator[str]:
    """What one machine did with one order or lot, a line for each kind of thing."""
    if row["states"]:
        yield ", ".join(f"{s['state']} {s['times']} × ({s['seconds'] or '–'} s)" for s in row["states"])
    for c in row["counts"]:
        yield f"{c['quantity']} {c['unit']} {c['counter']}{', rejected' if c['rejected'] else ''}"
    for d in row["downtimes"]:
        reason = f", {d['reason']}" if d["reason"] else ""
        yield f"down {d['times']} × ({d['seconds'] or '–'} s){reason}"
    for x in row["excursions"]:
        yield f"{x['tag']} {'above' if x['above'] else 'below'} its limit {x['times']} ×, worst {x['worst']} {x['unit'] or ''}".rstrip()
