"""What `hub doctor` and `hub status` say of a server that would lose facts, and of a view that stands still."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from hub.app import answers
from hub.app.cli import health
from hub.app.home import Home
from hub.app.servers import cluster, process
from hub.app.servers.postgres import database, to_url
from hub.app.settings import Settings
from hub.app.wiring import Hub, open_hub, views
from hub.log.follow import Follower
from hub.log.store import Log
from tests.facts import received

PRIVATE = {"user": cluster.OWNER, "port": str(cluster.PORT)}


@contextlib.contextmanager
def server(folder: Path, **settings: str) -> Iterator[str]:
    """The owner's URL of a PostgreSQL with these settings besides ours."""
    one = cluster.Cluster(Home.open(folder))
    sockets = one.prepare()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setitem(cluster._SETTINGS, name, value)
        child = one.start(sockets)
    try:
        assert process.wait_until(lambda: one.accepts(child.pid), 30), process.tail(one.log)
        yield to_url({**PRIVATE, "host": str(sockets), "dbname": "postgres"})
    finally:
        one.stop(child)


def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path, url: str | None) -> tuple[int, dict[str, Any]]:
    monkeypatch.setenv("HUB_HOME", str(home))
    if url is not None:
        monkeypatch.setenv("HUB_DATABASE_URL", url)
    code = health.show_doctor(True)
    return code, {check["check"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_server_that_loses_what_it_confirmed_is_wrong(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(tmp_path / "server", **{setting: "off"}) as url:
        code, found = doctor(monkeypatch, capsys, tmp_path / "home", url)
    assert code == 1
    assert (found["database server"]["ok"], found["database server"]["seen"]) == (False, f"{setting} = off")
    assert "Set it to on" in found["database server"]["next"] or f"Set {setting} = on" in found["database server"]["next"]


def test_so_is_one_where_a_role_of_the_hub_was_set_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with database(Settings(home=tmp_path)) as running:
        assert doctor(monkeypatch, capsys, tmp_path, None)[0] == 0
        for whose, name in (("", "user"), (" in database millwright", "database user")):
            with psycopg.connect(running.owner_url, autocommit=True) as connection:
                connection.execute(f"alter role hub_door{whose} set synchronous_commit = off".encode())
                code, found = doctor(monkeypatch, capsys, tmp_path, None)
                assert code == 1
                assert (found["synchronous_commit"]["ok"], found["synchronous_commit"]["seen"]) == (False, f"off (set by {name})")
                assert "alter role" in found["synchronous_commit"]["next"]
                connection.execute(f"alter role hub_door{whose} reset synchronous_commit".encode())
        assert doctor(monkeypatch, capsys, tmp_path, None)[0] == 0


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with open_hub(Settings(home=tmp_path)) as opened:
        yield opened


def owner(hub: Hub, statement: str) -> None:
    with psycopg.connect(hub.database.owner_url, autocommit=True) as connection:
        connection.execute(statement.encode())


def late(hub: Hub, key: str) -> None:
    """A fact that was recorded a minute and a half ago."""
    with Log(hub.door_url, now=lambda: datetime.now(UTC) - timedelta(seconds=90)) as log:
        log.append([received(key, "A", "L", "1")])


def test_a_view_that_stands_still_though_facts_wait_is_stuck_whoever_lives(hub: Hub) -> None:
    for view in views():
        with contextlib.closing(Follower(hub.follow_url, view)) as follower:
            follower.ensure()
    assert answers.status(hub)["stuck"] == {}  # an empty log leaves nobody behind
    owner(hub, "update intake.moved set at = clock_timestamp() - interval '80 seconds' where schema = 'view_stock'")
    late(hub, "R1")
    found = answers.status(hub)
    assert found["stuck"].keys() == {"stock"}  # the fact waits for 90 s, the other views were made just now
    assert 79 < found["stuck"]["stock"] < 88
    assert found["waits_s"]["stock"] > 89
    assert health.stuck({**found, "processes": [{"role": "hub-follow"}]}, "stock").startswith("view stock stands still at 0 for 8")
    assert health.stuck({**found, "processes": []}, "stock") == ""  # where no hub runs nobody is to move it

    with contextlib.closing(Follower(hub.follow_url, next(view for view in views() if view.name == "stock"))) as follower:
        assert follower.step() == 1
    assert answers.status(hub)["stuck"] == {}
    late(hub, "R2")
    assert answers.status(hub)["stuck"] == {}  # it moved just now: behind, not stuck
    owner(hub, "update intake.moved set at = clock_timestamp() - interval '1 day' where schema = 'view_stock'")
    hub.log.append([received("R3", "A", "L", "1")])
    assert answers.status(hub)["stuck"].keys() == {"stock"}


def test_a_fact_that_came_just_now_makes_a_quiet_view_behind_and_not_stuck(hub: Hub) -> None:
    hub.catch_up()
    owner(hub, "update intake.moved set at = clock_timestamp() - interval '1 day'")
    hub.log.append([received("R1", "A", "L", "1")])
    found = answers.status(hub)
    assert (found["stuck"], set(found["waits_s"])) == ({}, {view.name for view in views()})
