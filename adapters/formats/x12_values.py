"""Values as X12 writes them: dates, times with their time code, decimals. Pure; a value that does not exist is a ValueError that says so."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo

_DATE = re.compile(r"(?:\d{2})?\d{6}", re.ASCII)
_TIME = re.compile(r"(\d\d)(\d\d)(?:(\d\d)(\d{0,2}))?", re.ASCII)
_DECIMAL = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:E([+-]?\d{1,2}))?", re.ASCII)
_DIGITS_MAX = 40

# Data element 623: hours from UTC in standard time; the second letter says standard (S), daylight (D) or whichever holds (T).
_HOURS = {"A": -9.0, "C": -6.0, "E": -5.0, "H": -10.0, "M": -7.0, "N": -3.5, "P": -8.0, "T": -4.0}


def local_time(date: str, time: str) -> datetime:
    """The date (CCYYMMDD, or YYMMDD from 1970 to 2069) and time (HHMM, HHMMSS, HHMMSSDD; "" is midnight) without a zone."""
    if not _DATE.fullmatch(date):
        raise ValueError(f"{date[:20]!r} is not a date: write CCYYMMDD")
    match = _TIME.fullmatch(time or "0000")
    if match is None:
        raise ValueError(f"{time[:20]!r} is not a time: write HHMM or HHMMSS")
    if len(date) == 6:
        date = ("19" if date >= "70" else "20") + date
    hour, minute, second, hundredths = match.groups()
    try:
        return datetime(  # noqa: DTZ001 - the zone is the caller's
            int(date[:4]),
            int(date[4:6]),
            int(date[6:]),
            int(hour),
            int(minute),
            int(second or 0),
            int((hundredths or "").ljust(2, "0")) * 10_000,
        )
    except ValueError:
        raise ValueError(f"{date} {time} is no date and time that exists") from None


def zone_of(code: str, at: datetime) -> tzinfo | None:
    """The offset that a time code (data element 623) means at a local time; None for a code that names none, such as LT (local time)."""
    code = code.upper()
    if code in ("UT", "GM", "Z"):
        return UTC
    if code.isascii() and code.isdigit() and len(code) == 2 and 1 <= int(code) <= 24:
        return timezone(timedelta(hours=int(code) if int(code) <= 12 else int(code) - 25))
    if len(code) != 2 or code[0] not in _HOURS or code[1] not in "SDT" or code == "LT":
        return None
    daylight = code[1] == "D" or (code[1] == "T" and code[0] != "H" and _daylight(at))
    return timezone(timedelta(hours=_HOURS[code[0]] + daylight))


def decimal_text(text: str) -> str:
    """A number (data type R) in plain digits, as the vocabulary reads it: no sign but minus, no exponent."""
    match = _DECIMAL.fullmatch(text) if len(text) <= _DIGITS_MAX else None
    if match is None or not (match[2] or match[3]):
        raise ValueError(f"{text[:20]!r} is not a number")
    sign, whole, part, exponent = match[1].replace("+", ""), match[2], match[3] or "", int(match[4] or 0)
    digits, point = whole + part, len(whole) + exponent
    if point <= 0:
        digits, point = "0" * (1 - point) + digits, 1
    digits = digits.ljust(point, "0")
    whole, part = digits[:point].lstrip("0") or "0", digits[point:].rstrip("0")
    return sign + whole + (f".{part}" if part else "")


def _daylight(at: datetime) -> bool:
    """Whether daylight time holds in North America: since 2007 from the second Sunday of March to the first of November, at 2 o'clock.

    Written out here because the answer must be the same on every machine, with or without a zone database.
    """
    if at.year >= 2007:
        first, last = _sunday(at.year, 3, 8), _sunday(at.year, 11, 1)
    else:
        first, last = _sunday(at.year, 4, 1), _sunday(at.year, 10, 25)
    return first <= at < last


def _sunday(year: int, month: int, day: int) -> datetime:
    """2 o'clock on the first Sunday from a day on."""
    at = datetime(year, month, day, 2)  # noqa: DTZ001 - local
    return at + timedelta(days=(6 - at.weekday()) % 7)
