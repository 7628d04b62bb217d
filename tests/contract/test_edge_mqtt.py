"""The edge's MQTT on a real mosquitto: the laws of sources of readings, and what MQTT alone can do to an edge. Counted at the broker and on the wire."""

import datetime
import ipaddress
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.edge.loops import DeliveryLoop, EdgeLoop, Meaning, ReadingLoop
from adapters.edge.plant import Plant
from adapters.edge.spool import Entry, Spool
from adapters.formats.mqtt_payload import Topics
from adapters.mqtt import MqttAdapter
from adapters.mqtt_readings import MqttReadings
from events.errors import Unavailable
from hub import points
from hub.app.edge.check import checks
from hub.app.edge.config import Configured
from hub.app.edge.mqtt import sessions
from hub.intake.delivery import Delivery
from hub.intake.readings import Observed, Reading, Value
from tests.contract.edge_hub import until
from tests.contract.edge_mqtt import Broker, MqttPlant, Tap, Version, broker, settings
from tests.contract.reading_suite import Edge, ReadingLaws, edge  # noqa: F401 the fixture
from tests.contract.tcp_proxy import HOST

CLIENT = "plant-1-machines"
VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])
STOP = threading.Event()

# paho leaves the socket of a handshake that failed to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def made(mosquitto: str, tmp_path: Path) -> Iterator[Broker]:
    with broker(mosquitto, tmp_path) as running:
        yield running


@pytest.fixture
def tap(made: Broker) -> Iterator[Tap]:
    with Tap(made.port) as line:
        yield line


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db", "plant-1")
    yield opened
    opened.close()


class TestMqtt5(ReadingLaws):
    version: Version = "5"

    @pytest.fixture
    def plant(self, made: Broker, tap: Tap) -> MqttPlant:
        return MqttPlant(made, tap, self.version)


class TestMqtt311(TestMqtt5):
    version: Version = "3.1.1"


def readings(source: MqttReadings, count: int, *, done: bool = True, wait_s: float = 20.0) -> list[Reading]:
    """So many readings, acknowledged or not."""
    found: list[Reading] = []
    end = time.monotonic() + wait_s
    while len(found) < count and time.monotonic() < end:
        for one in source.receive(500, 0.2):
            found += one.readings
            if done:
                one.done()
    return found


def opened(source: MqttReadings, memory: dict[str, bytes] | None = None) -> MqttReadings:
    source.open((memory or {}).get)
    return source


def quiet(source: MqttReadings, seconds: float = 0.5) -> list[Reading]:
    """What comes within some time."""
    found: list[Reading] = []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        found += [reading for one in source.receive(500, left) for reading in one.readings]
    return found


# -- acknowledgement


def delivery_loop(port: int, version: Version, spool: Spool) -> EdgeLoop:
    adapter = MqttAdapter(HOST, port, ["plant/#"], CLIENT, version=version)
    return DeliveryLoop(adapter, "machines", Meaning(Plant(), spool), spool, print, lambda: adapter.resumed)


def reading_loop(port: int, version: Version, spool: Spool) -> EdgeLoop:
    return ReadingLoop(MqttReadings(settings(port, version)), Meaning(Plant(), spool), spool, print)


LOOPS = pytest.mark.parametrize("loop_of", [delivery_loop, reading_loop])
LoopOf = Callable[[int, Version, Spool], EdgeLoop]


@VERSIONS
@LOOPS
def test_nothing_is_acknowledged_before_it_is_durable_and_then_all_is(
    made: Broker, tap: Tap, spool: Spool, version: Version, loop_of: LoopOf
) -> None:
    loop = loop_of(tap.port, version, spool)
    loop.step(STOP, 0.1)
    made.publish("plant/line1", *(str(n) for n in range(30)))
    seen: list[tuple[str, int, int]] = []

    def look(point: str) -> None:
        if point in ("before spooled", "spooled"):
            time.sleep(0.1)  # what was sent has arrived
            seen.append((point, tap.acknowledged, sum(lane.last for lane in spool.lanes()) if point == "spooled" else 0))

    points.arm(look)
    try:
        durable = 0
        while durable < 30:
            before = durable
            durable += loop.step(STOP, 0.5)
            assert all(acknowledged == before for _, acknowledged, _ in seen), seen
            assert [point for point, *_ in seen[-2:]] == ["before spooled", "spooled"]
            seen.clear()
            until(lambda: tap.acknowledged == durable)  # noqa: B023
    finally:
        points.arm(None)
    time.sleep(1)  # from the tap to the broker
    loop._close()
    assert made.held(CLIENT, version) == []


