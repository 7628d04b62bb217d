"""One connection to an OPC UA server: asyncua's loop in a thread of ours, and what came over it in a bounded queue.

asyncua's own reconnect, publish loop and subscription objects are not used, because they lose without a word: they confirm messages before
anybody has them, drop items that cannot be made again with a warning, and forget what a republish could not bring. Here a message of
the server is confirmed when what it says is durable, one that is missing is asked for again, and what even so never came is a `Hole`.
"""

import asyncio
import collections
import ssl
import struct
import threading
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from asyncua import Client, ua
from asyncua.crypto import uacrypto
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from adapters.opcua.browse import Found, browse, node_of
from adapters.opcua.settings import OpcUaSettings
from events.errors import Unavailable
from hub import limits

_T = TypeVar("_T")
_GARBLED = (AssertionError, ValueError, struct.error)  # what the library makes of an answer that it does not understand
_COUNTS = 2**32 - 1  # sequence numbers: after the last comes 1


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the subscription: its number, the server's time of sending, and the values by item; none: the server says that it is there."""

    number: int
    published: datetime
    values: Sequence[tuple[int, Any]]


@dataclass(frozen=True, slots=True)
class Hole:
    """Messages that the server does not have any more. `full`: because we could not take them."""

    first: int
    last: int
    full: bool


@dataclass(frozen=True, slots=True)
class Watched:
    """What a server makes of an item: "" or why it does not watch it, how often it looks at best, and how many values it keeps."""

    why: str
    sampling_s: float
    queue: int


@dataclass(frozen=True, slots=True)
class Session:
    """What it takes to go on with a session and its subscription over another connection, also after a kill -9."""

    token: str
    nonce: bytes
    subscription: int
    next: int  # number of the message that is expected


