"""`hub people` as whoever owns a home types it, and what other commands record of who did it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hub.app.servers.process import free_port
from hub.app.settings import Settings
from hub.app.wiring import Hub, open_hub
from hub.security.people import Person
from hub.security.tokens import NotIdentified
from tests.contract.test_cli import HUB, Ended, environment
from tests.contract.test_cli import hub as command

ROOT = Path(__file__).resolve().parents[2]
TOKEN = re.compile(r"mw_[0-9a-f]{16}_[0-9a-f]{64}")
NOTICE = (ROOT / "tests" / "crash" / "seeds" / "notice.x12").read_text("utf-8")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub whose server runs meanwhile."""
    with open_hub(Settings(home=tmp_path / "home")) as opened:
        yield opened


def run(hub: Hub, *words: str, code: int = 0, **more: str) -> Ended:
    found = command(hub.settings.home, *words, **more)
    assert found.code == code, found
    return found


def token_of(found: Ended) -> str:
    (token,) = TOKEN.findall(found.out)
    return str(token)


def told(hub: Hub, type_: str) -> list[tuple[str | None, dict[str, object]]]:
    return [(one.envelope.actor, one.event.data()) for one in hub.log.read(0, 1000, type_=type_)]


def test_from_the_first_person_to_the_last(hub: Hub) -> None:
    assert run(hub, "people", "list").out == "nobody has access yet: `hub people add NAME --role ROLE`\n"
    added = run(hub, "people", "add", "Ann Ähren", "--role", "buyer", "--role", "planner")
    token = token_of(added)
    assert added.out.count(token) == 1
    assert "Ann Ähren has access as buyer, planner" in added.out
    ann = hub.people.identify(token)
    assert ann == Person(ann.id, "Ann Ähren", frozenset({"buyer", "planner"}))

    (row,) = run(hub, "people", "list", "--json").rows
    assert (row["person"], row["name"], row["roles"], row["ended_at"]) == (ann.id, "Ann Ähren", ["buyer", "planner"], None)
    assert row["since"] <= row["token_at"] <= row["seen_at"]
    assert run(hub, "people", "role", "ann ähren", "--add", "supervisor", "--add", "buyer").out.endswith("buyer, planner, supervisor\n")
    assert run(hub, "people", "role", "Ann Ähren", "--remove", "planner", "--json").rows[0]["roles"] == ["buyer", "supervisor"]
    assert hub.people.identify(token).roles == {"buyer", "supervisor"}
    run(hub, "people", "rename", "Ann Ähren", "Ann")
    assert hub.people.identify(token).name == "Ann"

    (renewed,) = run(hub, "people", "token", "Ann", "--json").rows
    assert TOKEN.fullmatch(renewed["token"])
    assert (renewed["person"], renewed["name"]) == (ann.id, "Ann")
    with pytest.raises(NotIdentified):
        hub.people.identify(token)
    assert "Ann has no access any more" in run(hub, "people", "revoke", "Ann").out
    with pytest.raises(NotIdentified):
        hub.people.identify(renewed["token"])
    assert run(hub, "people", "list", "--json").rows == []
    (row,) = run(hub, "people", "list", "--all", "--json").rows
    assert (row["roles"], row["token_at"], row["seen_at"]) == ([], None, None)
    assert row["ended_at"] > row["since"]
    assert "–" in run(hub, "people", "list", "--all").out
    assert {actor for actor, _ in told(hub, "security.access_granted")} == {"owner"}


def test_what_is_refused_is_exit_2_and_changes_nothing(hub: Hub) -> None:
    run(hub, "people", "add", "ann", "--role", "buyer")
    head = hub.log.head()
    for words, said in (
        (["add", "ann", "--role", "buyer"], "has access already"),
        (["add", "bob"], "at least one role (--role)"),
        (["add", "bob", "--role", "Buyer!"], "no name of a role"),
        (["role", "bob", "--add", "buyer"], "nobody is called 'bob'"),
        (["role", "ann"], "either --add ROLE or --remove ROLE"),
        (["role", "ann", "--add", "quality", "--remove", "buyer"], "either --add ROLE or --remove ROLE"),
        (["role", "ann", "--remove", "buyer"], "hub people revoke ann"),
        (["token", "bob"], "nobody is called 'bob'"),
        (["revoke", "bob"], "hub people list"),
        (["rename", "ann", "ann"], "so already"),
    ):
        command(hub.settings.home, "people", *words, "--json").refused(2, said)
    assert hub.log.head() == head


def test_a_role_that_no_rule_speaks_of_is_given_and_told(hub: Hub) -> None:
    found = run(hub, "people", "add", "ann", "--role", "byer")
    assert "no access rule speaks of byer: the known roles are buyer, receiver" in found.said
    assert run(hub, "people", "add", "bob", "--role", "buyer").said == ""


