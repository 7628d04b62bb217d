"""The MES of the simulated plant: canonical JSON over MQTT 3.1.1 at QoS 1, one message a fact, on a topic for each station.

A broker keeps a message for sessions that have subscribed and confirms it even where there is none. So before its very first message the MES
waits for a sign on the hub's heartbeat topic that the hub has subscribed; from then on the hub's persistent session keeps everything.
"""

import queue
import sys
import threading
import time
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hub.app.demo.plant.part import Part, Stopped, arguments, note, stop_on_sigterm
from hub.app.demo.plant.plan import Message

CLIENT = "plant-mes"
IN_FLIGHT = 20  # messages the broker has not acknowledged yet; the MQTT client's own default


class Mqtt:
    """A road over MQTT; paho reconnects by itself, for ever, and repeats what the broker did not acknowledge."""

    window = IN_FLIGHT

    def __init__(self, url: str, topic: str, sign: str, stop: threading.Event) -> None:
        parts = urlsplit(url if "://" in url else f"mqtt://{url}")
        self._topic = topic
        self._sign = sign
        self._stop = stop
        self._heard = threading.Event()
        self._sent: dict[int, int] = {}  # message id to index
        self._acks: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=CLIENT, clean_session=False)
        if parts.username:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.reconnect_delay_set(1, 5)
        self._client.on_publish = self._published
        self._client.on_connect = self._connected
        self._client.on_message = lambda _c, _u, _m: self._heard.set()
        self._client.on_disconnect = lambda _c, _u, _f, code, _p: note("mes", f"{url}: disconnected ({code}), reconnects")
        self._client.on_connect_fail = lambda _c, _u: note("mes", f"{url}: no broker answers, tries again")
        self._client.connect_async(parts.hostname or "127.0.0.1", parts.port or 1883, keepalive=30)
        self._client.loop_start()

    def _published(self, client: mqtt.Client, userdata: object, mid: int, code: ReasonCode, properties: Properties) -> None:
        self._acks.put(mid)  # on paho's thread, under its lock: nothing else may happen here

    def _connected(self, client: mqtt.Client, userdata: object, flags: mqtt.ConnectFlags, code: ReasonCode, _: Properties | None) -> None:
        if code.is_failure:
            note("mes", f"the broker refuses the connection: {code}")
        elif self._sign and not self._heard.is_set():
            client.subscribe(self._sign, 0)

    def await_hub(self) -> None:
        """Wait until the hub has subscribed. Raises `Stopped`."""
        waited = 0
        while self._sign and not self._heard.wait(0.1):
            if self._stop.is_set():
                raise Stopped
            waited += 1
            if waited % 100 == 0:
                note("mes", f"waits for a message on {self._sign}: the hub has not subscribed yet")
        if self._sign:
            self._client.unsubscribe(self._sign)

    def offer(self, index: int, message: Message) -> None:
        """Hand it to the client, which sends it when it can."""
        if index == 0:
            self.await_hub()
        info = self._client.publish(f"{self._topic}/{message.target}", message.body, qos=1)
        self._sent[info.mid] = index

    def acknowledged(self, wait_s: float) -> Sequence[int]:
        """What the broker has acknowledged."""
        found: list[int] = []
        until = time.monotonic() + wait_s
        try:
            while True:
                mid = self._acks.get(timeout=max(0.0, until - time.monotonic())) if not found else self._acks.get_nowait()
                found.append(self._sent.pop(mid))
        except queue.Empty:
            return found

    def close(self) -> None:
        """Say goodbye to the broker."""
        self._client.disconnect()
        self._client.loop_stop()


def main() -> int:
    """Run it."""
    parser = arguments("mes", "MQTT")
    parser.add_argument("--mqtt", required=True, metavar="HOST:PORT", help="the broker, also as mqtt://user:password@host:port")
    parser.add_argument("--topic", default="plant/plant-1/mes", help="first levels of the topics")
    parser.add_argument("--sign", default="hub/heartbeat/#", help="topics on which the hub shows that it has subscribed; '' does not wait")
    chosen = parser.parse_args()
    stop = stop_on_sigterm()
    return Part("mes", chosen, stop).run(Mqtt(chosen.mqtt, chosen.topic, chosen.sign, stop))


if __name__ == "__main__":
    sys.exit(main())
