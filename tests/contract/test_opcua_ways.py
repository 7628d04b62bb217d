"""OPC UA: security, users, what is read by which settings, exact values of all types, and what `check` says."""

import datetime
import hashlib
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from adapters.opcua import OpcUaSettings, OpcUaSource, Start
from adapters.opcua.items import merged
from events.canonical import loads
from events.errors import Refused, Unavailable
from hub.intake.edge_document import EdgeDocument
from hub.intake.readings import Gap, Reading
from tests.conftest import need
from tests.contract.opcua_plant import URI, PlantServer
from tests.contract.opcua_types import CASES
from tests.contract.reading_suite import Edge
from tests.contract.tcp_proxy import Proxy
from tests.contract.test_opcua import Line1, line1, settings
from tests.contract.test_opcua_cuts import cut
from tests.crash.clock import Clock, library
from tests.crash.ground import Missing

USER, PASSWORD, VARIABLE = "hub@line 1", "p@ss/w:rd%41 ü", "TEST_OPCUA_PASSWORD"


def pair(folder: Path, name: str, uri: str, *, pem: bool = True) -> tuple[Path, Path]:
    """A self-signed certificate and its key, as PEM with the endings that people use, or as DER."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(True, True, True, True, False, True, False, False, False)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM if pem else serialization.Encoding.DER
    certificate, secret = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(form))
    secret.write_bytes(key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return certificate, secret


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Certificates of the server, of us, and of somebody else; asyncua's server takes files by their ending."""
    folder = tmp_path_factory.mktemp("keys")
    found: dict[str, Any] = {name: pair(folder, name, f"urn:plant.example:{name}") for name in ("server", "hub", "other")}
    found["der"] = pair(folder, "der", "urn:plant.example:der", pem=False)
    for n, ending in enumerate(("certificate.pem", "key.pem")):
        (folder / ending).write_bytes(found["server"][n].read_bytes())
    found["plant"] = folder / "certificate.pem", folder / "key.pem"
    return found


@pytest.fixture(scope="module")
def secured(keys: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlantServer]:
    certificate, key = map(str, keys["plant"])
    log = tmp_path_factory.mktemp("secured") / "plant.log"
    with PlantServer(log, certificate=certificate, key=key, user=USER, password=PASSWORD) as running:
        yield running


def secure(port: int, keys: dict[str, Any], who: str = "hub", **changed: Any) -> OpcUaSettings:
    given = {
        "security": "Basic256Sha256", "certificate": keys[who][0], "key": keys[who][1], "server_certificate": keys["server"][0],
        "user": USER, "password_env": VARIABLE,
    }  # fmt: skip
    return settings(port, **{**given, **changed})


