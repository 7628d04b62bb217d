"""Dates and times in X12 segments as moments in UTC. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo

from adapters.formats.x12 import Broken, Segment
from adapters.formats.x12_values import local_time, zone_of


def check_time(s: Segment) -> None:
    """Raises `Broken` for a DTM or SCH whose date and time do not exist."""
    n = 2 if s.tag == "DTM" else 6 if s.tag == "SCH" else 0
    if n and s[n]:
        try:
            local_time(s[n], s[n + 1])
        except ValueError as error:
            raise Broken(f"{s.tag}{n:02} and {s.tag}{n + 1:02}: {error}", s, "8", n) from None


def utc(local: datetime, zone: tzinfo) -> datetime:
    """A local time of a zone in UTC."""
    try:
        return local.replace(tzinfo=zone).astimezone(UTC)
    except OverflowError:  # the first or last day that there is
        return local.replace(tzinfo=UTC)


def moment(date: str, time: str, code: str, zone: tzinfo | None) -> datetime:
    """The moment of a date and time that exist: by their time code, else in the zone, else in UTC. A date without a time is its midnight."""
    local = local_time(date, time)
    return utc(local, zone_of(code, local) or zone or UTC)


def dated(said: Sequence[Segment], qualifiers: Sequence[str], zone: tzinfo | None) -> datetime | None:
    """The first checked DTM of the first qualifier (data element 374) that there is."""
    for qualifier in qualifiers:
        for s in said:
            if s.tag == "DTM" and s[1] == qualifier and s[2]:
                return moment(s[2], s[3], s[4], zone)
    return None


def scheduled(said: Sequence[Segment], qualifiers: Sequence[str], zone: tzinfo | None) -> set[datetime]:
    """The moments of checked SCH of these qualifiers."""
    return {moment(s[6], s[7], "", zone) for s in said if s[5] in qualifiers and s[6]}
