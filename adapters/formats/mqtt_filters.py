"""MQTT topic filters: which are sound, which cover others, and which must not stand beside one another. Pure.

A broker may send a message once for every subscription that it matches, under different packet numbers, so that nobody can tell it from two
equal messages. Therefore only filters that no other covers are subscribed to, and two that overlap in part are refused (`overlapping`).
"""

from collections.abc import Sequence


def sound(filter_: str) -> bool:
    """Whether MQTT allows it: `+` alone in its level, `#` alone in the last."""
    levels = filter_.split("/")
    alone = all(not ({"+", "#"} & set(level)) or len(level) == 1 for level in levels)
    return 0 < len(filter_.encode("utf-8", "replace")) < 65536 and "\x00" not in filter_ and alone and "#" not in levels[:-1]


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic of the one is one of the other; `narrow` may be a topic."""
    wides, narrows = wide.split("/"), narrow.split("/")
    if narrows[0].startswith("$") and wides[0] in ("+", "#"):  # such topics must be asked for by name
        return False
    for n, level in enumerate(wides):
        if level == "#":
            return True
        if n >= len(narrows) or narrows[n] == "#" or (level != "+" and level != narrows[n]):
            return False
    return len(wides) == len(narrows)


def widest(filters: Sequence[str]) -> list[str]:
    """Those that no other covers, in their order."""
    distinct = list(dict.fromkeys(filters))
    return [one for one in distinct if not any(other != one and covers(other, one) for other in distinct)]


def overlapping(filters: Sequence[str]) -> tuple[str, str] | None:
    """Two of them that share topics without one covering the other."""
    found = widest(filters)
    return next(((a, b) for n, a in enumerate(found) for b in found[n + 1 :] if _meet(a.split("/"), b.split("/"))), None)


def _meet(a: Sequence[str], b: Sequence[str]) -> bool:
    if (a[0].startswith("$") and b[0] in ("+", "#")) or (b[0].startswith("$") and a[0] in ("+", "#")):
        return False
    for n in range(max(len(a), len(b))):
        one, other = a[n] if n < len(a) else None, b[n] if n < len(b) else None
        if "#" in (one, other):
            return True
        if one is None or other is None or (one != other and "+" not in (one, other)):
            return False
    return True
