"""The account of a headless demo: every line of the sent-log against what the log and the quarantine hold, and the views folded anew.

The counts come from the log table itself, not from what intake answered.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg

from events.errors import Unavailable
from hub.app import answers, queries
from hub.app.wiring import Hub
from hub.log.follow import live_schema, shadow_schema
from projections.base import TableView
from projections.digest import view_digest
from projections.quarantine import entries
from replay.rebuild import rebuild

SETTLE_S = 60.0


def settle(hub: Hub, sent_log: Path, views: Sequence[TableView], step: Callable[[], None]) -> tuple[dict[str, Any], list[str]]:
    """The summary of contracts.md (`hub demo --json`) and a sentence for each thing that is not accounted for.

    `step` keeps the supervisor going while views catch up.
    """
    lines = [json.loads(line) for line in sent_log.read_text("utf-8").splitlines()]
    _await_facts(hub, lines, step)
    _await_views(hub, step)
    with answers.caught_up(hub) as cursor:
        stored = _stored(cursor)
        held = [dict(entry) for entry in entries(cursor)]
        troubles, outcomes = _compare(lines, stored, held)
        ledger = queries.ledger(cursor)
        exceptions = queries.exception_counts(cursor)
    _, _rebuilt = rebuild(hub.follow_url, views, lambda p: step(), restart=True)
    with psycopg.connect(hub.follow_url) as connection, connection.cursor() as cursor2:
        digests = {view.name: view_digest(cursor2, live_schema(view.name), view, business=True) for view in views if not view.by_arrival}
        rebuilt = {view.name: view_digest(cursor2, shadow_schema(view.name), view, business=True) for view in views if not view.by_arrival}
    troubles += [
        f"view {name} folded anew gives {rebuilt[name][:16]}, live {digests[name][:16]}"
        for name in digests
        if digests[name] != rebuilt[name]
    ]
    troubles += [f"the ledger's sum in {unit} is {total}, not zero" for unit, total in ledger.items() if total != "0"]
    return {
        "sent": dict(sorted(Counter(line["source"] for line in lines).items())),
        "outcomes": outcomes,
        "events": sum(stored.values()),
        "exceptions": exceptions,
        "ledger": ledger,
        "digests": digests,
        "rebuilt": rebuilt,
    }, troubles


def _await_facts(hub: Hub, lines: Sequence[dict[str, Any]], step: Callable[[], None]) -> None:
    """Let what brokers and folders still hold arrive; until it has, or until nothing came for a while: the account says what is missing."""
    wanted = {(line["source"], line["business_key"]) for line in lines if line["expected"] in ("accepted", "duplicate")}
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < SETTLE_S:
        step()
        try:
            if (head := hub.log.head()) != seen:
                seen, since = head, time.monotonic()
                with answers.reading(hub) as cursor:
                    if wanted <= _stored(cursor).keys():
                        return
        except Unavailable:
            pass  # the server was killed and comes back
        time.sleep(0.2)


def _await_views(hub: Hub, step: Callable[[], None]) -> None:
    """Let the live followers reach the head by themselves: that they do is part of what is shown."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        step()
        try:
            found = answers.status(hub)
            if all(position == found["head"] for position in found["views"].values()) and found["views"]:
                return
        except Unavailable:
            pass  # killed and restarted a moment ago
        time.sleep(0.1)
    raise Unavailable(f"the views did not reach the head within {SETTLE_S:.0f} s: look at `hub status` and into the home's run/log")


def _stored(cursor: psycopg.Cursor[tuple[Any, ...]]) -> Counter[tuple[str, str]]:
    """How often each (source, key) stands in the log; the hub's own notes under the empty source."""
    cursor.execute(
        """select case when type like 'integration.%%' then '' else source end, business_key, count(*)
           from log.event group by 1, 2"""
    )
    return Counter({(source, key): count for source, key, count in cursor})


def _compare(
    lines: Sequence[dict[str, Any]], stored: Counter[tuple[str, str]], held: Sequence[dict[str, Any]]
) -> tuple[list[str], dict[str, int]]:
    troubles: list[str] = []
    outcomes = dict.fromkeys(("accepted", "duplicate", "conflict", "quarantined"), 0)
    conflicts = {(entry["source"], entry["business_key"]) for entry in held if entry["kind"] == "conflict"}
    bytes_held = {entry["sha256"] for entry in held if entry["kind"] == "quarantined"}
    expected: set[tuple[str, str]] = set()
    for line in lines:
        name, wanted = (line["source"], line["business_key"]), line["expected"]
        if wanted == "quarantined":
            found = line["sha256"] in bytes_held
        elif wanted == "conflict":
            found = name in conflicts and stored[name] == 1
        else:
            found = stored[name] == 1
            expected.add(name)
        if found:
            outcomes[wanted] += 1
        else:
            troubles.append(f"{wanted} {name[0]} {name[1] or line['sha256']} is in the log {stored[name]} times")
    troubles += [f"{source} {key} is in the log, but nobody sent it" for source, key in stored if source and (source, key) not in expected]
    planned = {(line["source"], line["business_key"]) for line in lines if line["expected"] == "conflict"}
    troubles += [f"conflict {source} {key} was not planned" for source, key in conflicts - planned]
    planned_bytes = {line["sha256"] for line in lines if line["expected"] == "quarantined"}
    troubles += [
        f"{entry['source']} {entry['sha256']} is held ({entry['reason']}), but was to be taken"
        for entry in held
        if entry["kind"] == "quarantined" and entry["sha256"] not in planned_bytes
    ]
    return troubles, outcomes
