"""`hub people`: who has access, in which roles. For whoever has the owner's access to the home; HUB_TOKEN, where it is set, says who that is."""

from collections.abc import Callable, Sequence

from events import canonical
from events.errors import Refused
from hub.app import people
from hub.app.answers import caught_up
from hub.app.cli import output
from hub.app.people import Made
from hub.app.wiring import Hub, open_hub
from hub.security.access import KNOWN_ROLES
from projections import people as view


def show_people(all_: bool, json_: bool) -> int:
    """`hub people list`."""
    with open_hub() as hub:
        with caught_up(hub, (view.People.name,)) as cursor:
            found = [row for row in view.people(cursor) if all_ or row["roles"]]
        tokens = hub.people.tokens()
    rows = []
    for row in found:
        made_at, seen_at = tokens.get(row["person"], (None, None))
        rows.append(
            {
                "person": row["person"],
                "name": row["name"],
                "roles": row["roles"],
                "since": canonical.time_text(row["since"]),
                "ended_at": None if row["roles"] else canonical.time_text(row["changed_at"]),
                "token_at": None if made_at is None else canonical.time_text(made_at),
                "seen_at": None if seen_at is None else canonical.time_text(seen_at),
            }
        )
    if json_:
        output.rows(rows)
    else:
        shown = [{**row, "roles": ", ".join(row["roles"]) or "–"} for row in rows]
        columns = ["name", "roles", "since", *(["ended_at"] if all_ else []), "token_at", "seen_at"]
        output.table(columns, shown, "nobody has access yet: `hub people add NAME --role ROLE`")
    return 0


def add(name: str, roles: Sequence[str], json_: bool) -> int:
    """`hub people add`."""
    made = _done(lambda hub, actor: people.add(hub, name, roles, actor))
    return _say(made, f"{made.person.name} has access as {_roles(made)}", json_)


def change_roles(name: str, add_: Sequence[str], remove: Sequence[str], json_: bool) -> int:
    """`hub people role`."""
    if bool(add_) == bool(remove):
        raise Refused("say which roles to change: either --add ROLE or --remove ROLE, each as often as needed")
    made = _done(lambda hub, actor: people.grant(hub, name, add_, actor) if add_ else people.take(hub, name, remove, actor))
    return _say(made, f"{made.person.name} has access as {_roles(made)}", json_)


def rename(name: str, new: str, json_: bool) -> int:
    """`hub people rename`."""
    made = _done(lambda hub, actor: people.rename(hub, name, new, actor))
    return _say(made, f"{name} is called {made.person.name} now", json_)


def renew(name: str, json_: bool) -> int:
    """`hub people token`."""
    made = _done(lambda hub, actor: people.renew(hub, name, actor))
    return _say(made, f"{made.person.name} has a new token; the old one and its sessions have ended", json_)


def revoke(name: str, json_: bool) -> int:
    """`hub people revoke`."""
    made = _done(lambda hub, actor: people.revoke(hub, name, actor))
    return _say(made, f"{made.person.name} has no access any more", json_)


def _done(change: Callable[[Hub, str], Made]) -> Made:
    with open_hub() as hub:
        return change(hub, people.actor_of(people.given(hub)))


def _say(made: Made, words: str, json_: bool) -> int:
    person = made.person
    if json_:
        token = {"token": made.token} if made.token else {}
        output.document({"person": person.id, "name": person.name, "roles": sorted(person.roles), **token})
    else:
        output.line(words)
        if made.token:
            output.line(f"The token, shown this once and kept nowhere (HUB_TOKEN, or the console's sign-in): {made.token}")
    if odd := sorted(person.roles - KNOWN_ROLES.keys()):
        output.note(f"hub: no access rule speaks of {', '.join(odd)}: the known roles are {', '.join(KNOWN_ROLES)}")
    return 0


def _roles(made: Made) -> str:
    return ", ".join(sorted(made.person.roles))
