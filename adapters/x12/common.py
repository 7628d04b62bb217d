"""What the mappings of X12 transaction sets share: held lines that know their fault, and facts with their envelope."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from adapters.formats import units, x12, x12_names, x12_orders
from adapters.formats.x12 import Fault, Segment, TransactionSet
from adapters.formats.x12_dates import utc
from adapters.formats.x12_orders import Document
from events import canonical
from events.base import Envelope, Event, Fact
from hub.intake.mapping import Context, Held, Partner


@dataclass(frozen=True, slots=True)
class Faulty(Held):
    """A held line with its fault: where in the set it is, for the 997 that goes back."""

    fault: Fault | None = None


def faulty(path: str, source: str, fault: Fault) -> Faulty:
    """The held line of a fault; of a whole set (path "") with the next step."""
    reason = fault.reason if path or not fault.remedy else f"{fault.reason}; {fault.remedy}"
    return Faulty(path, reason, fault.place, source, fault)


@dataclass(frozen=True, slots=True)
class Set:
    """A sound transaction set with what is known of who sent it."""

    one: TransactionSet
    source: str
    context: Context

    @property
    def partner(self) -> str:
        """The sender's id (ISA06)."""
        return self.one.sender.partition(":")[2]

    @property
    def config(self) -> Partner:
        return self.context.partners.get(self.source) or Partner()

    @property
    def zone(self) -> tzinfo | None:
        return self.config.zone

    def unit(self, code: str) -> str | None:
        """The Rec 20 code of an X12 unit of this partner."""
        return units.from_x12(code, self.config.units)

    def day(self, local: datetime) -> tuple[datetime, str]:
        """A date of the document, the midnight it begins with in the partner's zone, and how sure that is."""
        return (utc(local, self.zone), "partner_zone") if self.zone is not None else (utc(local, UTC), "assumed_utc")

    def fact(self, key: str, event: Event, at: datetime, quality: str, details: Mapping[str, Any] | None = None) -> Fact:
        """A fact that this set says."""
        return Fact(
            Envelope(
                source=self.source,
                key=key,
                occurred_at=at,
                effective_at=at,
                time_quality=quality,
                mapping=f"x12-{self.one.code}/1",
                raw=self.context.raw,
                traceparent=self.context.traceparent,
                details=dict(details or {}),
            ),
            event,
        )


def parties(said: Sequence[Segment], *codes: str) -> str:
    """Name and id of the first party (N1) of these roles, `ACME (92:000009)`."""
    for code in codes:
        for s in said:
            if s.tag == "N1" and s[1] == code:
                number = f"{s[3]}:{s[4]}" if s[4] else ""
                return f"{s[2]} ({number})" if s[2] and number else s[2] or number
    return ""


def content(one: TransactionSet, alike: Mapping[int, str]) -> str:
    """The sha256 (hex) over all that a set says but its transport numbers; `alike` are elements of its first segment that do not count."""
    found = list(x12.canonical(one))
    for n, value in alike.items():
        found[0][n] = value
    return canonical.digest(found).hex()


def filled(**said: str) -> dict[str, str]:
    """What is not empty."""
    return {name: value for name, value in said.items() if value}


def line_details(document: Document) -> dict[str, Any]:
    """What the header and the lines of an order or its acknowledgement say in numbers and references that no field of a fact has."""
    found: dict[str, Any] = {}
    if head := x12_names.references(document.head):
        found["references"] = head
    lines: dict[str, Any] = {}
    for line in document.lines:
        said: dict[str, Any] = {"numbers": x12_orders.numbers(line.po1), "references": x12_names.references(line.own)}
        said["schedules"] = [" ".join(filter(None, (s[1], s[2], s[5], s[6], s[7]))) for s in line.schedules]
        if said := {name: value for name, value in said.items() if value}:
            lines[line.number] = said
    return found | ({"lines": lines} if lines else {})


def escaped(*parts: str) -> str:
    """Parts of a key, so that a slash in one is none between two."""
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)
