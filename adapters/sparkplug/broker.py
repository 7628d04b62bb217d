"""A host application's connection to one broker: the session with its STATE, and the bounded inbox that all connections share.

paho's threads only answer for STATE and put messages into the inbox; they must not raise, or they end silently (reliability.md §4). That a
connection carries messages is known from a subscription that is confirmed anew every few seconds.
"""

import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from adapters.formats.sparkplug import state, state_of, state_topic
from adapters.sparkplug.settings import SparkplugSettings, address
from events.errors import Refused
from hub import limits

CONNECT_S = 10.0
HEARTBEAT_S = 5.0  # how often the subscription to STATE is confirmed
SILENT_S = 15.0  # without an answer for this long the connection is dead, whatever paho says
KEEPALIVE_S = 15
FAREWELL_S = 2.0  # for the broker to confirm our death certificate


class Inbox:
    """Messages that were received and not taken, bounded in number and bytes. True while there are any."""

    def __init__(self) -> None:
        self._items: deque[tuple[Broker, mqtt.Client, mqtt.MQTTMessage]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, broker: "Broker", client: mqtt.Client, message: mqtt.MQTTMessage) -> None:
        """Wait for room, as long as the client is the broker's."""
        size = len(message.payload)
        with self._changed:
            while self._items and (
                len(self._items) >= limits.MQTT_WAITING_MAX or self._bytes + size > limits.SPARKPLUG_WAITING_BYTES_MAX
            ):  # fmt: skip
                if client is not broker.client:
                    return
                self._changed.wait(0.1)
            self._items.append((broker, client, message))
            self._bytes += size
            self._changed.notify_all()

    def get(self, wait_s: float) -> "tuple[Broker, mqtt.Client, mqtt.MQTTMessage] | None":
        with self._changed:
            if not self._items and wait_s > 0:
                self._changed.wait(wait_s)
            if not self._items:
                return None
            item = self._items.popleft()
            self._bytes -= len(item[2].payload)
            self._changed.notify_all()
            return item


