"""What is only for people to read is left out on a full disk, and the work goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from hub.app.home import Home, write_atomically
from hub.app.servers import process
from hub.app.supervisor import Supervisor


@pytest.mark.parametrize("module", ["hub.app.worker.report", "hub.app.servers.keeper.say"])
def test_what_cannot_be_told_ends_nobody(module: str) -> None:
    name, _, function = module.rpartition(".")
    code = f"import os; from {name} import {function} as say; say('a'); say('b'); os._exit(7)"
    with open("/dev/full", "wb") as full:
        assert subprocess.run([sys.executable, "-c", code], stdout=full, stderr=full, check=False).returncode == 7


def test_a_log_that_cannot_be_put_aside_is_bounded_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * 20)
    monkeypatch.setattr(process, "LOG_BYTES_MAX", 10)
    (tmp_path / "a.log.1").symlink_to("/dev/full")
    process.bound_log(log)
    assert log.read_bytes() == b"x" * 20
    process.bound_log(log)
    assert log.read_bytes() == b""
    assert (tmp_path / "a.log.1").read_bytes() == b"x" * 20


def test_a_supervisor_that_cannot_write_its_list_goes_on_and_tells_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    full = True

    def written(path: Path, text: str, mode: int = 0o600) -> None:
        if full:
            raise OSError(28, "No space left on device")
        write_atomically(path, text, mode)

    monkeypatch.setattr("hub.app.supervisor.write_atomically", written)
    with Supervisor(Home.open(tmp_path), [], private_database=False, on_event=said.append) as supervisor:
        supervisor.step()
        assert [text for text in said if "processes.json cannot be written" in text] == said
        assert len(said) == 1
        full = False
        supervisor.step()
        assert supervisor.home.processes_json.exists()
