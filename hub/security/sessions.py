"""Sessions of the console: what a browser keeps instead of a token. They live in the memory of one process and end with it."""

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from hub import limits
from hub.security.people import Person


@dataclass(frozen=True, slots=True)
class Session:
    """Who signed in, as they were then, and the digest of the token that they showed: a session lasts no longer than its token."""

    person: Person
    digest: bytes
    until: float


class Sessions:
    """At most `SESSIONS_MAX`, each for `SESSION_S`; of the secrets only hashes are kept. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Session] = OrderedDict()  # in the order of their ends

    def begin(self, person: Person, digest: bytes) -> str:
        """A new session's secret, for a cookie."""
        secret = secrets.token_hex(32)
        with self._lock:
            self._forget()
            if len(self._known) >= limits.SESSIONS_MAX:
                self._known.popitem(last=False)
            self._known[_hash(secret)] = Session(person, digest, self._clock() + limits.SESSION_S)
        return secret

    def find(self, secret: str) -> Session | None:
        """The session of a secret, as long as it lasts."""
        with self._lock:
            self._forget()
            return self._known.get(_hash(secret))

    def end(self, secret: str) -> None:
        """End a session, if it is one."""
        with self._lock:
            self._known.pop(_hash(secret), None)

    def _forget(self) -> None:
        now = self._clock()
        while self._known and next(iter(self._known.values())).until <= now:
            self._known.popitem(last=False)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
