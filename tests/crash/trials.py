"""`make trials`: runs the trials, adds a row for each to `build/trials.json` as it finishes, and prints them as a table.

SMALL=1 runs the small size, ONLY=name,… those alone and again, WITHOUT=mechanism takes one away and runs the trial that guards it, SEED=n
makes another plan. A trial that is ok in this commit, size and seed is not run again, so a whole run can be interrupted and resumed.

Exit 1 if a row is not ok. With WITHOUT that is what should happen, by lost + twice + skipped + misordered; 0 says that the trial has no teeth.
"""

import contextlib
import gc
import importlib
import os
import pkgutil
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hub.app.servers import process
from tests.crash.ground import Ground, Missing, Server, Trial
from tests.crash.report import BUILD, HISTORIES, ROOT, Found, History, Report, commit, row, table

FOLDERS = ("crash", "simulation")  # where trials are: each module under tests/ here that has a TRIAL


class TookTooLong(BaseException):
    """A trial went over its bound; not an Exception, so that no loop of a trial takes it for one of its own."""


def trials() -> list[Trial]:
    """All trials by name, those that read others' histories last."""
    names = [f"tests.{folder}.{m.name}" for folder in FOLDERS for m in pkgutil.iter_modules([str(ROOT / "tests" / folder)])]
    modules = [importlib.import_module(name) for name in names if not name.rpartition(".")[2].startswith(("test_", "trials"))]
    found = [module.TRIAL for module in modules if isinstance(getattr(module, "TRIAL", None), Trial)]
    return sorted(found, key=lambda t: (t.last, t.name))


def chosen(known: Sequence[Trial], only: Sequence[str], without: str | None) -> list[tuple[Trial, Callable[[], None] | None]]:
    """What to run, with what takes the mechanism away. Raises `ValueError` for a name that is not known."""
    if unknown := set(only) - {t.name for t in known}:
        raise ValueError(f"there is no trial {', '.join(sorted(unknown))}: the trials are {', '.join(t.name for t in known)}")
    if without is None:
        return [(t, None) for t in known if not only or t.name in only]
    guarded: list[tuple[Trial, Callable[[], None] | None]] = [
        (t, t.without[without]) for t in known if without in t.without and (not only or t.name in only)
    ]
    if not guarded:
        mechanisms = sorted({m for t in known for m in t.without})
        raise ValueError(f"no trial guards {without!r}: WITHOUT takes one of {', '.join(mechanisms)}")
    return guarded


def main(environ: Mapping[str, str] = os.environ, build: Path = BUILD) -> int:
    """Run what the environment asks for."""
    small, without = environ.get("SMALL", "") not in ("", "0"), environ.get("WITHOUT") or None
    only = [name for name in environ.get("ONLY", "").replace(",", " ").split() if name]
    try:
        seed = int(environ.get("SEED") or 1)
        plan = chosen(trials(), only, without)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(143))  # unwinds, so that nothing is left running
    report, rows = Report(build), []
    at = commit()
    same = {"without": without, "seed": seed, "size": "small" if small else "whole", "commit": at}
    with _shared_server() as server:
        gc.freeze()  # what is imported stays shared with the processes that are forked
        for trial, remove in plan:
            before = None if only or without or trial.last or at.endswith("-dirty") else report.passed(name=trial.name, **same)
            print(f"\n{trial.name}{f' without {without}' if without else ''}: {same['size']}, seed {seed}", flush=True)
            if before is not None:
                print("  ok already in this commit; ONLY runs it again")
                rows.append(before)
                continue
            history = History(build / HISTORIES if without is None else None, trial.name, f"{at} {same['size']} {seed}")
            new = _one(trial, remove, history, server, small=small, seed=seed, same=same)
            report.put(new)
            rows.append(new)
    print("\n" + table(rows))
    failed = [r for r in rows if not r["ok"]]
    for r in failed if without is None else ():  # once more at the end, where one looks first
        print(
            f"\n{r['name']} is NOT OK{': ' + r['error'] if 'error' in r else ''}; wrong: { ({k: v for k, v in r['wrong'].items() if v}) }"
        )
        print("\n".join(f"  {line}" for line in r.get("evidence", ())), flush=True)
    if without is not None:
        _say_teeth(rows, without)
    return 1 if failed else 0


def _one(
    trial: Trial,
    remove: Callable[[], None] | None,
    history: History,
    server: Callable[[], Server],
    *,
    small: bool,
    seed: int,
    same: dict[str, Any],
) -> dict[str, Any]:
    """Run one trial within its bound, in a folder of its own, and make its row."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="trial-"))
    ground = Ground(folder, server, history, small=small, seed=seed, remove=remove)
    found, error = Found(runs=0), None
    try:
        with _bounded(trial.seconds[0 if small else 1]):
            found = trial.run(ground)
    except Missing as missing:
        error = str(missing)
    except (Exception, TookTooLong) as failure:  # noqa: BLE001 - the row says it, and the other trials run
        error = f"{type(failure).__name__}: {failure}"
        traceback.print_exc()
    finally:
        ground.end()
        said = process.tail(ground.log, 12)
        shutil.rmtree(folder, ignore_errors=True)
    new = row(
        trial.name, same["without"], found, seed=seed, commit=same["commit"], seconds=round(time.monotonic() - began, 1), size=same["size"]
    )
    if error is not None:
        new |= {"ok": False, "error": error}
    _print(new, found, said)
    return new


def _print(new: dict[str, Any], found: Found, said: str) -> None:
    for name in ("runs", "lost", "twice", "skipped", "misordered", "exercised", "in_flight", "redelivered"):
        if new[name] is not None:
            print(f"  {name}: {new[name]}")
    for name, value in {**found.also, "wrong": {k: int(v) for k, v in found.wrong.items() if v}}.items():
        if value or name != "wrong":
            print(f"  {name}: {value}")
    if found.idle and not new.get("error"):
        print(f"  never occurred: {', '.join(found.idle)}")
    if not new["ok"]:
        print("\n".join(f"  {line}" for line in found.evidence))
        print(f"  NOT OK{': ' + new['error'] if 'error' in new else ''}")
        print(f"  the processes said last: {said}" if said else "", flush=True)


def _say_teeth(rows: Sequence[dict[str, Any]], without: str) -> None:
    for r in rows:
        harm = r["lost"] + r["twice"] + r["skipped"] + r["misordered"]
        if "error" in r:
            print(f"{r['name']} without {without} ended by an error, not by its figures: this proves nothing")
        elif harm:
            print(f"{r['name']} without {without} fails as it should: lost + twice + skipped + misordered = {harm}")
        else:
            print(f"{r['name']} without {without} still passes: IT HAS NO TEETH")


@contextlib.contextmanager
def _shared_server() -> Iterator[Callable[[], Server]]:
    """One PostgreSQL for all trials that do not crash it, started when the first asks."""
    folder = Path(tempfile.mkdtemp(prefix="trials-"))
    started: list[Server] = []

    def get() -> Server:
        if not started:
            started.append(Server(folder / "server"))
            started[0].start()
        return started[0]

    try:
        yield get
    finally:
        for server in started:
            server.end()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    def over(signum: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"not done after {seconds} s")

    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    sys.exit(main())
