"""Far sides of the Sparkplug host application: a broker, a tap that reads what goes over the wire, an observer, and edge nodes.

The edge nodes write their payloads with the simulated plant's encoder, which shares nothing with the hub's, and the tap takes MQTT apart by itself.
"""

import contextlib
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from adapters.sparkplug import SparkplugSource
from hub.app.demo.plant.sparkplug_node import BOOLEAN, INT64, REBIRTH, commands, fields, metric, payload
from hub.app.servers import process
from hub.app.servers.process import free_port
from hub.intake.readings import Filled, Gap, Observed, Reading

HOST = "127.0.0.1"
HOST_ID = "hall-1"
WAIT_S = 20.0


class Mosquitto:
    """A broker of its own that can be stopped, frozen and started again on the same port."""

    def __init__(self, program: str, folder: Path, *lines: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self._log = free_port(), folder / "mosquitto.log"
        (folder / "mosquitto.conf").write_text(
            "\n".join([f"listener {self.port} {HOST}", "allow_anonymous true", "user root", *lines]) + "\n"
        )
        self._argv = [program, "-c", str(folder / "mosquitto.conf")]
        self.child: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self.port}"

    def start(self) -> None:
        self.child = process.spawn(self._argv, self._log, death=signal.SIGKILL)
        assert process.wait_until(self._answers, WAIT_S), process.tail(self._log)

    def stop(self) -> None:
        if self.child is not None:
            self.child.send_signal(signal.SIGCONT)
            self.child.kill()
            self.child.wait(WAIT_S)
            self.child = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, self.port), 1).close()
            return True
        return False


# -- the wire


@dataclass(frozen=True)
class Packet:
    """One MQTT packet that the host sent, or the broker (`up` False). `session` counts connections through the tap."""

    session: int
    up: bool
    kind: str
    at: float
    flags: int
    body: bytes
    version: int

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 3

    @property
    def retain(self) -> bool:
        return bool(self.flags & 1)

    @property
    def topic(self) -> str:
        return _string(self.body, 0)[0]

    @property
    def message(self) -> bytes:
        at = _string(self.body, 0)[1] + (2 if self.qos else 0)
        if self.version == 5:
            length, at = _length(self.body, at)
            at += length
        return self.body[at:]

    @property
    def filters(self) -> list[tuple[str, int]]:
        """Of a SUBSCRIBE: topics and the quality of service that was asked for."""
        at = 2
        if self.version == 5:
            length, at = _length(self.body, at)
            at += length
        found = []
        while at < len(self.body):
            topic, at = _string(self.body, at)
            found.append((topic, self.body[at] & 3))
            at += 1
        return found


@dataclass(frozen=True)
class Connect:
    """What a CONNECT says. `expiry` is None where MQTT 5's property is absent, which means 0."""

    version: int
    clean: bool
    expiry: int | None
    receive_maximum: int | None
    client_id: str
    will_topic: str | None
    will: bytes
    will_qos: int
    will_retain: bool
    username: str | None

    @staticmethod
    def of(body: bytes) -> "Connect":
        _, at = _string(body, 0)
        version, flags, at = body[at], body[at + 1], at + 4
        properties: dict[int, int] = {}
        if version == 5:
            length, at = _length(body, at)
            end = at + length
            while at < end:
                which, at = body[at], at + 1
                size = {0x11: 4, 0x21: 2}[which]
                properties[which] = int.from_bytes(body[at : at + size], "big")
                at += size
        client_id, at = _string(body, at)
        topic, will, username = None, b"", None
        if flags & 4:
            if version == 5:
                length, at = _length(body, at)
                at += length
            topic, at = _string(body, at)
            size = int.from_bytes(body[at : at + 2], "big")
            will, at = body[at + 2 : at + 2 + size], at + 2 + size
        if flags & 0x80:
            username, at = _string(body, at)
        return Connect(
            version, bool(flags & 2), properties.get(0x11), properties.get(0x21), client_id, topic, will, flags >> 3 & 3, bool(flags & 0x20), username
        )  # fmt: skip


_KINDS = {
    1: "CONNECT", 2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 8: "SUBSCRIBE", 9: "SUBACK", 12: "PINGREQ", 13: "PINGRESP", 14: "DISCONNECT",
}  # fmt: skip


