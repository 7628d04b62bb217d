"""Re-drive: sends a held delivery, part or line through the door again, with the mappings and the configuration of today.

Only what the entry holds is appended: its document and the lines that were accepted before stay as they are. The bytes are those kept when it
came. Doing it twice does nothing twice.
"""

from collections.abc import Mapping
from typing import Any

from events.base import Envelope, Fact
from events.errors import Corrupt
from events.integration import QuarantineRedriven
from hub.intake.door import Intake
from hub.intake.mapping import Held, Line
from hub.log.store import Accepted, Conflict, Log


def redrive_entry(log: Log, intake: Intake, entry: Mapping[str, Any]) -> tuple[str, int, str]:
    """Send one entry of the quarantine view again: (outcome, facts newly added, reason it stays held). Raises `Corrupt`, `Unavailable`.

    `entry` has sha256, part, line, kind, source, held_key (the entry's own business key) and for conflicts business_key.
    """
    body = log.body(bytes.fromhex(entry["sha256"]))
    if body is None:
        raise Corrupt(f"the bytes of entry {entry['id']} are not in log.delivery: restore them from a backup")
    held_fact = log.find(entry["source"], entry["held_key"])
    if held_fact is None:
        raise Corrupt(f"entry {entry['id']} of the quarantine view is not in the log: run hub replay verify")
    if entry["line"]:
        outcome, added, reason = _line_again(log, intake, entry, body)
    else:
        outcome, added, reason = _part_again(intake, entry, body, held_fact.envelope)
    if outcome in ("accepted", "duplicate"):
        log.append([_decision(held_fact.envelope, entry, outcome, added)])
    return outcome, added, reason


def _part_again(intake: Intake, entry: Mapping[str, Any], body: bytes, held: Envelope) -> tuple[str, int, str]:
    """A whole part: lines of it that cannot be mapped now become entries of their own."""
    lines = [line for part in intake.take_part(body, entry["sha256"], entry["part"], held.occurred_at).parts for line in part.lines]
    still = next((line for line in lines if line.outcome == "quarantined" and line.path == ""), None)
    if still or not lines:
        return (
            "quarantined",
            0,
            (f"{still.place}: {still.reason}" if still and still.place else still.reason if still else "the part is gone"),
        )
    added = sum(line.outcome == "accepted" for line in lines)
    return "accepted" if added else "duplicate", added, ""


def _line_again(log: Log, intake: Intake, entry: Mapping[str, Any], body: bytes) -> tuple[str, int, str]:
    facts: list[Fact] = []
    for part in intake.map(body, entry["sha256"], {}, "unknown"):
        for line in part.lines if part.number == entry["part"] else ():
            if line.path not in (entry["line"], ""):
                continue
            if isinstance(line, Held):
                return "quarantined", 0, f"{line.place}: {line.reason}" if line.place else line.reason
            if line.path == entry["line"]:
                facts += _wanted(line, entry)
    if not facts:
        return "quarantined", 0, f"line {entry['line']} of part {entry['part']} is not found in its bytes any more"
    results = log.append(facts)
    added = sum(isinstance(r, Accepted) for r in results)
    if conflict := next((r for r in results if isinstance(r, Conflict)), None):
        return "conflict", added, f"the key is taken by other content at position {conflict.position}"
    return "accepted" if added else "duplicate", added, ""


def _wanted(line: Line, entry: Mapping[str, Any]) -> list[Fact]:
    if entry["kind"] == "conflict":
        return [fact for fact in line.facts if fact.envelope.key == entry["business_key"]]
    return list(line.facts)


def _decision(held: Envelope, entry: Mapping[str, Any], outcome: str, facts: int) -> Fact:
    event = QuarantineRedriven(raw_sha256=entry["sha256"], quarantined_key=held.key, outcome=outcome, facts=facts)
    envelope = Envelope(
        source=held.source,
        key=f"{held.key}!redriven",
        occurred_at=held.occurred_at,
        effective_at=held.effective_at,
        causation=held.key[:200],
        actor="operator",
        mapping="redrive/1",
        raw=entry["sha256"],
    )
    return Fact(envelope, event)
