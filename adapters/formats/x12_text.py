"""How X12 bytes become text and how its separators are found. Pure, bounded; a text that is no X12 gives None."""

import codecs
import re
from functools import lru_cache

ISA_CHARS_MAX = 400  # a padded ISA has 106; wrapped and indented ones in real files stay under 250
_ISA_ELEMENTS = 16
NEXT_ISA = re.compile(r"ISA[^A-Za-z0-9 \t\r\n]")
_START = re.compile(
    rb"(?:\xef\xbb\xbf)?[\s\x00\x1a]*(?:ISA[^A-Za-z0-9 \t\r\n]|GS([^A-Za-z0-9 \t\r\n])[A-Z]{2}\1|ST([^A-Za-z0-9 \t\r\n])\d{3}\2)"
)
FRAGMENT = re.compile(r"(?:GS([^A-Za-z0-9 \t\r\n]).*?)?ST([^A-Za-z0-9 \t\r\n])(\d{3})\2", re.DOTALL)
_EBCDIC = "ISA".encode("cp500")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def looks_like(body: bytes) -> bool:
    """Whether a body starts as an interchange does, or as a group or a transaction set that lost its interchange."""
    head = body[:400]
    return _START.match(decode(head).encode() if head.startswith((*_UTF16, _EBCDIC)) else head) is not None


def decode(body: bytes) -> str:
    if body.startswith(_UTF16):
        return body.decode("utf-16", "replace")
    if body.startswith(_EBCDIC):
        return body.decode("cp500").replace("\x85", "\n")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return body.decode("latin-1").removeprefix("\xef\xbb\xbf")


def separators(text: str, start: int) -> tuple[str, str, str] | None:
    """Element separator, segment terminator and component separator, told from an ISA segment however it is padded; None for a broken one."""
    separator, position = text[start + 3], start + 3
    for _ in range(_ISA_ELEMENTS - 1):
        position = text.find(separator, position + 1, start + ISA_CHARS_MAX)
        if position < 0:
            return None
    match = _follows(separator).match(text, position + 1, position + ISA_CHARS_MAX)
    if match:
        component, mark, breaks = match.groups()
        if not mark and not (mark := "\n" if "\n" in breaks else "\r" if "\r" in breaks else ""):
            component, mark = "", component  # one character for both: ISA16 was left out
        elif not match[2] and text[match.end() : text.find(mark, match.end(), match.end() + ISA_CHARS_MAX)].endswith(component):
            component, mark = "", component  # likewise, and each segment on a line of its own
    elif position == start + 103 and not text[start + 105 : start + 106].isalnum():
        component, mark = text[start + 104 : start + 105], text[start + 105 : start + 106]  # garbage follows a sound ISA
    else:
        return None
    return (separator, mark, component) if mark and separator not in mark else None


@lru_cache(64)
def _follows(separator: str) -> re.Pattern[str]:
    """ISA16, the terminator and what wraps lines, up to the segment after ISA."""
    return re.compile(r"([^\r\n])([^ \t\r\n]{0,3})([ \t\r\n]*)(?=(?:GS|TA1|IEA|ISA|ST)" + re.escape(separator) + ")")
