"""fuzz: every parser and the codec, with inputs that nobody would send by intention.

Promise: nothing is dropped and nothing stops the hub (P7, P8): what cannot be read is held or refused with words, whatever the bytes.
Way: seeds of our own, and real files where they are, changed in ways that know JSON, segments and lines (`fuzz_inputs`); what brings an answer
    of a new kind is changed further. Guided by coverage where atheris can be imported, else by the answers alone. Every target
    (`fuzz_targets`) in a forked process.
Oracle: only what the target may refuse with rises; one reading takes at most 2 s of CPU and 256 MiB more memory; read twice, and again in a
    process with other hash seeds, it is the same; facts go through the codec and back with the same digest; held lines can be stored.

A failure is made small and kept under build/fuzz/; `python -m tests.crash.fuzz TARGET FILE` reads it again.
"""

import contextlib
import gc
import importlib
import importlib.util
import json
import mmap
import os
import pickle
import random
import resource
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

from hub.app.servers import process
from tests.crash.fuzz_inputs import BYTES_MAX, mutated
from tests.crash.fuzz_targets import Broken, Target, summary, targets, words
from tests.crash.ground import Child, Ground, Trial
from tests.crash.report import BUILD, ROOT, Found

CPU_S, MEMORY = 2.0, 256 * 1024 * 1024  # of one reading
HUNG_S = 120.0  # a worker that does not go on for this long hangs where no signal reaches it
POOL_MAX, POOL_BYTES_MAX = 2000, 16 * 1024  # inputs that brought something new, and of one of them: large ones are an end, not a beginning
SAMPLE = 150  # mapped inputs of a target that are read again in another process
SMALLER_MAX = 400  # readings spent on making a failure small
KINDS = ("raised", "slow", "memory", "not deterministic", "law broken", "died")
FAILURES = "failures"  # in the folder of the trial, a line each
_HEAD = struct.Struct("!qqqqq")  # inputs, recognised, mapped, kinds of answers, length of the input that is being read
_PAGE = os.sysconf("SC_PAGE_SIZE")
atheris: Any = importlib.import_module("atheris") if importlib.util.find_spec("atheris") else None  # has no wheels for aarch64


class TooSlow(BaseException):
    """One reading went over its time; not an Exception, so that no parser takes it for one of its own."""


@dataclass
class Judge:
    """Reads inputs with one target and says what is wrong."""

    target: Target
    recognised: bool = False
    mapped: bool = False
    told: frozenset[str] = frozenset()
    result: Any = None

    def judge(self, body: bytes) -> tuple[str, str] | None:
        """(kind, what and where) of what is wrong with the reading of a body; None where nothing is."""
        self.recognised = self.mapped = False
        self.told, self.result = frozenset(), None
        try:
            first = self._read(body)
            if isinstance(first, str):
                self.told = frozenset([words(first)])
                return None if self._read(body) == first else ("not deterministic", "refused in other words")
            self.result = first
            if first is None:
                return None
            second = self._read(body)
            if first != second or summary(first) != summary(second):
                return "not deterministic", "read twice, it is another"
            self.recognised, self.mapped = True, self.target.mapped(first)
            self.told = frozenset(self.target.told(first))
        except TooSlow as error:
            return "slow", _place(error)
        except MemoryError as error:
            return "memory", _place(error)
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            return "raised", f"{_place(error)}: {type(error).__name__}"
        try:
            self.target.laws(body, first)
        except Broken as error:
            return "law broken", str(error)
        except Exception as error:  # noqa: BLE001 - likewise
            return "law broken", f"{_place(error)}: {type(error).__name__}"
        return None

    def _read(self, body: bytes) -> Any:
        """The result, or the refusal as a text."""
        with _bounds():
            try:
                return self.target.parse(body)
            except self.target.refuses as error:
                return f"{type(error).__name__} {error!s}"


@contextlib.contextmanager
def _bounds() -> Iterator[None]:
    """CPU time and memory of one reading."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _place(error: BaseException) -> str:
    """The innermost line of the program itself that was being run."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_ours(f.filename)]
    return f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno} {frames[-1].name}" if frames else "outside of the program"


def _is_ours(file: str) -> bool:
    return file.startswith(str(ROOT)) and not file.startswith(str(ROOT / "tests"))


