"""The command line: `main` runs it and turns every error of the hub into one line and an exit code.

Exit codes: 0 done, 1 findings, 2 usage or configuration, 3 unavailable.
"""

import sys

import click

from events.errors import HubError


def main() -> None:
    """The console script `hub`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    from hub.app.cli.commands import app

    try:
        code = app(args=arguments, standalone_mode=False, prog_name="hub")
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return 2
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except HubError as error:
        return _say(error, error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted; what was done is durable, the same command goes on", 130)
    except BrokenPipeError:  # the reader of a list has seen enough
        sys.stdout = None
        return 0


def _say(error: object, code: int) -> int:
    print(f"hub: {error}", file=sys.stderr)
    return code