class Line:
    """Connected from the end of `open` to `close`. Its methods are called from one other thread; every wait in them is bounded."""

    def __init__(self, settings: OpcUaSettings) -> None:
        self.settings = settings
        self.resumed = False
        self.namespaces: list[str] = []
        self.subscription = 0
        self.discarded = 0  # values that came while nobody had room; they are asked for again
        self._next = 1
        self._came: collections.deque[Message | Hole] = collections.deque()
        self._waiting = 0
        self._change = threading.Condition()
        self._confirm: list[int] = []
        self._failed: Exception | None = None
        self._full_since = False
        self._client: Client | None = None
        self._tasks: list[asyncio.Task[None]] = []
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

    def history(self, node: str, since: datetime, until: datetime, limit: int, point: bytes | None) -> tuple[list[Any], bytes | None, str]:
        """A page of what the server kept of a node, both ends included: values, where to go on, and "" or why there is nothing."""
        return self._do(self._history(node, since, until, limit, point), 2 * self.settings.answer_s)

    def server(self) -> tuple[str, datetime, datetime]:
        """The server's name and version, its clock, and ours at about the same moment."""
        return self._do(self._server(), 2 * self.settings.answer_s)

    def take(self, wait_s: float) -> Message | Hole | None:
        """What came next; None after a while. What came before the line was lost is given out first. Raises `Unavailable`."""
        with self._change:
            if not self._came and self._failed is None and wait_s > 0:
                self._change.wait_for(lambda: bool(self._came) or self._failed is not None, wait_s)
            if self._came:
                found = self._came.popleft()
                self._waiting -= len(found.values) if isinstance(found, Message) else 0
                if self._full_since and self._waiting < limits.OPCUA_WAITING_MAX // 2:
                    self._full_since = False
                    self._loop.call_soon_threadsafe(self._room.set)
                return found
            if self._failed is not None:
                raise self._unavailable(self._failed)
            return None

    def confirm(self, number: int) -> None:
        """The server may forget a message: what it said is durable."""
        with self._change:
            self._confirm.append(number)

    def session(self) -> Session:
        """How to go on after the next message that is not taken yet, which the caller corrects to what it has made durable."""
        client = self._connected()
        return Session(client.uaclient.session.authentication_token.to_string(), client._server_nonce or b"", self.subscription, self._next)

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
        except (OSError, ua.UaError, EOFError, asyncio.CancelledError, ssl.SSLError, *_GARBLED) as error:
            raise self._unavailable(error) from error

    def _connected(self) -> Client:
        if self._client is None:
            raise Unavailable(f"the OPC UA server {self.settings.url} is not connected")
        return self._client

    def _unavailable(self, error: Exception | asyncio.CancelledError) -> Unavailable:
        return Unavailable(f"the OPC UA server {self.settings.url} {_remedy(error, self.settings)}")

    # -- in the loop's thread: connecting ---------------------------------------------------------------------------------------------------

    async def _connect(self, session: Session | None) -> None:
        client = Client(self.settings.url, timeout=self.settings.answer_s)
        client.name = client.description = "Millwright edge"
        client.session_timeout = round(1000 * max(60.0, self.settings.outage_s + 30))
        if self.settings.user:
            client.set_user(self.settings.user)
            client.set_password(self.settings.password() or "")
        if self.settings.security != "None":
            await self._secure(client)
        try:
            await self._channel(client)
            self.resumed = session is not None and await self._resume(client, session)
            if not self.resumed:
                client.uaclient.session.reset_authentication_token()
                await client.create_session()
                await client.activate_session(username=client._username, password=client._password)
            self.namespaces = await client.get_namespace_array()
        except BaseException:
            client.disconnect_socket()
            raise
        self._client = client
        self._tasks.append(asyncio.create_task(self._renew(client)))

    async def _channel(self, client: Client) -> None:
        await client.connect_socket()
        await client.send_hello()
        await client.open_secure_channel()

    async def _secure(self, client: Client) -> None:
        """Certificates: ours by its content, not by the name of its file; the server's only the one that is trusted."""
        s = self.settings
        ours, key, trusted = (_pem_or_der(path) for path in (s.certificate, s.key, s.server_certificate))
        certificate = await uacrypto.load_certificate(ours.path_or_content, ours.extension)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if uris := names.get_values_for_type(x509.UniformResourceIdentifier):
            client.application_uri = uris[0]  # servers compare it with the certificate
        known = await uacrypto.load_certificate(trusted.path_or_content, trusted.extension)
        mode = ua.MessageSecurityMode[s.mode]
        try:
            endpoints = await Client(s.url, timeout=s.answer_s).connect_and_get_server_endpoints()
        except (ua.UaError, AssertionError):
            endpoints = []  # it says nothing to whom it does not know: if it has another certificate, it will not understand us
        offered = Client.find_endpoint(endpoints, mode, SecurityPolicyBasic256Sha256.URI) if endpoints else None
        shown = uacrypto.x509_from_der(offered.ServerCertificate) if offered else known
        if shown != known:
            name = shown.fingerprint(hashes.SHA256()).hex() if shown else "none"
            raise ua.UaError(
                f"shows another certificate (SHA-256 {name}) than {s.server_certificate}: ask who runs it, and only then trust it by putting "
                "it into that file"
            )
        await client.set_security(SecurityPolicyBasic256Sha256, ours, key, server_certificate=trusted, mode=mode)

    async def _resume(self, client: Client, session: Session) -> bool:
        """Go on with an earlier session; False when the server has it, or its subscription, no more."""
        endpoint = Client.find_endpoint(await client.get_endpoints(), client.security_policy.Mode, client.security_policy.URI)
        client._policy_ids = endpoint.UserIdentityTokens  # what create_session would have learnt
        client._server_nonce = session.nonce  # what our signature has to cover
        client.uaclient.session.restore_authentication_token(ua.NodeId.from_string(session.token))
        try:
            await client.activate_session(username=client._username, password=client._password)
            await client.uaclient.session.update_subscription(self._modification(session.subscription))
        except ua.UaError:
            await self._reopened(client)
            return False
        self.subscription, self._next = session.subscription, session.next
        return True

    async def _reopened(self, client: Client) -> None:
        """Another channel: a server may have closed this one over a session that it does not know."""
        client.disconnect_socket()
        client.uaclient.session.reset_authentication_token()
        client._server_nonce = None
        await self._channel(client)

    async def _renew(self, client: Client) -> None:
        """New keys for the channel before the old ones are too old."""
        while True:
            await asyncio.sleep(client.secure_channel_timeout * 0.75 / 1000)
            try:
                await client.open_secure_channel(renew=True)
                client.uaclient.revolve_security_token()
            except (OSError, ua.UaError, TimeoutError) as error:
                self._fail(error)
                return

    async def _disconnect(self, end: bool) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                if end:
                    await client.uaclient.close_session(True)
            finally:
                client.disconnect_socket()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

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
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks[1:], return_exceptions=True)
        del self._tasks[1:]
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
            self._came.clear()
            self._confirm.clear()
            self._waiting, self._full_since = 0, False
        self._revised = response.Parameters
        return self.session()

    async def _start(self) -> None:
        self._tasks.append(asyncio.create_task(self._receive()))

    async def _monitor(self, items: Sequence[tuple[int, str]]) -> list[Watched]:
        session, s = self._connected().uaclient.session, self.settings
        said: list[Watched] = []
        for at in range(0, len(items), limits.OPCUA_REQUEST_MAX):
            part = items[at : at + limits.OPCUA_REQUEST_MAX]
            params = ua.CreateMonitoredItemsParameters(SubscriptionId=self.subscription, TimestampsToReturn=ua.TimestampsToReturn.Both)
            params.ItemsToCreate = [self._item(number, node, s.dead_band) for number, node in part]
            results = await session.create_monitored_items(params)
            if s.dead_band is not None:  # only numbers can have one
                again = [n for n, result in enumerate(results) if not result.StatusCode.is_good()]
                if again:
                    params.ItemsToCreate = [self._item(*part[n], None) for n in again]
                    for n, result in zip(again, await session.create_monitored_items(params), strict=True):
                        results[n] = result
            for result in results:
                why = "" if result.StatusCode.is_good() else str(result.StatusCode.name)
                said.append(Watched(why, result.RevisedSamplingInterval / 1000, int(result.RevisedQueueSize)))
        return said

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
        s = self.settings
        return 3 * max(s.keep_alive_s, s.publishing_s) + 2

    async def _receive(self) -> None:
        """Ask for messages for ever. What fails is told to whoever takes."""
        session = self._connected().uaclient.session
        try:
            while True:
                with self._change:
                    confirmed, self._confirm = self._confirm, []
                acks = [ua.SubscriptionAcknowledgement(SubscriptionId=self.subscription, SequenceNumber=n) for n in confirmed]
                response = await asyncio.wait_for(session.publish(acks), self.silent_s)
                result = response.Parameters
                if result.SubscriptionId == self.subscription:
                    await self._arrived(result)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 the library raises of all kinds; nothing that ends this loop may go unheard
            self._fail(error)

    async def _arrived(self, result: Any) -> None:
        """A message, or a sign of life that bears the number of the message to come: what is missing before it is asked for again."""
        message = result.NotificationMessage
        number, data = int(message.SequenceNumber), message.NotificationData
        if data and (ended := [one for one in data if isinstance(one, ua.StatusChangeNotification)]):
            raise ua.UaStatusCodeError(ended[0].Status.value)
        missing = (number - self._next) % _COUNTS
        if missing > _COUNTS // 2:
            return  # it came already
        if missing and await self._is_full():
            return
        available = set(result.AvailableSequenceNumbers or ())
        if missing > limits.OPCUA_REPUBLISH_MAX:
            self._put(Hole(self._next, _before(number), self._full_since))
            self._next = number
        while self._next != number:
            again = await self._again(self._next) if not available or self._next in available else None
            if again is None:
                self._put(Hole(self._next, _before(number), self.discarded > 0))
                self._next = number
                break
            self._message(again)
        if data:
            if await self._is_full():
                self.discarded += sum(len(one.MonitoredItems) for one in data if isinstance(one, ua.DataChangeNotification))
                return
            self._message(message)
        else:
            self._put(Message(_before(number), _aware(message.PublishTime), ()))

    async def _again(self, number: int) -> Any:
        """A message that the server keeps; None when it has it no more (some say so with an empty one)."""
        try:
            found = await self._connected().uaclient.session.republish(self.subscription, number)
        except ua.uaerrors.BadMessageNotAvailable:
            return None
        return found if int(found.SequenceNumber) == number else None

    async def _is_full(self) -> bool:
        """Whether there is no room for more, after waiting for it as long as the server may be left alone."""
        if self._waiting < limits.OPCUA_WAITING_MAX:
            return False
        with self._change:
            self._full_since = True
            self._room.clear()
        try:
            await asyncio.wait_for(self._room.wait(), self.settings.keep_alive_s)
        except TimeoutError:
            return True
        return False

    def _message(self, message: Any) -> None:
        values = [
            (int(item.ClientHandle), item.Value)
            for data in message.NotificationData
            if isinstance(data, ua.DataChangeNotification)
            for item in data.MonitoredItems
        ]
        self._put(Message(int(message.SequenceNumber), _aware(message.PublishTime), values))
        self._next = int(message.SequenceNumber) % _COUNTS + 1

    def _put(self, came: Message | Hole) -> None:
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

    async def _history(
        self, node: str, since: datetime, until: datetime, limit: int, point: bytes | None
    ) -> tuple[list[Any], bytes | None, str]:
        details = ua.ReadRawModifiedDetails(IsReadModified=False, StartTime=since, EndTime=until, NumValuesPerNode=limit, ReturnBounds=True)
        asked = ua.HistoryReadValueId(NodeId=node_of(node, self.namespaces), ContinuationPoint=point)
        params = ua.HistoryReadParameters(
            HistoryReadDetails=details, TimestampsToReturn=ua.TimestampsToReturn.Both, ReleaseContinuationPoints=False, NodesToRead=[asked]
        )
        (result,) = await self._connected().uaclient.session.history_read(params)
        if not result.StatusCode.is_good():
            return [], None, str(result.StatusCode.name)
        values = [one for one in getattr(result.HistoryData, "DataValues", None) or () if one is not None]
        return values, result.ContinuationPoint or None, ""

    async def _server(self) -> tuple[str, datetime, datetime]:
        client = self._connected()
        begun, wall = time.monotonic(), datetime.now(UTC)
        status = await client.get_node(ua.NodeId(ua.ObjectIds.Server_ServerStatus)).read_value()
        ours = wall + timedelta(seconds=(time.monotonic() - begun) / 2)
        build = status.BuildInfo
        name = " ".join(part for part in (build.ManufacturerName, build.ProductName, build.SoftwareVersion) if part)
        return name or "unnamed", _aware(status.CurrentTime), ours


