"""The real API process on a database of the test's own, and a real Chromium that looks at it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from playwright.sync_api import Browser, Dialog, Page, expect
from psycopg import conninfo, sql

from events import Fact
from hub.app.servers.postgres import Database
from hub.app.servers.process import free_port
from hub.app.settings import Settings
from hub.app.wiring import Hub
from hub.log.migrate import migrate

T = TypeVar("T")
SHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
QUIET = (
    "--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

expect.set_options(timeout=20_000)  # milliseconds; a page on a busy machine takes its time, and waiting costs nothing where it is quick


@dataclass
class Console:
    """The running API process, and the hub behind it as a test sees it."""

    base: str
    hub: Hub
    process: subprocess.Popen[bytes]
    log: Path
    troubles: list[str] = field(default_factory=list)

    def append(self, facts: Sequence[Fact], *, follow: bool = True) -> None:
        self.hub.log.append(facts)
        if follow:
            self.hub.catch_up()

    def post(self, body: bytes, token: str = "") -> int:
        """Deliver bytes over HTTP; the status."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{self.base}/v1/facts", body, headers), timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def ask(self, query: str, *values: object) -> Any:
        """One value from the database, as its owner."""
        with psycopg.connect(self.hub.database.owner_url) as connection:
            return (connection.execute(query.encode(), values).fetchone() or (None,))[0]

    @contextlib.contextmanager
    def database_down(self) -> Iterator[None]:
        """The database takes no connections and drops those it has."""
        parts = conninfo.conninfo_to_dict(self.hub.database.owner_url)
        elsewhere = conninfo.make_conninfo(self.hub.database.owner_url, dbname="postgres")
        self.hub.log.close()

        def switch(allowed: bool) -> None:
            with psycopg.connect(elsewhere, autocommit=True) as connection:
                name = sql.Identifier(str(parts["dbname"]))
                connection.execute(sql.SQL("alter database {} allow_connections {}").format(name, sql.Literal(allowed)))
                connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [parts["dbname"]])

        switch(False)
        try:
            yield
        finally:
            switch(True)

    def _dialog(self, dialog: Dialog) -> None:
        self.troubles.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    @contextlib.contextmanager
    def page(self, browser: Browser, path: str = "/", size: Any = WIDE, scheme: Any = "light", **more: Any) -> Iterator[Page]:
        """A page that is looked at; whatever it loads from elsewhere, and every error in it, is a trouble."""
        context = browser.new_context(viewport=size, color_scheme=scheme, **more)
        page = context.new_page()
        page.set_default_timeout(15_000)
        ours = (self.base, self.base.replace("http", "ws", 1), "data:")
        page.on("request", lambda request: None if request.url.startswith(ours) else self.troubles.append(f"asked {request.url}"))
        page.on("pageerror", lambda error: self.troubles.append(f"error in the page: {error}"))
        page.on("dialog", self._dialog)
        try:
            page.goto(self.base + path)
            page.wait_for_selector(".page")
            yield page
        finally:
            context.close()


@contextlib.contextmanager
def running(owner_url: str, home: Path, token: str = "") -> Iterator[Console]:
    """`hub-api` as the supervisor starts it, on a free port."""
    migrate(owner_url)
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    env |= {"HUB_HOME": str(home), "HUB_DATABASE_URL": owner_url, "HUB_LISTEN": f"127.0.0.1:{port}"} | (
        {"HUB_API_TOKEN": token} if token else {}
    )
    log = home.parent / "api.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "hub.app.worker", "api"], env=env, stdout=out, stderr=out)
    hub = Hub(Settings(home=home), Database(owner_url))
    console = Console(f"http://127.0.0.1:{port}", hub, process, log)
    try:
        until(lambda: _answers(console), 60, lambda: f"no answer: {log.read_text()}")
        yield console
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(15)
        finally:
            process.kill()
            process.wait()
            hub.log.close()
    said = log.read_text()
    assert "Traceback" not in said, said
    assert not console.troubles, console.troubles


def until(found: Callable[[], T], seconds: float = 10.0, say: Callable[[], object] = lambda: "") -> T:
    """The first true answer; fails with what `say` tells."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {say()}"
        time.sleep(0.1)
    return answer


def shoot(page: Page, name: str) -> None:
    """A picture of the whole page in build/screenshots/."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def _answers(console: Console) -> bool:
    assert console.process.poll() is None, console.log.read_text()
    try:
        with urllib.request.urlopen(f"{console.base}/health/live", timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
