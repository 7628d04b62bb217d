"""What an edge must know of one OPC UA server: where it is, who we are, what is read there and how."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from events.errors import Refused, Unavailable


@dataclass(frozen=True, slots=True)
class Start:
    """Where browsing starts, and which of the variables below it are read.

    `node` is a node id ("nsu=http://plant/;s=Line1", "i=85") or a path of browse names from the root's Objects folder ("m:Machines/m:Press",
    prefixes from `namespaces`, none for the standard's namespace; "&" before a "/" or ":" of a name). A variable's tag is `tag`, then its path
    below the start; a start that is a variable itself is one tag. `only` and `but` are patterns (*, ?) for the part below the start.
    """

    node: str
    tag: str = ""
    only: tuple[str, ...] = ()
    but: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sequence:
    """A value that counts up by one: a jump means that values of the tag, and of those of `of` (patterns), never came.

    After `modulus` - 1 comes 0; without one, a smaller number is a new beginning.
    """

    tag: str
    of: tuple[str, ...] = ()
    modulus: int | None = None


@dataclass(frozen=True, slots=True)
class OpcUaSettings:
    """One server. `rate_hz` is how often a value changes at most; with it the server's queues are sized so that they outlast `outage_s`."""

    url: str
    producer: str
    starts: tuple[Start, ...]
    namespaces: Mapping[str, str] = field(default_factory=dict)  # prefix to URI
    security: Literal["None", "Basic256Sha256"] = "None"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    certificate: Path | None = None  # ours, PEM or DER
    key: Path | None = None
    server_certificate: Path | None = None  # the only one that is trusted
    user: str | None = None
    password_env: str | None = None
    publishing_s: float = 1.0
    sampling_s: float = 0.0  # 0: as fast as the server can
    rate_hz: float = 10.0
    outage_s: float = 60.0
    queue: int | None = None  # values the server keeps for each item; None: by rule
    dead_band: float | None = None  # absolute
    history: bool = True
    sequences: tuple[Sequence, ...] = ()
    answer_s: float = 5.0  # an answer of the server that takes longer is none
    keep_alive_s: float = 1.0  # the server says at least this often that it is there

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "opc.tcp" or not parts.hostname:
            raise Refused(f"{self.url!r} is no address of an OPC UA server: write opc.tcp://HOST:4840/PATH")
        if "@" in parts.netloc:
            raise Refused("the address of an OPC UA server holds no password: name user and password_env")
        if not self.starts:
            raise Refused(f"nothing is read from {self.url}: name at least one start")
        if self.security != "None":
            files = {"certificate": self.certificate, "key": self.key, "server_certificate": self.server_certificate}
            if missing := [name for name, path in files.items() if path is None]:
                raise Refused(f"security {self.security} of {self.url} needs files: set {', '.join(missing)}")
        if self.user and not self.password_env:
            raise Refused(f"user {self.user} of {self.url} has no password: set password_env to the name of a variable that holds it")
        positive = ("publishing_s", "rate_hz", "outage_s", "queue", "answer_s", "keep_alive_s")
        if wrong := [name for name in positive if (value := getattr(self, name)) is not None and value <= 0]:
            raise Refused(f"{', '.join(wrong)} of {self.url} must be more than 0")

    @property
    def queue_size(self) -> int:
        """Values that the server shall keep for each item: its own number, or the rate times what publishing and an outage may take."""
        return self.queue or max(2, round(self.rate_hz * (self.publishing_s + self.outage_s)))

    def password(self) -> str | None:
        """The password, from the environment. Raises `Unavailable`."""
        if not self.password_env:
            return None
        found = os.environ.get(self.password_env)
        if found is None:
            raise Unavailable(f"the password of {self.user} at {self.url} is missing: set the variable {self.password_env}")
        return found

    def about_subscription(self) -> str:
        """What a subscription depends on: with other settings another one is made."""
        parts = (
            self.starts, sorted(self.namespaces.items()), self.user, self.publishing_s, self.sampling_s, self.queue_size, self.dead_band,
            self.outage_s, self.keep_alive_s, self.url,
        )  # fmt: skip
        return repr(parts)