@dataclass
class Worker:
    """Fuzzes one target in a process of its own. What it counts and reads stands in memory that outlives it."""

    target: Target
    seed: int
    inputs: int  # besides the seeds
    folder: Path
    shared: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, _HEAD.size + BYTES_MAX))

    @property
    def counts(self) -> tuple[int, int, int, int]:
        return _HEAD.unpack_from(self.shared)[:4]

    @property
    def sample(self) -> Path:
        """Inputs that were mapped, with the summaries of their results."""
        return self.folder / f"{self.target.name}.sample"

    @property
    def reading(self) -> bytes:
        """The input that is being read."""
        length = _HEAD.unpack_from(self.shared)[4]
        return self.shared[_HEAD.size : _HEAD.size + length]

    def skip(self) -> None:
        """Count the input that is being read as done."""
        _HEAD.pack_into(self.shared, 0, self.counts[0] + 1, *self.counts[1:], 0)

    def run(self) -> None:
        """The process; goes on after what another has done."""
        signal.signal(signal.SIGPROF, _too_slow)
        self._judge, begun = Judge(self.target), self.target.begin()
        self._pool = [body for body in begun if len(body) <= POOL_BYTES_MAX]  # all that brought something new
        self._deep: list[bytes] = []  # of these, what was mapped
        self._known: set[str] = set()
        self._bad: Counter[tuple[str, str]] = Counter()
        self._sampled: list[tuple[bytes, bytes]] = []
        if atheris is not None:
            self._by_coverage(begun)
        for n in range(self.counts[0], self.inputs + len(begun)):
            rng = random.Random(f"{self.seed}/{self.target.name}/{n}")
            self.one(begun[n] if n < len(begun) else mutated(rng, self._chosen(rng), rng.choice(self._pool)))
        self._finish()

    def _finish(self) -> None:
        self.sample.write_bytes(pickle.dumps((self.target.name, self._sampled)))

    def _chosen(self, rng: random.Random) -> bytes:
        """An input of the pools: mostly one that was mapped, for a change of what is refused is mostly refused too."""
        pool = self._deep if self._deep and rng.random() < 0.7 else self._pool
        return rng.choice(pool if rng.random() < 0.5 else pool[-max(20, len(pool) // 4) :])

    def _by_coverage(self, begun: list[bytes]) -> None:
        """The same seeds and changes, chosen by what of the program they reach; ends the process."""

        def one(body: bytes) -> None:
            self.one(body)
            if self.counts[0] >= self.inputs + len(begun):
                self._finish()
                os._exit(0)

        def change(body: bytes, most: int, seed: int) -> bytes:
            rng = random.Random(seed)
            return mutated(rng, bytes(body), rng.choice(self._pool))[:most]

        folder = self.folder / f"{self.target.name}.corpus"
        folder.mkdir(exist_ok=True)
        for n, body in enumerate(begun):
            (folder / f"{n:06}").write_bytes(body)
        for found in gc.get_objects():
            if isinstance(found, FunctionType) and _is_ours(found.__code__.co_filename):
                atheris.instrument_func(found)
        options = [f"-timeout={HUNG_S:.0f}", "-rss_limit_mb=0", f"-max_len={BYTES_MAX}", f"-seed={self.seed}"]
        atheris.Setup(["fuzz", *options, str(folder)], one, custom_mutator=change)
        atheris.Fuzz()

    def one(self, body: bytes) -> None:
        """Judge one input, count it, and keep it if it brought something new."""
        body, judge = body[:BYTES_MAX], self._judge
        self.shared[_HEAD.size : _HEAD.size + len(body)] = body
        inputs, recognised, mapped, _ = self.counts
        _HEAD.pack_into(self.shared, 0, inputs, recognised, mapped, len(self._known), len(body))
        wrong = judge.judge(body)
        if wrong is not None:
            self._failed(body, *wrong)
        elif not judge.told <= self._known:
            self._known |= judge.told
            for pool in (self._pool, self._deep) if judge.mapped else (self._pool,):
                if len(pool) >= POOL_MAX:
                    del pool[len(pool) // 2]
                if len(body) <= POOL_BYTES_MAX:
                    pool.append(body)
        if wrong is None and judge.mapped and len(self._sampled) < SAMPLE and inputs % 7 == 0:
            self._sampled.append((body, summary(judge.result)))
        seen = (inputs + 1, recognised + (wrong is None and judge.recognised), mapped + (wrong is None and judge.mapped))
        _HEAD.pack_into(self.shared, 0, *seen, len(self._known), 0)

    def _failed(self, body: bytes, kind: str, what: str) -> None:
        """Write one failure down; the first of each is made small and shown."""
        self._bad[kind, what] += 1
        path = ""
        if self._bad[kind, what] == 1:
            path = keep(self.target.name, self.seed, kind, what, smaller(self._judge, body, kind, what))
        with (self.folder / FAILURES).open("a") as file:
            file.write(json.dumps([self.target.name, kind, what, path]) + "\n")


def _too_slow(signum: int, frame: FrameType | None) -> None:
    raise TooSlow


def smaller(judge: Judge, body: bytes, kind: str, what: str) -> bytes:
    """The body with as much taken away as can be so that the same goes wrong; few tries where one takes seconds."""
    tries, step = 12 if kind in ("slow", "memory") else SMALLER_MAX, max(1, len(body) // 2)
    while tries > 0 and step:
        at = 0
        while at < len(body) and tries > 0:
            tries -= 1
            shorter = body[:at] + body[at + step :]
            if judge.judge(shorter) == (kind, what):
                body = shorter
            else:
                at += step
        step //= 2
    return body


def keep(target: str, seed: int, kind: str, what: str, body: bytes) -> str:
    """The file under build/fuzz/ that holds a failure, which is told with the way to read it again."""
    folder = BUILD / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target}-{summary(body).hex()[:12]}"
    path.write_bytes(body)
    shown = body[:200].hex() + ("…" if len(body) > 200 else "")
    print(f"FUZZ {target}, seed {seed}: {kind}: {what}: {len(body)} bytes {shown}; python -m tests.crash.fuzz {target} {path}", flush=True)
    return str(path)


@dataclass
class _Running:
    """A worker in its process, and when it was last seen to go on."""

    worker: Worker
    child: Child
    at: int = -1
    since: float = 0.0

    def watch(self) -> None:
        """Kill it where it hangs."""
        if self.worker.counts[0] != self.at:
            self.at, self.since = self.worker.counts[0], time.monotonic()
        elif time.monotonic() - self.since > HUNG_S:
            self.child.kill()


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    found = Found(runs=0, exercised={}, wrong=dict.fromkeys(KINDS, 0))
    workers = [Worker(t, ground.seed, ground.size(*_SIZES.get(t.name, (1500, 100_000))), ground.folder) for t in targets().values()]
    waiting, running = list(workers), list[_Running]()
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            worker = waiting.pop(0)
            running.append(_Running(worker, ground.fork(f"fuzz {worker.target.name}", worker.run)))
        for one in list(running):
            if not one.child.ended():
                one.watch()
                continue
            running.remove(one)
            if one.child.code:
                _died(one, ground, found)
                waiting.insert(0, one.worker)
        time.sleep(0.02)
    _count(workers, ground, found)
    return found


def _died(one: _Running, ground: Ground, found: Found) -> None:
    """A reading ended its process: tell it, and go on with the next input. Raises where the process ended by itself."""
    worker = one.worker
    if not worker.reading:
        raise RuntimeError(f"the worker of {worker.target.name} ended with {one.child.code}: {process.tail(ground.log)}")
    found.wrong["died"] += 1
    keep(worker.target.name, ground.seed, "died", f"exit code {one.child.code}", worker.reading)
    worker.skip()


def _count(workers: list[Worker], ground: Ground, found: Found) -> None:
    """What was exercised and what failed, with the failures to be looked at."""
    assert found.exercised is not None
    found.exercised["read again in another process"] = 0
    for worker in workers:
        name, (inputs, recognised, mapped, answers) = worker.target.name, worker.counts
        found.runs += inputs
        found.exercised |= {f"{name}: inputs": inputs, f"{name}: recognised": recognised, f"{name}: kinds of answers": answers}
        if name != "unsupported":  # which maps nothing
            found.exercised[f"{name}: mapped"] = mapped
        again, differing = _elsewhere(worker)
        found.exercised["read again in another process"] += again
        found.wrong["not deterministic"] += differing
    kept = ground.folder / FAILURES
    failures = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    found.wrong |= {kind: found.wrong[kind] + sum(f[1] == kind for f in failures) for kind in KINDS}
    found.also["failures"] = [" ".join(f) for f in failures if f[3]]
    found.also["guided by"] = "answers" if atheris is None else "coverage (atheris)"


def _elsewhere(worker: Worker) -> tuple[int, int]:
    """How many results were read again by a process whose hashes have other seeds, and how many differ there."""
    command = [sys.executable, "-m", "tests.crash.fuzz_targets", str(worker.sample)]
    environment = {**os.environ, "PYTHONHASHSEED": str(worker.seed % 2**32)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    name, pairs = pickle.loads(worker.sample.read_bytes())
    differing = json.loads(done.stdout)
    for n in differing[:3]:
        keep(name, worker.seed, "not deterministic", "in another process it is another", pairs[n][0])
    return len(pairs), len(differing)


def main(name: str, path: str) -> int:
    """Read a kept failure again; 1 if it still is one."""
    signal.signal(signal.SIGPROF, _too_slow)
    judge = Judge(targets()[name])
    wrong = judge.judge(Path(path).read_bytes())
    print(wrong or f"nothing is wrong: {judge.result}")
    return 1 if wrong else 0


# Inputs small and whole, besides the seeds, where a reading costs less than one of a mapping does.
_SIZES = dict.fromkeys(("json", "event", "row", "gs1", "identifier"), (2000, 200000))

TRIAL = Trial("fuzz", run, seconds=(240, 10_800))

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
