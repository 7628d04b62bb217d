"""What is fuzzed: each parser of the shipped program with what it may raise, what its results must hold, and whether an input went deep.

`python -m tests.crash.fuzz_targets SAMPLE` reads results again in another process (another PYTHONHASHSEED) and prints the numbers of those that differ.
"""

import base64
import hashlib
import hmac
import json
import pickle
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from adapters.formats import sparkplug, x12
from adapters.formats.sparkplug import Property
from adapters.formats.sparkplug_values import DataSet, DataType
from adapters.x12 import mapping as x12_mapping
from adapters.x12.answers import Answer, answers
from events import canonical, gs1
from events.base import OWN, Envelope, Event, Fact, Recorded, event_class, validated
from events.errors import Corrupt, Refused
from events.vocabulary import NAME_BYTES_MAX, Thing
from hub.app.demo.plant import sparkplug_node as plant
from hub.app.settings import ConfigError, Secret, Settings
from hub.app.web import Guard
from hub.app.wiring import mappings
from hub.intake import door
from hub.intake.delivery import Delivery, LineOutcome, PartOutcome
from hub.intake.mapping import Context, Held, Line, Mapping, Part
from hub.log import codec
from projections.naming import named
from projections.trace import resolve
from tests import copied
from tests.crash.fuzz_inputs import BYTES_MAX, SEEDS, seeds, squares
from tests.facts import START

T = TypeVar("T")
CHECKED_MAX = 200  # facts of one input that go through the codec: the first and the last, for those between are repetitions
TOKEN = "0123456789abcdef0123456789abcdef"


class Broken(Exception):
    """A result does not hold what it must."""


@dataclass(frozen=True)
class Target:
    """One parser. `parse` gives what it makes of bytes, None where it is not its to read, and may raise `refuses` alone.

    `laws` raises `Broken`; `mapped` says whether a result went all the way; `told` are the kinds of answers in it: an input that brings a new
    one is worth changing further.
    """

    name: str
    begin: Callable[[], list[bytes]]
    parse: Callable[[bytes], Any]
    refuses: tuple[type[Exception], ...]
    laws: Callable[[bytes, Any], None]
    mapped: Callable[[Any], bool]
    told: Callable[[Any], Iterable[str]]


def must(holds: bool, law: str) -> None:
    if not holds:
        raise Broken(law)


def summary(result: Any) -> bytes:
    """What two readings of the same bytes must have in common, in whatever process."""
    return hashlib.sha256(repr(result).encode("utf-8", "backslashreplace")).digest()


