"""MQTT over TLS: `mqtts://` is encrypted and knows its broker, and a user's and password's special characters arrive as they are."""

import datetime
import ipaddress
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.mqtt import MqttAdapter
from events.errors import Unavailable
from hub.app.servers import process
from hub.app.servers.process import free_port
from hub.app.settings import Settings
from hub.app.worker import adapters_of
from tests.contract.adapter_sources import HOST

LOGIN = ("hub@line 1", "p@ss/w:rd%41")

# paho leaves the socket of a handshake that failed to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")


def certificate(folder: Path, name: x509.GeneralName) -> Path:
    """A self-signed certificate for a name, with its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "broker.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "broker.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return file


@contextmanager
def broker(program: str, folder: Path, name: x509.GeneralName) -> Iterator[int]:
    """A mosquitto that speaks TLS only and knows one user; its port."""
    file, port = certificate(folder, name), free_port()
    passwords = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, *LOGIN], check=True, timeout=10)
    lines = [f"listener {port} {HOST}", f"certfile {file}", f"keyfile {folder}/broker.key", f"password_file {passwords}", "user root"]
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    child = process.spawn([program, "-c", str(folder / "mosquitto.conf")], folder / "mosquitto.log", death=signal.SIGKILL)
    try:
        assert process.wait_until(lambda: "running" in process.tail(folder / "mosquitto.log"), 10), process.tail(folder / "mosquitto.log")
        yield port
    finally:
        child.terminate()
        child.wait(10)


def adapter(url: str) -> MqttAdapter:
    """What the worker makes of `HUB_MQTT_URL`."""
    (found,) = adapters_of(Settings.load({"HUB_MQTT_URL": url, "HUB_MQTT_TOPICS": "plant/#"}))
    assert isinstance(found, MqttAdapter)
    return found


def test_mqtts_is_encrypted_and_logs_in(mosquitto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with broker(mosquitto, tmp_path, x509.IPAddress(ipaddress.ip_address(HOST))) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "broker.pem"))
        login = ":".join(quote(one, safe="") for one in LOGIN)
        opened = adapter(f"mqtts://{login}@{HOST}:{port}")
        opened.open()
        opened.close()
        with pytest.raises(Unavailable, match=rf"{HOST}:{port} .*: .* correct HUB_MQTT_URL"):
            adapter(f"mqtts://hub%40line%201:wrong@{HOST}:{port}").open()
        with pytest.raises(Unavailable, match=rf"{HOST}:{port} "):
            adapter(f"mqtt://{login}@{HOST}:{port}").open()


@pytest.mark.parametrize(
    ("trusted", "name", "cause"),
    [
        (False, x509.IPAddress(ipaddress.ip_address(HOST)), "self.signed"),
        (True, x509.DNSName("other.example"), "not valid for '127.0.0.1'"),
    ],
)
def test_a_wrong_certificate_is_refused(
    mosquitto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool, name: x509.GeneralName, cause: str
) -> None:
    with broker(mosquitto, tmp_path, name) as port:
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "broker.pem"))
        with pytest.raises(Unavailable, match=rf"{HOST}:{port} offers no TLS that can be trusted .*{cause}.*: correct its .*SSL_CERT_FILE"):
            adapter(f"mqtts://u:p@{HOST}:{port}").open()


def test_each_scheme_has_its_port() -> None:
    assert [adapter(f"{scheme}://plant").name for scheme in ("mqtt", "mqtts")] == ["mqtt plant:1883", "mqtt plant:8883"]
