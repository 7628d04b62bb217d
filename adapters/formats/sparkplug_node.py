"""One edge node as a host application sees it: births, deaths, order, aliases, what is stale, what is missing. Pure: messages and times in, readings out.

Its messages are numbered from the first that was heard on: a number goes up by one with each, its remainder by 256 is the `seq` on the wire, and
each birth begins at the next number with that remainder. So a number names one message for ever, which `seq` does not.
What must outlive a kill goes out with the readings it belongs to (`Observed.memory`) and comes back to `remember`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

import msgspec

from adapters.formats.sparkplug import BDSEQ, Metric, Payload, Topic, plain, value_of
from adapters.formats.sparkplug_values import DataType
from events.errors import Corrupt, Refused
from hub import limits
from hub.intake.readings import Filled, Gap, GapKind, Observed, Quality, Reading

_log = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RECENT = 64  # messages that are known again when they come once more: more than a publisher has in flight
_T = TypeVar("_T")
Status = Literal["unknown", "online", "unsure", "lost", "offline"]


@dataclass(slots=True, eq=False)
class Message:
    """One message of an edge node. `digest` tells its bytes from others', `size` is their number, `done` acknowledges it."""

    topic: Topic
    payload: Payload
    received_at: datetime
    size: int = 0
    digest: bytes = b""
    done: Callable[[], None] = lambda: None
    arrived: float = 0.0  # monotonic


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
    tags: dict[str, Tag] = field(default_factory=dict)
    aliases: dict[int, Tag] = field(default_factory=dict)
    told: bool = True  # what is remembered of it is up to date


class _Open(msgspec.Struct, array_like=True):
    """A disconnected time that history may fill, and how far it did."""

    id: str
    since: datetime | None
    until: datetime
    low: datetime | None = None
    high: datetime | None = None
    rest: bool = False  # what a history left that may not be over
    live: bool = False  # it was no history that came


class _Memory(msgspec.Struct, array_like=True):
    status: Status
    bd: int | None
    next: int
    last: datetime | None
    live: datetime | None
    kind: GapKind
    recent: list[tuple[int, bytes]]
    gaps: list[_Open]
    devices: list[str]


class _DeviceMemory(msgspec.Struct, array_like=True):
    fresh: bool  # a reading of it is not stale
    tags: list[tuple[str, int | None, int | None]]


@dataclass(slots=True)
class _Hole:
    gap: Gap
    missing: set[int]


