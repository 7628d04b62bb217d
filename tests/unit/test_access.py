"""What a role may do, and that two pairs of eyes are two people: laws over any people, roles and names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.errors import Refused
from hub.security import access
from hub.security.access import CURRENT, KNOWN_ROLES, RULES, check, may, second_person
from hub.security.people import NotAllowed, Person

ACTIONS = sorted(CURRENT.roles_of)
roles = st.frozensets(st.sampled_from([*KNOWN_ROLES, "toolroom"]))
ids = st.sampled_from(["0a1b2c3d4e5f6071", "ffeeddccbbaa9988"])
people = st.builds(Person, ids, st.sampled_from(["ann", "bob"]), roles)


@given(people, roles, st.sampled_from(ACTIONS))
def test_a_role_only_ever_lets_one_do_more(person: Person, more: frozenset[str], action: str) -> None:
    assert may(Person(person.id, person.name, person.roles | more), action) >= may(person, action)


@given(people, st.sampled_from(ACTIONS))
def test_one_may_what_one_of_the_roles_may(person: Person, action: str) -> None:
    alone = [may(Person(person.id, person.name, frozenset({role})), action) for role in person.roles]
    assert may(person, action) == any(alone)
    assert (action in CURRENT.actions(person)) == may(person, action)
    if may(person, action):
        assert check(person, action) == CURRENT.version
    else:
        with pytest.raises(NotAllowed, match=CURRENT.version):
            check(person, action)


@pytest.mark.parametrize("role", ["auditor", "toolroom"])
def test_who_reads_decides_nothing(role: str) -> None:
    assert CURRENT.actions(Person("0a1b2c3d4e5f6071", "ann", frozenset({role}))) == []


def test_who_administers_decides_no_exception() -> None:
    found = CURRENT.actions(Person("0a1b2c3d4e5f6071", "ann", frozenset({"administrator"})))
    assert not [action for action in found if action.endswith((".decide", ".approve", ".settle", ".assign"))]


@pytest.mark.parametrize("rules", RULES.values(), ids=list(RULES))
def test_the_rules_speak_of_known_roles_and_somebody_may_do_each_action(rules: access.AccessRules) -> None:
    assert RULES[rules.version] is rules
    for action, allowed in rules.roles_of.items():
        assert allowed, action
        assert allowed <= KNOWN_ROLES.keys(), action


def test_a_version_that_decisions_name_never_changes() -> None:
    """A change is a new version: this is what the first one says."""
    said = "\n".join(f"{action} {' '.join(sorted(roles))}" for action, roles in sorted(RULES["access/1"].roles_of.items()))
    assert said == (
        "decisions.approve quality supervisor\n"
        "edge.enrol administrator\n"
        "edge.withdraw administrator\n"
        "exceptions.assign buyer planner quality receiver supervisor\n"
        "masterdata.decide buyer planner quality supervisor\n"
        "people.change administrator\n"
        "planning.decide planner supervisor\n"
        "postings.settle supervisor\n"
        "purchasing.decide buyer supervisor\n"
        "quality.decide quality\n"
        "quarantine.redrive administrator buyer planner quality receiver supervisor\n"
        "receiving.decide receiver supervisor\n"
        "replay.promote administrator"
    )


def test_an_action_that_nobody_defined_is_an_error_and_no_answer() -> None:
    boss = Person("0a1b2c3d4e5f6071", "ann", frozenset(KNOWN_ROLES))
    with pytest.raises(Refused, match=r"know no action 'quality\.decides'"):
        may(boss, "quality.decides")


@given(people, people)
def test_two_pairs_of_eyes_are_two_people_whatever_they_are_called(first: Person, second: Person) -> None:
    for said in (first, first.actor):
        if first.id == second.id:
            with pytest.raises(NotAllowed, match="another person"):
                second_person(said, second)
        else:
            assert second_person(said, second) is second


@pytest.mark.parametrize("actor", ["owner", "hub", "operator", "", "person/", "person/jo", "person/0a1b2c3d4e5f6071x"])
def test_what_no_person_decided_has_no_first_pair_of_eyes(actor: str) -> None:
    with pytest.raises(NotAllowed, match="two people"):
        second_person(actor, Person("0a1b2c3d4e5f6071", "ann", frozenset()))
