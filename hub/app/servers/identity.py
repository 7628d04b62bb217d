"""Identity: as whom a server runs that refuses root, and the change of identity in its child.

Errors: `Unavailable`, with the remedy.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass

from events.errors import Unavailable

_CLONE_NEWUSER = 0x10000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Identity:
    """As whom PostgreSQL runs: how a child becomes it, and the uid that must own the files, seen from here."""

    change: Callable[[], None] | None
    owner: int
    group: int


def identity() -> Identity:
    """An ordinary user is itself; root becomes `nobody`, in a user namespace if it may."""
    uid = os.geteuid()
    if uid != 0:
        try:
            pwd.getpwuid(uid)
        except KeyError:
            raise Unavailable(
                f"private PostgreSQL: uid {uid} has no entry in /etc/passwd and initdb refuses such a user: add one "
                "(in a container: a line in /etc/passwd or a fixed --user), or set HUB_DATABASE_URL to a server of your own"
            ) from None
        return Identity(None, uid, os.getegid())
    entry = _unprivileged()
    enter = functools.partial(enter_user_namespace, entry.pw_uid, entry.pw_gid)
    if works_in_child(enter):
        return Identity(enter, uid, os.getegid())
    become = functools.partial(become_user, entry.pw_uid, entry.pw_gid)
    if works_in_child(become):
        return Identity(become, entry.pw_uid, entry.pw_gid)
    raise Unavailable(
        f"private PostgreSQL: it refuses to run as root, and here root may neither make a user namespace nor become {entry.pw_name} "
        f"(uid {entry.pw_uid}): run the hub as an ordinary user, or set HUB_DATABASE_URL to a server of your own"
    )


def _unprivileged() -> pwd.struct_passwd:
    entries = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    for name in ("nobody", "postgres"):
        for entry in entries:
            if entry.pw_name == name:
                return entry
    if entries:
        return entries[-1]
    raise Unavailable(
        "private PostgreSQL: it refuses to run as root and /etc/passwd names no other user to run it as: add the user nobody, "
        "or set HUB_DATABASE_URL to a server of your own"
    )


def enter_user_namespace(uid: int, gid: int) -> None:
    """In a child before exec: become `uid` inside a new user namespace, while outside, and for its files, it stays who it is."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    if _LIBC.unshare(_CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(fd, text.encode())
        os.close(fd)


def become_user(uid: int, gid: int) -> None:
    """In a child before exec: become that user for good."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def works_in_child(change: Callable[[], None]) -> bool:
    """Try a change of identity in a throw-away child. Only for processes with one thread."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            change()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