@pytest.mark.parametrize("who", ["hub", "der"])
def test_signed_and_encrypted_with_user_and_password(
    secured: PlantServer, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """Also a cut: session and subscription are taken up with the signature that the server wants."""
    monkeypatch.setenv(VARIABLE, PASSWORD)
    secured.do("forget")
    with Proxy(secured.port) as proxy:
        plant = Line1(secured, proxy)
        plant.source = lambda: OpcUaSource(secure(proxy.port, keys, who))  # type: ignore[method-assign]
        edge = Edge(plant)
        edge.open()
        said = list(plant.say(10))
        edge.until(lambda: said[-1] in edge.numbers)
        plant.down()
        said += plant.say(10)
        plant.up()
        edge.settle()
        edge.kill()
        said += plant.say(10)
        edge.until(lambda: said[-1] in edge.numbers)
        edge.close()
        assert edge.numbers == said
        assert not edge.gaps
        assert secured.do("sessions") == 1


def behind(folder: Path, seconds: int) -> dict[str, str]:
    """The environment of a server whose clock is so far behind."""
    try:
        clock = Clock(library(folder), folder / "clock.offset")
    except Missing as error:
        need("gcc", str(error))
    clock.set(-seconds)
    return clock.environment


def renewed_while_values_flow(plant: Line1, seconds: float) -> None:
    """Values in all that time come once, over one line."""
    edge = Edge(plant)
    edge.open()
    lines, said = plant.proxy.connections, list[int]()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        said += plant.say(5)
        edge.keep(edge.receive(wait_s=0.0))
    edge.until(lambda: said[-1] in edge.numbers[-1:])
    edge.close()
    assert edge.numbers == said
    assert not edge.gaps
    assert plant.proxy.connections == lines


@pytest.mark.parametrize("history", [False, True])
def test_a_cut_of_a_server_whose_clock_is_a_day_behind_is_accounted_for(tmp_path: Path, history: bool) -> None:
    given: dict[str, Any] = {"history": history}
    with PlantServer(tmp_path / "plant.log", environment=behind(tmp_path, 86400), **given) as server, Proxy(server.port) as proxy:
        plant = Line1(server, proxy, forgets=True)
        assert any(re.fullmatch(r"clock: 8640\d\.\d s behind ours", line) for line in plant.source().check())
        edge = Edge(plant)
        said = cut(plant, edge)
        assert len(edge.gaps) == (0 if history else 1)
        edge.accounted(said)


@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
def test_a_channel_that_lives_shortly_is_renewed_while_values_flow(
    tmp_path: Path, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Also where the server's clock is a day behind."""
    monkeypatch.setenv(VARIABLE, PASSWORD)
    certificate, key = map(str, keys["plant"])
    given: dict[str, Any] = {"certificate": certificate, "key": key, "user": USER, "password": PASSWORD, "mode": mode, "lifetime_ms": 1000}
    with PlantServer(tmp_path / "plant.log", environment=behind(tmp_path, 86400), **given) as server, Proxy(server.port) as proxy:
        plant = Line1(server, proxy)
        plant.source = lambda: OpcUaSource(secure(proxy.port, keys, mode=mode))  # type: ignore[method-assign]
        renewed_while_values_flow(plant, 4.0)


@pytest.mark.parametrize(
    ("changed", "password", "says"),
    [
        ({}, "wrong", rf"does not let the user {USER} in .*correct user and the password in {VARIABLE}"),
        ({"user": "nobody"}, PASSWORD, "does not let the user nobody in .*correct user"),
        ({"user": None, "password_env": None}, PASSWORD, "does not let somebody without a name in .*correct user"),
        ({"server_certificate": "other"}, PASSWORD, r"shows another certificate \(SHA-256 [0-9a-f]{64}\) than .*: ask who runs it"),
        ({"security": "None"}, PASSWORD, "does not offer security None.*: set what it offers"),
        ({"mode": "Sign"}, PASSWORD, "does not offer security Basic256Sha256 Sign: set what it offers"),
        ({"certificate": Path("/nowhere/hub.crt")}, PASSWORD, "/nowhere/hub.crt cannot be read .*: correct the path"),
    ],
    ids=["password", "user", "nobody", "server", "unencrypted", "signed", "no file"],
)
def test_what_is_wrong_is_said_with_the_remedy(
    secured: PlantServer, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], password: str, says: str
) -> None:
    monkeypatch.setenv(VARIABLE, password)
    changed = {name: keys[value][0] if value == "other" else value for name, value in changed.items()}
    source = OpcUaSource(secure(secured.port, keys, **changed))
    for attempt in (source.check, lambda: source.open(lambda name: None)):
        with pytest.raises(Unavailable, match=says):
            attempt()
    source.close()


def test_a_password_that_is_not_there_is_named(secured: PlantServer, keys: dict[str, Any]) -> None:
    with pytest.raises(Unavailable, match=f"password of {USER} .* set the variable {VARIABLE}"):
        OpcUaSource(secure(secured.port, keys)).open(lambda name: None)


def test_check_says_what_is_there_and_ends_its_session(
    tmp_path: Path, secured: PlantServer, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, PASSWORD)
    secured.do("forget")
    said = "\n".join(OpcUaSource(secure(secured.port, keys)).check())
    assert "security: Basic256Sha256, SignAndEncrypt; user hub@line 1" in said
    assert PASSWORD not in said
    assert secured.do("sessions") == 0
    with line1(tmp_path, history=True) as plant:
        said = "\n".join(plant.source().check())
        assert "FreeOpcUa" in said
        assert "items: 2 below 1 start" in said
        assert "queues: 6020 values of each item asked for, 6020 given; sampled every 0.1 s at best" in said
        assert "history: of 2 of them" in said
        assert re.search(r"clock: 0\.\d s", said)
        assert "not encrypted; no user" in said


def test_check_says_what_the_server_does_less_than_asked(tmp_path: Path) -> None:
    with line1(tmp_path, changed={"queue": 20_000}) as plant:
        said = "\n".join(plant.source().check())
        assert "queues: 20000 values of each item asked for, 10000 given" in said
        assert plant.server.do("sessions") == 0


@pytest.mark.parametrize(
    ("starts", "tags"),
    [
        ((Start("p:Line1", "site/area"),), ["site/area/Count", "site/area/Idle"]),
        ((Start("p:Line1"),), ["Count", "Idle"]),
        ((Start(f"nsu={URI};s=Line1.Count", "press/parts"),), ["press/parts"]),
        ((Start("p:Line1/p:Idle"), Start("p:Line1", "all")), ["Idle", "all/Count"]),
        ((Start("p:Line1", only=("C*",)),), ["Count"]),
        ((Start("p:Line1", but=("C*",)),), ["Idle"]),
        ((Start("i=85", "root", only=("Line1/*",)),), ["root/Line1/Count", "root/Line1/Idle"]),
    ],
    ids=["tagged", "plain", "node id", "twice", "only", "but", "objects"],
)
def test_starts_name_what_is_read(
    tmp_path: Path, secured: PlantServer, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch, starts: Any, tags: Any
) -> None:
    monkeypatch.setenv(VARIABLE, PASSWORD)
    source = OpcUaSource(secure(secured.port, keys, starts=starts))
    source.open(lambda name: None)
    found: set[str] = set()
    for _ in range(20):
        found |= {reading.tag for one in source.receive(500, 0.2) for reading in one.readings}
        if len(found) >= len(tags):
            break
    source.close()
    assert sorted(found) == sorted(tags)


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ("p:Line2", "has nothing at p:Line2 .*correct the start"),
        ("q:Line1", "prefix q has no URI: set it in namespaces"),
        ("x:Line1", "does not know the namespace http://else.example: .*correct namespaces"),
        ("ns=2;s=Line1", "numbers its namespaces anew .*nsu=URI"),
        (f"nsu={URI};s=Line2", "has no node .*correct the start"),
        ("nsu=http://else.example;s=Line1", "does not know the namespace http://else.example"),
    ],
)
def test_a_start_that_is_not_there_is_said(
    secured: PlantServer, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch, start: str, says: str
) -> None:
    monkeypatch.setenv(VARIABLE, PASSWORD)
    spaces = {"p": URI, "x": "http://else.example"}
    source = OpcUaSource(secure(secured.port, keys, starts=(Start(start),), namespaces=spaces))
    with pytest.raises(Unavailable, match=says):
        source.open(lambda name: None)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"url": "http://plant"}, "write opc.tcp://"),
        ({"url": "opc.tcp://user:secret@plant:4840"}, "name user and password_env"),
        ({"starts": ()}, "name at least one start"),
        ({"security": "Basic256Sha256"}, "set certificate, key, server_certificate"),
        ({"user": "somebody"}, "set password_env"),
        ({"publishing_s": 0.0}, "publishing_s of .* must be more than 0"),
        ({"queue": 0, "rate_hz": -1.0}, "rate_hz, queue of .* must be more than 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match=says):
        settings(4840, **changed)


def test_gaps_of_several_tags_are_one_and_those_of_one_tag_are_not() -> None:
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    ends = [(at + n * datetime.timedelta(seconds=0.3), at + (n + 1) * datetime.timedelta(seconds=0.3)) for n in range(2)]
    gaps = [Gap(f"{n}{tag}", "p", "overflow", "why", since=ends[n][0], until=ends[n][1], tags=(tag,)) for n in range(2) for tag in "ab"]
    found = [(gap.since, gap.until, gap.tags) for gap in merged(gaps, datetime.timedelta(seconds=0.5))]
    assert found == [(*ends[0], ("a", "b")), (*ends[1], ("a", "b"))]


def test_queues_are_sized_by_rule() -> None:
    assert settings(4840, rate_hz=10.0, publishing_s=1.0, outage_s=60.0).queue_size == 610
    assert settings(4840, queue=7).queue_size == 7


def test_values_of_all_types_are_exact(tmp_path: Path) -> None:
    """Also in what the edge spools of them: "00123" stays a text, a negative Int32 negative, a UInt64 whole."""
    with line1(tmp_path) as plant:
        plant.server.do("add_types")
        edge = Edge(plant)
        edge.open()
        edge.until(lambda: len(edge.readings) >= len(CASES) + 2)
        edge.close()
    found = {reading.tag.removeprefix("Line1/"): reading for reading in edge.readings}
    for name, (_, value, kind) in CASES.items():
        reading = found[name]
        same = math.isnan(reading.value) if isinstance(value, float) and math.isnan(value) else reading.value == value  # type: ignore[arg-type]
        assert same, (name, reading)
        assert type(reading.value) is type(value), (name, reading)
        assert (reading.type, reading.quality) == (kind, "good"), (name, reading)
    now = datetime.datetime.now(datetime.UTC)
    spooled = loads(EdgeDocument("edge", "e1", "line1", 1, "line1", now, edge.readings).json())
    rows = {row[0].removeprefix("Line1/"): row for row in spooled["readings"]}
    assert rows["UInt64"][1] == 2**64 - 1
    assert rows["Serial"][1] == "00123"
    assert rows["Int32"][1] == -5
    assert float(rows["Float"][1]) == 0.10000000149011612


def test_quality_and_times_are_the_servers(tmp_path: Path) -> None:
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        edge.open()
        edge.until(lambda: len(edge.readings) == 2)
        for n, status in enumerate((0x40000000, 0x80310000, 0)):
            plant.server.do("write", name="Idle", value=n, kind="Int64", at=f"2020-02-29T23:59:59.00000{n + 1}+00:00", status=status)
        edge.until(lambda: len(edge.readings) == 5)
        edge.close()
    found: list[Reading] = edge.readings[2:]
    assert [reading.quality for reading in found] == ["uncertain", "bad", "good"]
    assert [reading.at for reading in found] == [datetime.datetime(2020, 2, 29, 23, 59, 59, n + 1, datetime.UTC) for n in range(3)]


def test_a_source_clock_that_jumps_orders_nothing(tmp_path: Path) -> None:
    with line1(tmp_path) as plant:
        edge = Edge(plant)
        edge.open()
        edge.until(lambda: len(edge.readings) == 2)
        for n, at in enumerate(("2026-01-01T00:00:00", "2026-01-02T00:00:00", "2025-12-31T00:00:00", "2026-01-01T00:00:00")):
            plant.server.do("write", name="Idle", value=n + 100, kind="Int64", at=f"{at}+00:00")
        edge.until(lambda: len(edge.readings) == 6)
        edge.kill()
        edge.settle()
        edge.close()
    assert [reading.value for reading in edge.readings[2:]] == [100, 101, 102, 103]
    assert not edge.gaps


def test_a_dead_band_leaves_small_changes_out_and_texts_alone(tmp_path: Path) -> None:
    with line1(tmp_path, changed={"dead_band": 5.0}) as plant:
        plant.server.do("put_back", name="Text", value="a")
        edge = Edge(plant)
        edge.open()
        edge.until(lambda: len(edge.readings) == 3)
        for value in (8, 20, 22, 30):
            plant.server.do("write", name="Idle", value=value, kind="Int64")
        plant.server.do("write", name="Text", value="b", kind="String")
        edge.settle()
        edge.close()
    assert [reading.value for reading in edge.readings[3:] if reading.tag == "Line1/Idle"] == [20, 30]
    assert edge.readings[-1].value in ("b", 30)


def test_the_password_is_in_no_memory(secured: PlantServer, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, PASSWORD)
    with Proxy(secured.port) as proxy:
        plant = Line1(secured, proxy)
        plant.source = lambda: OpcUaSource(secure(proxy.port, keys))  # type: ignore[method-assign]
        edge = Edge(plant)
        edge.open()
        edge.until(lambda: len(edge.readings) == 2)
        edge.close()
    assert edge.memory
    for saved in edge.memory.values():
        assert PASSWORD.encode() not in saved
        assert hashlib.sha256(PASSWORD.encode()).digest() not in saved
