"""X12 interchanges to facts: each transaction set that is mapped by its own module, every other one held by its name."""

from collections.abc import Callable, Mapping, Sequence

from adapters.formats import x12, x12_text
from adapters.formats.x12 import Fault, TransactionSet
from adapters.x12 import acknowledged, asn, order, order_answer
from adapters.x12.common import Faulty, Set, faulty
from hub.intake.mapping import Context, Held, Line, Part

_MAPPED: Mapping[str, Callable[[Set, int], Sequence[Line | Held]]] = {
    "850": order.lines,
    "855": order_answer.lines,
    "856": asn.lines,
    "997": acknowledged.lines,
}
# What the sets are that are not mapped: a person who reads the quarantine should not have to look the number up.
_SETS = {
    "204": "motor carrier load tender", "210": "freight invoice", "214": "shipment status", "810": "invoice", "820": "payment order",
    "824": "application advice", "830": "planning schedule", "832": "price catalog", "840": "request for quotation", "846": "inventory advice",
    "857": "shipment and billing notice", "860": "purchase order change", "861": "receiving advice", "862": "shipping schedule",
    "863": "report of test results", "865": "purchase order change acknowledgment", "866": "production sequence",
    "867": "product transfer and resale", "940": "warehouse shipping order", "943": "stock transfer shipment advice",
    "944": "stock transfer receipt advice", "945": "warehouse shipping advice", "947": "inventory adjustment",
    "990": "response to a load tender", "999": "implementation acknowledgment",
}  # fmt: skip


class X12:
    """The mapping; see the module's docstring."""

    name = "x12/2"
    priority = 10

    def recognises(self, body: bytes) -> bool:
        """Anything that begins as X12 does, after a byte order mark or blanks."""
        return x12_text.looks_like(body)

    def read(self, body: bytes, context: Context) -> Sequence[Part]:
        """A part for each transaction set, numbered through the file. One that would make more facts than a file may is held whole."""
        parts: list[Part] = []
        left = asn.FACTS_MAX
        for n, one in enumerate(x12.parse(body), 1):
            parts.append(part(n, one, context, left))
            left -= sum(asn.count(line) for line in parts[-1].lines)
        return parts


def part(number: int, one: TransactionSet, context: Context, most: int = asn.FACTS_MAX) -> Part:
    """What a transaction set says, or why it is held; of a notice with more than `most` facts the latter."""
    source = f"x12:{one.sender}" if one.sender else "x12"
    if one.code in _MAPPED:
        lines = [faulty("", source, one.fault)] if one.fault else _MAPPED[one.code](Set(one, source, context), most)
        return Part(number, f"x12-{one.code}", source, lines)
    if not one.code:
        return Part(number, "x12", source, [faulty("", source, one.fault or Fault("no transaction set"))])
    known = one.code.isascii() and one.code.isdigit() and len(one.code) == 3
    what = f"X12 {one.code} ({_SETS[one.code]})" if one.code in _SETS else f"X12 {one.code[:20]}"
    broken = f"; besides, {one.fault.reason}" if one.fault else ""
    reason = f"{what} is not supported yet{broken}: it is kept here and can be driven again when a mapping for it exists"
    held = Faulty("", reason, one.fault.place if one.fault else "", source, one.fault)
    return Part(number, f"unsupported:x12-{one.code}" if known else "x12", source, [held])


MAPPING = X12()
