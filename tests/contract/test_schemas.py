"""Frozen schemas: what is committed is what the classes say, a change of it is noticed, and an outsider's validator agrees with the door."""

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import event_types, validated
from events.errors import Refused
from hub.app import schemas
from tests.histories import golden
from tests.histories.strategy import FIELDS, histories


def frozen(type_: str, version: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((schemas.ROOT / type_ / f"{version}.json").read_text("utf-8"))
    return found


def test_what_is_committed_is_what_the_code_says() -> None:
    assert list(schemas.troubles()) == []
    assert len(schemas.read_frozen()) >= len(list(event_types()))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(schemas.ROOT, tmp_path / "schemas"))


def test_a_changed_or_missing_frozen_schema_is_noticed(copy: Path) -> None:
    changed, gone = copy / "inventory.lot_split" / "1.json", copy / "inventory.lot_merged" / "1.json"
    changed.write_text(changed.read_text("utf-8").replace('"location"', '"place"'), "utf-8")
    gone.unlink()
    said = list(schemas.troubles(copy))
    assert any("inventory.lot_split/1.json was changed after it was frozen" in one for one in said)
    assert any("inventory.lot_merged/1.json is frozen but gone" in one for one in said)


def test_a_class_that_changed_without_a_new_version_is_noticed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = schemas.current()
    monkeypatch.setattr(schemas, "current", lambda: now | {"inventory.lot_split/1.json": "{}\n"})
    assert any("raise its version and write an upcaster" in one for one in schemas.troubles(copy))
    with pytest.raises(Refused, match="raise its version"):
        schemas.write(copy)


def test_a_new_type_must_be_frozen(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = schemas.current()
    monkeypatch.setattr(schemas, "current", lambda: now | {"tooling.tool_changed/1.json": "{}\n"})
    assert any("tooling.tool_changed/1.json is not frozen yet" in one for one in schemas.troubles(copy))
    schemas.write(copy)
    assert list(schemas.troubles(copy)) == []


def test_recorded_histories_fit_their_frozen_schemas() -> None:
    for name in golden.names():
        for line in (golden.FOLDER / f"{name}.ndjson").read_text("utf-8").splitlines():
            row = json.loads(line)
            jsonschema.validate(row["data"], frozen(row["type"], row["schema_version"]))


@given(histories())
def test_what_the_door_stores_an_outsider_can_validate(facts: list[Any]) -> None:
    for fact in facts:
        stored = json.loads(fact.event.json())
        jsonschema.validate(stored, frozen(fact.event.type, fact.event.version))


VERSION_1 = {"output": "O1", "item": "A", "lot": "L1", "quantity": "5", "unit": "EA", "location": "WH", "order": "PO-1"}


def test_the_old_version_is_still_taken_and_lifted() -> None:
    jsonschema.validate(VERSION_1, frozen("production.output_produced", 1))
    event = validated("production.output_produced", 1, VERSION_1)
    jsonschema.validate(json.loads(event.json()), frozen("production.output_produced", 2))


@given(st.sampled_from(sorted(FIELDS)), st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=5), min_size=1, max_size=3))
def test_unknown_fields_are_refused_by_both(type_: str, data: dict[str, Any]) -> None:
    (cls,) = (cls for cls in event_types() if cls.type == type_)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, frozen(type_, cls.version))
    with pytest.raises(Refused):
        validated(type_, cls.version, data)
