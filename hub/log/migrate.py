"""Brings a database to the schema of this hub, acting as its owner: tables, roles, rights."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files

import psycopg
from psycopg import conninfo, sql

from events.errors import Refused, Unavailable

SCHEMA_VERSION = 5
ROLES = ("hub_door", "hub_follow", "hub_read", "hub_people")
_NAMING = ROLES[:3]  # the roles there were when homes got their login names, which stay
REQUIRED_SETTINGS = {"fsync": "on", "full_page_writes": "on"}  # without them a commit is not durable (reliability.md P1)
_LOCK = 0x6D696C6C  # advisory: several hubs may start at once


class Unsafe(Refused):
    """The server would lose what it confirmed; `seen` is the setting."""

    def __init__(self, message: str, seen: str) -> None:
        super().__init__(message)
        self.seen = seen


def migrate(owner_url: str, passwords: Mapping[str, str] | None = None) -> None:
    """Create or upgrade everything the hub needs; cheap where nothing is to do.

    `passwords` are those of the home's own LOGIN roles (None: a private server that trusts its socket). Raises `Refused` for a server whose settings
    would lose what it confirmed or whose schema is newer than this program, `Unavailable` if it cannot be reached.
    """
    try:
        with psycopg.connect(owner_url) as connection, connection.cursor() as cursor:
            _check_settings(cursor)
            # roles are shared by all databases of a server: lock in the one that all have in common is not to be had, so retry by existence
            cursor.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
            if _version(cursor) != SCHEMA_VERSION:
                _create(cursor)
            _roles(cursor, passwords)
    except psycopg.OperationalError as error:
        raise Unavailable(f"the database cannot be reached as its owner: {error}") from error
    except psycopg.errors.InsufficientPrivilege as error:
        owner = conninfo.conninfo_to_dict(owner_url).get("user", "")
        raise Refused(
            f"the database's owner {owner} may not make the hub's roles and tables ({str(error).splitlines()[0]}): as an administrator run "
            f'`alter role "{owner}" createrole` and, where other hubs use this server, '
            f'`grant {", ".join(ROLES)} to "{owner}" with admin option`; it must own the database'
        ) from error


def login_name(role: str, passwords: Mapping[str, str]) -> str:
    """The LOGIN role by which one home acts as `role` on a server that several homes may share: none changes another's password."""
    return f"{role}_{hashlib.sha256(''.join(passwords[name] for name in _NAMING).encode()).hexdigest()[:8]}"


def _login(cursor: psycopg.Cursor[tuple[object, ...]], role: str, name: str, password: str) -> None:
    cursor.execute("select 1 from pg_roles where rolname = %s", [name])
    if cursor.fetchone() is None:
        make = sql.SQL("create role {} login nosuperuser nocreatedb nocreaterole password {} in role {}")
        cursor.execute(make.format(sql.Identifier(name), sql.Literal(password), sql.Identifier(role)))


def _check_settings(cursor: psycopg.Cursor[tuple[object, ...]]) -> None:
    for name, wanted in REQUIRED_SETTINGS.items():
        cursor.execute("select current_setting(%s)", [name])
        (found,) = cursor.fetchone() or ("",)
        if found != wanted:
            raise Unsafe(
                f"the database server runs with {name} = {found}: what it confirms can be lost. Set {name} = {wanted} and restart it",
                f"{name} = {found}",
            )
    cursor.execute("select current_setting('synchronous_commit')")
    if cursor.fetchone() == ("off",):
        raise Unsafe(
            "the database server runs with synchronous_commit = off: what it confirms can be lost. Set it to on and reload",
            "synchronous_commit = off",
        )
    cursor.execute("select current_database(), current_setting('server_encoding')")
    database, encoding = cursor.fetchone() or ("", "")
    if encoding != "UTF8":
        raise Refused(
            f"the database {database} is encoded in {encoding}, which cannot hold all that a source may write: make one with "
            "`create database … encoding 'UTF8' template template0` and name it in HUB_DATABASE_URL"
        )


def _version(cursor: psycopg.Cursor[tuple[object, ...]]) -> int | None:
    cursor.execute("select to_regclass('intake.schema_version') is not null")
    if cursor.fetchone() != (True,):
        return None
    cursor.execute("select max(version) from intake.schema_version")
    (found,) = cursor.fetchone() or (None,)
    if isinstance(found, int) and found > SCHEMA_VERSION:
        raise Refused(f"the database has schema version {found}, this hub knows {SCHEMA_VERSION}: use the newer hub")
    return found if isinstance(found, int) else None


def _create(cursor: psycopg.Cursor[tuple[object, ...]]) -> None:
    cursor.execute(files("hub.log").joinpath("tables.sql").read_bytes())
    cursor.execute("insert into intake.schema_version values (%s)", [SCHEMA_VERSION])


def _roles(cursor: psycopg.Cursor[tuple[object, ...]], passwords: Mapping[str, str] | None) -> None:
    cursor.execute("select current_database()")
    (database,) = cursor.fetchone() or ("",)
    for role in ROLES:
        cursor.execute("select 1 from pg_roles where rolname = %s", [role])
        if cursor.fetchone() is None:
            make = sql.SQL(
                "do $$ begin create role {} login nosuperuser nocreatedb nocreaterole; exception when duplicate_object or unique_violation then null; end $$"
            )
            cursor.execute(make.format(sql.Identifier(role)))
        if passwords:
            _login(cursor, role, login_name(role, passwords), passwords[role])
        cursor.execute(sql.SQL("grant connect on database {} to {}").format(sql.Identifier(str(database)), sql.Identifier(role)))
    cursor.execute(sql.SQL("grant create on database {} to hub_follow").format(sql.Identifier(str(database))))
    cursor.execute(files("hub.log").joinpath("roles.sql").read_bytes())
