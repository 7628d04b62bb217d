"""A plant for the trials of the edge: machines over MQTT, Sparkplug and OPC UA and a poster of facts, each in a process of its own that is never killed.

Every reading has a number, counted up by one for each tag from 1, and a time that no other reading of the tag has. Number and time are written down
before anything is sent (`Sent`), so that what came can be compared with what was said. Some numbers of MQTT are left out on purpose.
"""

import http.client
import json
import mmap
import random
import signal
import struct
import threading
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
TOPICS = 2
GROUP, NODES = "Trial", ("stores", "tells")  # the first waits for its primary host and sends later what it kept, the second does not
OPC_URI, OPC_ROOT = "http://trial.example/line", "Line1"
OPC_TAGS = {"Counted": True, "Kept": True, "Plain": False}  # whether the server keeps a history of it
LEFT_OUT = 0.01  # share of numbers of MQTT that are never sent
WINDOW = 100  # messages of MQTT that the broker has not confirmed yet
_ROW = struct.Struct("qqq")  # number, time in µs since 1970, 1 where it was sent


@dataclass(frozen=True)
class Pace:
    """How fast the plant is: readings a second of each tag, and the plant's time: from `origin` (µs) on, so much faster than ours."""

    per_second: Mapping[str, float]
    origin: int
    speed: float = 1.0
    began: float = field(default_factory=time.monotonic)

    def us(self) -> int:
        return self.origin + round((time.monotonic() - self.began) * self.speed * 1e6)


class Word:
    """Memory shared with the plant's processes: who is to be quiet, how often the server is to forget its sessions, and what is under way."""

    WHO = ("mqtt", "sparkplug", "opcua", "http")

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, 8 * 16)).cast("q")

    def quiet(self, who: str, quiet: bool = True) -> None:
        self._memory[self.WHO.index(who)] = quiet

    def is_quiet(self, who: str) -> bool:
        return bool(self._memory[self.WHO.index(who)])

    def under_way(self, who: str, count: int | None = None) -> int:
        """What is sent and not confirmed yet."""
        if count is not None:
            self._memory[4 + self.WHO.index(who)] = count
        return int(self._memory[4 + self.WHO.index(who)])

    def forget(self) -> None:
        self._memory[8] += 1

    @property
    def forgets(self) -> int:
        return int(self._memory[8])


class Sent:
    """What a tag said, in a file: written before it is said."""

    def __init__(self, folder: Path, tag: str) -> None:
        self._file = open(folder / f"{tag.replace('/', '~')}.sent", "ab", buffering=0)  # noqa: SIM115 (for as long as the process lives)
        self.count, self._last = 0, 0

    def note(self, at: int, sent: bool = True) -> tuple[int, int]:
        """The next number, and its time: later than any before."""
        self.count, self._last = self.count + 1, max(at, self._last + 1)
        self._file.write(_ROW.pack(self.count, self._last, sent))
        return self.count, self._last


