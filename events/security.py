"""Who was allowed what, and when: access is given and taken away by facts. The hub alone records these; a token or its hash is in none of them.

A person is an id for ever; names change. `change` counts the changes of one person from 1 and is the fact's version in the person's stream,
so that the last one is known whatever a clock says. Each change says what the person holds after it.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from events.base import Event, event
from events.vocabulary import Name

Roles = Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)]
Held = Annotated[tuple[Name, ...], Field(max_length=100)]


@event
class AccessGranted(Event):
    """A person was given `roles`; `held` is all that they have since. The envelope's actor gave them."""

    type: ClassVar[str] = "security.access_granted"
    person: Name
    name: Name
    change: int
    roles: Roles
    held: Held

    def stream(self) -> str:
        return f"person/{self.person}"


@event
class AccessRevoked(Event):
    """`roles` were taken from a person; `held` is what is left, nothing where access has ended."""

    type: ClassVar[str] = "security.access_revoked"
    person: Name
    name: Name
    change: int
    roles: Roles
    held: Held = ()

    def stream(self) -> str:
        return f"person/{self.person}"


@event
class PersonRenamed(Event):
    """A person has another name than `previous`, and is the same person."""

    type: ClassVar[str] = "security.person_renamed"
    person: Name
    name: Name
    previous: Name
    change: int
    held: Held = ()

    def stream(self) -> str:
        return f"person/{self.person}"


@event
class ActPerformed(Event):
    """Somebody did an act of administration that no other fact tells of, such as a new token or a view's promotion. The actor did it to `subject`."""

    type: ClassVar[str] = "security.act_performed"
    action: Name
    subject: Name

    def stream(self) -> str:
        return f"act/{self.action}"


Change = AccessGranted | AccessRevoked | PersonRenamed