@VERSIONS
@LOOPS
def test_a_full_spool_leaves_everything_at_the_broker(made: Broker, tap: Tap, tmp_path: Path, version: Version, loop_of: LoopOf) -> None:
    small = Spool(tmp_path / "small.db", "plant-1", bytes_max=10)
    small.append(
        "before", [Entry(b"0123456789", "test", datetime.datetime.now(datetime.UTC))]
    )  # what finds it empty is taken, however large
    loop = loop_of(tap.port, version, small)
    loop.step(STOP, 0.1)
    made.publish("plant/line1", *(f'"{n:050}"' for n in range(20)))
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    until(lambda: "would hold" in loop.seen.trouble)
    stop.set()
    thread.join()
    assert tap.acknowledged == 0
    assert made.held(CLIENT, version) == [f'"{n:050}"'.encode() for n in range(20)]
    small.close()


# -- repetition


@VERSIONS
def test_what_comes_again_is_taken_once_and_equal_messages_are_all_taken(
    made: Broker,
    tap: Tap,
    edge: Edge,  # noqa: F811
    plant: MqttPlant,
    version: Version,
) -> None:
    edge.open()
    edge.keep(edge.receive())
    made.publish("plant/door", "open", "open")

    def kept() -> bool:
        edge.keep(edge.receive(), done=False)
        return len(edge.readings) >= 2

    until(kept)
    made.publish("plant/door", "open")
    until(lambda: len(tap.open) == 3)
    edge.kill()
    edge.open()
    edge.settle()
    assert tap.repeated == 3, "the last was under way, and handed over to nobody"
    assert [r.value for r in edge.readings] == ["open"] * 3
    tap.cut()
    made.publish("plant/door", "open")
    tap.mend()
    edge.settle(2)
    time.sleep(0.2)  # from the tap to the broker
    edge.close()
    assert [r.value for r in edge.readings] == ["open"] * 4
    assert made.held(CLIENT, version) == []


def test_thousands_whose_acknowledgement_is_lost_are_taken_once(mosquitto: str, tmp_path: Path) -> None:
    """More than we hold at once, of several producers: as with a broker that reads slowly when the edge is killed."""
    with broker(mosquitto, tmp_path, "max_inflight_messages 5000", persistence=False) as made:
        source = opened(MqttReadings(settings(made.port, "3.1.1")))
        memory = dict(observed_first(source).memory)
        for name in "abc":
            made.publish(f"plant/{name}", *(str(n) for n in range(1200)))
        values: list[Value] = []

        def kept() -> bool:
            for one in source.receive(2000, 0.2):
                values.extend(reading.value for reading in one.readings)
                memory.update(one.memory)
            return len(values) >= 3600

        until(kept, 60)
        source.close()
        opened(source, memory)
        made.publish("plant/d", "1")
        until(lambda: kept() and values[-1] == 1, 60)
        assert values == [*range(1200)] * 3 + [1]
        source.close()


def test_a_number_that_is_given_anew_is_of_another_message() -> None:
    """As of a broker that gives the lowest free number: what came last under it counts."""
    source = MqttReadings(settings(1))

    def came(body: bytes, *, again: bool = False) -> int:
        headers = {"topic": "plant/door", "retained": "False", "mid": "1", **({"dup": "1"} if again else {})}
        delivery = Delivery(body, "mqtt", datetime.datetime.now(datetime.UTC), headers)
        taken = len(source._taken(delivery)[1])
        source._note(delivery)
        return taken

    assert [came(b"on"), came(b"on", again=True), came(b"on"), came(b"off"), came(b"on", again=True)] == [1, 0, 1, 1, 1]
    assert len(source._marks) == 1


@pytest.fixture
def plant(made: Broker, tap: Tap, request: pytest.FixtureRequest) -> MqttPlant:
    return MqttPlant(made, tap, request.getfixturevalue("version"))


