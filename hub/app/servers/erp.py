"""An ERP for tests and demonstrations: Tryton on our own PostgreSQL server, in a database of its own.

    <cache>/erp-<digest>/      $XDG_CACHE_HOME or ~/.cache, below millwright/: env/ is Tryton in a virtual environment of its own, with exactly what erp.lock names
                               and our module (erp_module/); template-<n>.dump the furnished company (erp_company.py) for PostgreSQL n
    <cache>/erp-web-<digest>/  Tryton's own web client, exactly as erp_web/package-lock.json says, where there is npm
    <folder>/                  one server: trytond.conf, trytond.log, erp.json (address, pid), lock

Tryton is another program under another licence (GPL-3.0-or-later): nothing of the hub imports it, it enters no requirement of the hub, and the two
speak over HTTP. A database is a copy of a template that is made once on each PostgreSQL server. Passwords are public (erp_company.py) and any user
of this machine can connect, so it is no ERP for production; there the adapter is given the address of your own (docs/erp.md).

Errors: `Unavailable` (exit code 3), with the remedy.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg
from psycopg import conninfo, sql

from adapters.tryton.rpc import Rpc
from events.errors import HubError, Unavailable
from hub.app.home import write_atomically
from hub.app.servers import erp_company, process
from hub.app.servers.cluster import binaries
from hub.app.servers.postgres import database, to_url
from hub.app.servers.single import Single, end_by_sigterm, listens, recorded, say
from hub.app.settings import Settings

HERE = Path(__file__).parent
LOCK, MODULE, WEB, COMPANY = HERE / "erp.lock", HERE / "erp_module", HERE / "erp_web", Path(erp_company.__file__)
MODULE_NAME = "millwright"
ACTIVATED = (
    "company",
    "edocument_unece",
    "production",
    "purchase",
    "purchase_amendment",
    "quality",
    "stock_lot",
    "stock_supply",
    MODULE_NAME,
)
ROLE = "millwright_erp"  # owns the ERP's databases and no other
FETCH_S = 600.0  # some 40 packages, 25 MB, over a slow line
MAKE_S = 900.0  # 25 s of work on an idle core
START_S = 90.0  # 4 s usually
STOP_S = 5.0  # then it is killed: PostgreSQL undoes what was under way
PROBE_S = 2.0
_CONNECTIONS = 16  # of the hundred that the private PostgreSQL takes


# -- the program --


def available() -> str | None:
    """Why Tryton cannot run here, with the remedy; None if it can (perhaps after a `fetch`)."""
    try:
        import ensurepip  # noqa: F401 - Debian takes it out of Python
    except ImportError:
        return "this Python makes no virtual environment: install python3-venv (Debian: apt-get install python3-venv)"
    return None


def fetch(progress: Callable[[str], None] = lambda text: None) -> Path:
    """The folder of Tryton's virtual environment, made from the package index first where it is missing. Safe when several processes do it at once."""
    if reason := available():
        raise Unavailable(f"Tryton: {reason}")
    env = _cache() / "env"
    whole = env / "complete"
    if not whole.exists():
        _cache().mkdir(parents=True, exist_ok=True)
        with process.locked(_cache() / "env.lock"):
            if not whole.exists():
                progress(f"installing Tryton as erp.lock names it into {env}")
                _install(env)
                whole.touch()
    return env


