"""What a server of one's own may refuse, and that the hub says which right or which setting is missing."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import conninfo, sql

from events.errors import Refused
from hub.app.servers.postgres import to_url
from hub.log.migrate import ROLES, login_name, migrate
from tests.conftest import new_database
from tests.facts import as_role

PASSWORDS = {role: f"secret of {role}" for role in ROLES}


@pytest.fixture
def modest_url(pg_owner_url: str, fresh_database: str) -> Iterator[str]:
    """An empty database whose owner is no superuser and may make no roles."""
    migrate(fresh_database)  # as another hub on this server
    name = f"modest_{uuid.uuid4().hex[:8]}"
    owner = sql.Identifier(name)
    with psycopg.connect(pg_owner_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} login").format(owner))
        try:
            with new_database(pg_owner_url) as url:
                database = conninfo.conninfo_to_dict(url)["dbname"]
                admin.execute(sql.SQL("alter database {} owner to {}").format(sql.Identifier(str(database)), owner))
                yield to_url({**conninfo.conninfo_to_dict(url), "user": name})
        finally:
            for role in ROLES:
                admin.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(login_name(role, PASSWORDS))))
            admin.execute(sql.SQL("drop role {} ").format(owner))


def test_an_owner_without_the_right_to_make_roles_is_told_what_to_grant(pg_owner_url: str, modest_url: str) -> None:
    name = conninfo.conninfo_to_dict(modest_url)["user"]
    with pytest.raises(Refused, match=rf'owner {name} may not .*: as an administrator run `alter role "{name}" createrole`') as refused:
        migrate(modest_url, PASSWORDS)
    assert "\n" not in str(refused.value)
    with psycopg.connect(pg_owner_url, autocommit=True) as admin:
        for words in str(refused.value).split("`")[1::2]:
            admin.execute(words.encode())
    migrate(modest_url, PASSWORDS)
    migrate(modest_url, PASSWORDS)


def test_a_database_that_is_not_utf8_is_refused(pg_owner_url: str) -> None:
    with new_database(pg_owner_url, "locale 'C'", encoding="LATIN1") as url, pytest.raises(Refused, match=r"LATIN1.*encoding 'UTF8'"):
        migrate(url)


def test_an_older_database_gets_what_is_new_and_homes_keep_their_logins(pg_owner_url: str) -> None:
    """A home of the hub that had three roles, and its database."""
    three = {role: PASSWORDS[role] for role in ROLES[:3]}
    assert [login_name(role, three) for role in three] == [login_name(role, PASSWORDS) for role in three]
    with new_database(pg_owner_url) as url:
        migrate(url)
        with psycopg.connect(url) as owner:
            owner.execute("drop schema security cascade")
            owner.execute("update intake.schema_version set version = 4")
        migrate(url)
        with psycopg.connect(as_role(url, "hub_people")) as people:
            assert people.execute("select count(*) from security.token").fetchone() == (0,)
