"""docs/sparkplug.md names every assertion of the specification once, and for each that concerns a host the test that shows it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "sparkplug.md").read_text("utf-8")
TESTS = (ROOT / "tests" / "contract" / "test_sparkplug_tck.py").read_text("utf-8")


def _lists() -> str:
    return DOCS[DOCS.index("## The assertions of the specification") :]


def test_each_host_assertion_has_its_test() -> None:
    told = dict(re.findall(r"^\| (tck-id-\S+) \| (\w+) \|$", _lists(), re.MULTILINE))
    shown = {name.removesuffix("UTC") for name in re.findall(r'"(tck-id-[\w-]+)"', TESTS)}
    assert set(told) == shown
    assert f"these {len(told)} concern a host" in DOCS
    assert all(f"def {test}(" in TESTS for test in told.values())


def test_each_name_is_there_once(shared_corpus: Path) -> None:
    names = (shared_corpus / "sparkplug" / "eclipse-sparkplug+sparkplug" / "tck-ids.txt").read_text("utf-8").split()
    assert sorted(re.findall(r"tck-id-[\w-]*", _lists())) == sorted(names)
