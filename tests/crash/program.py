"""`hub serve`, the shipped program in its own processes, for the trials that do something to the whole of it.

As a module it is that program with limits shortened or a mechanism taken away: `python -m tests.crash.program CHANGES serve|ROLE`.
"""

import http.client
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hub import limits
from hub.app import serve, worker
from hub.app.cli import main as command
from hub.app.servers import process
from hub.app.supervisor import Child
from tests.crash.ground import Ground
from tests.crash.report import ROOT, Found

START_S = 90.0
END_S = 15.0


class Program:
    """One running hub. `home` is its HUB_HOME, `more` the rest of its environment."""

    def __init__(self, ground: Ground, home: Path, more: Mapping[str, str], shorter: Mapping[str, float] | None = None) -> None:
        self.home, self.port, self.log = home, process.free_port(), ground.folder / "hub.log"
        changes = json.dumps({"remove": ground.removed, "limits": dict(shorter or {})})
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HUB_")}
        environment |= {"HUB_HOME": str(home), "HUB_LISTEN": f"127.0.0.1:{self.port}", **more}
        argv = [sys.executable, "-m", __name__, changes, "serve"]
        with open(self.log, "wb") as said:
            ends = process.ends_with_parent(signal.SIGTERM)
            self._child = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=said, stderr=said, preexec_fn=ends)  # noqa: PLW1509 - no threads here

    def started(self) -> "Program":
        """Wait until it is ready."""
        if (
            not process.wait_until(lambda: self.ready() == 200 or self._child.poll() is not None, START_S, every=0.05)
            or self.ready() != 200
        ):
            raise AssertionError(f"the hub did not start: {process.tail(self.log)}")
        return self

    def asked(self) -> tuple[int, dict[str, Any]]:
        """What /health/ready answers; (0, {}) where nobody does."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health/ready")
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return 0, {}
        finally:
            connection.close()

    def ready(self) -> int:
        """The status of /health/ready; 0 where nobody answers."""
        return self.asked()[0]

    def pids(self) -> dict[str, int]:
        """The processes of ours by role."""
        shown = json.loads((self.home / "run" / "processes.json").read_text())
        return {p["role"]: p["pid"] for p in shown if p["role"] in ("supervisor", "hub-api", "hub-intake", "hub-follow", "hub-relay")}

    def runs(self) -> bool:
        return self._child.poll() is None

    def stop(self, found: Found) -> None:
        """End it as its user does; that it has not ended by itself, and does now, is part of every trial."""
        found.wrong["hub serve ended by itself"] = int(not self.runs())
        self._child.terminate()
        try:
            self._child.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            found.wrong["not ended by SIGTERM"] = 1

    def kill(self) -> None:
        """The end of whatever came of it."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(END_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()


def _run(changes: str, role: str) -> None:
    """Be the program, or one of its processes."""
    given = json.loads(changes)
    for name, value in given["limits"].items():
        setattr(limits, name, value)
    if given["remove"]:
        module, name = given["remove"].split(":")
        getattr(importlib.import_module(module), name)()
    if role != "serve":
        sys.exit(worker.main([role]))
    children = serve.hub_children

    def changed(*arguments: Any, **named: Any) -> list[Child]:
        ours = [sys.executable, "-m", "tests.crash.program", changes]
        return [Child(c.role, [*ours, c.argv[-1]], c.env, c.ready) for c in children(*arguments, **named)]

    serve.hub_children = changed
    sys.argv = ["hub", "serve", "--json"]
    command()


if __name__ == "__main__":
    _run(*sys.argv[1:])
