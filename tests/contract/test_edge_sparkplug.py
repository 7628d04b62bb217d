"""What a person does with the Sparkplug devices of an edge: looks at them and writes to them, by the command line and the edge's own HTTP."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hub.app.demo.plant.sparkplug_node import BOOLEAN, DOUBLE, INT32, STRING, commands
from hub.app.servers.process import free_port
from tests.contract.edge_hub import until
from tests.contract.sparkplug_peer import HOST, HOST_ID, Edge, Mosquitto, now_ms

HUB = Path(sys.executable).with_name("hub")


class Plant:
    """An edge that runs with two hosts at one broker, the second of which only listens, and an edge node with a device."""

    def __init__(self, mosquitto: str, folder: Path) -> None:
        self.folder, self.listen, self.broker = folder, free_port(), Mosquitto(mosquitto, folder / "broker")
        self._env = {**os.environ, "HUB_HOME": str(folder / "home")}
        assert self.hub("edge", "enrol", "plant-1", "--out", str(folder), "--url", f"https://{HOST}:{free_port()}")[0] == 0
        (folder / "edge.yaml").write_text(
            f"""
edge: plant-1
hub: {{url: "https://{HOST}:{free_port()}"}}
listen: {HOST}:{self.listen}
sparkplug:
  - {{name: host, brokers: ["{self.broker.url}"], host_id: {HOST_ID}}}
  - {{name: listener, brokers: ["{self.broker.url}"], host_id: {HOST_ID}-2, primary: false}}
