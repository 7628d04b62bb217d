"""Every file of the shared corpus, taken alone into a fresh home, has the outcome that was looked at by eye.

`corpus.json` has them by the sha256 of the file, each with why. Files are found by content: their names are only there for people.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.base import Fact
from hub.app.wiring import mappings
from hub.intake.delivery import Delivery, Outcome
from hub.intake.door import Intake
from hub.intake.mapping import Context, Held
from hub.log.migrate import migrate
from hub.log.store import Accepted, Conflict, Duplicate, Log, Result
from tests.facts import as_role

AT = datetime(2026, 1, 5, 6, tzinfo=UTC)
EXPECTED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("corpus.json").read_text("utf-8"))
FORMATS = ("x12-850", "x12-855", "x12-856", "x12-997", "epcis-2.0-json")  # those that are mapped


class FreshHome:
    """An empty log in memory: the first content of a key stays."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], tuple[int, bytes]] = {}

    def append(self, facts: Sequence[Fact]) -> list[Result]:
        return [self._append(f) for f in facts]

    def _append(self, fact: Fact) -> Result:
        key, digest = (fact.envelope.source, fact.envelope.key), fact.digest()
        if key not in self.known:
            self.known[key] = len(self.known) + 1, digest
            return Accepted(len(self.known))
        position, stored = self.known[key]
        return Duplicate(position) if stored == digest else Conflict(position, stored, digest)

    def keep(self, deliveries: object) -> None: ...

    def flush(self) -> None: ...

    def count_again(self, keys: object) -> None: ...


def files(corpus: Path) -> Iterator[Path]:
    """All files, in the order of their names."""
    return (path for path in sorted(corpus.rglob("*")) if path.is_file())


def delivery(path: Path) -> Delivery:
    return Delivery(path.read_bytes(), "cli", AT)


def as_expected(outcome: Outcome) -> list[dict[str, Any]]:
    """What the table says of a file: a row for each part, keys of facts newly added in order."""
    found = []
    for part in outcome.parts:
        row: dict[str, Any] = {"format": part.format, "outcome": part.outcome, "lines": part.as_json()["lines"]}
        if keys := [line.business_key for line in part.lines if line.outcome == "accepted"]:
            row["source"] = part.lines[0].source
            row["keys"] = keys
        if part.first_trouble:
            row |= {"reason": part.first_trouble.reason, "where": part.first_trouble.place}
        found.append(row)
    return found


def test_each_file_alone(shared_corpus: Path) -> None:
    wrong, seen = [], set()
    for path in files(shared_corpus):
        outcome = Intake(FreshHome(), mappings()).take([delivery(path)])[0]
        seen.add(outcome.sha256)
        row = EXPECTED.get(outcome.sha256)
        if row is None or row["parts"] != as_expected(outcome):
            wrong.append((path.relative_to(shared_corpus).as_posix(), row and row["parts"], as_expected(outcome)))
    assert not wrong, wrong[:3]
    assert seen == EXPECTED.keys()
    assert all(row["why"] for row in EXPECTED.values())


@cache
def mapped(corpus: Path) -> list[Path]:
    """Files of the formats that are mapped, sound or not."""
    return [
        path
        for path in files(corpus)
        if any(p["format"] in FORMATS for p in EXPECTED[hashlib.sha256(path.read_bytes()).hexdigest()]["parts"])
    ]


Key = tuple[str, str | None]


def taken(intake: Intake, paths: Sequence[Path]) -> tuple[int, set[Key], set[Key]]:
    """How many lines are quarantined, the facts that were added, each once, and those of which there is another content.

    How often the second content of a key comes depends on which of the two came first, that it comes does not.
    """
    lines = [line for path in paths for part in intake.take([delivery(path)])[0].parts for line in part.lines]
    accepted = [(line.source, line.business_key) for line in lines if line.outcome == "accepted"]
    assert len(accepted) == len(set(accepted))
    conflicts = {(line.source, line.business_key) for line in lines if line.outcome == "conflict"}
    return sum(line.outcome == "quarantined" for line in lines), set(accepted), conflicts


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_order_gives_the_same_facts_and_a_second_time_nothing(shared_corpus: Path, fresh_database: str, seed: int) -> None:
    expected = taken(Intake(FreshHome(), mappings()), mapped(shared_corpus))
    assert len(expected[1]) > 250
    assert expected[2]
    paths = list(mapped(shared_corpus))
    random.Random(seed).shuffle(paths)
    migrate(fresh_database)
    with Log(as_role(fresh_database, "hub_door")) as log:
        intake = Intake(log, mappings())
        assert taken(intake, paths) == expected
        before = log.select("select count(*) from log.event", [])
        assert taken(intake, paths)[1] == set()
        assert log.select("select count(*) from log.event", []) == before


@settings(max_examples=60)
@given(st.data())
def test_a_mutated_corpus_file_gives_parts(shared_corpus: Path, data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(mapped(shared_corpus))).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 30))] = data.draw(
            st.binary(max_size=8)
            | st.sampled_from([b"~", b"*", b"~HL*1*1*I~", b"ISA*", b"\n", b'"', b"{", b"}", b"[]", b"null", b"-1", b'"a:b"', b","])
        )
    mapping = next(m for m in sorted(mappings(), key=lambda m: m.priority) if m.recognises(bytes(body)))
    for part in mapping.read(bytes(body), Context(raw="0" * 64)):
        assert all(line.reason if isinstance(line, Held) else all(f.digest() for f in line.facts) for line in part.lines)
