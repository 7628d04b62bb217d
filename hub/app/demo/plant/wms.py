"""The warehouse of the simulated plant: canonical JSON into a Kafka topic. Without Kafka the ERP sends the same facts."""

import sys
from collections.abc import Sequence
from typing import Any

from hub.app.demo.plant.part import Part, arguments, note, stop_on_sigterm
from hub.app.demo.plant.plan import Message
from hub.app.demo.plant.world import WMS

TOPIC = "millwright.facts"


class Kafka:
    """A road into a topic: one key, so one partition, in order; the client repeats for ever what the brokers did not acknowledge."""

    window = 200

    def __init__(self, brokers: str, topic: str) -> None:
        from confluent_kafka import Producer  # only here: the other parts need no Kafka client

        self._topic = topic
        self._arrived: list[int] = []
        self._failed: list[tuple[int, Message]] = []
        settings = {"bootstrap.servers": brokers, "enable.idempotence": True, "message.timeout.ms": 0, "linger.ms": 5}
        self._producer = Producer({**settings, "error_cb": lambda error: note("wms", f"Kafka at {brokers}: {error}; tries again")})

    def offer(self, index: int, message: Message) -> None:
        """Hand it to the client."""

        def delivered(error: Any, _: Any) -> None:
            if error is None:
                self._arrived.append(index)
            else:
                note("wms", f"message {index} was not taken ({error}), is sent again")
                self._failed.append((index, message))

        self._producer.produce(self._topic, message.body, WMS, on_delivery=delivered)

    def acknowledged(self, wait_s: float) -> Sequence[int]:
        """What all replicas have."""
        self._producer.poll(wait_s)
        failed, self._failed = self._failed, []
        for index, message in failed:
            self.offer(index, message)
        arrived, self._arrived = self._arrived, []
        return arrived

    def close(self) -> None:
        """Let what is on its way arrive, for a moment."""
        self._producer.flush(2)


def main() -> int:
    """Run it."""
    parser = arguments("wms", "Kafka")
    parser.add_argument("--kafka", required=True, metavar="BROKERS", help="host:port, several with commas")
    parser.add_argument("--topic", default=TOPIC)
    chosen = parser.parse_args()
    return Part("wms", chosen, stop_on_sigterm()).run(Kafka(chosen.kafka, chosen.topic))


if __name__ == "__main__":
    sys.exit(main())
