"""The demo's MQTT broker: nothing it acknowledged is lost to kill -9, and only this machine reaches it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from hub.app.home import Home
from hub.app.servers import process
from hub.app.servers.broker import HOST, Broker
from hub.app.supervisor import Child, Supervisor

TOPIC = "millwright/line1/count"


class Client:
    """A subscriber with a persistent session that acknowledges by hand, or not at all."""

    def __init__(self, broker: Broker, name: str, *, acknowledge: bool = True) -> None:
        self.got: list[str] = []
        self._granted: list[bool] = []
        self._acknowledge = acknowledge
        self.mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False, manual_ack=True)
        self.mqtt.on_message = self._take
        self.mqtt.on_subscribe = lambda _client, _data, _mid, codes, _properties: self._granted.extend(
            not code.is_failure for code in codes
        )
        self.mqtt.connect(HOST, broker.port)
        self.mqtt.loop_start()

    def _take(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        self.got.append(message.payload.decode())
        if self._acknowledge:
            client.ack(message.mid, message.qos)

    def subscribe(self) -> None:
        filters = [f"{place}/#" for place in ("millwright", "a", "b", "c", "d", "e", "f")]
        self.mqtt.subscribe([(name, 1) for name in filters])
        assert process.wait_until(lambda: self._granted == [True] * len(filters), 10), self._granted

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def publish(broker: Broker, payloads: list[str]) -> None:
    """Returns once the broker has acknowledged each."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="plant")
    client.connect(HOST, broker.port)
    client.loop_start()
    for info in [client.publish(TOPIC, payload, qos=1) for payload in payloads]:
        info.wait_for_publish(20)
        assert info.is_published()
    client.disconnect()
    client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(Home.open(tmp_path / "home")).prepare()


@pytest.fixture
def supervisor(broker: Broker) -> Iterator[Supervisor]:
    child = Child("broker", broker.argv(), ready=broker.ready)
    with Supervisor(broker.home, [child], private_database=False) as supervisor:
        assert supervisor.wait_ready(20)
        yield supervisor


def kill_9(supervisor: Supervisor, broker: Broker) -> None:
    """And wait until the supervisor has it back."""
    pid = pid_of(broker)
    os.kill(pid, signal.SIGKILL)
    assert process.wait_until(lambda: process.start_ticks(pid) is None, 5)
    assert supervisor.wait_ready(20)
    assert pid_of(broker) != pid


def pid_of(broker: Broker) -> int:
    for one in psutil.process_iter(["cmdline"]):
        if str(broker.config) in (one.info["cmdline"] or []):
            return int(one.pid)
    raise AssertionError("no broker runs")


def test_messages_for_an_absent_subscriber_survive_kill_9(broker: Broker, supervisor: Supervisor) -> None:
    client = Client(broker, "hub-1")
    client.subscribe()
    client.close()
    sent = [str(n) for n in range(300)]
    publish(broker, sent[:150])
    kill_9(supervisor, broker)
    publish(broker, sent[150:])
    kill_9(supervisor, broker)
    client = Client(broker, "hub-1")
    assert process.wait_until(lambda: len(set(client.got)) == len(sent), 20), len(client.got)
    client.close()
    assert list(dict.fromkeys(client.got)) == sent


def test_what_was_not_acknowledged_comes_again(broker: Broker, supervisor: Supervisor) -> None:
    client = Client(broker, "hub-2", acknowledge=False)
    client.subscribe()
    sent = [str(n) for n in range(40)]
    publish(broker, sent)
    assert process.wait_until(lambda: len(client.got) >= len(sent), 10)
    client.close()
    kill_9(supervisor, broker)
    client = Client(broker, "hub-2")
    assert process.wait_until(lambda: set(client.got) == set(sent), 20), len(client.got)
    client.close()


def test_only_this_machine_reaches_it(broker: Broker, supervisor: Supervisor) -> None:
    listening = [one.laddr for one in psutil.Process(pid_of(broker)).net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening} == {HOST}
    assert broker.port in {address.port for address in listening}
    assert urlsplit(broker.url).port == broker.port


def test_the_port_is_remembered_unless_somebody_has_it(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    port = Broker(home).prepare().port
    assert Broker(home).prepare().port == port
    with socket.socket() as other:
        other.bind((HOST, port))
        other.listen()
        moved = Broker(home).prepare().port
        assert moved != port
    assert Broker(home).prepare().port == moved


def test_it_is_not_ready_before_it_answers(broker: Broker) -> None:
    assert not broker.ready()
    with socket.socket() as other:  # something listens there that is no MQTT broker
        other.bind((HOST, broker.port))
        other.listen()
        assert not broker.ready()
    assert Path(broker.argv()[0]).is_relative_to(Path(sys.prefix))