def words(reason: str) -> str:
    """A reason without what it says of the input."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\[\d+\]|[\d.]+", "", reason)[:80]


# -- facts: through the codec and back ------------------------------------------------------------------------------------------------------


def check_fact(fact: Fact) -> None:
    """A fact can be encoded, its row holds what PostgreSQL can keep, and comes back as the same fact with the same digest."""
    row = codec.encode(codec.row_of(fact))
    packed = codec.packed(row, 7, 3, 11)
    (fields,) = copied.rows(packed)
    back = codec.decode(copied.as_selected(fields))
    must(back.fact.event == fact.event, "the event that comes back is another")
    must(row.digest == fact.digest() == back.fact.digest(), "the digest that comes back is another")
    must(codec.packed(codec.encode(codec.row_of(back.fact)), 7, 3, 11) == packed, "the row that comes back is another")
    must("\x00" not in f"{row.stream}{fact.event.type}{fact.envelope.source}{fact.envelope.key}", "PostgreSQL's text holds no NUL")
    must(len(row.stream.encode()) <= NAME_BYTES_MAX, "the stream is too long for an index")
    must(len(fact.envelope.source.encode()) + len(fact.envelope.key.encode()) < 8192, "source and key have no bound")
    must(event_class(fact.event.type).of(fact.event.data()) == fact.event, "its data, as it is shown, is another event")
    must(json.loads(fields[13]) == json.loads(canonical.dumps(fact.event.data())), "its data is shown otherwise than it is stored")
    named(fact.event)


# -- mappings -------------------------------------------------------------------------------------------------------------------------------


def _mapping(mapping: Mapping) -> Target:
    others = [m for m in mappings() if m.name != mapping.name]

    def parse(body: bytes) -> Sequence[Part] | None:
        for other in others:
            other.recognises(body)
        if not mapping.recognises(body):
            return None
        return mapping.read(body, Context(raw=hashlib.sha256(body).hexdigest(), headers={"edge": "plant-1"}))

    def begin() -> list[bytes]:
        return seeds(mapping.recognises) + [body for body in squares() if mapping.recognises(body)]

    return Target(mapping.name.partition("/")[0], begin, parse, (), _check_parts, _parts_mapped, _parts_told)


def _check_parts(body: bytes, parts: Sequence[Part]) -> None:
    delivery, sha256 = Delivery(body, "fuzz", START), hashlib.sha256(body).hexdigest()
    facts: list[Fact] = []
    held: list[tuple[Part, Held]] = []
    must(len(parts) > 0, "no part")
    must([part.number for part in parts] == list(range(1, len(parts) + 1)), "parts are not numbered from 1")
    for part in parts:
        must(len(part.lines) > 0, "a part without lines")
        for line in part.lines:
            if isinstance(line, Line):
                must(len({f.envelope.key for f in line.facts}) == len(line.facts), "two facts of a line have one key")
                facts += line.facts
            else:
                must(bool(line.reason), "held without a reason")
                held.append((part, line))
    must(len({(part.number, line.path) for part, line in held}) == len(held), "two held lines of a delivery have one key")
    for fact in _ends(facts):
        check_fact(fact)
    for part, line in _ends(held):
        check_fact(door._quarantined(door._Mapped(delivery, sha256, parts), part, line))


def _ends(found: list[T]) -> list[T]:
    return found if len(found) <= CHECKED_MAX else found[: CHECKED_MAX // 2] + found[-CHECKED_MAX // 2 :]


def _parts_mapped(parts: Sequence[Part]) -> bool:
    return any(isinstance(line, Line) and line.facts for part in parts for line in part.lines)


def _parts_told(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts[:20]:
        yield part.format
        for line in part.lines[:50]:
            if isinstance(line, Held):
                yield f"{part.format} {words(line.reason)}"
            else:
                yield from (
                    " ".join((f.event.type, *sorted(f.event.data()), *sorted(filter(str.isalpha, f.envelope.details))))
                    for f in line.facts[:9]
                )


# -- the 997 that answers what was received -------------------------------------------------------------------------------------------------


def _answered(body: bytes) -> list[Answer] | None:
    """The answers to a delivery of which a fresh home took what it could: the delivery is read three times, so only up to half the bytes."""
    if not x12_mapping.MAPPING.recognises(body) or len(body) > BYTES_MAX // 2:
        return None
    parts = x12_mapping.MAPPING.read(body, Context(raw=""))
    return answers(body, [PartOutcome(p.number, p.format, [_decided(line) for line in p.lines]) for p in parts], lambda to: 7, START)


def _decided(line: Line | Held) -> LineOutcome:
    held = isinstance(line, Held)
    return LineOutcome(line.path, "quarantined" if held else "accepted", "fuzz")


def _check_answered(body: bytes, found: list[Answer]) -> None:
    groups = [g for i in x12.interchanges(body) for g in i.groups]
    asked = [g for g in groups if g.gs[1] != "FA" and not (g.sets and all(one.code in ("997", "999") for one in g.sets))]
    written = [one for answer in found if answer.body for one in x12.parse(answer.body)]
    must(all(one.fault is None for one in written), "an answer is broken")
    must(len(written) + sum(len(answer.unanswered) for answer in found) == len(asked), "a group has no answer, or two")
    facts = [part for answer in found if answer.body for part in x12_mapping.MAPPING.read(answer.body, Context(raw=""))]
    must(all(isinstance(line, Line) for part in facts for line in part.lines), "an answer that nobody can read")


def _answered_told(found: list[Answer]) -> Iterator[str]:
    for answer in found:
        yield from (words(reason) for reason in answer.unanswered)
        yield from (re.sub(r"[\d>]+", "", segment) for segment in answer.body.decode().split("~") if segment[:3] in ("AK5", "AK9"))


# -- JSON, events, rows ---------------------------------------------------------------------------------------------------------------------


def _json() -> list[bytes]:
    return seeds(lambda body: body[:1] in b"{[")


def _check_json(body: bytes, value: Any) -> None:
    nodes = [(value, 1)]
    for node, depth in nodes:  # grows while it is gone through
        inside = [*node.values(), *node] if isinstance(node, dict) else node if isinstance(node, list) else []
        nodes += [(one, depth + 1) for one in inside]
        must(not isinstance(node, dict | list) or depth <= canonical.DEPTH_MAX, "nested too deep")
        must(
            not isinstance(node, int | Decimal) or abs(node) < 10 ** (canonical.DIGITS_MAX + 1),
            "a number that is too long",
        )
        must(not isinstance(node, str) or "\x00" not in node.encode().decode(), "PostgreSQL's text holds no NUL")
    written = canonical.dumps(value)
    must(canonical.dumps(canonical.loads(written)) == written, "canonical JSON is another when it is read and written again")


def _json_told(value: Any) -> Iterator[str]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    yield f"{type(value).__name__} {sorted({type(one).__name__ for one in inside})}"


def _event(body: bytes) -> Event:
    """An event as the door validates it, of any version; those of the hub's own come from no source."""
    row = canonical.loads(body)
    if not isinstance(row, dict):
        raise Refused("no object")
    type_, version, data = row.get("type"), row.get("schema_version", 1), row.get("data")
    if not isinstance(type_, str) or not isinstance(version, int) or isinstance(version, bool) or not isinstance(data, dict):
        raise Refused("no event")
    if type_.startswith(OWN):
        raise Refused("the hub's own")
    return validated(type_, version, data)


