"""What fuzzing begins with and how it goes on: seeds by the target that reads them, and mutations that know JSON, segments and lines.

Everything is drawn from the `random.Random` that is handed in, so that seed, target and number of an input make the same input again.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.crash.report import ROOT

BYTES_MAX = 256 * 1024  # of one input: what takes time or memory by its square shows well below it
SEEDS = Path(__file__).parent / "seeds"
CORPUS = ROOT.parent / "shared" / "corpus"  # real files beside the project; where they are not there, the seeds suffice
CORPUS_BYTES_MAX = 16 * 1024  # of a real file: small ones have the same structures and are read a hundred times as often

TEXTS = (
    "", " ", "0", "-1", "1e999", "1E99", "9" * 39, "0.0000000000001", "NaN", "null", "\x00", "\x1f", "\x7f", "\ufeff", "\u2028", "\ud800", "١٢٣", "é", "𝄞",
    "%00", "%ff", "%2F", "/", "..", "a" * 201, "b" * 4001, "99999999", "20260230", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00",
    "2026-01-05T06:00:60Z", "2026-01-05T06:00:00.1234567891+23:59", "+14:59", "urn:epc:id:sgtin:4012345.012345.", "urn:epc:id:sscc:1.1",
    "https://id.gs1.org/01/04012345123456/10/", "urn:x:y", "a:b", "@id", "type", "lot:", "EA", "ZZ", "{}", "[", '"', "'", "~", "*", ">", "^", "\n", "\r\n",
)  # fmt: skip
VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**37, 10**40, 0.1, 1e-30, 1e30, [], {}, [[]], [{}], [None], {"": ""}, {"type": None},
    {"@id": 1}, {"id": "urn:x:1"}, {"value": "1", "unit": "EA"},
)  # fmt: skip
_TIMES = (2, 2, 2, 5, 5, 20, 20, 100, 100, 500, 3000, 20_000)  # how often something is repeated


def seeds(wanted: Callable[[bytes], bool]) -> list[bytes]:
    """The bodies that a target wants: ours, a fact of each type, and real files where they are."""
    found = [path.read_bytes() for path in sorted(SEEDS.iterdir())]
    found += [line.replace(b'"business_key"', b'"key"') for line in (ROOT / "tests/histories/bicycle.ndjson").read_bytes().splitlines()]
    real = (path for path in sorted(CORPUS.rglob("*")) if path.is_file() and path.stat().st_size <= CORPUS_BYTES_MAX)
    return [body for body in (*found, *(path.read_bytes() for path in real)) if wanted(body)]


def squares(times: int = 2000) -> list[bytes]:
    """Notices, orders and a document in which two things come often: what is made of each with each, or copied for each, grows by the square."""
    text = (SEEDS / "notice.x12").read_text()
    head, tail = text[: text.index("HL*3*2*T")], text[text.index("CTT*") :]

    def often(segments: str) -> str:
        return "".join(segments.replace("#", str(n)) for n in range(times))

    item, lots, lines = "HL*3*2*I~LIN*1*BP*A~SN1**1*EA~", often("REF*LT*#~"), often("LIN*1*BP*A~SN1**1*EA~")
    levels = [
        f"HL*3*2*I~LIN*1*BP*A{often('*A#*#')}~SN1**1*EA~{lots}",
        f"{item}{often('REF*A#*a~')}{lots}",
        f"{item}HL*4*3*T~{lots}{often('HL*1#*4*P~MAN*GM*#~')}",
        f"{item}HL*4*3*T~{often('REF*LT*L~')}{often('HL*1#*4*P~MAN*GM*#~')}",
        f"HL*3*2*I~{often('MAN*GM*#~')}{lines}",
        f"HL*3*2*I~{often('PRF*~')}{lines}",
    ]
    orders = [
        _often("order.x12", "PO1*10*", often("PO1*#*1*EA***BP*A~REF*A#*a~"), "CTT*"),
        _often("order.x12", "PO1*10*", f"PO1*1*1*EA***BP*A~{often('REF*A*#~')}{often('SCH*1*EA***002*20260105~')}", "CTT*"),
        _often("acknowledged.x12", "AK3*", often("AK3*PO1*#**8~AK4*1**1~"), "AK5*R"),
    ]
    document = json.loads((SEEDS / "document.epcis.json").read_bytes())
    event = document["epcisBody"]["eventList"][-1]
    contexts = {f"t{n}": "urn:x:" for n in range(4 * times)}, {"e": "urn:" + "x" * 100_000}
    events = [{"type": "ObjectEvent", "@context": {}}] * times, [event | {f"e:{n}": 1 for n in range(4 * times)}]
    documents = [document | {"@context": [c], "epcisBody": {"eventList": e}} for c, e in zip(contexts, events, strict=True)]
    notices = [_recounted(f"{head}{level}{tail}".encode()) for level in levels]
    return [*notices, *orders, *(json.dumps(one).encode() for one in documents)]


def _often(seed: str, begin: str, segments: str, end: str) -> bytes:
    """A seed with other segments from the first `begin` to the first `end` after it."""
    text = (SEEDS / seed).read_text()
    start = text.index(begin)
    return _recounted(f"{text[:start]}{segments}{text[text.index(end, start) :]}".encode())


def mutated(rng: random.Random, body: bytes, other: bytes) -> bytes:
    """A body with one to four changes; `other` is where it may take parts from."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        kind = rng.random()
        if body[:64].lstrip(b"\xef\xbb\xbf \r\n\t")[:1] in (b"{", b"[") and kind < 0.75:
            body = _json(rng, body, other)
        elif kind < 0.75:
            body = _segments(rng, body, other)
        else:
            body = rng.choice(_BYTES)(rng, body, other)
        body = body[:BYTES_MAX]
    return body


