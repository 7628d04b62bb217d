"""`hub serve`: the hub's processes under one supervisor; also what the demo starts besides its plant."""

import errno
import json
import logging
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from events.errors import Unavailable
from hub.app import logs
from hub.app.home import Home
from hub.app.people import TOKEN
from hub.app.settings import Settings
from hub.app.supervisor import Child, Supervisor
from hub.app.wiring import open_hub

_log = logging.getLogger(__name__)
BACKLOG = 2048  # connections that wait to be taken, as uvicorn asks for by itself


def hub_children(settings: Settings, env: Mapping[str, str] | None = None) -> list[Child]:
    """The processes of ours; `hub-postings`, `hub-relay` and `hub-plants` where there is somebody to tell."""
    env = {name: value for name, value in (os.environ if env is None else env).items() if name not in (TOKEN, f"{TOKEN}_FILE")}
    worker = [sys.executable, "-m", "hub.app.worker"]
    return [
        Child("hub-follow", [*worker, "follow"], env),
        Child("hub-intake", [*worker, "intake"], env),
        *([Child("hub-postings", [*worker, "postings"], env)] if settings.erp_url else []),
        *([Child("hub-relay", [*worker, "relay"], env)] if settings.relay_brokers else []),
        *([Child("hub-plants", [*worker, "plants"], env)] if settings.edge_host else []),
        Child("hub-api", [*worker, "api"], env, ready=partial(api_ready, settings)),
    ]


def api_url(settings: Settings) -> str:
    """Where the console and the API are."""
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    return f"http://{host}:{settings.api_port}/"


def api_ready(settings: Settings) -> bool:
    """Whether the API answers; with a token set, a 401 is an answer too."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)
    try:
        with urllib.request.urlopen(api_url(replace(settings, api_host=host)) + "health/live", timeout=1) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


def listening(host: str, port: int, setting: str = "HUB_LISTEN") -> list[socket.socket]:
    """Sockets on an address, on all that its name stands for; `setting` says where it is set. Raises `Unavailable`."""
    found: list[socket.socket] = []
    trouble: OSError | None = None
    try:
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                found.append(socket.create_server(address, family=family, backlog=BACKLOG))
            except OSError as error:
                trouble = error
                if error.errno != errno.EADDRNOTAVAIL:  # localhost may stand for ::1 where there is no IPv6
                    break
    except OSError as error:
        trouble = error
    if trouble is None or (found and trouble.errno == errno.EADDRNOTAVAIL):
        return found
    for one in found:
        one.close()
    cause = trouble.strerror if isinstance(trouble, socket.gaierror) else os.strerror(trouble.errno or 0)  # Python's own adds the address
    raise Unavailable(
        f"port {port} of {host} cannot be listened on ({cause}): end what has it (`ss -ltnp` shows it), or set {setting} to another"
    )


def serve_hub(json_: bool) -> int:
    """Run until SIGTERM or Ctrl-C; as JSON, one document when the hub is ready, and what happens on standard error."""
    with logs.writing("supervisor", fd=2 if json_ else 1, printed=False):
        return _serve(json_)


def _serve(json_: bool) -> int:
    settings = Settings.load()
    home = Home.open(settings.home)
    private = settings.database_url is None

    say = _log.info
    for one in listening(settings.api_host, settings.api_port):  # else another program that answers there is taken for ours
        one.close()
    with open_hub(settings):
        pass  # the schema is there, or the reason why not is told before anything starts
    with Supervisor(home, hub_children(settings), private_database=private, on_event=say) as supervisor:
        if supervisor.wait_ready(120):
            if json_:
                print(json.dumps({"url": api_url(settings), "home": str(home.path), "pid": os.getpid()}), flush=True)
            say(f"hub runs: console and API on {api_url(settings)}  home {home.path}  Ctrl-C ends it")
        elif not supervisor.asked.is_set():
            say(f"hub-api does not answer yet: look into {home.log / 'hub-api.log'}; the supervisor goes on")
        while not supervisor.asked.wait(0.05):
            supervisor.step()
    return 0