def _check_event(body: bytes, event: Event) -> None:
    check_fact(Fact(Envelope(source="fuzz", key=hashlib.sha256(body).hexdigest(), occurred_at=START, effective_at=START), event))


def _event_told(event: Event) -> Iterator[str]:
    yield f"{event.type} {' '.join(sorted(event.data()))}"


def _events() -> list[bytes]:
    rows = [json.loads(body) for body in seeds(lambda body: body[:9] == b'{"type": ' and b'"key"' in body)]
    rows += json.loads((SEEDS / "batch.json").read_bytes())["facts"]
    return [
        json.dumps({name: row[name] for name in ("type", "schema_version", "data")}).encode() for row in rows if "schema_version" in row
    ]


def _rows() -> list[bytes]:
    """A stored row as text: stream, type and version in the first line, meta in the second, data in the third; old versions as they came."""
    found = []
    for body in _events():
        row = json.loads(body)
        event = validated(row["type"], row["schema_version"], row["data"])
        fact = Fact(Envelope(source="f", key="k", occurred_at=START, effective_at=START, actor="jo", details={"a": [1]}), event)
        (fields,) = copied.rows(codec.packed(codec.encode(codec.row_of(fact)), 7, 3, 11))
        *_, meta, data = fields
        data = json.dumps(row["data"]).encode() if row["schema_version"] < event.version else data
        found.append(b"%s\t%s\t%d\n%s\n%s" % (event.stream().encode(), event.type.encode(), row["schema_version"], meta, data))
    return [*found, found[0].replace(b"item/", b"aggregate/", 1)]


def _row(body: bytes) -> Recorded:
    """A row of the log that somebody or something damaged: any text and bytes in columns of the right type."""
    head, _, rest = body.partition(b"\n")
    meta, _, data = rest.partition(b"\n")
    stream, type_, version = (*head.decode("utf-8", "replace").split("\t"), "", "", "")[:3]
    number = int(version) if re.fullmatch(r"-?[0-9]{1,9}", version) else 1
    return codec.decode((7, stream, 3, type_, number, "fuzz", "k", START, START, START, meta, data))