"""
        )
        self._born = 0.0
        self.log = (folder / "edge.log").open("ab")
        self.child = subprocess.Popen([HUB, "edge", "--config", folder / "edge.yaml"], env=self._env, stdout=self.log, stderr=self.log)
        self.node = Edge(
            self.broker.port,
            metrics={"Level": (DOUBLE, 1.5), "Mode": (STRING, "auto")},
            devices={"D1": {"On": (BOOLEAN, False), "Set/1": (INT32, 3)}},
        )

    def hub(self, *words: str, user: str = "anna") -> tuple[int, str, str]:
        done = subprocess.run(
            [HUB, *words], env={**self._env, "LOGNAME": user}, cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Any:
        with urllib.request.urlopen(urllib.request.Request(f"http://{HOST}:{self.listen}{path}", body, headers), timeout=10) as answer:
            return json.load(answer)

    def devices(self, of: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(f"/v1/devices?of={of}")["devices"]
        return found

    def said(self) -> str:
        return (self.folder / "edge.log").read_text()

    def end(self) -> None:
        self.child.send_signal(signal.SIGTERM)
        assert self.child.wait(20) == 0
        self.log.close()
        self.node.observer.close()
        self.broker.stop()

    def heard(self) -> bool:
        """Whether both hosts know the device; the node is born again now and then, since they may not be online yet."""
        with contextlib.suppress(urllib.error.URLError):
            if [one["device"] for one in self.devices() if one["status"] == "online"].count("G1/E1/D1") == 2:
                return True
            if time.monotonic() > self._born + 3:
                self._born = time.monotonic()
                self.node.birth()
        return False


@pytest.fixture(scope="module")
def plant(mosquitto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    running = Plant(mosquitto, tmp_path_factory.mktemp("plant"))
    try:
        until(running.heard, 60)
        yield running
    finally:
        running.end()


def test_a_person_sees_what_devices_say(plant: Plant) -> None:
    assert {(one["source"], one["device"], one["status"], one["metrics"]) for one in plant.devices()} == {
        (source, device, "online", count) for source in ("host", "listener") for device, count in (("G1/E1/", 3), ("G1/E1/D1", 2))
    }
    plant.node.say("Set/1", 17, "D1")
    until(lambda: [tag["value"] for tag in plant.devices("G1/E1/D1")[0]["tags"] if tag["tag"] == "G1/E1/D1/Set/1"] == [17])
    code, shown, _ = plant.hub("edge", "devices", "G1/E1/")
    assert code == 0
    assert "G1/E1//Level" in shown
    assert "1.5" in shown
    assert plant.hub("edge", "devices", "G7")[:2] == (1, "no devices G7…: none has said anything yet\n")


@pytest.mark.parametrize(
    ("tag", "value", "topic", "written"),
    [
        ("G1/E1//Level", "-2", "spBv1.0/G1/NCMD/E1", b"\x00\x00\x00\x00\x00\x00\x00\xc0"),
        ("G1/E1//Mode", "00123", "spBv1.0/G1/NCMD/E1", b"00123"),
        ("G1/E1/D1/On", "true", "spBv1.0/G1/DCMD/E1/D1", 1),
        ("G1/E1/D1/Set/1", "-5", "spBv1.0/G1/DCMD/E1/D1", 0xFFFFFFFB),
        ("G1/E1//Node Control/Rebirth", "true", "spBv1.0/G1/NCMD/E1", 1),
    ],
)
def test_a_person_writes_to_a_device(plant: Plant, tag: str, value: str, topic: str, written: Any) -> None:
    before = len(plant.node.commands)
    code, said, wrong = plant.hub("edge", "command", "--source", "host", tag, value, "--json")
    assert code == 0, wrong
    assert json.loads(said) == {"source": "host", "tag": tag, "value": value, "topic": topic, "by": f"anna at {HOST}"}
    until(lambda: len(plant.node.commands) > before)
    ((heard, body),) = plant.node.commands[before:]
    assert heard == topic
    assert [one for _, one in commands(body)] == [written]
    assert f"anna at {HOST} writes {tag} = '{value}', on {topic}" in plant.said()
    until(plant.heard)  # a rebirth is over


def test_each_command_is_in_the_log(plant: Plant) -> None:
    before = len(plant.node.commands)
    for value in range(100, 110):  # faster than a line a kind
        plant.ask("/v1/command", json.dumps({"source": "host", "tag": "G1/E1/D1/Set/1", "value": value, "by": "berta"}).encode())
    until(lambda: all(f"berta at {HOST} writes G1/E1/D1/Set/1 = {value}, on" in plant.said() for value in range(100, 110)))
    until(lambda: len(plant.node.commands) == before + 10)


@pytest.mark.parametrize(
    ("source", "tag", "value", "code", "said"),
    [
        ("host", "G1/E1/D1/On", "yes", 422, "'yes' is no Boolean"),
        ("host", "G1/E1/D1/On", 1, 422, "'1' is no Boolean"),
        ("host", "G1/E1/D1/Set/1", "3000000000", 422, "'3000000000' is no Int32"),
        ("host", "G1/E1//Level", "1" * 400, 422, "is no Double"),
        ("host", "G1/E1/D1/Off", "true", 422, "G1/E1/D1 has no metric 'Off': its birth names On, Set/1"),
        ("host", "G1/E1/On", "true", 422, "'G1/E1/On' names no metric: write GROUP/NODE/DEVICE/METRIC"),
        ("host", "G1/E1/D9/On", "true", 503, "G1/E1/D9 is not online"),
        ("listener", "G1/E1/D1/On", "true", 422, "only listens: set primary"),
        ("nobody", "G1/E1/D1/On", "true", 404, "name the source of the command: host, listener"),
        (None, "G1/E1/D1/On", "true", 404, "name the source of the command: host, listener"),
    ],
)
def test_what_cannot_be_sent_is_refused_and_sent_by_nobody(plant: Plant, source: Any, tag: str, value: Any, code: int, said: str) -> None:
    before = len(plant.node.commands)
    with pytest.raises(urllib.error.HTTPError) as refused:
        plant.ask("/v1/command", json.dumps({"source": source, "tag": tag, "value": value}).encode())
    assert refused.value.code == code
    assert said in json.load(refused.value)["detail"]
    assert len(plant.node.commands) == before


@pytest.mark.parametrize(("tag", "code", "said"), [("G1/E1/D1/Off", 2, "has no metric 'Off'"), ("G1/E1/D9/On", 3, "is not online")])
def test_the_command_line_says_what_was_refused(plant: Plant, tag: str, code: int, said: str) -> None:
    refused = plant.hub("edge", "command", "--source", "host", tag, "true")
    assert refused[:2] == (code, "")
    assert said in refused[2]


def test_another_sites_page_may_not_command(plant: Plant) -> None:
    body = json.dumps({"source": "host", "tag": "G1/E1/D1/On", "value": True}).encode()
    before = len(plant.node.commands)
    for headers in ({"Origin": "https://elsewhere.example"}, {"Host": "elsewhere.example"}):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            plant.ask("/v1/command", body, **headers)
    assert len(plant.node.commands) == before
    assert plant.ask("/v1/command", body)["by"] == f"nobody named at {HOST}"
    until(lambda: len(plant.node.commands) == before + 1)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"tag": "G1/E1/D1/On"}', b'{"tag": 5, "value": 1}', b"[" * 100_000])
def test_what_is_no_command_is_refused(plant: Plant, body: bytes) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        plant.ask("/v1/command", body)


def test_what_died_is_shown_as_stale_with_its_time(plant: Plant) -> None:
    """As the compatibility kit asks a person to see for himself."""
    died = now_ms() - 60_000
    plant.node.send("DDEATH", [], "D1", at=died)
    until(lambda: plant.devices("G1/E1/D1")[0]["status"] == "offline")
    (device, _) = plant.devices("G1/E1/D1")
    at = device["since"]
    assert _ms(at) == died  # by the payload
    assert {(tag["value"], tag["quality"], tag["at"]) for tag in device["tags"]} == {(None, "stale", at)}
    with pytest.raises(urllib.error.HTTPError, match="503"):
        plant.ask("/v1/command", b'{"source": "host", "tag": "G1/E1/D1/On", "value": true}')
    before = now_ms()
    plant.node.die()
    until(lambda: plant.devices("G1/E1/")[0]["status"] == "offline")
    rows = plant.devices("G1/E1")[:2]
    assert all(before <= _ms(one["since"]) <= now_ms() for one in rows)  # by the host's clock, the device with it
    assert {(tag["value"], tag["quality"]) for one in rows for tag in one["tags"]} == {(None, "stale")}


def _ms(at: str) -> float:
    return datetime.fromisoformat(at).timestamp() * 1000
