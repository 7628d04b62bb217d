"""The sources of an edge from its configuration: each kind by its own adapter, imported only where one is configured."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from events.errors import Refused
from hub.app.edge.config import Configured
from hub.app.settings import ConfigError
from hub.intake.readings import ReadingSource

if TYPE_CHECKING:
    from adapters.mqtt import MqttAdapter

S = TypeVar("S")


def delivery_sources(configured: Configured) -> Iterator[tuple[str, "MqttAdapter"]]:
    """Lanes and adapters of brokers whose messages are spooled as they are, not opened. Raises `ConfigError`."""
    for n, broker in enumerate(configured.config.mqtt):
        from hub.app.edge.mqtt import sessions

        if (adapter := sessions(configured, n, broker)[0]) is not None:
            yield broker.name, adapter


def reading_sources(configured: Configured) -> Iterator[tuple[str, ReadingSource]]:
    """Names and sources of readings, not opened. Raises `ConfigError` naming file, line and field."""
    for n, broker in enumerate(configured.config.mqtt):
        from hub.app.edge.mqtt import sessions

        if (readings := sessions(configured, n, broker)[1]) is not None:
            yield broker.name, readings
    if configured.config.sparkplug:
        from adapters.sparkplug import SparkplugSettings, SparkplugSource

        for n in range(len(configured.config.sparkplug)):
            name, settings = part(configured, "sparkplug", n, SparkplugSettings)
            yield name, SparkplugSource(settings)
    if configured.config.opcua:
        from adapters.opcua import OpcUaSettings, OpcUaSource

        for n in range(len(configured.config.opcua)):
            name, found = part(configured, "opcua", n, OpcUaSettings)
            yield name, OpcUaSource(found)


def part(configured: Configured, kind: str, n: int, settings: type[S]) -> tuple[str, S]:
    """The name and settings of one source, as its own class takes them; paths relative to the file are made absolute."""
    document, place = configured.document, (kind, n)
    said = document.value[kind][n]
    if not isinstance(said, dict):
        raise document.fault(place, "is no source: write `- name: …` and its keys below")
    known = {one.name for one in fields(settings)}  # type: ignore[arg-type]
    for key in said:
        if key not in known | {"name"}:
            raise document.fault((*place, key), f"there is no such key: correct or remove it; known are {', '.join(sorted(known))}")
    if not isinstance(said.get("name"), str):
        raise document.fault((*place, "name"), "is needed: add it")
    values = {"producer": said["name"]} if "producer" in known else {}
    try:
        found: S = document.checked_as(settings, values | {key: value for key, value in said.items() if key != "name"}, place)
    except ConfigError:
        raise
    except Refused as error:
        raise document.fault(place, str(error)) from error
    return said["name"], _absolute(found, configured)


def _absolute(settings: Any, configured: Configured) -> Any:
    if not is_dataclass(settings) or isinstance(settings, type):
        return settings
    changed = {
        one.name: configured.at(value)
        for one in fields(settings)
        if isinstance(value := getattr(settings, one.name), Path) and not value.is_absolute()
    }
    return replace(settings, **changed) if changed else settings