def _alive(came: Message | Hole) -> bool:
    return isinstance(came, Message) and not came.values


def _before(number: int) -> int:
    return number - 1 if number > 1 else _COUNTS


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _pem_or_der(path: Path | None) -> uacrypto.CertProperties:
    assert path is not None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path} cannot be read ({error.strerror}): correct the path of the certificate or key, or its rights") from error
    return uacrypto.CertProperties(content, "pem" if content.lstrip().startswith(b"-----BEGIN") else "der")


def _remedy(error: BaseException, settings: OpcUaSettings) -> str:
    """What is wrong and what to do, for a person."""
    name = type(error).__name__
    if isinstance(error, (ua.uaerrors.BadUserAccessDenied, ua.uaerrors.BadIdentityTokenRejected, ua.uaerrors.BadIdentityTokenInvalid)):
        who = f"the user {settings.user}" if settings.user else "somebody without a name"
        return (
            f"does not let {who} in ({name}): correct user and the password in {settings.password_env or 'password_env'}, or allow it there"
        )
    refusals = (
        "BadSecurityChecksFailed",
        "BadCertificate",
        "BadSecurityPolicyRejected",
        "BadSecurityModeRejected",
        "BadApplicationSignature",
    )
    if name.startswith(refusals) or any(word in str(error) for word in refusals):
        return f"refuses our certificate {settings.certificate} ({name}): let the server trust it, or correct certificate, key and security"
    if isinstance(error, ua.UaError) and "No matching endpoints" in str(error):
        return f"does not offer security {settings.security} {settings.mode if settings.security != 'None' else ''}: set what it offers"
    if isinstance(error, ua.UaStatusCodeError):
        return f"says {name}: look at its log"
    if isinstance(error, ua.UaError):
        return str(error)
    if isinstance(error, _GARBLED):
        if settings.security == "None":
            return "answers in a way that is not understood: look at its log, and at the url"
        return (
            f"answers in a way that is not understood; most often it refuses our certificate {settings.certificate}: let the server trust it, "
            "look at its log, and correct server_certificate if it was given a new one"
        )
    if isinstance(error, TimeoutError):
        return "does not answer: look at it and at the line to it, or correct the url"
    return f"cannot be reached ({name}: {error}): start it, or correct the url"
