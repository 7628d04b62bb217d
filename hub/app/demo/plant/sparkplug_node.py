"""A packing machine behind a Sparkplug B edge node: births, states, counters, and store and forward while its primary host is away.

A program of the simulated plant: it imports nothing of the hub and writes its payloads with an encoder of its own. While the host says that it is
offline, or no broker can be reached, the node dies as the specification wants it, keeps what the machine says (the oldest goes first when there is
no more room), and after its next birth sends it as history before anything new. A broker that comes back still holds what the host said before, and
nobody can tell from it whether the host is back too: `patience_s` waits so long for a newer word, because what is sent to nobody is lost.

    python -m hub.app.demo.plant.sparkplug_node --broker 127.0.0.1:1883 --host-id millwright
"""

import argparse
import json
import random
import signal
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

INT32, INT64, UINT32, UINT64, DOUBLE, BOOLEAN, STRING = 3, 4, 7, 8, 10, 11, 12  # data types of the specification, chapter 6.4.16
REBIRTH = "Node Control/Rebirth"
STORED_MAX = 50_000  # changes that are kept while the host is away
FLUSHED = 100  # changes in one message of history


# -- the wire: Protocol Buffers, as much of it as is needed


def _varint(n: int) -> bytes:
    out = bytearray()
    while True:
        out.append((n & 0x7F) | (0x80 if n > 0x7F else 0))
        n >>= 7
        if not n:
            return bytes(out)


def _number(field_: int, n: int) -> bytes:
    return _varint(field_ << 3) + _varint(n)


def _bytes(field_: int, body: bytes) -> bytes:
    return _varint(field_ << 3 | 2) + _varint(len(body)) + body


def metric(kind: int, value: Any, at: int, *, name: str | None = None, alias: int | None = None, historical: bool = False) -> bytes:
    """One metric; `value` None is null, `at` in ms since 1970."""
    out = _bytes(1, name.encode()) if name is not None else b""
    out += _number(2, alias) if alias is not None else b""
    out += _number(3, at) + _number(4, kind) + (_number(5, 1) if historical else b"")
    if value is None:
        return out + _number(7, 1)
    if kind == DOUBLE:
        return out + _varint(13 << 3 | 1) + struct.pack("<d", value)
    if kind == STRING:
        return out + _bytes(15, value.encode())
    if kind == BOOLEAN:
        return out + _number(14, int(value))
    return out + (_number(11, value & (1 << 64) - 1) if kind in (INT64, UINT64) else _number(10, value & 0xFFFFFFFF))


def payload(at: int, seq: int | None, metrics: Sequence[bytes]) -> bytes:
    """One message; a death has no `seq`."""
    return _number(1, at) + b"".join(_bytes(2, one) for one in metrics) + (_number(3, seq) if seq is not None else b"")


