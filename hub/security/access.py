"""What a role may do: a table of actions, in versions that a decision can name; and the four-eyes rule.

A role is any name. Those that the table speaks of are in `KNOWN_ROLES`; any other may do nothing until a version of the table lets it, and
serves to address work until then. A version that decisions were made under stays as it is: a change is a new version.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from events.errors import Refused
from hub.security.people import NotAllowed, Person

KNOWN_ROLES = {
    "buyer": "orders, acknowledgements, suppliers' deviations",
    "receiver": "receipts, handling units, counts",
    "quality": "usage decisions, holds and their release, concessions",
    "planner": "production orders, shortages",
    "supervisor": "decides for buyers, receivers and planners, settles postings, is the second pair of eyes",
    "auditor": "reads everything and decides nothing",
    "administrator": "edges, promotion of views, people; decides no exception",
}


@dataclass(frozen=True, slots=True)
class AccessRules:
    """One version of the table: which roles may do an action."""

    version: str
    roles_of: Mapping[str, frozenset[str]]

    def may(self, person: Person, action: str) -> bool:
        """Whether one of a person's roles lets them. Raises `Refused` for an action that the table does not know, which nobody may mean."""
        if action not in self.roles_of:
            raise Refused(f"the access rules {self.version} know no action {action!r}: they know {', '.join(sorted(self.roles_of))}")
        return not person.roles.isdisjoint(self.roles_of[action])

    def actions(self, person: Person) -> list[str]:
        """All that a person may do, in the order of the names."""
        return sorted(action for action in self.roles_of if self.may(person, action))


def _rules(version: str, table: Mapping[str, str]) -> AccessRules:
    return AccessRules(version, {action: frozenset(roles.split()) for action, roles in table.items()})


RULES = {
    rules.version: rules
    for rules in (
        _rules(
            "access/1",
            {
                "exceptions.assign": "buyer receiver quality planner supervisor",
                "purchasing.decide": "buyer supervisor",
                "receiving.decide": "receiver supervisor",
                "quality.decide": "quality",
                "planning.decide": "planner supervisor",
                "masterdata.decide": "buyer planner quality supervisor",
                "decisions.approve": "quality supervisor",  # as the second pair of eyes
                "postings.settle": "supervisor",
                "quarantine.redrive": "buyer receiver quality planner supervisor administrator",
                "edge.enrol": "administrator",
                "edge.withdraw": "administrator",
                "replay.promote": "administrator",
                "people.change": "administrator",
            },
        ),
    )
}
CURRENT = RULES["access/1"]


def may(person: Person, action: str, rules: AccessRules = CURRENT) -> bool:
    """Whether a person may do something under a version of the rules. Raises `Refused` for an unknown action."""
    return rules.may(person, action)


def check(person: Person, action: str, rules: AccessRules = CURRENT) -> str:
    """The version of the rules under which a person may do something, for the decision to name. Raises `NotAllowed` where they may not."""
    if not rules.may(person, action):
        wanted = ", ".join(sorted(rules.roles_of[action]))
        held = ", ".join(sorted(person.roles))
        raise NotAllowed(f"{person.name} ({held}) may not do {action} by {rules.version}: one of these roles is needed: {wanted}")
    return rules.version


def second_person(first: Person | str, second: Person) -> Person:
    """The second pair of eyes, if it is another person than the first, whatever either is called. `first` may be the actor of a fact.

    Raises `NotAllowed` where it is the same person, or where the first was none.
    """
    actor = first.actor if isinstance(first, Person) else first
    if not Person.is_actor(actor):
        raise NotAllowed(f"four eyes need two people, and the first decision is by {actor[:80]!r}: let a person decide it anew")
    if actor == second.actor:
        raise NotAllowed(f"{second.name} decided first: another person must be the second pair of eyes")
    return second
