"""W3C trace context: which trace of the source a delivery came in. Carried beside a fact, part of nothing that it says."""

import re

_KNOWN = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})(-.*)?", re.DOTALL)
_CHARS_MAX = 512  # of one of a later version, which may say more


def traceparent(said: str | bytes | None) -> str:
    """A `traceparent` in version 00 as the source wrote it; empty where it is not one, which W3C says to ignore."""
    if not said or len(said) > _CHARS_MAX:
        return ""
    found = _KNOWN.fullmatch(said.decode("latin-1") if isinstance(said, bytes) else said)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[3] is not None):
        return ""
    trace, span, _ = found[2].split("-")
    return "" if trace == "0" * 32 or span == "0" * 16 else f"00-{found[2]}"
