"""Writes and guards `schemas/`: the JSON Schema of every event type and version, the API's OpenAPI and the Kafka intake's AsyncAPI.

    python -m hub.app.schemas           write what is new; never touches the schema of a version that is frozen
    python -m hub.app.schemas --check   exit 1 if a frozen schema changed, is missing, or differs from its class

A schema is frozen by its line in `schemas/FROZEN` (sha256, path). A change of shape is a new version with an upcaster, so neither a frozen
file nor its line ever changes; git's history is asked too, so that changing both together is noticed.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from events.base import event_types, json_schema
from events.errors import Refused

ROOT = Path(__file__).resolve().parents[2] / "schemas"
FROZEN = "FROZEN"


def current() -> dict[str, str]:
    """Path below schemas/ to text, for the current version of every event type."""
    return {f"{cls.type}/{cls.version}.json": _text(json_schema(cls)) for cls in event_types()}


def documents() -> dict[str, str]:
    """Path to text of what describes the hub's interfaces as they are now; these follow the code and are not frozen."""
    from adapters.http_queue import HttpQueue
    from adapters.kafka import asyncapi_document
    from hub.app.api import make_app
    from hub.app.servers.postgres import Database
    from hub.app.settings import Settings
    from hub.app.wiring import Hub

    hub = Hub(Settings(home=Path(".hub")), Database("postgresql:///millwright"))
    return {"openapi.json": _text(make_app(hub, HttpQueue(1)).openapi()), "asyncapi.json": _text(asyncapi_document())}


def troubles(root: Path = ROOT) -> Iterator[str]:
    """A sentence for each thing that is not as it was frozen."""
    frozen = read_frozen(root)
    for path, digest in frozen.items():
        file = root / path
        if not file.is_file():
            yield f"schemas/{path} is frozen but gone: restore it"
        elif hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            yield f"schemas/{path} was changed after it was frozen: restore it and make a new version with an upcaster"
    for path, text in current().items():
        if path not in frozen:
            yield f"schemas/{path} is not frozen yet: run `make schemas` and commit it"
        elif (root / path).is_file() and (root / path).read_text("utf-8") != text:
            yield f"{path.partition('/')[0]} does not fit its frozen schema {path}: raise its version and write an upcaster"
    for path, text in documents().items():
        if not (root / path).is_file() or (root / path).read_text("utf-8") != text:
            yield f"schemas/{path} is not what the code says: run `make schemas` and commit it"
    yield from _rewritten(root, frozen)


def read_frozen(root: Path = ROOT) -> dict[str, str]:
    """Path to sha256 of every frozen schema."""
    file = root / FROZEN
    if not file.is_file():
        return {}
    rows = (line.split() for line in file.read_text("utf-8").splitlines() if line and not line.startswith("#"))
    return {path: digest for digest, path in rows}


def _rewritten(root: Path, frozen: dict[str, str]) -> Iterator[str]:
    """Frozen files that git's history saw with another content than now."""
    asked = subprocess.run(
        ["git", "log", "--format=", "--name-only", "--diff-filter=MD", "--relative", "--", "."],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode == 0:  # a tree without its history (a source archive) has only FROZEN to go by
        for path in sorted(set(asked.stdout.split()) & frozen.keys()):
            yield f"schemas/{path} was changed or deleted in an earlier commit: a frozen schema never changes"


def write(root: Path = ROOT) -> list[str]:
    """Freeze what is new and refresh the interface documents; the paths written. Raises `Refused` rather than touch a frozen schema."""
    frozen = read_frozen(root)
    written = []
    for path, text in current().items():
        if path in frozen:
            if (root / path).read_text("utf-8") != text:
                raise Refused(f"schemas/{path} is frozen and {path.partition('/')[0]} has changed: raise its version and write an upcaster")
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8")
    for file in sorted(root.glob("*/*.json")):  # an older version is written by hand once, when its class has moved on
        path = str(file.relative_to(root))
        if path not in frozen:
            frozen[path] = hashlib.sha256(file.read_bytes()).hexdigest()
            written.append(path)
    for path, text in documents().items():
        if not (root / path).is_file() or (root / path).read_text("utf-8") != text:
            (root / path).write_text(text, "utf-8")
            written.append(path)
    lines = ["# sha256 and path of every frozen event schema; lines are added, never changed (make schemas)"]
    lines += [f"{digest}  {path}" for path, digest in sorted(frozen.items(), key=lambda item: item[0])]
    (root / FROZEN).write_text("\n".join(lines) + "\n", "utf-8")
    return written


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Command line of this module."""
    if arguments == ["--check"]:
        found = list(troubles())
        for trouble in found:
            print(trouble, file=sys.stderr)
        print(f"schema freeze: {len(read_frozen())} schemas, {len(found)} troubles")
        return 1 if found else 0
    for path in write():
        print(f"wrote schemas/{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
