"""Sparkplug B 3.0 host application: what edge nodes and their devices say, as readings; STATE, rebirths and commands on the way back.

It keeps to the specification (docs/sparkplug.md): connect with a STATE will, subscribe, publish STATE, all with a clean session. So a broker keeps nothing
for us while we are away; what was missed is told as a gap, and filled by nodes that store and forward. What one edge node says and means is
adapters/formats/sparkplug_node.py; here are the brokers. paho's threads only answer for STATE and put messages into a bounded inbox; they must not
raise, or they end silently (reliability.md §4). That a connection carries messages is known from a subscription that is confirmed anew every few seconds.
"""

import hashlib
import logging
import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from adapters.formats.sparkplug import (
    NAMESPACE,
    REBIRTH,
    Metric,
    Payload,
    Topic,
    decode,
    encode,
    identifier,
    metric_of,
    state,
    state_of,
    state_topic,
    topic_of,
)
from adapters.formats.sparkplug_message import Message
from adapters.formats.sparkplug_node import EdgeNode
from adapters.formats.sparkplug_values import DataType, type_of
from events.errors import Refused, Unavailable
from hub import limits
from hub.intake.readings import Observed

CONNECT_S = 10.0
HEARTBEAT_S = 5.0  # how often the subscription to STATE is confirmed
SILENT_S = 15.0  # without an answer for this long the connection is dead, whatever paho says
KEEPALIVE_S = 15
FAREWELL_S = 2.0  # for the broker to confirm our death certificate
CHECK_S = 3.0  # `check` listens this long
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SparkplugSettings:
    """One host application. Raises `Refused` where a value cannot be used.

    `brokers` are URLs, mqtt://host:port or mqtts://host:port; the host is online on each of them. `groups` empty: all groups. `primary`: it may ask for
    rebirths and send commands; otherwise it only listens. `reorder_s`: how long a message waits for one before it. `history_reach_s`: history that
    begins no later than this after what was heard last fills its gap from the start (the longest time in which a node says nothing). `password_env` names the variable that holds the password.
    """

    brokers: Sequence[str]
    host_id: str
    groups: Sequence[str] = ()
    primary: bool = True
    reorder_s: float = 2.0
    history_reach_s: float = 0.0
    mqtt: Literal["3.1.1", "5"] = "3.1.1"
    client_id: str = ""
    username: str | None = None
    password_env: str | None = None
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if not self.brokers:
            raise Refused("a Sparkplug host needs a broker: name one in brokers, as mqtt://host:1883")
        for url in self.brokers:
            _address(url)
        identifier("the Sparkplug host id", self.host_id)
        for group in self.groups:
            identifier("the Sparkplug group", group)
        if self.mqtt not in ("3.1.1", "5"):
            raise Refused(f"there is no MQTT {self.mqtt} for Sparkplug: choose 3.1.1 or 5")
        if not 0 <= self.reorder_s <= 600:
            raise Refused(f"a reorder timeout of {self.reorder_s} s cannot be kept: choose 0 to 600")
        if self.key is not None and self.certificate is None:
            raise Refused("a client key needs its certificate: name both or none")
        if self.password_env and self.password_env not in os.environ:
            raise Refused(f"the password of the Sparkplug brokers is not in the environment: set {self.password_env}")

    @property
    def filters(self) -> list[str]:
        """What is subscribed to beside the host's own STATE."""
        return [f"{NAMESPACE}/{group}/#" for group in self.groups] or [f"{NAMESPACE}/#"]