def _install(env: Path) -> None:
    shutil.rmtree(env, ignore_errors=True)  # what was begun and not ended
    pip = [env / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    _run([sys.executable, "-m", "venv", env], FETCH_S, "its virtual environment could not be made: look at the free space")
    _run([*pip, "-r", LOCK], FETCH_S, "its packages could not be installed: look at the network and pip's settings")
    (modules,) = env.glob("lib/python*/site-packages/trytond/modules")
    shutil.copytree(MODULE, modules / MODULE_NAME, ignore=shutil.ignore_patterns("__pycache__"))


def web(progress: Callable[[str], None] = lambda text: None) -> Path | None:
    """The folder of Tryton's web client, fetched first where it is missing; None where there is no npm."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    lock = WEB / "package-lock.json"
    folder = _caches() / f"erp-web-{_digest(lock)}"
    whole = folder / "complete"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with process.locked(folder.with_name(folder.name + ".lock")):
        if not whole.exists():
            progress(f"installing Tryton's web client into {folder}")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for file in (WEB / "package.json", lock):
                shutil.copy(file, folder)
            install = [npm, "ci", "--prefix", folder, "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"]
            _run(install, FETCH_S, "its web client could not be installed: look at the network and npm's settings")
            (folder / "node_modules/tryton-sao/node_modules").symlink_to("..")  # its page looks for what it needs below itself
            whole.touch()
    return folder / "node_modules/tryton-sao"


def _cache() -> Path:
    return _caches() / f"erp-{_digest(LOCK, *_module_files())}"


def _caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millwright"


def _module_files() -> list[Path]:
    return sorted(file for file in MODULE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _digest(*files: Path) -> str:
    """Of which Python, and what the files hold."""
    said = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for file in files:
        said.update(f"\x00{file.relative_to(HERE)}\x00".encode() + file.read_bytes())
    return said.hexdigest()[:16]


def _run(argv: Sequence[object], seconds: float, remedy: str, **more: str) -> None:
    try:
        done = subprocess.run(
            [str(one) for one in argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=_environment() | more,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"Tryton: {remedy}, and try again: it took longer than {seconds:.0f} s") from None
    if done.returncode != 0:
        raise Unavailable(f"Tryton: {remedy} ({' | '.join((done.stdout + done.stderr).strip().splitlines()[-3:])})")


def _environment() -> dict[str, str]:
    """Ours without the hub's secrets, and nothing that would set Tryton or its Python up otherwise."""
    ours = ("HUB_", "TRYTON", "PYTHON", "PG")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {"PYTHONDONTWRITEBYTECODE": "1"}


# -- databases --


def new_database(owner_url: str, name: str, progress: Callable[[str], None] = lambda text: None) -> None:
    """A furnished database of that name on the owner's server, a copy of the template; it must not be there yet."""
    made = template(owner_url, progress)
    with psycopg.connect(_named(owner_url, "postgres"), autocommit=True) as connection:
        _create(connection, name, made)


def has_database(owner_url: str, name: str) -> bool:
    """Whether the owner's server has a database of that name."""
    with psycopg.connect(_named(owner_url, "postgres"), autocommit=True) as connection:
        return connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone() is not None


def drop_database(owner_url: str, name: str) -> None:
    """Drop it, whoever is connected."""
    with psycopg.connect(_named(owner_url, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def template(owner_url: str, progress: Callable[[str], None] = lambda text: None) -> str:
    """The name of the server's furnished template, made first where it is missing: from the cached dump, else by Tryton itself, in minutes."""
    env = fetch(progress)
    name = f"erp_template_{_digest(LOCK, COMPANY, *_module_files())}"
    with psycopg.connect(_named(owner_url, "postgres"), autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(hashtextextended('millwright erp template', 0))")  # freed with the connection
        if connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone():
            return name
        if not connection.execute("select 1 from pg_roles where rolname = %s", [ROLE]).fetchone():
            connection.execute(sql.SQL("create role {}").format(sql.Identifier(ROLE)))
            connection.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(ROLE)))
        draft = f"{name}_draft"
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(draft)))
        _create(connection, draft, "template0")
        _fill(env, owner_url, draft, connection.info.server_version // 10000, progress)
        connection.execute(sql.SQL("alter database {} rename to {}").format(sql.Identifier(draft), sql.Identifier(name)))
        connection.execute(sql.SQL("alter database {} is_template true").format(sql.Identifier(name)))  # Tryton offers it to nobody
    return name


def _create(connection: psycopg.Connection[Any], name: str, source: str) -> None:
    create = "create database {} owner {} template {}" + (" encoding 'UTF8' locale 'C'" if source == "template0" else "")
    connection.execute(sql.SQL(create).format(*map(sql.Identifier, (name, ROLE, source))))


def _fill(env: Path, owner_url: str, name: str, version: int, progress: Callable[[str], None]) -> None:
    """Tables and company, from the dump of an earlier time if there is one for this PostgreSQL."""
    dump = _cache() / f"template-{_digest(COMPANY)}-{version}.dump"
    tools, url = binaries(), _as_role(owner_url, name)
    if dump.exists():
        restore = [tools / "pg_restore", "--no-owner", "--exit-on-error", "-d", url, dump]
        _run(restore, MAKE_S, f"its template could not be restored: remove {dump}")
        return
    progress("making the ERP's database once: its tables and a company (half a minute on an idle machine)")
    work = _cache() / f"making-{os.getpid()}"
    work.mkdir(exist_ok=True)
    try:
        config = _configure(work, owner_url, 0)
        admin = [
            env / "bin/trytond-admin",
            "-c",
            config,
            "-d",
            name,
            "--activate-dependencies",
            "--email",
            "admin@example.com",
            "-u",
            *ACTIVATED,
        ]
        write_atomically(work / "password", erp_company.USERS["admin"])
        _run(admin, MAKE_S, "its tables could not be made: remove the cache folder", TRYTONPASSFILE=str(work / "password"))
        with Erp(work, owner_url, name) as running, Rpc(running.url("admin")) as rpc:
            erp_company.furnish(rpc)
        if version == _dump_version(tools):
            _run(
                [tools / "pg_dump", "-Fc", "--no-owner", "--no-privileges", "-f", work / "dump", "-d", url],
                MAKE_S,
                "it could not be dumped",
            )
            (work / "dump").rename(dump)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _dump_version(tools: Path) -> int:
    """The release of PostgreSQL whose pg_dump we have: a dump of another one may not go back into it."""
    said = subprocess.run(
        [tools / "pg_dump", "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=True
    )
    return int(said.stdout.split()[-1].partition(".")[0])


def _named(owner_url: str, name: str) -> str:
    return to_url({**conninfo.conninfo_to_dict(owner_url), "dbname": name})


def _as_role(owner_url: str, name: str) -> str:
    """The owner's access, with no more rights than the ERP needs."""
    parts = conninfo.conninfo_to_dict(owner_url)
    options = f"{parts.get('options') or ''} -c role={ROLE} -c timezone=UTC".strip()
    return to_url({**parts, "dbname": name, "options": options})


def _configure(folder: Path, owner_url: str, port: int, pages: Path | None = None) -> Path:
    settings: dict[str, dict[str, object]] = {
        "database": {"uri": _as_role(owner_url, ""), "maxconn": _CONNECTIONS, "list": pages is not None},
        "web": {"listen": f"127.0.0.1:{port}", "root": pages or ""},
        "session": {"timeout": 86400},
        "email": {"uri": "smtp://127.0.0.1:1"},  # it must reach nobody
    }
    text = "\n".join(
        f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in table.items()) for section, table in settings.items()
    )
    write_atomically(folder / "trytond.conf", text)
    return folder / "trytond.conf"


# -- one server --


class Erp(Single):
    """One Tryton on one database: `with Erp(folder, owner_url, "erp") as erp: erp.url("hub")`. Start it from a thread that outlives it."""

    program = "Tryton"
    stop_s = STOP_S

    def __init__(
        self,
        folder: Path | str,
        owner_url: str,
        name: str = "erp",
        *,
        port: int | None = None,
        pages: Path | None = None,
        start_s: float = START_S,
    ) -> None:
        super().__init__(folder, "trytond.log", "erp.json", start_s)
        self.name, self.port = name, 0
        self._owner_url, self._wanted_port, self._pages = owner_url, port, pages

    def url(self, user: str = "hub", port: int | None = None) -> str:
        """The address for one of the users of `erp_company`, or through another port (a proxy's)."""
        return f"http://{user}:{quote(erp_company.USERS[user])}@127.0.0.1:{port or self.port}/{quote(self.name)}"

    @property
    def database_url(self) -> str:
        """The URL of its own database, to look into with SQL."""
        return _as_role(self._owner_url, self.name)

    def start(self) -> Self:
        """Start it and wait until it answers; the same port as before, where it is free. Its database is made first where it is missing."""
        env = fetch()
        self._take_folder()
        try:
            if not has_database(self._owner_url, self.name):
                new_database(self._owner_url, self.name)
            self._kill_left_over()
            self.port = self._free_port(self._wanted_port, int(recorded(self._record).get("port", 0)))
            config = _configure(self.folder, self._owner_url, self.port, self._pages)
            self._spawn([str(env / "bin/trytond"), "-c", str(config), "-d", self.name], _environment(), {"port": self.port})
        except BaseException:
            self.kill()
            raise
        return self

    def _answers(self) -> bool:
        return listens(self.port, PROBE_S)  # Tryton does so when its models are loaded


# -- in the foreground --


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m hub.app.servers.erp fetch | run [--dir DIR] [--port N] [--fresh]`; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hub.app.servers.erp", description="Tryton, a real ERP, on the hub's PostgreSQL server."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="install Tryton and make its template in the cache, where they are missing")
    run = commands.add_parser("run", help="run it until Ctrl-C; fetches it and makes its database first")
    run.add_argument("--dir", type=Path, default=Path("build/erp"), help="its configuration and log (default: %(default)s)")
    run.add_argument("--port", type=int, default=None, help="its port on 127.0.0.1 (default: the last one of that folder, else a free one)")
    run.add_argument("--database", default="erp", help="its database on the server of $HUB_HOME or HUB_DATABASE_URL (default: %(default)s)")
    run.add_argument("--fresh", action="store_true", help="drop that database first")
    chosen = parser.parse_args(arguments)
    end_by_sigterm()
    try:
        if chosen.command == "fetch":
            say(str(_prepare()))
            return 0
        return _serve(chosen.dir, chosen.port, chosen.database, fresh=chosen.fresh)
    except HubError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0


def _prepare() -> Path:
    """Fetch it and its web client, and make the dump of the template on a PostgreSQL of its own for the time."""
    env = fetch(say)
    web(say)
    with tempfile.TemporaryDirectory(prefix="millwright-erp-") as home, database(Settings(home=Path(home))) as server:
        template(server.owner_url, say)
    return env


def _serve(folder: Path, port: int | None, name: str, *, fresh: bool) -> int:
    fetch(say)
    pages = web(say)
    with database(Settings.load()) as server:
        if fresh:
            drop_database(server.owner_url, name)
        if not has_database(server.owner_url, name):
            new_database(server.owner_url, name, say)
        with Erp(folder, server.owner_url, name, port=port, pages=pages) as erp:
            say(f"Tryton 8.0, an ERP, listens on http://127.0.0.1:{erp.port}; database {name}, log {erp.log}")
            say(
                "Open that address in a browser and log in."
                if pages
                else "With npm installed it would show its pages there (Debian: apt-get install npm)."
            )
            say(f"Users (password): {', '.join(f'{user} ({password})' for user, password in erp_company.USERS.items())}")
            say(f"What stands in it:  psql '{erp.database_url}'  or JSON-RPC at /{name}/rpc/ (docs/erp.md)")
            say(f"The hub reaches it at {erp.url('hub')}    (Ctrl-C ends the ERP, its data stay)")
            erp.until_ended()


if __name__ == "__main__":
    sys.exit(main())
