"""`hub quarantine`: list, show, redrive."""

from pathlib import Path
from typing import Any

from events.errors import Refused
from hub.app import people
from hub.app.answers import caught_up
from hub.app.cli import output
from hub.app.wiring import Hub, open_hub
from hub.intake.redrive import redrive_entry
from projections.quarantine import entries

PREVIEW_BYTES = 2000


def _open_entries(hub: Hub) -> list[dict[str, Any]]:
    with caught_up(hub, ("quarantine",)) as cursor:
        return [dict(entry) for entry in entries(cursor)]


def show_list(json_: bool) -> int:
    """`hub quarantine list`."""
    with open_hub() as hub:
        found = _open_entries(hub)
    if json_:
        output.rows(found)
    else:
        output.table(["id", "kind", "source", "business_key", "place", "reason", "times"], found, "nothing is held", right=["times"])
    return 0


def show_one(id_: str, out: Path | None, json_: bool) -> int:
    """`hub quarantine show`; exit code 1 if there is no such entry."""
    with open_hub() as hub:
        found = [entry for entry in _open_entries(hub) if entry["id"] == id_]
        body = hub.log.body(bytes.fromhex(found[0]["sha256"])) if found else None
    if not found:
        if json_:
            output.document({"entry": None})
        output.note(f"hub: nothing is held under the id {id_!r}: `hub quarantine list` shows the ids")
        return 1
    if body is None:
        raise Refused(f"the bytes of {id_} are not kept here: this database holds a copy of the log without log.delivery")
    if out:
        try:
            out.write_bytes(body)
        except OSError as error:
            raise Refused(f"--out {out} cannot be written ({error.strerror}): name a file in a folder that you may write to") from None
    text = body[:PREVIEW_BYTES].decode("utf-8", "backslashreplace")
    if json_:
        output.document({"entry": found[0], "bytes": len(body), "body": body.decode("utf-8", "backslashreplace")})
        return 0
    for name, value in found[0].items():
        output.line(f"{name:<14}{value}")
    output.line(f"{'bytes':<14}{len(body)}")
    output.line()
    for one in text.split("\n"):
        output.line(one.removesuffix("\r"))
    if len(body) > PREVIEW_BYTES:
        output.line("… (--out FILE writes all of it)")
    return 0


def redrive(ids: list[str], all_: bool, json_: bool) -> int:
    """`hub quarantine redrive`; exit code 1 if anything stays held or an id is unknown, in which case nothing is sent."""
    if bool(ids) == all_:
        raise Refused("name the entries to send again, or give --all; `hub quarantine list` shows them")
    results = []
    with open_hub() as hub:
        actor = people.actor_of(people.given(hub), "operator")
        known = {entry["id"]: entry for entry in _open_entries(hub)}
        if unknown := [id_ for id_ in ids if id_ not in known]:
            if json_:
                output.document({"redriven": [], "unknown": unknown})
            output.note(f"hub: nothing is held under {', '.join(unknown)}: `hub quarantine list` shows the ids; nothing was sent")
            return 1
        door = hub.intake()
        for id_ in ids or sorted(known):
            entry = known[id_]
            outcome, facts, reason = redrive_entry(hub.log, door, entry, actor)
            results.append({"id": id_, "outcome": outcome, "facts": facts, "reason": reason})
            if not json_:
                output.line(f"{id_}  {outcome}, {facts} facts{f': {reason}' if reason else ''}")
    if json_:
        output.document({"redriven": results, "unknown": []})
    elif not results:
        print("nothing is held")
    return 1 if any(r["outcome"] in ("quarantined", "conflict") for r in results) else 0
