"""edge.yaml: read strictly; every fault names file, line, field and remedy.

Paths in it are relative to the file. Passwords do not stand in it: it names the environment variables that hold them.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from adapters.edge.plant import Plant
from adapters.formats.mqtt_filters import overlapping, sound
from hub.app.settings import ConfigError

Place = tuple[str | int, ...]
_SIZES = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
NAME = r"[a-z0-9][a-z0-9._-]{0,62}"


def _bytes(value: object) -> int:
    match = re.fullmatch(r"(\d{1,12}) ?(KiB|MiB|GiB|)", str(value))
    if not match:
        raise ValueError("is no size: write for example 512MiB or 2GiB")
    return int(match[1]) * _SIZES[match[2]]


def _hub_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme != "https" or not url.hostname or url.path not in ("", "/"):
        raise ValueError("is no address of a hub: write https://HOST:8443, the hub's HUB_EDGE_LISTEN")
    return value


def _broker_url(value: str) -> str:
    url = urlsplit(value)
    if url.username or url.password:
        raise ValueError("holds a user or a password: write username, and password_env with the name of a variable")
    if url.scheme not in ("mqtt", "mqtts") or not url.hostname or url.path not in ("", "/") or url.query:
        raise ValueError("is no address of a broker: write mqtt://HOST:1883, or mqtts://HOST:8883 for TLS")
    try:
        _ = url.port
    except ValueError:
        raise ValueError("has a port that is none: write a number up to 65535") from None
    return value


def _filter(value: str) -> str:
    if not sound(value):
        raise ValueError(f"{value[:80]!r} is no topic filter: + stands alone in its level, # alone in the last")
    if value.startswith("$share/"):
        raise ValueError("is a shared subscription, of which others get a part: write the filter alone")
    return value


Size = Annotated[int, BeforeValidator(_bytes)]
SourceName = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HubLine(_Part):
    """Where the hub is, and the certificate that `hub edge enrol` made."""

    url: Annotated[str, AfterValidator(_hub_url)]
    certificate: Path = Path("edge.pem")
    key: Path = Path("edge.key")
    authority: Path = Path("authority.pem")
    rate_max: Annotated[float, Field(ge=0)] = 0.0  # entries a second, 0: no bound


class SpoolPart(_Part):
    """Where the spool is and how large it may grow; `keep`: of what the hub has, for `resend`."""

    path: Path = Path("spool.db")
    max: Size = 1 << 30
    keep: Size = 64 << 20
    keep_hours: Annotated[float, Field(ge=0, le=24 * 366)] = 24.0
    warn_at: Annotated[float, Field(gt=0, lt=1)] = 0.8


class FolderPart(_Part):
    """A watched folder; its files are taken as `hub intake` takes them."""

    name: SourceName
    path: Path


Filter = Annotated[str, AfterValidator(_filter)]
_Dotted = Annotated[str, StringConstraints(min_length=1)]


class TopicsPart(_Part):
    """Topics whose messages are readings: which levels of the topic name the producer (0: all), and where values, time and number stand."""

    filter: Filter
    producer: Annotated[int, Field(ge=0, le=100)] = 0
    value: str = ""
    at: _Dotted | None = None
    sequence: _Dotted | None = None


class MqttPart(_Part):
    """A broker. `deliveries` are spooled as they are, `readings` taken apart; each of both has a session of its own."""

    name: SourceName
    url: Annotated[str, AfterValidator(_broker_url)]
    version: Annotated[Literal["5", "3.1.1"], BeforeValidator(str)] = "5"
    username: str | None = None
    password_env: str | None = None
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    session_expiry_hours: Annotated[float, Field(gt=0, le=24 * 366)] = 24.0 * 7
    deliveries: tuple[Filter, ...] = ()
    readings: tuple[TopicsPart, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.deliveries and not self.readings:
            raise ValueError("subscribes to nothing: add deliveries or readings")
        if not self.tls and (self.authority or self.certificate or self.key):
            raise ValueError("names certificates and speaks no TLS: write mqtts://")
        if self.key and not self.certificate:
            raise ValueError("has a key without its certificate: add certificate")
        if self.password_env and not self.username:
            raise ValueError("has a password without a user: add username")
        for filters in (self.deliveries, [one.filter for one in self.readings]):
            if both := overlapping(filters):
                raise ValueError(
                    f"{both[0]} and {both[1]} overlap in part, and the broker may send what both match twice: write one that covers both"
                )
        return self

    @property
    def tls(self) -> bool:
        return self.url.startswith("mqtts:")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or (8883 if self.tls else 1883)


class EdgeConfig(_Part):
    """All of edge.yaml. Parts of sources that are not read here are checked by their own classes when they are opened (`sources`)."""

    edge: SourceName
    plant: Plant = Plant()
    hub: HubLine
    spool: SpoolPart = SpoolPart()
    listen: Annotated[str, StringConstraints(pattern=r"^.+:\d{1,5}$")] = "127.0.0.1:8090"
    folders: tuple[FolderPart, ...] = ()
    mqtt: tuple[MqttPart, ...] = ()
    sparkplug: tuple[Any, ...] = ()
    opcua: tuple[Any, ...] = ()


class Document:
    """A YAML document with the line of each of its values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Place, int] = {}
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read ({error}): name the edge's configuration with --config") from error
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            self.value = self._plain(node, (), yaml.SafeLoader("")) if node else {}
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise ConfigError(f"{path}:{mark.line + 1 if mark else 1}: this is no YAML ({error.problem}): correct that line") from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise ConfigError(f"{path}: this is no YAML ({error})") from error

    def _plain(self, node: yaml.Node, at: Place, loader: yaml.SafeLoader) -> Any:
        self.lines[at] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key, value in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else ""
                if not name or name in found or name == "<<":
                    what = f"{name!r} stands twice" if name in found else "this is no plain key"
                    raise ConfigError(f"{self.path}:{key.start_mark.line + 1}: {what}: keep one")
                found[name] = self._plain(value, (*at, name), loader)
                self.lines[(*at, name)] = key.start_mark.line + 1
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(one, (*at, n), loader) for n, one in enumerate(node.value)]
        return loader.construct_object(node)

    def fault(self, place: Place, what: str) -> ConfigError:
        """An error that names file, line and field."""
        near = place
        while near and near not in self.lines:
            near = near[:-1]
        field = ".".join(str(part) for part in place) or "the document"
        return ConfigError(f"{self.path}:{self.lines.get(near, 1)}: {field}: {what}")

    def checked(self, kind: Any, place: Place = ()) -> Any:
        """The value at a place as a type. Raises `ConfigError` for the first fault, with the number of the others."""
        value = self.value
        for part in place:
            value = value[part]
        return self.checked_as(kind, value, place)

    def checked_as(self, kind: Any, value: Any, place: Place) -> Any:
        """The same for a value that was made of what stands there."""
        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            first = faults[0]
            said = first["msg"].removeprefix("Value error, ")
            remedy = {"extra_forbidden": "there is no such key: correct or remove it", "missing": "is needed: add it"}.get(
                first["type"], said
            )
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise self.fault((*place, *first["loc"]), remedy + more) from None


class Configured:
    """An edge's configuration with its document, for the parts that sources check themselves."""

    def __init__(self, path: Path) -> None:
        self.document = Document(path)
        self.folder = path.absolute().parent
        self.config: EdgeConfig = self.document.checked(EdgeConfig)
        self._distinct_names()

    def at(self, path: Path) -> Path:
        """A path of the file as one of this machine."""
        return self.folder / path

    def secret(self, place: Place, variable: str | None) -> str | None:
        """What an environment variable holds that the file names."""
        if variable is None:
            return None
        found = os.environ.get(variable)
        if not found:
            raise self.document.fault(place, f"the environment variable {variable} is not set: set it to the secret")
        return found

    def _distinct_names(self) -> None:
        seen: dict[str, Place] = {}
        for kind in ("folders", "mqtt", "sparkplug", "opcua"):
            part: Sequence[Any] = self.document.value.get(kind) or []
            for n, one in enumerate(part):
                name = one.get("name") if isinstance(one, dict) else None
                if name in seen:
                    raise self.document.fault((kind, n, "name"), f"{name!r} is the name of another source too: names tell lanes apart")
                if name:
                    seen[name] = (kind, n)
