"""X12 interchanges for tests: one content, and the many ways in which partners write it."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

KINDS = {"850": "PO", "855": "PR", "856": "SH", "810": "IN", "997": "FA"}


def interchange(
    sets: Sequence[Sequence[str]], sender: str = "ACME", element: str = "*", end: str = "~", component: str = ">", code: str = "856"
) -> str:
    """One group with these sets, each a list of segments between ST and SE written with `*`."""
    isa = f"ISA*00*{'':10}*00*{'':10}*ZZ*{sender:15}*ZZ*{'PLANT':15}*260105*0600*U*00401*000000007*0*P*{component}"
    out = [isa, f"GS*{KINDS[code]}*ACME*PLANT*20260105*0600*9*X*004010"]
    for n, segments in enumerate(sets, 1):
        out += [f"ST*{code}*{n:04}", *segments, f"SE*{len(segments) + 2}*{n:04}"]
    out += [f"GE*{len(sets)}*9", "IEA*1*000000007"]
    return "".join(s.replace("*", element) + end for s in out)


# Separators, line breaks, byte order mark, wrapping, padding, empty elements, control numbers.
WRITTEN = st.fixed_dictionaries(
    {
        "separators": st.sampled_from(
            [("*", "~", ">"), ("|", "'", ":"), ("+", "\n", "\\"), ("~", "…", "`"), ("\x1d", "\x1c", "\x1f"), ("^", "\r\n", "<")]
        ),
        "after": st.sampled_from(["", "\n", "\r\n", "\r", "\n    "]),
        "bom": st.booleans(),
        "before": st.sampled_from(["", "\r\n", "  "]),
        "wrap": st.integers(0, 90),
        "empties": st.integers(0, 3),
        "unpadded": st.booleans(),
        "control": st.integers(1, 9999),
    }
)


def rewrite(segments: Sequence[str], how: dict[str, Any], code: str = "856") -> bytes:
    """An interchange with one set, written in one of the ways of `WRITTEN`."""
    element, end, component = how["separators"]
    text = interchange([segments], element=element, end="\x00", component=component, code=code)
    parts = text.rstrip("\x00").split("\x00")
    if how["unpadded"]:
        parts[0] = element.join(e.strip() for e in parts[0].split(element))
    parts = [p.replace("000000007", f"{how['control']:09}") for p in parts]
    parts = [p + element * how["empties"] if n and p[:3] not in ("IEA", "ISA") else p for n, p in enumerate(parts)]
    after = "" if end.strip("\r\n") == "" else how["after"]
    text = "".join(p + end + after for p in parts)
    if how["wrap"] > 40 and not after and end.strip("\r\n"):
        head = len(parts[0]) + len(end)
        text = text[:head] + "\r\n".join(text[head + n : head + n + how["wrap"]] for n in range(0, len(text) - head, how["wrap"]))
    return f"{chr(0xFEFF) if how['bom'] else ''}{how['before']}{text}".encode()
