"""`hub serve`: the hub's processes under one supervisor; also what the demo starts besides its plant."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import partial

from hub.app.home import Home
from hub.app.settings import Settings
from hub.app.supervisor import Child, Supervisor
from hub.app.wiring import open_hub


def hub_children(settings: Settings, env: Mapping[str, str] | None = None) -> list[Child]:
    """The processes of ours: `hub-follow`, `hub-intake`, `hub-api`."""
    env = dict(os.environ if env is None else env)
    worker = [sys.executable, "-m", "hub.app.worker"]
    return [
        Child("hub-follow", [*worker, "follow"], env),
        Child("hub-intake", [*worker, "intake"], env),
        Child("hub-api", [*worker, "api"], env, ready=partial(api_ready, settings)),
    ]


def api_ready(settings: Settings) -> bool:
    """Whether the API answers; with a token set, a 401 is an answer too."""
    host = "127.0.0.1" if settings.api_host in ("0.0.0.0", "::") else settings.api_host
    try:
        with urllib.request.urlopen(f"http://{host}:{settings.api_port}/health/live", timeout=1) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


def serve_hub() -> int:
    """Run until SIGTERM or Ctrl-C."""
    settings = Settings.load()
    home = Home.open(settings.home)
    private = settings.database_url is None

    def say(text: str) -> None:
        print(text, flush=True)

    with open_hub(settings):
        pass  # the schema is there, or the reason why not is told before anything starts
    with Supervisor(home, hub_children(settings), private_database=private, on_event=say) as supervisor:
        if supervisor.wait_ready(120):
            say(f"hub runs: console and API on http://{settings.api_host}:{settings.api_port}/  home {home.path}  Ctrl-C ends it")
        elif not supervisor.asked.is_set():
            say(f"hub-api does not answer yet: look into {home.log / 'hub-api.log'}; the supervisor goes on")
        while not supervisor.asked.wait(0.05):
            supervisor.step()
    return 0
