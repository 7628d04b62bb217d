"""People on a real database and a real server: whose token it is, from when to when, who may read and write what, and that nothing works across sites."""

import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from psycopg import sql
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from adapters.http_queue import HttpQueue
from events import Fact
from events.base import Envelope
from events.errors import Refused, Unavailable
from events.security import AccessGranted, AccessRevoked
from hub import limits
from hub.app import people, signin
from hub.app.answers import caught_up
from hub.app.api import make_app
from hub.app.people import Made
from hub.app.servers.postgres import Database
from hub.app.servers.process import free_port
from hub.app.settings import ConfigError, Secret, Settings
from hub.app.signin import COOKIE, decider
from hub.app.web import serve
from hub.app.wiring import Hub
from hub.intake.delivery import Delivery
from hub.log.migrate import ROLES, migrate
from hub.security import people as security
from hub.security.access import second_person
from hub.security.people import NotAllowed, Person
from hub.security.tokens import NotIdentified, new_token, parsed
from projections import people as view
from tests.facts import START, as_role, fact

API_TOKEN = "0123456789abcdef0123456789abcdef"
BASE = "http://127.0.0.1:8080"
OWN = {"Origin": BASE}


@pytest.fixture
def hub(fresh_database: str, tmp_path: Path) -> Iterator[Hub]:
    migrate(fresh_database)
    opened = Hub(Settings(home=tmp_path), Database(fresh_database))
    yield opened
    opened.log.close()


@pytest.fixture
def ann(hub: Hub) -> Made:
    return people.add(hub, "ann", ["buyer", "planner"])


@pytest.fixture
def client(hub: Hub) -> TestClient:
    return browser(hub)


def browser(hub: Hub) -> TestClient:
    """Somebody's browser, which has no cookie yet and does not follow redirects."""
    return TestClient(make_app(hub, HttpQueue(4)), base_url=BASE, follow_redirects=False)


