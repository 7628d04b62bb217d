"""The assertions of the Sparkplug 3.0 specification that concern a host application, each by its name (docs/sparkplug.md).

What the host does is read off the wire by a tap that takes MQTT apart, and at the broker by an independent client. One scenario shows several
assertions; each has a check of its own. Where the assertion is about what the host makes of what it hears, the readings it hands over are looked at.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters.sparkplug import SparkplugSettings, SparkplugSource
from events.errors import Refused, Unavailable
from hub.app.demo.plant.sparkplug_node import BOOLEAN, DOUBLE, INT32, INT64, STRING, commands, fields
from tests.contract.sparkplug_peer import HOST_ID, WAIT_S, Connect, Edge, Mosquitto, Observer, Packet, Running, Tap, now_ms, said

STATE = f"spBv1.0/STATE/{HOST_ID}"
Check = Callable[[Any], None]


def _state(body: bytes | bytearray) -> dict[str, Any]:
    found = json.loads(body.decode("utf-8"))
    assert set(found) == {"online", "timestamp"}
    assert type(found["online"]) is bool
    assert type(found["timestamp"]) is int
    return dict(found)


def _wait(reached: Callable[[], Any], wait_s: float = WAIT_S) -> None:
    end = time.monotonic() + wait_s
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- a host comes online, is said to be offline by somebody else, loses its line, and goes


@dataclass
class Session:
    tap: Tap
    observer: Observer
    opened_ms: tuple[int, int]
    closed_ms: tuple[int, int]
    first: list[Packet] = field(default_factory=list)  # of the first connection, sent by the host
    disturbed_at: float = 0.0

    @property
    def connect(self) -> Connect:
        return Connect.of(self.first[0].body)

    @property
    def births(self) -> list[Packet]:
        return [p for p in self.first if p.kind == "PUBLISH" and _state(p.message)["online"]]

    @property
    def birth(self) -> Packet:
        return self.births[0]

    @property
    def last(self) -> list[Packet]:
        """What the host sent on its last connection, which it ended itself."""
        return [p for p in self.tap.packets if p.up and p.session == self.tap.sessions]

    @property
    def death(self) -> Packet:
        return [p for p in self.last if p.kind == "PUBLISH"][-1]

    @property
    def heard(self) -> list[dict[str, Any]]:
        return [_state(m.payload) for m in self.observer.on(STATE)]


@pytest.fixture(scope="module", params=["3.1.1", "5"])
def session(mosquitto: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Session]:
    broker = Mosquitto(mosquitto, tmp_path_factory.mktemp("session"))
    tap, observer = Tap(broker.port), Observer(broker.port, "spBv1.0/#")
    host = Running(SparkplugSource(SparkplugSettings([tap.url], HOST_ID, mqtt=request.param)))
    opened = now_ms()
    host.open()
    found = Session(tap, observer, (opened, now_ms()), (0, 0))
    _wait(lambda: observer.on(STATE))
    host.run(0.3)
    disturber = Observer(broker.port)
    found.disturbed_at = time.monotonic()
    disturber.publish(STATE, json.dumps({"online": False, "timestamp": opened}).encode(), qos=1, retain=True)
    _wait(lambda: len(observer.on(STATE)) >= 3)
    found.first = [p for p in tap.packets if p.up and p.session == 1]
    tap.cut()
    time.sleep(0.3)
    tap.mend()
    end = time.monotonic() + WAIT_S
    while tap.sessions < 2 or not [p for p in tap.sent("PUBLISH") if p.session == tap.sessions]:
        assert time.monotonic() < end
        _step_or_open(host)
    host.run(0.3)
    closing = now_ms()
    host.source.close()
    found.closed_ms = closing, now_ms()
    _wait(lambda: not found.heard[-1]["online"] and any(p.kind == "DISCONNECT" for p in found.last))
    yield found
    disturber.close()
    observer.close()
    tap.close()
    broker.stop()


def _step_or_open(host: Running) -> None:
    try:
        host.step()
    except Unavailable:
        try:
            host.open()
        except Unavailable:
            time.sleep(0.1)


def _birth_payload(s: Session) -> None:
    birth = _state(s.birth.message)
    assert birth["online"] is True
    assert s.opened_ms[0] <= birth["timestamp"] <= s.opened_ms[1]
    assert s.observer.on(STATE)[0].payload == s.birth.message


def _birth_stamp(s: Session) -> None:
    for n in range(1, s.tap.sessions + 1):
        sent = [p for p in s.tap.packets if p.up and p.session == n]
        will = _state(Connect.of(sent[0].body).will)
        births = [_state(p.message) for p in sent if p.kind == "PUBLISH"]
        assert all(birth["timestamp"] == will["timestamp"] for birth in births if birth["online"])


def _birth_first(s: Session) -> None:
    for n in range(1, s.tap.sessions + 1):
        published = [p for p in s.tap.packets if p.up and p.session == n and p.kind == "PUBLISH"]
        assert published
        assert published[0].topic == STATE
        assert _state(published[0].message)["online"] is True


def _subscribed_first(s: Session) -> None:
    kinds = [p.kind for p in s.first]
    assert kinds[0] == "CONNECT"
    assert kinds[1] == "SUBSCRIBE"
    asked = [topic for topic, _ in s.first[1].filters]
    assert STATE in asked
    assert "spBv1.0/#" in asked
    suback = next(p for p in s.tap.packets if not p.up and p.kind == "SUBACK")
    assert suback.at <= s.birth.at  # published when the subscription is established, not before
    assert kinds.index("PUBLISH") > 1


def _will(s: Session) -> None:
    assert s.connect.will_topic == STATE
    assert s.connect.will


def _will_payload(s: Session) -> None:
    will = _state(s.connect.will)
    assert will["online"] is False
    assert s.opened_ms[0] <= will["timestamp"] <= s.opened_ms[1]


def _will_stamp(s: Session) -> None:
    stamps = [_state(connect.will)["timestamp"] for connect in s.tap.connects()]
    sent = [p.at for p in s.tap.sent("CONNECT")]
    assert len(stamps) >= 2
    for (a, at_a), (b, at_b) in zip(
        list(zip(stamps, sent, strict=True))[:-1], list(zip(stamps, sent, strict=True))[1:], strict=True
    ):  # each is taken anew, at its own CONNECT
        assert abs((b - a) / 1000 - (at_b - at_a)) < 0.2


def _will_delivered(s: Session) -> None:
    """The line broke without a DISCONNECT: the broker publishes the will as it was given."""
    assert not [p for p in s.first if p.kind == "DISCONNECT"]
    assert {"online": False, "timestamp": _state(s.connect.will)["timestamp"]} in s.heard


def _death_payload(s: Session) -> None:
    death = _state(s.death.message)
    assert death["online"] is False
    assert s.closed_ms[0] <= death["timestamp"] <= s.closed_ms[1]
    assert s.observer.on(STATE)[-1].payload == s.death.message


def _goes_in_order(s: Session) -> None:
    kinds = [p.kind for p in s.last if p.kind in ("PUBLISH", "DISCONNECT")]
    assert kinds[-2:] == ["PUBLISH", "DISCONNECT"]
    assert _state(s.death.message)["online"] is False
    between = s.last[s.last.index(s.death) + 1 : [p.kind for p in s.last].index("DISCONNECT")]
    assert {p.kind for p in between} <= {"PUBACK"}  # of what was received: nothing is said in between


def _says_again(s: Session) -> None:
    again = s.births[1]
    assert again.at - s.disturbed_at < 1
    assert again.at >= s.disturbed_at
    assert _state(again.message) == _state(s.birth.message)  # online, with the timestamp of the CONNECT
    assert again.topic == STATE
    assert again.qos == 1
    assert again.retain
    assert [said["online"] for said in s.heard[:3]] == [True, False, True]


def _states_online_and_offline(s: Session) -> None:
    assert s.heard[0]["online"] is True
    assert s.heard[-1]["online"] is False
    late = Observer(s.tap._to, STATE)  # what somebody hears who comes later
    _wait(lambda: late.on(STATE))
    assert late.on(STATE)[0].retain
    assert _state(late.on(STATE)[0].payload)["online"] is False
    late.close()


def _is(reading: Callable[[Session], Any], wanted: Any) -> Check:
    def check(s: Session) -> None:
        assert reading(s) == wanted

    return check


SESSION: dict[str, Check] = {
    "tck-id-components-ph-state": _states_online_and_offline,
    "tck-id-conformance-primary-host": _states_online_and_offline,
    "tck-id-intro-sparkplug-host-state": _states_online_and_offline,
    "tck-id-principles-birth-certificates-order": _birth_first,
    "tck-id-host-topic-phid-birth-message": _birth_first,
    "tck-id-host-topic-phid-birth-topic": _is(lambda s: s.birth.topic, STATE),
    "tck-id-host-topic-phid-birth-qos": _is(lambda s: s.birth.qos, 1),
    "tck-id-host-topic-phid-birth-retain": _is(lambda s: s.birth.retain, True),
    "tck-id-host-topic-phid-birth-payload": _birth_payload,
    "tck-id-host-topic-phid-birth-payload-timestamp": _birth_stamp,
    "tck-id-host-topic-phid-birth-sub-required": _subscribed_first,
    "tck-id-host-topic-phid-birth-required": _birth_first,
    "tck-id-host-topic-phid-death-topic": _is(lambda s: s.connect.will_topic, STATE),
    "tck-id-host-topic-phid-death-qos": _is(lambda s: s.connect.will_qos, 1),
    "tck-id-host-topic-phid-death-retain": _is(lambda s: s.connect.will_retain, True),
    "tck-id-host-topic-phid-death-required": _will,
    "tck-id-host-topic-phid-death-payload": _will_payload,
    "tck-id-host-topic-phid-death-payload-connect": _will_payload,
    "tck-id-host-topic-phid-death-payload-timestamp-connect": _will_stamp,
    "tck-id-host-topic-phid-death-payload-disconnect-clean": _death_payload,
    "tck-id-host-topic-phid-death-payload-timestamp-disconnect-clean": _death_payload,
    "tck-id-host-topic-phid-death-payload-disconnect-with-no-disconnect-packet": _will_delivered,
    "tck-id-host-topic-phid-death-payload-timestamp-disconnect-with-no-disconnect-packet": _will_delivered,
    "tck-id-message-flow-phid-sparkplug-subscription": _subscribed_first,
    "tck-id-message-flow-phid-sparkplug-state-publish": _subscribed_first,
    "tck-id-message-flow-phid-sparkplug-state-publish-payload": _birth_payload,
    "tck-id-message-flow-phid-sparkplug-state-publish-payload-timestamp": _birth_stamp,
    "tck-id-message-flow-hid-sparkplug-state-message-delivered": _says_again,
    "tck-id-operational-behavior-host-application-connect-will": _will,
    "tck-id-operational-behavior-host-application-connect-will-topic": _is(lambda s: s.connect.will_topic, STATE),
    "tck-id-operational-behavior-host-application-connect-will-payload": _will_payload,
    "tck-id-operational-behavior-host-application-connect-will-qos": _is(lambda s: s.connect.will_qos, 1),
    "tck-id-operational-behavior-host-application-connect-will-retained": _is(lambda s: s.connect.will_retain, True),
    "tck-id-operational-behavior-host-application-connect-birth": _birth_first,
    "tck-id-operational-behavior-host-application-connect-birth-topic": _is(lambda s: s.birth.topic, STATE),
    "tck-id-operational-behavior-host-application-connect-birth-payload": _birth_payload,
    "tck-id-operational-behavior-host-application-connect-birth-qos": _is(lambda s: s.birth.qos, 1),
    "tck-id-operational-behavior-host-application-connect-birth-retained": _is(lambda s: s.birth.retain, True),
    "tck-id-operational-behavior-host-application-death-topic": _is(lambda s: s.death.topic, STATE),
    "tck-id-operational-behavior-host-application-death-payload": _death_payload,
    "tck-id-operational-behavior-host-application-death-qos": _is(lambda s: s.death.qos, 1),
    "tck-id-operational-behavior-host-application-death-retained": _is(lambda s: s.death.retain, True),
    "tck-id-operational-behavior-host-application-disconnect-intentional": _goes_in_order,
    "tck-id-operational-behavior-host-application-termination": _goes_in_order,
    "tck-id-payloads-state-will-message": _will,
    "tck-id-payloads-state-will-message-qos": _is(lambda s: s.connect.will_qos, 1),
    "tck-id-payloads-state-will-message-retain": _is(lambda s: s.connect.will_retain, True),
    "tck-id-payloads-state-will-message-payload": _will_payload,
    "tck-id-payloads-state-subscribe": _subscribed_first,
    "tck-id-payloads-state-birth": _is(lambda s: (s.birth.topic, s.birth.qos, s.birth.retain), (STATE, 1, True)),
    "tck-id-payloads-state-birth-payload": _birth_payload,
}


@pytest.mark.parametrize("assertion", SESSION)
def test_session(session: Session, assertion: str) -> None:
    SESSION[assertion](session)


def _publish(body: bytes, *, retain: bool) -> bytes:
    """A PUBLISH of MQTT 3.1.1 at QoS 0 on our STATE."""
    rest = len(STATE).to_bytes(2, "big") + STATE.encode() + body
    return bytes([0x30 | retain, len(rest)]) + rest


@pytest.mark.parametrize("assertion", ["tck-id-message-flow-hid-sparkplug-state-message-delivered"])
def test_an_offline_state_that_overtakes_our_birth(broker: Mosquitto, assertion: str) -> None:
    tap, observer = Tap(broker.port), Observer(broker.port, STATE)

    def overtake(packet: Packet) -> bytes:  # as the compatibility kit does, from within the broker
        first = packet.kind == "PUBLISH" and len(tap.sent("PUBLISH", STATE)) == 1
        return _publish(packet.message.replace(b"true", b"false"), retain=False) if first else b""

    tap.answer = overtake
    host = Running(SparkplugSource(SparkplugSettings([tap.url], HOST_ID))).open()
    _wait(lambda: len(observer.on(STATE)) == 2)
    first, again = tap.sent("PUBLISH", STATE)
    assert first.message == again.message
    assert _state(again.message)["online"] is True
    assert (again.qos, again.retain) == (1, True)
    assert again.at - first.at < 1
    assert not [p for p in tap.sent("SUBSCRIBE") if p.at > first.at]  # at once, not when the next heartbeat brings what is retained
    host.source.close()
    observer.close()
    tap.close()


@pytest.mark.parametrize("assertion", ["tck-id-operational-behavior-host-application-host-id"])
def test_a_state_from_before_our_subscription_is_not_answered(broker: Mosquitto, assertion: str) -> None:
    """The kit takes a second birth of a session for one of another host."""
    before, tap = Observer(broker.port, STATE), Tap(broker.port)
    old = b'{"online": false, "timestamp": 1}'
    before.publish(STATE, old, qos=1, retain=True)
    host = Running(SparkplugSource(SparkplugSettings([tap.url], HOST_ID))).open()
    _wait(lambda: len(before.on(STATE)) == 2)
    tap.answer = lambda packet: _publish(old, retain=True) if packet.kind == "SUBSCRIBE" else b""  # a broker may send it late
    host.run(5.5)
    assert len(tap.sent("SUBSCRIBE")) == 2  # with the heartbeat
    assert len(tap.sent("PUBLISH", STATE)) == 1
    host.source.close()
    before.close()
    tap.close()


@pytest.mark.parametrize(
    ("mqtt", "version", "assertion"),
    [
        ("3.1.1", 4, "tck-id-message-flow-phid-sparkplug-clean-session-311"),
        ("5", 5, "tck-id-message-flow-phid-sparkplug-clean-session-50"),
    ],
)
def test_clean_session(broker: Mosquitto, mqtt: Any, version: int, assertion: str) -> None:
    tap = Tap(broker.port)
    for _ in range(2):  # also when it comes back
        host = Running(SparkplugSource(SparkplugSettings([tap.url], HOST_ID, mqtt=mqtt))).open()
        host.source.close()
    assert [(c.version, c.clean, c.expiry) for c in tap.connects()] == [(version, True, 0 if version == 5 else None)] * 2
    assert all(p.body[0] == 0 for p in tap.packets if p.kind == "CONNACK")  # no session was there
    tap.close()


# -- commands and rebirth requests


@dataclass
class Commands:
    edge: Edge
    observer: Observer
    sent_ms: tuple[int, int]

    def of(self, kind: str) -> tuple[Any, dict[int, list[Any]]]:
        """The last command of a kind: as the broker handed it out, and the fields of its payload."""
        topic = self.edge.topic("NCMD") if kind == "NCMD" else "spBv1.0/G1/DCMD/E1/D1"
        message = self.observer.on(topic)[-1]
        return message, said(message.payload)

    def metric(self, kind: str) -> dict[int, Any]:
        return dict(fields(self.of(kind)[1][2][0]))

    @property
    def rebirth(self) -> tuple[Any, dict[int, Any]]:
        message = self.observer.on(self.edge.topic("NCMD"))[0]
        return message, dict(fields(said(message.payload)[2][0]))


@pytest.fixture(scope="module")
def commanded(mosquitto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    broker = Mosquitto(mosquitto, tmp_path_factory.mktemp("commands"))
    observer = Observer(broker.port, "spBv1.0/#")
    edge = Edge(
        broker.port,
        metrics={"Level": (DOUBLE, 1.5), "Mode": (STRING, "auto")},
        devices={"D1": {"Valve": (BOOLEAN, False), "Set": (INT32, 3)}},
    )
    host = Running(SparkplugSource(SparkplugSettings([broker.url], HOST_ID))).open()
    begin = now_ms()
    edge.say("Level", 2.0)  # before any birth: a rebirth is asked for
    host.until(lambda: "G1/E1/D1/Set" in [r.tag for r in host.readings])
    host.source.command("G1/E1//Level", "7.25", "a test")
    host.source.command("G1/E1/D1/Valve", True, "a test")
    host.source.command("G1/E1/D1/Set", "-5", "a test")
    _wait(lambda: len(observer.on("spBv1.0/G1/DCMD/E1/D1")) == 2 and len([topic for topic, _ in edge.commands if "/DCMD/" in topic]) == 2)
    yield Commands(edge, observer, (begin, now_ms()))
    host.source.close()
    edge.observer.close()
    observer.close()
    broker.stop()


def _qos0(kind: str) -> Check:
    def check(c: Commands) -> None:
        assert c.of(kind)[0].qos == 0
        heard = next(body for topic, body in c.edge.commands if f"/{kind}/" in topic)
        assert heard in [m.payload for m in c.observer.heard if f"/{kind}/" in m.topic]

    return check


def _not_retained(kind: str) -> Check:
    def check(c: Commands) -> None:
        message, _ = c.of(kind)
        assert not message.retain
        late = Observer(c.edge.port, message.topic)
        time.sleep(0.2)
        assert not late.on(message.topic)
        late.close()

    return check


def _no_seq(kind: str) -> Check:
    def check(c: Commands) -> None:
        assert 3 not in c.of(kind)[1]

    return check


def _stamped(kind: str) -> Check:
    def check(c: Commands) -> None:
        assert c.sent_ms[0] <= c.of(kind)[1][1][0] <= c.sent_ms[1]

    return check


def _metric_stamped(c: Commands) -> None:
    for kind in ("NCMD", "DCMD"):
        assert c.sent_ms[0] <= c.metric(kind)[3] <= c.sent_ms[1]


def _topic(kind: str, wanted: str) -> Check:
    def check(c: Commands) -> None:
        assert [m.topic for m in c.observer.heard if kind in m.topic][-1] == wanted
        assert any(topic == wanted for topic, _ in c.edge.commands)

    return check


def _written(kind: str) -> Check:
    def check(c: Commands) -> None:
        body = c.of(kind)[0].payload
        if kind == "NCMD":
            ((which, value),) = commands(body)
            assert which == c.edge.alias("Level")
            assert value == b"\x00\x00\x00\x00\x00\x00\x1d\x40"  # 7.25 as a double
        else:
            assert commands(body) == [(c.edge.alias("Set", "D1"), 0xFFFFFFFB)]
            assert commands(c.edge.commands[-2][1]) == [(c.edge.alias("Valve", "D1"), 1)]

    return check


def _aliased(c: Commands) -> None:
    for kind in ("NCMD", "DCMD"):
        for one in c.of(kind)[1][2]:
            told = dict(fields(one))
            assert 1 not in told
            assert 2 in told


def _named_in_birth(kind: str) -> Check:
    def check(c: Commands) -> None:
        told = {c.edge.alias(name) for name in c.edge.metrics} if kind == "NCMD" else {c.edge.alias(n, "D1") for n in c.edge.devices["D1"]}
        assert {which for which, _ in commands(c.of(kind)[0].payload)} <= told

    return check


def _rebirth_verb(c: Commands) -> None:
    assert c.rebirth[0].topic == "spBv1.0/G1/NCMD/E1"
    assert c.edge.rebirths == 1


def _rebirth_named(c: Commands) -> None:
    assert c.rebirth[1][1] == b"Node Control/Rebirth"


def _rebirth_true(c: Commands) -> None:
    assert c.rebirth[1][4] == BOOLEAN
    assert c.rebirth[1][14] == 1


def _structure(c: Commands) -> None:
    ours = {m.topic for m in c.observer.heard if "CMD/" in m.topic or "/STATE/" in m.topic}
    assert ours == {"spBv1.0/G1/NCMD/E1", "spBv1.0/G1/DCMD/E1/D1", STATE}


def _known_types(c: Commands) -> None:
    types = [dict(fields(said(body)[2][0]))[4] for _, body in c.edge.commands]
    assert types == [BOOLEAN, DOUBLE, BOOLEAN, INT32]  # the first is the rebirth


COMMANDS: dict[str, Check] = {
    "tck-id-topic-structure": _structure,
    "tck-id-topic-structure-namespace-a": _structure,
    "tck-id-topic-structure-namespace-device-id-associated-message-types": _structure,
    "tck-id-topic-structure-namespace-device-id-non-associated-message-types": _structure,
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-verb": _rebirth_verb,
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-name": _rebirth_named,
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-value": _rebirth_true,
    "tck-id-operational-behavior-data-commands-ncmd-verb": _topic("/NCMD/", "spBv1.0/G1/NCMD/E1"),
    "tck-id-operational-behavior-data-commands-ncmd-metric-name": _named_in_birth("NCMD"),
    "tck-id-operational-behavior-data-commands-ncmd-metric-value": _written("NCMD"),
    "tck-id-operational-behavior-data-commands-dcmd-verb": _topic("/DCMD/", "spBv1.0/G1/DCMD/E1/D1"),
    "tck-id-operational-behavior-data-commands-dcmd-metric-name": _named_in_birth("DCMD"),
    "tck-id-operational-behavior-data-commands-dcmd-metric-value": _written("DCMD"),
    "tck-id-topics-ncmd-mqtt": _not_retained("NCMD"),
    "tck-id-topics-ncmd-timestamp": _stamped("NCMD"),
    "tck-id-topics-ncmd-payload": _written("NCMD"),
    "tck-id-topics-ncmd-topic": _topic("/NCMD/", "spBv1.0/G1/NCMD/E1"),
    "tck-id-topics-dcmd-mqtt": _not_retained("DCMD"),
    "tck-id-topics-dcmd-timestamp": _stamped("DCMD"),
    "tck-id-topics-dcmd-payload": _written("DCMD"),
    "tck-id-topics-dcmd-topic": _topic("/DCMD/", "spBv1.0/G1/DCMD/E1/D1"),
    "tck-id-payloads-ncmd-qos": _qos0("NCMD"),
    "tck-id-payloads-ncmd-retain": _not_retained("NCMD"),
    "tck-id-payloads-ncmd-seq": _no_seq("NCMD"),
    "tck-id-payloads-ncmd-timestamp": _stamped("NCMD"),
    "tck-id-payloads-dcmd-qos": _qos0("DCMD"),
    "tck-id-payloads-dcmd-retain": _not_retained("DCMD"),
    "tck-id-payloads-dcmd-seq": _no_seq("DCMD"),
    "tck-id-payloads-dcmd-timestamp": _stamped("DCMD"),
    "tck-id-payloads-alias-data-cmd-requirement": _aliased,
    "tck-id-payloads-name-cmd-requirement": _metric_stamped,
    "tck-id-payloads-timestamp-in-UTC": _stamped("NCMD"),
    "tck-id-payloads-metric-timestamp-in-UTC": _metric_stamped,
    "tck-id-payloads-metric-datatype-value": _known_types,
    "tck-id-payloads-metric-datatype-value-type": _known_types,
}


@pytest.mark.parametrize("assertion", COMMANDS)
def test_commands(commanded: Commands, assertion: str) -> None:
    COMMANDS[assertion](commanded)


# -- deaths


@dataclass
class Deaths:
    host: Running
    before_ms: int
    after_ms: int
    device_death_ms: int

    def last(self, tag: str) -> Any:
        return [r for r in self.host.readings if r.tag == tag][-1]


@pytest.fixture(scope="module")
def died(mosquitto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deaths]:
    broker = Mosquitto(mosquitto, tmp_path_factory.mktemp("deaths"))
    host = Running(SparkplugSource(SparkplugSettings([broker.url], HOST_ID))).open()
    edge = Edge(broker.port, devices={"D1": {"a": (INT64, 1), "b": (INT64, 2)}, "D2": {"c": (INT64, 3)}})
    edge.birth()
    host.until(lambda: host.values("G1/E1/D2/c"))
    death = now_ms() + 5000  # the node's clock, which the host takes for the death of a device
    edge.send("DDEATH", [], "D1", at=death)
    host.until(lambda: host.readings[-1].quality == "bad")
    host.run(0.2)
    stale = [r for r in host.readings if r.quality == "bad"]
    assert {r.tag for r in stale} == {"G1/E1/D1/a", "G1/E1/D1/b"}, stale  # that device's, and no others
    before = now_ms()
    edge.die()
    host.until(lambda: [r.tag for r in host.readings if r.quality == "bad"][-1] in ("G1/E1//count", "G1/E1/D2/c"))
    host.run(0.3)
    yield Deaths(host, before, now_ms(), death)
    host.source.close()
    broker.stop()


def _device_stale(d: Deaths) -> None:
    for tag in ("G1/E1/D1/a", "G1/E1/D1/b"):
        last = d.last(tag)
        assert last.quality == "bad"
        assert last.value is None
        assert last.at.timestamp() * 1000 == d.device_death_ms


def _offline(*devices: str) -> Check:
    def check(d: Deaths) -> None:
        node = d.host.source._nodes["G1/E1"]
        assert [not node.devices[device].online for device in devices] == [True] * len(devices)

    return check


def _node_offline(d: Deaths) -> None:
    assert d.host.source._nodes["G1/E1"].status == "offline"
    _stale("G1/E1//count")(d)


def _stale(*tags: str) -> Check:
    def check(d: Deaths) -> None:
        for tag in tags:
            last = d.last(tag)
            assert last.quality == "bad"
            assert d.before_ms <= last.at.timestamp() * 1000 <= d.after_ms  # the host's clock

    return check


DEATHS: dict[str, Check] = {
    "tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-offline": _offline("D1"),
    "tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-tags-stale": _device_stale,
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-offline": _node_offline,
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-tags-stale": _stale("G1/E1//count"),
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-offline": _offline("D1", "D2"),
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-tags-stale": _stale("G1/E1/D2/c"),
}


@pytest.mark.parametrize("assertion", DEATHS)
def test_deaths(died: Deaths, assertion: str) -> None:
    DEATHS[assertion](died)


# -- order


@pytest.fixture
def broker(mosquitto: str, tmp_path: Path) -> Iterator[Mosquitto]:
    found = Mosquitto(mosquitto, tmp_path)
    yield found
    found.stop()


def _born(broker: Mosquitto, reorder_s: float) -> tuple[Running, Edge]:
    host = Running(SparkplugSource(SparkplugSettings([broker.url], HOST_ID, reorder_s=reorder_s))).open()
    edge = Edge(broker.port)
    edge.birth()
    host.until(lambda: host.values("G1/E1//count"))
    edge.say("count", 1)
    host.until(lambda: 1 in host.values("G1/E1//count"))
    return host, edge


@pytest.mark.parametrize(
    "assertion", ["tck-id-operational-behavior-host-reordering-rebirth", "tck-id-operational-behavior-host-reordering-start"]
)
def test_a_message_that_does_not_come(broker: Mosquitto, assertion: str) -> None:
    host, edge = _born(broker, 0.6)
    missing = edge.skip()
    begun = time.monotonic()
    edge.say("count", 3)
    host.until(lambda: edge.rebirths)
    waited = time.monotonic() - begun
    if assertion.endswith("start"):
        assert 0.55 < waited < 3  # the timer began with the message out of order
    else:
        ((topic, body),) = [c for c in edge.commands if c[0] == edge.topic("NCMD")]
        assert topic == "spBv1.0/G1/NCMD/E1"
        assert commands(body) == [("Node Control/Rebirth", 1)]
        host.until(lambda: host.gaps)
        gap = host.gaps[0]
        assert (gap.kind, gap.first, gap.last) == ("sequence", missing, missing)
    host.source.close()
    edge.observer.close()


@pytest.mark.parametrize("assertion", ["tck-id-operational-behavior-host-reordering-success"])
def test_a_message_that_comes_late(broker: Mosquitto, assertion: str) -> None:
    host, edge = _born(broker, 1.0)
    late = edge.skip()
    edge.say("count", 3)
    host.run(0.3)
    assert host.values("G1/E1//count")[-1] == 1  # it waits
    edge.send("NDATA", [edge.datum("count", 2)], seq=late)
    host.until(lambda: 3 in host.values("G1/E1//count"))
    edge.say("count", 4)
    host.run(1.5)
    assert host.values("G1/E1//count")[-4:] == [1, 2, 3, 4]
    assert not edge.rebirths
    assert not host.gaps
    host.source.close()
    edge.observer.close()


@pytest.mark.parametrize("assertion", ["tck-id-operational-behavior-host-reordering-param"])
def test_the_reorder_timeout_can_be_set(broker: Mosquitto, assertion: str) -> None:
    waited = []
    for reorder_s in (0.2, 1.2):
        host, edge = _born(broker, reorder_s)
        edge.skip()
        begun = time.monotonic()
        edge.say("count", 3)
        host.until(lambda edge=edge: edge.rebirths)  # type: ignore[misc]
        waited.append(time.monotonic() - begun)
        host.source.close()
        edge.observer.close()
    assert waited[0] < 1.0 < waited[1]
    with pytest.raises(Refused, match="reorder timeout"):
        SparkplugSettings([broker.url], HOST_ID, reorder_s=-1)


# -- several brokers


@pytest.fixture(scope="module")
def doubled(mosquitto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Tap], list[Observer]]]:
    brokers = [Mosquitto(mosquitto, tmp_path_factory.mktemp(f"broker{n}")) for n in range(2)]
    taps, observers = [Tap(b.port) for b in brokers], [Observer(b.port, "spBv1.0/#") for b in brokers]
    host = Running(SparkplugSource(SparkplugSettings([tap.url for tap in taps], HOST_ID))).open()
    host.until(lambda: all(observer.on(STATE) for observer in observers))
    taps[0].cut()
    host.run(0.5)
    taps[0].mend()
    host.until(lambda: len([m for m in observers[0].on(STATE) if _state(m.payload)["online"]]) >= 2)
    yield taps, observers
    host.source.close()
    for observer in observers:
        observer.close()
    for tap in taps:
        tap.close()
    for broker in brokers:
        broker.stop()


def _first_on_each(taps: list[Tap], observers: list[Observer]) -> None:
    assert taps[0].sessions >= 2
    for tap in taps:
        for session in {p.session for p in tap.sent("CONNECT")}:
            published = tap.sent("PUBLISH", session=session)
            assert published, "a session without a birth"
            assert published[0].topic == STATE
            assert _state(published[0].message)["online"]


def _one_state_each(taps: list[Tap], observers: list[Observer]) -> None:
    assert all(_state(observer.on(STATE)[0].payload)["online"] for observer in observers)
    for tap in taps:
        assert (STATE, 1) in [asked for p in tap.sent("SUBSCRIBE") for asked in p.filters]


def _stamp_each(taps: list[Tap], observers: list[Observer]) -> None:
    for tap in taps:
        for session in {p.session for p in tap.sent("CONNECT")}:
            will = _state(Connect.of(tap.sent("CONNECT", session=session)[0].body).will)
            assert next(_state(p.message)["timestamp"] for p in tap.sent("PUBLISH", STATE, session)) == will["timestamp"]
    again = [_state(p.message)["timestamp"] for p in taps[0].sent("PUBLISH", STATE)]
    assert again[-1] > again[0]  # a new session at one broker changes nothing at the other
    assert len({_state(p.message)["timestamp"] for p in taps[1].sent("PUBLISH", STATE)}) == 1


@pytest.mark.parametrize("assertion", ["tck-id-operational-behavior-host-application-multi-server-timestamp"])
def test_no_broker_of_several_hears_an_older_timestamp_than_another(doubled: tuple[list[Tap], list[Observer]], assertion: str) -> None:
    """The kit compares the will at one with the birth at the other, whichever of them is named first."""
    first = [_state(Connect.of(tap.sent("CONNECT")[0].body).will)["timestamp"] for tap in doubled[0]]
    assert len(set(first)) == 1


BROKERS: dict[str, Callable[[list[Tap], list[Observer]], None]] = {
    "tck-id-operational-behavior-primary-application-state-with-multiple-servers-state": _first_on_each,
    "tck-id-operational-behavior-primary-application-state-with-multiple-servers-state-subs": _one_state_each,
    "tck-id-operational-behavior-host-application-multi-server-timestamp": _stamp_each,
}


@pytest.mark.parametrize("assertion", BROKERS)
def test_several_brokers(doubled: tuple[list[Tap], list[Observer]], assertion: str) -> None:
    BROKERS[assertion](*doubled)


@pytest.mark.parametrize("assertion", ["tck-id-operational-behavior-host-application-host-id"])
def test_two_hosts_with_ids_of_their_own(broker: Mosquitto, assertion: str) -> None:
    observer = Observer(broker.port, "spBv1.0/#")
    hosts = [Running(SparkplugSource(SparkplugSettings([broker.url], name))).open() for name in ("one", "two")]
    _wait(lambda: len({m.topic for m in observer.heard}) == 2)
    assert {m.topic for m in observer.heard} == {"spBv1.0/STATE/one", "spBv1.0/STATE/two"}
    hosts[0].source.close()
    hosts[1].run(0.2)
    assert _state(observer.on("spBv1.0/STATE/two")[-1].payload)["online"]
    assert not _state(observer.on("spBv1.0/STATE/one")[-1].payload)["online"]
    hosts[1].source.close()
    observer.close()
    for bad in ("", "a/b", "a+", "#"):
        with pytest.raises(Refused, match="host id"):
            SparkplugSettings([broker.url], bad)
