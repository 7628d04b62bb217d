"""Views said again in Python, from all facts at once: what the SQL folds must come to, batch by batch, and what the simulation keeps.

Nothing here is incremental, so it shares no mistake with the folds; what a single fact says (movements, held lines) is the shipped pure
function. A view without a reference is kept as the list of its facts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from events.base import Recorded
from events.integration import ContentConflicted, QuarantineRedriven
from events.inventory import FactRetracted, MovementReversed
from hub.log.codec import receipt_key
from hub.log.follow import View
from projections.movements import OWN, movements
from projections.naming import identity
from projections.quarantine import _held
from projections.undone import REVERSAL

Rows = dict[str, list[tuple[Any, ...]]]


def tables_of(view: View, facts: Sequence[Recorded]) -> Rows:
    """The rows of each table of a view, sorted by their text."""
    reference = REFERENCES.get(view.name)
    found = reference(facts) if reference else {"fact": [(fact.position,) for fact in facts]}
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


@dataclass(frozen=True)
class _Line:
    """A row of `movement`."""

    position: int
    line: int
    inverse: bool
    fact: Any
    original: Any
    source: str
    business_key: str
    names: tuple[str, ...]  # account, status, item, lot, serial, unit
    quantity: Decimal
    effective_at: datetime

    def row(self) -> tuple[Any, ...]:
        head = (self.position, self.line, self.inverse, self.fact, self.original, self.source, self.business_key)
        return *head, *self.names, self.quantity, self.effective_at, identity(*self.names)


def stock(facts: Sequence[Recorded]) -> Rows:
    """Ledger, balances, instants and negative stock."""
    undone = _reversals(facts)
    lines = [line for fact in facts for line in _lines(fact)]
    for line in list(lines):
        against = sorted(undone.get(line.fact, ()), key=lambda r: (r[5] is not None, r[5], r[4].encode()))
        if against:
            _, by, source, _, key, at, position = against[0]
            position, at = max(position, line.position), at or line.effective_at
            lines.append(_Line(position, line.line, True, by, line.fact, source, key, line.names, -line.quantity, at))
    accounts: dict[tuple[str, ...], list[_Line]] = defaultdict(list)
    for line in lines:
        accounts[line.names].append(line)
    rows: Rows = {
        "movement": [line.row() for line in lines],
        "balance": [
            (*names, _trim(sum((m.quantity for m in moved), Decimal(0))), max(m.position for m in moved), identity(*names))
            for names, moved in accounts.items()
        ],
        "instant": [],
        REVERSAL.name: [row for found in undone.values() for row in found],
        "exception": [],
    }
    for names, moved in accounts.items():
        if names[0].startswith(OWN):
            instants = list(_instants(names, moved))
            rows["instant"] += instants
            rows["exception"] += _negative(names, instants, max(m.position for m in moved))
    return rows


def _reversals(facts: Sequence[Recorded]) -> dict[Any, list[tuple[Any, ...]]]:
    found: dict[Any, list[tuple[Any, ...]]] = defaultdict(list)
    for fact in facts:
        e, event = fact.envelope, fact.event
        if isinstance(event, MovementReversed | FactRetracted):
            at = e.effective_at if isinstance(event, MovementReversed) else None
            original = receipt_key(e.source, event.original)
            found[original].append((original, receipt_key(e.source, e.key), e.source, event.original, e.key, at, fact.position))
    return found


def _lines(fact: Recorded) -> Iterator[_Line]:
    e = fact.envelope
    for n, m in enumerate(movements(fact.event)):
        head = (False, receipt_key(e.source, e.key), None, e.source, e.key)
        thing = (m.item, m.lot, m.serial, m.unit)
        yield _Line(fact.position, 2 * n, *head, (m.source, m.source_status, *thing), -m.quantity, e.effective_at)
        yield _Line(fact.position, 2 * n + 1, *head, (m.target, m.target_status, *thing), m.quantity, e.effective_at)


def _instants(names: tuple[str, ...], moved: Sequence[_Line]) -> Iterator[tuple[Any, ...]]:
    total = lowest = Decimal(0)
    since, position, first = None, 0, True
    for at in sorted({m.effective_at for m in moved}):
        here = [m for m in moved if m.effective_at == at]
        delta, changed = sum((m.quantity for m in here), Decimal(0)), max(m.position for m in here)
        causes = [(m.source.encode(), m.business_key.encode()) for m in here if m.quantity < 0]
        total, position = total + delta, max(position, changed)
        lowest, first = (total if first else min(lowest, total)), False
        since = since or (at if total < 0 else None)
        cause = [part.decode() for part in min(causes)] if causes else None
        yield identity(*names), at, _trim(delta), cause, changed, _trim(total), _trim(lowest), since, position


def _negative(names: tuple[str, ...], instants: Sequence[tuple[Any, ...]], position: int) -> Iterator[tuple[Any, ...]]:
    _, _, _, _, _, _, lowest, since, _ = instants[-1]
    if since is not None:
        account, _, item, lot, serial, unit = names
        source, key = next(i[3] for i in instants if i[1] == since)
        subject = "|".join(name.replace("%", "%25").replace("|", "%7C") for name in names)
        said = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        what = "/".join([item, *filter(None, (lot, serial))])
        reason = f"{lowest:f} {unit} of {what} is the lowest balance at {account}, first below zero {said}"
        yield "negative_stock", subject, source, key, account, reason, since, position


def quarantine(facts: Sequence[Recorded]) -> Rows:
    """What was held, what was driven again, the open conflicts."""
    redriven = [
        (receipt_key(f.envelope.source, f.envelope.key), f.event.quarantined_key, f.position)
        for f in facts
        if isinstance(f.event, QuarantineRedriven)
    ]
    latest = {key: position for _, key, position in sorted(redriven, key=lambda r: r[2])}
    rows: Rows = {"entry": [], "redrive": list(redriven), "exception": []}
    for fact in facts:
        for row in _held(fact):
            held_key = row[5]
            settled, position = held_key in latest, max(fact.position, latest.get(held_key, 0))
            rows["entry"].append((*row[:-2], settled, position))
            if isinstance(fact.event, ContentConflicted) and not settled:
                receipt, _, _, source, business_key, _, _, _, _, _, place, reason, first_seen, *_ = row
                rows["exception"].append(("content_conflict", str(receipt), source, business_key, place, reason, first_seen, position))
    return rows


def _trim(number: Decimal) -> Decimal:
    """Without zeros at the end, as trim_scale does."""
    found = number.normalize()
    return found.quantize(Decimal(1)) if found.as_tuple().exponent > 0 else found + 0  # type: ignore[operator]


REFERENCES: dict[str, Callable[[Sequence[Recorded]], Rows]] = {"stock": stock, "quarantine": quarantine}
