"""The far sides of the adapter suite: real brokers, a real directory and real HTTP clients, each asked itself what it still holds.

A `Source` sends bodies and counts those that nobody has acknowledged. It counts at the broker, in the directory, or by the answers that
clients got, never by what an adapter says.
"""

import contextlib
import http.client
import os
import queue
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import paho.mqtt.client as mqtt
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from paho.mqtt.enums import CallbackAPIVersion

from adapters.folder import FolderAdapter
from adapters.http_queue import HttpQueue
from adapters.kafka import KafkaAdapter
from adapters.mqtt import MqttAdapter
from hub.app.home import Home
from hub.app.servers import process
from hub.app.servers.broker import ACK_WAIT_S, Broker
from hub.app.servers.kafka import Kafka
from hub.intake.delivery import Adapter
from tests.contract.adapter_http import Served

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


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


# -- MQTT -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MqttRoad:
    """A topic of a broker."""

    port: int
    topic: str
    client_id: str = "contract-hub"

    def adapter(self) -> MqttAdapter:
        return MqttAdapter(HOST, self.port, [self.topic], self.client_id)


class Mqtt:
    """A broker of its own, mosquitto or nats-server, that keeps a persistent session for the adapter."""

    lanes = 1
    takes_empty = True

    def __init__(self, argv: Sequence[str], port: int, log: Path, quiet_s: float) -> None:
        self._argv, self._log, self._quiet_s = list(argv), log, quiet_s
        self.road = MqttRoad(port, "plant/line1")
        self._child: subprocess.Popen[bytes] | None = None
        self.start()
        adapter = self.road.adapter()  # the session begins with the first connection; before it a broker keeps nothing
        adapter.open()
        adapter.close()

    def start(self) -> None:
        self._child = process.spawn(self._argv, self._log, death=signal.SIGKILL)
        assert process.wait_until(self._answers, WAIT_S), process.tail(self._log)

    def stop(self) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.wait(WAIT_S)
            self._child = None

    def freeze(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)

    def send(self, bodies: Sequence[bytes], qos: int = 1) -> None:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, f"plant-{uuid.uuid4().hex[:8]}")
        client.max_queued_messages_set(0)
        client.connect(HOST, self.road.port)
        client.loop_start()
        for info in [client.publish(self.road.topic, body, qos=qos) for body in bodies]:
            info.wait_for_publish(WAIT_S)
            assert info.is_published()
        client.disconnect()
        client.loop_stop()

    def held(self) -> int:
        """What the broker sends again to somebody who resumes the session and acknowledges nothing."""
        found: set[bytes] = set()
        last = time.monotonic()

        def on_message(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
            nonlocal last
            if message.topic == self.road.topic and message.payload not in found:
                found.add(bytes(message.payload))
                last = time.monotonic()

        client = mqtt.Client(CallbackAPIVersion.VERSION2, self.road.client_id, clean_session=False, protocol=mqtt.MQTTv311, manual_ack=True)
        client.on_message = on_message
        client.connect(HOST, self.road.port)
        client.loop_start()
        process.wait_until(lambda: time.monotonic() - last > self._quiet_s, WAIT_S)
        client.disconnect()
        client.loop_stop()
        return len(found)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, self.road.port), 1).close()
            return True
        return False


@contextlib.contextmanager
def mosquitto_source(program: str, folder: Path) -> Iterator[Mqtt]:
    """Eclipse Mosquitto, which sends a session's messages again when it is resumed."""
    port = free_port()
    lines = [
        f"listener {port} {HOST}", "allow_anonymous true", "persistence true", f"persistence_location {folder}/", "user root",
        "max_queued_messages 0", "max_inflight_messages 0", "autosave_on_changes true", "autosave_interval 1",
    ]  # fmt: skip
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n", "utf-8")
    source = Mqtt([program, "-c", str(folder / "mosquitto.conf")], port, folder / "mosquitto.log", 0.3)
    try:
        yield source
    finally:
        source.stop()


@contextlib.contextmanager
def nats_source(folder: Path) -> Iterator[Mqtt]:
    """The demo's broker, which also sends again what is not acknowledged in time."""
    broker = Broker(Home.open(folder / "home")).prepare()
    config = broker.config.read_text("utf-8")
    broker.config.write_text(config.replace(f'ack_wait: "{ACK_WAIT_S}s"', 'ack_wait: "300ms"'), "utf-8")  # how long `held` has to listen
    source = Mqtt(broker.argv(), broker.port, folder / "nats.log", 0.7)
    try:
        yield source
    finally:
        source.stop()


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


# -- HTTP -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HttpRoad:
    """A port on which the API listens; an adapter brings its server with it, as in the hub's API process."""

    port: int
    waiting_max: int = 64

    def adapter(self) -> HttpQueue:
        return Served(self.port, self.waiting_max)


class Http:
    """Clients that send each body until it is answered, one after the other in each lane."""

    takes_empty = False  # answered with 400: the client knows

    def __init__(self, lanes: int = 4) -> None:
        self.lanes = lanes
        self.road = HttpRoad(free_port())
        self.answers: list[int] = []
        self._outboxes: list[queue.Queue[bytes | None]] = [queue.Queue() for _ in range(lanes)]
        self._sent = 0
        self._ends = threading.Event()
        self._clients = [threading.Thread(target=self._run, args=(outbox,), daemon=True) for outbox in self._outboxes]
        for client in self._clients:
            client.start()

    def send(self, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            self._outboxes[self._sent % self.lanes].put(body)
            self._sent += 1

    def held(self) -> int:
        return self._sent - sum(map(_settles, self.answers))

    def close(self) -> None:
        self._ends.set()
        for outbox in self._outboxes:
            outbox.put(None)
        for client in self._clients:
            client.join(WAIT_S)

    def _run(self, outbox: "queue.Queue[bytes | None]") -> None:
        while (body := outbox.get()) is not None:
            while not self._ends.is_set():
                self.answers.append(code := self._post(body))
                if _settles(code):
                    break
                time.sleep(0.02)

    def _post(self, body: bytes) -> int:
        """The status, or 0 if there was none."""
        connection = http.client.HTTPConnection(HOST, self.road.port, timeout=1)
        try:
            connection.request("POST", "/v1/facts", body, {"Content-Type": "application/json"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def stop(self) -> None:
        raise NotImplementedError

    start = freeze = thaw = stop


def _settles(code: int) -> bool:
    """Whether a client may forget what it sent: it was taken, or refused for good."""
    return 0 < code < 500
