"""`hub demo`: a whole hub with a simulated plant under one supervisor; interactive until Ctrl-C, or headless to the end of its plan.

The plant is handed protocol addresses only: a broker, an HTTP address, a folder, and Kafka where HUB_KAFKA names one.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from events.errors import Refused, Unavailable
from hub.app import answers, people
from hub.app.cli import output
from hub.app.demo import account, outage
from hub.app.demo.edge import DemoEdge
from hub.app.home import Home
from hub.app.serve import api_url, hub_children, listening
from hub.app.servers import process
from hub.app.servers.broker import Broker
from hub.app.settings import Settings
from hub.app.supervisor import Child, Supervisor
from hub.app.wiring import Hub, open_hub, views
from projections import people as view

PACE_S = 4.0  # seconds between two production orders of the interactive demo
READY_S = 120.0
TOPIC = "millwright.facts"
MQTT_TOPIC = "plant/#"
_SECRET = ("HUB_DATABASE_URL", "HUB_HOME", "HUB_TOKEN")
PEOPLE = {"bea": "buyer", "ravi": "receiver", "quinn": "quality", "sam": "supervisor"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo is asked to do."""

    headless: bool
    seed: int
    orders: int
    sent_log: Path
    json: bool


def run_demo(*, headless: bool, seed: int, orders: int, fresh: bool, sent_log: Path | None, json_: bool) -> int:
    """`hub demo`; exit code 1 headless if not everything is accounted for."""
    settings = Settings.load()
    home = Home.open(settings.home)
    if fresh:
        _start_anew(home, settings)
    plan = Plan(headless, seed, orders, Path(os.path.abspath(sent_log or home.run / "sent.jsonl")), json_)
    if not plan.sent_log.parent.is_dir():
        raise Refused(f"--sent-log {plan.sent_log}: there is no such folder: make it, or name a file in another one")
    say: Callable[[str], None] = partial(print, file=sys.stderr, flush=True) if headless or json_ else _say
    with open_hub(settings) as hub:  # keeps the server for the time of the demo, and tells early what is wrong
        used = hub.log.head()
        if headless and used:
            raise Refused(
                f"home {home.path} already holds {used} facts: give --fresh to throw them away, or set HUB_HOME to another folder"
            )
        if headless or fresh:
            plan.sent_log.unlink(missing_ok=True)
        broker = Broker(home).prepare()
        settings = _addressed(settings, home, broker, say)
        edge = None
        if not headless:  # what machines do depends on the clock, and a headless run is the same for the same seed
            edge = DemoEdge.prepared(home, urlsplit(broker.url).netloc)
            settings = replace(settings, edge_host="127.0.0.1", edge_port=edge.hub_port)
        started = time.monotonic()
        broker_role, down = outage.ROLES[outage.BROKER], outage.is_down(home, outage.BROKER)
        children = [Child(broker_role, broker.argv(), _env(settings), ready=broker.ready, down=down if edge else None)]
        children += hub_children(settings, _env(settings))
        plants = _plant(settings, home, plan)
        children += plants
        if edge:
            children += edge.children(_plain_env(), seed, home.run / "plant")
        with Supervisor(home, children, on_event=say, private_database=settings.database_url is None) as supervisor:
            if headless:
                return _headless(supervisor, {child.role for child in plants}, hub, plan, started)
            return _interactive(supervisor, hub, settings, home, say, json_, edge.page if edge else "")


def _addressed(settings: Settings, home: Home, broker: Broker, say: Callable[[str], None]) -> Settings:
    """The settings with the demo's own broker, folder and, where the wanted port is taken, another port."""
    try:
        probes = listening(settings.api_host, settings.api_port)
    except Unavailable:
        probes = listening(settings.api_host, 0)[:1]
        say(f"port {settings.api_port} is taken; the console is on {probes[0].getsockname()[1]} instead")
    port = probes[0].getsockname()[1]
    for probe in probes:
        probe.close()
    if settings.kafka_brokers:
        _make_topic(settings.kafka_brokers)
    return replace(
        settings,
        api_port=port,
        mqtt_url=broker.url,
        mqtt_topics=(MQTT_TOPIC,),
        watch=home.inbox,
        kafka_topics=(TOPIC,) if settings.kafka_brokers else settings.kafka_topics,
    )