@VERSIONS
def test_retained_messages_are_told_apart_and_once_where_mqtt_can(made: Broker, tap: Tap, version: Version) -> None:
    made.publish("plant/recipe", "A", retain=True)
    source = opened(MqttReadings(settings(tap.port, version)))
    (kept,) = readings(source, 1)
    assert (kept.value, kept.historical) == ("A", True)
    made.publish("plant/recipe", "B", retain=True)
    (live,) = readings(source, 1)
    assert (live.value, live.historical) == ("B", False)
    time.sleep(0.2)
    source.close()
    opened(source, {"mqtt/machines": source._kept()["mqtt/machines"]})
    again = quiet(source)
    source.close()
    assert [(r.value, r.historical) for r in again] == ([] if version == "5" else [("B", True)])


# -- sessions


def observed_first(source: MqttReadings) -> Observed:
    (first,) = source.receive(10, 0.1)
    return first


def test_a_session_is_kept_for_its_expiry_and_its_loss_is_a_gap(made: Broker, tap: Tap) -> None:
    source = opened(MqttReadings(settings(tap.port, session_expiry_s=3)))
    begun = observed_first(source)
    assert not begun.gaps
    memory = dict(begun.memory)
    tap.cut()
    made.publish("plant/line1", "1", "2")
    tap.mend()
    source.close()
    opened(source, memory)
    assert source._adapter.resumed
    found: list[Observed] = []

    def both() -> bool:
        found.extend(one for one in source.receive(10, 1) if one.readings)
        return sum(len(one.readings) for one in found) >= 2

    until(both)
    assert [r.value for one in found for r in one.readings] == [1, 2]
    for one in found:
        one.done()
    memory |= found[-1].memory
    time.sleep(0.2)
    source.close()
    time.sleep(5)
    made.publish("plant/line1", "3")
    opened(source, memory)
    after = observed_first(source)
    (gap,) = after.gaps
    assert (gap.kind, gap.producer) == ("disconnected", "machines")
    assert gap.until is not None
    assert gap.since is not None
    assert found[-1].received_at <= gap.since < found[-1].received_at + datetime.timedelta(seconds=1)
    assert gap.until - gap.since > datetime.timedelta(seconds=5)
    memory |= after.memory
    made.publish("plant/line1", "4")
    assert [r.value for r in readings(source, 1)] == [4]
    source.close()
    opened(source, memory)
    assert not source._adapter.receive(1, 0.2)
    assert source._first is None, "told once"
    source.close()


def gaps_in(spool: Spool) -> list[dict[str, Any]]:
    """The gaps that an edge has told, from the bodies of its entries."""
    said = (json.loads(one.body) for one in spool.waiting(1000, 1 << 30) if one.transport == "edge")
    return [fact["data"] for document in said for fact in document["facts"] if fact["type"] == "integration.gap_detected"]


@VERSIONS
@LOOPS
def test_what_a_broker_forgot_is_a_gap_once(mosquitto: str, tmp_path: Path, spool: Spool, version: Version, loop_of: LoopOf) -> None:
    with broker(mosquitto, tmp_path, persistence=False) as forgetful:
        loop = loop_of(forgetful.port, version, spool)
        loop.step(STOP, 0.1)
        forgetful.publish("plant/line1", "1")
        until(lambda: loop.step(STOP, 0.1) > 0)
        assert gaps_in(spool) == [], "nobody can miss what was never heard"
        forgetful.stop()
        forgetful.start()
        until(lambda: bool(loop.step(STOP, 0.1) or gaps_in(spool)))
        (gap,) = gaps_in(spool)
        assert (gap["producer"], gap["kind"]) == ("machines", "disconnected")
        assert gap["since"] < gap["until"]
        loop._close()
        again = loop_of(forgetful.port, version, spool)
        again.step(STOP, 0.1)
        forgetful.publish("plant/line1", "2")
        until(lambda: again.step(STOP, 0.1) > 0)
        assert len(gaps_in(spool)) == 1
        again._close()


