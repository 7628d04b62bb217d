"""What an entry of `mqtt:` in edge.yaml becomes: a session for its deliveries, one for its readings, or both."""

import ssl
from typing import Any

from adapters.formats.mqtt_payload import Topics
from adapters.mqtt import MqttAdapter
from adapters.mqtt_readings import MqttReadings, MqttReadingsSettings
from hub.app.edge.config import Configured, MqttPart
from hub.tls import Unusable, client_context

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
    authority, certificate, key = (path and configured.at(path) for path in (part.authority, part.certificate, part.key))
    try:
        return client_context(authority, certificate, key)
    except Unusable as error:
        raise configured.document.fault(("mqtt", number, error.field), str(error)) from error
