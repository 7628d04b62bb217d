"""What MQTT alone can do to intake: a flood while the hub is busy, a broker that refuses, a connection that carries nothing."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.mqtt import MqttAdapter
from events.errors import Unavailable
from hub.intake.delivery import Outcome
from tests.contract.adapter_mqtt import Mqtt, mosquitto_source
from tests.contract.adapter_sources import HOST
from tests.contract.adapter_suite import facts, receive

DONE = Outcome("", [])


@pytest.fixture
def broker(mosquitto: str, tmp_path: Path) -> Iterator[Mqtt]:
    with mosquitto_source(mosquitto, tmp_path) as source:
        yield source


def reconfigured(broker: Mqtt, folder: Path, *lines: str) -> None:
    """The same broker with other rules."""
    broker.stop()
    kept = [
        line for line in (folder / "mosquitto.conf").read_text("utf-8").splitlines() if line.split()[0] not in {x.split()[0] for x in lines}
    ]
    (folder / "mosquitto.conf").write_text("\n".join([*kept, *lines]) + "\n", "utf-8")
    broker.start()


@pytest.mark.parametrize("qos", [0, 1])
def test_a_flood_waits_at_the_broker_and_not_in_memory(broker: Mqtt, monkeypatch: pytest.MonkeyPatch, qos: int) -> None:
    monkeypatch.setattr("hub.limits.MQTT_WAITING_MAX", 20)
    adapter = broker.road.adapter()
    adapter.open()
    broker.send(facts(0, 300), qos)
    time.sleep(0.5)
    assert adapter._messages.qsize() == 20
    assert [d.body for d in receive(adapter, 300)] == facts(0, 300)
    broker.send(facts(300, 100), qos)
    time.sleep(0.3)
    start = time.monotonic()
    adapter.close()  # while the client's thread waits for room
    assert time.monotonic() - start < 2
    assert qos == 0 or broker.held() == 400


def test_done_after_a_new_connection_acknowledges_nothing(broker: Mqtt) -> None:
    broker.send(facts(0, 3))
    adapter = broker.road.adapter()
    adapter.open()
    old = receive(adapter, 3)
    adapter.open()
    for delivery in old:
        delivery.done(DONE)
    adapter.close()
    assert broker.held() == 3


def test_a_broker_that_knows_us_not_is_named(broker: Mqtt, tmp_path: Path) -> None:
    reconfigured(broker, tmp_path, "allow_anonymous false")
    with pytest.raises(
        Unavailable, match=rf"{HOST}:{broker.road.port} refused the connection: .*uthori.*: look at .* correct HUB_MQTT_URL"
    ):
        broker.road.adapter().open()


def test_a_filter_that_mqtt_does_not_know_is_named_at_once(broker: Mqtt) -> None:
    start = time.monotonic()
    with pytest.raises(Unavailable, match=r"plant/#/bad.* correct HUB_MQTT_URL or its topics"):
        MqttAdapter(HOST, broker.road.port, ["plant/#/bad"], "contract-hub").open()
    assert time.monotonic() - start < 5


def test_a_heartbeat_that_is_not_allowed_is_named(broker: Mqtt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.mqtt.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("adapters.mqtt.SILENT_S", 0.6)
    (tmp_path / "rules").write_text("topic readwrite plant/#\n", "utf-8")
    (tmp_path / "rules").chmod(0o600)
    reconfigured(broker, tmp_path, f"acl_file {tmp_path}/rules")
    adapter = broker.road.adapter()
    adapter.open()
    with pytest.raises(
        Unavailable, match=r"connecting again; if this repeats, allow this client to write and read hub/heartbeat/contract-hub"
    ):
        receive(adapter, 1)
    adapter.close()


def test_a_hub_that_was_busy_for_long_does_not_mistake_itself_for_a_dead_broker(broker: Mqtt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.mqtt.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("adapters.mqtt.SILENT_S", 0.5)
    adapter = broker.road.adapter()
    adapter.open()
    for _ in range(4):
        adapter.receive(1, 0.1)
    time.sleep(1.5)  # as long as the log was out of reach
    broker.send(facts(0, 1))
    assert len(receive(adapter, 1)) == 1
    adapter.close()
