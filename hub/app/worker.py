"""The hub's own processes, each started by the supervisor as `python -m hub.app.worker ROLE`: api, intake, follow, postings, relay, plants.

SIGTERM ends them cleanly: what was received and not yet durable stays with its source.
"""

import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import psycopg

from adapters.http_queue import HttpQueue
from events import canonical
from events.errors import HubError, Unavailable
from hub import limits, telemetry
from hub.app import logs, metrics, tracing
from hub.app.home import Home
from hub.app.serve import api_url, listening
from hub.app.settings import ConfigError, Settings
from hub.app.wiring import Hub, open_hub, processes, views
from hub.intake.delivery import Adapter
from hub.intake.door import Loop
from hub.log.follow import Follower
from hub.log.group import GroupLog
from hub.log.store import Log
from hub.outbox.sender import Head, Sender
from hub.outbox.target import Target
from hub.workflows.decider import Decider
from projections.postings import heads

if TYPE_CHECKING:
    import uvicorn

_log = logging.getLogger("hub.app.worker")  # not __main__, which it is in service


def report(text: str) -> None:
    """Trouble that a loop has, to the process's log."""
    _log.warning("%s", text)


def main(arguments: Sequence[str]) -> int:
    """Run one role until SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    roles = {"api": run_api, "intake": run_intake, "follow": run_follow, "postings": run_postings, "relay": run_relay, "plants": run_plants}
    role = roles.get(arguments[0] if arguments else "")
    if role is None:
        print(f"usage: python -m hub.app.worker {'|'.join(roles)}", file=sys.stderr)
        return 2
    name = f"hub-{arguments[0]}"
    with logs.writing(name):
        try:
            settings = Settings.load()
            with tracing.exported(name), metrics.left(Home.open(settings.home), name), open_hub(settings) as hub:
                role(hub, stop)
        except HubError as error:
            _log.error("%s", error)
            return error.exit_code
    return 0


def run_follow(hub: Hub, stop: threading.Event) -> None:
    """A follower a view; one that fails is tried again for ever, visibly, and holds up no other."""
    followers = [Follower(hub.follow_url, view) for view in views()]
    _run_all([_guarded(f.what, lambda f=f: f.run(stop, report), stop) for f in followers], stop)  # type: ignore[misc]


def run_intake(hub: Hub, stop: threading.Event) -> None:
    """A loop an adapter that is configured."""
    found = adapters_of(hub.settings)
    _log.info("intake from %s", ", ".join(a.name for a in found) or "nothing: set HUB_MQTT_URL, HUB_WATCH, HUB_KAFKA or HUB_ERP")
    with GroupLog(Log(hub.door_url)) as log:  # what comes by several roads at once shares one flush
        loops = [Loop(adapter, hub.intake(log), report) for adapter in found]
        _run_all([_guarded(loop.adapter.name, lambda loop=loop: loop.run(stop), stop, loop.name) for loop in loops], stop)  # type: ignore[misc]


def run_postings(hub: Hub, stop: threading.Event) -> None:
    """What processes decide, and what targets are told of it. Without a target nothing is decided: it would wait for nobody."""
    found = targets_of(hub.settings)
    if not found:
        raise ConfigError("there is nobody to tell: set HUB_ERP to the address of the ERP")
    with GroupLog(Log(hub.door_url)) as log:
        deciders = [Decider(hub.door_url, process.name, log) for process in processes()]
        senders = [Sender(target, log, Heads(hub.read_url, target.name)) for target in found]
        _log.info("tells %s", ", ".join(target.name for target in found))
        works: list[tuple[str, Callable[[], None]]] = [(d.name, lambda d=d: d.run(stop, report)) for d in deciders]  # type: ignore[misc]
        works += [(s.name, lambda s=s: s.run(stop, report)) for s in senders]  # type: ignore[misc]
        _run_all([_guarded(name, work, stop) for name, work in works], stop)


class Heads:
    """The first open posting of each lane of a target, as the view has it; asked often, on a connection that is kept."""

    def __init__(self, url: str, target: str) -> None:
        self._url, self._target = url, target
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def __call__(self) -> list[Head]:
        """Raises `Unavailable`."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._url, autocommit=True, application_name=f"hub posts to {self._target}")
            with self._connection.cursor() as cursor:
                return [Head(**{**row, "body": canonical.loads(row["body"].encode())}) for row in heads(cursor, self._target)]
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            self.close()
            raise Unavailable(f"the ledger of postings cannot be read: {error}") from error

    def close(self) -> None:
        """Give the connection back; the next call makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def targets_of(settings: Settings) -> list[Target]:
    """The targets that settings name."""
    if settings.erp_url is None:
        return []
    from adapters.tryton.target import Tryton

    return [Tryton(settings.erp_url)]


def run_relay(hub: Hub, stop: threading.Event) -> None:
    """The Kafka relay, where settings name its brokers."""
    from adapters.kafka_relay import Relay

    if hub.settings.relay_brokers is None:
        raise ConfigError("there is nothing to publish to: set HUB_RELAY to the brokers of a Kafka cluster")
    relay = Relay(hub.follow_url, hub.settings.relay_brokers, hub.settings.relay_topic)
    _run_all([_guarded(relay.what, lambda: relay.run(stop, report), stop)], stop)


def run_plants(hub: Hub, stop: threading.Event) -> None:
    """The listener of the plants' edges, over mutual TLS."""
    import uvicorn

    from hub.app.plants.authority import Authority
    from hub.app.plants.listener import PeerProtocol, Taker, make_app

    host, port = hub.settings.edge_host, hub.settings.edge_port
    if host is None:
        raise ConfigError("there is nowhere to listen for edges: set HUB_EDGE_LISTEN, for example to 0.0.0.0:8443")
    authority = Authority(Home.open(hub.settings.home))
    with GroupLog(Log(hub.door_url)) as group, Log(hub.door_url) as log:
        app = make_app(Taker(log, hub.intake(group)), authority)
        names = [*([] if host in ("0.0.0.0", "::") else [host]), *hub.settings.edge_names]
        config = uvicorn.Config(
            app,
            http=PeerProtocol,
            ssl_context_factory=lambda *_: authority.context(names),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=3,
            lifespan="off",
        )
        sockets = listening(host, port, "HUB_EDGE_LISTEN")
        _log.info("listens for edges on https://%s:%s", host, port)
        _run_all([_serving(config, stop, sockets)], stop)


