"""What the tests of replay start from: a log of forty small orders, its views followed to the head."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.app.servers.postgres import Database
from hub.app.settings import Settings
from hub.app.wiring import Hub
from hub.log.migrate import migrate
from hub.log.store import Log
from tests.contract.replay.replay_suite import fill, follow
from tests.facts import as_role


@pytest.fixture
def owner_url(fresh_database: str) -> str:
    migrate(fresh_database)
    with Log(as_role(fresh_database, "hub_door")) as log:
        fill(log, 0, 40)
    follow(fresh_database)
    return fresh_database


@pytest.fixture
def url(owner_url: str) -> str:
    return as_role(owner_url, "hub_follow")


@pytest.fixture
def hub(owner_url: str, tmp_path: Path) -> Iterator[Hub]:
    found = Hub(Settings(home=tmp_path), Database(owner_url))
    yield found
    found.log.close()
