"""`hub replay`: rebuild, verify, promote."""

import sys
import time

from events.errors import Refused
from hub.app import people, tracing
from hub.app.cli import output
from hub.app.wiring import named_views, open_hub
from replay.promote import promote
from replay.rebuild import Progress, rebuild
from replay.verify import verify


def _chosen(names: list[str], all_: bool) -> list[str]:
    if bool(names) == all_:
        raise Refused("name the views, or give --all")
    return names


def run_rebuild(names: list[str], all_: bool, restart: bool, json_: bool) -> int:
    """`hub replay rebuild`."""
    chosen = named_views(_chosen(names, all_))
    with tracing.exported("hub-replay", numbers=False), open_hub() as hub:
        position, done = rebuild(hub.follow_url, chosen, _Shown(), restart=restart)
    if json_:
        views = {name: {"events": r.events, "seconds": round(r.seconds, 3), "digest": r.digest} for name, r in done.items()}
        output.document({"position": position, "views": views})
    else:
        for name, r in done.items():
            print(f"{name:<12} {r.events} events in {r.seconds:.2f} s, digest {r.digest[:16]}")
        print(f"rebuilt to position {position}; `hub replay verify` compares, `hub replay promote --all` swaps")
    return 0


class _Shown:
    """Prints progress with an ETA on standard error, at most five times a second on a terminal, every five seconds elsewhere."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._last = 0.0

    def __call__(self, p: Progress) -> None:
        now = time.monotonic()
        done = p.position >= p.target
        if not done and now - self._last < (0.2 if self._tty else 5.0):
            return
        self._last = now
        left = f", {p.left_s:.0f} s left" if p.left_s else ""
        line = f"{p.view}: {p.position} of {p.target}{left}"
        print(f"\r{line:<70}" if self._tty else line, end="\n" if done or not self._tty else "", file=sys.stderr, flush=True)


def run_verify(names: list[str], json_: bool) -> int:
    """`hub replay verify`; exit code 1 if anything differs."""
    with open_hub() as hub:
        if not hub.followed():
            hub.catch_up()  # a new home, or a copied log: nobody has made any view yet, so none is missing
        position, found = verify(hub.follow_url, named_views(names))
    equal = {view: all(t.equal for t in tables.values()) for view, tables in found.items()}
    if json_:
        output.document(
            {
                "position": position,
                "views": {
                    view: {
                        "equal": equal[view],
                        "tables": {
                            name: {"rows": t.rows, "differing": t.differing, "missing": t.missing, "extra": t.extra, "keys": t.keys}
                            for name, t in tables.items()
                        },
                    }
                    for view, tables in found.items()
                },
            }
        )
    else:
        for view, tables in found.items():
            print(f"{view:<12} {'equal' if equal[view] else 'DIFFERS'}")
            for name, t in tables.items():
                if not t.equal:
                    print(f"  {name}: of {t.rows} rows {t.differing} differ, {t.missing} are missing, {t.extra} should not be there")
                    for key in t.keys:
                        print(f"    {key}")
            if tables["position"].missing:
                print(
                    "  the view is not there, or lost its position: somebody removed it, or nobody followed the log yet (`hub serve` does)"
                )
        if not all(equal.values()):
            print("a live view is not what the log says: `hub replay rebuild VIEW` and `hub replay promote VIEW` restore it")
    return 0 if all(equal.values()) else 1


def run_promote(names: list[str], all_: bool, json_: bool) -> int:
    """`hub replay promote`."""
    chosen = named_views(_chosen(names, all_))
    with open_hub() as hub:
        person = people.given(hub)
        position, promoted = promote(hub.follow_url, chosen)
        if person is not None:
            for name in promoted:
                people.record(hub, person.actor, "replay.promote", f"view/{name}")
    if json_:
        output.document({"position": position, "promoted": promoted})
    else:
        print(f"promoted {', '.join(promoted)} at position {position}")
    return 0