# -- JSON: a tree, whose nodes are taken away, doubled, exchanged, nested -------------------------------------------------------------------


def _json(rng: random.Random, body: bytes, other: bytes) -> bytes:
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        lines = body.splitlines(keepends=True)
        if len(lines) < 2:
            return rng.choice(_BYTES)(rng, body, other)
        n = rng.randrange(len(lines))  # newline-delimited: a line of it
        lines[n] = _json(rng, lines[n], other) + b"\n" if lines[n].lstrip()[:1] == b"{" and len(lines) < 1000 else other
        return b"".join(lines)
    try:
        given = json.loads(other)
    except (ValueError, RecursionError):
        given = rng.choice(VALUES)
    root = [tree]
    places: list[tuple[Any, Any]] = [(root, 0)]
    for node, key in places:  # grows while it is gone through
        inside = node[key]
        if len(places) > 20_000:
            break
        if isinstance(inside, dict):
            places += [(inside, name) for name in inside]
        elif isinstance(inside, list):
            places += [(inside, n) for n in range(len(inside))]
    _change(rng, places, given)
    try:
        text = json.dumps(root[0], ensure_ascii=rng.random() < 0.5, separators=rng.choice(((",", ":"), (", ", ": "))))
    except (ValueError, RecursionError):  # a node within itself, or deeper than Python writes
        return body
    if rng.random() < 0.05:
        text = re.sub(r'("[a-zA-Z_]{2,20}":)', r"\1 1, \1", text, count=rng.randint(1, 3))  # keys that stand twice
    return text.encode("utf-8", rng.choice(("replace", "surrogatepass")))


