"""Sparkplug over TLS: the host knows its broker, and shows a certificate of its own."""

import ipaddress
from pathlib import Path

import pytest
from cryptography import x509

from adapters.sparkplug import SparkplugSettings, SparkplugSource
from events.errors import Refused, Unavailable
from tests.contract.sparkplug_peer import HOST, HOST_ID, Mosquitto, Running
from tests.contract.test_mqtt_tls import certificate

# paho leaves the socket of a handshake that failed to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")


def _host(port: int, **more: Path) -> Running:
    return Running(SparkplugSource(SparkplugSettings([f"mqtts://{HOST}:{port}"], HOST_ID, **more)))  # type: ignore[arg-type]


def test_both_sides_show_who_they_are(mosquitto: str, tmp_path: Path) -> None:
    name = x509.IPAddress(ipaddress.ip_address(HOST))
    (tmp_path / "other").mkdir()
    file, other = certificate(tmp_path, name), certificate(tmp_path / "other", name)
    lines = [
        f"certfile {file}",
        f"keyfile {tmp_path}/broker.key",
        f"cafile {file}",
        "require_certificate true",
        "use_identity_as_username true",
    ]
    broker = Mosquitto(mosquitto, tmp_path / "mosquitto", *lines)
    mine = {"certificate": file, "key": tmp_path / "broker.key"}  # signed by itself, and so by what the broker trusts
    running = _host(broker.port, authority=file, **mine).open()
    running.run(0.2)
    running.source.close()
    for wrong in (
        {"authority": other, **mine},
        {"authority": file},
        {"authority": file, "certificate": other, "key": tmp_path / "other" / "broker.key"},
    ):
        with pytest.raises(Unavailable, match=r"certificate|ended the connection"):
            _host(broker.port, **wrong).open()
    broker.stop()


def test_certificates_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"none.pem cannot be used .*: name the PEM file of the authority"):
        _host(1, authority=tmp_path / "none.pem").open()
    with pytest.raises(Refused, match="name both or none"):
        _host(1, key=tmp_path / "key")