def _make_topic(brokers: str) -> None:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    admin = AdminClient({"bootstrap.servers": brokers})
    try:
        if TOPIC not in admin.list_topics(timeout=10).topics:
            admin.create_topics([NewTopic(TOPIC, 3, 1)])[TOPIC].result(30)
    except KafkaException as error:
        raise Unavailable(f"Kafka at {brokers} does not answer ({error}): start it (`make kafka`) or unset HUB_KAFKA") from error


def _env(settings: Settings) -> dict[str, str]:
    """The environment of the hub's own processes."""
    env = dict(os.environ)
    env |= {
        "HUB_HOME": str(settings.home),
        "HUB_LISTEN": urlsplit(api_url(settings)).netloc,
        "HUB_MQTT_URL": settings.mqtt_url or "",
        "HUB_MQTT_TOPICS": ",".join(settings.mqtt_topics),
        "HUB_WATCH": str(settings.watch or ""),
    }
    if settings.edge_host:
        env["HUB_EDGE_LISTEN"] = f"{settings.edge_host}:{settings.edge_port}"
    if settings.kafka_brokers:
        env |= {"HUB_KAFKA": settings.kafka_brokers, "HUB_KAFKA_TOPICS": ",".join(settings.kafka_topics)}
    return env


def _plain_env() -> dict[str, str]:
    """The environment of what stands outside of the hub: without its secrets."""
    return {name: value for name, value in os.environ.items() if name not in _SECRET}


def _plant(settings: Settings, home: Home, plan: Plan) -> list[Child]:
    """The plant's processes, with addresses of protocols and no others."""
    env = _plain_env()
    state = home.run / "plant"
    state.mkdir(mode=0o700, exist_ok=True)
    mqtt = urlsplit(settings.mqtt_url or "")
    common = ["--seed", str(plan.seed), "--orders", str(plan.orders), "--sent-log", str(plan.sent_log), "--state", str(state)]
    if not plan.headless:
        common += ["--follow", "--pace", str(PACE_S)]
    http = ["--http", api_url(settings).rstrip("/")]
    kafka = ["--kafka", settings.kafka_brokers] if settings.kafka_brokers else []
    parts = {
        "erp": [*http, *kafka],
        "mes": ["--mqtt", f"{mqtt.hostname}:{mqtt.port}"],
        "supplier": ["--folder", str(settings.watch)],
        "epcis": http,
        "carrier": http,
        **({"wms": kafka} if kafka else {}),
    }
    return [
        Child(f"plant-{part}", [sys.executable, "-m", f"hub.app.demo.plant.{part}", *common, *more], env, restart=not plan.headless)
        for part, more in parts.items()
    ]


def _headless(supervisor: Supervisor, plants: set[str], hub: Hub, plan: Plan, started: float) -> int:
    """To the end of the plan, then the account of it."""
    told = time.monotonic()
    while not plants <= supervisor.exit_codes.keys():
        supervisor.step()
        if supervisor.asked.wait(0.05):
            output.note("interrupted: the plan was not finished, no account of it")
            return 130
        if time.monotonic() - told > 5:
            told = time.monotonic()
            output.note(_line(hub))
    if failed := {role: code for role, code in supervisor.exit_codes.items() if code and role in plants}:
        raise Unavailable(f"the plant did not finish ({failed}): look into {supervisor.home.log}")
    summary, troubles = account.settle(hub, plan.sent_log, views(), supervisor.step)
    summary["elapsed_s"] = round(time.monotonic() - started, 1)
    if plan.json:
        output.document(summary)
    else:
        for name, value in summary.items():
            print(f"{name:<12}{json.dumps(value)}")
    for trouble in troubles[:20]:
        output.note(f"not accounted for: {trouble}")
    if len(troubles) > 20:
        output.note(f"and {len(troubles) - 20} more")
    return 1 if troubles else 0