class Broker:
    """The connection to one broker. A new client for each session: nothing of an old one may be said in a new one."""

    def __init__(
        self,
        url: str,
        index: int,
        settings: SparkplugSettings,
        tls: ssl.SSLContext | None,
        inbox: Inbox,
        clock: Callable[[], datetime],
        *,
        guest: bool = False,
    ) -> None:
        self.url, self.index, self._settings, self._tls = url, index, settings, tls
        self._inbox, self._clock, self._guest = inbox, clock, guest
        self.client: mqtt.Client | None = None
        self.online = False  # our STATE is there
        self.announced = False  # what that means for the edge nodes was done
        self.lost = False  # a session is over, and what that means was not done
        self.refused = False  # it answered, and will not have us
        self.trouble = f"{url}: not tried yet"
        self._topic = state_topic(settings.host_id)
        self._stamp = 0  # ms, of the will and the birth of this session
        self._birth = 0  # message id of our STATE
        self._started = self._retry = self._beat = 0.0
        self._missing: float | None = None  # monotonic; when the first heartbeat was sent that was not answered
        self._wait_s = limits.RETRY_FIRST_S

    @property
    def alive(self) -> bool:
        """Whether it is connected, or still trying to be for the first time."""
        return self.online or (self.client is not None and not self.announced and not self.refused and self._wait_s == limits.RETRY_FIRST_S)

    def start(self, at: datetime) -> None:
        """Begin a session, whose will and birth say `at`."""
        host, port, secure = address(self.url)
        five = self._settings.mqtt == "5"
        client_id = (self._settings.client_id or f"millwright-{self._settings.host_id}") + (
            f"-check-{time.monotonic_ns()}" if self._guest else ""
        )
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if five else True,
            protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        if self._settings.username:
            password = os.environ.get(self._settings.password_env or "")
            client.username_pw_set(self._settings.username, password)
        if secure and self._tls is not None:
            client.tls_set_context(self._tls)
        client.connect_timeout = CONNECT_S / 2
        if not self._guest:
            self._stamp = max(ms_of(at), self._stamp + 1)  # an edge node takes no STATE that is older than the one before
            client.will_set(self._topic, state(online=False, timestamp=self._stamp), qos=1, retain=True)
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_subscribe, client.on_publish, client.on_message = self._on_subscribe, self._on_publish, self._on_message
        client.on_disconnect = self._on_disconnect
        self.online = self.refused = False
        self._birth, self._missing = 0, None
        self._started = self._beat = time.monotonic()
        self.client = client
        options: dict[str, Any] = {}
        if five:
            options = {"clean_start": True, "properties": Properties(PacketTypes.CONNECT)}  # type: ignore[no-untyped-call]
            options["properties"].SessionExpiryInterval = 0
            options["properties"].ReceiveMaximum = limits.MQTT_WAITING_MAX
        client.connect_async(host, port, KEEPALIVE_S, **options)
        client.loop_start()

    def tend(self, now: float) -> None:
        """See that it is alive, or try it again."""
        client = self.client
        if client is None:
            if now >= self._retry:
                self.start(self._clock())
            return
        if self.online and client.is_connected():
            self._wait_s = limits.RETRY_FIRST_S
            if self._missing is not None and now > self._missing + SILENT_S:
                self.trouble = f"{self.url}: the connection carries nothing, no subscription was confirmed for {SILENT_S:.0f} s"
            elif now > self._beat + HEARTBEAT_S:
                self._beat = now
                self._missing = self._missing or now  # before it is sent: its answer may be here sooner than we are back
                self._subscribe(client, [self._topic])
                return
            else:
                return
        elif not self.online and not self.refused and now < self._started + 2 * CONNECT_S:
            return
        elif self.online:
            self.trouble = f"{self.url}: the connection is lost"
        self.drop()
        self._retry = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, limits.RETRY_MAX_S)

    def drop(self) -> None:
        """End the session without a word: the broker publishes our will."""
        client, self.client = self.client, None
        self.lost, self.online, self.announced = self.lost or self.online, False, False
        if client is not None:  # beside us: paho's thread may be in the middle of a connect
            threading.Thread(target=_cut, args=(client,), daemon=True).start()

    def stop(self) -> None:
        """Say that we go, and go."""
        client, online = self.client, self.online
        self.client, self.online = None, False
        if client is None:
            return
        if online and not self._guest:
            death = client.publish(self._topic, state(online=False, timestamp=max(ms_of(self._clock()), self._stamp)), qos=1, retain=True)
            try:
                death.wait_for_publish(FAREWELL_S)
            except (ValueError, RuntimeError):
                pass  # the connection is gone: then the broker has our will
        client.disconnect()
        until = time.monotonic() + FAREWELL_S
        while online and client.socket() is not None and time.monotonic() < until:
            time.sleep(0.005)
        _cut(client)

    def publish(self, topic: str, body: bytes) -> mqtt.MQTTMessageInfo | None:
        """Hand a message to the client, which says when it is on the line; nobody confirms it. None while there is no client to take it."""
        client = self.client
        info = None if client is None else client.publish(topic, body, qos=0, retain=False)
        return info if info is not None and info.rc == mqtt.MQTT_ERR_SUCCESS else None

    def _subscribe(self, client: mqtt.Client, topics: Sequence[str]) -> None:
        if self._settings.mqtt == "5":
            client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in topics])
        else:
            client.subscribe([(topic, 1) for topic in topics])

    # -- paho's thread: nothing here may raise

    def _on_connect(self, client: mqtt.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is not self.client:
            return
        if reason.is_failure:
            self.trouble = (
                f"{self.url}: the broker refused the connection ({reason}): look at its log, and at user, password and certificate"
            )
            self.refused = True
            return
        self._subscribe(client, [self._topic, *self._settings.filters])

    def _on_connect_fail(self, client: mqtt.Client, data: Any) -> None:
        client.loop_stop()  # it is tried again by a client of its own, whose will is of its own time
        if client is self.client:
            self.trouble = (
                f"{self.url}: the broker cannot be reached: start it, or correct brokers; with TLS, look at its certificate and authority"
            )
            self.refused = True

    def _on_disconnect(self, client: mqtt.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is self.client and not self.online:
            if not self.refused:
                self.trouble = f"{self.url}: the broker ended the connection ({reason}): look at its log"
            self.refused = True

    def _on_subscribe(self, client: mqtt.Client, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        if client is not self.client:
            return
        self._missing = None
        refused = [topic for topic, reason in zip([self._topic, *self._settings.filters], reasons, strict=False) if reason.is_failure]
        if refused:
            self.trouble = f"{self.url}: the broker refused the subscription to {', '.join(refused)}: allow this client to read there"
            self.refused = True
        elif self._guest:
            self.online = True
        elif not self._birth:
            self._birth = self._say_online(client)

    def _say_online(self, client: mqtt.Client) -> int:
        return client.publish(self._topic, state(online=True, timestamp=self._stamp), qos=1, retain=True).mid

    def _on_publish(self, client: mqtt.Client, data: Any, mid: int, reason: Any, properties: Any) -> None:
        if client is self.client and mid == self._birth and not self.online:
            if reason.is_failure:
                self.trouble = f"{self.url}: the broker refused our STATE ({reason}): allow this client to write {self._topic}"
                self.refused = True
            else:
                self.online = True

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        self._missing = None  # behind a long row of messages an answer may be late
        if bytes(message._topic).startswith(b"spBv1.0/STATE/") and not self._guest:
            client.ack(message.mid, message.qos)
            if bytes(message._topic) == self._topic.encode() and client is self.client and self._birth and not message.retain:
                self._own_state(client, bytes(message.payload))  # a retained one is from before our subscription: our birth replaces it
            return
        self._inbox.put(self, client, message)

    def _own_state(self, client: mqtt.Client, body: bytes) -> None:
        """What anybody says of us: that we are offline is not left standing, also where it overtakes our own birth."""
        try:
            online = state_of(body)[0]
        except Refused:
            online = False  # nobody else may write here: what is there now is no STATE
        if not online:
            self._say_online(client)


def _cut(client: mqtt.Client) -> None:
    """End the connection, also one that carries nothing: paho's thread would wait for what it cannot send."""
    socket: Any = client.socket()
    if socket is not None:
        try:
            socket.shutdown(2)
        except OSError:
            pass  # it is gone already
    client.loop_stop()
    if socket is not None:
        socket.close()


def ms_of(at: datetime) -> int:
    return int(at.timestamp() * 1000)
