"""The register of people, whatever is done to it in whatever order, against a plain model; and what tokens and sessions are."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from events.errors import Refused
from events.security import AccessGranted, AccessRevoked, Change
from hub import limits
from hub.security import register, tokens
from hub.security.people import Person
from hub.security.register import Entry, added, after, folded, granted, renamed, revoked, taken
from hub.security.sessions import Sessions
from hub.security.tokens import NotIdentified, new_person, new_token, parsed

names = st.sampled_from(["ann", "Ann", "ＡＮＮ", "bob", "eve"])
some_roles = st.sets(st.sampled_from(["buyer", "quality", "supervisor"]), min_size=1)


class Register(RuleBasedStateMachine):
    """Names are never another's; roles are what was given less what was taken; ids and numbers go on."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Entry] = {}
        self.roles: dict[str, set[str]] = {}  # the model: by person
        self.owners: dict[str, str] = {}  # by folded name, for ever
        self.changes: dict[str, int] = {}

    def done(self, change: Change) -> None:
        person = change.person
        self.changes[person] = self.changes.get(person, 0) + 1
        assert change.change == self.changes[person]
        roles = self.roles.setdefault(person, set())
        if isinstance(change, AccessGranted):
            assert not roles & set(change.roles)
            roles |= set(change.roles)
        elif isinstance(change, AccessRevoked):
            assert set(change.roles) <= roles
            roles -= set(change.roles)
        assert set(change.held) == roles
        assert self.owners.setdefault(folded(change.name), person) == person, "a name went to another person"
        self.known = after(self.known, change)

    def tried(self, function: Any, *arguments: Any) -> None:
        try:
            change = function(self.known, *arguments)
        except Refused:
            return
        self.done(change)

    @rule(name=names, roles=some_roles)
    def add(self, name: str, roles: set[str]) -> None:
        before = register.owner(self.known, name)
        try:
            change = added(self.known, name, roles, new_person())
        except Refused:
            assert before is not None
            assert before.roles or folded(before.name) != folded(name)
            return
        assert before is None or before.person == change.person, "who comes back is another person"
        self.done(change)

    @rule(name=names, roles=some_roles)
    def grant(self, name: str, roles: set[str]) -> None:
        self.tried(granted, name, roles)

    @rule(name=names, roles=some_roles)
    def take(self, name: str, roles: set[str]) -> None:
        self.tried(taken, name, roles)

    @rule(name=names, new=names)
    def rename(self, name: str, new: str) -> None:
        self.tried(renamed, name, new)

    @rule(name=names)
    def revoke(self, name: str) -> None:
        self.tried(revoked, name)

    @invariant()
    def people_are_told_apart(self) -> None:
        current = [folded(entry.name) for entry in self.known.values()]
        assert len(current) == len(set(current))
        for person, entry in self.known.items():
            assert entry.roles == self.roles[person]
            assert entry.names == {name for name, owner in self.owners.items() if owner == person}


TestRegister = Register.TestCase


def entry(**more: Any) -> dict[str, Entry]:
    return {"p": Entry(**{"person": "p", "name": "ann", "roles": frozenset({"buyer"}), "change": 1, "names": frozenset({"ann"}), **more})}


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda: added({}, "ann", [], "q"), "at least one role"),
        (lambda: added({}, "ann", ["Buyer"], "q"), "no name of a role"),
        (lambda: added({}, " ann", ["buyer"], "q"), "no name"),
        (lambda: added({}, "an\x1bn", ["buyer"], "q"), "no name"),
        (lambda: added({}, "--all", ["buyer"], "q"), "no name"),
        (lambda: added({}, "x" * 101, ["buyer"], "q"), "no name"),
        (lambda: added(entry(), "ANN", ["buyer"], "q"), "has access already"),
        (lambda: added(entry(name="bea", names=frozenset({"ann", "bea"})), "ann", ["buyer"], "q"), "was the name of 'bea'"),
        (lambda: granted({}, "ann", ["buyer"]), "nobody is called 'ann'"),
        (lambda: granted(entry(name="bea", names=frozenset({"ann", "bea"})), "ann", ["quality"]), "is called 'bea' now"),
        (lambda: granted(entry(), "ann", ["buyer"]), "already"),
        (lambda: granted(entry(roles=frozenset()), "ann", ["buyer"]), "has ended: `hub people add ann"),
        (lambda: taken(entry(), "ann", ["quality"]), "does not have quality"),
        (lambda: taken(entry(), "ann", ["buyer"]), "no role: `hub people revoke ann`"),
        (lambda: revoked(entry(roles=frozenset()), "ann"), "has ended"),
        (lambda: renamed(entry(), "ann", "ann"), "so already"),
    ],
)
def test_what_is_refused_says_why_and_what_to_do(attempt: Any, said: str) -> None:
    with pytest.raises(Refused, match=said):
        attempt()


def test_a_token_is_32_random_bytes_and_only_its_hash_is_kept() -> None:
    person = new_person()
    token, digest = new_token(person)
    secret = bytes.fromhex(token.rpartition("_")[2])
    assert (len(secret), hashlib.sha256(secret).digest()) == (32, digest)
    assert parsed(token) == (person, digest)
    assert len({new_token(person)[0] for _ in range(100)}) == 100


@given(
    st.text(max_size=120)
    | st.sampled_from(["", "mw_", "mw__"]).flatmap(lambda head: st.text("0123456789abcdef_", max_size=90).map(lambda rest: head + rest))
)
def test_what_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    if tokens._TOKEN.fullmatch(text):
        return
    with pytest.raises(NotIdentified) as refused:
        parsed(text)
    assert len(text) < 8 or text not in str(refused.value)


def test_one_token_is_written_one_way() -> None:
    token, _ = new_token("abcdef0123456789")
    for other in (token.upper(), token.replace("abc", "ABC"), f" {token}", f"{token}\n", f"{token}00", token[:-2], token.replace("_", "-")):
        with pytest.raises(NotIdentified):
            parsed(other)


ANN = Person("0a1b2c3d4e5f6071", "ann", frozenset({"buyer"}))


def test_a_session_lasts_its_time_and_not_longer() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = sessions.begin(ANN, b"digest")
    now[0] = limits.SESSION_S / 2
    second = sessions.begin(ANN, b"digest")
    now[0] = limits.SESSION_S - 1
    assert (found := sessions.find(first)) is not None
    assert (found.person, found.digest) == (ANN, b"digest")
    now[0] = limits.SESSION_S
    assert sessions.find(first) is None
    assert sessions.find(second) is not None
    sessions.end(second)
    sessions.end("nobody's")
    assert sessions.find(second) is None


def test_the_oldest_session_ends_for_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SESSIONS_MAX", 3)
    sessions = Sessions()
    begun = [sessions.begin(ANN, b"") for _ in range(5)]
    assert len(set(begun)) == 5
    assert [sessions.find(one) is not None for one in begun] == [False, False, True, True, True]


def test_no_session_is_kept_as_the_browser_has_it() -> None:
    sessions = Sessions()
    secret = sessions.begin(ANN, b"")
    assert len(bytes.fromhex(secret)) == 32
    assert secret not in repr(vars(sessions))
    assert secret.encode() not in b"".join(sessions._known)