def owner(hub: Hub, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(hub.database.owner_url) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def facts(hub: Hub) -> list[tuple[str, str | None, dict[str, Any]]]:
    return [(one.event.type.removeprefix("security."), one.envelope.actor, one.event.data()) for one in hub.log.read(0, 100)]


def nobody(hub: Hub, token: str) -> bool:
    with pytest.raises(NotIdentified, match="hub people token"):
        hub.people.identify(token)
    return True


# -- tokens --


def test_a_token_is_its_persons(hub: Hub, ann: Made) -> None:
    bob = people.add(hub, "bob", ["quality"])
    assert hub.people.identify(ann.token) == ann.person == Person(ann.person.id, "ann", frozenset({"buyer", "planner"}))
    assert hub.people.identify(bob.token) == bob.person
    assert ann.person.id != bob.person.id


def test_what_is_not_exactly_a_token_is_nobodys(hub: Hub, ann: Made) -> None:
    bob = people.add(hub, "bob", ["quality"])
    secret = ann.token.rpartition("_")[2]
    other = "0" if secret[-1] != "0" else "1"
    wrong = [
        ann.token[:-1] + other, ann.token.upper(), f" {ann.token}", "", "mw_", API_TOKEN,
        f"mw_{bob.person.id}_{secret}", f"mw_{'0' * 16}_{secret}", f"mw_{'0' * 16}_{'0' * 64}", f"mw_{ann.person.id}_{'0' * 64}",
    ]  # fmt: skip
    assert all(nobody(hub, token) for token in wrong)


def test_hashes_are_compared_in_constant_time_also_those_of_nobody(hub: Hub, ann: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def counted(one: Any, other: Any) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(security, "hmac", type("Counted", (), {"compare_digest": staticmethod(counted)}))
    hub.people.identify(ann.token)
    nobody(hub, new_token(ann.person.id)[0])
    nobody(hub, new_token("0" * 16)[0])
    assert compared == [(32, 32)] * 3


def test_a_token_is_kept_nowhere_and_its_hash_in_one_table(hub: Hub, ann: Made) -> None:
    """Every text and byte of the database, and what a person reads of the log."""
    renewed = people.renew(hub, "ann")
    hub.catch_up()
    secrets = [token.rpartition("_")[2] for token in (ann.token, renewed.token)]
    digests = [hashlib.sha256(bytes.fromhex(secret)).hexdigest() for secret in secrets]
    tables = owner(hub, "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')")
    found = set()
    for schema, table in tables:
        query = sql.SQL("select t::text, to_jsonb(t)::text from {} t").format(sql.Identifier(schema, table))
        with psycopg.connect(hub.database.owner_url) as connection:
            said = " ".join(text for row in connection.execute(query) for text in row)
        # bytes are shown in hex: the token as text would be there as hex of its letters
        for secret in secrets:
            assert secret not in said
            assert secret.encode().hex() not in said
            assert bytes.fromhex(secret).hex() not in said
        found |= {(schema, table) for digest in digests if digest in said or digest.encode().hex() in said}
    assert len(tables) > 20
    assert found == {("security", "token")}


def test_a_new_token_ends_the_old_one(hub: Hub, ann: Made) -> None:
    renewed = people.renew(hub, "ann")
    assert nobody(hub, ann.token)
    assert hub.people.identify(renewed.token) == ann.person
    assert facts(hub)[-1] == ("act_performed", "owner", {"action": "people.token", "subject": ann.person.actor})
    with pytest.raises(Refused, match="nobody is called"):
        people.renew(hub, "bob")


def test_revoked_is_revoked_at_once_whatever_views_tokens_and_clocks_say(hub: Hub, ann: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = owner(hub, "select person, sha256, made_at from security.token")
    monkeypatch.setattr(people, "datetime", _Clock(datetime.now(UTC) - timedelta(days=2)))
    people.revoke(hub, "ann")
    assert nobody(hub, ann.token)
    assert owner(hub, "select count(*) from security.token") == [(0,)]
    owner(hub, "insert into security.token values (%s, %s, %s)", *row)  # as if the hub had died before it took the token away
    owner(hub, "drop schema view_people cascade")
    assert nobody(hub, ann.token)
    with pytest.raises(Refused, match="has ended: `hub people add ann"):
        people.renew(hub, "ann")


class _Clock:
    """A clock that stands."""

    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self, zone: Any) -> datetime:
        return self._at


def test_who_comes_back_is_who_they_were_with_a_new_token(hub: Hub, ann: Made) -> None:
    people.revoke(hub, "ann")
    back = people.add(hub, "Ann", ["quality"])
    assert (back.person.id, back.person.roles) == (ann.person.id, frozenset({"quality"}))
    assert nobody(hub, ann.token)
    assert hub.people.identify(back.token) == back.person


def test_roles_and_names_are_those_of_now_and_the_person_stays(hub: Hub, ann: Made) -> None:
    people.grant(hub, "ann", ["supervisor"], "person/0a1b2c3d4e5f6071")
    people.take(hub, "ann", ["planner"])
    people.rename(hub, "ann", "anna")
    now = hub.people.identify(ann.token)
    assert now == Person(ann.person.id, "anna", frozenset({"buyer", "supervisor"}))
    with pytest.raises(NotAllowed, match="anna decided first"):  # four eyes, after the rename
        second_person(ann.person, now)
    with pytest.raises(Refused, match="is kept for them"):
        people.add(hub, "ann", ["buyer"])
    bob = people.add(hub, "bob", ["quality"]).person
    assert second_person(ann.person.actor, bob) is bob
    person = {"person": ann.person.id}
    assert facts(hub)[:4] == [
        ("access_granted", "owner", {**person, "name": "ann", "change": 1, "roles": ["buyer", "planner"], "held": ["buyer", "planner"]}),
        (
            "access_granted",
            "person/0a1b2c3d4e5f6071",
            {**person, "name": "ann", "change": 2, "roles": ["supervisor"], "held": ["buyer", "planner", "supervisor"]},
        ),
        ("access_revoked", "owner", {**person, "name": "ann", "change": 3, "roles": ["planner"], "held": ["buyer", "supervisor"]}),
        ("person_renamed", "owner", {**person, "name": "anna", "previous": "ann", "change": 4, "held": ["buyer", "supervisor"]}),
    ]


def test_the_view_knows_what_identify_knows(hub: Hub, ann: Made) -> None:
    people.add(hub, "bob", ["quality"])
    people.revoke(hub, "bob")
    people.rename(hub, "ann", "anna")
    with caught_up(hub, (view.People.name,)) as cursor:
        rows, known = view.people(cursor), view.register(cursor)
        for row in rows:
            person = security.standing(cursor, row["person"])
            assert person == Person(row["person"], row["name"], frozenset(row["roles"]))
    assert [(row["name"], row["roles"]) for row in rows] == [("anna", ["buyer", "planner"]), ("bob", [])]
    assert known[ann.person.id].names == {"ann", "anna"}


def test_when_a_token_was_used_last(hub: Hub, ann: Made) -> None:
    assert hub.people.tokens()[ann.person.id][1] is None
    hub.people.identify(ann.token)
    made_at, first = hub.people.tokens()[ann.person.id]
    assert first is not None
    assert first >= made_at
    hub.people.identify(ann.token)
    assert hub.people.tokens()[ann.person.id] == (made_at, first)  # to a minute: not each use is a write
    owner(hub, "update security.token set seen_at = seen_at - interval '61 seconds'")
    hub.people.identify(ann.token)
    assert (hub.people.tokens()[ann.person.id][1] or first) >= first


# -- who may change what --


@pytest.mark.parametrize("role", ROLES)
def test_only_who_finds_people_reads_hashes_and_only_the_owner_makes_them(hub: Hub, ann: Made, role: str) -> None:
    def attempt(statement: str) -> bool:
        with psycopg.connect(as_role(hub.database.owner_url, role)) as connection:
            try:
                connection.execute(statement.encode())
            except psycopg.errors.InsufficientPrivilege:
                return False
            return True

    finds = role == "hub_people"
    assert attempt("select sha256 from security.token") == finds
    assert attempt("update security.token set seen_at = now()") == finds
    for statement in (
        "insert into security.token values ('x', '', now())", "update security.token set sha256 = ''", "update security.token set person = 'x'",
        "delete from security.token", "truncate security.token", "create table security.other (x int)",
    ):  # fmt: skip
        assert not attempt(statement), statement
    if finds:
        for statement in (
            "insert into log.event select * from log.event", "select * from log.delivery", "select * from view_people.person",
            "select * from intake.lane",
        ):  # fmt: skip
            assert not attempt(statement), statement


def test_nobody_adds_people_over_http(hub: Hub, ann: Made, client: TestClient) -> None:
    boss = people.add(hub, "boss", ["administrator"])
    before = hub.log.head()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("/v1/people", "/v1/people/eve", "/people", "/v1/me"):
            answer = client.request(
                method, path, json={"name": "eve", "roles": ["buyer"]}, headers={"Authorization": f"Bearer {boss.token}"}
            )
            assert answer.status_code in (404, 405), (method, path)
    forged = {
        "type": "security.access_granted", "source": "hub:people", "key": "x", "occurred_at": "2026-01-05T06:00:00Z",
        "data": {"person": ann.person.id, "name": "ann", "change": 2, "roles": ["supervisor"], "held": ["supervisor"]},
    }  # fmt: skip
    hub.intake().take([Delivery(json.dumps(forged).encode(), "http", datetime.now(UTC))])
    assert [one.event.type for one in hub.log.read(before, 10)] == ["integration.delivery_quarantined"]
    assert hub.people.identify(ann.token).roles == {"buyer", "planner"}


def test_eight_who_add_the_same_name_are_one_person(hub: Hub) -> None:
    def attempt(n: int) -> Made | None:
        other = Hub(hub.settings, hub.database)
        try:
            return people.add(other, "ANN" if n % 2 else "ann", ["buyer"])
        except Refused:
            return None
        finally:
            other.log.close()

    with ThreadPoolExecutor(8) as pool:
        made = [one for one in pool.map(attempt, range(8)) if one]
    assert len(made) == 1
    assert [type_ for type_, *_ in facts(hub)] == ["access_granted"]
    assert hub.people.identify(made[0].token) == made[0].person


def test_eight_who_change_one_person_lose_no_change(hub: Hub, ann: Made) -> None:
    def attempt(n: int) -> None:
        other = Hub(hub.settings, hub.database)
        people.grant(other, "ann", [f"role-{n}"])
        other.log.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, range(8)))
    assert hub.people.identify(ann.token).roles == {"buyer", "planner", *(f"role-{n}" for n in range(8))}
    rows = owner(hub, "select version, (convert_from(data, 'UTF8')::jsonb ->> 'change')::int from log.event order by position")
    assert rows == [(n, n) for n in range(1, 10)]


