"""Sources that use the hub's own ways in, each in a process of its own: HTTP, a watched folder, MQTT, Kafka.

Each delivers one after the other until SIGTERM and writes down what was acknowledged to it. What comes by MQTT and Kafka is acknowledged to the
source by the broker; what the hub then says to the broker is not the source's to know.
"""

import contextlib
import hashlib
import http.client
import json
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from adapters.mqtt import MqttAdapter
from events.errors import Unavailable
from hub import limits
from hub.app.home import Home
from hub.app.servers import broker, kafka, process
from tests.crash.ground import Ground, Missing

COPY_S = 0.2  # between the halves of a file


class Counts:
    """Memory shared with a source's process: deliveries begun, deliveries acknowledged."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def set(self, begun: int, acked: int) -> None:
        self._memory[:] = struct.pack("qq", begun, acked)

    @property
    def acked(self) -> int:
        return int(struct.unpack("qq", self._memory[:])[1])

    @property
    def open(self) -> int:
        begun, acked = struct.unpack("qq", self._memory[:])
        return int(begun - acked)


Body = Callable[[int], bytes]  # the bytes of delivery n


def drive(body: Body, counts: Counts, record: Path, pause_s: float, offer: Callable[[int, bytes], int | None]) -> None:
    """Deliver in order until SIGTERM; `offer` gives the position that was acknowledged (0 for none), or None to be asked again."""
    ending: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    rows: list[tuple[int, int, int]] = []
    again = 0
    while not ending:
        call = time.monotonic_ns()
        counts.set(len(rows) + 1, len(rows))
        while (position := offer(len(rows), body(len(rows)))) is None:
            again += 1
            time.sleep(0.05)
        rows.append((call, time.monotonic_ns(), position))
        counts.set(len(rows), len(rows))
        time.sleep(pause_s)
    record.write_text(json.dumps({"rows": rows, "again": again}))


def post(body: Body, port: int, path: str, counts: Counts, record: Path, pause_s: float) -> None:
    """A source that posts one delivery after the other; an answer about every row is the acknowledgement."""

    def offer(n: int, body: bytes) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said: dict[str, Any] = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        if answer.status not in ACKNOWLEDGED:
            return None
        row = next((row for part in said["parts"] for row in part["rows"]), None)
        return int(row["position"] or 0) if row is not None and row["outcome"] in ("accepted", "duplicate") else 0

    drive(body, counts, record, pause_s, offer)


ACKNOWLEDGED = (200, 202, 207, 409, 422)  # with 409 and 422 it is in quarantine, durably: the source is not to send it again


def drop(body: Body, inbox: Path, counts: Counts, record: Path, pause_s: float) -> None:
    """A source that renames files into the watched folder; that a file was moved away by the hub is the acknowledgement."""

    def offer(n: int, body: bytes) -> int | None:
        name = file_name(n)
        if any((inbox / folder / name).exists() for folder in ("done", "held")):
            return 0
        if not (inbox / name).exists():
            (inbox / f".{name}").write_bytes(body)
            os.utime(inbox / f".{name}", (1, 1))  # as it was made long ago: whole when it comes
            os.rename(inbox / f".{name}", inbox / name)
        return 0 if process.wait_until(lambda: not (inbox / name).exists(), 0.4) else None

    drive(body, counts, record, pause_s, offer)


def copy_slowly(body: Body, inbox: Path, counts: Counts, record: Path, pause_s: float, torn: Path) -> None:
    """A source that writes each file under its name into the watched folder, one half and then the other, as who copies it there does.

    `torn` gets {name: sha256 of the half} of those that were there as halves for well below the time after which the hub may take a file.
    """
    halves: dict[str, str] = {}

    def offer(n: int, body: bytes) -> int | None:
        name, half = file_name(n), len(body) // 2
        if any((inbox / folder / name).exists() for folder in ("done", "held")):
            return 0
        if not (inbox / name).exists():
            began = time.monotonic()
            with open(inbox / name, "wb", buffering=0) as file:
                file.write(body[:half])
                time.sleep(COPY_S)
                file.write(body[half:])
            if time.monotonic() - began < limits.FOLDER_SETTLED_S / 2:
                halves[name] = hashlib.sha256(body[:half]).hexdigest()
        return 0 if process.wait_until(lambda: not (inbox / name).exists(), 2) else None

    drive(body, counts, record, pause_s, offer)
    torn.write_text(json.dumps(halves))


def file_name(n: int) -> str:
    """The name of delivery n."""
    return f"{n:06}.json"


def publish(body: Body, port: int, topic: str, counts: Counts, record: Path, pause_s: float) -> None:
    """A source that publishes to an MQTT broker; the broker has each delivery before the next is sent."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    client = mqtt.Client(CallbackAPIVersion.VERSION2, "trial-source")
    client.connect("127.0.0.1", port)
    client.loop_start()

    def offer(n: int, body: bytes) -> int | None:
        client.publish(topic, body, qos=1).wait_for_publish(20)  # raises where the connection is lost: the broker is not what is tried
        return 0

    drive(body, counts, record, pause_s, offer)


def produce(body: Body, brokers: str, topic: str, counts: Counts, record: Path, pause_s: float) -> None:
    """A source that writes to one partition of a topic; the position that it writes down is the offset that Kafka told."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 0})

    def offer(n: int, body: bytes) -> int | None:
        offsets: list[int | None] = []
        producer.produce(topic, body, on_delivery=lambda error, message: offsets.append(None if error else message.offset()))
        producer.flush(20)
        return offsets[0]

    drive(body, counts, record, pause_s, offer)


# -- what they go through -----------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mqtt_broker(ground: Ground, topic: str, client_id: str) -> Iterator[broker.Broker]:
    """The demo's broker, with the session of the hub's client, so that it keeps what comes before the hub is there. Raises `Missing`."""
    try:
        broker.binary()
    except Unavailable as error:
        raise Missing(str(error)) from error
    made = broker.Broker(Home.open(ground.folder / "broker")).prepare()
    child = process.spawn(made.argv(), ground.log, death=signal.SIGKILL)
    try:
        if not process.wait_until(made.ready, 20):
            raise AssertionError(f"the MQTT broker did not start: {process.tail(ground.log)}")
        session = MqttAdapter(broker.HOST, made.port, [topic], client_id)
        session.open()
        session.close()
        yield made
    finally:
        child.terminate()
        child.wait(10)


@contextlib.contextmanager
def kafka_broker(ground: Ground, topic: str) -> Iterator[kafka.Kafka]:
    """A broker of Kafka with a topic. Raises `Missing`."""
    if reason := kafka.available():
        raise Missing(reason)
    with kafka.Kafka(ground.folder / "kafka") as log:
        # in a process of its own, so that the client's threads are not in one that forks
        made = ground.fork("topic", make_topic, log.brokers, topic, hub=False)
        if not made.wait(30) or made.code != 0:
            raise AssertionError(f"the topic was not made: {process.tail(ground.log)}")
        yield log


def make_topic(brokers: str, topic: str, partitions: int = 1) -> None:
    """Make a topic."""
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)
