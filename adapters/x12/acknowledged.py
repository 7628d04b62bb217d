"""X12 997 functional acknowledgements to facts: one `integration.functional_group_acknowledged` for each group of ours that a partner answers.

Key `997/{AK101}/{AK102}/{digest}`: the answer has no date and no number of its own, so the same answer in another envelope is the same fact, and
another answer to the same group is another.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from adapters.formats import x12_997
from adapters.formats.x12 import Broken, Fault, TransactionSet
from adapters.formats.x12_dates import utc
from adapters.formats.x12_values import local_time
from adapters.x12.common import Set, escaped, faulty
from events import canonical
from events.errors import Refused
from events.integration import FunctionalGroupAcknowledged
from hub.intake.mapping import Held, Line

_DIGEST_CHARS = 32


def lines(said: Set, most: int) -> Sequence[Line | Held]:
    """The acknowledgement as one line, or why it is held."""
    try:
        event = FunctionalGroupAcknowledged.of({"partner": said.partner, **x12_997.read(said.one)})
        at = _written(said.one)
    except Broken as error:
        return [faulty("", said.source, error.fault)]
    except Refused as error:
        return [faulty("", said.source, Fault.at(f"the acknowledgement: {error}", said.one.segments[0], "8"))]
    digest = canonical.digest(event.data()).hex()[:_DIGEST_CHARS]
    zone = said.zone
    return [
        Line(
            "",
            [
                said.fact(
                    escaped("997", event.functional_id, event.control, digest),
                    event,
                    utc(at, zone or UTC),
                    "assumed_utc" if zone is None else "partner_zone",
                )
            ],
        )
    ]


def _written(one: TransactionSet) -> datetime:
    """When its group or interchange was written, local: a 997 says no time, and this one is not part of what it says."""
    gs = one.group.gs if one.group is not None else one.isa
    for s, date, time in ((gs, 4, 5), (one.isa, 9, 10)):
        try:
            return local_time(s[date], s[time])
        except ValueError:
            continue  # the other one
    raise Broken("neither GS04 and GS05 nor ISA09 and ISA10 are a date and time: nothing says when it was written", gs)
