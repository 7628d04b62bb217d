"""One connection to an OPC UA server: asyncua's loop in a thread of ours, and what came over it in a bounded queue.

asyncua's own reconnect, publish loop and subscription objects are not used, because they lose without a word: they confirm messages before
anybody has them, drop items that cannot be made again with a warning, and forget what a republish could not bring. Here a message of
the server is confirmed when what it says is durable, one that is missing is asked for again, and what even so never came is a `Hole`.
"""

import asyncio
import collections
import threading
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from asyncua import Client, ua

from adapters.opcua.browse import Found, browse, in_parts, node_of
from adapters.opcua.items import aware
from adapters.opcua.session import GARBLED, TROUBLE, Session, ended, new, remedy, renew, resumed, started
from adapters.opcua.settings import OpcUaSettings
from events.errors import Unavailable
from hub import limits

_T = TypeVar("_T")
_COUNTS = 2**32 - 1  # sequence numbers: after the last comes 1


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the subscription: its number, the server's time of sending, and the values by item; none: the server says that it is there.

    `more`: the server had more to say at that time. Where it says no time, that is the standard's none (1601), and gaps begin with the last value.
    """

    number: int
    published: datetime
    values: Sequence[tuple[int, Any]]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Hole:
    """Messages that the server does not have any more. `full`: because we could not take them."""

    first: int
    last: int
    full: bool


@dataclass(frozen=True, slots=True)
class Page:
    """What the server kept of a variable: values, where it goes on, and "" or why there is nothing."""

    values: Sequence[Any] = ()
    point: bytes | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """What a server makes of an item: "" or why it does not watch it, how often it looks at best, and how many values it keeps."""

    why: str
    sampling_s: float
    queue: int


class Line:
    """Connected from the end of `open` to `close`. Its methods are called from one other thread; every wait in them is bounded."""

    def __init__(self, settings: OpcUaSettings) -> None:
        self.settings = settings
        self.resumed = False
        self.namespaces: list[str] = []
        self.subscription = 0
        self.discarded = 0  # values that came while nobody had room; they are asked for again
        self._reading = 0  # pages of history that are under way
        self._short = False  # some were, and did not come again yet
        self._started = ""
        self._revised: Any = None
        self._next = 1
        self._came: collections.deque[Message | Hole | Page] = collections.deque()
        self._waiting = 0
        self._change = threading.Condition()
        self._confirm: list[int] = []
        self._failed: Exception | None = None
        self._full = False
        self._client: Client | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"opcua {settings.url}", daemon=True)
        self._thread.start()

    # -- from the other thread ------------------------------------------------------------------------------------------------------------

    def open(self, session: Session | None) -> None:
        """Connect and log in, with the session that is named if the server still has it (`resumed`). Raises `Unavailable`."""
        self._do(self._connect(session), 6 * self.settings.answer_s)

    def browse(self) -> list[Found]:
        """The variables below the starts."""
        return self._do(browse(self._connected(), self.settings, self.namespaces), 60 * self.settings.answer_s)

    def subscribe(self) -> Session:
        """Make a new subscription and forget the one before; it has no items yet."""
        return self._do(self._subscribe(), 3 * self.settings.answer_s)

    def go_on(self) -> None:
        """Begin to receive."""
        self._do(self._start(), self.settings.answer_s)

    def monitor(self, items: Sequence[tuple[int, str]]) -> list[Watched]:
        """Let the server watch nodes (number of the item, node id)."""
        return self._do(self._monitor(items), 60 * self.settings.answer_s)

    def history(self, node: str, since: datetime, until: datetime, limit: int, point: bytes | None) -> Page:
        """What the server kept of a node, both ends included. Raises `Unavailable` where the line is lost."""
        return self._do(self._history(node, since, until, limit, point, self.settings.answer_s), 2 * self.settings.answer_s)

    def ask(self, node: str, since: datetime, until: datetime, limit: int, point: bytes | None) -> None:
        """The same, given out by `take` when it is there. One at a time."""
        self._loop.call_soon_threadsafe(self._run, "ask", self._answer(node, since, until, limit, point))

    def server(self) -> tuple[str, datetime, datetime]:
        """The server's name and version, its clock, and ours at about the same moment."""
        return self._do(self._server(), 2 * self.settings.answer_s)

    def take(self, wait_s: float) -> Message | Hole | Page | None:
        """What came next; None after a while. What came before the line was lost is given out first. Raises `Unavailable`."""
        with self._change:
            if not self._came and self._failed is None and wait_s > 0:
                self._change.wait_for(lambda: bool(self._came) or self._failed is not None, wait_s)
            if self._came:
                found = self._came.popleft()
                self._waiting -= len(found.values) if isinstance(found, Message) else 0
                if self._full and self._waiting < limits.OPCUA_WAITING_MAX // 2:
                    self._full = False
                    self._loop.call_soon_threadsafe(self._room.set)
                return found
            if self._failed is not None:
                raise self._unavailable(self._failed)
            return None

    def confirm(self, subscription: int, number: int) -> None:
        """The server may forget a message: what it said is durable. One of a subscription that is over says nothing."""
        with self._change:
            if subscription == self.subscription:
                self._confirm.append(number)

    def session(self) -> Session:
        """How to go on after the next message that is not taken yet, which the caller corrects to what it has made durable."""
        client = self._connected()
        token = client.uaclient.session.authentication_token.to_string()
        return Session(token, client._server_nonce or b"", self.subscription, self._started, self._next)

    def close(self, *, end: bool = False) -> None:
        """Drop the connection; the server keeps session and subscription for a while, unless this is to `end` them."""
        if not self._thread.is_alive():
            return
        try:
            self._do(self._disconnect(end), 2 * self.settings.answer_s)
        except Unavailable:
            pass  # it is gone already
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        if not self._thread.is_alive():
            self._loop.close()

    def _do(self, work: Coroutine[Any, Any, _T], wait_s: float) -> _T:
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result(wait_s)
        except TimeoutError as error:
            waiting.cancel()
            raise Unavailable(f"the OPC UA server {self.settings.url} does not answer: look at it and at the line to it") from error
        except TROUBLE as error:
            raise self._unavailable(error) from error

    def _connected(self) -> Client:
        if self._client is None:
            raise Unavailable(f"the OPC UA server {self.settings.url} is not connected")
        return self._client

    def _unavailable(self, error: Exception | asyncio.CancelledError) -> Unavailable:
        return Unavailable(f"the OPC UA server {self.settings.url} {remedy(error, self.settings)}")

    # -- in the loop's thread: connecting ---------------------------------------------------------------------------------------------------

    async def _connect(self, session: Session | None) -> None:
        client = await new(self.settings)
        try:
            self._started = await started(client)
            if (
                session
                and session.started == self._started
                and (found := await resumed(self.settings, session, client, self._modification(session.subscription)))
            ):
                await ended(client)
                client, self._revised = found
                self.subscription, self._next, self.resumed = session.subscription, session.next, True
            self.namespaces = await client.get_namespace_array()
        except BaseException:
            client.disconnect_socket()
            raise
        self._client = client
        self._run("renew", self._renew(client))

    async def _renew(self, client: Client) -> None:
        """New keys for the channel before the old ones are too old."""
        while True:
            await asyncio.sleep(client.secure_channel_timeout * 0.75 / 1000)
            try:
                await renew(client)
            except Exception as error:  # noqa: BLE001 as in _receive
                self._fail(error)
                return

    async def _disconnect(self, end: bool) -> None:
        client, self._client = self._client, None
        if client is not None:
            await ended(client) if end else client.disconnect_socket()
        await self._stop(*self._tasks)

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.create_task(work)

    async def _stop(self, *names: str) -> None:
        tasks = [self._tasks.pop(name) for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- in the loop's thread: the subscription ------------------------------------------------------------------------------------------------

    def _modification(self, subscription: int) -> ua.ModifySubscriptionParameters:
        ask = self._parameters()
        return ua.ModifySubscriptionParameters(
            SubscriptionId=subscription,
            RequestedPublishingInterval=ask.RequestedPublishingInterval,
            RequestedLifetimeCount=ask.RequestedLifetimeCount,
            RequestedMaxKeepAliveCount=ask.RequestedMaxKeepAliveCount,
            MaxNotificationsPerPublish=ask.MaxNotificationsPerPublish,
            Priority=ask.Priority,
        )

    def _parameters(self) -> ua.CreateSubscriptionParameters:
        s = self.settings
        alive = max(1, round(s.keep_alive_s / s.publishing_s))
        return ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=1000.0 * s.publishing_s,
            RequestedLifetimeCount=max(3 * alive, round((s.outage_s + 30) / s.publishing_s)),
            RequestedMaxKeepAliveCount=alive,
            MaxNotificationsPerPublish=limits.OPCUA_WAITING_MAX // 4,
            PublishingEnabled=True,
            Priority=0,
        )

    async def _subscribe(self) -> Session:
        session = self._connected().uaclient.session
        await self._stop("receive")
        if self.subscription:
            try:
                await session.delete_subscriptions([self.subscription])
            except ua.UaError:
                pass  # the server has forgotten it
        request = ua.CreateSubscriptionRequest()  # the session's own method would begin to receive, and confirm, by itself
        request.Parameters = self._parameters()
        data = await session._send_request(request)
        response = ua.ua_binary.struct_from_binary(ua.CreateSubscriptionResponse, data)
        response.ResponseHeader.ServiceResult.check()
        with self._change:
            self.subscription, self._next = response.Parameters.SubscriptionId, 1
            self._came = collections.deque(one for one in self._came if isinstance(one, Page))
            self._confirm.clear()
            self._waiting, self._full = 0, False
        self._revised = response.Parameters
        return self.session()

    async def _start(self) -> None:
        self._run("receive", self._receive())

    async def _monitor(self, items: Sequence[tuple[int, str]]) -> list[Watched]:
        results = await in_parts(items, lambda part: self._watch(part, self.settings.dead_band))
        if self.settings.dead_band is not None:  # only numbers can have one
            again = [n for n, result in enumerate(results) if not result.StatusCode.is_good()]
            for n, result in zip(again, await in_parts([items[n] for n in again], lambda part: self._watch(part, None)), strict=True):
                results[n] = result
        return [
            Watched(
                "" if result.StatusCode.is_good() else str(result.StatusCode.name),
                result.RevisedSamplingInterval / 1000,
                int(result.RevisedQueueSize),
            )
            for result in results
        ]

    async def _watch(self, items: Sequence[tuple[int, str]], dead_band: float | None) -> list[Any]:
        params = ua.CreateMonitoredItemsParameters(SubscriptionId=self.subscription, TimestampsToReturn=ua.TimestampsToReturn.Both)
        params.ItemsToCreate = [self._item(number, node, dead_band) for number, node in items]
        found: list[Any] = await self._connected().uaclient.session.create_monitored_items(params)
        return found

    def _item(self, number: int, node: str, dead_band: float | None) -> ua.MonitoredItemCreateRequest:
        s = self.settings
        asked = ua.MonitoringParameters(
            ClientHandle=number, SamplingInterval=1000.0 * s.sampling_s, QueueSize=s.queue_size, DiscardOldest=True
        )
        if dead_band is not None:
            asked.Filter = ua.DataChangeFilter(
                Trigger=ua.DataChangeTrigger.StatusValue, DeadbandType=int(ua.DeadbandType.Absolute), DeadbandValue=dead_band
            )
        watched = ua.ReadValueId(NodeId=node_of(node, self.namespaces), AttributeId=ua.AttributeIds.Value)
        return ua.MonitoredItemCreateRequest(ItemToMonitor=watched, MonitoringMode=ua.MonitoringMode.Reporting, RequestedParameters=asked)

    @property
    def silent_s(self) -> float:
        """A server that says nothing for so long is not there, whatever the socket says."""
        revised = self._revised
        return float(3 * revised.RevisedPublishingInterval / 1000 * max(1, revised.RevisedMaxKeepAliveCount) + 2)

    async def _receive(self) -> None:
        """Ask for messages for ever. What fails is told to whoever takes."""
        session = self._connected().uaclient.session
        try:
            while True:
                with self._change:
                    confirmed, self._confirm = self._confirm, []
                acks = [ua.SubscriptionAcknowledgement(SubscriptionId=self.subscription, SequenceNumber=n) for n in confirmed]
                result = (await self._heard(session.publish(acks))).Parameters
                if result.SubscriptionId == self.subscription:
                    await self._arrived(result)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 the library raises of all kinds; nothing that ends this loop may go unheard
            self._fail(error)

    async def _heard(self, publish: Coroutine[Any, Any, Any]) -> Any:
        """The answer. Some servers do one thing after the other: that they say nothing while they look for history does not count."""
        waiting = asyncio.ensure_future(publish)
        try:
            while not waiting.done():
                reading = self._reading
                await asyncio.wait([waiting], timeout=self.silent_s)
                if not waiting.done() and not (reading or self._reading):
                    raise TimeoutError
            return waiting.result()
        finally:
            waiting.cancel()

    async def _arrived(self, result: Any) -> None:
        """A message, or a sign of life that bears the number of the message to come: what is missing before it is asked for again."""
        message = result.NotificationMessage
        number, data = int(message.SequenceNumber), message.NotificationData
        if data and (ended := [one for one in data if isinstance(one, ua.StatusChangeNotification)]):
            raise ua.UaStatusCodeError(ended[0].Status.value)
        missing = (number - self._next) % _COUNTS
        if missing > _COUNTS // 2:
            return  # it came already
        available = set(result.AvailableSequenceNumbers or ())
        while self._next != number:
            if await self._is_full():
                self._short = True
                return
            keeps = missing <= limits.OPCUA_REPUBLISH_MAX and (not available or self._next in available)
            again = await self._again(self._next) if keeps else None
            if again is None:
                self._put(Hole(self._next, _before(number), self._short))
                self._next = number
            else:
                self._message(again, True)
        self._short = False
        if not data:
            self._put(Message(_before(number), aware(message.PublishTime), ()))
        elif await self._is_full():
            self._short = True
            self.discarded += sum(len(one.MonitoredItems) for one in data if isinstance(one, ua.DataChangeNotification))
        else:
            self._message(message, bool(result.MoreNotifications))

    async def _again(self, number: int) -> Any:
        """A message that the server keeps; None when it has it no more (some say so with an empty one), or it cannot be read, now or ever."""
        try:
            found = await self._connected().uaclient.session.republish(self.subscription, number)
        except (ua.UaError, *GARBLED):
            return None
        return found if int(found.SequenceNumber) == number else None

    async def _is_full(self) -> bool:
        """Whether there is no room for more, after waiting for it as long as the server may be left alone."""
        if self._waiting < limits.OPCUA_WAITING_MAX:
            return False
        with self._change:
            self._full = True
            self._room.clear()
        try:
            await asyncio.wait_for(self._room.wait(), self.settings.keep_alive_s)
        except TimeoutError:
            return True
        return False

    def _message(self, message: Any, more: bool) -> None:
        values = [
            (int(item.ClientHandle), item.Value)
            for data in message.NotificationData
            if isinstance(data, ua.DataChangeNotification)
            for item in data.MonitoredItems
        ]
        self._put(Message(int(message.SequenceNumber), aware(message.PublishTime), values, more))
        self._next = int(message.SequenceNumber) % _COUNTS + 1

    def _put(self, came: Message | Hole | Page) -> None:
        with self._change:
            if _alive(came) and self._came and _alive(self._came[-1]):
                self._came.pop()  # only the last sign of life counts
            self._came.append(came)
            self._waiting += len(came.values) if isinstance(came, Message) else 0
            self._change.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._change:
            self._failed = self._failed or error
            self._change.notify_all()

    # -- in the loop's thread: asking ---------------------------------------------------------------------------------------------------------

    async def _answer(self, node: str, since: datetime, until: datetime, limit: int, point: bytes | None) -> None:
        try:
            self._put(await self._history(node, since, until, limit, point, limits.OPCUA_HISTORY_ANSWER_S))
        except OSError as error:
            self._fail(error)

    async def _history(self, node: str, since: datetime, until: datetime, limit: int, point: bytes | None, wait_s: float) -> Page:
        session = self._connected().uaclient.session
        details = ua.ReadRawModifiedDetails(IsReadModified=False, StartTime=since, EndTime=until, NumValuesPerNode=limit, ReturnBounds=True)
        request = ua.HistoryReadRequest()  # the session's own method waits no longer for an answer than for any other
        self._reading += 1
        try:
            request.Parameters = ua.HistoryReadParameters(
                HistoryReadDetails=details,
                TimestampsToReturn=ua.TimestampsToReturn.Both,
                ReleaseContinuationPoints=False,
                NodesToRead=[ua.HistoryReadValueId(NodeId=node_of(node, self.namespaces), ContinuationPoint=point)],
            )
            data = await session._send_request(request, wait_s)
            response = ua.ua_binary.struct_from_binary(ua.HistoryReadResponse, data)
            (result,) = response.Results
        except TimeoutError:
            return Page(why=f"no answer within {wait_s:g} s")
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 as in _receive: it must not hold up what comes
            return Page(why=type(error).__name__)
        finally:
            self._reading -= 1
        if not result.StatusCode.is_good():
            return Page(why=str(result.StatusCode.name))
        return Page(
            [one for one in getattr(result.HistoryData, "DataValues", None) or () if one is not None], result.ContinuationPoint or None
        )

    async def _server(self) -> tuple[str, datetime, datetime]:
        client = self._connected()
        begun, wall = time.monotonic(), datetime.now(UTC)
        status = await client.get_node(ua.NodeId(ua.ObjectIds.Server_ServerStatus)).read_value()
        ours = wall + timedelta(seconds=(time.monotonic() - begun) / 2)
        build = status.BuildInfo
        name = " ".join(part for part in (build.ManufacturerName, build.ProductName, build.SoftwareVersion) if part)
        return name or "unnamed", aware(status.CurrentTime), ours


def _alive(came: Message | Hole | Page) -> bool:
    return isinstance(came, Message) and not came.values


def _before(number: int) -> int:
    return number - 1 if number > 1 else _COUNTS
