"""MQTT in: QoS 1 with manual acknowledgement and a persistent session, so that the broker keeps whatever the hub has not made durable.

paho's own thread only puts bytes into a bounded queue; it must not raise, or its loop ends silently (reliability.md §4). While the queue is
full that thread waits, so the broker does too. That the connection really carries messages is known from a heartbeat that goes through the
broker, not from a flag.
"""

import logging
import queue
import ssl
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from adapters.formats.mqtt_filters import widest
from events.errors import Unavailable
from hub import limits
from hub.intake.delivery import Delivery, Outcome, trace_header

_log = logging.getLogger(__name__)
CONNECT_S = 10.0
CHECK_S = 2.0  # how long `check` listens
HEARTBEAT_S = 5.0  # how often a heartbeat is sent
SILENT_S = 15.0  # one that did not come back for this long: the connection is dead, whatever paho says
KEEPALIVE_S = 15
UNSPECIFIED = 128  # MQTT's reason code
SESSION_S = 7 * 24 * 3600  # an MQTT 5 broker keeps the session of a client that is away for this long


class MqttAdapter:
    """Subscribes to topics of one broker under a fixed client id.

    `session_expiry_s` 0: no session is kept. MQTT 3.1.1 knows no expiry: there the broker says how long. `label` tells sessions of one broker apart,
    `where` is what people correct.
    """

    def __init__(
        self,
        host: str,
        port: int,
        topics: Sequence[str],
        client_id: str,
        *,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | bool = False,
        version: Literal["3.1.1", "5"] = "3.1.1",
        session_expiry_s: int = SESSION_S,
        where: str = "HUB_MQTT_URL",
        label: str = "",
    ) -> None:
        self._host, self._port, self._topics, self._client_id = host, port, widest(topics), client_id
        self._credentials = (username, password)
        self._tls, self._where, self._label = tls, where, label
        self._version, self._session_expiry_s = version, session_expiry_s
        self._heartbeat_topic = f"hub/heartbeat/{client_id}"
        self._messages: queue.Queue[tuple[int, mqtt.MQTTMessage]] = queue.Queue(limits.MQTT_WAITING_MAX)
        self._waiting_bytes = 0  # of the payloads in it, or a little less
        self._client: mqtt.Client | None = None
        self._lock = threading.Lock()
        self._session = 0  # counts connections: an acknowledgement belongs to the one its message came on
        self._subscribed = threading.Event()
        self._refusal = ""
        self._ended = ""  # why the broker ended the connection, in its words
        self.resumed = False  # the broker still had the session of before
        self.granted_s: int | None = None  # how long an MQTT 5 broker keeps it, if not as long as asked
        self._beat_sent = 0.0
        self._beat_missing_since = 0.0  # when the first heartbeat was sent that has not come back; 0 if none is missing

    @property
    def name(self) -> str:
        return f"mqtt {self._label + ' ' if self._label else ''}{self._host}:{self._port}"

    def open(self) -> None:
        """Connect, subscribe, and wait until the broker has confirmed both."""
        self.close()
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            clean_session=None if self._version == "5" else self._session_expiry_s == 0,
            protocol=mqtt.MQTTv5 if self._version == "5" else mqtt.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        if self._credentials[0]:
            client.username_pw_set(*self._credentials)
        if isinstance(self._tls, ssl.SSLContext):
            client.tls_set_context(self._tls)
        elif self._tls:
            client.tls_set()
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        self._messages, self._waiting_bytes = queue.Queue(limits.MQTT_WAITING_MAX), 0
        self._subscribed.clear()
        self._refusal = self._ended = ""
        with self._lock:
            self._session += 1
            self._client = client
        try:
            client.connect(self._host, self._port, keepalive=KEEPALIVE_S, **self._asked())
        except ssl.SSLError as error:
            own = "authority" if isinstance(self._tls, ssl.SSLContext) else "SSL_CERT_FILE"
            raise Unavailable(
                f"the MQTT broker {self._host}:{self._port} offers no TLS that can be trusted ({error}): correct its certificate or {self._where}; "
                f"the certificate of a CA of your own is named in {own}"
            ) from error
        except OSError as error:
            raise Unavailable(
                f"the MQTT broker {self._host}:{self._port} cannot be reached ({error}): start it or correct {self._where}"
            ) from error
        client.loop_start()
        if not self._subscribed.wait(CONNECT_S) or self._refusal:
            self.close()
            raise Unavailable(self._refused())
        self._beat_sent, self._beat_missing_since = time.monotonic(), 0.0

    def check(self) -> Sequence[str]:
        """Connect under a name of its own, so that who runs keeps its session, and listen a little. Raises `Unavailable`, also where no heartbeat
        comes back."""
        tried = MqttAdapter(
            self._host,
            self._port,
            self._topics,
            f"{self._client_id}-check",
            username=self._credentials[0],
            password=self._credentials[1],
            tls=self._tls,
            version=self._version,
            session_expiry_s=0,
            where=self._where,
        )
        tried.open()
        try:
            tried._beat_sent = -HEARTBEAT_S - 1  # at once
            heard, until = 0, time.monotonic() + CHECK_S
            ended = ""
            while (left := until - time.monotonic()) > 0 and not ended:
                try:
                    heard += len(tried.receive(limits.INTAKE_BATCH_MAX, min(left, 0.2)))
                except Unavailable as error:  # some brokers end the connection of a client that may not write there
                    ended = str(error)
            if tried._beat_missing_since:
                raise Unavailable(
                    f"the MQTT broker {self._host}:{self._port} let no heartbeat through in {CHECK_S:.0f} s: allow this client to write and read "
                    f"{self._heartbeat_topic} (and {tried._heartbeat_topic} for this check)"
                )
            if ended:
                raise Unavailable(ended)
        finally:
            tried.close()
        return [
            f"connected to {self._host}:{self._port} with MQTT {self._version}{', TLS' if self._tls else ''}",
            f"subscribed to {', '.join(self._topics)}",
            f"{heard} messages in {CHECK_S:.0f} s, retained ones among them",
        ]

    def receive(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        """What came, in its order. Raises `Unavailable` when the heartbeat stays away."""
        self._beat()
        found: list[Delivery] = []
        size = 0
        while len(found) < limit and size < limits.MQTT_WAITING_BYTES_MAX:
            try:
                session, message = self._messages.get(timeout=0 if found else wait_s)
            except queue.Empty:
                break
            with self._lock:
                self._waiting_bytes -= len(message.payload)
            size += len(message.payload)
            found.append(self._delivery(session, message))
        return found

    def close(self) -> None:
        """Disconnect; the broker keeps the session and what is not acknowledged."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _asked(self) -> dict[str, Any]:
        """What MQTT 5 says at the start: keep the session, and never more under way than we hold."""
        if self._version != "5":
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._session_expiry_s
        properties.ReceiveMaximum = limits.MQTT_WAITING_MAX
        return {"clean_start": False, "properties": properties}

    def _refused(self) -> str:
        return (
            f"the MQTT broker {self._host}:{self._port} {self._refusal or 'did not confirm the subscription in time'}: look at its log and at "
            f"what this client may do there, or correct {self._where} or its topics"
        )

    def _beat(self) -> None:
        now = time.monotonic()
        if self._refusal:  # an answer that came late
            self.close()
            raise Unavailable(self._refused())
        client, missing_since = self._client, self._beat_missing_since
        lost = client is None or not client.is_connected() or self._ended != ""
        silent = missing_since != 0.0 and now - missing_since > SILENT_S
        if client is None or lost or silent:
            self.close()
            what = (
                f"is lost{f' ({self._ended})' if self._ended else ''}"
                if lost
                else f"carries nothing: no heartbeat came back for {SILENT_S:.0f} s"
            )
            # some brokers drop the words of a client that may not write there, some drop the client
            hint = f"; if this repeats, allow this client to write and read {self._heartbeat_topic}" if missing_since else ""
            raise Unavailable(f"the connection to the MQTT broker {self._host}:{self._port} {what}: connecting again{hint}")
        if now - self._beat_sent > HEARTBEAT_S:
            self._beat_sent = now
            self._beat_missing_since = self._beat_missing_since or now  # before it is sent: its answer may be here sooner than we are back
            client.publish(self._heartbeat_topic, b"", qos=0)

    def _delivery(self, session: int, message: mqtt.MQTTMessage) -> Delivery:
        def done(outcome: Outcome) -> None:
            with self._lock:
                # after a reconnect the broker sends it again under a number of the new session, which may by now be another message's
                if session == self._session and self._client is not None:
                    self._client.ack(message.mid, message.qos)

        headers = {"topic": bytes(message._topic).decode("utf-8", "backslashreplace"), "retained": str(message.retain)}
        if message.properties is not None:
            headers |= trace_header(dict(getattr(message.properties, "UserProperty", [])).get("traceparent"))
        return Delivery(bytes(message.payload), "mqtt", datetime.now(UTC), headers, done)

    # -- paho's thread: nothing here may raise ---------------------------------------------------------------------------------------

    def _on_connect(self, client: mqtt.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refusal = f"refused the connection: {reason}"
            self._subscribed.set()
            return
        self.resumed = bool(flags.session_present)
        self.granted_s = getattr(properties, "SessionExpiryInterval", None)
        if self.granted_s is not None and self.granted_s < self._session_expiry_s:
            _log.warning("%s keeps the session for %d s only, asked for %d s", self.name, self.granted_s, self._session_expiry_s)
        try:
            if self._version == "5":  # what is retained is sent once, not after every cut
                new_only = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
                asked = [(topic, SubscribeOptions(qos=1, retainHandling=new_only)) for topic in self._topics]
                client.subscribe(
                    [*asked, (self._heartbeat_topic, SubscribeOptions(qos=0, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND))]
                )
            else:
                client.subscribe([(topic, 1) for topic in self._topics] + [(self._heartbeat_topic, 0)])
        except ValueError as error:  # paho's word for a filter that MQTT does not allow
            self._refusal = f"cannot be asked for {', '.join(self._topics)} ({error})"
            self._subscribed.set()

    def _on_disconnect(self, client: mqtt.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is not self._client:
            return
        if reason.value != UNSPECIFIED:  # what paho says for want of the broker's word, also after it
            self._ended = str(reason)
        if not self._subscribed.is_set():  # TLS 1.3 refuses a client only after its handshake
            hint = ", perhaps because it trusts another client certificate or wants one" if self._tls else ""
            self._refusal = self._refusal or f"ended the connection at once ({reason}{hint})"
            self._subscribed.set()

    def _on_subscribe(self, client: mqtt.Client, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        refused = [topic for topic, reason in zip([*self._topics, self._heartbeat_topic], reasons, strict=False) if reason.is_failure]
        if refused:
            self._refusal = f"refused the subscription to {', '.join(refused)}"
        self._subscribed.set()

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        self._beat_missing_since = 0.0  # by any message: behind a long row of them a heartbeat may be late
        if bytes(message._topic) == self._heartbeat_topic.encode():
            return
        if self._messages.full() or self._waiting_bytes > limits.MQTT_WAITING_BYTES_MAX:
            # what a session held comes before the answer to the subscription, and is taken only when `open` is done
            self._subscribed.set()
        while client is self._client:  # what is not taken before the end comes again
            if self._waiting_bytes > limits.MQTT_WAITING_BYTES_MAX and not self._messages.empty():
                time.sleep(0.02)
                continue
            try:
                self._messages.put((self._session, message), timeout=0.1)
            except queue.Full:
                continue
            with self._lock:
                self._waiting_bytes += len(message.payload)
            return
