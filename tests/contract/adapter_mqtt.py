"""MQTT's far sides for the adapter suite: mosquitto and nats-server, asked what they still hold for the hub's session."""

import contextlib
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from adapters.mqtt import MqttAdapter
from hub.app.home import Home
from hub.app.servers import process
from hub.app.servers.broker import ACK_WAIT_S, Broker
from hub.app.servers.process import free_port
from tests.contract.adapter_sources import HOST, WAIT_S


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
