"""The far sides of the adapter suite, each asked itself what it still holds: a directory and Kafka here, MQTT and HTTP beside it.

A `Source` sends bodies and counts those that nobody has acknowledged. It counts at the broker, in the directory, or by the answers that
clients got, never by what an adapter says.
"""

import os
import signal
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from adapters.folder import FolderAdapter
from adapters.kafka import KafkaAdapter
from hub.app.servers.kafka import Kafka
from hub.intake.delivery import Adapter

WAIT_S = 20.0
HOST = "127.0.0.1"


class Road(Protocol):
    """How to reach a source: makes the same adapter in this process or, sent there, in a child that is killed."""

    def adapter(self) -> Adapter: ...


class Source(Protocol):
    """One far side. `lanes` is how many orders it keeps: body n belongs to lane n modulo `lanes`."""

    @property
    def road(self) -> Road: ...
    @property
    def lanes(self) -> int: ...
    @property
    def takes_empty(self) -> bool:
        """Whether an empty body arrives at all."""
        ...

    def send(self, bodies: Sequence[bytes]) -> None:
        """Hand over, in order; returns when the source has them."""
        ...

    def held(self) -> int:
        """How many it still holds that nobody acknowledged. Asked while no adapter is open."""
        ...

    def stop(self) -> None: ...
    def start(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


# -- a folder -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FolderRoad:
    """A path."""

    path: Path

    def adapter(self) -> FolderAdapter:
        return FolderAdapter(self.path)


class Folder:
    """A directory into which whole files are renamed."""

    lanes = 1
    takes_empty = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.road = FolderRoad(path)
        self._sent = 0
        path.mkdir()

    def send(self, bodies: Sequence[bytes]) -> None:
        start = time.time() - 3600  # settled already, and in order
        for body in bodies:
            self._sent += 1
            draft = self.path / f".{self._sent}"
            draft.write_bytes(body)
            os.utime(draft, (start + self._sent, start + self._sent))
            draft.rename(self.path / f"{self._sent}.json")

    def held(self) -> int:
        return sum(entry.is_file() for entry in os.scandir(self.path))

    def stop(self) -> None:
        self.path.rename(self.path.with_name("gone"))

    def start(self) -> None:
        self.path.with_name("gone").rename(self.path)

    def freeze(self) -> None:
        raise NotImplementedError

    def thaw(self) -> None:
        raise NotImplementedError


# -- Kafka ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KafkaRoad:
    """A topic of a broker, read in a group of its own."""

    brokers: str
    topic: str
    instance: str = "1"

    def adapter(self) -> KafkaAdapter:
        return KafkaAdapter(self.brokers, [self.topic], group=self.topic, instance=self.instance)


class KafkaTopic:
    """A topic with two partitions on a real broker; held is what lies behind the group's committed offsets."""

    lanes = 2
    takes_empty = True

    def __init__(self, broker: Kafka, partitions: int = 2) -> None:
        self.broker, self.lanes = broker, partitions
        self.road = KafkaRoad(broker.brokers, f"adapters-{uuid.uuid4().hex[:12]}")
        self._sent = 0
        self._producer = Producer({"bootstrap.servers": broker.brokers, "linger.ms": 2})
        self.create()

    @property
    def sent(self) -> int:
        return self._sent

    def create(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.road.brokers})
        admin.create_topics([NewTopic(self.road.topic, self.lanes, 1)], operation_timeout=WAIT_S)[self.road.topic].result(WAIT_S)

    def send(self, bodies: Sequence[bytes | None]) -> None:
        errors: list[object] = []
        for body in bodies:
            self._producer.produce(
                self.road.topic,
                body,
                f"key {self._sent}".encode(),
                partition=self._sent % self.lanes,
                on_delivery=lambda error, _: errors.append(error) if error else None,
            )
            self._sent += 1
        assert self._producer.flush(WAIT_S) == 0
        assert errors == []

    def held(self) -> int:
        return sum(end - at for at, end in self.places())

    def places(self) -> list[tuple[int, int]]:
        """(committed offset, end) of each partition."""
        asks = Consumer({"bootstrap.servers": self.road.brokers, "group.id": self.road.topic})
        try:
            asked = [TopicPartition(self.road.topic, n) for n in range(self.lanes)]
            committed = [max(0, one.offset) for one in asks.committed(asked, timeout=WAIT_S)]
            ends = [asks.get_watermark_offsets(one, timeout=WAIT_S)[1] for one in asked]
        finally:
            asks.close()
        return list(zip(committed, ends, strict=True))

    def stop(self) -> None:
        self.broker.kill()

    def start(self) -> None:
        self.broker.start()
        assert self.broker.brokers == self.road.brokers

    def freeze(self) -> None:
        os.kill(self.broker.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.broker.pid, signal.SIGCONT)