class Tap:
    """A proxy between the host and a broker that keeps every packet, and can cut or hold the line."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server = socket.create_server((HOST, 0))
        self.port = self._server.getsockname()[1]
        self.packets: list[Packet] = []
        self.sessions = 0
        self._lines: list[socket.socket] = []
        self._lock = threading.Lock()
        self.open = True
        self.silent = False  # accept and pass nothing on
        self.answer: Callable[[Packet], bytes] = lambda packet: b""  # what the host hears before its packet reaches the broker
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self.port}"

    def sent(self, kind: str, topic: str = "", session: int | None = None) -> list[Packet]:
        """What the host sent of a kind, on a topic."""
        return [
            p
            for p in list(self.packets)
            if p.up and p.kind == kind and (not topic or p.topic == topic) and (session is None or p.session == session)
        ]

    def connects(self) -> list[Connect]:
        return [Connect.of(p.body) for p in self.sent("CONNECT")]

    def cut(self) -> None:
        """Break all connections and take none."""
        self.open = False
        self._drop()

    def mend(self) -> None:
        self.open = True

    def close(self) -> None:
        self.open = False
        self._server.close()
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        for line in lines:
            with contextlib.suppress(OSError):
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                line.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            if not self.open:
                line.close()
                continue
            try:
                far = socket.create_connection((HOST, self._to), 5)
                far.settimeout(None)
            except OSError:
                line.close()
                continue
            with self._lock:
                self._lines += [line, far]
                self.sessions += 1
                session = self.sessions
            version = [4]
            for source, target, up in ((line, far, True), (far, line, False)):
                threading.Thread(target=self._pump, args=(source, target, up, session, version), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, up: bool, session: int, version: list[int]) -> None:
        stream = bytearray()
        with contextlib.suppress(OSError):
            while more := source.recv(65536):
                stream += more
                for flags, body in _packets(stream):
                    kind = _KINDS.get(flags >> 4, str(flags >> 4))
                    if kind == "CONNECT":
                        version[0] = body[6]
                    packet = Packet(session, up, kind, time.monotonic(), flags & 15, body, version[0])
                    self.packets.append(packet)
                    if up and (said := self.answer(packet)):
                        source.sendall(said)
                while self.silent:
                    time.sleep(0.02)
                target.sendall(more)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()  # the other direction closes the other


def _packets(stream: bytearray) -> Iterator[tuple[int, bytes]]:
    while len(stream) >= 2:
        try:
            length, at = _length(stream, 1)
        except IndexError:
            return
        if len(stream) < at + length:
            return
        yield stream[0], bytes(stream[at : at + length])
        del stream[: at + length]


def _length(body: bytes | bytearray, at: int) -> tuple[int, int]:
    length = shift = 0
    while True:
        length |= (body[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if body[at - 1] < 128:
            return length, at


def _string(body: bytes, at: int) -> tuple[str, int]:
    size = int.from_bytes(body[at : at + 2], "big")
    return body[at + 2 : at + 2 + size].decode(), at + 2 + size


# -- clients


class Observer:
    """An independent client: everything that a broker hands out, and a way to publish anything."""

    def __init__(self, port: int, *topics: str, will: tuple[str, bytes] | None = None) -> None:
        self.heard: list[mqtt.MQTTMessage] = []
        self._subscribed = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self.client.max_queued_messages_set(0)
        self.client.on_message = lambda client, data, message: self.heard.append(message)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        if will is not None:
            self.client.will_set(*will, qos=1)
        self.client.connect(HOST, port)
        self.client.loop_start()
        if topics:
            self.client.subscribe([(topic, 1) for topic in topics])
            assert self._subscribed.wait(WAIT_S)

    def on(self, topic: str) -> list[mqtt.MQTTMessage]:
        return [m for m in list(self.heard) if m.topic == topic]

    def publish(self, topic: str, body: bytes, *, qos: int = 0, retain: bool = False) -> None:
        info = self.client.publish(topic, body, qos=qos, retain=retain)
        info.wait_for_publish(WAIT_S)
        assert info.is_published()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """Go without a word, so that the broker publishes the will."""
        line: Any = self.client.socket()
        self.client.on_disconnect = None
        self.client._reconnect_on_failure = False
        line.shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()
        line.close()


@dataclass
class Edge:
    """An edge node driven by hand; answers rebirth requests if `answers`. Metrics are (type, value) by name; aliases count from 10."""

    port: int
    group: str = "G1"
    node: str = "E1"
    metrics: dict[str, tuple[int, Any]] = field(default_factory=lambda: {"count": (INT64, 0)})
    devices: dict[str, dict[str, tuple[int, Any]]] = field(default_factory=dict)
    aliases: bool = True
    answers: bool = True
    bd: int = 0
    seq: int = 0
    rebirths: int = 0

    def __post_init__(self) -> None:
        self.commands: list[tuple[str, bytes]] = []
        self._lock = threading.RLock()
        self.connect()

    def connect(self) -> None:
        self.observer = Observer(self.port, will=(self.topic("NDEATH"), self.death()))
        self.observer.client.on_message = self._on_message
        done = threading.Event()
        self.observer.client.on_subscribe = lambda *_: done.set()
        self.observer.client.subscribe([(self.topic("NCMD"), 1), (f"spBv1.0/{self.group}/DCMD/{self.node}/#", 1)])
        assert done.wait(WAIT_S)

    def topic(self, kind: str, device: str | None = None) -> str:
        return f"spBv1.0/{self.group}/{kind}/{self.node}" + (f"/{device}" if device else "")

    def alias(self, name: str, device: str | None = None) -> int:
        names = [*self.metrics, *(f"{d}/{n}" for d, of in self.devices.items() for n in of)]
        return 10 + names.index(f"{device}/{name}" if device else name)

    def death(self) -> bytes:
        return payload(now_ms(), None, [metric(INT64, self.bd, now_ms(), name="bdSeq")])

    def birth(self, *, at: int | None = None, only: str = "") -> None:
        """The whole birth sequence, or only one message of it ("" all, "NBIRTH", a device's name)."""
        with self._lock:
            at = at if at is not None else now_ms()
            self.seq = 0
            told = [metric(INT64, self.bd, at, name="bdSeq"), metric(BOOLEAN, False, at, name=REBIRTH)]
            told += [self._told(name, None, at) for name in self.metrics]
            self.send("NBIRTH", told, at=at)
            for device in self.devices if not only else ():
                self.device_birth(device)

    def device_birth(self, device: str) -> None:
        self.send("DBIRTH", [self._told(name, device, now_ms()) for name in self.devices[device]], device)

    def _told(self, name: str, device: str | None, at: int) -> bytes:
        kind, value = (self.devices[device] if device else self.metrics)[name]
        return metric(kind, value, at, name=name, alias=self.alias(name, device) if self.aliases else None)

    def say(
        self, name: str, value: Any, device: str | None = None, *, at: int | None = None, historical: bool = False, qos: int = 0
    ) -> bytes:
        """One metric in a data message; its payload."""
        with self._lock:
            of = self.devices[device] if device else self.metrics
            of[name] = (of[name][0], value)
            return self.send(
                "DDATA" if device else "NDATA", [self.datum(name, value, device, at=at, historical=historical)], device, qos=qos
            )

    def datum(self, name: str, value: Any, device: str | None = None, *, at: int | None = None, historical: bool = False) -> bytes:
        kind, at = (self.devices[device] if device else self.metrics)[name][0], at if at is not None else now_ms()
        by = {"alias": self.alias(name, device)} if self.aliases else {"name": name}
        return metric(kind, value, at, historical=historical, **by)

    def send(
        self, kind: str, metrics: Sequence[bytes], device: str | None = None, *, at: int | None = None, qos: int = 0, seq: int | None = None
    ) -> bytes:
        """Publish with the next sequence number, or with `seq` and no step."""
        with self._lock:
            body = payload(at if at is not None else now_ms(), self.seq if seq is None else seq, metrics)
            if seq is None:
                self.seq = (self.seq + 1) % 256
            self.observer.publish(self.topic(kind, device), body, qos=qos)
            return body

    def skip(self) -> int:
        """The sequence number of a message that is not sent, or later."""
        with self._lock:
            seq, self.seq = self.seq, (self.seq + 1) % 256
            return seq

    def die(self, *, cleanly: bool = False) -> None:
        if cleanly:
            self.observer.publish(self.topic("NDEATH"), self.death(), qos=1)
            self.observer.close()
        else:
            self.observer.vanish()

    def again(self) -> None:
        """A new session: the next bdSeq."""
        self.bd = (self.bd + 1) % 256
        self.connect()

    def _answer(self) -> None:
        with contextlib.suppress(AssertionError, RuntimeError, ValueError):  # the test is over
            self.birth()

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        self.commands.append((message.topic, bytes(message.payload)))
        if message.topic == self.topic("NCMD") and any(which == REBIRTH and value for which, value in commands(bytes(message.payload))):
            self.rebirths += 1
            if self.answers:
                threading.Thread(target=self._answer, daemon=True).start()


def now_ms() -> int:
    return int(time.time() * 1000)


def said(body: bytes | bytearray) -> dict[int, list[Any]]:
    """The fields of a payload that the host wrote."""
    found: dict[int, list[Any]] = {}
    for number, value in fields(bytes(body)):
        found.setdefault(number, []).append(value)
    return found


class Running:
    """A host application with what it handed over, made durable as the edge does."""

    def __init__(self, source: SparkplugSource, memory: dict[str, bytes] | None = None) -> None:
        self.source, self.memory = source, {} if memory is None else memory
        self.readings: list[Reading] = []
        self.gaps: list[Gap] = []
        self.filled: list[Filled] = []
        self.observed: list[Observed] = []

    def open(self) -> "Running":
        self.source.open(self.memory.get)
        return self

    def step(self, wait_s: float = 0.05) -> None:
        for one in self.source.receive(500, wait_s):
            self.observed.append(one)
            self.readings += one.readings
            self.gaps += one.gaps
            self.filled += one.filled
            self.memory.update(one.memory)
            one.done()

    def until(self, reached: Callable[[], Any], wait_s: float = WAIT_S) -> None:
        end = time.monotonic() + wait_s
        while not reached():
            assert time.monotonic() < end, f"not reached; readings {self.readings[-5:]}, gaps {self.gaps}"
            self.step()

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()

    def values(self, tag: str, *, good: bool = True) -> list[Any]:
        return [r.value for r in self.readings if r.tag == tag and (r.quality == "good" or not good)]
