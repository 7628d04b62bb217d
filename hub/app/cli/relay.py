"""`hub relay`: restart."""

import psycopg

from adapters.kafka_relay import restart
from events.errors import Unavailable
from hub.app.cli import output
from hub.app.wiring import open_hub


def restart_relay(first: int, json_: bool) -> int:
    """`hub relay restart`."""
    with open_hub() as hub:
        try:
            with psycopg.connect(hub.follow_url, application_name="hub relay restart") as connection, connection.cursor() as cursor:
                before = restart(cursor, first)
        except psycopg.OperationalError as error:
            raise Unavailable(f"the database cannot be reached: {error}") from error
    if json_:
        output.document({"from": first, "before": before})
    else:
        output.line(f"the relay publishes from position {first} on; it was at {before}")
    return 0
