"""`hub edge`: the edge itself and what is asked of it at the plant; on the hub enrolment and gaps."""

import getpass
import json
import logging
import signal
import threading
import urllib.parse
from pathlib import Path

from events.errors import Unavailable
from hub.app import logs
from hub.app.cli import output
from hub.app.edge.ask import ask, is_well, status
from hub.app.edge.config import Configured

_log = logging.getLogger("hub.app.edge")


def run_edge(config: Path) -> int:
    """`hub edge`."""
    from hub.app.edge.process import Edge

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    configured = Configured(config)
    with logs.writing("edge", fd=1, printed=False):
        edge = Edge(configured, lambda text: _log.warning("%s", text))
        said = configured.config
        _log.info("edge %s runs: http://%s/, spool %s, to %s", said.edge, said.listen, edge.spool.path, said.hub.url)
        edge.run(stop)
    return 0


def check_edge(config: Path, json_: bool) -> int:
    """`hub edge check`."""
    from hub.app.edge.check import checks

    found = list(checks(Configured(config)))
    if json_:
        output.document({"ok": all(one["ok"] for one in found), "checks": found})
    else:
        for one in found:
            print(f"{'ok   ' if one['ok'] else 'WRONG'} {one['what']}: {one['seen']}")
    return 0 if all(one["ok"] for one in found) else 1


def show_edge(config: Path, json_: bool) -> int:
    """`hub edge status`."""
    found = status(Configured(config))
    down = [one for one in found["sources"] if not one["connected"]]
    if json_:
        output.document(found)
    else:
        line = found["line"]
        print(f"edge {found['edge']}, epoch {found['epoch']}")
        print(f"line to {line['url']}: {'up' if line['up'] else 'DOWN: ' + line['trouble']}")
        print(f"backlog {found['backlog']} entries, {found['backlog_bytes']} of {found['bytes_max']} bytes, oldest {found['oldest_s']} s")
        if "drain_rate" in found:
            full = "not growing" if found["full_in_s"] is None else f"full in {found['full_in_s']} s"
            print(f"arrive {found['arrival_rate']}/s, drain {found['drain_rate']}/s, disk {full}")
        output.table(["lane", "last", "acked", "backlog", "oldest_at"], found["lanes"], "no lanes yet: nothing came")
        for one in down:
            print(f"WRONG {one['name']}: {one['trouble']}")
    return 0 if is_well(found) else 1


def drain_edge(config: Path, rate: float, json_: bool) -> int:
    """`hub edge drain`."""
    found = ask(Configured(config), "/v1/drain", {"rate": rate})
    if json_:
        output.document(found)
    else:
        print(f"the backlog leaves at {found['rate_max'] or 'any number of'} entries a second, until the edge is started again")
    return 0


def resend(config: Path, lane: str, first: int, last: int, json_: bool) -> int:
    """`hub edge resend`."""
    found = ask(Configured(config), "/v1/resend", {"lane": lane, "first": first, "last": last})
    if json_:
        output.document(found)
    else:
        print(f"{found['found']} of {found['asked']} entries of lane {lane} are sent once more")
        if found["found"] < found["asked"]:
            print("the others wait to be sent anyway, or are kept no more: spool.keep and spool.keep_hours say how long")
    return 0 if found["found"] == found["asked"] else 1


def show_devices(config: Path, of: str, json_: bool) -> int:
    """`hub edge devices`."""
    found = ask(Configured(config), f"/v1/devices?{urllib.parse.urlencode({'of': of})}")["devices"]
    if json_:
        output.rows(found)
    else:
        output.table(["source", "device", "status", "since", "metrics"], found, f"no devices{of and f' {of}…'}: none has said anything yet")
        if tags := [{**tag, "value": json.dumps(tag["value"], ensure_ascii=False)} for one in found for tag in one["tags"]]:
            print()
            output.table(["tag", "value", "quality", "at", "type"], tags, "")
    return 0 if found else 1


def command(config: Path, tag: str, value: str, source: str | None, json_: bool) -> int:
    """`hub edge command`."""
    found = ask(Configured(config), "/v1/command", {"tag": tag, "value": value, "source": source, "by": getpass.getuser()})
    if json_:
        output.document(found)
    else:
        output.line(f"sent to {found['topic']}; that it is followed shows in what {tag} says next")
    return 0


def show_gaps(all_: bool, json_: bool) -> int:
    """`hub edge gaps`."""
    from hub.app import answers
    from hub.app.wiring import open_hub
    from projections.equipment_answers import gaps

    with open_hub() as hub, answers.caught_up(hub, ("equipment",)) as cursor:
        found = list(gaps(cursor, filled=all_))
    if json_:
        output.rows(found)
    else:
        output.table(
            ["edge", "producer", "kind", "first", "last", "since", "until", "filled_at", "reason"],
            found,
            "no gaps: nothing is known to be missing",
        )
    return 0


def enrol(name: str, out: Path | None, url: str | None, json_: bool) -> int:
    """`hub edge enrol`."""
    from hub.app.home import Home
    from hub.app.people import acting
    from hub.app.plants.authority import Authority
    from hub.app.settings import Settings

    settings = Settings.load()
    authority = Authority(Home.open(settings.home))
    folder = out or Path(name)
    with acting(settings) as done:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            made = authority.hand_over(name, folder)
            yaml = folder / "edge.yaml"
            if not yaml.exists():
                made.append(yaml.name)
                yaml.write_text(_FIRST.format(edge=name, url=url or f"https://{settings.edge_host or 'HUB'}:{settings.edge_port}"))
        except OSError as error:
            authority.withdraw(name)
            raise Unavailable(f"{folder} cannot be written ({error}): name another folder with --out") from error
        done("edge.enrol", f"edge/{name}")
    if json_:
        output.document({"edge": name, "folder": str(folder), "made": made})
    else:
        print(
            f"{name} is enrolled: take {folder}/ to the plant (edge.key is kept nowhere else), then `hub edge check --config edge.yaml` there"
        )
        if settings.edge_host is None:
            print("this hub does not listen for edges yet: set HUB_EDGE_LISTEN, for example to 0.0.0.0:8443")
    return 0


_FIRST = """\
edge: {edge}
plant:
  zone: UTC                   # IANA, for times without an offset
hub:
  url: {url}
spool:
  path: spool.db
  max: 1GiB                   # full: the sources must keep what they have
listen: 127.0.0.1:8090        # the edge's page, and HTTP posts
folders: []                   # - {{name: inbox, path: /var/lib/edge/inbox}}
mqtt: []                      # - {{name: machines, url: mqtt://broker:1883, readings: [{{filter: "site/#"}}]}}; all keys are in docs/edge.md
"""


def withdraw(name: str, json_: bool) -> int:
    """`hub edge withdraw`."""
    from hub.app.home import Home
    from hub.app.people import acting
    from hub.app.plants.authority import Authority
    from hub.app.settings import Settings

    settings = Settings.load()
    with acting(settings) as done:
        could = Authority(Home.open(settings.home)).withdraw(name)
        if could:
            done("edge.withdraw", f"edge/{name}")
    if json_:
        output.document({"edge": name, "withdrawn": could})
    else:
        print(f"{name} may speak no more" if could else f"{name} was not enrolled")
    return 0 if could else 1
