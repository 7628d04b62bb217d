"""`hub status` and `hub doctor`."""

import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from hub import limits
from hub.app import answers
from hub.app.cli import output
from hub.app.wiring import Hub, open_hub, views
from hub.log.migrate import REQUIRED_SETTINGS, Unsafe

FREE_BYTES_MIN = 1024**3
CLOCK_SKEW_S_MAX = 5.0


def show_status(json_: bool) -> int:
    """`hub status`."""
    with open_hub() as hub:
        found = answers.status(hub)
    if json_:
        output.document(found)
        return 0
    output.table(["role", "pid", "since", "restarts"], found["processes"], "no processes: `hub serve` or `make demo` starts them")
    behind = {name: found["head"] - position for name, position in found["views"].items() if position < found["head"]}
    print(
        f"\nhead {found['head']}, oldest unprocessed {found['oldest_unprocessed_s']} s, held {found['quarantine']}, exceptions {found['exceptions']}"
    )
    if behind or not found["trouble"]:
        print("all views are at the head" if not behind else "behind: " + ", ".join(f"{name} {n}" for name, n in behind.items()))
    wrong = [*found["trouble"].values(), *(stuck(found, view) for view in found["stuck"] if view not in found["trouble"])]
    if relay := found["relay"]:
        print(f"relay to {relay['topic'] or 'no topic yet'}: at {relay['position']}, {relay['lag']} behind, {relay['lag_s']} s")
        wrong.append(relay["trouble"] or "")
    for text in wrong:
        if text:
            print(f"WRONG {text}")
    return 0


def stuck(found: dict[str, Any], view: str) -> str:
    """What to say of a view that stands still though facts wait, from `hub status`; empty where no hub runs that should move it."""
    if view not in found["stuck"] or not found["processes"]:
        return ""
    behind = found["head"] - found["views"][view]
    return (
        f"view {view} stands still at {found['views'][view]} for {found['stuck'][view]:.0f} s, {behind} behind the head: look into "
        f"run/log/hub-follow.log for `view {view}`; where it says nothing, end hub-follow (`kill`; it is started again)"
    )


def show_doctor(json_: bool) -> int:
    """`hub doctor`; exit code 1 if anything is wrong."""
    try:
        with open_hub() as hub:
            found = list(_checks(hub))
    except Unsafe as error:  # no hub opens on such a server
        found = [("database server", error.seen, str(error))]
    checks = [{"check": name, "ok": not trouble, "seen": seen, "next": trouble or None} for name, seen, trouble in found]
    if json_:
        output.document({"ok": all(c["ok"] for c in checks), "checks": checks})
    else:
        for c in checks:
            output.line(f"{'ok   ' if c['ok'] else 'WRONG'} {c['check']:<28} {c['seen']}")
            if c["next"]:
                output.line(f"      → {c['next']}")
    return 0 if all(c["ok"] for c in checks) else 1


def _checks(hub: Hub) -> Iterator[tuple[str, str, str]]:
    """(what, what was seen, "" or what to do)."""
    yield "python", sys.version.split()[0], "" if sys.version_info >= (3, 11) else "use Python 3.11 or newer"
    free = shutil.disk_usage(hub.settings.home).free
    yield "disk under the home", f"{free / 1024**3:.1f} GiB free", "" if free > FREE_BYTES_MIN else "free some space, at least 1 GiB"
    with psycopg.connect(hub.door_url) as connection:
        yield from _database(connection)
    with answers.reading(hub) as cursor:
        yield from _log(cursor)
    found = answers.status(hub)
    yield from _views(found)
    yield from _relay(hub, found)