def test_a_change_whose_lock_was_lost_is_refused_if_another_came_between(hub: Hub, ann: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = people._locked

    @contextlib.contextmanager
    def lost(hub: Hub) -> Iterator[Any]:
        with locked(hub) as (_, known):
            pass
        monkeypatch.setattr(people, "_locked", locked)
        people.grant(hub, "ann", ["quality"])
        with locked(hub) as (cursor, _):
            yield cursor, known

    monkeypatch.setattr(people, "_locked", lost)
    with pytest.raises(Refused, match="read it again"):
        people.revoke(hub, "ann")
    assert hub.people.identify(ann.token).roles == {"buyer", "planner", "quality"}


def test_who_dies_between_fact_and_token_leaves_a_person_without_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(people, "_keep", dies)
        with pytest.raises(KeyboardInterrupt):
            people.add(hub, "ann", ["buyer"])
    assert hub.people.tokens() == {}
    with pytest.raises(Refused, match=r"has access already: .* `hub people token` makes a new token"):
        people.add(hub, "ann", ["buyer"])
    assert hub.people.identify(people.renew(hub, "ann").token).name == "ann"


def test_a_key_that_a_source_took_first_keeps_nobody_in(hub: Hub, ann: Made) -> None:
    """Keys of ours have a part that nobody can foresee."""
    taken = [f"{ann.person.id}/{n}" for n in range(1, 4)]
    hub.log.append([fact(key, "masterdata.item_defined", {"item": "A", "base_unit": "EA"}, source=people.SOURCE) for key in taken])
    people.revoke(hub, "ann")
    assert nobody(hub, ann.token)


def test_a_retraction_from_a_source_gives_nobody_access_again(hub: Hub, ann: Made) -> None:
    people.revoke(hub, "ann")
    key = hub.log.read(0, 10)[-1].envelope.key
    hub.log.append([fact("undo", "inventory.fact_retracted", {"original": key, "reason": "x"}, source=people.SOURCE)])
    assert nobody(hub, ann.token)
    with caught_up(hub) as cursor:
        assert [row["roles"] for row in view.people(cursor)] == [[]]


def test_the_last_change_counts_in_the_view_whatever_the_clock_said(hub: Hub) -> None:
    def at(event: Any, hour: int) -> Fact:
        time_ = START + timedelta(hours=hour)
        return Fact(Envelope(source=people.SOURCE, key=f"k{event.change}", occurred_at=time_, effective_at=time_), event)

    person: dict[str, Any] = {"person": "0a1b2c3d4e5f6071", "name": "ann", "roles": ("buyer",)}
    hub.log.append([at(AccessGranted(**person, change=1, held=("buyer",)), 5), at(AccessRevoked(**person, change=2), 1)])
    with caught_up(hub, (view.People.name,)) as cursor:
        assert [row["roles"] for row in view.people(cursor)] == [[]]


def test_a_database_that_is_away_is_no_answer(hub: Hub) -> None:
    away = Hub(hub.settings, Database("postgresql://127.0.0.1:1/x"))
    token = new_token("0" * 16)[0]
    with pytest.raises(Unavailable):
        away.people.identify(token)
    with pytest.raises(Unavailable):
        people.add(away, "ann", ["buyer"])
    answer = browser(away).get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 503


# -- who decides --


def test_a_command_decides_by_hub_token(hub: Hub, ann: Made, tmp_path: Path) -> None:
    assert decider(hub, {"HUB_TOKEN": ann.token}) == ann.person
    (tmp_path / "token").write_text(f"{ann.token}\n")
    assert decider(hub, {"HUB_TOKEN_FILE": str(tmp_path / "token")}) == ann.person
    for environ in ({}, {"HUB_API_TOKEN": API_TOKEN}, {"HUB_TOKEN": API_TOKEN}, {"HUB_TOKEN": new_token(ann.person.id)[0]}):
        with pytest.raises(NotIdentified, match="hub people token"):
            decider(hub, environ)
    with pytest.raises(ConfigError, match="both set"):
        decider(hub, {"HUB_TOKEN": ann.token, "HUB_TOKEN_FILE": "x"})


def test_a_request_decides_by_bearer_token(hub: Hub, ann: Made, client: TestClient) -> None:
    answer = client.get("/v1/me", headers={"Authorization": f"Bearer {ann.token}"})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["person"], found["name"], found["roles"], found["rules"]) == (ann.person.id, "ann", ["buyer", "planner"], "access/1")
    assert "purchasing.decide" in found["actions"]
    assert "quality.decide" not in found["actions"]
    assert answer.headers["cache-control"] == "no-store"
    assert ann.token not in answer.text
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": f"Bearer {new_token(ann.person.id)[0]}"},
        {"Authorization": f"Bearer {API_TOKEN}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {ann.token}"},
        {"Cookie": f"{COOKIE}={ann.token}"},
        {"Cookie": f"{COOKIE}={ann.person.id}"},
    ]
    for headers in wrong:
        answer = client.get("/v1/me", headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"


def test_the_machines_token_decides_nothing(hub: Hub, ann: Made) -> None:
    guarded = Hub(Settings(home=hub.settings.home, api_host="0.0.0.0", api_token=Secret(API_TOKEN)), hub.database)
    client = browser(guarded)
    answer = client.get("/v1/me", headers={"Authorization": f"Bearer {API_TOKEN}"})
    assert answer.status_code == 403
    assert "for machines and cannot decide" in answer.json()["detail"]
    assert client.get("/v1/me").status_code == 401  # nor does the cookie that it got
    assert client.get("/v1/status").status_code == 200


# -- sessions --


def sign_in(client: TestClient, token: str, **more: Any) -> Any:
    return client.post("/signin", data={"token": token, **more}, headers=OWN)


def test_the_form_begins_a_session_that_is_not_the_token(hub: Hub, ann: Made, client: TestClient) -> None:
    assert 'name="token"' in client.get("/signin").text
    answer = sign_in(client, ann.token, next="/stock?accounts=all")
    assert (answer.status_code, answer.headers["location"]) == (303, "/stock?accounts=all")
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"))
    assert "Secure" not in cookie  # this is not https, where nothing would come back
    secret = ann.token.rpartition("_")[2]
    assert secret not in str(answer.headers)
    assert parsed(ann.token)[1].hex() not in str(answer.headers)
    assert client.get("/v1/me").json()["name"] == "ann"
    assert "signed in as" in client.get("/signin").text
    secure = TestClient(make_app(hub, HttpQueue(1)), base_url="https://127.0.0.1:8080", follow_redirects=False)
    answer = secure.post("/signin", data={"token": ann.token}, headers={"Origin": "https://127.0.0.1:8080"})
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "where", ["https://evil.example/", "//evil.example", "/\\evil.example", "/\t/evil.example", "javascript:alert(1)", ""]
)
def test_signing_in_goes_nowhere_else(hub: Hub, ann: Made, client: TestClient, where: str) -> None:
    assert sign_in(client, ann.token, next=where).headers["location"] == "/"
    assert "evil" not in client.get("/signin", params={"next": where}).text


