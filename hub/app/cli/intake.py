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


Refusals = list[dict[str, str]]


def intake_paths(paths: list[Path], json_: bool) -> int:
    """Take every file; exit code 2 if any could not be read, 1 if anything was quarantined or in conflict."""
    refused: Refusals = []
    files = [file for path in paths for file in _files(path, refused)]
    found = []
    with open_hub() as hub:
        door = hub.intake()
        for batch in _batches(files, refused):
            deliveries = [
                Delivery(body, "cli", datetime.now(UTC), {"file_name": file.name.encode("utf-8", "replace").decode()})
                for file, body in batch
            ]
            for (file, _), outcome in zip(batch, door.take(deliveries), strict=True):
                found += _report(file, outcome, json_)
    totals = {name: sum(row["outcome"] == name for row in found) for name in reversed(WORST_FIRST)}
    if json_:
        output.document({"deliveries": found, "refused": refused, "totals": totals})
    else:
        output.line(", ".join(f"{count} {name}" for name, count in totals.items() if count) or "nothing to take")
    for row in refused:
        output.note(f"hub: {row['path']} {row['reason']}; the other files were taken")
    if refused:
        return 2
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
            output.line(f"{row['outcome']:<12}{_name(file)} part {part.number} [{part.format}] {counts}{reason}")
    return rows


def _name(file: str | Path) -> str:
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def _files(path: Path, refused: Refusals) -> Iterator[Path]:
    """The regular files that a path names, in the order of their names. Raises `Refused` before anything was taken."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise Refused(f"{_name(path)} cannot be read ({_cause(error)}): correct the path; nothing was taken") from None
    if stat.S_ISDIR(mode):
        for folder, folders, names in os.walk(path, onerror=lambda error: _refuse(refused, error.filename, error)):
            folders.sort()
            for name in sorted(names):
                file = Path(folder, name)
                if file.is_file():
                    yield file
    elif stat.S_ISREG(mode):
        yield path
    else:
        raise Refused(f"{_name(path)} is neither a file nor a folder: give regular files; nothing was taken")


def _batches(files: list[Path], refused: Refusals) -> Iterator[list[tuple[Path, bytes]]]:
    """The files with their bytes, as many as share one append; what cannot be read goes to `refused` and holds up no other."""
    batch: list[tuple[Path, bytes]] = []
    size = 0
    for file in files:
        body = _read(file, refused)
        if body is None:
            continue
        if batch and (size + len(body) > BATCH_BYTES_MAX or len(batch) == limits.INTAKE_BATCH_MAX):
            yield batch
            batch, size = [], 0
        batch.append((file, body))
        size += len(body)
    if batch:
        yield batch


def _read(file: Path, refused: Refusals) -> bytes | None:
    try:
        with file.open("rb") as opened:
            body = opened.read(limits.DELIVERY_BYTES_MAX + 1)
    except OSError as error:
        _refuse(refused, file, error)
        return None
    if len(body) > limits.DELIVERY_BYTES_MAX:
        refused.append({"path": _name(file), "reason": f"is larger than {limits.DELIVERY_BYTES_MAX} bytes: split it"})
        return None
    return body


def _refuse(refused: Refusals, path: str | Path, error: OSError) -> None:
    refused.append({"path": _name(path), "reason": f"cannot be read ({_cause(error)}): correct that and run the command again"})


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