def test_a_delivery_that_the_hub_would_never_take_is_named_and_holds_up_nobody(
    made: Broker, tap: Tap, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.limits.DELIVERY_BYTES_MAX", 100)
    loop = delivery_loop(tap.port, "5", spool)
    loop.step(STOP, 0.1)
    made.publish("plant/line1", "x" * 101, "x" * 100)
    until(lambda: loop.step(STOP, 0.1) > 0)
    until(lambda: bool(loop.step(STOP, 0.1) or tap.acknowledged == 2))
    (gap,) = gaps_in(spool)
    assert gap["kind"] == "overflow"
    assert "a payload of 101 bytes on plant/line1 is larger than 100 and was not kept" in gap["reason"]
    assert [one.body for one in spool.waiting(10, 1 << 20) if one.transport == "mqtt"] == [b"x" * 100]
    loop._close()


def test_a_broker_that_forgot_everything_is_noticed_in_mqtt_3(mosquitto: str, tmp_path: Path) -> None:
    with broker(mosquitto, tmp_path, persistence=False) as forgetful:
        source = opened(MqttReadings(settings(forgetful.port, "3.1.1")))
        memory = dict(observed_first(source).memory)
        forgetful.stop()
        forgetful.start()
        source.close()
        opened(source, memory)
        assert [gap.kind for gap in observed_first(source).gaps] == ["disconnected"]
        source.close()


def test_no_more_is_under_way_than_we_hold(made: Broker, tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MQTT 5 calls receive maximum. After the first acknowledgement mosquitto 2.0.11 forgets it (67 under way of 7), so there our own queue counts."""
    monkeypatch.setattr("hub.limits.MQTT_WAITING_MAX", 7)
    source = opened(MqttReadings(settings(tap.port)))
    source.receive(10, 0.1)
    made.publish("plant/line1", *(str(n) for n in range(100)))
    held = [one for _ in range(5) for one in source.receive(500, 0.3)]
    assert (sum(len(one.readings) for one in held), len(tap.open), tap.most) == (7, 7, 7)
    for one in held:
        one.done()
    time.sleep(0.5)
    assert source._adapter._messages.qsize() <= 7
    assert [r.value for r in readings(source, 93)] == list(range(7, 100))
    until(lambda: not tap.open)
    source.close()


def test_large_payloads_wait_outside_too(made: Broker, tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.limits.MQTT_WAITING_BYTES_MAX", 100_000)
    adapter = MqttAdapter(HOST, tap.port, ["plant/#"], CLIENT, version="5")
    adapter.open()
    bodies = [bytes([n]) * 60_000 for n in range(40)]
    made.publish("plant/line1", *bodies)
    time.sleep(0.5)
    assert adapter._messages.qsize() == 2
    found: list[Delivery] = []
    while len(found) < 40 and (more := adapter.receive(500, 2)):
        assert sum(len(one.body) for one in more) <= 160_000
        found += more
    assert [one.body for one in found] == bodies
    adapter.close()


@VERSIONS
def test_a_session_that_holds_more_than_we_do_is_taken_over(
    made: Broker, tap: Tap, monkeypatch: pytest.MonkeyPatch, version: Version
) -> None:
    """The broker sends it all before it answers the subscription."""
    monkeypatch.setattr("hub.limits.MQTT_WAITING_MAX", 7)
    source = opened(MqttReadings(settings(tap.port, version)))
    memory = dict(observed_first(source).memory)
    made.publish("plant/line1", *(str(n) for n in range(60)))
    (first,) = source.receive(1, 2)
    first.done()  # then mosquitto 2.0.11 sends more than it was asked for
    memory |= first.memory
    until(lambda: len(tap.open) > 7)
    source.close()
    opened(source, memory)
    assert [r.value for r in readings(source, 59)] == list(range(1, 60))
    source.close()


def test_why_the_broker_ended_it_is_told(made: Broker, tap: Tap) -> None:
    source = opened(MqttReadings(settings(tap.port)))
    source.receive(1, 0.1)
    tap.then = b"\xe0\x01\x8e"  # DISCONNECT, as of a broker that says why (mosquitto 2.0.11 does not)
    made.publish("plant/line1", "1")
    time.sleep(0.5)
    with pytest.raises(Unavailable, match=r"is lost \(Session taken over\): connecting again"):
        source.receive(10, 0.2)
    source.close()


# -- what may come


def test_topics_and_payloads_of_any_kind_are_kept(made: Broker, tap: Tap) -> None:
    source = opened(MqttReadings(settings(tap.port)))
    source.receive(1, 0.1)
    text = json.dumps({"x": "y" * 1_500_000})
    made.publish("plant/a", b"", b"\x00\xff", "no JSON", '{"a": 1, "a": 2}', '"00123"', "-32768", text)
    found = readings(source, 7)
    assert [(r.tag, r.value, r.type) for r in found] == [
        ("plant/a", "", "text"),
        ("plant/a", "00ff", "bytes"),
        ("plant/a", "no JSON", "text"),
        ("plant/a", '{"a": 1, "a": 2}', "json"),
        ("plant/a", "00123", "string"),
        ("plant/a", -32768, "integer"),
        ("plant/a", text, "text"),
    ]
    tap.garble = (b"plant/bad", b"plant/\xff\xfed")
    made.publish("plant/bad", "1")
    (odd,) = readings(source, 1)
    assert odd.tag == "plant/\\xff\\xfed"
    tap.garble = (b"plant/bad", b"plant/\x01\x00d")
    made.publish("plant/bad", "1")
    assert [one.producer for one in source.receive(1, 5)] == ["machines/plant/\\x01\\x00d"]
    tap.garble = None
    made.publish("plant/c", "2")
    assert [r.value for r in readings(source, 1)] == [2], "the loop goes on"
    made.publish("plant/big", b"x" * (8 * 1024 * 1024 + 1))
    gaps = [gap for _ in range(20) for one in source.receive(10, 0.5) for gap in one.gaps]
    assert [(gap.kind, gap.producer, "8388609 bytes on plant/big" in gap.reason) for gap in gaps] == [
        ("overflow", "machines/plant/big", True)
    ]
    source.close()


@VERSIONS
def test_wildcards_match_once_and_the_first_rule_counts(made: Broker, tap: Tap, version: Version) -> None:
    topics = (Topics(filter="plant/+/fast/#", producer=2, value="v"), Topics(filter="plant/#", producer=1), Topics(filter="other/+"))
    source = opened(MqttReadings(settings(tap.port, version, topics=topics)))
    source.receive(1, 0.1)
    for topic in ("plant/l1/fast/temp", "plant/l1/slow", "other/a", "other/a/b", "plant", "$internal/x"):
        made.publish(topic, '{"v": 1}')
    found: list[Observed] = []
    end = time.monotonic() + 2
    while time.monotonic() < end:
        found += source.receive(100, 0.2)
    source.close()
    assert [(one.producer, r.tag) for one in found for r in one.readings] == [
        ("machines/plant/l1", "plant/l1/fast/temp"),
        ("machines/plant", "plant/l1/slow/v"),
        ("machines/other/a", "other/a/v"),
        ("machines/plant", "plant/v"),
    ]


def test_producers_with_long_topics_stay_apart(made: Broker, tap: Tap) -> None:
    source = opened(MqttReadings(settings(tap.port)))
    source.receive(1, 0.1)
    made.publish("plant/" + "x" * 300 + "/a", "1")
    made.publish("plant/" + "x" * 300 + "/b", "1")
    found = [one for _ in range(4) for one in source.receive(1, 1)]
    source.close()
    assert len({one.producer for one in found}) == 2
    assert all(len(one.producer) == 200 for one in found)


def test_of_what_is_interleaved_a_part_may_be_acknowledged_and_nothing_is_taken_twice(made: Broker, tap: Tap) -> None:
    source = opened(MqttReadings(settings(tap.port)))
    memory = dict(observed_first(source).memory)
    for n in range(6):
        made.publish(f"plant/{'ab'[n % 2]}", str(n))
    time.sleep(0.3)
    found = source.receive(100, 1)
    assert [r.value for one in found for r in one.readings] == list(range(6))
    for one in found:
        memory |= one.memory
    found[0].done()
    until(lambda: tap.acknowledged == 1)
    source.close()  # and then the edge is killed
    opened(source, memory)
    made.publish("plant/a", "6")
    assert [r.value for r in readings(source, 1)] == [6]
    assert quiet(source) == []
    source.close()


# -- TLS, users and the configuration


class Authority:
    """An authority of a plant, and certificates of it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._write(name, self._key, self._sign(self._subject, self._key.public_key(), ca=True))

    def issue(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self._write(name, key, self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key(), ca=False))

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        hour = datetime.timedelta(hours=1)
        built = (
            x509.CertificateBuilder(self._subject, subject, key, x509.random_serial_number(), now - hour, now + hour)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        return built.sign(self._key, hashes.SHA256())

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        (self.folder / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))


def configured(folder: Path, port: int, **entry: Any) -> Configured:
    """An edge.yaml with one broker."""
    given = {"name": "machines", "url": f"mqtts://{HOST}:{port}", "readings": [{"filter": "plant/#"}], **entry}
    (folder / "edge.yaml").write_text(json.dumps({"edge": "plant-1", "hub": {"url": "https://hub:8443"}, "mqtt": [given]}, indent=1))
    return Configured(folder / "edge.yaml")


def source_of(found: Configured) -> MqttReadings:
    (_, source) = sessions(found, 0, found.config.mqtt[0])
    assert source is not None
    return source


@pytest.fixture
def secure(mosquitto: str, tmp_path: Path) -> Iterator[Broker]:
    """TLS alone, with a client certificate and a user."""
    authority = Authority(tmp_path, "authority")
    for name in ("broker", "edge"):
        authority.issue(name)
    Authority(tmp_path, "other").issue("stranger")
    subprocess.run(["mosquitto_passwd", "-c", "-b", tmp_path / "passwords", "edge", "p@ss"], check=True, timeout=10)
    lines = [
        f"certfile {tmp_path}/broker.pem", f"keyfile {tmp_path}/broker.key", f"cafile {tmp_path}/authority.pem", "require_certificate true",
        f"password_file {tmp_path}/passwords", "allow_anonymous false",
    ]  # fmt: skip
    with broker(mosquitto, tmp_path, *lines) as running:
        yield running


RIGHT = {
    "authority": "authority.pem",
    "certificate": "edge.pem",
    "key": "edge.key",
    "username": "edge",
    "password_env": "PLANT_MQTT_PASSWORD",
}


@VERSIONS
def test_a_client_certificate_and_a_user_are_let_in(secure: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("PLANT_MQTT_PASSWORD", "p@ss")
    source = opened(source_of(configured(tmp_path, secure.port, version=version, deliveries=["docs/#"], **RIGHT)))
    source.close()
    rows = list(checks(configured(tmp_path, secure.port, version=version, deliveries=["docs/#"], **RIGHT)))
    found = {row["what"]: row for row in rows if row["what"].startswith("machines")}
    address = f"{HOST}:{secure.port}"
    assert set(found) == {f"machines (mqtt machines {address})", f"machines (mqtt machines readings {address})"}
    for row in found.values():
        assert row["ok"], row
        assert f"with MQTT {version}, TLS" in row["seen"]


@VERSIONS
@pytest.mark.parametrize(
    ("wrong", "password", "said"),
    [
        ({}, "wrong", r"refused the connection: .*(uthori|password).*correct the edge's configuration"),
        ({"username": "nobody"}, "p@ss", r"refused the connection: .*(uthori|password).*correct the edge's configuration"),
        ({"certificate": None, "key": None}, "p@ss", r"(ended the connection at once .*client certificate|cannot be reached|no TLS)"),
        ({"certificate": "stranger.pem", "key": "stranger.key"}, "p@ss", r"(ended the connection at once .*client certificate|no TLS)"),
        ({"authority": "other.pem"}, "p@ss", r"offers no TLS that can be trusted .*VERIFY.*correct .*authority"),
    ],
)
def test_who_is_wrong_is_refused_at_once_with_the_remedy(
    secure: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, wrong: dict[str, Any], password: str, said: str
) -> None:
    monkeypatch.setenv("PLANT_MQTT_PASSWORD", password)
    source = source_of(configured(tmp_path, secure.port, version=version, **{**RIGHT, **wrong}))
    begun = time.monotonic()
    with pytest.raises(Unavailable, match=said):
        source.open(lambda name: None)
    assert time.monotonic() - begun < 5


def test_a_check_leaves_no_session_and_asks_for_the_heartbeat(mosquitto: str, tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("topic readwrite plant/#\n")
    (tmp_path / "rules").chmod(0o600)
    with broker(mosquitto, tmp_path, f"acl_file {tmp_path}/rules") as strict:
        source = MqttReadings(settings(strict.port, "3.1.1"))
        with pytest.raises(Unavailable, match=f"allow this client to write and read hub/heartbeat/{CLIENT} "):
            source.check()
        strict.publish("plant/line1", "1")
        assert strict.held(f"{CLIENT}-check", "3.1.1") == []
        assert strict.held(CLIENT, "3.1.1") == []


def test_what_is_read_over_a_context_of_the_configuration_trusts_nobody_else(tmp_path: Path) -> None:
    Authority(tmp_path, "authority").issue("edge")
    found = configured(tmp_path, 1, authority="authority.pem")
    source = source_of(found)
    context = source._adapter._tls
    assert isinstance(context, ssl.SSLContext)
    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname
