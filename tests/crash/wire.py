"""What the hub said to its sources, read from its system calls: each acknowledgement, and when its call was entered.

MQTT's PUBACK is matched to the delivery by the packet id on its connection, an HTTP answer by the request before it on its connection, a file by
its name, an offset by its number, which is what Kafka told the source.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.roads import ACKNOWLEDGED
from tests.crash.strace import READS, WRITES, Call

CALLS = (*READS, *WRITES, "rename", "renameat", "renameat2")
_PUBLISH, _PUBACK = 3, 4
_OFFSET_COMMIT = 8


@dataclass(frozen=True, slots=True)
class Ack:
    """An acknowledgement: its way, the line of the trace in which its call was entered, and what it is of.

    `of` is the body (mqtt, http), the file's name (folder), or the offset that is the first not yet acknowledged (kafka).
    """

    way: str
    entered: int
    of: bytes | str | int


@dataclass
class _Connection:
    came: bytearray = field(default_factory=bytearray)
    went: bytearray = field(default_factory=bytearray)
    messages: dict[int, bytes] = field(default_factory=dict)


class Wire:
    """The hub's ways in: ports of the two brokers, which it connects to, and of its API, and its watched folder."""

    def __init__(self, *, mqtt: int, http: int, kafka: int, inbox: Path) -> None:
        self._inbox = inbox
        self._ends: list[tuple[str, Callable[[_Connection, Call], Iterator[Ack]]]] = [
            (f"->127.0.0.1:{mqtt}]", _mqtt),
            (f"TCP:[127.0.0.1:{http}->", _http),
            (f"->127.0.0.1:{kafka}]", _kafka),
        ]

    def acknowledgements(self, calls: Iterable[Call]) -> Iterator[Ack]:
        """All of them. Raises `ValueError` for bytes that this cannot read."""
        connections: dict[str, _Connection] = {}
        for call in calls:
            if call.name.startswith("rename"):
                yield from self._moved(call)
            for end, read in self._ends:
                if call.result > 0 and end in call.target:
                    connection = connections.setdefault(call.target, _Connection())
                    (connection.came if call.name in READS else connection.went).extend(call.data())
                    yield from read(connection, call)

    def _moved(self, call: Call) -> Iterator[Ack]:
        source, target = (Path(text.decode()) for text in call.strings())
        if call.result == 0 and source.parent == self._inbox and target.parent in (self._inbox / "done", self._inbox / "held"):
            yield Ack("folder", call.entered, source.name)


def _mqtt(connection: _Connection, call: Call) -> Iterator[Ack]:
    for kind, packet in _packets(connection.came):
        quality = kind >> 1 & 3
        if kind >> 4 == _PUBLISH and quality:
            topic = 2 + int.from_bytes(packet[:2], "big")
            connection.messages[int.from_bytes(packet[topic : topic + 2], "big")] = packet[topic + 2 :]
    for kind, packet in _packets(connection.went):
        if kind >> 4 == _PUBACK:
            yield Ack("mqtt", call.entered, connection.messages[int.from_bytes(packet[:2], "big")])


def _packets(stream: bytearray) -> Iterator[tuple[int, bytes]]:
    """(first byte, what follows the length) of each whole packet of MQTT 3.1.1, which is taken off the stream."""
    while len(stream) >= 2:
        length = shift = 0
        at = 1
        while at < len(stream):
            length |= (stream[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if stream[at - 1] < 128:
                break
        else:
            return
        if len(stream) < at + length:
            return
        yield stream[0], bytes(stream[at : at + length])
        del stream[: at + length]


def _http(connection: _Connection, call: Call) -> Iterator[Ack]:
    """The first bytes of an answer acknowledge the request that has come whole before them."""
    if call.name in WRITES and connection.went.startswith(b"HTTP/1.1 "):
        status = int(connection.went[9:12])
        head, _, body = bytes(connection.came).partition(b"\r\n\r\n")
        connection.came.clear()
        if status in ACKNOWLEDGED and head.startswith(b"POST "):
            yield Ack("http epcis" if head.startswith(b"POST /epcis/capture ") else "http facts", call.entered, body)
    connection.went.clear()


def _kafka(connection: _Connection, call: Call) -> Iterator[Ack]:
    connection.came.clear()
    while len(connection.went) >= 4:
        length = int.from_bytes(connection.went[:4], "big")
        if len(connection.went) < 4 + length:
            return
        request = bytes(connection.went[4 : 4 + length])
        del connection.went[: 4 + length]
        api, version = struct.unpack_from("!hh", request)
        if api == _OFFSET_COMMIT:
            for offset in _offsets(request, version):
                yield Ack("kafka", call.entered, offset)


def _offsets(request: bytes, version: int) -> list[int]:
    """The offsets of an OffsetCommit request of version 8 or 9, which is what librdkafka 2 sends to a Kafka that knows them."""
    if version not in (8, 9):
        raise ValueError(f"OffsetCommit of version {version} is not known here")
    client = int.from_bytes(request[8:10], "big")
    at = 10 + client + 1  # api, version, correlation id, client id; no tagged fields

    def number() -> int:
        """An unsigned varint."""
        nonlocal at
        found = shift = 0
        while True:
            found |= (request[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if request[at - 1] < 128:
                return found

    def skip_text() -> None:
        nonlocal at
        length = number()  # plus one; zero is null
        at += max(0, length - 1)

    found: list[int] = []
    skip_text()  # group
    at += 4  # generation
    skip_text()  # member
    skip_text()  # instance
    for _ in range(number() - 1):
        skip_text()  # topic
        for _ in range(number() - 1):
            found += struct.unpack_from("!q", request, at + 4)  # behind the partition
            at += 4 + 8 + 4  # partition, offset, epoch of the leader
            skip_text()  # metadata
            at += 1  # no tagged fields
        at += 1
    return found
