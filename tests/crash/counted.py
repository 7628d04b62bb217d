"""The oracle: what is in the database, read by plain SQL and counted here, against what the sources wrote down."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from hub.app.wiring import views
from replay.verify import verify
from tests.crash.deliveries import delivery
from tests.crash.ground import Access, Ground
from tests.crash.report import Found

_ID = re.compile(r"id-\d+-\d+-\d+")


@dataclass
class Stored:
    """Every event of a log: how often each id is there and at which position first, holes, and what stands in the wrong order."""

    ids: Counter[str] = field(default_factory=Counter)
    at: dict[str, int] = field(default_factory=dict)
    head: int = 0
    holes: int = 0  # positions and versions that are missing
    misordered: int = 0  # events that stand in their stream before one that their source sent sooner
    log: list[tuple[int, str, int]] = field(default_factory=list)  # (position, stream, version)


def stored(access: Access) -> Stored:
    """Read the whole log."""
    return count(_events(access))


def count(events: Iterable[tuple[int, str, int, str, str]]) -> Stored:
    """What a log holds: (position, stream, version, type, data) of each event, in the order of positions."""
    found = Stored()
    versions: dict[str, int] = {}
    latest: dict[str, tuple[int, ...]] = {}
    for position, stream, version, type_, data in events:
        found.holes += position - found.head - 1
        found.head = position
        expected = versions.get(stream, 0) + 1
        found.holes += max(0, version - expected)
        found.misordered += version < expected
        versions[stream] = version
        found.log.append((position, stream, version))
        id_ = _id_of(type_, data)
        found.ids[id_] += 1
        found.at.setdefault(id_, position)
        if not stream.startswith("delivery/") and found.ids[id_] == 1:
            order = tuple(map(int, id_.split("-")[1:]))
            found.misordered += order < latest.get(stream, ())
            latest[stream] = max(order, latest.get(stream, ()))
    return found


def _events(access: Access) -> Iterator[tuple[int, str, int, str, str]]:
    with psycopg.connect(access.owner) as connection, psycopg.ServerCursor(connection, "all_events") as cursor:
        cursor.itersize = 5000
        query = "select position, stream, version, type, convert_from(data, 'UTF8') from log.event order by position"
        yield from cursor.execute(query)


def _id_of(type_: str, data: str) -> str:
    if type_ == "integration.delivery_quarantined":
        return str(json.loads(data)["raw_sha256"])
    found = _ID.search(data)
    return found.group() if found else f"{type_} without an id"


def judge(found: Found, log: Stored, sent: set[str], acked: Iterable[str]) -> None:
    """Acked within stored, stored once, nothing that was not sent, no holes."""
    found.lost += sum(id_ not in log.ids for id_ in acked)
    found.twice += sum(n - 1 for n in log.ids.values())
    found.skipped += log.holes
    found.misordered += log.misordered
    found.wrong["unsent"] = len(log.ids.keys() - sent)
    found.also["facts"] = len(log.log)


def judge_views(found: Found, access: Access, say: Callable[[str], None]) -> None:
    """Every live view equals the log folded anew."""
    position, result = verify(access.follow, views())
    different = {f"{view}.{name}": table for view, tables in result.items() for name, table in tables.items() if not table.equal}
    for name, table in different.items():
        say(f"{name} differs: {table}")
    found.wrong["views_differ"] = len(different)
    found.also["verified"] = {"position": position, "views": len(result)}


def judge_roads(ground: Ground, access: Access, records: Sequence[Path], found: Found, also: Iterable[str] = ()) -> None:
    """The records of sources that use the hub's own roads (`roads.drive`) against the log, all views against the log folded anew.

    What a source delivered to the end counts as acknowledged, and so does what else was offered to the end (`also`).
    """
    log = stored(access)
    acked = set(also)
    calls, wrong_position = [], 0
    for source, path in enumerate(records):
        if not path.exists():
            continue
        record = json.loads(path.read_text())
        found.redelivered = (found.redelivered or 0) + record["again"]
        for n, (call, ack, position) in enumerate(record["rows"]):
            one = delivery(ground.seed, source, n)
            acked.update(one.ids)
            if one.own and position:
                wrong_position += log.at.get(one.ids[0]) != position
                calls.append((one.ids[0], call, ack, position))
    judge(found, log, acked, acked)
    found.wrong["acknowledged with another position"] = wrong_position
    judge_views(found, access, print)
    ground.history.calls("roads", calls)
    ground.history.log(log.log)


def at_head(access: Access, head: int) -> bool:
    """Whether every view is at that position; False where the server does not answer or a view is not there yet."""
    try:
        return all(access.ask(f"select position from view_{view.name}.position")[0][0] >= head for view in views())  # noqa: S608 - our own names
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
        return False