def _check_nothing(body: bytes, result: Any) -> None:
    """Nothing beyond what holds for all."""


# -- identifiers ----------------------------------------------------------------------------------------------------------------------------


def _identifiers() -> list[bytes]:
    return (SEEDS / "identifiers.txt").read_bytes().splitlines()


def _key(body: bytes) -> tuple[gs1.Key | None, ...]:
    text = body.decode("utf-8", "replace")
    for other in ("serial", "item", "handling_unit"):
        gs1.thing(text, other)
    return gs1.parse(text), gs1.scanned(text)


def _check_key(body: bytes, keys: tuple[gs1.Key | None, ...]) -> None:
    for key in filter(None, keys):
        must(not key.path.isprintable() or gs1.parse(key.link) == key, "the canonical link of a key is another key")
        Thing(**gs1.thing_of(key)).node()  # type: ignore[arg-type]


class _Asked:
    """A cursor that finds nothing and keeps what it was asked."""

    def __init__(self) -> None:
        self.values: Any = None

    def execute(self, query: str, values: Any) -> None:
        self.values = values

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(())


def _resolved(body: bytes) -> Any:
    """What `hub trace ID` and the API look up for a text."""
    text, cursor = body.decode("utf-8", "replace").strip(), _Asked()
    canonical.check_text(text)
    resolve(cursor, text)  # type: ignore[arg-type]
    return cursor.values


def _resolved_told(values: list[list[str]]) -> Iterator[str]:
    return (f"{len(values[0])} {name.partition(':')[0][:9]}" for name in values[0] if ":" in name)


def _check_resolved(body: bytes, values: list[list[str]]) -> None:
    (names,) = values
    must(all(len(name.encode()) <= NAME_BYTES_MAX and "\x00" not in name for name in names), "a name that no index holds")


# -- settings and the HTTP guard ------------------------------------------------------------------------------------------------------------

_ENV = re.compile(rb"# env (HUB_(?!HOME)[A-Z_]*[A-Z])=([^\x00\n]*)", re.MULTILINE)


def _settings(body: bytes) -> tuple[str]:
    """The settings of a `hub.toml` whose comments `# env NAME=value` stand for the environment; files that variables name are not read."""
    env = {m[1].decode(): m[2].decode("utf-8", "surrogateescape") for m in _ENV.finditer(body) if not m[1].endswith(b"_FILE")}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as home:
        (Path(home) / "hub.toml").write_bytes(body)
        try:
            found = Settings.load({**env, "HUB_HOME": home}, cwd=Path(home))
        except ConfigError as error:
            raise ConfigError(str(error).replace(home, "HOME")) from None
        for partner in found.partners.values():
            _ = partner.tzinfo
        return (repr((found, found.database_url, found.mqtt_url)).replace(home, "HOME"),)


def _settings_told(found: tuple[str]) -> list[str]:
    return [f"{one.name} {f'{one.name}=None' in found[0]}" for one in fields_of(Settings)] + [str(found[0].count("Partner("))[:1]]


def _asked(body: bytes, token: str | None) -> int:
    """The status with which the guard answers a request with these header lines; 200 where it lets it in."""
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in body.split(b"\n"))]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise Broken("the guard reads a body")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    try:
        Guard(app, Secret(token) if token else None)(scope, receive, send).send(None)
    except StopIteration:
        return int(sent[0]["status"])
    raise Broken("the guard waits for something")


def _guarded(body: bytes) -> tuple[int, int]:
    """The statuses of a hub with a token and of one without."""
    return _asked(body, TOKEN), _asked(body, None)


def _check_guarded(body: bytes, statuses: tuple[int, int]) -> None:
    cookie = hmac.new(TOKEN.encode(), b"console", hashlib.sha256).hexdigest().encode()
    coded = re.findall(rb"(?:[A-Za-z0-9+/]{4}){4,}(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?", body)
    inside = (body, *(base64.b64decode(one) for one in coded))
    must(statuses[0] != 200 or any(secret in text for secret in (TOKEN.encode(), cookie) for text in inside), "let in without the token")
    must(set(statuses) <= {200, 401, 403}, "an answer of another kind")