def _change(rng: random.Random, places: list[tuple[Any, Any]], given: Any) -> None:
    node, key = rng.choice(places)
    value = node[key]
    match rng.randrange(10):
        case 0:
            del node[key]
            if isinstance(node, list) and not node:
                node.append(rng.choice(VALUES))
        case 1:
            node[key] = rng.choice(VALUES)
        case 2:
            node[key] = rng.choice(TEXTS)
        case 3 if isinstance(value, str):
            at = rng.randint(0, len(value))
            node[key] = value[:at] + rng.choice(TEXTS) + value[at + rng.randint(0, 3) :]
        case 4:  # another type: a text of a number, a list of one, an object of one
            node[key] = rng.choice((str(value), [value], {"value": value}, json.dumps(value)))
        case 5:
            for _ in range(rng.choice((1, 5, 70, 500))):
                value = [value] if rng.random() < 0.5 else {rng.choice(("a", "@context", "type", "ext:x")): value}
            node[key] = value
        case 6 if isinstance(node, dict):
            node[rng.choice((*TEXTS, *(k for _, k in rng.choices(places, k=3) if isinstance(k, str))))] = node.pop(key)
        case 7 if isinstance(value, list) and value:
            one = json.dumps(rng.choice(value))
            value += [json.loads(_numbered(one, n)) for n in range(min(rng.choice(_TIMES), BYTES_MAX // (len(one) + 1)))]
        case 7 if isinstance(value, dict) and value:
            name = rng.choice(list(value))
            for n in range(min(rng.choice(_TIMES), BYTES_MAX // (len(json.dumps([name, value[name]])) + 8))):
                value[f"{name}{n}"] = value[name]
        case 7 if isinstance(value, str) and value:
            node[key] = value * min(rng.choice((2, 50, 5000, 100_000)), BYTES_MAX // len(value))
        case 8:
            other_node, other_key = rng.choice(places)
            node[key] = json.loads(json.dumps(other_node[other_key]))
        case _:
            while isinstance(given, dict | list) and given and rng.random() < 0.8:
                given = rng.choice(list(given.values()) if isinstance(given, dict) else given)
            node[key] = given


def _numbered(text: str, n: int) -> str:
    """A repetition that is not the same: the last digits before a quotation mark are its number."""
    return re.sub(r'\d(?="[,}\]]|"$)', str(n), text, count=2)


# -- segments and lines: X12, EDIFACT, tables, headers, settings, identifiers ---------------------------------------------------------------


def _segments(rng: random.Random, body: bytes, other: bytes) -> bytes:
    end, mark = _separators(body)
    parts = body.split(end)
    n = rng.randrange(len(parts))
    elements = parts[n].split(mark)
    e = rng.randrange(len(elements))
    new = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
    match rng.randrange(11):
        case 0:
            del parts[n]
        case 1:
            parts.insert(rng.randrange(len(parts) + 1), parts[n])
        case 2:
            parts.insert(rng.randrange(len(parts)), parts.pop(n))
        case 3:
            elements[e] = new
            parts[n] = mark.join(elements)
        case 4:
            at = rng.randint(0, len(elements[e]))
            elements[e] = elements[e][:at] + new + elements[e][at + rng.randint(0, 2) :]
            parts[n] = mark.join(elements)
        case 5:
            del elements[e]
            parts[n] = mark.join(elements)
        case 6:
            _again(rng, parts, n, mark, rng.choice(_TIMES))
        case 7:  # two things that come often: what is made of each with each grows by the square
            for at in sorted((n, min(max(0, n + rng.randint(-4, 4)), len(parts) - 1)), reverse=True):
                _again(rng, parts, at, mark, rng.choice((100, 1000, 5000)))
        case 8:
            their_end, their_mark = _separators(other)
            theirs = other.split(their_end)
            a = rng.randrange(len(theirs))
            parts[n:n] = [one.replace(their_mark, mark) for one in theirs[a : a + rng.choice((1, 2, 8))]]
        case 9:
            to = rng.choice((b"*", b"|", b"+", b"~", b"\x1d", b"^", "é".encode(), b":", b"="))
            return _recounted(body.replace(mark, to)) if rng.random() < 0.5 else body.replace(end, to)
        case _:  # a value from elsewhere in the same body
            elements[e] = rng.choice(rng.choice(parts).split(mark))
            parts[n] = mark.join(elements)
    made = end.join(parts)
    return _recounted(made) if rng.random() < 0.85 else made


def _separators(body: bytes) -> tuple[bytes, bytes]:
    """Segment terminator and element separator, as far as they can be told."""
    if (at := body.find(b"ISA", 0, 10)) >= 0 and len(body) > at + 106:
        return body[at + 105 : at + 106], body[at + 3 : at + 4]
    if body[:3] in (b"UNA", b"UNB"):
        return b"'", b"+"
    return b"\n", next((mark for mark in (b": ", b" = ", b";", b"=", b"/", b":", b".") if mark in body), b",")


def _again(rng: random.Random, parts: list[bytes], n: int, mark: bytes, times: int) -> None:
    """A segment, several, or elements of one again, each with its number; at most a third of an input's length."""
    elements = parts[n].split(mark)
    a, b = sorted(rng.choices(range(len(elements) + 1), k=2))
    run = elements[a:b] if rng.random() < 0.5 and a < b else parts[n : n + rng.choice((1, 1, 1, 2, 4, 12))]
    again = [_counted(one, k) for k in range(min(times, BYTES_MAX // 3 // (sum(map(len, run)) + 6 * len(run)))) for one in run]
    if run == elements[a:b]:
        parts[n] = mark.join(elements[:b] + again + elements[b:])
    else:
        parts[n + len(run) : n + len(run)] = again


def _counted(text: bytes, n: int) -> bytes:
    """A repetition that is not the same: its last digits are its number, of a level the first ones; quantities stay."""
    if text[:3] == b"SN1":
        return text
    return (
        re.sub(rb"\d{1,6}", str(1000 + n).encode(), text, count=1)
        if text[:2] == b"HL"
        else re.sub(rb"\d{1,6}(?=\D*$)", str(n).encode(), text)
    )


def _recounted(body: bytes) -> bytes:
    """An interchange whose SE01 are right again, so that what was changed inside is looked at."""
    if body[:3] != b"ISA" or len(body) < 107:
        return body
    end, mark = _separators(body)
    parts, began = body.split(end), 0
    for n, part in enumerate(parts):
        elements = part.strip().split(mark)
        if elements[0] == b"ST":
            began = n
        elif elements[0] == b"SE" and len(elements) > 2:
            inside = sum(bool(one.strip()) for one in parts[began : n + 1])
            parts[n] = part.replace(mark.join(elements), mark.join((b"SE", str(inside).encode(), *elements[2:])))
    return end.join(parts)


# -- bytes ----------------------------------------------------------------------------------------------------------------------------------


def _cut(rng: random.Random, body: bytes, other: bytes) -> bytes:
    a, b = _span(rng, body)
    return body[:a] + body[b:]


def _short(rng: random.Random, body: bytes, other: bytes) -> bytes:
    return body[: rng.randint(0, len(body))]


def _flip(rng: random.Random, body: bytes, other: bytes) -> bytes:
    changed = bytearray(body or b"\x00")
    for _ in range(rng.choice((1, 1, 4, 32))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _insert(rng: random.Random, body: bytes, other: bytes) -> bytes:
    at = rng.randint(0, len(body))
    return body[:at] + rng.choice(TEXTS).encode("utf-8", "surrogatepass") + body[at:]


def _repeat(rng: random.Random, body: bytes, other: bytes) -> bytes:
    a, b = _span(rng, body)
    times = min(rng.choice((2, 2, 30, 30, 3000, 100_000)), BYTES_MAX // max(b - a, 1))
    return body[:a] + body[a:b] * times + body[b:]


def _splice(rng: random.Random, body: bytes, other: bytes) -> bytes:
    return body[: rng.randint(0, len(body))] + other[rng.randint(0, len(other)) :]


def _coded(rng: random.Random, body: bytes, other: bytes) -> bytes:
    text = body.decode("utf-8", "replace")
    return rng.choice((b"\xef\xbb\xbf" + body, text.encode("utf-16"), text.encode("cp500", "replace"), text.encode("latin-1", "replace")))


def _bracket(rng: random.Random, body: bytes, other: bytes) -> bytes:
    one = rng.choice(
        (b"[", b"{", b'{"a":', b"<", b"<a ", b"<!--", b"<?", b'"', b"(", b"\\", b"\n", b"ISA*", b"ST*856*", b"~PO1*", b"~AK2*", b"/01/")
    )
    times = min(rng.choice((3, 70, 70, 5000, 60_000)), BYTES_MAX // len(one))
    return one * times + (body if rng.random() < 0.7 else b"")


def _span(rng: random.Random, body: bytes) -> tuple[int, int]:
    a = rng.randint(0, len(body))
    return a, min(len(body), a + rng.choice((1, 1, 3, 10, 100, 2000)))


_BYTES = (_cut, _short, _flip, _insert, _repeat, _splice, _coded, _bracket)