def _database(connection: psycopg.Connection[tuple[Any, ...]]) -> Iterator[tuple[str, str, str]]:
    def ask(query: str) -> Any:
        return (connection.execute(query).fetchone() or (None,))[0]

    version = ask("show server_version_num")
    yield "postgresql", ask("show server_version"), "" if int(version) >= 150000 else "use PostgreSQL 15 or newer"
    for name, wanted in REQUIRED_SETTINGS.items():
        found = ask(f"show {name}")
        yield name, found, "" if found == wanted else f"set {name} = {wanted}: without it what the hub acknowledged can be lost"
    # what holds in a new session of the door, whoever set it: server, database or role
    found, set_by = connection.execute(
        "select setting, case source when 'default' then '' else source end from pg_settings where name = 'synchronous_commit'"
    ).fetchone() or ("", "")
    yield "synchronous_commit", f"{found}{f' (set by {set_by})' if set_by else ''}", "" if found != "off" else _sync_remedy(set_by)
    skew_s = abs(float(ask("select extract(epoch from clock_timestamp())")) - time.time())
    yield "clock against the database", f"{skew_s:.3f} s apart", "" if skew_s < CLOCK_SKEW_S_MAX else "let NTP set both clocks"
    held = ask(
        """select string_agg(p, ', ') from unnest(array['update', 'delete', 'truncate']) p
           where has_table_privilege('hub_door', 'log.event', p) or has_table_privilege('hub_follow', 'log.event', p)"""
    )
    yield (
        "rights on the log",
        "append and read only" if not held else f"may {held}",
        "" if not held else "revoke these rights from the hub's roles",
    )
    boss = ask("select rolsuper from pg_roles where rolname = current_user")
    yield "role", "not a superuser" if not boss else "superuser", "" if not boss else "alter role hub_door nosuperuser"


def _sync_remedy(set_by: str) -> str:
    where = {"user": "alter role … reset", "database": "alter database … reset", "database user": "alter role … in database … reset"}.get(
        set_by
    )
    how = f"`{where} synchronous_commit` for what `\\drds` names" if where else "set synchronous_commit = on and reload"
    return f"{how}: without it what the hub acknowledged can be lost"


def _log(cursor: psycopg.Cursor[tuple[Any, ...]]) -> Iterator[tuple[str, str, str]]:
    row = cursor.execute("select count(*), coalesce(min(position), 1), coalesce(max(position), 0) from log.event").fetchone() or (0, 1, 0)
    whole = row[1] == 1 and row[0] == row[2]
    yield (
        "positions",
        (f"1 to {row[2]} without a hole" if row[2] else "no facts yet") if whole else f"{row[0]} rows in {row[1]}…{row[2]}",
        "" if whole else "stop, and compare the log with a backup",
    )
    row = cursor.execute(
        "select count(*) from (select from log.event group by stream having count(*) <> max(version) - min(version) + 1) s"
    ).fetchone() or (0,)
    yield (
        "stream versions",
        "contiguous" if not row[0] else f"{row[0]} streams with holes",
        "" if not row[0] else "stop, and compare the log with a backup",
    )


def _relay(hub: Hub, found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The Kafka relay, where settings name one; what counts is that its position moves, not that its process is there."""
    if hub.settings.relay_brokers is None:
        return
    relay, runs = found["relay"], {p["role"] for p in found["processes"]}
    if relay is None:
        yield "relay", "not there yet", "start the hub (`hub serve`); if it runs, look into hub-relay.log"
        return
    seen = f"to {relay['topic'] or 'no topic yet'}, at {relay['position']}, {relay['lag']} behind"
    step = relay["trouble"] or ""
    if not step and relay["lag_s"] > limits.READY_LAG_S:
        step = f"{relay['lag_s']:.0f} s behind: " + (
            "look into hub-relay.log" if "hub-relay" in runs else "hub-relay does not run, start the hub (`hub serve`)"
        )
    yield "relay", seen, step


def _views(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for view in views():
        at = found["views"].get(view.name)
        lag = found["head"] - at if at is not None else None
        if lag is None:
            yield (
                f"view {view.name}",
                "not there yet",
                "" if found["head"] == 0 else "start the hub (`hub serve`), or run any query: it folds the log",
            )
        elif view.name in found["trouble"]:
            yield f"view {view.name}", f"at {at}, head {found['head']}", found["trouble"][view.name]
        elif said := stuck(found, view.name):
            yield f"view {view.name}", f"{lag} behind, stands still", said
        else:
            yield f"view {view.name}", "at the head" if not lag else f"{lag} behind", ""
