"""Re-drive: sends a held delivery, part or line through the door again, with the mappings and the configuration of today.

Only what the entry holds is appended: its document and the lines that were accepted before stay as they are. The bytes are those kept when it
came. Doing it twice does nothing twice.
"""

from collections.abc import Mapping
from typing import Any

from events.base import Envelope, Fact
from events.errors import Corrupt
from events.integration import QuarantineRedriven
from hub.intake.delivery import WORST_FIRST, trace_header
from hub.intake.door import Intake
from hub.intake.mapping import Held, Line
from hub.log.store import Accepted, Conflict, Log


def redrive_entry(log: Log, intake: Intake, entry: Mapping[str, Any], actor: str = "operator") -> tuple[str, int, str]:
    """Send one entry of the quarantine view again: (outcome, facts newly added, reason it stays held). Raises `Corrupt`, `Unavailable`.

    `entry` has sha256, part, line, kind, source, held_key (the entry's own business key) and for conflicts business_key. `actor`: who sends it, for the fact that settles it.
    """
    body = log.body(bytes.fromhex(entry["sha256"]))
    if body is None:
        raise Corrupt(f"the bytes of entry {entry['id']} are not in log.delivery: restore them from a backup")
    held_fact = log.find(entry["source"], entry["held_key"])
    if held_fact is None:
        raise Corrupt(f"entry {entry['id']} of the quarantine view is not in the log: run hub replay verify")
    if entry["line"] or entry["kind"] == "conflict":
        outcome, added, reason = _line_again(log, intake, entry, body, held_fact.envelope)
        settled = outcome in ("accepted", "duplicate")
    else:
        settled, outcome, added, reason = _part_again(intake, entry, body, held_fact.envelope)
    if settled:
        log.append([_decision(held_fact.envelope, entry, outcome, added, actor)])
    return outcome, added, reason


def _part_again(intake: Intake, entry: Mapping[str, Any], body: bytes, held: Envelope) -> tuple[bool, str, int, str]:
    """A whole part. Where it maps now it is settled: lines of it that are held or in conflict have entries of their own by then."""
    parts = intake.take_part(body, entry["sha256"], entry["part"], held.occurred_at, held.source, trace_header(held.traceparent)).parts
    lines = [line for part in parts for line in part.lines]
    if not lines:
        return False, "quarantined", 0, "the part is gone"
    added = sum(line.outcome == "accepted" for line in lines)
    outcome = next(name for name in WORST_FIRST if any(line.outcome == name for line in lines))
    trouble = next((line for line in lines if line.outcome == outcome and line.reason), None)
    reason = "" if trouble is None else f"{trouble.place}: {trouble.reason}" if trouble.place else trouble.reason
    return not any(line.outcome == "quarantined" and line.path == "" for line in lines), outcome, added, reason


def _line_again(log: Log, intake: Intake, entry: Mapping[str, Any], body: bytes, held: Envelope) -> tuple[str, int, str]:
    facts: list[Fact] = []
    for part in intake.map(body, entry["sha256"], trace_header(held.traceparent), "unknown"):
        for line in part.lines if part.number == entry["part"] else ():
            if line.path not in (entry["line"], ""):
                continue
            if isinstance(line, Held):
                return "quarantined", 0, f"{line.place}: {line.reason}" if line.place else line.reason
            if line.path == entry["line"]:
                facts += _wanted(line, entry)
    if not facts:
        where = f"line {entry['line']}" if entry["line"] else "the document"
        return "quarantined", 0, f"{where} of part {entry['part']} is not found in its bytes any more"
    results = log.append(facts)
    added = sum(isinstance(r, Accepted) for r in results)
    if conflict := next((r for r in results if isinstance(r, Conflict)), None):
        return "conflict", added, f"the key is taken by other content at position {conflict.position}"
    return "accepted" if added else "duplicate", added, ""


def _wanted(line: Line, entry: Mapping[str, Any]) -> list[Fact]:
    if entry["kind"] == "conflict":
        return [fact for fact in line.facts if fact.envelope.key == entry["business_key"]]
    return list(line.facts)


def _decision(held: Envelope, entry: Mapping[str, Any], outcome: str, facts: int, actor: str) -> Fact:
    event = QuarantineRedriven(raw_sha256=entry["sha256"], quarantined_key=held.key, outcome=outcome, facts=facts)
    envelope = Envelope(
        source=held.source,
        key=f"{held.key}!redriven",
        occurred_at=held.occurred_at,
        effective_at=held.effective_at,
        causation=held.key[:200],
        actor=actor,
        mapping="redrive/1",
        raw=entry["sha256"],
        traceparent=held.traceparent,
    )
    return Fact(envelope, event)