def read_sent(folder: Path) -> dict[str, tuple["array[int]", "array[int]"]]:
    """By tag: the times of its readings, and whether each was sent; number 1 is the first."""
    found = {}
    for path in folder.glob("*.sent"):
        rows = array("q", path.read_bytes())
        assert rows[0::3] == array("q", range(1, len(rows) // 3 + 1))
        found[path.stem.replace("~", "/")] = rows[1::3], rows[2::3]
    return found


def microseconds(at: str) -> int:
    """A time of a document in µs since 1970."""
    moment = datetime.fromisoformat(at)
    return int(moment.replace(microsecond=0).timestamp()) * 10**6 + moment.microsecond


def _until_sigterm() -> threading.Event:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


class _Beat:
    """Sleeps so that things come so often a second; many at once where a sleep is too short for one."""

    def __init__(self, per_second: float) -> None:
        self._per_second, self._next = per_second, time.monotonic()

    def due(self) -> int:
        """How many are due since the last call; what was missed for more than a second is let go."""
        now = time.monotonic()
        self._next = max(self._next, now - 1)
        count = int((now - self._next) * self._per_second)
        self._next += count / self._per_second
        return count


def run_mqtt(folder: Path, word: Word, pace: Pace, port: int, seed: int) -> None:
    """Machines that publish with QoS 1; each message is confirmed by the broker before `WINDOW` others are sent."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    stop, chance = _until_sigterm(), random.Random(f"{seed}/mqtt")
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "trial-plant", clean_session=False)
    client.max_queued_messages_set(0)
    client.reconnect_delay_set(1, 1)
    told = [0]  # messages that the broker has confirmed

    def on_publish(client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        told[0] += 1

    client.on_publish = on_publish
    client.connect(HOST, port)
    client.loop_start()
    topics = {f"plant/m{n}": Sent(folder, f"plant/m{n}") for n in range(TOPICS)}
    beat, published = _Beat(pace.per_second["mqtt"]), 0
    while not stop.is_set():
        word.under_way("mqtt", published - told[0])
        for _ in range(0 if word.is_quiet("mqtt") or published - told[0] > WINDOW else beat.due()):
            for topic, sent in topics.items():
                n, at = sent.note(pace.us(), goes := chance.random() >= LEFT_OUT)
                if goes:
                    published += 1
                    word.under_way("mqtt", published - told[0])
                    client.publish(topic, json.dumps({"n": n, "at": at, "v": n}), qos=1)  # without a connection it is kept and sent later
        time.sleep(0.005)


class _Counts:
    """A machine of the demo's edge node whose only value counts its steps."""

    from hub.app.demo.plant.sparkplug_node import UINT64

    TYPES = {"Seq": UINT64}  # noqa: RUF012

    def __init__(self, word: Word) -> None:
        self._word, self.values = word, {"Seq": 0}

    def step(self) -> dict[str, int]:
        if self._word.is_quiet("sparkplug"):
            return {}
        self.values["Seq"] += 1
        return dict(self.values)


def run_sparkplug(folder: Path, word: Word, pace: Pace, port: int, host_id: str) -> None:
    """Edge nodes as the demo has them."""
    from hub.app.demo.plant.sparkplug_node import SparkplugNode

    stop = _until_sigterm()

    def drive(name: str) -> None:
        machine, sent, last = _Counts(word), Sent(folder, f"{GROUP}/{name}/d/Seq"), 0

        def clock() -> int:
            """Milliseconds, later with each call, so that a birth has no reading's time."""
            nonlocal last
            last = max(pace.us() // 1000, last + 1)
            return last

        def note(row: Mapping[str, Any]) -> None:
            if row["changed"]:
                n, at = sent.note(row["at"] * 1000)
                assert (n, at) == (row["changed"]["Seq"], row["at"] * 1000)

        node = SparkplugNode(
            [(HOST, port)], GROUP, name, "d", machine, host_id=host_id if name == "stores" else None, clock=clock, log=note  # type: ignore[arg-type]
        )  # fmt: skip
        beat = _Beat(pace.per_second["sparkplug"])
        while not stop.is_set():
            for _ in range(max(1, beat.due()) if word.is_quiet("sparkplug") else beat.due()):
                node.step()
            time.sleep(0.005)
        node.die()

    threads = [threading.Thread(target=drive, args=(name,)) for name in NODES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_opcua(folder: Path, word: Word, pace: Pace, port: int, keeps: int) -> None:
    """A server of asyncua with a history of most variables, which keeps so many messages that are not confirmed; it forgets its sessions when told to."""
    import asyncio
    import logging

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # it tells the trace of each connection that is cut
    asyncio.run(_serve(folder, word, pace, port, keeps, _until_sigterm()))


async def _serve(folder: Path, word: Word, pace: Pace, port: int, keeps: int, stop: threading.Event) -> None:
    import asyncio

    from asyncua import Server, ua

    server = Server()
    await server.init()
    server.iserver.max_unacked_messages_per_subscription = keeps
    server.set_endpoint(f"opc.tcp://{HOST}:{port}/trial")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(OPC_URI)
    line = await server.nodes.objects.add_object(ua.NodeId(OPC_ROOT, index), ua.QualifiedName(OPC_ROOT, index))
    nodes = {
        name: await line.add_variable(ua.NodeId(name, index), ua.QualifiedName(name, index), ua.Variant(0, ua.VariantType.UInt64))
        for name in OPC_TAGS
    }
    sent = {name: Sent(folder, f"{OPC_ROOT}/{name}") for name in OPC_TAGS}
    beat, forgot = _Beat(pace.per_second["opcua"]), word.forgets
    began = _moment(pace.us())
    for node in nodes.values():  # what is there before the first number has the plant's time too
        await server.write_attribute_value(node.nodeid, ua.DataValue(ua.Variant(0, ua.VariantType.UInt64), ua.StatusCode(0), began, began))
    async with server:
        for name, kept in OPC_TAGS.items():
            if kept:
                await server.historize_node_data_change(nodes[name], count=2_000_000)
        while not stop.is_set():
            for _ in range(0 if word.is_quiet("opcua") else beat.due()):
                for name, node in nodes.items():
                    n, us = sent[name].note(pace.us())
                    at = _moment(us)
                    value = ua.DataValue(ua.Variant(n, ua.VariantType.UInt64), ua.StatusCode(0), at, at)
                    await server.write_attribute_value(node.nodeid, value)
            if forgot != word.forgets:
                forgot = word.forgets
                for session in list(server.iserver._external_sessions.values()):
                    await session.close_session(True)
            await asyncio.sleep(0.005)


def _moment(us: int) -> Any:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def fact(n: int) -> bytes:
    """Fact n of the poster."""
    said = {"type": "masterdata.item_defined", "source": "erp:trial", "key": f"P{n}", "occurred_at": "2026-01-05T06:00:00Z"}
    return json.dumps(said | {"data": {"item": f"P{n}", "base_unit": "EA"}}).encode()


def run_http(folder: Path, word: Word, pace: Pace, port: int) -> None:
    """Posts facts one after the other, each until it is taken with 202."""
    stop, sent, beat = _until_sigterm(), Sent(folder, "http"), _Beat(pace.per_second["http"])
    while not stop.is_set():
        for _ in range(0 if word.is_quiet("http") else beat.due()):
            n, _ = sent.note(pace.us())
            word.under_way("http", 1)
            while not _post(port, fact(n)):
                time.sleep(0.05)
            word.under_way("http", 0)
        time.sleep(0.01)


def _post(port: int, body: bytes) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("POST", "/v1/facts", body, {"Content-Type": "application/json"})
        return connection.getresponse().status == 202
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
