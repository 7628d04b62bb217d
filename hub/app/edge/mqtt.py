"""What an entry of `mqtt:` in edge.yaml becomes: a session for its deliveries, one for its readings, or both."""

import ssl
from typing import Any

from adapters.formats.mqtt_payload import Topics
from adapters.mqtt import MqttAdapter
from adapters.mqtt_readings import MqttReadings, MqttReadingsSettings
from hub.app.edge.config import Configured, MqttPart

WHERE = "the edge's configuration"


def sessions(configured: Configured, number: int, part: MqttPart) -> tuple[MqttAdapter | None, MqttReadings | None]:
    """Both, not connected. Raises `ConfigError`. Client ids are made of edge and name, so that a broker knows the edge again after a restart."""
    common: dict[str, Any] = {
        "username": part.username,
        "password": configured.secret(("mqtt", number, "password_env"), part.password_env),
        "tls": _tls(configured, number, part) if part.tls else False,
        "version": part.version,
        "session_expiry_s": round(part.session_expiry_hours * 3600),
    }
    client = f"{configured.config.edge}-{part.name}"
    deliveries = readings = None
    if part.deliveries:
        deliveries = MqttAdapter(part.host, part.port, part.deliveries, f"{client}-deliveries", where=WHERE, label=part.name, **common)
    if part.readings:
        topics = tuple(Topics(**one.model_dump()) for one in part.readings)
        settings = MqttReadingsSettings(
            name=part.name, host=part.host, port=part.port, topics=topics, client_id=f"{client}-readings", **common
        )
        readings = MqttReadings(settings)
    return deliveries, readings


def _tls(configured: Configured, number: int, part: MqttPart) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if part.authority:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # this authority and no other
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(configured.at(part.authority))
        except OSError as error:
            raise configured.document.fault(
                ("mqtt", number, "authority"),
                f"{part.authority} cannot be used ({error}): name the PEM file of the authority that signed the broker's certificate",
            ) from error
    if part.certificate:
        key = configured.at(part.key) if part.key else None
        try:
            context.load_cert_chain(configured.at(part.certificate), key, password=lambda: "")  # never asked for on a terminal
        except OSError as error:
            raise configured.document.fault(
                ("mqtt", number, "certificate"),
                f"{part.certificate} and {part.key or 'the key in it'} cannot be used ({error}): name PEM files that belong together, "
                "the key without a password",
            ) from error
    return context
