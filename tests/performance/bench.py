"""`make bench`: measures our paths against limits and peers in one run. SMALL=1 proves in CI that it works; ONLY=name measures some rows.

It never judges: a missed figure is printed as missed, and the exit status is 0.
"""

import contextlib
import itertools
import os
import sys
import tempfile
from pathlib import Path

import psycopg

from hub.app.servers.postgres import database
from hub.app.settings import Settings
from tests.performance import append, edge, growth, intake, kafka, report, trace, views

SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "wal_level", "shared_buffers", "max_wal_size", "jit")


def main() -> int:
    """Run it."""
    small, only = os.environ.get("SMALL") == "1", os.environ.get("ONLY", "")
    with tempfile.TemporaryDirectory() as folder, database(Settings(home=Path(folder) / "home")) as running:
        with psycopg.connect(running.owner_url) as connection:
            said = {name: str((connection.execute(f"show {name}".encode()).fetchone() or ("",))[0]) for name in SETTINGS}
            version = str((connection.execute("show server_version").fetchone() or ("",))[0])
        where = report.machine(said, version)
        print(f"{where['cores']} cores, PostgreSQL {version}, fdatasync {where['fdatasync_us']} µs{', small' if small else ''}", flush=True)
        found: list[report.Row] = []
        with views.Bench(running.owner_url, small) as followed, contextlib.ExitStack() as kept:
            appends, traces = append.Bench(running.owner_url, small), trace.Bench(running.owner_url, small, kept)
            for rows in itertools.chain(
                append.rows(appends, only),
                intake.rows(appends, only),
                growth.rows(appends, only),
                views.rows(followed, only),
                kafka.rows(appends, only, kept),
                trace.rows(traces, only),
                edge.rows(appends, only),
            ):
                found += rows
                for row in rows:
                    print(report.line(row), flush=True)
                report.write(where, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
