"""What an edge sends to the hub and what it is told: entries of the spool in a compressed batch, and how far each lane is durable.

A batch is `POST /edge/v1/batch`, MessagePack, gzip. Its answer is JSON and comes when everything in the batch is durable.
"""

import zlib
from collections.abc import Sequence
from datetime import datetime

import msgspec

from adapters.edge.spool import Spooled
from events.errors import Refused

PATH = "/edge/v1/batch"
HELLO = "/edge/v1/lanes"
UNPACKED_BYTES_MAX = 72 * 1024 * 1024  # of one batch, whatever it is compressed to: a delivery of DELIVERY_BYTES_MAX and its frame


class WireEntry(msgspec.Struct, array_like=True, frozen=True):
    """One entry: lane, number, when the edge got it (RFC 3339), the source's transport, what that said (JSON), the bytes, who wrote it."""

    lane: str
    n: int
    received_at: str
    transport: str
    headers: str
    body: bytes
    again: bool = False
    run: str = ""


class Batch(msgspec.Struct, frozen=True):
    """Entries of one edge in one epoch, in the order of their numbers within each lane."""

    edge: str
    epoch: str
    sent_at: str  # the edge's clock
    entries: list[WireEntry]
    lost: list[tuple[str, int, int]] = []  # lane, first, last: what the hub does not have, and the edge not any more


class Answer(msgspec.Struct, frozen=True):
    """What the hub has durably: the last number of each lane of this edge and epoch; `now` is the hub's clock, `runs` who wrote those entries."""

    epoch: str
    lanes: dict[str, int]
    now: str
    outcomes: dict[str, int] = {}
    runs: dict[str, str] = {}

    def ahead_s(self, ours: datetime) -> float:
        """How far a clock that says `ours` is ahead of the hub's, in seconds."""
        return (ours - datetime.fromisoformat(self.now)).total_seconds()


def packed(
    edge: str, epoch: str, sent_at: str, entries: Sequence[Spooled], *, again: bool = False, lost: Sequence[tuple[str, int, int]] = ()
) -> bytes:
    """A batch as it travels."""
    found = [WireEntry(e.lane, e.n, e.received_at, e.transport, e.headers, e.body, again, e.run) for e in entries]
    pressed = zlib.compressobj(1, wbits=31)
    return pressed.compress(msgspec.msgpack.encode(Batch(edge, epoch, sent_at, found, list(lost)))) + pressed.flush()


def unpacked(body: bytes) -> Batch:
    """A batch that came. Raises `Refused`."""
    opened = zlib.decompressobj(wbits=31)
    try:
        raw = opened.decompress(body, UNPACKED_BYTES_MAX)
        if opened.unconsumed_tail or not opened.eof:
            raise Refused(f"the batch is cut short or unpacks to more than {UNPACKED_BYTES_MAX} bytes: send fewer entries")
        return msgspec.msgpack.decode(raw, type=Batch)
    except (zlib.error, msgspec.MsgspecError, RecursionError) as error:
        raise Refused(f"the body is no batch of an edge ({error}): is the edge of another version than the hub?") from error


def answered(body: bytes) -> Answer:
    """What the hub said. Raises `Refused`."""
    try:
        return msgspec.json.decode(body, type=Answer)
    except msgspec.MsgspecError as error:
        raise Refused(f"the hub's answer is none ({error}): is something else at this address?") from error