def _interactive(
    supervisor: Supervisor, hub: Hub, settings: Settings, home: Home, say: Callable[[str], None], json_: bool, edge_page: str
) -> int:
    """Until Ctrl-C, with live counts, or as JSON one document when it runs."""
    if supervisor.wait_ready(READY_S):
        made = _people(hub)
        if json_:
            found = [{"name": name, "roles": sorted(one.person.roles), "token": one.token} for name, one in made.items()]
            output.document({"url": api_url(settings), "edge": edge_page, "home": str(home.path), "pid": os.getpid(), "people": found})
            sys.stdout.flush()
        say(
            f"\nThe hub runs. Console: {api_url(settings)}\nA simulated plant sends over MQTT, HTTP, a watched folder{' and Kafka' if settings.kafka_brokers else ''}."
        )
        say(
            f"Try in another terminal ({'HUB_HOME=' + str(home.path) + ' ' if os.environ.get('HUB_HOME') else ''}.venv/bin/hub …): stock, exceptions, quarantine list, status"
        )
        say(
            f"Machines (OPC UA, Sparkplug B) stand behind an edge: {edge_page}. Pull its cable: {api_url(settings)}edge, or simulate outage"
        )
        say(f"Decisions need a person. {_sign_in(settings, made)}")
        say("Ctrl-C ends everything; the next start goes on with the same data.\n")
    elif not supervisor.asked.is_set():
        say(f"the console does not answer yet: look into {home.log / 'hub-api.log'}")
    tty = sys.stdout.isatty()
    shown = 0.0
    while not supervisor.asked.wait(0.05):
        supervisor.step()
        if not json_ and time.monotonic() - shown > (1 if tty else 5):
            shown = time.monotonic()
            line = _line(hub)
            print(f"\r\x1b[K{line}" if tty else line, end="" if tty else "\n", flush=True)
    say("\nending")
    return 0


def _people(hub: Hub) -> dict[str, people.Made]:
    """A person of each role that the demo has work for, with their tokens; nobody where there are people already."""
    with answers.caught_up(hub, (view.People.name,)) as cursor:
        known = view.people(cursor)
    return {} if known else {name: people.add(hub, name, [role], "demo") for name, role in PEOPLE.items()}


def _sign_in(settings: Settings, made: Mapping[str, people.Made]) -> str:
    """How to sign in. Tokens are shown when they are made and never again."""
    where = f"{api_url(settings)}signin"
    if not made:
        return f"They sign in at {where} with the tokens that they have; `hub people list` shows them, `hub people token NAME` makes a new token."
    rows = "".join(f"\n  {name:<6} {', '.join(one.person.roles):<11} {one.token}" for name, one in made.items())
    return f"Sign in at {where}, or set HUB_TOKEN, as one of these (the demo alone shows tokens, and this once):{rows}"


def _line(hub: Hub) -> str:
    """What is happening, in one line."""
    try:
        with psycopg.connect(hub.read_url, connect_timeout=2) as connection:
            rows = connection.execute(
                """select type like any (array['integration.%%', 'security.%%']) as ours, type, count(*), count(*) filter (where recorded_at > now() - interval '10 seconds')
                   from log.event group by 1, 2"""
            ).fetchall()
    except psycopg.Error as error:
        return f"the database does not answer: {str(error).splitlines()[0]}"
    facts = sum(n for ours, _, n, _ in rows if not ours)
    rate = sum(recent for *_, recent in rows) / 10
    kinds = {type_.split(".")[1]: n for _, type_, n, _ in rows}
    return (
        f"{facts} facts, {rate:.1f}/s, {kinds.get('delivery_quarantined', 0)} held, "
        f"{kinds.get('content_conflicted', 0)} conflicts, {kinds.get('fact_retracted', 0)} retracted"
    )


def _start_anew(home: Home, settings: Settings) -> None:
    """Throw away what the home holds. Raises `Unavailable` while anybody uses it."""
    if settings.database_url is not None:
        raise Refused("--fresh does not empty a server of your own (HUB_DATABASE_URL): drop and create its database yourself")
    lock = process.try_lock(home.users_lock)
    if lock is None:
        raise Unavailable(f"home {home.path} is in use: end the hub that runs there (hub status shows it), then try again")
    try:
        for folder in (home.pg, home.broker, home.inbox, home.spool, home.run / "plant"):
            shutil.rmtree(folder, ignore_errors=False) if folder.exists() else None
    finally:
        os.close(lock)
    Home.open(home.path)


def _say(text: str) -> None:
    print(text, flush=True)
