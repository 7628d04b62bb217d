"""The command line: `main` runs a command and turns whatever ends it into one line on standard error and an exit code.

Exit codes: 0 done, 1 findings, 2 usage or configuration, 3 unavailable. A reader that has seen enough of a list (EPIPE) is no error.
"""

import contextlib
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from typer import Abort, Exit
from typer.exceptions import TyperException
from typer.main import get_command

from events.errors import HubError, Refused
from hub.app.cli.output import note, printable


class _Output(io.TextIOWrapper):
    """Standard output in UTF-8, whatever the locale says, that remembers why it could not be written.

    That nobody reads any more (EPIPE) stops no command amid its work: what it says from then on is dropped, and lists end by themselves.
    """

    lost: OSError | None = None

    def write(self, text: str) -> int:
        self._attempt(partial(super().write, text))
        return len(text)

    def flush(self) -> None:
        self._attempt(super().flush)

    def _attempt(self, work: Callable[[], object]) -> None:
        if isinstance(self.lost, BrokenPipeError):
            return
        try:
            work()
        except OSError as error:
            self.lost = error
            if not isinstance(error, BrokenPipeError):
                raise


def main() -> None:
    """The console script `hub`."""
    closed = sys.stdout is None
    for number in (0, 1, 2):  # else the number of a closed stream goes to the next file or socket that is opened
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - until the process ends
    if closed:
        sys.exit(_say("standard output is closed: give the command a file, a pipe or /dev/null to print to", 3))
    buffer = io.BufferedWriter(io.FileIO(1, "w", closefd=False))
    sys.stdout = _Output(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=os.isatty(1))
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    code = _code_of(arguments)
    lost = _lost_output()
    if lost is None:
        return code
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer has nowhere to go; the interpreter flushes it once more
    if isinstance(lost, BrokenPipeError):
        return code
    return _say(f"standard output cannot be written ({lost.strerror}): give it a file or a pipe that takes everything", 3)


def _code_of(arguments: list[str]) -> int:
    from hub.app.cli.commands import app

    try:
        _check_encoding(arguments)
        # not app(): it would turn a closed pipe and Ctrl-C into exit codes of its own
        command = get_command(app)
        with command.make_context("hub", list(arguments)) as context:
            found = command.invoke(context)
        return found if isinstance(found, int) else 0
    except TyperException as error:
        return _misused(error)
    except Exit as stop:
        return stop.exit_code
    except HubError as error:
        return _say(error, error.exit_code)
    except (KeyboardInterrupt, Abort):
        return _say("interrupted; what was done is durable, the same command goes on", 130)
    except Exception as error:  # noqa: BLE001 - the outermost net: nobody who types a command is shown a trace
        return 3 if isinstance(error, OSError) and _lost_output() else _failed(error)


def _check_encoding(arguments: list[str]) -> None:
    for n, text in enumerate(arguments, 1):
        if not text.isascii() and arguments[0] != "intake":  # file names may be any bytes
            try:
                text.encode()
            except UnicodeEncodeError:
                raise Refused(f"argument {n}, '{printable(text)}', is not UTF-8: names in the log are; type it again as UTF-8") from None


def _misused(error: TyperException) -> int:
    context = getattr(error, "ctx", None)
    said = error.format_message()
    if context is None:
        return _say(said, 2)
    if said == context.get_help():  # a command that is nothing without arguments
        print(said, file=sys.stderr)
        return 2
    return _say(f"{said.rstrip('.')}: see {context.command_path} --help", 2)


def _failed(error: Exception) -> int:
    """What nobody foresaw, or a database that went away amid the work."""
    from psycopg import OperationalError

    if isinstance(error, OperationalError):
        return _say(f"the database does not answer any more ({error}): look at hub doctor, then run the command again", 3)
    kept = _keep_trace(traceback.format_exc())
    return _say(f"this command met an error that is the hub's own fault ({type(error).__name__}: {error}): report it with {kept}", 3)


def _keep_trace(text: str) -> str:
    """Where the trace is now: with the logs of the home, if there is one."""
    from hub.app.home import Home
    from hub.app.servers.process import bound_log
    from hub.app.settings import home_path

    log = Home(home_path(os.environ, Path.cwd())).log / "command.log"
    try:
        if not log.parent.is_dir():
            log = Path(tempfile.mkstemp(prefix="hub-", suffix=".log")[1])
        bound_log(log)
        with open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        return f"its trace, which could not be kept in {log} ({error.strerror})"
    return f"the trace in {log}"


def _lost_output() -> OSError | None:
    """Why standard output did not take everything."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    return getattr(sys.stdout, "lost", None)


def _say(error: object, code: int) -> int:
    with contextlib.suppress(OSError):  # nobody listens
        note(f"hub: {' '.join(str(error).split())}")
    return code