def test_hub_token_says_who_changed_people(hub: Hub) -> None:
    boss = token_of(run(hub, "people", "add", "boss", "--role", "administrator"))
    run(hub, "people", "add", "ann", "--role", "buyer", HUB_TOKEN=boss)
    run(hub, "people", "token", "ann", HUB_TOKEN=boss)
    run(hub, "people", "revoke", "ann", HUB_TOKEN=boss)
    person = hub.people.identify(boss).actor
    assert [actor for actor, _ in told(hub, "security.access_granted")] == ["owner", person]
    assert [actor for actor, _ in told(hub, "security.act_performed")] == [person]
    assert [actor for actor, _ in told(hub, "security.access_revoked")] == [person]
    head = hub.log.head()
    command(hub.settings.home, "people", "add", "eve", "--role", "buyer", HUB_TOKEN=boss[:-1] + "x").refused(2, "no person's token")
    assert hub.log.head() == head


def test_edges_and_promotions_are_recorded_where_somebody_is_shown(hub: Hub, tmp_path: Path) -> None:
    ann = token_of(run(hub, "people", "add", "ann", "--role", "administrator"))
    actor = hub.people.identify(ann).actor
    out = str(tmp_path / "ulm")
    run(hub, "edge", "enrol", "ulm", "--out", out)
    run(hub, "edge", "withdraw", "ulm")
    run(hub, "replay", "rebuild", "stock")
    run(hub, "replay", "promote", "stock")
    assert told(hub, "security.act_performed") == []  # not demanded
    run(hub, "edge", "enrol", "ulm", "--out", out, HUB_TOKEN=ann)
    run(hub, "edge", "withdraw", "ulm", HUB_TOKEN=ann)
    run(hub, "edge", "withdraw", "ulm", code=1, HUB_TOKEN=ann)  # nothing was done
    run(hub, "replay", "rebuild", "stock")
    run(hub, "replay", "promote", "stock", HUB_TOKEN=ann)
    assert told(hub, "security.act_performed") == [
        (actor, {"action": "edge.enrol", "subject": "edge/ulm"}),
        (actor, {"action": "edge.withdraw", "subject": "edge/ulm"}),
        (actor, {"action": "replay.promote", "subject": "view/stock"}),
    ]
    run(hub, "edge", "enrol", "ulm", "--out", out)
    for words in (["edge", "withdraw", "ulm"], ["replay", "promote", "stock"], ["quarantine", "redrive", "--all"]):
        command(hub.settings.home, *words, "--json", HUB_TOKEN="mw_wrong").refused(2, "no person's token")
    run(hub, "edge", "withdraw", "ulm")  # the wrong token withdrew nothing


@pytest.mark.parametrize("shown", [True, False])
def test_a_redrive_carries_who_decided_it(hub: Hub, tmp_path: Path, shown: bool) -> None:
    ann = token_of(run(hub, "people", "add", "ann", "--role", "buyer"))
    notice = tmp_path / "notice.x12"
    notice.write_text(NOTICE.replace("*EA", "*QQ"), "utf-8")
    run(hub, "intake", str(notice), code=1)
    held = run(hub, "quarantine", "list", "--json").rows
    assert held
    partner = held[0]["source"]
    (hub.settings.home / "hub.toml").write_text(f'[partners."{partner}"]\nunits = {{ QQ = "EA" }}\n', "utf-8")
    run(hub, "quarantine", "redrive", "--all", HUB_TOKEN=ann if shown else "")
    actors = {actor for actor, _ in told(hub, "integration.quarantine_redriven")}
    assert actors == ({hub.people.identify(ann).actor} if shown else {"operator"})


CHILDREN = """
import json
from hub.app.serve import hub_children
from hub.app.servers.process import free_port
from hub.app.settings import Settings
print(json.dumps([sorted(name for name in child.env if name.startswith("HUB_")) for child in hub_children(Settings.load())]))
"""


def test_the_service_is_not_handed_a_persons_token(tmp_path: Path) -> None:
    """Who starts the hub with their token set has not made it the hub's."""
    env = environment(tmp_path, HUB_TOKEN="mw_x", HUB_TOKEN_FILE=os.devnull)
    said = subprocess.run([sys.executable, "-c", CHILDREN], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {tuple(name for name in names if name != "HUB_CI") for names in json.loads(said.stdout)} == {("HUB_HOME",)}


def test_the_demo_makes_people_and_shows_their_tokens_once(tmp_path: Path) -> None:
    """A buyer, a receiver, a quality engineer and a supervisor; the next start makes nobody."""

    def started() -> list[dict[str, Any]]:
        env = environment(tmp_path / "home", HUB_LISTEN=f"127.0.0.1:{free_port()}")
        demo = subprocess.Popen([*HUB, "demo", "--json"], env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert demo.stdout is not None
        try:
            document = json.loads(demo.stdout.readline())
            for one in document["people"]:
                me = httpx.get(f"{document['url']}v1/me", headers={"Authorization": f"Bearer {one['token']}"}).json()
                assert (me["name"], me["roles"]) == (one["name"], one["roles"])
        finally:
            demo.terminate()
            _, said = demo.communicate(timeout=60)
        secrets = TOKEN.findall(said)
        assert secrets == [one["token"] for one in document["people"]]  # on the terminal, and nowhere in the home
        kept = b"".join(file.read_bytes() for file in (tmp_path / "home" / "run").rglob("*") if file.is_file())
        assert not TOKEN.search(kept.decode("latin-1"))
        return list(document["people"])

    assert sorted(role for one in started() for role in one["roles"]) == ["buyer", "quality", "receiver", "supervisor"]
    assert started() == []
