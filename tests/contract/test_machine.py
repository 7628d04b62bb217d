"""The simulated machines over the wire: what is served is what they logged, to an OPC UA client of ours and to node-opcua's."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.opcua import OpcUaSettings, OpcUaSource, Start
from events.errors import Unavailable
from hub.app.demo.plant.machine import URI
from hub.app.servers.process import free_port
from hub.intake.readings import Reading
from tests.peers.npm import node, peer

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def machine(folder: Path, port: int) -> Iterator[str]:
    """The plant's process; its URL."""
    url = f"opc.tcp://127.0.0.1:{port}/machines"
    argv = [
        sys.executable, "-m", "hub.app.demo.plant.machine", "--url", url, "--speed", "30",
        "--work", "WINDER-1:MO-1:L1", "--work", "PRESS-2:MO-2:L2", "--log", str(folder / "sent.ndjson"),
    ]  # fmt: skip
    with (folder / "machine.log").open("a") as log:
        process = subprocess.Popen(argv, cwd=ROOT, stderr=log)
    try:
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, (folder / "machine.log").read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


def source(url: str) -> OpcUaSource:
    return OpcUaSource(
        OpcUaSettings(
            url, "machines", (Start("m:Machines", "milldrive/line1"),), {"m": URI}, publishing_s=0.1, keep_alive_s=0.3, answer_s=3.0
        )
    )


def opened(found: OpcUaSource, memory: dict[str, bytes]) -> None:
    """Open it when the plant is up."""
    until = time.monotonic() + 30
    while True:
        try:
            return found.open(memory.get)
        except Unavailable:
            assert time.monotonic() < until
            time.sleep(0.2)


def listen(found: OpcUaSource, memory: dict[str, bytes], seconds: float) -> list[Reading]:
    readings: list[Reading] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for one in found.receive(500, 0.2):
            assert not one.gaps, one.gaps
            readings += one.readings
            memory.update(one.memory)
            one.done()
    return readings


def sent(folder: Path) -> list[tuple[str, Any, str]]:
    rows = [json.loads(line) for line in (folder / "sent.ndjson").read_text().splitlines()]
    return [(row["tag"], row["value"], row["at"]) for row in rows]


def test_what_is_served_is_what_was_logged(tmp_path: Path) -> None:
    """Listened to, and not listened to for a while and read back from the history."""
    memory: dict[str, bytes] = {}
    port = free_port()
    with machine(tmp_path, port) as url:
        ours = source(url)
        opened(ours, memory)
        found = listen(ours, memory, 4.0)
        ours.close()
        time.sleep(1.0)
        memory = {name: saved for name, saved in memory.items() if not name.endswith("/line")}  # the server forgets us
        ours = source(url)
        opened(ours, memory)
        found += listen(ours, memory, 2.0)
        ours.close()
    said = sent(tmp_path)
    came = {(reading.tag.removeprefix("milldrive/line1/"), reading.value, reading.at.isoformat()) for reading in found if reading.at}
    last = max(at for _, _, at in came)
    first: dict[str, str] = {}  # of each tag, the value of the moment when we came
    for tag, _, at in came:
        first[tag] = min(at, first.get(tag, at))
    expected = {row for row in said if first[row[0]] <= row[2] <= last}
    assert {name for name, _, _ in came} == {name for name, _, _ in said}
    assert any(reading.historical for reading in found)
    assert expected - came == set()


def test_node_opcua_reads_what_was_logged(tmp_path: Path) -> None:
    """A client that shares nothing with asyncua: browses, subscribes, and reads the history."""
    folder, program = peer("opcua"), node()
    with machine(tmp_path, free_port()) as url:
        time.sleep(0.1)
        ours = source(url)
        opened(ours, {})  # it is up
        ours.close()
        argv = [program, str(folder / "client.mjs"), json.dumps({"url": url, "uri": URI, "seconds": 3})]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr[-3000:]
    told = json.loads(ran.stdout)
    said = {(tag, value, at[:23]) for tag, value, at in sent(tmp_path)}  # node's clock counts milliseconds
    assert len(told["changes"]) > 10
    assert {tuple(row) for row in told["changes"]} <= said
    assert len(told["history"]) > 5
    assert {tuple(row) for row in told["history"]} <= said


def test_a_taken_port_ends_it_with_an_error(tmp_path: Path) -> None:
    port = free_port()
    with machine(tmp_path, port) as url:
        opened(source(url), {})
        argv = [sys.executable, "-m", "hub.app.demo.plant.machine", "--url", url]
        ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert ran.returncode != 0
        assert "address already in use" in ran.stderr
