"""Rows of `make bench`: rounds of us and of a peer, interleaved in one run, as medians, ratios and build/bench.json (shape: contracts.md)."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "build" / "bench.json"


@dataclass(slots=True)
class Sample:
    """One measurement: a value in the row's unit and, where single calls were timed, their seconds."""

    value: float
    calls_s: Sequence[float] = ()


@dataclass(slots=True)
class Row:
    """A row of the report. `ratio` is the median over rounds of ours to the peer's; `op` and `reach` say what is to be reached."""

    name: str
    unit: str
    value: float
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    op: str | None = None
    reach: float | None = None
    rounds: list[dict[str, float]] = field(default_factory=list)
    p50_ms: float | None = None
    p99_ms: float | None = None
    settings: str = ""  # of this row alone: how what it works on was made

    @property
    def reached(self) -> bool | None:
        """Whether the figure is reached; None where it is only recorded."""
        if self.reach is None or self.ratio is None:
            return None
        return self.ratio >= self.reach if self.op == ">=" else self.ratio <= self.reach


@dataclass(frozen=True, slots=True)
class Against:
    """A peer of a row: its name in the report, how it is measured, and what is to be reached."""

    peer: str
    op: str | None = None
    reach: float | None = None


def measure(
    name: str, unit: str, ours: Callable[[], Sample], peers: Mapping[Against, Callable[[], Sample]], rounds: int, settings: str = ""
) -> list[Row]:
    """Rounds of ours and of each peer, one after the other; a row a peer, or one alone."""
    found: dict[Against, list[dict[str, float]]] = {peer: [] for peer in peers}
    own: list[Sample] = []
    for n in range(rounds):
        order = list(peers.items())
        own.append(ours())
        for peer, sample in order if n % 2 == 0 else reversed(order):
            value = sample().value
            found[peer].append({"value": own[-1].value, "peer_value": value, "ratio": own[-1].value / value})
    calls = sorted(call for sample in own for call in sample.calls_s)
    p50, p99 = _at(calls, 0.5), _at(calls, 0.99)
    value = statistics.median(sample.value for sample in own)
    if not peers:
        return [Row(name, unit, value, rounds=[{"value": sample.value} for sample in own], p50_ms=p50, p99_ms=p99, settings=settings)]
    return [
        Row(
            name,
            unit,
            value,
            peer.peer,
            statistics.median(r["peer_value"] for r in rows),
            statistics.median(r["ratio"] for r in rows),
            peer.op,
            peer.reach,
            rows,
            p50,
            p99,
            settings,
        )
        for peer, rows in found.items()
    ]


def _at(calls: Sequence[float], share: float) -> float | None:
    return round(calls[min(len(calls) - 1, int(len(calls) * share))] * 1000, 3) if calls else None


def machine(settings: Mapping[str, str], postgres: str) -> dict[str, Any]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "python": ".".join(map(str, __import__("sys").version_info[:3])),
        "postgres": postgres,
        "fdatasync_us": round(_fdatasync_us(), 1),
        "settings": dict(settings),
    }


def _fdatasync_us(times: int = 200) -> float:
    """Median time of an fdatasync after 8 KiB were written."""
    with tempfile.TemporaryFile() as file:
        found = []
        for _ in range(times):
            os.write(file.fileno(), bytes(8192))
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            found.append((time.perf_counter() - begun) * 1e6)
    return statistics.median(found)


def write(where: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """The JSON report; rows of an earlier run that this one did not measure stay."""
    names = {(row.name, row.peer) for row in rows}
    try:
        kept = [row for row in json.loads(FILE.read_text("utf-8"))["rows"] if (row["name"], row["peer"]) not in names]
    except (OSError, ValueError, KeyError):
        kept = []
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps({"machine": dict(where), "rows": kept + [asdict(row) for row in rows]}, indent=1) + "\n", "utf-8")


def line(row: Row) -> str:
    """A row for a terminal."""
    peer = f"{row.peer:<34} {row.peer_value:>12,.0f}  ×{row.ratio:5.2f}" if row.peer and row.peer_value is not None else ""
    goal = "" if row.reach is None else f"  {row.op} {row.reach} {'reached' if row.reached else 'MISSED'}"
    times = "" if row.p50_ms is None else f"  p50 {row.p50_ms} ms, p99 {row.p99_ms} ms"
    return f"{row.name:<22} {row.value:>12,.0f} {row.unit:<9} {peer}{goal}{times}"
