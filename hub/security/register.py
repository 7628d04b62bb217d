"""The register of people, and what may be done with it: pure functions from what is known to the fact that says the change.

A name that a person has or had is theirs for ever, however it is written (case, width): so nobody is taken for another, and who comes back
under it is the same person to the four-eyes rule.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from events.errors import Refused
from events.security import AccessGranted, AccessRevoked, Change, PersonRenamed

ROLE = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
NAME_CHARS_MAX = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """A person in the register. `names`: all that they ever had, folded. No roles: access has ended."""

    person: str
    name: str
    roles: frozenset[str]
    change: int
    names: frozenset[str] = field(default_factory=frozenset)


Register = Mapping[str, Entry]  # by person


def folded(name: str) -> str:
    """What two ways to write one name have alike."""
    return unicodedata.normalize("NFKC", name).casefold()


def owner(register: Register, name: str) -> Entry | None:
    """Whose name it is or was."""
    wanted = folded(name)
    return next((entry for entry in register.values() if wanted in entry.names or wanted == folded(entry.name)), None)


def found(register: Register, name: str) -> Entry:
    """The person of that name. Raises `Refused` for an unknown name or a former one."""
    entry = owner(register, name)
    if entry is None:
        raise Refused(f"nobody is called {name[:80]!r}: `hub people list` shows who is there")
    if folded(entry.name) != folded(name):
        raise Refused(f"{name[:80]!r} is called {entry.name!r} now: use that name")
    return entry


def active(register: Register, name: str) -> Entry:
    """The person of that name, who has access. Raises `Refused`."""
    entry = found(register, name)
    if not entry.roles:
        raise Refused(f"the access of {entry.name!r} has ended: `hub people add {entry.name} --role ROLE` gives it again")
    return entry


def added(register: Register, name: str, roles: Collection[str], new: str) -> AccessGranted:
    """A person with the id `new` is given roles; one whose access had ended comes back as who they were. Raises `Refused`."""
    wanted = _roles(roles)
    entry = owner(register, _name(name))
    if entry is None:
        return AccessGranted(person=new, name=name, change=1, roles=wanted, held=wanted)
    if folded(entry.name) != folded(name):
        raise Refused(f"{name!r} was the name of {entry.name!r}, and is kept for them: choose another")
    if entry.roles:
        raise Refused(f"{entry.name!r} has access already: `hub people role` changes it, `hub people token` makes a new token")
    return AccessGranted(person=entry.person, name=entry.name, change=entry.change + 1, roles=wanted, held=wanted)


def granted(register: Register, name: str, roles: Collection[str]) -> AccessGranted:
    """A person is given more roles. Raises `Refused`, also where they have them all."""
    entry = active(register, name)
    new = sorted(set(_roles(roles)) - entry.roles)
    if not new:
        raise Refused(f"{entry.name!r} has {', '.join(sorted(roles))} already")
    return AccessGranted(
        person=entry.person, name=entry.name, change=entry.change + 1, roles=tuple(new), held=tuple(sorted(entry.roles | set(new)))
    )


def taken(register: Register, name: str, roles: Collection[str]) -> AccessRevoked:
    """Some of a person's roles are taken away, not the last one. Raises `Refused`, also where they have none of them."""
    entry = active(register, name)
    gone = sorted(set(_roles(roles)) & entry.roles)
    if not gone:
        raise Refused(f"{entry.name!r} does not have {', '.join(sorted(roles))}: they have {', '.join(sorted(entry.roles))}")
    if not entry.roles - set(gone):
        raise Refused(f"{entry.name!r} would be left with no role: `hub people revoke {entry.name}` ends their access")
    return AccessRevoked(
        person=entry.person, name=entry.name, change=entry.change + 1, roles=tuple(gone), held=tuple(sorted(entry.roles - set(gone)))
    )


def revoked(register: Register, name: str) -> AccessRevoked:
    """A person's access ends. Raises `Refused` where it has."""
    entry = active(register, name)
    return AccessRevoked(person=entry.person, name=entry.name, change=entry.change + 1, roles=tuple(sorted(entry.roles)))


def renamed(register: Register, name: str, new: str) -> PersonRenamed:
    """A person is called `new` from now on, a name that is nobody else's and was not. Raises `Refused`."""
    entry = found(register, name)
    other = owner(register, _name(new))
    if other is not None and other.person != entry.person:
        raise Refused(f"{new!r} is or was the name of {other.name!r}, and is kept for them: choose another")
    if new == entry.name:
        raise Refused(f"{entry.name!r} is called so already")
    return PersonRenamed(person=entry.person, name=new, previous=entry.name, change=entry.change + 1, held=tuple(sorted(entry.roles)))


def after(register: Register, change: Change) -> dict[str, Entry]:
    """The register after a change."""
    before = register.get(change.person)
    names = (before.names if before else frozenset()) | {folded(change.name)}
    return {**register, change.person: Entry(change.person, change.name, frozenset(change.held), change.change, names)}


def _name(name: str) -> str:
    if not 0 < len(name) <= NAME_CHARS_MAX or name != name.strip() or not name.isprintable() or name.startswith("-"):
        raise Refused(
            f"{name[:80]!r} is no name: use up to {NAME_CHARS_MAX} printable characters without blanks at the ends or a dash in front"
        )
    return name


def _roles(roles: Collection[str]) -> tuple[str, ...]:
    if not roles:
        raise Refused("name at least one role (--role)")
    for role in roles:
        if not ROLE.fullmatch(role):
            raise Refused(f"{role[:80]!r} is no name of a role: use lower-case letters, digits, dots, dashes and underscores")
    return tuple(sorted(set(roles)))