def fields(body: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message that came: numbers, or bytes of what is longer. Raises `ValueError` where it is cut short."""
    at = 0

    def varint() -> int:
        nonlocal at
        n = shift = 0
        while True:
            if at >= len(body) or shift > 63:
                raise ValueError("cut short")
            n |= (body[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if body[at - 1] < 0x80:
                return n

    while at < len(body):
        key = varint()
        size = {0: 0, 1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        if size is None:
            size = varint()
        if at + size > len(body):
            raise ValueError("cut short")
        yield key >> 3, body[at : at + size]
        at += size


def commands(body: bytes) -> list[tuple[str | int, Any]]:
    """What a command asks for: name or alias of each metric, and its value (a number, or the bytes of a text)."""
    found = []
    for number, one in fields(body):
        if number == 2:
            said = dict(fields(one))
            value = next((said[n] for n in (10, 11, 12, 13, 14, 15) if n in said), None)
            found.append((said[1].decode() if 1 in said else said.get(2, -1), value))
    return found


# -- the machine


@dataclass
class PackingMachine:
    """What a case packer does, a step at a time: PackML states, good and rejected cases, speed, the order in it."""

    seed: int = 1
    step_s: float = 1.0
    values: dict[str, Any] = field(default_factory=dict)

    TYPES = {  # noqa: RUF012
        "Status/State": STRING, "Status/Speed": DOUBLE, "Counters/Good": UINT64, "Counters/Rejected": UINT64,
        "Status/Order": STRING, "Settings/Speed": DOUBLE, "Diagnostics/Seq": UINT64,
    }  # fmt: skip

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._stands = 0  # steps that it still stands still
        self.values = {
            "Status/State": "Idle", "Status/Speed": 0.0, "Counters/Good": 0, "Counters/Rejected": 0,
            "Status/Order": "", "Settings/Speed": 60.0, "Diagnostics/Seq": 0,
        }  # fmt: skip

    def step(self) -> dict[str, Any]:
        """One step on; what has changed. Every step counts `Diagnostics/Seq` up, so that a step that is missing shows."""
        before = dict(self.values)
        v, chance = self.values, self._chance
        v["Diagnostics/Seq"] += 1
        if self._stands:
            self._stands -= 1
            v["Status/Speed"] = 0.0
            if not self._stands:
                v["Status/State"] = "Execute"
        elif v["Status/State"] != "Execute":
            v["Status/State"], v["Status/Order"] = "Execute", f"PO-{chance.randrange(1000, 9999)}"
        elif chance.random() < 0.02:
            v["Status/State"], self._stands = chance.choice(["Held", "Suspended", "Aborted"]), chance.randrange(3, 30)
        if v["Status/State"] == "Execute":
            v["Status/Speed"] = round(v["Settings/Speed"] * chance.uniform(0.95, 1.05), 2)
            made = round(v["Status/Speed"] * self.step_s / 60)
            bad = sum(chance.random() < 0.01 for _ in range(made))
            v["Counters/Good"], v["Counters/Rejected"] = v["Counters/Good"] + made - bad, v["Counters/Rejected"] + bad
        return {name: value for name, value in v.items() if value != before[name]}


# -- the edge node


class SparkplugNode:
    """One edge node with one device. `run` drives it; `step` once for tests. Times are ms since 1970, of `clock`."""

    def __init__(
        self,
        brokers: Sequence[tuple[str, int]],
        group: str,
        node: str,
        device: str,
        machine: PackingMachine,
        *,
        host_id: str | None = None,
        clock: Callable[[], int] = lambda: int(time.time() * 1000),
        log: Callable[[Mapping[str, Any]], None] = lambda row: None,
        stored_max: int = STORED_MAX,
        patience_s: float = 0.0,
    ) -> None:
        self.group, self.node, self.device, self.machine = group, node, device, machine
        self._brokers, self._host_id, self._clock, self._log = list(brokers), host_id, clock, log
        self._at = -1  # the broker it is or was at
        self._bd = -1
        self._seq = 0
        self._alias = {name: n for n, name in enumerate(machine.TYPES, 1)}
        self._client: mqtt.Client | None = None
        self._lock = threading.RLock()
        self._ready = threading.Event()  # subscribed
        self._host: tuple[bool, int] | None = None  # what STATE said last: online, timestamp
        self._before: tuple[bool, int] | None = None  # what it said before this connection
        self._patience_s, self._connected = patience_s, 0.0
        self._gone = False  # the host went away, or the connection did
        self._reborn = False  # a birth is asked for
        self._written: dict[str, float] = {}
        self._stored: deque[tuple[int, str, Any]] = deque(maxlen=stored_max)
        self.born = False

    def step(self) -> None:
        """Let the machine do one step and say what changed, or keep it."""
        written = self._take_written()
        self.machine.values.update(written)
        at, changed = self._clock(), {**written, **self.machine.step()}
        self._log({"at": at, "changed": changed})
        if self._gone:
            self.die()
        if self._client is None:
            self._connect()
        before = self.born
        if self._reborn if self.born else self._may_be_born():
            self._birth()
        if not before:  # also what is older than the birth by a moment
            self._stored.extend((at, name, value) for name, value in changed.items())
        if not self.born:
            return
        self._flush()
        if before and changed:
            self._data([self._metric(name, value, at) for name, value in changed.items()])

    def run(self, stop: threading.Event, period_s: float = 1.0) -> None:
        """Step until `stop` is set, then die in order."""
        while not stop.is_set():
            self.step()
            stop.wait(period_s)
        self.die()

    def die(self) -> None:
        """Publish the death certificate and disconnect."""
        client, self._client = self._client, None
        if client is None:
            return
        if self.born and client.is_connected():
            client.publish(self._topic("NDEATH"), self._death(), qos=1).wait_for_publish(2)
        self.born = False
        client.disconnect()
        client.loop_stop()

    def _may_be_born(self) -> bool:
        if self._client is None or not self._ready.is_set():
            return False
        stale = self._host == self._before and time.monotonic() < self._connected + self._patience_s
        return self._host_id is None or (self._host_says() is True and not stale)

    def _host_says(self) -> bool | None:
        """Whether the primary host is online, as STATE said last; None: it said nothing yet."""
        return None if self._host is None else self._host[0]

    def _connect(self) -> None:
        """One try at the next broker; whether it went well shows in `_ready`."""
        self._at, self._bd = (self._at + 1) % len(self._brokers), (self._bd + 1) % 256
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, f"{self.group}-{self.node}", clean_session=True, protocol=mqtt.MQTTv311, reconnect_on_failure=False
        )
        client.will_set(self._topic("NDEATH"), self._death(), qos=1, retain=False)
        client.on_connect, client.on_subscribe = self._on_connect, self._on_subscribe
        client.on_message, client.on_disconnect = self._on_message, self._on_disconnect
        self._ready.clear()
        self._before, self._connected = self._host or self._before, time.monotonic()
        self._host, self._gone, self._reborn = None, False, False
        try:
            client.connect(*self._brokers[self._at], keepalive=5)
        except OSError:
            return
        client.loop_start()
        self._client = client
        self._ready.wait(2)
        until = time.monotonic() + 1  # for the STATE that is retained
        while self._host_id is not None and self._host_says() is None and time.monotonic() < until:
            time.sleep(0.01)
        if self._host_id is not None and not self._host_says() and len(self._brokers) > 1:
            self.die()  # the host is not here: walk on

    def _birth(self) -> None:
        self._reborn = False
        at = self._clock()
        self._seq = 0
        told = [metric(INT64, self._bd, at, name="bdSeq"), metric(BOOLEAN, False, at, name=REBIRTH)]
        self._publish("NBIRTH", told)
        values = self.machine.values
        self._publish(
            "DBIRTH", [metric(kind, values[name], at, name=name, alias=self._alias[name]) for name, kind in self.machine.TYPES.items()]
        )
        self.born = True

    def _flush(self) -> None:
        while self._stored:
            part = [self._stored.popleft() for _ in range(min(FLUSHED, len(self._stored)))]
            self._data([self._metric(name, value, at, historical=True) for at, name, value in part])

    def _metric(self, name: str, value: Any, at: int, *, historical: bool = False) -> bytes:
        return metric(self.machine.TYPES[name], value, at, alias=self._alias[name], historical=historical)

    def _data(self, metrics: Sequence[bytes]) -> None:
        self._publish("DDATA", metrics)

    def _publish(self, kind: str, metrics: Sequence[bytes]) -> None:
        client = self._client
        assert client is not None
        client.publish(self._topic(kind), payload(self._clock(), self._seq, metrics), qos=0)
        self._seq = (self._seq + 1) % 256

    def _death(self) -> bytes:
        return payload(self._clock(), None, [metric(INT64, self._bd, self._clock(), name="bdSeq")])

    def _topic(self, kind: str) -> str:
        return f"spBv1.0/{self.group}/{kind}/{self.node}" + (f"/{self.device}" if kind[0] == "D" else "")

    def _take_written(self) -> dict[str, float]:
        with self._lock:
            written, self._written = self._written, {}
        return written

    # -- paho's thread

    def _on_connect(self, client: mqtt.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not reason.is_failure:
            topics = [self._topic("NCMD"), self._topic("DCMD")] + ([f"spBv1.0/STATE/{self._host_id}"] if self._host_id else [])
            client.subscribe([(topic, 1) for topic in topics])

    def _on_subscribe(self, client: mqtt.Client, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        self._ready.set()

    def _on_disconnect(self, client: mqtt.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is self._client:
            self._gone = True

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            if message.topic == f"spBv1.0/STATE/{self._host_id}":
                self._state(json.loads(message.payload))
            else:
                self._command(message)
        except (ValueError, KeyError, TypeError, struct.error) as error:
            print(f"{self.node}: {message.topic} is not understood: {error}", flush=True)

    def _state(self, said: dict[str, Any]) -> None:
        online, at = bool(said["online"]), int(said["timestamp"])
        if self._host is not None and at < self._host[1]:
            return  # of an older session of the host
        self._host = online, at
        if not online and self.born:
            self._gone = True

    def _command(self, message: mqtt.MQTTMessage) -> None:
        names: dict[str | int, str] = {alias: name for name, alias in self._alias.items()}
        for which, value in commands(bytes(message.payload)):
            if which == REBIRTH and value:
                self._reborn = True
            elif names.get(which, which) == "Settings/Speed" and isinstance(value, bytes):
                with self._lock:
                    self._written["Settings/Speed"] = struct.unpack("<d", value)[0]


def main(argv: Sequence[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--broker", action="append", required=True, help="host:port; several times: the next is tried where the host is not"
    )
    parser.add_argument("--group", default="Packaging")
    parser.add_argument("--node", default="PackCell1")
    parser.add_argument("--device", default="CasePacker1")
    parser.add_argument("--host-id", help="the primary host to wait for; without one it never waits")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for a newer word of the host after a cut")
    parser.add_argument("--period", type=float, default=1.0, help="seconds between two steps of the machine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", help="a file for what the machine did, a JSON line a step")
    args = parser.parse_args(argv)
    brokers = [(host or "127.0.0.1", int(port)) for host, _, port in (text.rpartition(":") for text in args.broker)]
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log = open(args.log, "a", buffering=1, encoding="utf-8") if args.log else None  # noqa: SIM115 (open for as long as the program runs)

    def write(row: Mapping[str, Any]) -> None:
        if log is not None:
            log.write(json.dumps(row) + "\n")

    machine = PackingMachine(args.seed, args.period)
    node = SparkplugNode(brokers, args.group, args.node, args.device, machine, host_id=args.host_id, log=write, patience_s=args.patience)
    node.run(stop, args.period)


if __name__ == "__main__":
    main()