def run_api(hub: Hub, stop: threading.Event) -> None:
    """The API and the console, with the intake loop that drains what is posted."""
    import uvicorn

    from hub.app.api import make_app
    from hub.app.console import add_console

    queue = HttpQueue(limits.HTTP_WAITING_MAX, limits.HTTP_WAITING_BYTES_MAX)
    loop = Loop(queue, hub.intake(Log(hub.door_url)), report)
    app = make_app(hub, queue, lambda: loop.trouble)
    add_console(app, hub)
    # uvicorn would end its thread and say nothing that the supervisor sees
    sockets = listening(hub.settings.api_host, hub.settings.api_port)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=3)
    _log.info("listens on %s", api_url(hub.settings))
    _run_all([_guarded(loop.adapter.name, lambda: loop.run(stop), stop, loop.name), _serving(config, stop, sockets)], stop)


def _serving(config: "uvicorn.Config", stop: threading.Event, sockets: list[socket.socket]) -> Callable[[], None]:
    """A server that ends the process when it ends."""
    from hub.app.web import serve

    def run() -> None:
        try:
            serve(config, stop, sockets)
        finally:
            stop.set()

    return run


def adapters_of(settings: Settings) -> list[Adapter]:
    """The adapters that settings name."""
    found: list[Adapter] = []
    if settings.mqtt_url:
        from adapters.mqtt import MqttAdapter

        url = urlsplit(settings.mqtt_url)
        tls = url.scheme == "mqtts"
        found.append(
            MqttAdapter(
                url.hostname or "127.0.0.1",
                url.port or (8883 if tls else 1883),
                settings.mqtt_topics,
                "millwright-hub",
                username=unquote(url.username) if url.username else None,
                password=unquote(url.password) if url.password else None,
                tls=tls,
            )
        )
    if settings.watch:
        from adapters.folder import FolderAdapter

        found.append(FolderAdapter(settings.watch))
    if settings.kafka_brokers:
        from adapters.kafka import KafkaAdapter

        found.append(KafkaAdapter(settings.kafka_brokers, settings.kafka_topics))
    if settings.erp_url:
        from adapters.tryton.source import TrytonSource

        found.append(TrytonSource(settings.erp_url))
    return found


def _guarded(name: str, work: Callable[[], None], stop: threading.Event, loop: str = "") -> Callable[[], None]:
    """A loop that never dies silently: whatever ends it is told, and it starts again after a pause. `loop`: its name in numbers, if another."""

    def run() -> None:
        while not stop.is_set():
            try:
                work()
                continue
            except HubError as error:
                report(f"{name} waits {limits.RETRY_MAX_S:.0f} s: {error}")
            except Exception:  # noqa: BLE001 - the outermost net of a loop: told with its trace, then tried again
                _log.exception("%s failed and is started again in %.0f s", name, limits.RETRY_MAX_S)
            telemetry.backs_off(loop or name, limits.RETRY_MAX_S)
            stop.wait(limits.RETRY_MAX_S)
            telemetry.backs_off(loop or name, 0)

    return run


def _run_all(works: Sequence[Callable[[], None]], stop: threading.Event) -> None:
    gc.freeze()  # what is there now stays: the collector need not look at it again and again, a tenth of the time of intake
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(timeout=5)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
