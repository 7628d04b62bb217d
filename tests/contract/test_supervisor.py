"""The supervisor: one per home, restarts what dies and says so, and leaves nothing running however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from hub.app.home import Home
from hub.app.servers import process
from hub.app.servers.cluster import leftovers
from hub.app.servers.postgres import database
from hub.app.settings import Settings
from hub.app.supervisor import AlreadySupervised, Child, Process, Supervisor, read_processes

ROOT = Path(__file__).resolve().parents[2]
SLEEPER = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(600)"
DEAF = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'w').close(); time.sleep(600)"

SUPERVISOR = """
import pathlib, sys, threading
from hub.app.home import Home
from hub.app.supervisor import Child, Supervisor
home, code = Home.open(sys.argv[1]), sys.argv[2]
flag = home.run / "up"
child = Child("plant", [sys.executable, "-c", code, str(flag)], ready=flag.exists)
supervisor = Supervisor(home, [child], on_event=lambda text: print(text, file=sys.stderr))
supervisor.start()
assert supervisor.wait_ready(30)
print("ready", flush=True)
supervisor.run_until(threading.Event())
print(supervisor.exit_codes, flush=True)
"""


def sleeper(home: Home, role: str, *, restart: bool = True, code: str = SLEEPER) -> Child:
    flag = home.run / f"{role}.up"
    return Child(role, [sys.executable, "-c", code, str(flag)], ready=flag.exists, restart=restart)


def running(home: Home) -> list[str]:
    """Whatever is at work for this home, ourselves apart."""
    found = [f"postgres {pid}" for pid in leftovers(home)]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(os.fsencode(home.path) in word for word in argv) and process.start_ticks(int(entry.name)):
                found.append(f"{entry.name} {argv[:4]!r}")
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.open(tmp_path / "home")
    yield home
    assert process.wait_until(lambda: not running(home), 12), running(home)


def by_role(home: Home) -> dict[str, Process]:
    return {one.role: one for one in read_processes(home)}


def restarts(home: Home, role: str) -> int | None:
    """None while it is down."""
    found = by_role(home).get(role)
    return found.restarts if found else None


def step_until(supervisor: Supervisor, happened: Callable[[], bool], seconds: float = 15) -> bool:
    def step() -> bool:
        supervisor.step()
        return happened()

    return process.wait_until(step, seconds, every=0.03)


def test_it_starts_restarts_and_ends_everything(home: Home) -> None:
    events: list[str] = []
    children = [sleeper(home, "broker"), sleeper(home, "hub")]
    with Supervisor(home, children, on_event=events.append) as supervisor:
        assert supervisor.wait_ready(30)
        first = by_role(home)
        assert set(first) == {"supervisor", "postgres", "broker", "hub"}
        assert first["supervisor"].pid == os.getpid()
        assert process.name(first["postgres"].pid) == "postgres"
        with database(Settings(home=home.path)) as db, psycopg.connect(db.owner_url) as connection:  # a command beside it shares what runs
            assert db.private is not None
            assert db.private.ensure().pid == first["postgres"].pid
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert by_role(home) == first

        os.kill(first["hub"].pid, signal.SIGKILL)
        begun = time.monotonic()
        assert step_until(supervisor, lambda: restarts(home, "hub") == 1)
        assert time.monotonic() - begun < 1.0
        assert any("hub" in event and "SIGKILL" in event and "now" in event for event in events)

        os.kill(first["postgres"].pid, signal.SIGKILL)
        assert step_until(supervisor, lambda: restarts(home, "postgres") == 1)
        os.kill(int(home.keeper_lock.read_text()), signal.SIGKILL)
        assert step_until(supervisor, lambda: restarts(home, "postgres") == 2)
        assert any("keeper" in event for event in events)
        with psycopg.connect(db.owner_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert by_role(home)["broker"] == first["broker"]
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    assert running(home) == []
    assert read_processes(home) == []


def test_what_keeps_dying_is_restarted_ever_more_slowly(home: Home) -> None:
    events: list[str] = []
    child = Child("hub", [sys.executable, "-c", "raise SystemExit('no licence')"])
    with Supervisor(home, [child], private_database=False, on_event=events.append) as supervisor:
        step_until(supervisor, lambda: False, 2.5)
        assert supervisor.exit_codes == {"hub": 1}
    pauses = [event.rpartition("restarting ")[2] for event in events if "restarting" in event]
    assert pauses[:3] == ["now", "in 0.25 s", "in 0.5 s"]
    assert len(pauses) <= 5
    assert any("no licence" in event for event in events)


def test_what_is_to_be_down_is_killed_and_stays_down_as_long(home: Home) -> None:
    events: list[str] = []
    order = home.run / "down"
    child = replace(sleeper(home, "broker", code=DEAF), down=order.exists)
    with Supervisor(home, [child, sleeper(home, "hub")], private_database=False, on_event=events.append) as supervisor:
        assert supervisor.wait_ready(30)
        first = by_role(home)
        order.touch()
        assert step_until(supervisor, lambda: "broker" not in by_role(home))
        assert not step_until(supervisor, lambda: "broker" in by_role(home), 0.5)
        order.unlink()
        assert step_until(supervisor, lambda: restarts(home, "broker") == 1)
        assert by_role(home)["hub"] == first["hub"]
    assert any("SIGKILL: restarting when it may run again" in event for event in events)


def test_what_is_to_finish_is_not_restarted(home: Home) -> None:
    events: list[str] = []
    child = Child("plant", [sys.executable, "-c", "raise SystemExit(7)"], ready=lambda: False, restart=False)
    with Supervisor(home, [child], private_database=False, on_event=events.append) as supervisor:
        assert step_until(supervisor, lambda: supervisor.exit_codes == {"plant": 7})
        assert supervisor.wait_ready(1)
        step_until(supervisor, lambda: False, 0.3)
    assert [event for event in events if "ended with 7" in event] == [events[-1]]


def test_a_second_supervisor_is_refused(home: Home) -> None:
    with Supervisor(home, [], private_database=False), pytest.raises(AlreadySupervised, match=rf"pid {os.getpid()}.*HUB_HOME") as refused:
        Supervisor(home, [], private_database=False).start()
    assert refused.value.exit_code == 3
    Supervisor(home, [], private_database=False).start()


def test_roles_are_unique(home: Home) -> None:
    with pytest.raises(ValueError, match="postgres"):
        Supervisor(home, [sleeper(home, "postgres")])


def start(home: Home, code: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", SUPERVISOR, str(home.path), code]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    supervisor = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd="/")
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "ready\n", supervisor.communicate()[1]
    return supervisor


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything(home: Home, signum: signal.Signals) -> None:
    supervisor = start(home, SLEEPER)
    supervisor.send_signal(signum)
    output, errors = supervisor.communicate(timeout=10)
    assert (supervisor.returncode, output) == (0, "{'plant': -15}\n"), errors
    assert running(home) == []


def test_a_child_deaf_to_sigterm_does_not_hold_it_up(home: Home) -> None:
    supervisor = start(home, DEAF)
    begun = time.monotonic()
    supervisor.terminate()
    output, errors = supervisor.communicate(timeout=15)
    assert time.monotonic() - begun < 10
    assert (supervisor.returncode, output) == (0, "{'plant': -9}\n")
    assert "did not end within" in errors
    assert running(home) == []


def test_kill_9_of_the_supervisor_leaves_nothing(home: Home) -> None:
    supervisor = start(home, SLEEPER)
    assert set(by_role(home)) == {"supervisor", "postgres", "plant"}
    supervisor.kill()
    supervisor.communicate()
    assert process.wait_until(lambda: not running(home), 5), running(home)
    assert read_processes(home) == []
    again = start(home, SLEEPER)
    again.terminate()
    again.communicate(timeout=10)
    assert again.returncode == 0


def test_a_pid_that_came_again_is_not_taken_for_ours(home: Home) -> None:
    mine = process.start_ticks(os.getpid())
    assert mine is not None
    entries = [
        {"role": role, "pid": os.getpid(), "since": "", "restarts": 0, "started": ticks} for role, ticks in (("a", mine), ("b", mine - 1))
    ]
    home.processes_json.write_text(json.dumps(entries))
    assert [one.role for one in read_processes(home)] == ["a"]
    home.processes_json.write_text("{")
    assert read_processes(home) == []


def test_logs_are_bounded(home: Home) -> None:
    log = home.log / "plant.log"
    log.write_bytes(b"x" * (process.LOG_BYTES_MAX + 1))
    child = Child("plant", [sys.executable, "-c", "print('hello')"], restart=False)
    with Supervisor(home, [child], private_database=False) as supervisor:
        assert step_until(supervisor, lambda: "plant" in supervisor.exit_codes)
    assert log.read_text() == "hello\n"
    assert log.with_name("plant.log.1").stat().st_size == process.LOG_BYTES_MAX + 1