def test_a_wrong_token_begins_nothing_and_is_repeated_nowhere(
    hub: Hub, ann: Made, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = new_token(ann.person.id)[0]
    for token in (wrong, "<script>alert(1)</script>", "", API_TOKEN):
        answer = sign_in(client, token)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert token == "" or token not in answer.text
    assert sign_in(client, "x" * 5000).status_code == 401
    sign_in(client, ann.token)
    said = caplog.text
    assert said.count("a sign-in from testclient was refused") == 5
    assert wrong not in said
    assert ann.token not in said


@pytest.mark.parametrize("end", ["revoke", "renew", "sign out", "time", "another sign-in", "another process"])
def test_a_session_ends_with_what_it_stands_for(hub: Hub, ann: Made, client: TestClient, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in(client, ann.token)
    kept = client.cookies[COOKIE]
    me = {"Cookie": f"{COOKIE}={kept}"}
    other = browser(hub)  # no cookie but what it is told
    assert other.get("/v1/me", headers=me).status_code == 200
    if end == "revoke":
        people.revoke(hub, "ann")
    elif end == "renew":
        people.renew(hub, "ann")
    elif end == "sign out":
        answer = client.post("/signout", headers=OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, "/signin")
        assert COOKIE not in client.cookies
    elif end == "time":
        later = time.monotonic() + limits.SESSION_S
        monkeypatch.setattr(hub.sessions, "_clock", lambda: later)
    elif end == "another sign-in":
        sign_in(client, ann.token)
        assert client.get("/v1/me").status_code == 200
    else:
        other = browser(Hub(hub.settings, hub.database))
    assert other.get("/v1/me", headers=me).status_code == 401
    assert hub.sessions.find(kept) is None or end == "another process"


def test_a_role_that_was_taken_is_taken_from_a_session_too(hub: Hub, ann: Made, client: TestClient) -> None:
    sign_in(client, ann.token)
    people.take(hub, "ann", ["buyer"])
    people.rename(hub, "ann", "anna")
    found = client.get("/v1/me").json()
    assert (found["name"], found["roles"]) == ("anna", ["planner"])


FOREIGN = ["http://evil.example", "http://127.0.0.1:3000", "https://127.0.0.1:8080", "null", ""]


@pytest.fixture
def deciding(hub: Hub) -> TestClient:
    """The application with a decision in it, such as the exceptions will have."""
    app: FastAPI = make_app(hub, HttpQueue(4))

    @app.post("/decide")
    def decide(request: Request) -> dict[str, str]:
        return {"by": decider(hub, request).actor}

    return TestClient(app, base_url=BASE, follow_redirects=False)


@pytest.mark.parametrize("origin", [one for one in FOREIGN if not one.startswith("https")])
def test_nothing_works_across_sites(hub: Hub, ann: Made, deciding: TestClient, origin: str) -> None:
    """What a browser sends for another site's page: the session's cookie at worst, and whose page it was."""
    sign_in(deciding, ann.token)
    for path in ("/decide", "/signin", "/signout", "/v1/facts"):
        answer = deciding.post(path, data={"token": ann.token}, headers={"Origin": origin})
        assert answer.status_code == 403, path
        assert "set-cookie" not in answer.headers
    assert deciding.get("/v1/me", headers={"Origin": origin}).status_code == 403
    assert deciding.post("/decide", headers=OWN).json() == {"by": ann.person.actor}


def test_what_does_not_say_whose_page_it_is_from_decides_by_a_token_alone(hub: Hub, ann: Made, deciding: TestClient) -> None:
    assert deciding.post("/signin", data={"token": ann.token}).status_code == 403
    sign_in(deciding, ann.token)
    answer = deciding.post("/decide")
    assert (answer.status_code, "own pages" in answer.json()["detail"]) == (403, True)
    assert deciding.post("/signout").status_code == 403
    assert deciding.get("/v1/me").status_code == 200
    assert deciding.post("/decide", headers={"Authorization": f"Bearer {ann.token}"}).json() == {"by": ann.person.actor}


def test_no_page_shows_the_hub_within_itself(hub: Hub, client: TestClient) -> None:
    for path in ("/signin", "/v1/status", "/nowhere"):
        assert client.get(path).headers["content-security-policy"] == "frame-ancestors 'none'", path


# -- where others reach the hub --


@pytest.fixture
def guarded(hub: Hub) -> Hub:
    return Hub(Settings(home=hub.settings.home, api_host="0.0.0.0", api_token=Secret(API_TOKEN)), hub.database)


def test_a_person_reads_and_decides_and_leaves_intake_to_machines(guarded: Hub, ann: Made) -> None:
    bearer = {"Authorization": f"Bearer {ann.token}"}
    for headers, client in ((bearer, browser(guarded)), (OWN, browser(guarded))):
        if headers is OWN:
            assert client.get("/v1/status").status_code == 401
            assert client.get("/signin").status_code == 200  # the form itself is open
            assert sign_in(client, ann.token).status_code == 303
        assert client.get("/v1/status", headers=headers).status_code == 200
        assert client.get("/v1/me", headers=headers).json()["name"] == "ann"
        assert "millwright=" not in str(client.cookies), "the machine's cookie, which ends with no person"
        for path in ("/v1/facts", "/epcis/capture"):
            answer = client.post(path, json={}, headers=headers)
            assert (answer.status_code, "HUB_API_TOKEN" in answer.json()["detail"]) == (403, True)
        people.revoke(guarded, "ann")
        assert client.get("/v1/status", headers=headers).status_code == 401
        ann = people.add(guarded, "ann", ["buyer"])


def test_a_session_counts_beside_the_password_that_a_browser_sends(guarded: Hub, ann: Made) -> None:
    client = browser(guarded)
    client.auth = ("anyone", API_TOKEN)
    assert client.get("/v1/me").status_code == 401
    sign_in(client, ann.token)
    assert client.get("/v1/me").json()["name"] == "ann"


def test_a_database_that_is_away_lets_nobody_in(guarded: Hub, ann: Made) -> None:
    away = Hub(guarded.settings, Database("postgresql://127.0.0.1:1/x"))
    answer = browser(away).get("/health/live", headers={"Authorization": f"Bearer {ann.token}"})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")


@contextlib.contextmanager
def served(app: Callable[..., Any]) -> Iterator[int]:
    port, stop = free_port(), threading.Event()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False, timeout_graceful_shutdown=3)
    thread = threading.Thread(target=serve, args=(config, stop))
    thread.start()
    until = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError):
            httpx.get(f"http://127.0.0.1:{port}/signin")
            break
        assert time.monotonic() < until
        time.sleep(0.05)
    try:
        yield port
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("shown", ["session", "bearer"])
def test_an_open_socket_ends_with_the_access_of_who_opened_it(guarded: Hub, ann: Made, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a real server: what a console's page keeps open lives longer than the look at who opened it."""
    from starlette.websockets import WebSocket, WebSocketDisconnect

    app: FastAPI = make_app(guarded, HttpQueue(4))

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await socket.send_text(await socket.receive_text())

    app.add_api_websocket_route("/socket", echo)
    monkeypatch.setattr(limits, "SESSION_CHECK_S", 0.3)
    secret = guarded.sessions.begin(ann.person, parsed(ann.token)[1])
    headers = {"Cookie": f"{COOKIE}={secret}"} if shown == "session" else {"Authorization": f"Bearer {ann.token}"}
    with served(app) as port:
        with pytest.raises(Exception, match=r"HTTP 40[13]"), connect(f"ws://127.0.0.1:{port}/socket"):
            pass
        with connect(f"ws://127.0.0.1:{port}/socket", additional_headers=headers) as socket:
            for _ in range(3):
                socket.send("here")
                assert socket.recv(5) == "here"
                time.sleep(0.35)
            people.revoke(guarded, "ann")
            until = time.monotonic() + 5
            with contextlib.suppress(ConnectionClosed):
                while time.monotonic() < until:
                    socket.send("here")
                    assert socket.recv(5) == "here"
                    time.sleep(0.1)
            assert time.monotonic() < until


@pytest.mark.parametrize("how", ["bearer", "form"])
def test_no_more_than_a_few_are_looked_up_at_once(guarded: Hub, ann: Made, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knocks with made-up tokens takes no thread from those who read."""
    running, most = 0, 0
    mutex = threading.Lock()

    def slow(self: Any, token: str) -> Person:
        nonlocal running, most
        with mutex:
            running, most = running + 1, max(most, running + 1)
        time.sleep(0.1)
        with mutex:
            running -= 1
        raise NotIdentified("hub people token")

    monkeypatch.setattr(security.People, "identify", slow)
    with served(make_app(guarded, HttpQueue(4))) as port, ThreadPoolExecutor(24) as pool:
        base = f"http://127.0.0.1:{port}"
        if how == "bearer":
            knocks = [pool.submit(httpx.get, f"{base}/v1/status", headers={"Authorization": "Bearer mw_x"}) for _ in range(24)]
        else:
            knocks = [pool.submit(httpx.post, f"{base}/signin", data={"token": "x"}, headers={"Origin": base}) for _ in range(24)]
        assert {knock.result().status_code for knock in knocks} == {401}
    assert 1 < most <= limits.IDENTIFY_AT_ONCE_MAX


# -- what is recorded where HUB_TOKEN says who --


def test_an_act_is_recorded_with_its_person(hub: Hub, ann: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUB_TOKEN", raising=False)
    assert people.given(hub) is None
    assert people.actor_of(None, "operator") == "operator"
    monkeypatch.setenv("HUB_TOKEN", ann.token)
    person = people.given(hub)
    assert person == ann.person
    people.record(hub, people.actor_of(person), "replay.promote", "view/stock")
    assert facts(hub)[-1] == ("act_performed", ann.person.actor, {"action": "replay.promote", "subject": "view/stock"})
    monkeypatch.setenv("HUB_TOKEN", "mw_wrong")
    with pytest.raises(NotIdentified):  # a wrong one is not as good as none
        people.given(hub)


def test_signed_in_shows_who_began_the_session(hub: Hub, ann: Made) -> None:
    secret = hub.sessions.begin(ann.person, b"")
    scope = {"type": "http", "method": "GET", "headers": [(b"cookie", f"a=b; {COOKIE}={secret}".encode())]}
    assert signin.signed_in(hub, Request(scope)) == ann.person
    assert signin.signed_in(hub, Request({**scope, "headers": []})) is None
