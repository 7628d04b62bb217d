"""What the trials of the edge stand on: a hub that listens, a line to it that can be cut, a broker, an edge.yaml, and the edge itself, forked or on its own.

As a module it is the edge by itself, for one that needs another environment: `python -m tests.crash.edges EDGE.YAML`.
"""

import contextlib
import hashlib
import importlib
import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hub.app.demo.line import PASS, order
from hub.app.home import Home
from hub.app.plants.authority import Authority
from hub.app.servers import process
from hub.app.settings import Settings
from hub.app.wiring import mappings
from tests.crash.ground import Access, Child, Ground, Missing
from tests.crash.hubs import run_shipped, until_sigterm
from tests.crash.report import ROOT

HOST = "127.0.0.1"
EDGE, HOST_ID = "trial", "trial-host"
SILENT_S = 2.0  # how long a line may say nothing, shortened


class Mosquitto:
    """A broker that keeps sessions and what is queued in them over a stop."""

    def __init__(self, ground: Ground, *lines: str) -> None:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        if program is None:
            raise Missing("mosquitto is not installed (Debian: apt-get install mosquitto)")
        folder = ground.folder / "mosquitto"
        folder.mkdir()
        self.port, self._log, self._argv = process.free_port(), ground.log, [program, "-c", str(folder / "mosquitto.conf")]
        said = [f"listener {self.port} {HOST}", "allow_anonymous true", "user root", "persistence true", f"persistence_location {folder}/"]
        (folder / "mosquitto.conf").write_text("\n".join([*said, "max_queued_messages 0", *lines]) + "\n")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._child = process.spawn(self._argv, self._log, death=signal.SIGKILL)
        assert process.wait_until(lambda: answers(self.port), 20), process.tail(self._log)

    def stop(self) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.wait(20)
            self._child = None

    def held(self, client_id: str, seconds: float = 2.0) -> int:
        """How many messages it begins to send to somebody who resumes a session; nothing is acknowledged. As many as may be under way at once."""
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        found: list[int] = []
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5, manual_ack=True)
        client.on_message = lambda client, data, message: found.append(message.mid)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        client.connect(HOST, self.port, clean_start=False, properties=properties)
        client.loop_start()
        time.sleep(seconds)
        client.disconnect()
        client.loop_stop()
        return len(found)


class Edges:
    """The places of one trial, and the processes around its edge. `more` is the rest of edge.yaml."""

    def __init__(
        self, ground: Ground, access: Access | None, more: Mapping[str, Any], spool: Mapping[str, Any], folder: Path | None = None
    ) -> None:
        self._ground, self._access = ground, access
        self.folder = folder or ground.folder / "edge"
        self.folder.mkdir(exist_ok=True)
        self.word, self.config, self.spool = ground.folder / "line", self.folder / "edge.yaml", self.folder / "spool.db"
        self.hub_port, self.line_port, self.http_port = (process.free_port() for _ in range(3))
        home = Home.open(ground.folder / "home")
        self._settings = Settings(home=home.path, edge_host=HOST, edge_port=self.hub_port)
        authority = Authority(home)
        certificate, key = authority.enrol(EDGE)
        for name, content in (("edge.pem", certificate), ("edge.key", key), ("authority.pem", authority.certificate().read_bytes())):
            (self.folder / name).write_bytes(content)
        said = {
            "edge": EDGE,
            "hub": {"url": f"https://{HOST}:{self.line_port}"},
            "listen": f"{HOST}:{self.http_port}",
            "spool": spool,
            **more,
        }
        self.config.write_text(json.dumps(said, indent=1))  # JSON is YAML
        self.hub: Child | None = None

    def start_hub(self) -> None:
        """The shipped listener."""
        assert self._access is not None
        mappings()
        self.hub = self._ground.fork("hub-plants", run_shipped, "plants", self._access.owner, self._settings)
        assert process.wait_until(lambda: answers(self.hub_port), 30), process.tail(self._ground.log)

    def start_line(self) -> None:
        order(self.word, PASS)
        self._ground.fork("line", _line, self.line_port, self.hub_port, self.word, hub=False)
        assert process.wait_until(lambda: answers(self.line_port), 10)

    def start(self, first: Callable[[], None] = lambda: None) -> Child:
        """The shipped edge in a process that was forked from this one; `first` is called in it before it begins."""
        return self._ground.fork("edge", run_edge, self.config, first)

    def start_alone(self, environment: Mapping[str, str]) -> "Alone":
        """The edge as a program of its own, with an environment of its own."""
        argv = [sys.executable, "-m", __name__, str(self.config), self._ground.removed]
        return Alone(process.spawn(argv, self._ground.log, env={**environment, "PYTHONPATH": str(ROOT)}, death=signal.SIGKILL))

    def status(self) -> dict[str, Any]:
        """What the edge says of itself; {} where nobody answers. For waiting, never for judging."""
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(f"http://{HOST}:{self.http_port}/status", timeout=5) as answer,
        ):
            said: dict[str, Any] = json.load(answer)
            return said
        return {}

    def drained(self, but: int = 0) -> bool:
        """Whether the edge says that it is connected to all and has nothing, or so few entries, that the hub has not."""
        said = self.status()
        return (
            bool(said)
            and said["backlog"] <= but
            and said["line"]["up"]
            and all(one["connected"] and not one["trouble"] for one in said["sources"])
        )

    def entries(self, after: int = 0) -> list[tuple[int, str, int, bytes, int]]:
        """(seq, lane, number, sha256, 1 where the hub is not known to have it) of what a dead edge left in its spool; read from a copy by SQL."""
        copy = self._ground.folder / "spool-copy"
        shutil.rmtree(copy, ignore_errors=True)
        self.copy_spool(copy)
        with contextlib.closing(sqlite3.connect(copy / self.spool.name)) as db:
            if not db.execute("select 1 from sqlite_master where name = 'entry'").fetchone():
                return []  # it died before it had made its tables
            rows = db.execute(
                "select seq, lane, n, body, n > acked from entry e join lane l on l.name = e.lane where seq > ? order by seq", (after,)
            )
            return [(seq, lane, n, hashlib.sha256(body).digest(), waits) for seq, lane, n, body, waits in rows]

    def copy_spool(self, to: Path) -> None:
        """The files of the spool, of an edge that does not run, as a backup has them."""
        to.mkdir(exist_ok=True)
        for file in self.folder.glob(f"{self.spool.name}*"):
            if not file.name.endswith("-shm"):
                shutil.copy2(file, to / file.name)

    def put_back(self, copy: Path) -> None:
        """Put a backup of the spool in the place of what is there."""
        for file in self.folder.glob(f"{self.spool.name}*"):
            file.unlink()
        for file in copy.iterdir():
            shutil.copy2(file, self.folder / file.name)