class SparkplugSource:
    """The host application, as a `hub.intake.readings.ReadingSource`: a producer for each edge node, `group/node`."""

    def __init__(self, settings: SparkplugSettings, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._settings, self._clock, self._index = settings, clock, f"sparkplug/{settings.host_id}"
        self._inbox = _Inbox()
        self._brokers: list[_Broker] = []
        self._nodes: dict[str, EdgeNode] = {}
        self._known: set[str] = set()  # nodes that are remembered
        self._touched: dict[EdgeNode, None] = {}  # those that may have something to say, in order
        self._ask_s: float | None = None  # monotonic; nodes that are still lost then are asked for a birth
        self._full = False

    @property
    def name(self) -> str:
        return f"sparkplug {self._settings.host_id} at {', '.join(self._settings.brokers)}"

    def open(self, remembered: Callable[[str], bytes | None]) -> None:
        """Connect, and be online at one broker at least; the others are tried again while it runs. Raises `Unavailable`."""
        self.close()
        now, self._inbox = time.monotonic(), _Inbox()
        self._nodes, self._touched, self._known = {}, {}, set()
        for producer in msgspec.msgpack.decode(remembered(self._index) or msgspec.msgpack.encode([]), type=list[str]):
            node = self._node(*producer.split("/"))
            if node.remember(remembered, now):
                node.lost(self._clock(), now)
                self._nodes[producer], self._touched[node] = node, None
                self._known.add(producer)
        tls = _tls(self._settings)
        self._brokers = [_Broker(url, n, self._settings, tls, self._inbox, self._clock) for n, url in enumerate(self._settings.brokers)]
        for broker in self._brokers:
            broker.start()
        while time.monotonic() < now + CONNECT_S and not any(broker.online for broker in self._brokers):
            if all(broker.refused for broker in self._brokers):
                break
            time.sleep(0.01)
        if not any(broker.online for broker in self._brokers):
            trouble = "; ".join(broker.trouble for broker in self._brokers)
            self.close()
            raise Unavailable(trouble)

    def receive(self, limit: int, wait_s: float) -> Sequence[Observed]:
        """What the edge nodes said, one `Observed` a node. Raises `Unavailable` when no broker is left."""
        if not self._brokers:
            raise Unavailable(f"{self.name} is not connected: open it first")
        now = time.monotonic()
        self._tend(now)
        due = [node.due() for node in self._nodes.values()] + [self._ask_s]
        until = min([now + wait_s, *(time for time in due if time is not None)])
        readings = 0
        while readings < limit:
            item = self._inbox.get(max(0.0, until - time.monotonic()) if not self._touched else 0.0)
            if item is None:
                break
            readings += self._take(*item)
        self._expire(time.monotonic())
        observed = self._collect()
        if not observed and not any(broker.alive for broker in self._brokers):
            trouble = "; ".join(broker.trouble or f"{broker.url}: the connection is lost" for broker in self._brokers)
            self.close()
            raise Unavailable(f"{trouble}: connecting again")
        return observed

    def close(self) -> None:
        """Publish the death certificate and disconnect."""
        for broker in self._brokers:
            broker.stop()
        self._brokers = []

    def check(self) -> Sequence[str]:
        """Look in at each broker for a few seconds, as somebody else, so that a running host is not disturbed."""
        said = []
        for n, url in enumerate(self._settings.brokers):
            inbox = _Inbox()
            broker = _Broker(url, n, self._settings, _tls(self._settings), inbox, self._clock, guest=True)
            broker.start()
            until = time.monotonic() + CONNECT_S
            while not broker.online and not broker.refused and time.monotonic() < until:
                time.sleep(0.01)
            if not broker.online:
                broker.stop()
                raise Unavailable(broker.trouble)
            until, heard, own = time.monotonic() + CHECK_S, set(), "nobody is online"
            while (item := inbox.get(until - time.monotonic())) is not None:
                text = _topic(item[2])
                if text == state_topic(self._settings.host_id):
                    own = f"it says {item[2].payload[:80].decode('utf-8', 'replace')}"
                elif not text.startswith(f"{NAMESPACE}/STATE/"):
                    heard.add("/".join(text.split("/")[1:4:2]))
            broker.stop()
            said.append(f"{url}: connected with MQTT {self._settings.mqtt}; as host {self._settings.host_id} {own}")
            said.append(
                f"{url}: in {CHECK_S:.0f} s {len(heard)} edge nodes were heard{': ' if heard else ''}{', '.join(sorted(heard)[:20])}"
            )
        return said

    def command(self, group: str, node: str, values: Mapping[str, Any], device: str | None = None) -> None:
        """Write metrics of an edge node (NCMD) or of its device (DCMD), by the names of the birth. Called on the thread that calls `receive`.

        Raises `Refused` for a metric that no birth named or a value that is none of its type, `Unavailable` while the node cannot be reached. A
        command may be lost on its way: that it was followed shows in the data that come.
        """
        if not self._settings.primary:
            raise Refused(f"the host {self._settings.host_id} only listens: set primary to send commands")
        known = self._nodes.get(f"{group}/{node}")
        where = f"{group}/{node}" + (f"/{device}" if device else "")
        if known is None or known.status != "online" or (found := known.devices.get(device or "")) is None or not found.online:
            raise Unavailable(f"{where} is not online: wait for its birth")
        metrics = []
        for name, value in values.items():
            if (tag := found.tags.get(name)) is None:
                raise Refused(f"{where} has no metric {name!r}: its birth names {', '.join(sorted(found.tags)[:20])}")
            by = {"alias": tag.alias} if tag.alias is not None and name != REBIRTH else {"name": name}
            metrics.append(metric_of(value, type_of(tag.type or 0), timestamp=self._ms(), **by))
        if not self._publish(known, Topic("DCMD" if device else "NCMD", group, node, device), metrics):
            raise Unavailable(f"the command for {where} could not be sent: its broker is not connected")

    # -- inside

    def _node(self, group: str, node: str) -> EdgeNode:
        settings = self._settings
        return EdgeNode(
            settings.host_id, group, node, reorder_s=settings.reorder_s, reach_s=settings.history_reach_s, asks=settings.primary
        )  # fmt: skip

    def _take(self, broker: "_Broker", client: mqtt.Client, message: mqtt.MQTTMessage) -> int:
        """Give a message to its edge node; how many readings it has at most."""

        def done() -> None:
            if client is broker.client:  # the number of an older connection's message may by now be another's
                client.ack(message.mid, message.qos)

        try:
            topic = topic_of(_topic(message))
            if topic.kind.endswith("CMD") or message.retain:  # a command, maybe our own; a message that is no news
                done()
                return 0
            payload = decode(bytes(message.payload))
            node = self._nodes.get(f"{topic.group}/{topic.node}") or self._welcome(topic)
            if node is not None and topic.kind.endswith("BIRTH"):
                self._make_room(len(payload.metrics))
        except Refused as error:
            _log.warning("Sparkplug: %s (%s)", error, _topic(message)[:200])
            done()
            return 0
        if node is None:
            done()
            return 0
        digest = hashlib.blake2b(bytes(message._topic) + b"\x00" + bytes(message.payload), digest_size=8).digest()
        if topic.kind != "NDEATH":
            node.broker = broker.index
        node.take(Message(topic, payload, self._clock(), len(message.payload), digest, done), time.monotonic())
        self._touched[node] = None
        return max(1, len(payload.metrics))

    def _welcome(self, topic: Topic) -> EdgeNode | None:
        if topic.kind == "NDEATH":
            return None  # it was never alive for us
        if len(self._nodes) >= limits.SPARKPLUG_NODES_MAX:
            raise Refused(f"more than {limits.SPARKPLUG_NODES_MAX} edge nodes: name the groups that are wanted")
        return self._nodes.setdefault(f"{topic.group}/{topic.node}", self._node(topic.group, topic.node))

    def _make_room(self, metrics: int) -> None:
        tags = sum(len(device.tags) for node in self._nodes.values() for device in node.devices.values())
        if tags + metrics > limits.SPARKPLUG_TAGS_MAX:
            raise Refused(
                f"more than {limits.SPARKPLUG_TAGS_MAX} metrics: name the groups that are wanted, or share them among several hosts"
            )

    def _tend(self, now: float) -> None:
        for broker in self._brokers:
            was = broker.announced
            broker.tend(now)
            if was and not broker.online:
                broker.announced = False
                _log.warning("Sparkplug: %s", broker.trouble)
                for node in self._nodes.values():
                    if node.broker == broker.index:
                        node.lost(self._clock(), now)
                        self._touched[node] = None
            elif broker.online and not was:
                broker.announced = True
                self._ask_s = now + max(self._settings.reorder_s, 1.0)  # those that wait for STATE give a birth by themselves

    def _expire(self, now: float) -> None:
        for node in self._nodes.values():
            due = node.due()
            if due is not None and now >= due:
                node.expire(now)
                self._touched[node] = None
        if self._ask_s is not None and now >= self._ask_s:
            self._ask_s = None
            for node in self._nodes.values():
                if node.status == "lost":
                    node.want_rebirth(now, owed=False)
                    self._touched[node] = None

    def _collect(self) -> list[Observed]:
        found = []
        for node in self._touched:
            if node.rebirth:
                node.rebirth = False
                self._publish(
                    node, Topic("NCMD", node.group, node.node), [metric_of(True, DataType.Boolean, REBIRTH, timestamp=self._ms())]
                )
            if (observed := node.collect()) is None:
                continue
            if node.producer not in self._known:
                self._known.add(node.producer)
                observed.memory = {**observed.memory, self._index: msgspec.msgpack.encode(sorted(self._known))}
            found.append(observed)
        self._touched = {}
        return found

    def _publish(self, node: EdgeNode, topic: Topic, metrics: Sequence[Metric]) -> bool:
        """To the broker that the node is at, or to all while that is not known."""
        body = encode(Payload(self._ms(), None, metrics))
        at = [broker for broker in self._brokers if broker.online and (node.status != "online" or broker.index == node.broker)]
        sent = [broker.publish(str(topic), body) for broker in at]
        return any(sent)

    def _ms(self) -> int:
        return _ms(self._clock())


class _Inbox:
    """Messages that were received and not taken, bounded in number and bytes."""

    def __init__(self) -> None:
        self._items: deque[tuple[_Broker, mqtt.Client, mqtt.MQTTMessage]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()

    def put(self, broker: "_Broker", client: mqtt.Client, message: mqtt.MQTTMessage) -> None:
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

    def get(self, wait_s: float) -> "tuple[_Broker, mqtt.Client, mqtt.MQTTMessage] | None":
        with self._changed:
            if not self._items and wait_s > 0:
                self._changed.wait(wait_s)
            if not self._items:
                return None
            item = self._items.popleft()
            self._bytes -= len(item[2].payload)
            self._changed.notify_all()
            return item


class _Broker:
    """The connection to one broker. A new client for each session: nothing of an old one may be said in a new one."""

    def __init__(
        self,
        url: str,
        index: int,
        settings: SparkplugSettings,
        tls: ssl.SSLContext | None,
        inbox: _Inbox,
        clock: Callable[[], datetime],
        *,
        guest: bool = False,
    ) -> None:
        self.url, self.index, self._settings, self._tls, self._inbox, self._clock, self._guest = (
            url,
            index,
            settings,
            tls,
            inbox,
            clock,
            guest,
        )
        self.client: mqtt.Client | None = None
        self.online = False  # our STATE is there
        self.announced = False  # what that means for the edge nodes was done
        self.refused = False  # it answered, and will not have us
        self.trouble = f"{url}: not tried yet"
        self._topic = state_topic(settings.host_id)
        self._stamp = 0  # ms, of the will and the birth of this session
        self._birth = 0  # message id of our STATE
        self._echoed = False  # our STATE came back: what says otherwise is later
        self._started = self._retry = self._beat = 0.0
        self._missing: float | None = None  # monotonic; when the first heartbeat was sent that was not answered
        self._wait_s = limits.RETRY_FIRST_S

    @property
    def alive(self) -> bool:
        """Whether it is connected, or still trying to be for the first time."""
        return self.online or (self.client is not None and not self.announced and not self.refused and self._wait_s == limits.RETRY_FIRST_S)

    def start(self) -> None:
        host, port, secure = _address(self.url)
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
        client.reconnect_delay_set(1, 5)
        if not self._guest:
            client.on_pre_connect = self._on_pre_connect
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_subscribe, client.on_publish, client.on_message = self._on_subscribe, self._on_publish, self._on_message
        client.on_disconnect = self._on_disconnect
        self.online = self.refused = self._echoed = False
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
                self.start()
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
        client, self.client, self.online = self.client, None, False
        if client is not None:  # beside us: paho's thread may be in the middle of a connect
            threading.Thread(target=_cut, args=(client,), daemon=True).start()

    def stop(self) -> None:
        """Say that we go, and go."""
        client, online = self.client, self.online
        self.client, self.online = None, False
        if client is None:
            return
        if online and not self._guest:
            death = client.publish(self._topic, state(online=False, timestamp=max(_ms(self._clock()), self._stamp)), qos=1, retain=True)
            try:
                death.wait_for_publish(FAREWELL_S)
            except (ValueError, RuntimeError):
                pass  # the connection is gone: then the broker has our will
        client.disconnect()
        until = time.monotonic() + FAREWELL_S
        while online and client.socket() is not None and time.monotonic() < until:
            time.sleep(0.005)
        _cut(client)

    def publish(self, topic: str, body: bytes) -> bool:
        """Whether the client took it: nobody confirms it."""
        client = self.client
        return client is not None and client.publish(topic, body, qos=0, retain=False).rc == mqtt.MQTT_ERR_SUCCESS

    def _subscribe(self, client: mqtt.Client, topics: Sequence[str]) -> None:
        if self._settings.mqtt == "5":
            client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in topics])
        else:
            client.subscribe([(topic, 1) for topic in topics])

    # -- paho's thread: nothing here may raise

    def _on_pre_connect(self, client: mqtt.Client, data: Any) -> None:
        if client is not self.client:
            return
        self._stamp = max(_ms(self._clock()), self._stamp + 1)  # an edge node takes no STATE that is older than the one before
        client.will_set(self._topic, state(online=False, timestamp=self._stamp), qos=1, retain=True)

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
        if client is self.client:
            self.trouble = (
                f"{self.url}: the broker cannot be reached: start it, or correct brokers; with TLS, look at its certificate and ca_file"
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
            if bytes(message._topic) == self._topic.encode() and client is self.client:
                self._own_state(client, bytes(message.payload))
            return
        self._inbox.put(self, client, message)

    def _own_state(self, client: mqtt.Client, body: bytes) -> None:
        try:
            online, stamp = state_of(body)
        except Refused:
            online, stamp = False, 0  # nobody else may write here: what is there now is no STATE
        if online and stamp == self._stamp:
            self._echoed = True
        elif self._echoed and not online:
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


def _topic(message: mqtt.MQTTMessage) -> str:
    return bytes(message._topic).decode("utf-8", "backslashreplace")


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _address(url: str) -> tuple[str, int, bool]:
    """Host, port, and whether it is TLS. Raises `Refused`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Refused(f"the broker {url!r} is no URL ({error}): write mqtt://host:1883 or mqtts://host:8883") from error
    if parts.scheme not in ("mqtt", "mqtts") or not host or parts.path.strip("/") or parts.username or parts.query:
        raise Refused(f"the broker {url!r} cannot be used: write mqtt://host:1883 or mqtts://host:8883, the user in username")
    return host, port or (8883 if parts.scheme == "mqtts" else 1883), parts.scheme == "mqtts"


def _tls(settings: SparkplugSettings) -> ssl.SSLContext | None:
    """What the brokers are trusted by, and what we show them. Raises `Unavailable`."""
    if not any(_address(url)[2] for url in settings.brokers):
        return None
    try:
        tls = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate is not None:
            tls.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(
            f"the certificates of the Sparkplug host cannot be read ({error}): correct ca_file, certificate or key"
        ) from error
    return tls
