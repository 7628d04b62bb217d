"""System calls of running processes in the one order in which they happened, by one `strace` over all of them.

A traced thread stands still at the entry and at the return of a call until the one tracer lets it go on. So if the return of one call comes before
the entry of another in what strace wrote, the first was done before the second began; no clock is compared.
"""

import ast
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.app.servers import process
from tests.crash.ground import Missing

READS = ("read", "readv", "recvfrom", "recvmsg")
WRITES = ("write", "writev", "sendto", "sendmsg", "sendmmsg")
STRING_BYTES_MAX = 4 * 1024 * 1024  # what strace shows of one buffer; longer ones that are asked for are an error
_LINE = re.compile(r"(?P<pid>\d+) +(?:<\.\.\. (?P<resumed>\w+) resumed>|(?P<name>\w+)\()(?P<rest>.*)")
_UNDER_WAY = (" <unfinished ...>", " <detached ...>")  # another thread's turn; the end of the trace
_RESULT = re.compile(r"\) += (\?|-?\d+)[^\"]*$")
_TARGET = re.compile(r"(?:\d+<(.*?)>)?(?:, |$)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"(\.\.\.)?')


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that has returned. `entered` and `returned` are lines of the trace; `target` is the first descriptor's path or socket."""

    name: str
    arguments: str
    target: str
    result: int
    entered: int
    returned: int

    def strings(self) -> list[bytes]:
        """The buffers and paths among its arguments. Raises `ValueError` for one that strace has cut off."""
        found = _STRING.findall(self.arguments)
        if any(cut for _, cut in found):
            raise ValueError(f"{self.name} on {self.target}: a buffer is longer than {STRING_BYTES_MAX} bytes")
        return [ast.literal_eval(f'b"{text}"') for text, _ in found]

    def data(self) -> bytes:
        """The bytes that were read or written."""
        return b"".join(self.strings())[: max(0, self.result)]


class Strace:
    """Traces processes and all that they start, from its making until `stop`."""

    def __init__(self, output: Path, calls: Sequence[str], pids: Sequence[int]) -> None:
        program = shutil.which("strace")
        if program is None:
            raise Missing("strace is not installed (Debian: apt-get install strace)")
        self.output, self._log = output, output.with_suffix(".log")
        what = ["-f", "-yy", "-qqq", "-s", str(STRING_BYTES_MAX), "-e", "signal=none", "-e", f"trace={','.join(calls)}"]
        argv = [program, *what, "-o", str(output), *(f"--attach={pid}" for pid in pids)]
        # by SIGKILL, with which the kernel lets them go: by SIGTERM it would wait for those that die with us, which wait for it
        self._child = process.spawn(argv, self._log, death=signal.SIGKILL)
        if not process.wait_until(lambda: self._child.poll() is not None or all(map(self.has, pids)), 10) or self._child.poll() is not None:
            self.stop()
            raise Missing(
                f"strace may not trace processes that run already ({process.tail(self._log)}): run as root with CAP_SYS_PTRACE, or as an "
                "ordinary user with kernel.yama.ptrace_scope = 0"
            )

    def has(self, pid: int) -> bool:
        """Whether that process is traced by us, with all its threads."""
        try:
            found = [(task / "status").read_text("utf-8", "replace") for task in Path(f"/proc/{pid}/task").iterdir()]
        except (FileNotFoundError, ProcessLookupError):
            return True  # it, or a thread of it, has ended
        return all(f"\nTracerPid:\t{self._child.pid}\n" in one for one in found)

    def stop(self) -> None:
        """Let them go; what they did is in `output` then."""
        if self._child.poll() is None:
            self._child.terminate()
            self._child.wait(20)


def calls(output: Path) -> Iterator[Call]:
    """The calls of a trace in the order of their returns; what was under way when it ended is left out."""
    begun: dict[str, tuple[str, str, int]] = {}
    with open(output, encoding="ascii") as lines:
        for number, line in enumerate(lines):
            found = _LINE.match(line.rstrip("\n"))
            if found is None:
                raise ValueError(f"line {number} of the trace is no system call: {line[:200]}")
            pid, name, rest, entered = found["pid"], found["name"], found["rest"], number
            if name is None:
                name, before, entered = begun.pop(pid)
                rest = before + rest
            if rest.endswith(_UNDER_WAY):
                begun[pid] = name, rest.rpartition(" <")[0], entered
                continue
            result = _RESULT.search(rest)
            if result is None:
                raise ValueError(f"line {number} of the trace has no result: {line[-200:]}")
            if result[1] != "?":
                arguments = rest[: result.start()]
                target = _TARGET.match(arguments)
                yield Call(name, arguments, (target[1] if target else "") or "", int(result[1]), entered, number)
