"""The MES of the simulated plant: canonical JSON over MQTT 3.1.1 at QoS 1, one message a fact, on a topic for each station."""

import queue
import sys
import time
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hub.app.demo.plant.part import Part, arguments, note, stop_on_sigterm
from hub.app.demo.plant.plan import Message

CLIENT = "plant-mes"
IN_FLIGHT = 20  # messages the broker has not acknowledged yet; the MQTT client's own default


class Mqtt:
    """A road over MQTT; paho reconnects by itself, for ever, and repeats what the broker did not acknowledge."""

    window = IN_FLIGHT

    def __init__(self, url: str, topic: str) -> None:
        parts = urlsplit(url if "://" in url else f"mqtt://{url}")
        self._topic = topic
        self._sent: dict[int, int] = {}  # message id to index
        self._acks: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=CLIENT, clean_session=False)
        if parts.username:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.reconnect_delay_set(1, 5)
        self._client.on_publish = self._published
        self._client.on_disconnect = lambda _c, _u, _f, code, _p: note("mes", f"{url}: disconnected ({code}), reconnects")
        self._client.on_connect_fail = lambda _c, _u: note("mes", f"{url}: no broker answers, tries again")
        self._client.connect_async(parts.hostname or "127.0.0.1", parts.port or 1883, keepalive=30)
        self._client.loop_start()

    def _published(self, client: mqtt.Client, userdata: object, mid: int, code: ReasonCode, properties: Properties) -> None:
        self._acks.put(mid)  # on paho's thread, under its lock: nothing else may happen here

    def offer(self, index: int, message: Message) -> None:
        """Hand it to the client, which sends it when it can."""
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
    chosen = parser.parse_args()
    return Part("mes", chosen, stop_on_sigterm()).run(Mqtt(chosen.mqtt, chosen.topic))


if __name__ == "__main__":
    sys.exit(main())
