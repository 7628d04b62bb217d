"""Tokens of people: `mw_PERSON_SECRET`, the secret 32 random bytes in hex. Shown once; of the secret only its sha256 is kept."""

import hashlib
import re
import secrets

from events.errors import Refused

PERSON_BYTES, SECRET_BYTES = 8, 32
PREFIX = "mw_"
_TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * PERSON_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})", re.ASCII)


class NotIdentified(Refused):
    """Nobody is known by what was shown."""


def new_person() -> str:
    """An id that nobody has."""
    return secrets.token_hex(PERSON_BYTES)


def new_token(person: str) -> tuple[str, bytes]:
    """A token of a person, and what of it is kept."""
    token = f"{PREFIX}{person}_{secrets.token_hex(SECRET_BYTES)}"
    return token, parsed(token)[1]


def parsed(token: str) -> tuple[str, bytes]:
    """Whose token it says it is, and the sha256 of its secret. Raises `NotIdentified` for what is no token, which the message does not repeat."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise NotIdentified("what was shown is no person's token, which begins with mw_: `hub people token NAME` makes one")
    return found[1], hashlib.sha256(bytes.fromhex(found[2])).digest()
