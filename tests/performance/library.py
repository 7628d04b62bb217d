"""The eventsourcing library's ProjectionRunner as a peer: its application, recorder, subscription and tracking, and our fold as its view."""

import pickle
import threading
import time
import uuid
from typing import Any

import psycopg
from eventsourcing.application import Application
from eventsourcing.persistence import Mapper, StoredEvent, Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg import conninfo, sql
from psycopg.rows import tuple_row

from events.base import Recorded
from hub.log.codec import COLUMNS, decode
from hub.log.follow import View, ensure, enter

LONGEST_S = 3600.0


class Stored(Mapper[uuid.UUID]):
    """A recorded fact from the row that was stored as the event's state."""

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        return decode(pickle.loads(stored_event.state))


class Facts(Application[uuid.UUID]):
    """The application whose events are projected."""


class Tables(PostgresTrackingRecorder):
    """The view's tables beside the library's tracking table, both written in one transaction."""

    def write(self, view: View, schema: str, fact: Recorded, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            own = cursor.connection.cursor(row_factory=tuple_row)
            enter(own, schema)
            view.fold(own, [fact])
            self._insert_tracking(cursor, tracking)


def run(owner_url: str, view: View, schema: str, count: int) -> float:
    """Seconds in which the runner projects the first `count` facts of the log, stored in the library's own table, into a schema."""
    finished = threading.Event()

    class Fold(Projection[Tables]):
        name = "fold"

        def process_event(self, domain_event: Any, tracking: Tracking) -> None:
            self.view.write(view, schema, domain_event, tracking)
            if tracking.notification_id == count:
                finished.set()

    parts = {name: str(value) for name, value in conninfo.conninfo_to_dict(owner_url).items()}
    env = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "MAPPER_TOPIC": f"{__name__}:Stored",
        "POSTGRES_DBNAME": parts["dbname"],
        "POSTGRES_HOST": parts.get("host", ""),
        "POSTGRES_PORT": parts.get("port", "5432"),
        "POSTGRES_USER": parts["user"],
        "POSTGRES_PASSWORD": "",
        "POSTGRES_SCHEMA": "library",
    }
    with psycopg.connect(owner_url) as owner, owner.cursor() as cursor:
        cursor.execute("drop schema if exists library cascade; create schema library")
        cursor.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))
        ensure(cursor, view, schema)
        enter(cursor, "log")
        cursor.execute(f"select {COLUMNS} from event where position <= {count} order by position".encode(), binary=True)  # noqa: S608
        stored = [StoredEvent(uuid.uuid4(), 1, "fact", pickle.dumps(row)) for row in cursor.fetchall()]
    app = Facts(env)
    for n in range(0, count, 500):
        app.recorder.insert_events(stored[n : n + 500])
    app.close()
    begun = time.perf_counter()
    with ProjectionRunner(application_class=Facts, projection_class=Fold, view_class=Tables, env=env) as runner:
        while not finished.wait(0.1):
            if runner.is_interrupted.is_set():
                break  # an error of the projection, which leaving the block raises
            if time.perf_counter() - begun > LONGEST_S:
                raise TimeoutError(f"the library projected fewer than {count} events in {LONGEST_S:.0f} s")
        took = time.perf_counter() - begun
    if not finished.is_set():
        raise RuntimeError("the library's runner ended before the last event")
    return took
