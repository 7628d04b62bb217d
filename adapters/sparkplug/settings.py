"""What a Sparkplug host application is told: its brokers, its name, and who it is to them."""

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from adapters.formats.sparkplug import NAMESPACE, identifier
from events.errors import Refused
from hub.tls import client_context


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
    reorder_s: float = 5.0
    history_reach_s: float = 0.0
    mqtt: Literal["3.1.1", "5"] = "3.1.1"
    client_id: str = ""
    username: str | None = None
    password_env: str | None = None
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if not self.brokers:
            raise Refused("a Sparkplug host needs a broker: name one in brokers, as mqtt://host:1883")
        for url in self.brokers:
            address(url)
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


def address(url: str) -> tuple[str, int, bool]:
    """Host, port, and whether it is TLS. Raises `Refused`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Refused(f"the broker {url!r} is no URL ({error}): write mqtt://host:1883 or mqtts://host:8883") from error
    if parts.scheme not in ("mqtt", "mqtts") or not host or parts.path.strip("/") or parts.username or parts.query:
        raise Refused(f"the broker {url!r} cannot be used: write mqtt://host:1883 or mqtts://host:8883, the user in username")
    return host, port or (8883 if parts.scheme == "mqtts" else 1883), parts.scheme == "mqtts"


def tls_of(settings: SparkplugSettings) -> ssl.SSLContext | None:
    """What the brokers are trusted by, and what we show them; None where none of them speaks TLS. Raises `Unavailable`."""
    if not any(address(url)[2] for url in settings.brokers):
        return None
    return client_context(settings.authority, settings.certificate, settings.key)
