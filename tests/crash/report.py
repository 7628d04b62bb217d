"""What trials leave behind: `build/trials.json` (its shape is fixed in contracts.md), the histories beside it, and the printed table."""

import json
import subprocess
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hub.app.home import write_atomically

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
HISTORIES = "trials"  # folder under build/
EVIDENCE_MAX = 40  # lines of a row
_CODE = ("hub", "events", "adapters", "projections", "replay", "tests", "pyproject.toml", "requirements.lock")


@dataclass(slots=True)
class Found:
    """What a trial counted. `exercised`, `in_flight`, `redelivered` are None where they do not apply; a zero in one that does is a failure.

    `wrong` are other counts that must be zero; `also` are figures only to be read; `evidence` says of single failures what was seen.
    """

    runs: int
    lost: int = 0
    twice: int = 0
    skipped: int = 0
    misordered: int = 0
    exercised: dict[str, int] | None = None
    in_flight: int | None = None
    redelivered: int | None = None
    wrong: dict[str, int] = field(default_factory=dict)
    also: dict[str, Any] = field(default_factory=dict)
    evidence: list[str] = field(default_factory=list)

    @property
    def harm(self) -> int:
        """What a promise broken shows as."""
        return self.lost + self.twice + self.skipped + self.misordered

    @property
    def idle(self) -> list[str]:
        """What applies to this trial and never occurred."""
        never = [name for name, hits in (self.exercised or {}).items() if not hits]
        return never + [name for name in ("in_flight", "redelivered") if getattr(self, name) == 0]

    @property
    def ok(self) -> bool:
        return not self.harm and not any(self.wrong.values()) and not self.idle and self.runs > 0


def row(name: str, without: str | None, found: Found, **more: Any) -> dict[str, Any]:
    """A row of the report. One without a mechanism is judged by its figures alone: not ok is what it should be."""
    ok = found.ok if without is None else found.harm == 0
    figures = ("runs", "lost", "twice", "skipped", "misordered", "exercised", "in_flight", "redelivered")
    return {
        "name": name,
        "without": without,
        **{f: getattr(found, f) for f in figures},
        **more,
        "ok": ok,
        "wrong": found.wrong,
        **({} if ok else {"evidence": found.evidence[:EVIDENCE_MAX]}),
        **found.also,
    }


class Report:
    """The rows of `trials.json`; one that is put replaces its own and is on disk when `put` returns, so that a run can be resumed."""

    def __init__(self, folder: Path = BUILD) -> None:
        self.path = folder / "trials.json"
        try:
            self.rows: list[dict[str, Any]] = json.loads(self.path.read_text("utf-8"))["rows"]
        except (OSError, ValueError, KeyError):
            self.rows = []

    def put(self, new: dict[str, Any]) -> None:
        """Replace the row of the same name and mechanism, keep the others."""
        kept = [r for r in self.rows if (r["name"], r["without"]) != (new["name"], new["without"])]
        self.rows = [*kept, new]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps({"rows": self.rows}, indent=1) + "\n", 0o644)

    def passed(self, **wanted: Any) -> dict[str, Any] | None:
        """The row that has these values and is ok."""
        return next((r for r in self.rows if r["ok"] and all(r.get(k) == v for k, v in wanted.items())), None)


def commit() -> str:
    """The commit that is tried; `-dirty` behind it where the code is not what was committed, and then nothing is resumed."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False).stdout.strip()

    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("-dirty" if git("status", "--porcelain", "--", *_CODE) else "")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    names = (
        "name",
        "without",
        "size",
        "seed",
        "runs",
        "lost",
        "twice",
        "skipped",
        "misordered",
        "in_flight",
        "redelivered",
        "seconds",
        "ok",
    )
    lines = [[*names, "points"]]
    for r in rows:
        shown = ["-" if r.get(n) is None else f"{r[n]:.1f}" if isinstance(r[n], float) else str(r[n]) for n in names]
        points = r.get("exercised")
        lines.append([*shown, "-" if points is None else f"{sum(bool(v) for v in points.values())} of {len(points)}"])
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


# -- histories: columns of 64 bit numbers, for the trial `history` ---------------------------------------------------------------------------


def number(id_: str) -> int:
    """An id of a fact or a stream as a number."""
    return int.from_bytes(blake2b(id_.encode(), digest_size=8).digest(), "big") >> 1


class History:
    """Where one trial records: calls with their acknowledgements, what readers read, and the log at the end.

    `mark` names commit, size and seed: what another run left is no history of this one.
    """

    def __init__(self, folder: Path | None, name: str, mark: str) -> None:
        self.folder, self.name, self.mark = folder, name, mark
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"{name}.*"):
                old.unlink()
            (folder / f"{name}.mark").write_text(mark)

    def recorded(self) -> list[str]:
        """The trials that recorded in this run, or before it was resumed."""
        marks = sorted(self.folder.glob("*.mark")) if self.folder is not None else []
        return [path.stem for path in marks if path.stem != self.name and path.read_text() == self.mark]

    def files(self, name: str, kind: str) -> list[Path]:
        """What a trial recorded of a kind: calls, reads, log."""
        return sorted(self.folder.glob(f"{name}.{kind}.*")) if self.folder is not None else []

    def calls(self, part: str, rows: Iterable[tuple[str, int, int, int]]) -> None:
        """(id of a fact, first call in ns, first acknowledgement in ns, acknowledged position), one for each acknowledgement."""
        self._write(f"calls.{part}", (x for id_, call, ack, position in rows for x in (number(id_), call, ack, position)))

    def reads(self, part: str, positions: Iterable[int]) -> None:
        """The positions that a tailing reader read, in its order."""
        self._write(f"reads.{part}", positions)

    def log(self, rows: Iterable[tuple[int, str, int]]) -> None:
        """(position, stream, version) of all events in the order of positions."""
        self._write("log.0", (x for position, stream, version in rows for x in (position, number(stream), version)))

    def _write(self, what: str, values: Iterable[int]) -> None:
        if self.folder is not None:
            (self.folder / f"{self.name}.{what}").write_bytes(array("q", values).tobytes())


def read_history(path: Path) -> "array[int]":
    """The numbers of one recorded file."""
    found = array("q")
    found.frombytes(path.read_bytes())
    return found
