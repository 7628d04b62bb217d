"""The commands that list: stock, exceptions, events."""

import json

from events.errors import Refused
from hub.app import queries
from hub.app.answers import caught_up
from hub.app.cli import output
from hub.app.wiring import open_hub


def show_stock(accounts: str, json_: bool) -> int:
    """`hub stock`."""
    if accounts not in ("own", "all"):
        raise Refused(f"--accounts is own or all, not {accounts!r}")
    with open_hub() as hub, caught_up(hub, ("stock", "references")) as cursor:
        found = queries.stock(cursor, everything=accounts == "all")
        if json_:
            output.rows(found)
        else:
            listed = list(found)
            names = queries.items(cursor)
            columns = ["account" if accounts == "all" else "location", "item", "lot", "serial", "status", "quantity", "unit", "description"]
            shown = ({**row, "description": names.get(row["item"], "")} for row in listed)
            output.table(columns, shown, "no stock", right=["quantity"])
    return 0


def show_exceptions(json_: bool) -> int:
    """`hub exceptions`."""
    with open_hub() as hub, caught_up(hub) as cursor:
        found = queries.exceptions(cursor)
    if json_:
        output.rows(found)
    else:
        output.table(["id", "kind", "reason", "source", "business_key", "first_seen"], found, "no open exceptions")
    return 0


def read_events(first: int, stream: str | None, type_: str | None, json_: bool) -> int:
    """`hub events read`."""
    with open_hub() as hub:
        found = queries.events(hub.log, first, stream=stream, type_=type_)
        if json_:
            output.rows(found)
        else:
            for row in found:
                data = json.dumps(row["data"], ensure_ascii=False, default=str)
                output.line(
                    f"{row['position']:>8}  {row['effective_at']:<25} {row['type']:<36} {row['source']} {row['business_key']}  {data[:160]}"
                )
                if output.unheard():
                    break
    return 0


def explain_event(what: str, json_: bool) -> int:
    """`hub events explain`."""
    with open_hub() as hub, caught_up(hub) as cursor:
        facts = queries.find_facts(cursor, what)
        if len(facts) != 1:
            candidates = [queries.event_row(f) for f in facts]
            if json_:
                output.document({"event": None, "candidates": candidates})
            elif facts:
                output.line(f"{what} names {len(facts)} facts; give one of these positions:")
                output.table(["position", "type", "source", "effective_at"], candidates, "")
            else:
                output.note(
                    f"hub: no fact has the position or business key {what!r}: `hub events read` lists them, `hub trace` finds objects"
                )
            return 1
        row = queries.event_row(facts[0])
        effects = queries.effects(cursor, facts[0])
    if json_:
        output.document({"event": row, "effects": effects})
        return 0
    for name, value in row.items():
        output.line(f"{name:<16}{json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict) else value}")
    for view, tables in effects.items():
        for table, rows in tables.items():
            output.line()
            output.line(f"{view}.{table}: {len(rows)} rows last changed by it")
            for one in rows:
                output.line("  " + json.dumps(one, ensure_ascii=False, default=str))
    return 0
