"""Our recorder passes the `eventsourcing` library's own recorder test bases, on the hub's log table."""

from collections.abc import Iterator

import psycopg
import pytest
from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder, StoredEvent
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
)

from hub.app import queries
from hub.app.wiring import views
from hub.log.follow import Follower
from hub.log.migrate import migrate
from hub.log.recorder import LogAggregateRecorder, LogRecorder
from hub.log.store import Log
from tests.facts import as_role, received


@pytest.fixture
def door_url(fresh_database: str) -> str:
    migrate(fresh_database)
    return as_role(fresh_database, "hub_door")


class OnTheLog:
    """Gives each of the library's test cases a fresh log."""

    @pytest.fixture(autouse=True)
    def _log(self, door_url: str) -> Iterator[None]:
        self.log = Log(door_url)
        yield
        self.log.close()


class TestAggregateRecorder(OnTheLog, AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return LogAggregateRecorder(self.log)


class TestApplicationRecorder(OnTheLog, ApplicationRecorderTestCase[ApplicationRecorder]):
    def create_recorder(self) -> ApplicationRecorder:
        return LogRecorder(self.log)

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestNotificationsDoNotInterleave(OnTheLog, NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> ApplicationRecorder:
        return LogRecorder(self.log)


def test_recorder_writes_the_table_that_append_writes(door_url: str, fresh_database: str) -> None:
    with Log(door_url) as log:
        LogRecorder(log).insert_events([StoredEvent("order-7", 1, "decided", b"{}")])
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("select position, stream, version, type from log.event").fetchall() == [
            (1, "aggregate/order-7", 1, "decided")
        ]


def test_events_of_aggregates_halt_no_view_and_can_be_read(door_url: str, fresh_database: str) -> None:
    with Log(door_url) as log:
        log.append([received("R1", "A", "L1", "5")])
        LogRecorder(log).insert_events([StoredEvent("order-7", 1, "my.module:Order.Decided", b"{}")])
        log.append([received("R2", "A", "L1", "2")])
        assert [row["type"] for row in queries.events(log)][1] == "my.module:Order.Decided"
    for view in views():
        follower = Follower(as_role(fresh_database, "hub_follow"), view)
        follower.ensure()
        assert follower.step() == 3
        follower.close()
