"""`hub intake`: files and folders through the same door as every other road."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from events.errors import Refused
from hub import limits
from hub.app.cli import output
from hub.app.wiring import open_hub
from hub.intake.delivery import WORST_FIRST, Delivery, Outcome

BATCH_BYTES_MAX = 16 * 1024 * 1024  # files that share one append


def intake_paths(paths: list[Path], json_: bool) -> int:
    """Take every file; exit code 1 if anything was quarantined or in conflict."""
    files = [file for path in paths for file in _files(path)]
    found = []
    with open_hub() as hub:
        door = hub.intake()
        for batch in _batches(files):
            deliveries = [
                Delivery(body, "cli", datetime.now(UTC), {"file_name": file.name.encode("utf-8", "replace").decode()})
                for file, body in batch
            ]
            for (file, _), outcome in zip(batch, door.take(deliveries), strict=True):
                found += _report(file, outcome, json_)
    totals = {name: sum(row["outcome"] == name for row in found) for name in reversed(WORST_FIRST)}
    if json_:
        output.document({"deliveries": found, "totals": totals})
    else:
        print(", ".join(f"{count} {name}" for name, count in totals.items() if count) or "nothing to take")
    return 1 if totals["quarantined"] or totals["conflict"] else 0


def _report(file: Path, outcome: Outcome, json_: bool) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for part in outcome.parts:
        row = {"path": _name(file), "sha256": outcome.sha256, **part.as_json()}
        rows.append(row)
        if not json_:
            place = f" at {row['where']}" if row["where"] else ""
            reason = f": {row['reason']}{place}" if row["reason"] else ""
            counts = ", ".join(f"{n} {name}" for name, n in row["lines"].items())
            print(f"{row['outcome']:<12}{_name(file)} part {part.number} [{part.format}] {counts}{reason}")
    return rows


def _name(file: Path) -> str:
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def _files(path: Path) -> Iterator[Path]:
    """The regular files that a path names, in the order of their names. Raises `Refused` before anything was taken."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}): correct the path; nothing was taken") from None
    if stat.S_ISDIR(mode):
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                file = Path(folder, name)
                if file.is_file():
                    yield file
    elif stat.S_ISREG(mode):
        yield path
    else:
        raise Refused(f"{path} is neither a file nor a folder: give regular files; nothing was taken")


def _batches(files: list[Path]) -> Iterator[list[tuple[Path, bytes]]]:
    batch: list[tuple[Path, bytes]] = []
    size = 0
    for file in files:
        body = _read(file)
        if batch and (size + len(body) > BATCH_BYTES_MAX or len(batch) == limits.INTAKE_BATCH_MAX):
            yield batch
            batch, size = [], 0
        batch.append((file, body))
        size += len(body)
    if batch:
        yield batch


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            body = opened.read(limits.DELIVERY_BYTES_MAX + 1)
    except OSError as error:
        raise Refused(
            f"{file} cannot be read ({error.strerror}): what came before it is durable; correct that and run the command again"
        ) from None
    if len(body) > limits.DELIVERY_BYTES_MAX:
        raise Refused(f"{file} is larger than {limits.DELIVERY_BYTES_MAX} bytes: split it; what came before it is durable")
    return body
