"""What all tests share: `need`, the private servers of a test session, the corpus, and how hypothesis searches.

A skip says what was missing. Under HUB_CI=1, where `.ci/run` installs everything that can be installed, it is a failure, however it came
about (`need`, `importorskip`, a mark), unless its first words are in `ALLOWED_IN_CI`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hypothesis
import psycopg
import pytest
from psycopg import conninfo, sql

if TYPE_CHECKING:
    from hub.app.servers.erp import Erp
    from hub.app.servers.kafka import Kafka

IN_CI = os.environ.get("HUB_CI") == "1"
ALLOWED_IN_CI = ("shared corpus",)  # lies beside the project, not in it: `.ci/run` cannot install it

hypothesis.settings.register_profile("default", max_examples=50, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.register_profile("thorough", max_examples=2000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if IN_CI else "default"))


def need(what: str, reason: str) -> NoReturn:
    """Skip the test because `what` is not here, for this reason; in CI that fails, unless `what` cannot be installed."""
    pytest.skip(f"{what}: {reason}")


def _failed_skip(outcome: str, longrepr: object) -> str | None:
    """What to say of a skip that is a failure here."""
    if not IN_CI or outcome != "skipped" or not isinstance(longrepr, tuple):
        return None
    path, line, reason = longrepr
    reason = str(reason).removeprefix("Skipped: ")
    return (
        None if reason.startswith(ALLOWED_IN_CI) else f"{path}:{line}: skipped in CI, where everything needed must be installed: {reason}"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # what a test printed goes to the process that collects reports, whose wire takes no half surrogates
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    if not hasattr(report, "wasxfail") and (said := _failed_skip(report.outcome, report.longrepr)):
        report.outcome, report.longrepr = "failed", said
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if said := _failed_skip(report.outcome, report.longrepr):
        report.outcome, report.longrepr = "failed", said
    return report


@pytest.fixture(scope="session", autouse=True)
def _own_environment() -> None:
    """No test meets the hub, database or broker of whoever runs it: HUB_TEST_… and HUB_CI are the only settings for tests."""
    for name in list(os.environ):
        if name.startswith("HUB_") and not name.startswith("HUB_TEST_") and name != "HUB_CI":
            del os.environ[name]


@pytest.fixture(scope="session")
def pg_owner_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The owner's URL of a PostgreSQL of this test session; HUB_TEST_DATABASE_URL names another server, whose databases may be made."""
    if url := os.environ.get("HUB_TEST_DATABASE_URL"):
        yield url
        return
    from hub.app.servers.postgres import database
    from hub.app.settings import Settings

    with database(Settings(home=tmp_path_factory.mktemp("pg"))) as running:
        yield running.owner_url


@pytest.fixture(scope="session")
def system_pg_owner_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The owner's URL of a second server, of the distribution's PostgreSQL: another version, another build (ICU) than the wheel's."""
    from hub.app.home import Home
    from hub.app.servers import process
    from hub.app.servers.cluster import OWNER, Cluster
    from hub.app.servers.postgres import to_url

    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        need("PostgreSQL of the distribution", "not installed (Debian: apt-get install postgresql)")
    cluster = Cluster(Home.open(tmp_path_factory.mktemp("system-pg")))
    cluster.bin = found[0].parent
    sockets = cluster.prepare()
    server = cluster.start(sockets)
    try:
        assert process.wait_until(lambda: cluster.accepts(server.pid), 30), process.tail(cluster.log)
        yield to_url({"host": str(sockets), "user": OWNER, "dbname": "postgres", "port": "5432"})
    finally:
        cluster.stop(server)


@pytest.fixture
def fresh_database(pg_owner_url: str) -> Iterator[str]:
    """The owner's URL of an empty database of this test's own, dropped afterwards. Roles belong to the server and stay."""
    with new_database(pg_owner_url) as url:
        yield url


@contextlib.contextmanager
def new_database(owner_url: str, options: str = "locale 'C'", encoding: str = "UTF8") -> Iterator[str]:
    """An empty database for the time of a `with` block; `options` of CREATE DATABASE."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(f"create database {name} encoding '{encoding}' {options} template template0".encode())
    try:
        yield database_url(owner_url, name)
    finally:
        with psycopg.connect(owner_url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def database_url(owner_url: str, name: str) -> str:
    """The same server and user, another database."""
    from hub.app.servers.postgres import to_url

    return to_url({**conninfo.conninfo_to_dict(owner_url), "dbname": name})


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A real broker for the test session; `kafka.brokers` is its address. Its topics are shared: give yours a name of their own."""
    from hub.app.servers import kafka as server

    if reason := server.available():
        need("Kafka", reason)
    with server.Kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="module")
def erp(pg_owner_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Erp]:
    """A real Tryton on a database of the module's own, a copy of the furnished template; `erp.url("hub")` is its address for a user."""
    from hub.app.servers import erp as server

    if reason := server.available():
        need("Tryton", reason)
    name = f"erp_{uuid.uuid4().hex[:16]}"
    try:
        with server.Erp(tmp_path_factory.mktemp("erp"), pg_owner_url, name) as running:
            yield running
    finally:
        server.drop_database(pg_owner_url, name)


@pytest.fixture(scope="session")
def mosquitto() -> str:
    """Path of the mosquitto program, an MQTT 5 broker that no PyPI package carries."""
    from tests.contract.edge_mqtt import installed

    return installed() or need("mosquitto", "not installed (Debian: apt-get install mosquitto)")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium for playwright's `executable_path`."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return found or need("Chromium", "not installed (Debian: apt-get install chromium)")


@pytest.fixture(scope="session")
def shared_corpus() -> Path:
    """The folder of real files beside the project, `../shared/corpus`."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "corpus"
    return folder if folder.is_dir() else need("shared corpus", "../shared/corpus is not beside the project")
