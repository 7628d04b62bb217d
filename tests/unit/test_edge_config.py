"""edge.yaml: every fault names file, line, field and remedy; what is right becomes what it says."""

import re
from pathlib import Path

import pytest

from hub.app.edge.config import Configured
from hub.app.edge.mqtt import sessions
from hub.app.settings import ConfigError

HEAD = "edge: plant-1\nhub: {url: 'https://hub:8443'}\n"
BROKER = "mqtt:\n  - name: m\n    url: mqtt://broker\n"


def configured(folder: Path, text: str) -> Configured:
    (folder / "edge.yaml").write_text(text)
    return Configured(folder / "edge.yaml")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("edge: plant-1\n", 1, "hub: is needed: add it"),
        (HEAD + "spool:\n  max: lots\n", 4, "spool.max: is no size: write for example 512MiB"),
        (HEAD + "nonsense: 1\n", 3, "nonsense: there is no such key: correct or remove it"),
        ("edge: plant-1\nhub: {url: 'http://hub'}\n", 2, "hub.url: is no address of a hub: write https://HOST:8443"),
        (HEAD + "edge: plant-2\n", 3, "'edge' stands twice: keep one"),
        (HEAD + "listen: [\n", 4, "this is no YAML"),
        (HEAD + "plant: {zone: Nowhere/Else}\n", 3, "plant: the time zone 'Nowhere/Else' is not known: name one"),
        (HEAD + "folders: [{name: a, path: x}]\n" + BROKER.replace("name: m", "name: a") + "    deliveries: [x]\n", 5, "mqtt.0.name: 'a' is the name of"),
        (HEAD + BROKER, 4, "mqtt.0: subscribes to nothing: add deliveries or readings"),
        (HEAD + BROKER + "    deliveries: ['a/#/b']\n", 6, "mqtt.0.deliveries.0: 'a/#/b' is no topic filter: + stands alone"),
        (HEAD + BROKER + "    deliveries: ['$share/g/a']\n", 6, "mqtt.0.deliveries.0: is a shared subscription"),
        (HEAD + BROKER + "    deliveries: ['a/+/c', 'a/b/+']\n", 4, "mqtt.0: a/+/c and a/b/+ overlap in part"),
        (HEAD + BROKER + "    readings:\n      - filter: a\n      - filter: b\n        valu: x\n", 9, "mqtt.0.readings.1.valu: there is no such key"),
        (HEAD + BROKER + "    readings: [{filter: a, producer: -1}]\n", 6, "mqtt.0.readings.0.producer: Input should be greater"),
        (HEAD + BROKER.replace("mqtt://broker", "broker:1883") + "    deliveries: [a]\n", 5, "mqtt.0.url: is no address of a broker: write mqtt://"),
        (HEAD + BROKER.replace("broker", "u:p@broker") + "    deliveries: [a]\n", 5, "mqtt.0.url: holds a user or a password: write username"),
        (HEAD + BROKER.replace("broker", "broker:99999") + "    deliveries: [a]\n", 5, "mqtt.0.url: has a port that is none"),
        (HEAD + BROKER + "    version: 4\n    deliveries: [a]\n", 6, "mqtt.0.version: Input should be '5' or '3.1.1'"),
        (HEAD + BROKER + "    authority: ca.pem\n    deliveries: [a]\n", 4, "mqtt.0: names certificates and speaks no TLS: write mqtts://"),
        (HEAD + BROKER.replace("mqtt:/", "mqtts:/") + "    key: a.key\n    deliveries: [a]\n", 4, "mqtt.0: has a key without its certificate"),
        (HEAD + BROKER + "    password_env: X\n    deliveries: [a]\n", 4, "mqtt.0: has a password without a user: add username"),
        (HEAD + BROKER + "    session_expiry_hours: 0\n    deliveries: [a]\n", 6, "mqtt.0.session_expiry_hours: Input should be greater than 0"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line_and_remedy(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, text)
    assert re.match(rf"{re.escape(str(tmp_path))}/edge\.yaml:{line}: {re.escape(said)}", str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("more", "line", "said"),
    [
        ("    authority: none.pem\n", 7, "mqtt.0.authority: .*none.pem cannot be used (.*): name the PEM file of the authority"),
        ("    authority: junk.pem\n", 7, "mqtt.0.authority: .*junk.pem cannot be used (.*): name the PEM file of the authority"),
        ("    certificate: junk.pem\n    key: junk.pem\n", 7, "mqtt.0.certificate: .*junk.pem and .*junk.pem cannot be used (.*): name PEM files that"),
        ("    certificate: none.pem\n", 7, "mqtt.0.certificate: .*none.pem and the key in it cannot be used (.*): name PEM files that"),
        ("    username: u\n    password_env: NOT_SET_ANYWHERE\n", 8, "mqtt.0.password_env: the environment variable NOT_SET_ANYWHERE is not set: set"),
    ],
)  # fmt: skip
def test_what_a_broker_needs_and_is_not_there_is_named(tmp_path: Path, more: str, line: int, said: str) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    found = configured(tmp_path, HEAD + BROKER.replace("mqtt:/", "mqtts:/") + "    deliveries: [a]\n" + more)
    with pytest.raises(ConfigError) as caught:
        sessions(found, 0, found.config.mqtt[0])
    assert re.search(rf"edge\.yaml:{line}: {said.replace('(.*)', '[(].*[)]')}", str(caught.value)), str(caught.value)


def test_each_list_is_a_session_with_a_name_of_its_own_that_stays(tmp_path: Path) -> None:
    text = HEAD + BROKER + "    version: 3.1.1\n    deliveries: [a/#, a/b]\n    readings: [{filter: r/+}]\n"
    found = configured(tmp_path, text)
    for _ in range(2):
        deliveries, readings = sessions(found, 0, found.config.mqtt[0])
        assert deliveries is not None
        assert readings is not None
        assert (deliveries._client_id, deliveries._topics, deliveries._port) == ("plant-1-m-deliveries", ["a/#"], 1883)
        assert (readings._adapter._client_id, readings._adapter._version) == ("plant-1-m-readings", "3.1.1")
    only = configured(tmp_path, HEAD + BROKER.replace("mqtt:/", "mqtts:/") + "    deliveries: [a]\n")
    deliveries, readings = sessions(only, 0, only.config.mqtt[0])
    assert readings is None
    assert deliveries is not None
    assert (deliveries._port, deliveries._version) == (8883, "5")