def _sparkplug_seeds() -> list[bytes]:
    """Payloads of the simulated plant's encoder, and of ours with every type."""
    kinds = ((plant.INT32, -5), (plant.INT64, -5), (plant.UINT64, 1 << 63), (plant.DOUBLE, 0.1), (plant.BOOLEAN, True), (plant.STRING, "ä"))
    metrics = [plant.metric(kind, value, 1_700_000_000_000, name=f"m{n}", alias=n) for n, (kind, value) in enumerate(kinds)]
    table = DataSet(("a", "b"), (DataType.Int8, DataType.String), ((-1, "x"), (None, "")))
    quality = {"Quality": Property(DataType.Int32, 192), "more": Property(DataType.PropertySet, {"a": Property(DataType.Text, "b")})}
    typed = [
        sparkplug.metric_of(table, DataType.DataSet, "table", properties=quality),
        sparkplug.metric_of([True, False, True], DataType.BooleanArray, "bits"),
        sparkplug.metric_of(["ABC", ""], DataType.StringArray, "texts"),
        sparkplug.metric_of([-1, 2], DataType.Int16Array, "array", meta={"content_type": "x", "size": 3}),
        sparkplug.metric_of(None, DataType.File, "nothing"),
    ]
    return [plant.payload(1, 255, metrics), plant.payload(1, None, metrics[:1]), sparkplug.encode(sparkplug.Payload(1, 2, typed))]


def _sparkplug(body: bytes) -> list[tuple[str, str]]:
    """What each metric says: its type and value, or why it is refused."""
    payload = sparkplug.decode(body)
    again = sparkplug.decode(sparkplug.encode(payload)) if not any(metric.refused for metric in payload.metrics) else payload
    must(repr(again) == repr(payload), "written and read again, a payload is another")
    found = []
    for metric in payload.metrics:
        try:
            found.append((str(metric.datatype), repr(sparkplug.plain(sparkplug.value_of(metric)))))
        except Refused as error:
            found.append(("", words(str(error))))
    return found


def _ours(suffix: str) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for path in sorted(SEEDS.glob(f"*.{suffix}"))]


def targets() -> dict[str, Target]:
    """All targets by name."""
    found = [
        *(_mapping(m) for m in mappings()),
        Target("x12-answers", lambda: seeds(x12_mapping.MAPPING.recognises), _answered, (), _check_answered, bool, _answered_told),
        Target("json", _json, canonical.loads, (Refused,), _check_json, lambda found: isinstance(found, dict | list), _json_told),
        Target("event", _events, _event, (Refused,), _check_event, lambda found: True, _event_told),
        Target("row", _rows, _row, (Corrupt,), _check_nothing, lambda found: True, lambda found: [found.event.type]),
        Target(
            "gs1", _identifiers, _key, (), _check_key, any, lambda found: [f"{k.ai} {[ai for ai, _ in k.qualifiers]}" for k in found if k]
        ),
        Target("identifier", _identifiers, _resolved, (Refused,), _check_resolved, lambda found: len(found[0]) > 1, _resolved_told),
        Target("settings", _ours("toml"), _settings, (ConfigError,), _check_nothing, bool, _settings_told),
        Target("http-guard", _ours("http"), _guarded, (), _check_guarded, lambda found: 200 in found, lambda found: [str(found)]),
        Target(
            "sparkplug",
            _sparkplug_seeds,
            _sparkplug,
            (Refused,),
            _check_nothing,
            lambda found: any(kind for kind, _ in found),
            lambda found: [k for k, _ in found],
        ),
    ]
    return {target.name: target for target in found}


def main(path: str) -> int:
    """Read a sample again: the name of a target, and pairs of input and summary."""
    name, pairs = pickle.loads(Path(path).read_bytes())
    target = targets()[name]
    print(json.dumps([n for n, (body, was) in enumerate(pairs) if summary(target.parse(body)) != was]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
