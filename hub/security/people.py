"""People as the hub knows them: `identify` finds who shows a token, from the token's hash and the last fact of the person's stream.

No view is asked, which may be behind or in the middle of a rebuild: what was revoked is revoked when its fact is in the log.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import psycopg

from events.base import PERSON
from events.errors import Corrupt, Refused, Unavailable
from events.security import AccessGranted, AccessRevoked, PersonRenamed
from hub import limits
from hub.log.store import last_of
from hub.security.tokens import NotIdentified, parsed

R = TypeVar("R")
Cursor = psycopg.Cursor[tuple[Any, ...]]
_UNKNOWN = "the token is nobody's, or not any more: `hub people token NAME` on the hub's machine makes a new one"


class NotAllowed(Refused):
    """Who asks is known, and may not."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who decides. The id is the person, for ever; the name and the roles are those of now."""

    id: str
    name: str
    roles: frozenset[str]

    @property
    def actor(self) -> str:
        """How facts name this person: the stream of their access."""
        return f"person/{self.id}"

    @staticmethod
    def is_actor(actor: str) -> bool:
        """Whether the actor of a fact is a person."""
        return PERSON.fullmatch(actor) is not None


class People:
    """Finds people, as the role that alone may read the hashes of their tokens. A connection a question."""

    def __init__(self, url: str) -> None:
        self._url = url

    def identify(self, token: str) -> Person:
        """Whose token it is. Raises `NotIdentified` where it is nobody's or the person has no access any more, `Unavailable`."""
        return self.still(*parsed(token))

    def still(self, person: str, digest: bytes) -> Person:
        """The person, as long as that is the digest of their token; as `identify`."""

        def work(cursor: Cursor) -> Person:
            row = cursor.execute("select sha256 from security.token where person = %s", [person]).fetchone()
            kept = bytes(row[0]) if row else bytes(len(digest))
            if not hmac.compare_digest(kept, digest) or row is None:
                raise NotIdentified(_UNKNOWN)
            found = standing(cursor, person)
            if found is None or not found.roles:
                raise NotIdentified(_UNKNOWN)
            cursor.execute(
                "update security.token set seen_at = clock_timestamp() where person = %s and (seen_at is null or seen_at < now() - %s * interval '1 s')",
                [person, limits.SEEN_S],
            )
            return found

        return self._run(work)

    def tokens(self) -> dict[str, tuple[datetime, datetime | None]]:
        """When each person's token was made, and when it was last used, to a minute."""
        rows = self._run(lambda cursor: cursor.execute("select person, made_at, seen_at from security.token").fetchall())
        return {person: (made_at, seen_at) for person, made_at, seen_at in rows}

    def _run(self, work: Callable[[Cursor], R]) -> R:
        try:
            with psycopg.connect(self._url, application_name="hub people") as connection, connection.cursor() as cursor:
                cursor.execute(f"set local statement_timeout = '{limits.IDENTIFY_S}s'")
                cursor.execute("set local synchronous_commit = off")  # of `seen_at`, which nobody misses
                return work(cursor)
        except psycopg.OperationalError as error:
            raise Unavailable(f"who shows a token cannot be looked up: {error}") from error


def standing(cursor: Cursor, person: str) -> Person | None:
    """A person as the last fact about them says, in the caller's transaction; with no roles where access has ended. Raises `Corrupt`."""
    last = last_of(cursor, f"person/{person}")
    if last is None:
        return None
    event = last.event
    if not isinstance(event, AccessGranted | AccessRevoked | PersonRenamed):
        raise Corrupt(f"the stream of person {person} ends with a {event.type} at position {last.position}: compare the log with a backup")
    return Person(person, event.name, frozenset(event.held))