class EdgeNode:
    """The state of one edge node. `take` and `expire` feed it, `collect` empties it; `rebirth` is True when one is to be asked for."""

    def __init__(self, host: str, group: str, node: str, *, reorder_s: float, reach_s: float, asks: bool = True) -> None:
        self.group, self.node, self.producer = group, node, f"{group}/{node}"
        self.memory = f"sparkplug/{host}/{group}/{node}"
        self._reorder_s, self._reach, self._asks = reorder_s, timedelta(seconds=reach_s), asks
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
        self._gaps: list[_Open] = []
        self._holes: list[_Hole] = []  # numbers given up in this session, which may still come
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
        self._history_s: float | None = None  # monotonic; when history came last
        self._readings: list[Reading] = []
        self._told: list[Gap] = []
        self._filled: list[Filled] = []
        self._done: list[Callable[[], None]] = []
        self._heard: datetime | None = None
        self._refusals: set[str] = set()

    # -- in and out

    def remember(self, remembered: Callable[[str], bytes | None], now: float) -> bool:
        """Be what was made durable last; False if nothing was. A node that was online is lost until it is heard again."""
        said = remembered(self.memory)
        if said is None:
            return False
        known = _decoded(self.memory, said, _Memory)
        self.status, self._bd, self._next, self._last, self._live = known.status, known.bd, known.next, known.last, known.live
        self._kind, self._recent, self._gaps = known.kind, dict(known.recent), known.gaps
        self._history_s = now if any(gap.low or gap.rest for gap in known.gaps) else None
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
            for pending in self._pending.values():
                self._unexplained(pending, "the birth of its device did not come")
            self._pending = {}
        if self._owed and now >= self._ask_s:
            self.want_rebirth(now)
        if self._history_s is not None and now >= self._history_due():
            self._close_filled()
            if now >= self._history_s + limits.SPARKPLUG_HISTORY_QUIET_S:
                self._history_over()

    def due(self) -> float | None:
        """When `expire` has something to do next, monotonic."""
        times = [self._restate_s, self._ask_s if self._owed else None]
        times += [min(m.arrived for m in self._held.values()) + self._reorder_s] if self._held else []
        times += [self._unborn_s + limits.SPARKPLUG_REBIRTH_FIRST_S] if self._unborn_s is not None and not self._unborn_told else []
        times += [self._history_due()] if self._history_s is not None else []
        return min((time for time in times if time is not None), default=None)

    def lost(self, at: datetime, now: float) -> None:
        """Nothing can be heard of it any more: our connection to its broker is gone. Its values are stale (`at`, the host's clock)."""
        self._heard = at
        while self._held and self.status == "online":
            self._give_up(now)
        if self.status in ("online", "unsure"):
            self.status, self._kind = "lost", "disconnected"
            self._close_filled()
            self._all_stale(at)
        self._await_birth(None)

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
        if not (self._readings or self._told or self._filled or self._done):
            return None
        done, self._done = self._done, []
        observed = Observed(
            self.producer, self._heard or datetime.now(UTC), self._readings, self._told, self._filled, self._memory(), lambda: _all(done)
        )
        self._readings, self._told, self._filled = [], [], []
        return observed

    def _memory(self) -> Mapping[str, bytes]:
        recent = list(self._recent.items())[-_RECENT:]
        live = self._pending_since if self._pending else self._live
        said = _Memory(self.status, self._bd, self._next, self._last, live, self._kind, recent, self._gaps, [*self.devices])
        memory = {self.memory: msgspec.msgpack.encode(said)}
        for device in self.devices.values():
            if not device.told:
                tags, fresh = (
                    [(tag.name, tag.type, tag.alias) for tag in device.tags.values()],
                    any(tag.last for tag in device.tags.values()),
                )
                memory[f"{self.memory}/{device.id}"] = msgspec.msgpack.encode(_DeviceMemory(fresh, tags))
                device.told = True
        return memory

    # -- births and deaths of the node

    def _nbirth(self, message: Message, now: float) -> None:
        payload, was = message.payload, self.status
        if was == "online" and message.digest in (self._recent.get(payload.seq or 0), self._before.get(payload.seq or 0)):
            self._done.append(message.done)
            return
        bd, sent, early = _bdseq(payload), payload.timestamp, [*self._early, *(self._held[number] for number in sorted(self._held))]
        after = [m for m in early if sent is not None and m.payload.timestamp is not None and m.payload.timestamp >= sent]
        self._held = {n: m for n, m in self._held.items() if m not in after}
        while self._held and self.status == "online":
            self._give_up(now)
        if self.status == "online" and bd != self._bd:
            self._close_filled()
            self._tell_break(_time(sent) or message.received_at, "the edge node began a new session, and its death was not heard")
        elif self.status == "online" and self._owed:
            self._tell_break(_time(sent) or message.received_at, _UNCOUNTED)
        elif self.status != "online":
            self._after_break(message, bd, [m for m in early if m not in after])
        rebirth = was == "online" and bd == self._bd
        self.status, self._bd, self._born_ms, self._kind, self._dropped = "online", bd, sent, "disconnected", False
        self._born_s, self._ask_s, self._wait_s = now, 0.0, limits.SPARKPLUG_REBIRTH_FIRST_S
        self._await_birth(None)
        number = self._next + ((payload.seq or 0) - self._next) % 256
        self._next, self._before, self._recent, self._holes, self._early, self._held = number, self._recent, {}, [], [], {}
        for device in self.devices.values():
            if device.id:
                device.online = False
                if not rebirth:
                    self._stale(device, message.received_at)
        self._restate_s = now + limits.SPARKPLUG_REBIRTH_FIRST_S if (rebirth and len(self.devices) > 1) or self._pending else None
        self._accept(message, number)
        for one in sorted(after, key=lambda m: (m.payload.seq or 0) - (payload.seq or 0)):
            self._sequenced(one, now)

    def _after_break(self, message: Message, bd: int | None, early: list[Message]) -> None:
        """Tell the break that a birth ends. What came before the birth in the same session is kept, for the births to explain."""
        until, last = _time(message.payload.timestamp) or message.received_at, None
        known, since = self._next > 0 or self._last is not None, self._live
        if early and self.status != "offline" and (bd == self._bd or self._bd is None):
            first = _lowest([one.payload.seq for one in early if one.payload.seq is not None])
            until = min(self._span(one)[0] for one in early if one.payload.seq in (None, first))
            start = self._next + (first - self._next) % 256 if known else first % 256
            last = start - 1
        else:
            self._let_go(early)
            early, start = [], self._next
        if known or self._dropped:
            self._tell_break(until, _WHY[self.status], last)
        self._next, seen = start, set[bytes]()
        for one in sorted(early, key=lambda m: (0 if m.payload.seq is None else m.payload.seq - start) % 256):
            number = None if one.payload.seq is None else start + (one.payload.seq - start) % 256
            if one.digest and one.digest in seen:
                self._done.append(one.done)
                continue
            seen.add(one.digest)
            if number is not None:
                if number > self._next:
                    self._tell_hole(range(self._next, number), self._last, self._span(one)[0], "its sequence numbers jump")
                self._next, self._last = number + 1, self._span(one)[1]
                self._recent[number % 256] = one.digest
            self._pending.setdefault(one.topic.device or "", []).append((number, one))
        self._pending_since = since
        if self._pending and (known or self._holes):  # something was missing already
            self._live, self._kind = max(self._span(one)[1] for one in early), "disconnected"
            self._tell_break(_time(message.payload.timestamp) or message.received_at, _UNCOUNTED)

    def _unexplained(self, pending: Iterable[tuple[int | None, Message]], reason: str) -> None:
        """Messages that no birth explains: they are told as missing."""
        for number, message in pending:
            self._done.append(message.done)
            named = f"{number}" if number is not None else f"{self._next}?{message.digest.hex()}"
            since, until = self._span(message)
            self._told.append(Gap(f"{self.memory}/sequence@{named}", self.producer, "sequence", reason, number, number, since, until))

    def _explain(self, device: Device, old: Iterable[Tag]) -> None:
        """Take what came before this birth, as far as the birth before that told the same metrics."""
        table = [(tag.name, tag.type, tag.alias) for tag in device.tags.values()]
        before = [(tag.name, tag.type, tag.alias) for tag in old]
        same = not before or before == table
        for number, message in self._pending.pop(device.id, []):
            if message.topic.kind == "DBIRTH":
                same = [(m.name, m.datatype, m.alias) for m in message.payload.metrics if m.name is not None] == table
            if not same:
                self._unexplained([(number, message)], "it came before a birth that tells other metrics than the one before")
                continue
            self._done.append(message.done)
            if message.topic.kind == "DDEATH":
                self._stale(device, _time(message.payload.timestamp) or message.received_at)
            elif message.topic.kind == "DBIRTH":
                for metric in message.payload.metrics:
                    if metric.name is not None:
                        self._read(device, device.tags[metric.name], metric, message, number, birth=True)
            else:
                self._data(device.id, message, number, late=False)

    def _ndeath(self, message: Message) -> None:
        self._done.append(message.done)
        if self.status in ("unknown", "offline") or _bdseq(message.payload) != self._bd:
            return  # of a session that is over, or of one that we know nothing of
        while self._held and self.status == "online":
            self._give_up(message.arrived)
        self.status, self._kind = "offline", "disconnected"
        self._close_filled()
        self._all_stale(message.received_at)
        self._await_birth(None)
        self._let_go(self._early)
        self._early = []

    def _unborn(self, message: Message, now: float) -> None:
        if self._recent.get(message.payload.seq or 0) == message.digest:
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

    def _let_go(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._dropped = True
            self._done.append(message.done)

    # -- order

    def _sequenced(self, message: Message, now: float) -> None:
        seq = message.payload.seq
        if seq is None:
            self._accept(message, None)  # it cannot be told where it belongs
            return
        seq %= 256
        if message.digest and message.digest in (self._recent.get(seq), self._before.get(seq)):
            self._done.append(message.done)
            return
        number, sent = self._next + (seq - self._next) % 256, message.payload.timestamp
        older = self._born_ms is not None and sent is not None and sent < self._born_ms
        older = older and not any(metric.historical for metric in message.payload.metrics)  # some stamp history with its own time
        if older and now <= self._born_s + self._reorder_s:  # later, it is the node's clock that went back
            self._straggler(message)
        elif number == self._next:
            self._accept(message, number)
            self._drain()
        elif hole := next((hole for hole in self._holes if number - 256 in hole.missing), None):
            self._late(message, number - 256, hole)
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

    def _drain(self) -> None:
        while (message := self._held.pop(self._next, None)) is not None:
            self._accept(message, self._next)

    def _give_up(self, now: float) -> None:
        """What is before the first held message will not come. A birth may have been among it: then nothing after it can be understood."""
        lowest = min(self._held)
        if (self._next - 1) // 256 != (lowest - 1) // 256:  # a number that is 0 on the wire
            self._early = [self._held[number] for number in sorted(self._held)]
            self._held, self.status, self._kind = {}, "unsure", "sequence"
            self._close_filled()
        else:
            until = self._span(self._held[lowest])[0]
            self._tell_hole(range(self._next, lowest), self._last, until, "its sequence numbers jump")
            self._next = lowest
            self._drain()
        self.want_rebirth(now)

    def _tell_hole(self, numbers: range, since: datetime | None, until: datetime | None, reason: str) -> None:
        id_ = f"{self.memory}/sequence@{numbers[0]}-{numbers[-1]}"
        gap = Gap(id_, self.producer, "sequence", reason, numbers[0], numbers[-1], since, until)
        self._told.append(gap)
        self._holes.append(_Hole(gap, set(numbers)))

    def _late(self, message: Message, number: int, hole: _Hole) -> None:
        """One came after it was given up: what is left of its gap is told anew."""
        self._holes.remove(hole)
        self._filled.append(Filled(hole.gap.id, self.producer, "late"))
        low, high = self._span(message)
        first, last = hole.gap.first or 0, hole.gap.last or 0
        if number > first:
            self._tell_hole(range(first, number), hole.gap.since, low, hole.gap.reason)
        if number < last:
            self._tell_hole(range(number + 1, last + 1), high, hole.gap.until, hole.gap.reason)
        self._accept(message, number, late=True)

    def _straggler(self, message: Message) -> None:
        """One that was sent before the last birth, whose aliases are not those of now."""
        since, until = self._span(message)
        id_ = f"{self.memory}/sequence@{self._next}<{message.digest.hex()}"
        self._told.append(Gap(id_, self.producer, "sequence", "it came after the birth that followed it", since=since, until=until))
        self._done.append(message.done)

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
                self._stale(device, _time(payload.timestamp) or message.received_at)
        else:
            self._data(id_, message, number, late=late)
        if not late:
            self._last = self._span(message)[1]
            if any(not metric.historical for metric in payload.metrics):
                self._live = self._span(message, history=False)[1]

    def _born(self, device: Device, message: Message, number: int | None, *, late: bool) -> None:
        old, device.tags, device.aliases = device.tags, {}, {}
        device.online, device.told = True, False
        told = [metric for metric in message.payload.metrics if metric.name is not None and (device.id or metric.name != BDSEQ)]
        for metric in told:
            name = metric.name or ""
            tag = device.tags[name] = Tag(name, metric.datatype, metric.alias, old[name].last if name in old else None)
            if metric.alias is not None:
                device.aliases[metric.alias] = tag
        self._explain(device, old.values())
        for metric in told:
            self._read(device, device.tags[metric.name or ""], metric, message, number, birth=True, late=late)
        gone = Device(device.id, tags={name: tag for name, tag in old.items() if name not in device.tags})
        self._stale(gone, message.received_at)

    def _data(self, id_: str, message: Message, number: int | None, *, late: bool) -> None:
        device, unknown, what = self.devices.get(id_), "", ""
        if device is None or not device.online:
            unknown = f"the device {id_} gives data before its birth"
        else:
            for metric in message.payload.metrics:
                tag = device.aliases.get(metric.alias) if metric.alias is not None else device.tags.get(metric.name or "")
                if tag is None:
                    what = f"alias {metric.alias}" if metric.alias is not None else metric.name or ""
                    unknown = f"{what} is in no birth"
                else:
                    self._read(device, tag, metric, message, number, late=late)
        if unknown:
            since, until = self._span(message)
            named = f"{number}" if number is not None else f"{self._next}?{message.digest.hex()}"
            gap = f"{self.memory}/sequence@{named}"
            about = (f"{self.producer}/{id_}/{what}",) if what else ()
            self._told.append(Gap(gap, self.producer, "sequence", unknown, number, number, since, until, about))
            self.want_rebirth(message.arrived)

    def _read(
        self, device: Device, tag: Tag, metric: Metric, message: Message, number: int | None, *, birth: bool = False, late: bool = False
    ) -> None:
        if metric.transient:  # it asks not to be kept
            return
        kind = metric.datatype if metric.datatype is not None else tag.type
        quality: Quality
        try:
            value, quality = plain(value_of(metric, tag.type)), _quality(metric)
        except Refused as error:
            value, quality = None, "bad"
            self._refuse(f"{self.producer}/{device.id}/{tag.name}: {error}")
        at = _time(metric.timestamp if metric.timestamp is not None else message.payload.timestamp)
        historical = metric.historical or late
        if birth and not historical and tag.last == (value, at, quality):
            return  # a rebirth that repeats what it said before
        name = f"{self.producer}/{device.id}/{tag.name}"
        self._readings.append(Reading(name, value, at, quality, _name(kind), number, historical))
        if not historical:
            tag.last = (value, at, quality)
        if at is not None and not late and not birth and self._gaps and at < self._gaps[-1].until:
            self._history(at, message.arrived, live=not historical)  # that was said before the birth, and sent after it

    def _stale(self, device: Device, at: datetime | None) -> None:
        for tag in device.tags.values():
            if tag.last is not None:
                tag.last, device.told = None, False
                self._readings.append(Reading(f"{self.producer}/{device.id}/{tag.name}", None, at, "bad", _name(tag.type)))

    def _all_stale(self, at: datetime) -> None:
        for device in self.devices.values():
            device.online = False
            self._stale(device, at)

    def _refuse(self, text: str) -> None:
        if len(self._refusals) < 100 and text not in self._refusals:
            self._refusals.add(text)
            _log.warning("Sparkplug: %s", text)

    # -- what is missing

    def _tell_break(self, until: datetime | None, reason: str, last: int | None = None) -> None:
        """The break that the node is in, from the last that was heard; told once without its end if that does not come, and then with it."""
        sequence = self._kind == "sequence"
        first, since = (self._next, self._last) if sequence else (None, self._live)
        last = last if sequence else None
        id_ = f"{self.memory}/{'sequence' if sequence else 'disconnected'}@{self._next}"
        self._told.append(Gap(id_, self.producer, "sequence" if sequence else "disconnected", reason, first, last, since, until))
        if until is not None:
            self._gaps = [*self._gaps, _Open(id_, since, until)][-limits.SPARKPLUG_GAPS_MAX :]

    def _history(self, at: datetime, now: float, *, live: bool) -> None:
        for gap in self._gaps:
            if (gap.since is None or gap.since < at) and at < gap.until:
                gap.low = at if gap.low is None else min(gap.low, at)
                gap.high = at if gap.high is None else max(gap.high, at)
                gap.live = gap.live or live
                self._history_s = now

    def _history_due(self) -> float:
        filling = any(gap.low is not None for gap in self._gaps)
        return (self._history_s or 0.0) + (limits.SPARKPLUG_HISTORY_PAUSE_S if filling else limits.SPARKPLUG_HISTORY_QUIET_S)

    def _close_filled(self) -> None:
        """Tell what history has filled; what it left of a gap, before it and after it, is told anew. More of it may come."""
        for gap in [gap for gap in self._gaps if gap.low is not None]:
            self._gaps.remove(gap)
            self._filled.append(Filled(gap.id, self.producer, "late" if gap.live else "history"))
            if gap.low is not None and gap.since is not None and gap.low - gap.since > self._reach:
                reason = "the edge node's history begins later than what was heard last"
                self._told.append(Gap(f"{gap.id}<", self.producer, "history", reason, since=gap.since, until=gap.low))
            if gap.high is not None and gap.high < gap.until:
                rest = _Open(f"{gap.id}>", gap.high, gap.until, rest=not gap.live)
                self._told.append(
                    Gap(rest.id, self.producer, "history", "the edge node's history is not over", since=rest.since, until=rest.until)
                )
                self._gaps.append(rest)

    def _history_over(self) -> None:
        """No more history came, and live data goes on: after what came there was nothing."""
        self._history_s = None
        for gap in [gap for gap in self._gaps if gap.rest]:
            self._gaps.remove(gap)
            self._filled.append(Filled(gap.id, self.producer, "history"))

    def _span(self, message: Message, *, history: bool = True) -> tuple[datetime, datetime]:
        """The first and last time in a message, by the node's clock where it gives one; of a birth, when it was sent."""
        metrics = () if message.topic.kind in ("NBIRTH", "DBIRTH") else message.payload.metrics
        times = [at for m in metrics if (history or not m.historical) and (at := _time(m.timestamp)) is not None]
        sent = _time(message.payload.timestamp) or message.received_at
        return (min(times), max(times)) if times else (sent, sent)


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


def _all(done: Iterable[Callable[[], None]]) -> None:
    for one in done:
        one()


def _lowest(seqs: list[int]) -> int:
    """The number that the others follow, of some that are close together on the circle of 256."""
    circle = sorted({seq % 256 for seq in seqs}) or [0]
    return max((((one - before) % 256 or 256, one) for before, one in zip([circle[-1], *circle], circle, strict=False)))[1]


def _time(ms: int | None) -> datetime | None:
    """A time of the wire; None where there is none, or none that a calendar has."""
    try:
        return None if ms is None else _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return None


_NAMES = {int(kind): kind.name for kind in DataType}


def _name(kind: int | None) -> str:
    return _NAMES.get(kind or 0, "")


def _bdseq(payload: Payload) -> int | None:
    for metric in payload.metrics:
        if metric.name == BDSEQ and metric.held is not None and isinstance(metric.held[1], int):
            return metric.held[1]
    return None


def _quality(metric: Metric) -> Quality:
    """The quality code of the property `Quality`: 0 bad, 192 good, 500 stale; as in OPC, 64 to 191 are uncertain."""
    said = metric.properties.get("Quality")
    if said is None or isinstance(said.value, bool) or not isinstance(said.value, int):
        return "good"
    return "good" if 192 <= said.value < 256 else "uncertain" if 64 <= said.value < 192 else "bad"
