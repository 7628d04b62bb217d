"""`hub edge` as a plant runs it: the process, its configuration and commands, with a real broker on one side and the hub's listener on the other."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hub.app.demo.line import CUT, PASS
from hub.app.servers.process import free_port
from tests.contract.edge_hub import EdgeHub, edge_hub, until
from tests.contract.edge_mqtt import Broker, broker
from tests.contract.tcp_proxy import HOST

HUB = Path(sys.executable).with_name("hub")
PRODUCERS = ("line1", "line2", "line3")


class Running:
    """An edge.yaml and the process that runs with it."""

    def __init__(self, hub: EdgeHub, port: int, folder: Path) -> None:
        self.folder, self.listen = folder, free_port()
        hub.tls("plant-1")
        (folder / "authority.pem").write_bytes(hub.authority.certificate().read_bytes())
        (folder / "edge.yaml").write_text(
            f"""
edge: plant-1
plant: {{zone: Europe/Berlin}}
hub: {{url: "{hub.line_url}", certificate: plant-1.pem, key: plant-1.key, authority: authority.pem}}
listen: {HOST}:{self.listen}
mqtt:
  - name: machines
    url: mqtt://{HOST}:{port}
    deliveries: [facts/#]
    readings:
      - {{filter: plant/+/fast, at: at, sequence: n, producer: 2}}
"""
        )
        self.log = (folder / "edge.log").open("ab")
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Run it; seconds from exec to its word that it runs."""
        begun, said = time.monotonic(), (self.folder / "edge.log").stat().st_size
        self.child = subprocess.Popen([HUB, "edge", "--config", self.folder / "edge.yaml"], stdout=self.log, stderr=self.log)
        until(lambda: b" runs: http://" in (self.folder / "edge.log").read_bytes()[said:], 60)
        took = time.monotonic() - begun
        until(self._listens, 60)
        return took

    def kill(self) -> None:
        assert self.child is not None
        self.child.kill()
        self.child.wait(10)

    def stop(self) -> None:
        """As its plant ends it."""
        assert self.child is not None
        self.child.send_signal(signal.SIGTERM)
        assert self.child.wait(20) == 0

    def end(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self.stop()
        self.log.close()

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{HOST}:{self.listen}/status", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, self.listen), 1).close()
            return True
        return False

    def command(self, *words: str) -> tuple[int, Any]:
        done = subprocess.run(
            [HUB, "edge", *words, "--config", self.folder / "edge.yaml", "--json"], capture_output=True, timeout=60, check=False
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr.decode()


@pytest.fixture
def hub(pg_owner_url: str, tmp_path: Path) -> Iterator[EdgeHub]:
    with edge_hub(pg_owner_url, tmp_path) as running:
        yield running


@pytest.fixture
def made(mosquitto: str, tmp_path: Path) -> Iterator[Broker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with broker(mosquitto, folder) as running:
        yield running


@pytest.fixture
def edge(hub: EdgeHub, made: Broker, tmp_path: Path) -> Iterator[Running]:
    running = Running(hub, made.port, tmp_path)
    yield running
    running.end()


def item(key: str) -> str:
    fact = {"type": "masterdata.item_defined", "source": "erp:x", "key": key, "occurred_at": "2026-01-05T06:00:00Z"}
    return json.dumps(fact | {"data": {"item": key, "base_unit": "EA"}})


class Publisher:
    """Says facts and readings of three producers, a number each, until told to end; remembers what the broker took."""

    def __init__(self, made: Broker) -> None:
        self._made = made
        self.items = 0
        self.numbers = dict.fromkeys(PRODUCERS, 0)

    def say(self, count: int) -> None:
        self._made.publish("facts/erp", *(item(f"I{n}") for n in range(self.items, self.items + count)))
        self.items += count
        for name in PRODUCERS:
            first = self.numbers[name]
            bodies = [json.dumps({"v": -n, "serial": "00123", "n": n, "at": "2026-01-05T07:00:00"}) for n in range(first, first + count)]
            self._made.publish(f"plant/{name}/fast", *bodies)
            self.numbers[name] += count


def kept(hub: EdgeHub) -> dict[str, list[list[Any]]]:
    """The readings in the hub, by producer, in the order of its lanes."""
    found: dict[str, list[list[Any]]] = {}
    rows = hub.select(
        "select convert_from(body, 'UTF8')::jsonb from log.delivery where transport = 'edge'"
        " order by convert_from(body, 'UTF8')::jsonb ->> 'lane', (convert_from(body, 'UTF8')::jsonb ->> 'n')::int"
    )
    for (document,) in rows:
        assert isinstance(document, dict)
        found.setdefault(document["producer"], []).extend(document["readings"])
    return found


def test_nothing_is_lost_nor_twice_over_a_cut_line_kills_and_ends(hub: EdgeHub, made: Broker, edge: Running) -> None:
    took = edge.start()
    plant = Publisher(made)
    until(lambda: all(one["connected"] for one in edge.status()["sources"]))
    plant.say(40)
    until(lambda: sum(key.startswith("I") for key in hub.logged()) == 40)
    code, checked = edge.command("check")
    assert (code, [one["ok"] for one in checked["checks"]]) == (0, [True] * 5), checked

    hub.say(CUT)
    plant.say(200)
    until(lambda: not edge.status()["line"]["up"])
    until(lambda: edge.status()["backlog"] >= 200)
    code, down = edge.command("status")
    assert (code, down["line"]["up"], down["backlog"] > 0) == (1, False, True)
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            plant.say(25)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        for end in (edge.kill, edge.stop) * 2:  # killed and ended while messages come
            time.sleep(0.5)
            end()
            code, away = edge.command("status")
            assert (code, away["line"]["up"], away["backlog"] >= 200) == (1, False, True)
            edge.start()
        hub.say(PASS)
        for end in (edge.kill, edge.stop):  # and while the backlog leaves
            time.sleep(0.7)
            end()
            edge.start()
    finally:
        stop.set()
        thread.join()
    until(lambda: sum(key.startswith("I") for key in hub.logged()) >= plant.items, 60)
    try:
        until(lambda: edge.command("status")[0] == 0, 60)
    except AssertionError:
        print(json.dumps(edge.status(), indent=1), (edge.folder / "edge.log").read_text()[-6000:])
        raise
    memory = psutil.Process(edge.child.pid).memory_info().rss if edge.child else 0
    print(
        f"\nstart {took:.2f} s, resident {memory / (1 << 20):.0f} MiB, {plant.items} facts, {sum(plant.numbers.values())} messages of readings"
    )

    assert [key for key in hub.logged() if key.startswith("I")] == [f"I{n}" for n in range(plant.items)]
    found = kept(hub)
    assert set(found) == {f"machines/plant/{name}" for name in PRODUCERS}
    for name in PRODUCERS:
        rows = [row for row in found[f"machines/plant/{name}"] if row[0].endswith("/v")]
        assert [row[1] for row in rows] == [-n for n in range(plant.numbers[name])]
        assert [row[5] for row in rows] == list(range(plant.numbers[name]))
        assert not any(row[6] for row in found[f"machines/plant/{name}"]), "all of it is of now"
        assert {row[2] for row in rows} == {"2026-01-05T06:00:00Z"}, "the plant's time zone"
        assert {row[1] for row in found[f"machines/plant/{name}"] if row[0].endswith("/serial")} == {"00123"}
    assert hub.select("select count(*) from log.event where type = 'integration.gap_detected'") == [(0,)]
    assert took < 30, "two seconds on a quiet machine"
    assert memory < 256 << 20


def test_the_word_of_the_commands(hub: EdgeHub, made: Broker, edge: Running) -> None:
    code, away = edge.command("status")
    assert code == 3, away
    edge.start()
    until(lambda: all(one["connected"] for one in edge.status()["sources"]))
    Publisher(made).say(5)
    until(lambda: len([key for key in hub.logged() if key.startswith("I")]) == 5)
    until(lambda: edge.command("status")[0] == 0)
    code, found = edge.command("status")
    assert {lane["lane"] for lane in found["lanes"]} == {"machines", *(f"machines/plant/{name}" for name in PRODUCERS)}
    assert [(one["name"], one["connected"]) for one in found["sources"]] == [
        ("http", True), (f"mqtt machines {HOST}:{made.port}", True), (f"mqtt machines readings {HOST}:{made.port}", True),
    ]  # fmt: skip
    assert edge.command("drain", "--rate", "50") == (0, {"rate_max": 50.0})
    code, again = edge.command("resend", "machines", "1", "5")
    assert (code, again["asked"], again["found"]) == (0, 5, 5)
    code, again = edge.command("resend", "machines", "4", "9")
    assert (code, again["asked"], again["found"]) == (1, 6, 2)
    code, said = edge.command("resend", "nobody", "1", "2")
    assert (code, "there is no lane 'nobody'" in said) == (2, True)
    with urllib.request.urlopen(f"http://{HOST}:{edge.listen}/", timeout=10) as answer:
        assert "machines/plant/line1" in answer.read().decode()


def test_it_ends_with_what_is_wrong_and_where(edge: Running, tmp_path: Path) -> None:
    text = (tmp_path / "edge.yaml").read_text()
    (tmp_path / "edge.yaml").write_text(text.replace("url: mqtt://", "password_env: NOT_SET_ANYWHERE\n    username: x\n    url: mqtt://"))
    done = subprocess.run(
        [HUB, "edge", "--config", tmp_path / "edge.yaml"], capture_output=True, timeout=60, check=False, env={**os.environ}
    )
    assert done.returncode == 2, done
    assert "edge.yaml:8: mqtt.0.password_env: the environment variable NOT_SET_ANYWHERE is not set: set it" in done.stderr.decode()
