"""A mosquitto of a plant for the edge's MQTT: its line is tapped, cut and garbled, and the broker is asked what it still holds."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from adapters.formats.mqtt_payload import Topics
from adapters.mqtt_readings import MqttReadings, MqttReadingsSettings
from hub.app.servers import process
from hub.app.servers.process import free_port
from hub.intake.readings import Reading
from tests.contract.tcp_proxy import HOST, Proxy

WAIT_S = 20.0
Version = Literal["3.1.1", "5"]
CONNECT, PUBLISH, PUBACK = 1, 3, 4  # MQTT's packet types


def installed() -> str | None:
    """Path of the mosquitto program."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin")


class Tap(Proxy):
    """A line that reads MQTT along: what is not acknowledged, and how much of it there ever was at once on one connection."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.open: set[int] = set()
        self.most = self.acknowledged = self.repeated = 0
        self.garble: tuple[bytes, bytes] | None = None  # of what the broker says; both of one length
        self.then = b""  # said as if by the broker, after its next packet

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter | None) -> None:
        begun = False
        client = False
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await source.readexactly(1)
                length, shift, raw = 0, 0, head
                while True:
                    digit = await source.readexactly(1)
                    raw += digit
                    length |= (digit[0] & 127) << shift
                    shift += 7
                    if digit[0] < 128:
                        break
                body = await source.readexactly(length)
                if not begun:
                    begun, client = True, head[0] >> 4 == CONNECT
                    self.open = set()
                if self._way != "pass" or target is None:
                    continue
                self._read(head[0], body, client)
                if self.garble and not client:
                    body = body.replace(*self.garble)
                if self.then and not client:
                    raw, self.then, body = raw + body, b"", self.then
                target.write(raw + body)
                await target.drain()

    def _read(self, head: int, body: bytes, client: bool) -> None:
        if head >> 4 == PUBLISH and head & 6 and not client:
            at = 2 + int.from_bytes(body[:2])
            self.open.add(int.from_bytes(body[at : at + 2]))
            self.most = max(self.most, len(self.open))
            self.repeated += head >> 3 & 1
        elif head >> 4 == PUBACK and client:
            self.open.discard(int.from_bytes(body[:2]))
            self.acknowledged += 1


class Broker:
    """A mosquitto; `port` is its own, without the tap."""

    def __init__(self, program: str, folder: Path, *lines: str, persistence: bool = True) -> None:
        self.folder, self.port, self._program, self._lines = folder, free_port(), program, lines
        self._persistence = persistence
        self._child: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        lines = [f"listener {self.port} {HOST}", *self._lines, "max_queued_messages 0", "user root"]
        if not any(line.startswith("max_inflight_messages") for line in lines):
            lines.append("max_inflight_messages 1000")
        if not any(line.startswith(("allow_anonymous", "password_file", "require_certificate")) for line in lines):
            lines.append("allow_anonymous true")
        if self._persistence:
            lines += ["persistence true", f"persistence_location {self.folder}/", "autosave_on_changes true", "autosave_interval 1"]
        (self.folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self._child = process.spawn(
            [self._program, "-c", str(self.folder / "mosquitto.conf")], self.folder / "mosquitto.log", death=signal.SIGKILL
        )
        assert process.wait_until(self._answers, WAIT_S), process.tail(self.folder / "mosquitto.log")

    def stop(self) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.wait(WAIT_S)
            self._child = None

    def publish(self, topic: str, *bodies: bytes | str, qos: int = 1, retain: bool = False) -> None:
        """Said when the broker has it."""
        client = mqtt.Client(CallbackAPIVersion.VERSION2, f"plant-{uuid.uuid4().hex[:8]}")
        client.max_queued_messages_set(0)
        client.connect(HOST, self.port)
        client.loop_start()
        for info in [client.publish(topic, body, qos=qos, retain=retain) for body in bodies]:
            info.wait_for_publish(WAIT_S)
            assert info.is_published()
        client.disconnect()
        client.loop_stop()

    def held(self, client_id: str, version: Version, quiet_s: float = 0.4) -> list[bytes]:
        """What the broker sends to somebody who resumes the session and acknowledges nothing."""
        found: list[bytes] = []
        last = time.monotonic()

        def on_message(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
            nonlocal last
            found.append(bytes(message.payload))
            last = time.monotonic()

        five = version == "5"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if five else False,
            protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
            manual_ack=True,
        )
        more: dict[str, Any] = {}
        if five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 3600
            more = {"clean_start": False, "properties": properties}
        client.on_message = on_message
        client.connect(HOST, self.port, **more)
        client.loop_start()
        process.wait_until(lambda: time.monotonic() - last > quiet_s, WAIT_S)
        client.disconnect()
        client.loop_stop()
        return found

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, self.port), 1).close()
            return True
        return False


@contextlib.contextmanager
def broker(program: str, folder: Path, *lines: str, persistence: bool = True) -> Iterator[Broker]:
    """A broker with more lines of configuration."""
    found = Broker(program, folder, *lines, persistence=persistence)
    try:
        yield found
    finally:
        found.stop()


def settings(port: int, version: Version = "5", **changed: Any) -> MqttReadingsSettings:
    """For the broker behind a port."""
    given: dict[str, Any] = {
        "name": "machines", "host": HOST, "port": port, "topics": (Topics(filter="plant/#", at="at"),), "client_id": "plant-1-machines",
        "version": version,
    }  # fmt: skip
    return MqttReadingsSettings(**{**given, **changed})


class MqttPlant:
    """The plant of the suite; its numbers are plant/line1/n."""

    exact = timedelta(seconds=1)

    def __init__(self, broker: Broker, tap: Tap, version: Version) -> None:
        self.broker, self.tap, self.version = broker, tap, version
        self._at: dict[int, datetime] = {}

    def source(self) -> MqttReadings:
        return MqttReadings(settings(self.tap.port, self.version))

    def nowhere(self) -> MqttReadings:
        return MqttReadings(settings(free_port(), self.version))

    def say(self, count: int) -> Sequence[int]:
        numbers = range(len(self._at), len(self._at) + count)
        self._at |= {n: datetime.now(UTC) for n in numbers}
        self.broker.publish("plant/line1", *(json.dumps({"n": n, "at": self._at[n].isoformat()}) for n in numbers))
        return numbers

    def number(self, reading: Reading) -> int | None:
        return reading.value if reading.tag == "plant/line1/n" and isinstance(reading.value, int) else None

    def said_at(self, number: int) -> datetime:
        return self._at[number]

    def down(self) -> None:
        self.tap.cut()

    def up(self) -> None:
        self.tap.mend()
