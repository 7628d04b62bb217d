"""One edge node as a host application sees it: births, deaths, order, aliases, what is stale, what is missing. Pure: messages and times in, readings out.

Its messages are numbered from the first that was heard on: a number goes up by one with each, its remainder by 256 is the `seq` on the wire, and
each birth begins at the next number with that remainder. So a number names one message for ever, which `seq` does not.
What must outlive a kill goes out with the readings it belongs to (`Observed.memory`) and comes back to `remember`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import msgspec

from adapters.formats.sparkplug import BDSEQ, Metric, finite, plain, value_of
from adapters.formats.sparkplug_gaps import Missing, Open
from adapters.formats.sparkplug_message import Message, bdseq_of, lowest, quality_of, time_of
from adapters.formats.sparkplug_values import DataType
from events.canonical import time_text
from events.errors import Corrupt, Refused
from hub import limits
from hub.intake.readings import GapKind, Observed, Quality, Reading

_log = logging.getLogger(__name__)
_RECENT = 64  # messages that are known again when they come once more: more than a publisher has in flight
_T = TypeVar("_T")
Status = Literal["unknown", "online", "unsure", "lost", "offline"]


@dataclass(slots=True)
class Tag:
    """A metric as its birth told it, and its last reading (value, time, quality), None while it is stale."""

    name: str
    type: int | None
    alias: int | None = None
    last: tuple[object, datetime | None, str] | None = None


@dataclass(slots=True)
class Device:
    """A device, or the edge node itself (`id` is ""), with the metrics of its last birth."""

    id: str
    online: bool = False
    since: datetime | None = None  # when it was born, or became stale
    tags: dict[str, Tag] = field(default_factory=dict)
    aliases: dict[int, Tag] = field(default_factory=dict)
    told: bool = True  # what is remembered of it is up to date


class _Memory(msgspec.Struct, array_like=True):
    status: Status
    bd: int | None
    next: int
    last: datetime | None
    live: datetime | None
    kind: GapKind
    recent: list[tuple[int, bytes]]
    gaps: list[Open]
    devices: list[str]


class _DeviceMemory(msgspec.Struct, array_like=True):
    fresh: bool  # a reading of it is not stale
    tags: list[tuple[str, int | None, int | None]]


class EdgeNode:
    """The state of one edge node. `take` and `expire` feed it, `collect` empties it; `rebirth` is True when one is to be asked for."""

    def __init__(self, host: str, group: str, node: str, *, reorder_s: float, reach_s: float, asks: bool = True) -> None:
        self.group, self.node, self.producer = group, node, f"{group}/{node}"
        self.memory = f"sparkplug/{host}/{group}/{node}"
        self._reorder_s, self._asks = reorder_s, asks
        self._missing = Missing(self.memory, self.producer, reach_s)
        self.status: Status = "unknown"
        self.devices: dict[str, Device] = {}
        self.broker = 0  # where it was heard last
        self.rebirth = False
        self._bd: int | None = None
        self._next = 0  # the number of the next message
        self._last: datetime | None = None  # times of the last message, by the node's clock; `_live` without history
        self._live: datetime | None = None
        self._kind: GapKind = "disconnected"  # of the break it is in
        self._recent: dict[int, bytes] = {}  # seq and digest of the messages of this session, and of those before its last birth
        self._before: dict[int, bytes] = {}
        self._held: dict[int, Message] = {}  # waiting for one before them
        self._early: list[Message] = []  # waiting for a birth
        self._dropped = False  # some of those were let go
        self._pending: dict[str, list[tuple[int | None, Message]]] = {}  # numbered, by the device whose birth they wait for
        self._pending_since: datetime | None = None  # the last that was taken before them
        self._unborn_s: float | None = None  # monotonic; since when data comes without a birth, and whether that was told
        self._unborn_told = False
        self._born_ms: int | None = None  # when the last birth was sent, by the node's clock, and when it came, monotonic
        self._born_s = 0.0
        self._restate_s: float | None = None  # monotonic; devices that have no birth by then are stale
        self._owed, self._ask_s, self._wait_s = False, 0.0, limits.SPARKPLUG_REBIRTH_FIRST_S
        self._unknown: set[str] = set()  # what no birth of this session told: a rebirth is asked for once
        self._readings: list[Reading] = []
        self._done: list[Callable[[], None]] = []
        self._heard = datetime.min.replace(tzinfo=UTC)

    # -- in and out

    def remember(self, remembered: Callable[[str], bytes | None]) -> bool:
        """Be what was made durable last; False if nothing was. A node that was online is to be told that it is `lost`."""
        said = remembered(self.memory)
        if said is None:
            return False
        known = _decoded(self.memory, said, _Memory)
        self.status, self._bd, self._next, self._last, self._live = known.status, known.bd, known.next, known.last, known.live
        self._kind, self._recent = known.kind, dict(known.recent)
        self._missing.remember(known.gaps)
        for id_ in known.devices:
            if body := remembered(f"{self.memory}/{id_}"):
                device = _decoded(f"{self.memory}/{id_}", body, _DeviceMemory)
                last = (None, None, "") if device.fresh else None
                self.devices[id_] = Device(id_, tags={name: Tag(name, kind, alias, last) for name, kind, alias in device.tags})
        return True

    def take(self, message: Message, now: float) -> None:
        """Take one message in; `now` is monotonic."""
        message.arrived, self._heard = now, message.received_at
        kind = message.topic.kind
        if kind == "NBIRTH":
            self._nbirth(message, now)
        elif kind == "NDEATH":
            self._ndeath(message)
        elif self.status == "online":
            self._sequenced(message, now)
        else:
            self._unborn(message, now)

    def expire(self, now: float) -> None:
        """Do what time asks for: give a missing message up, ask for a rebirth again, close what history has filled."""
        while self._held and now >= min(m.arrived for m in self._held.values()) + self._reorder_s:
            self._give_up(now)
        if self._unborn_s is not None and not self._unborn_told and now >= self._unborn_s + limits.SPARKPLUG_REBIRTH_FIRST_S:
            self._unborn_told = True
            self._tell_break(None, "data comes, but no birth that explains it: is the host allowed to publish NCMD?")
        if self._restate_s is not None and now >= self._restate_s:
            self._restate_s = None
            for device in self.devices.values():
                if not device.online:
                    self._stale(device, self._heard)
            self._drop_pending("the birth of its device did not come")
        if self._owed and now >= self._ask_s:
            self.want_rebirth(now)
        self._missing.expire(now)

    def due(self) -> float | None:
        """When `expire` has something to do next, monotonic."""
        times = [self._restate_s, self._ask_s if self._owed else None, self._missing.due()]
        times += [min(m.arrived for m in self._held.values()) + self._reorder_s] if self._held else []
        times += [self._unborn_s + limits.SPARKPLUG_REBIRTH_FIRST_S] if self._unborn_s is not None and not self._unborn_told else []
        return min((time for time in times if time is not None), default=None)

    def lost(self, at: datetime, now: float) -> None:
        """Nothing can be heard of it any more: our connection to its broker is gone. Its values are stale (`at`, the host's clock)."""
        self._heard = at
        while self._held and self.status == "online":
            self._give_up(now)
        if self.status in ("online", "unsure"):
            self.status, self._kind = "lost", "disconnected"
            self._all_stale(at)
        self._missing.broken()
        self._forget_waiting("the connection was lost before it could be explained")

    def want_rebirth(self, now: float, *, owed: bool = True) -> None:
        """Ask for a rebirth, unless one was asked for a moment ago; again and again if it is `owed`."""
        if not self._asks:
            return
        self._owed = owed or self._owed
        if now >= self._ask_s:
            self.rebirth, self._ask_s = True, now + self._wait_s
            self._wait_s = min(2 * self._wait_s, limits.SPARKPLUG_REBIRTH_MAX_S)

    def collect(self) -> Observed | None:
        """What was said since the last time, with what must be remembered with it; None for nothing."""
        if not (self._readings or self._missing.told or self._missing.filled or self._done):
            return None
        (readings, self._readings), (done, self._done) = (self._readings, []), (self._done, [])
        return Observed(self.producer, self._heard, readings, *self._missing.taken(), self._memory(), lambda: _all(done))

    def now(self, of: str = "") -> Iterator[dict[str, Any]]:
        """The node and its devices, for people: device, status, since, metrics (how many); of those whose name begins with `of` also `tags`.

        Times are ISO 8601. A tag is tag, type, value, quality, at; one that said nothing since its birth has no quality.
        """
        for device in self.devices.values() or [Device("")]:
            name, online = f"{self.producer}/{device.id}", self.status == "online" and device.online
            if not name.startswith(of):
                continue
            unsaid = (None, None, None) if online else (None, device.since, "stale")
            tags = [
                {"tag": self._tag(device, tag), "type": _name(tag.type), "value": finite(value), "quality": quality, "at": _text(at)}
                for tag in (device.tags.values() if of else ())
                for value, at, quality in [tag.last or unsaid]
            ]
            status = "offline" if self.status == "online" and not online else self.status
            yield {"device": name, "status": status, "since": _text(device.since), "metrics": len(device.tags), "tags": tags}

    def _memory(self) -> Mapping[str, bytes]:
        recent = list(self._recent.items())[-_RECENT:]
        live = self._pending_since if self._pending else self._live
        said = _Memory(self.status, self._bd, self._next, self._last, live, self._kind, recent, self._missing.open, [*self.devices])
        memory = {self.memory: msgspec.msgpack.encode(said)}
        for device in self.devices.values():
            if not device.told:
                kept = _DeviceMemory(any(tag.last for tag in device.tags.values()), _table(device.tags.values()))
                memory[f"{self.memory}/{device.id}"] = msgspec.msgpack.encode(kept)
                device.told = True
        return memory

    # -- births and deaths of the node

    def _nbirth(self, message: Message, now: float) -> None:
        payload, was = message.payload, self.status
        if was == "online" and self._is_known(message):
            self._done.append(message.done)
            return
        bd, sent, early = bdseq_of(payload), payload.timestamp, [*self._early, *(self._held[number] for number in sorted(self._held))]
        # what was sent after this and overtook it; data of its very millisecond was sent before it, births of devices after it
        after = [m for m in early if sent is not None and (m.payload.timestamp or 0) >= sent + (not m.is_birth)]
        self._held = {n: m for n, m in self._held.items() if m not in after}
        while self._held and self.status == "online":
            self._give_up(now)
        if self.status == "online" and bd != self._bd:
            self._missing.broken()
            self._tell_break(message.sent_at, "the edge node began a new session, and its death was not heard")
        elif self.status == "online" and self._owed:
            self._tell_break(message.sent_at, _UNCOUNTED)
        elif self.status != "online":
            self._after_break(message, bd, [m for m in early if m not in after])
        rebirth = was == "online" and bd == self._bd
        self._unknown = self._unknown if rebirth else set()
        self.status, self._bd, self._born_ms, self._kind, self._dropped = "online", bd, sent, "disconnected", False
        self._born_s, self._ask_s, self._wait_s = now, 0.0, limits.SPARKPLUG_REBIRTH_FIRST_S
        self._await_birth(None)
        number = self._next + ((message.seq or 0) - self._next) % 256
        self._next, self._before, self._recent, self._missing.holes, self._early, self._held = number, self._recent, {}, [], [], {}
        for device in self.devices.values():
            if device.id:
                device.online = False
                if not rebirth:
                    self._stale(device, message.received_at)
        self._restate_s = now + limits.SPARKPLUG_REBIRTH_FIRST_S if (rebirth and len(self.devices) > 1) or self._pending else None
        self._accept(message, number)
        for one in sorted(after, key=lambda m: ((m.seq or 0) - (message.seq or 0)) % 256):
            self._sequenced(one, now)

    def _after_break(self, message: Message, bd: int | None, early: list[Message]) -> None:
        """Tell the break that a birth ends. What came before the birth in the same session is kept, for the births to explain."""
        until, last = message.sent_at, None
        known, since = self._next > 0 or self._last is not None, self._live
        if early and self.status != "offline" and (bd == self._bd or self._bd is None):
            first = lowest(one.seq for one in early if one.seq is not None)
            until = min(one.span()[0] for one in early if one.seq in (None, first))
            start = self._next + (first - self._next) % 256 if known else first
            last = start - 1
        else:
            self._let_go(early)
            early, start = [], self._next
        if known or self._dropped:
            self._tell_break(until, _WHY[self.status], last)
        self._next, seen = start, set[bytes]()
        for one in sorted(early, key=lambda m: (0 if m.seq is None else m.seq - start) % 256):
            number = None if one.seq is None else start + (one.seq - start) % 256
            if one.digest and one.digest in seen:
                self._done.append(one.done)
                continue
            seen.add(one.digest)
            if number is not None:
                if number > self._next:
                    self._missing.hole(range(self._next, number), self._last, one.span()[0])
                self._next, self._last = number + 1, one.span()[1]
                self._recent[number % 256] = one.digest
            self._pending.setdefault(one.topic.device or "", []).append((number, one))
        self._pending_since = since
        if self._pending and (known or self._missing.holes):  # something was missing already
            self._live, self._kind = max(one.span()[1] for one in early), "disconnected"
            self._tell_break(message.sent_at, _UNCOUNTED)

    def _unexplained(self, pending: Iterable[tuple[int | None, Message]], reason: str) -> None:
        """Messages that no birth explains: they are told as missing."""
        for number, message in pending:
            self._done.append(message.done)
            self._tell_one(message, number, reason)

    def _explain(self, device: Device, old: Iterable[Tag]) -> None:
        """Take what came before this birth, as far as the birth before that told the same metrics."""
        table, before = _table(device.tags.values()), _table(old)
        same = not before or before == table
        for number, message in self._pending.pop(device.id, []):
            if message.topic.kind == "DBIRTH":
                same = [(m.name, m.datatype, m.alias) for m in message.payload.metrics if m.name is not None] == table
            if not same:
                self._unexplained([(number, message)], "it came before a birth that tells other metrics than the one before")
                continue
            self._done.append(message.done)
            if message.topic.kind == "DDEATH":
                self._stale(device, message.sent_at)
            elif message.topic.kind == "DBIRTH":
                for metric in message.payload.metrics:
                    if metric.name is not None:
                        self._read(device, device.tags[metric.name], metric, message, number, birth=True)
            else:
                self._data(device.id, message, number, late=False)

    def _ndeath(self, message: Message) -> None:
        self._done.append(message.done)
        if self.status in ("unknown", "offline") or bdseq_of(message.payload) not in (self._bd, None):
            return  # of a session that is over, or of one that we know nothing of
        while self._held and self.status == "online":
            self._give_up(message.arrived)
        self.status, self._kind = "offline", "disconnected"
        self._missing.broken()
        self._all_stale(message.received_at)
        self._forget_waiting("the edge node died before it could be explained")

    def _unborn(self, message: Message, now: float) -> None:
        if self._is_known(message):
            self._done.append(message.done)  # taken before we were gone
            return
        self._early.append(message)
        while len(self._early) > limits.SPARKPLUG_HELD_MAX or sum(m.size for m in self._early) > limits.SPARKPLUG_HELD_BYTES_MAX:
            self._let_go([self._early.pop(0)])
        if self._unborn_s is None:
            self._await_birth(now)
        self.want_rebirth(now)

    def _await_birth(self, since: float | None) -> None:
        """Data comes without a birth since then; None: it does not, and nothing is waited for."""
        self._unborn_s, self._unborn_told = since, False
        if since is None:
            self._owed, self._restate_s = False, None

    def _forget_waiting(self, reason: str) -> None:
        self._await_birth(None)
        self._drop_pending(reason)
        self._let_go(self._early)
        self._early = []

    def _drop_pending(self, reason: str) -> None:
        for pending in self._pending.values():
            self._unexplained(pending, reason)
        self._pending = {}

    def _let_go(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._dropped = True
            self._done.append(message.done)

    # -- order

    def _sequenced(self, message: Message, now: float) -> None:
        seq = message.seq
        if seq is None:
            self._accept(message, None)  # it cannot be told where it belongs
            return
        if self._is_known(message):
            self._done.append(message.done)
            return
        number, sent = self._next + (seq - self._next) % 256, message.payload.timestamp
        older = self._born_ms is not None and sent is not None and sent < self._born_ms and message.topic.kind.endswith("DATA")
        older = older and not any(metric.historical for metric in message.payload.metrics)  # some stamp history with its own time
        if older and now <= self._born_s + self._reorder_s:  # later, it is the node's clock that went back
            self._straggler(message)
        elif number == self._next:
            self._accept(message, number)
            self._drain()
        elif self._missing.late(number - 256, message.span()):
            self._accept(message, number - 256, late=True)
        elif older:
            self._straggler(message)
        elif number in self._held:
            if self._held[number].digest == message.digest:
                self._done.append(message.done)
                return
            self._give_up(now)
            self.take(message, now)
        else:
            self._held[number] = message
            if len(self._held) >= limits.SPARKPLUG_HELD_MAX or sum(m.size for m in self._held.values()) > limits.SPARKPLUG_HELD_BYTES_MAX:
                self._give_up(now)

    def _is_known(self, message: Message) -> bool:
        seq = message.seq or 0
        return message.digest != b"" and message.digest in (self._recent.get(seq), self._before.get(seq))

    def _drain(self) -> None:
        while (message := self._held.pop(self._next, None)) is not None:
            self._accept(message, self._next)

    def _give_up(self, now: float) -> None:
        """What is before the first held message will not come. A birth may have been among it: then nothing after it can be understood."""
        lowest = min(self._held)
        if (self._next - 1) // 256 != (lowest - 1) // 256:  # a number that is 0 on the wire
            self._early = [self._held[number] for number in sorted(self._held)]
            self._held, self.status, self._kind = {}, "unsure", "sequence"
            self._missing.broken()
        else:
            until = self._held[lowest].span()[0]
            self._missing.hole(range(self._next, lowest), self._last, until)
            self._next = lowest
            self._drain()
        self.want_rebirth(now)

    def _straggler(self, message: Message) -> None:
        """One that was sent before the last birth, whose aliases are not those of now."""
        self._tell_one(message, None, "it came after the birth that followed it")
        self._done.append(message.done)

    def _tell_one(self, message: Message, number: int | None, reason: str, tags: Sequence[str] = ()) -> None:
        """One message is missing, all of it or these tags."""
        name = f"sequence@{number}" if number is not None else f"sequence@{self._next}?{message.digest.hex()}"
        self._missing.tell(name, reason, *message.span(), numbers=(number, number), tags=tags)

    # -- what is said

    def _accept(self, message: Message, number: int | None, *, late: bool = False) -> None:
        payload, kind = message.payload, message.topic.kind
        self._done.append(message.done)
        if number is not None and not late:
            self._next = number + 1
        if number is not None and message.digest:
            self._recent.pop(number % 256, None)
            self._recent[number % 256] = message.digest
        id_ = message.topic.device or ""
        if kind in ("NBIRTH", "DBIRTH"):
            self._born(self.devices.setdefault(id_, Device(id_)), message, number, late=late)
        elif kind == "DDEATH":
            device = self.devices.get(id_)
            if device is not None and not late:  # a birth may have come since a late one
                device.online = False
                self._stale(device, message.sent_at)
        else:
            self._data(id_, message, number, late=late)
        if not late:
            self._last = message.span()[1]
            if any(not metric.historical for metric in payload.metrics):
                self._live = message.span(history=False)[1]

    def _born(self, device: Device, message: Message, number: int | None, *, late: bool) -> None:
        old, device.tags, device.aliases = device.tags, {}, {}
        device.online, device.told = True, False
        told = [metric for metric in message.payload.metrics if metric.name is not None and (device.id or metric.name != BDSEQ)]
        shared: set[int] = set()
        for metric in told:
            name = metric.name or ""
            tag = device.tags[name] = Tag(name, metric.datatype, metric.alias, old[name].last if name in old else None)
            if metric.alias is not None and device.aliases.setdefault(metric.alias, tag) is not tag:
                shared.add(metric.alias)
        for alias in shared:  # nobody can say which metric is meant: what comes by it is told as missing
            del device.aliases[alias]
            _log.warning("Sparkplug: %s/%s: two metrics of its birth share the alias %d", self.producer, device.id, alias)
        self._explain(device, old.values())
        for metric in told:
            self._read(device, device.tags[metric.name or ""], metric, message, number, birth=True, late=late)
        gone = Device(device.id, tags={name: tag for name, tag in old.items() if name not in device.tags})
        self._stale(gone, message.received_at)
        device.since = message.sent_at

    def _data(self, id_: str, message: Message, number: int | None, *, late: bool) -> None:
        device = self.devices.get(id_)
        strange: list[str] = []
        if device is None or not device.online:
            reason = f"the device {id_} gives data before its birth"
        else:
            for metric in message.payload.metrics:
                tag = device.aliases.get(metric.alias) if metric.alias is not None else None
                tag = tag or device.tags.get(metric.name or "")
                if tag is None:
                    strange.append(f"alias {metric.alias}" if metric.alias is not None else metric.name or "")
                else:
                    self._read(device, tag, metric, message, number, late=late)
            if not strange:
                return
            reason = f"{strange[0]} is in no birth"
        self._tell_one(message, number, reason, tuple(f"{self.producer}/{id_}/{one}" for one in strange))
        if reason not in self._unknown and len(self._unknown) < limits.SPARKPLUG_HELD_MAX:
            self._unknown.add(reason)
            self.want_rebirth(message.arrived)

    def _read(
        self, device: Device, tag: Tag, metric: Metric, message: Message, number: int | None, *, birth: bool = False, late: bool = False
    ) -> None:
        if metric.transient:  # it asks not to be kept
            return
        kind = metric.datatype if metric.datatype is not None else tag.type
        quality: Quality
        try:
            value, quality = plain(value_of(metric, tag.type)), quality_of(metric)
        except Refused as error:
            value, quality = None, "bad"
            _log.warning("Sparkplug: %s/%s/%s: %s", self.producer, device.id, tag.name, error)
        at = time_of(metric.timestamp if metric.timestamp is not None else message.payload.timestamp)
        historical = metric.historical or late
        if birth and not historical and tag.last == (value, at, quality):
            return  # a rebirth that repeats what it said before
        self._readings.append(Reading(self._tag(device, tag), value, at, quality, _name(kind), number, historical))
        if not historical:
            tag.last = (value, at, quality)
        if at is not None and not late and not birth:
            self._missing.came(at, message.arrived, live=not historical)

    def _tag(self, device: Device, tag: Tag) -> str:
        return f"{self.producer}/{device.id}/{tag.name}"

    def _stale(self, device: Device, at: datetime) -> None:
        device.since = at
        for tag in device.tags.values():
            if tag.last is not None:
                tag.last, device.told = None, False
                self._readings.append(Reading(self._tag(device, tag), None, at, "bad", _name(tag.type)))

    def _all_stale(self, at: datetime) -> None:
        for device in self.devices.values():
            device.online = False
            self._stale(device, at)

    # -- what is missing

    def _tell_break(self, until: datetime | None, reason: str, last: int | None = None) -> None:
        """The break that the node is in, from the last that was heard; told once without its end if that does not come, and then with it."""
        sequence = self._kind == "sequence"
        first, since = (self._next, self._last) if sequence else (None, self._live)
        last = last if sequence else None
        told = self._missing.tell(f"{self._kind}@{self._next}", reason, since, until, kind=self._kind, numbers=(first, last))
        self._missing.away(told)


_UNCOUNTED = "a birth that was asked for begins the numbers anew: what is missing just before it shows nowhere"
_WHY: dict[Status, str] = {
    "unknown": "nothing is known from before its first birth that was heard",
    "unsure": "its sequence numbers jump, and a birth may be among what is missing",
    "lost": "the connection to its broker was lost, or the host was not running",
    "offline": "the edge node was offline",
    "online": "",
}


def _decoded(name: str, body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"what is remembered as {name} cannot be read ({error}): was it written by another version?") from error


def _table(tags: Iterable[Tag]) -> list[tuple[str, int | None, int | None]]:
    return [(tag.name, tag.type, tag.alias) for tag in tags]


def _all(done: Iterable[Callable[[], None]]) -> None:
    for one in done:
        one()


def _text(at: datetime | None) -> str | None:
    return None if at is None else time_text(at)


_NAMES = {int(kind): kind.name for kind in DataType}


def _name(kind: int | None) -> str:
    return _NAMES.get(kind or 0, "")