class Alone:
    """As `ground.Child`, for a program of its own."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self._child = child

    @property
    def code(self) -> int | None:
        return self._child.returncode

    def ended(self) -> bool:
        return self._child.poll() is not None

    def send(self, signum: signal.Signals) -> None:
        self._child.send_signal(signum)

    def wait(self, seconds: float) -> bool:
        return process.wait_until(self.ended, seconds, every=0.005)

    def kill(self) -> None:
        self._child.kill()
        self._child.wait(10)


def imported() -> None:
    """Import what an edge needs, so that those that are forked have it."""
    for name in ("mqtt_readings", "opcua.line", "sparkplug"):
        importlib.import_module(f"adapters.{name}")
    for name in ("httpx", "uvicorn.loops.asyncio", "hub.app.edge.http", "hub.app.edge.process"):
        importlib.import_module(name)


def run_edge(config: Path, first: Callable[[], None] = lambda: None) -> None:
    """`hub edge`, until SIGTERM; a line that says nothing is given up sooner."""
    from adapters.edge import forwarder
    from hub.app.edge.config import Configured
    from hub.app.edge.process import Edge

    stop = until_sigterm()
    forwarder.SILENT_S = SILENT_S
    first()
    Edge(Configured(config), _say).run(stop)


def _say(text: str) -> None:
    print(text, flush=True)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError):
        socket.create_connection((HOST, port), 1).close()
        return True
    return False


def _line(port: int, target: int, word: Path) -> None:
    import asyncio

    from hub.app.demo.line import Line

    asyncio.run(Line(port, (HOST, target), word).serve())


def documents(access: Access) -> Iterator[tuple[dict[str, Any], dict[str, Any], int]]:
    """Every document of the edge that the hub keeps, from its raw bytes: what it says, its headers, and the position of its readings, 0 for none."""
    import psycopg

    query = """with raw as materialized (select convert_from(body, 'UTF8') as said, convert_from(headers, 'UTF8') as headers,
        convert_from(body, 'UTF8')::jsonb as j from log.delivery where transport = 'edge')
        select said, headers, coalesce(position, 0) from raw left join log.event e on e.type = 'equipment.readings_recorded'
          and e.business_key = concat_ws('/', j ->> 'epoch', j ->> 'lane', j ->> 'n', j ->> 'run') order by 3"""
    with psycopg.connect(access.owner) as connection, psycopg.ServerCursor(connection, "documents") as cursor:
        cursor.itersize = 2000
        for said, headers, position in cursor.execute(query.encode()):
            yield json.loads(said), json.loads(headers), position


if __name__ == "__main__":
    config_, remove = sys.argv[1:3]
    if remove:
        module, _, name = remove.partition(":")
        getattr(importlib.import_module(module), name)()
    run_edge(Path(config_))
