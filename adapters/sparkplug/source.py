"""The host application: hands messages to the edge nodes they are of, and what those make of them to the edge."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import paho.mqtt.client as mqtt

from adapters.formats.sparkplug import NAMESPACE, REBIRTH, Metric, Payload, Topic, decode, encode, metric_of, state_topic, topic_of
from adapters.formats.sparkplug_message import Message
from adapters.formats.sparkplug_node import EdgeNode
from adapters.formats.sparkplug_values import DataType, type_of, written
from adapters.sparkplug.broker import CONNECT_S, Broker, Inbox, ms_of
from adapters.sparkplug.settings import SparkplugSettings, tls_of
from events.errors import Refused, Unavailable
from hub import limits
from hub.intake.readings import Observed

CHECK_S = 3.0  # `check` listens this long
SENT_S = 2.0  # for a command to be on the line
_log = logging.getLogger(__name__)


class SparkplugSource:
    """The host application, as a `hub.intake.readings.ReadingSource`: a producer for each edge node, `group/node`."""

    def __init__(self, settings: SparkplugSettings, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._settings, self._clock, self._index = settings, clock, f"sparkplug/{settings.host_id}"
        self._inbox = Inbox()
        self._brokers: list[Broker] = []
        self._nodes: dict[str, EdgeNode] = {}
        self._known: set[str] = set()  # nodes that are remembered
        self._touched: dict[EdgeNode, None] = {}  # those that may have something to say, in order
        self._ask_s: float | None = None  # monotonic; nodes that are still lost then are asked for a birth
        self._busy = threading.Lock()  # over nodes and brokers; not while it is waited for messages

    @property
    def name(self) -> str:
        return f"sparkplug {self._settings.host_id} at {', '.join(self._settings.brokers)}"

    def open(self, remembered: Callable[[str], bytes | None]) -> None:
        """Connect, and be online at one broker at least; the others are tried again while it runs. Raises `Unavailable`."""
        self.close()
        now, self._inbox = time.monotonic(), Inbox()
        with self._busy:
            self._recall(remembered, now)
        tls = tls_of(self._settings)
        self._brokers = [Broker(url, n, self._settings, tls, self._inbox, self._clock) for n, url in enumerate(self._settings.brokers)]
        at = self._clock()  # one moment for all of them, whichever is connected to first
        for broker in self._brokers:
            broker.start(at)
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
        with self._busy:
            self._tend(now)
            due = [node.due() for node in self._nodes.values()] + [self._ask_s]
        until = min([now + wait_s, *(time for time in due if time is not None)])
        readings = 0
        while readings < limit:
            item = self._inbox.get(max(0.0, until - time.monotonic()) if not self._touched else 0.0)
            if item is None:
                break
            with self._busy:
                readings += self._take(*item)
        with self._busy:
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
            inbox = Inbox()
            broker = Broker(url, n, self._settings, tls_of(self._settings), inbox, self._clock, guest=True)
            broker.start(self._clock())
            until = time.monotonic() + CONNECT_S
            while not broker.online and not broker.refused and time.monotonic() < until:
                time.sleep(0.01)
            if not broker.online:
                broker.stop()
                raise Unavailable(broker.trouble)
            until, heard, own = time.monotonic() + CHECK_S, set(), "nobody is online"
            while (item := inbox.get(until - time.monotonic())) is not None:
                text = topic_text(item[2])
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

    def devices(self, of: str = "") -> list[dict[str, Any]]:
        """What is known of each edge node and device, as `EdgeNode.now` says it. From any thread."""
        with self._busy:
            return [row for node in self._nodes.values() for row in node.now(of)]

    def command(self, tag: str, value: Any, by: str) -> str:
        """Write a metric of an edge node (NCMD) or of its device (DCMD); the topic that it went out on. From any thread.

        `tag` is the name that its readings have, `value` one of its type, or as text. Raises `Refused` for a metric that no birth named or a value that
        is none of its type, `Unavailable` while the node cannot be reached. Nothing is sent later: a command goes out at once or not at all. It may
        be lost on its way all the same; that it was followed shows in the data that come.
        """
        group, node, device, name = [*tag.split("/", 3), "", "", ""][:4]
        if not name:
            raise Refused(
                f"{tag[:200]!r} names no metric: write GROUP/NODE/DEVICE/METRIC, or GROUP/NODE//METRIC for one of the edge node itself"
            )
        where = f"{group}/{node}" + (f"/{device}" if device else "")
        with self._busy:
            if not self._settings.primary:
                raise Refused(f"the host {self._settings.host_id} only listens: set primary to send commands")
            known = self._nodes.get(f"{group}/{node}")
            if known is None or known.status != "online" or (found := known.devices.get(device)) is None or not found.online:
                raise Unavailable(f"{where} is not online: wait for its birth")
            if (told := found.tags.get(name)) is None:
                raise Refused(f"{where} has no metric {name!r}: its birth names {', '.join(sorted(found.tags)[:20])}")
            kind = type_of(told.type or 0)
            named = {"alias": told.alias} if told.alias in found.aliases and name != REBIRTH else {"name": name}
            metric = metric_of(written(kind, value) if isinstance(value, str) else value, kind, timestamp=self._ms(), **named)
            topic = Topic("DCMD", group, node, device) if device else Topic("NCMD", group, node)
            _log.info("Sparkplug: %s writes %s = %r, on %s", by, tag, value, topic, extra={"whole": True})
            sent = self._publish(known, topic, metric)
        for one in sent:
            one.wait_for_publish(SENT_S)
        if not any(one.is_published() for one in sent):
            _log.warning("Sparkplug: what %s wrote to %s was not taken by the connection", by, tag, extra={"whole": True})
            raise Unavailable(
                f"the command for {where} was not taken by the connection to its broker, and may not have been sent: look at the device"
            )
        return str(topic)

    # -- inside

    def _recall(self, remembered: Callable[[str], bytes | None], now: float) -> None:
        self._nodes, self._touched, self._known = {}, {}, set()
        for producer in msgspec.msgpack.decode(remembered(self._index) or msgspec.msgpack.encode([]), type=list[str]):
            node = self._node(*producer.split("/"))
            if node.remember(remembered):
                node.lost(self._clock(), now)
                self._nodes[producer], self._touched[node] = node, None
                self._known.add(producer)

    def _node(self, group: str, node: str) -> EdgeNode:
        settings = self._settings
        return EdgeNode(
            settings.host_id, group, node, reorder_s=settings.reorder_s, reach_s=settings.history_reach_s, asks=settings.primary
        )  # fmt: skip

    def _take(self, broker: "Broker", client: mqtt.Client, message: mqtt.MQTTMessage) -> int:
        """Give a message to its edge node; how many readings it has at most."""

        def done() -> None:
            client.ack(message.mid, message.qos)  # to the session it came in, if that is still there: each has a client of its own

        if broker.lost and client is broker.client:  # the first of a new session
            self._lose(broker)
        try:
            topic = topic_of(topic_text(message))
            if topic.kind.endswith("CMD") or message.retain:  # a command, maybe our own; a message that is no news
                done()
                return 0
            payload = decode(bytes(message.payload))
            node = self._nodes.get(f"{topic.group}/{topic.node}") or self._welcome(topic)
            if node is not None and topic.kind.endswith("BIRTH"):
                before = node.devices.get(topic.device or "")
                self._make_room(len(payload.metrics) - (len(before.tags) if before else 0))
        except Refused as error:
            _log.warning("Sparkplug: %s (%s)", error, topic_text(message)[:200])
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
            broker.tend(now)
            if broker.lost and not self._inbox:
                self._lose(broker)
            if broker.online and not broker.announced:
                broker.announced = True
                self._ask_s = now + max(self._settings.reorder_s, 1.0)  # those that wait for STATE give a birth by themselves

    def _lose(self, broker: Broker) -> None:
        """A session is over, and all that came in it is taken."""
        broker.lost = False
        _log.warning("Sparkplug: %s", broker.trouble)
        for node in self._nodes.values():
            if node.broker == broker.index:
                node.lost(self._clock(), time.monotonic())
                self._touched[node] = None

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
                self._publish(node, Topic("NCMD", node.group, node.node), metric_of(True, DataType.Boolean, REBIRTH, timestamp=self._ms()))
            if (observed := node.collect()) is None:
                continue
            if node.producer not in self._known:
                self._known.add(node.producer)
                observed.memory = {**observed.memory, self._index: msgspec.msgpack.encode(sorted(self._known))}
            found.append(observed)
        self._touched = {}
        return found

    def _publish(self, node: EdgeNode, topic: Topic, metric: Metric) -> list[mqtt.MQTTMessageInfo]:
        """To the broker that the node is at, or to all while that is not known; what they were handed."""
        body = encode(Payload(self._ms(), None, [metric]))
        at = [broker for broker in self._brokers if broker.online and (node.status != "online" or broker.index == node.broker)]
        return [info for broker in at if (info := broker.publish(str(topic), body)) is not None]

    def _ms(self) -> int:
        return ms_of(self._clock())


def topic_text(message: mqtt.MQTTMessage) -> str:
    return bytes(message._topic).decode("utf-8", "backslashreplace")
