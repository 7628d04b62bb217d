"""What is done to the register of people by whoever has the owner's access to the home: the fact, and the token beside it.

Changes are made one after the other under a lock of the database. The fact comes first and the token after it: who dies in between leaves a
person without a token, never a token without a person.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from events.base import Envelope, Event, Fact
from events.errors import Unavailable
from events.security import ActPerformed, Change
from hub import limits
from hub.app.answers import caught_up
from hub.app.settings import Settings, secret
from hub.app.wiring import Hub, open_hub
from hub.log.codec import row_of
from hub.security import register as rules
from hub.security.people import Cursor, Person
from hub.security.register import Register
from hub.security.tokens import new_person, new_token
from projections import people

SOURCE = "hub:people"
OWNER = "owner"  # the actor where nobody showed a token: who has the home
TOKEN = "HUB_TOKEN"
_LOCK = 0x70656F706C65  # advisory lock of the database: one change of people at a time
_VIEW = people.People.name


@dataclass(frozen=True, slots=True)
class Made:
    """A person after a change, and the token where one was made: it is kept nowhere."""

    person: Person
    token: str = ""


def add(hub: Hub, name: str, roles: Collection[str], actor: str = OWNER) -> Made:
    """Give access to a person, with a token of their own. Raises `Refused`."""
    return _changed(hub, lambda known: rules.added(known, name, roles, new_person()), actor, token=True)


def grant(hub: Hub, name: str, roles: Collection[str], actor: str = OWNER) -> Made:
    """Give a person more roles. Raises `Refused`."""
    return _changed(hub, lambda known: rules.granted(known, name, roles), actor)


def take(hub: Hub, name: str, roles: Collection[str], actor: str = OWNER) -> Made:
    """Take roles from a person. Raises `Refused`."""
    return _changed(hub, lambda known: rules.taken(known, name, roles), actor)


def rename(hub: Hub, name: str, new: str, actor: str = OWNER) -> Made:
    """Give a person another name. Raises `Refused`."""
    return _changed(hub, lambda known: rules.renamed(known, name, new), actor)


def revoke(hub: Hub, name: str, actor: str = OWNER) -> Made:
    """End a person's access; their token with it. Raises `Refused`."""
    return _changed(hub, lambda known: rules.revoked(known, name), actor)


def renew(hub: Hub, name: str, actor: str = OWNER) -> Made:
    """Make a new token for a person; the old one ends, and sessions with it. Raises `Refused`."""
    with _locked(hub) as (cursor, known):
        entry = rules.active(known, name)
        person = Person(entry.person, entry.name, entry.roles)
        record(hub, actor, "people.token", person.actor)
        token, digest = new_token(person.id)
        _keep(cursor, person.id, digest)
    return Made(person, token)


def record(hub: Hub, actor: str, action: str, subject: str) -> None:
    """Tell in the log that somebody did an act that no other fact tells of."""
    at = datetime.now(UTC)
    hub.log.append([_fact(ActPerformed(action=action, subject=subject), f"{action}/{new_person()}", at, actor)])


def given(hub: Hub, environ: Mapping[str, str] | None = None) -> Person | None:
    """Whose token is in HUB_TOKEN, for what is done with or without one. Raises `NotIdentified` for one that is nobody's."""
    token = secret(os.environ if environ is None else environ, TOKEN)
    return None if token is None else hub.people.identify(token)


def actor_of(person: Person | None, otherwise: str = OWNER) -> str:
    """How a fact names who acted."""
    return otherwise if person is None else person.actor


@contextlib.contextmanager
def acting(settings: Settings) -> Iterator[Callable[[str, str], None]]:
    """What to call with action and subject when an act is done: it is recorded where HUB_TOKEN says who does it. Without, no database is needed."""
    if secret(os.environ, TOKEN) is None:
        yield lambda action, subject: None
        return
    with open_hub(settings) as hub:
        actor = actor_of(given(hub))
        yield lambda action, subject: record(hub, actor, action, subject)


def _changed(hub: Hub, decide: Callable[[Register], Change], actor: str, *, token: bool = False) -> Made:
    made = ""
    with _locked(hub) as (cursor, known):
        event = decide(known)
        row = row_of(_fact(event, f"{event.person}/{event.change}/{new_person()}", datetime.now(UTC), actor))
        row.version = event.change  # another change that got between is refused, should the lock have been lost with its session
        hub.log.append_rows([row])
        if token:
            made, digest = new_token(event.person)
            _keep(cursor, event.person, digest)
        if not event.held:
            cursor.execute("delete from security.token where person = %s", [event.person])
    return Made(Person(event.person, event.name, frozenset(event.held)), made)


def _keep(cursor: Cursor, person: str, digest: bytes) -> None:
    cursor.execute(
        """insert into security.token values (%s, %s, clock_timestamp(), null)
           on conflict (person) do update set sha256 = excluded.sha256, made_at = excluded.made_at, seen_at = null""",
        [person, digest],
    )


@contextlib.contextmanager
def _locked(hub: Hub) -> Iterator[tuple[Cursor, Register]]:
    """A cursor of the owner, and the register, while nobody else changes it. Raises `Unavailable`."""
    try:
        with psycopg.connect(hub.database.owner_url, application_name="hub people") as connection, connection.cursor() as cursor:
            cursor.execute(f"set local lock_timeout = '{limits.LOCK_TIMEOUT_S}s'")
            cursor.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
            with caught_up(hub, (_VIEW,)) as reading:
                known = people.register(reading)
            yield cursor, known
    except psycopg.errors.LockNotAvailable as error:
        raise Unavailable(f"somebody else changes people for more than {limits.LOCK_TIMEOUT_S:.0f} s: try again") from error
    except psycopg.OperationalError as error:
        raise Unavailable(f"the database cannot be reached as its owner: {error}; `hub people list` shows what was done") from error


def _fact(event: Event, key: str, at: datetime, actor: str) -> Fact:
    """A fact of ours. Its key has a part that nobody can know before, so that no source can take it first."""
    return Fact(Envelope(source=SOURCE, key=key, occurred_at=at, effective_at=at, actor=actor, mapping="people/1"), event)
