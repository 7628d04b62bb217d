"""Settings: what the environment and `$HUB_HOME/hub.toml` say about this hub, checked once and strictly.

The environment wins over the file. Secrets are refused in `hub.toml`: `HUB_API_TOKEN` and `HUB_DATABASE_URL` come from the environment
or from a file named by the variable with `_FILE` appended, a password in `HUB_MQTT_URL` from the environment.

Errors: `ConfigError` (exit code 2) names the file or variable, the key, the cause and the remedy.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import tomllib
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from events.errors import Refused
from events.vocabulary import rec20

TOKEN_CHARS_MIN = 32
"""Characters of an API token on an address others can reach: 32 hex digits are 128 bits."""

DEFAULT_LISTEN = "127.0.0.1:8080"
DEFAULT_MQTT_TOPICS = ("millwright/#",)
DEFAULT_KAFKA_TOPICS = ("millwright.in",)
DEFAULT_RELAY_TOPIC = "millwright.log"

_SECTIONS: dict[str, frozenset[str]] = {
    "api": frozenset({"listen"}),
    "mqtt": frozenset({"url", "topics"}),
    "kafka": frozenset({"brokers", "topics"}),
    "relay": frozenset({"brokers", "topic"}),
    "edges": frozenset({"listen", "names"}),
    "watch": frozenset({"folder"}),
}
_PARTNER_KEYS = frozenset({"zone", "units"})


class ConfigError(Refused):
    """The caller's configuration cannot be used; the message says where, why and what to do. Exit code 2."""


class Secret:
    """A string that shows itself to nobody: not in repr, str, format, logs or pickles; `reveal()` is the only way."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def matches(self, other: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self._value.encode(), other.encode())

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: hand the name of its variable or file over instead")


@dataclass(frozen=True, slots=True)
class Partner:
    """What is configured about one trading partner; the key is the partner's id as deliveries name it, e.g. `x12:ZZ:ACME`."""

    zone: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)  # its own unit codes to UN/ECE Rec 20 codes

    @property
    def tzinfo(self) -> zoneinfo.ZoneInfo | None:
        """The zone that local times without an offset from this partner are read in; None: UTC, with its quality marked as assumed."""
        return zoneinfo.ZoneInfo(self.zone) if self.zone else None


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one hub; `Settings.load()` makes it. URLs may carry passwords and so do not appear in its repr."""

    home: Path
    database_url: str | None = field(default=None, repr=False)
    api_host: str = "127.0.0.1"
    api_port: int = 8080
    api_token: Secret | None = None
    mqtt_url: str | None = field(default=None, repr=False)
    mqtt_topics: tuple[str, ...] = DEFAULT_MQTT_TOPICS
    kafka_brokers: str | None = None
    kafka_topics: tuple[str, ...] = DEFAULT_KAFKA_TOPICS
    relay_brokers: str | None = None
    relay_topic: str = DEFAULT_RELAY_TOPIC
    edge_host: str | None = None  # where the plants' edges are listened for; None: they are not
    edge_port: int = 8443
    edge_names: tuple[str, ...] = ()  # by which they may reach it: in the listener's certificate
    watch: Path | None = None
    erp_url: str | None = field(default=None, repr=False)
    partners: Mapping[str, Partner] = field(default_factory=dict)

    @staticmethod
    def load(environ: Mapping[str, str] | None = None, *, cwd: Path | None = None) -> Settings:
        """Read environment and `hub.toml`; raises `ConfigError`. Creates nothing: the home need not exist yet."""
        env = os.environ if environ is None else environ
        here = Path.cwd() if cwd is None else cwd
        home = home_path(env, here)
        if env.get("HUB_LOG", "") not in ("", "text", "json"):
            raise ConfigError(f"HUB_LOG: {_shown(env['HUB_LOG'])} is not known: write text, json, or nothing (text on a terminal)")
        source = _Source(env, home / "hub.toml")
        host, port = host_port(*source.text("HUB_LISTEN", "api", "listen", DEFAULT_LISTEN))
        token = secret(env, "HUB_API_TOKEN")
        _check_exposure(host, token)
        mqtt, mqtt_where = source.text("HUB_MQTT_URL", "mqtt", "url", "")
        kafka, kafka_where = source.brokers("HUB_KAFKA", "kafka", "brokers")
        relay, relay_where = source.brokers("HUB_RELAY", "relay", "brokers")
        relay_topic, topic_where = source.text("HUB_RELAY_TOPIC", "relay", "topic", DEFAULT_RELAY_TOPIC)
        kafka_topics = source.names("HUB_KAFKA_TOPICS", "kafka", "topics", DEFAULT_KAFKA_TOPICS)
        if kafka and relay and relay_topic in kafka_topics:
            raise ConfigError(
                f"{topic_where}: the hub takes in what comes on {relay_topic}, so it would take in its own log: name another topic"
            )
        plants, plants_where = source.text("HUB_EDGE_LISTEN", "edges", "listen", "")
        edge_host, edge_port = host_port(plants, plants_where) if plants else (None, 8443)
        watch, watch_where = source.text("HUB_WATCH", "watch", "folder", "")
        return Settings(
            home=home,
            database_url=_database_url(secret(env, "HUB_DATABASE_URL")),
            api_host=host,
            api_port=port,
            api_token=Secret(token) if token else None,
            mqtt_url=_mqtt_url(mqtt, mqtt_where) if mqtt else None,
            mqtt_topics=source.names("HUB_MQTT_TOPICS", "mqtt", "topics", DEFAULT_MQTT_TOPICS),
            kafka_brokers=_kafka_brokers(kafka, kafka_where) if kafka else None,
            kafka_topics=kafka_topics,
            relay_brokers=_kafka_brokers(relay, relay_where) if relay else None,
            relay_topic=relay_topic,
            edge_host=edge_host,
            edge_port=edge_port,
            edge_names=source.names("HUB_EDGE_NAMES", "edges", "names", ()),
            watch=_path(watch, here, watch_where) if watch else None,
            erp_url=_erp_url(secret(env, "HUB_ERP")),
            partners=source.partners(),
        )


class _Source:
    """The environment over one parsed `hub.toml`, every read of which says where its value came from."""

    def __init__(self, env: Mapping[str, str], file: Path) -> None:
        self.env, self.file, self.doc = env, file, _read_toml(file)
        for section, table in self.doc.items():
            if section == "partners":
                continue
            if section not in _SECTIONS:
                raise ConfigError(
                    f"{file}: unknown key {_shown(section)}; known are {_listed({*_SECTIONS, 'partners'})}: correct or remove it"
                )
            if not isinstance(table, dict):
                raise ConfigError(f"{file}: '{section}' must be a table, not {_kind(table)}: write [{section}] on a line of its own")
            for key in sorted(set(table) - _SECTIONS[section]):
                raise ConfigError(
                    f"{file}: unknown key {_shown(f'{section}.{key}')}; known are {_listed(_SECTIONS[section])}: correct or remove it"
                )

    def _in_file(self, section: str, key: str) -> tuple[Any, str]:
        return self.doc.get(section, {}).get(key), f"{self.file}: {section}.{key}"

    def text(self, variable: str, section: str, key: str, default: str) -> tuple[str, str]:
        if value := self.env.get(variable):
            return value, variable
        found, where = self._in_file(section, key)
        if found is None:
            return default, where
        if not isinstance(found, str) or not found:
            raise ConfigError(f"{where} must be a text, not {_kind(found)}: put it in double quotes or remove it")
        return _without_nul(found, where), where

    def names(self, variable: str, section: str, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of texts; in the environment separated by commas."""
        if value := self.env.get(variable):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        found, where = self._in_file(section, key)
        if found is None:
            return default
        if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
            raise ConfigError(f'{where} must be a list of texts, not {_kind(found)}: write {key} = ["a", "b"]')
        return tuple(_without_nul(one, where) for one in found)

    def brokers(self, variable: str, section: str, key: str) -> tuple[str, str]:
        """Host:port pairs as one text, whether the file gives a text or a list."""
        if value := self.env.get(variable):
            return value, variable
        found, where = self._in_file(section, key)
        if isinstance(found, list):
            return ",".join(self.names(variable, section, key, ())), where
        return self.text(variable, section, key, "")

    def partners(self) -> dict[str, Partner]:
        table = self.doc.get("partners", {})
        if not isinstance(table, dict):
            raise ConfigError(f"{self.file}: 'partners' must be tables, not {_kind(table)}: write [partners.\"x12:ZZ:ACME\"]")
        return {name: self._partner(name, entry) for name, entry in table.items()}

    def _partner(self, name: str, entry: object) -> Partner:
        where = f"{self.file}: [partners.{_shown(name)}]"
        if not name.strip() or not isinstance(entry, dict):
            raise ConfigError(f'{where} must be a table with a name: write [partners."x12:ZZ:ACME"] and its keys below it')
        for key in sorted(set(entry) - _PARTNER_KEYS):
            raise ConfigError(f"{where}: unknown key {_shown(key)}; known are {_listed(_PARTNER_KEYS)}: correct or remove it")
        zone = entry.get("zone")
        try:
            zoneinfo.ZoneInfo("UTC" if zone is None else zone)
        except (
            zoneinfo.ZoneInfoNotFoundError,
            ValueError,
            TypeError,
            OSError,
        ) as error:
            raise ConfigError(f'{where}: zone {_shown(zone)} is not an IANA time zone: write one such as "Europe/Berlin"') from error
        return Partner(zone, self._units(where, entry.get("units", {})))

    @staticmethod
    def _units(where: str, units: object) -> dict[str, str]:
        if not isinstance(units, dict):
            raise ConfigError(f'{where}: units must be a table, not {_kind(units)}: write units = {{ BX = "CS" }}')
        for code, unit in units.items():
            if not isinstance(unit, str) or unit not in rec20():
                raise ConfigError(
                    f"{where}: units.{code[:80]} = {_shown(unit)} is not a UN/ECE Rec 20 code: write one such as EA, KGM, LTR"
                )
        return dict(units)


def secret(env: Mapping[str, str], variable: str) -> str | None:
    """A secret from the environment, or from the file that `<variable>_FILE` names; None where neither is set. Raises `ConfigError`."""
    value, named = env.get(variable), env.get(f"{variable}_FILE")
    if value and named:
        raise ConfigError(f"{variable} and {variable}_FILE are both set: unset one of them")
    if not named:
        return value or None
    try:
        text = Path(named).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{variable}_FILE: {_shown(named)} cannot be read ({_cause(error)}): correct the path or its permissions"
        ) from error
    if not text:
        raise ConfigError(f"{variable}_FILE: {_shown(named)} is empty: write the secret into it or unset the variable")
    return _without_nul(text, f"{variable}_FILE: {_shown(named)}")


def _without_nul(text: str, where: str) -> str:
    if "\0" in text:
        raise ConfigError(f"{where} has a NUL character, which no path, address or name can have: remove it")
    return text


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{_shown(str(file), 200)} cannot be read ({_cause(error)}): correct its permissions or encoding (UTF-8)"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML ({_cause(error)}): correct that line") from error
    except RecursionError:
        raise ConfigError(f"{file} has lists or tables nested hundreds deep: no setting is, remove them") from None


def host_port(text: str, where: str) -> tuple[str, int]:
    """A HOST:PORT of configuration; `where` says of which. Raises `ConfigError`."""
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host if ":" not in host else ""
    if not colon or not host or not _is_port(port):
        raise ConfigError(f"{where}: {_shown(text)} is not HOST:PORT: write for example {DEFAULT_LISTEN} or [::1]:8080")
    return host, int(port)


def _is_port(text: str) -> bool:
    """Whether a text is 0 to 65535; Python makes no number of thousands of digits, zeros or not."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that listen address."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _check_exposure(host: str, token: str | None) -> None:
    if token is not None and (not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigError(
            "HUB_API_TOKEN has characters a header cannot carry: use printable ASCII without spaces, e.g. `openssl rand -hex 32`"
        )
    if not is_loopback(host) and len(token or "") < TOKEN_CHARS_MIN:
        state = "is not set" if not token else f"has only {len(token)} characters"
        raise ConfigError(
            f"HUB_LISTEN: {_shown(host)} can be reached from other machines but HUB_API_TOKEN {state}: set one of at least "
            f"{TOKEN_CHARS_MIN} characters (`openssl rand -hex 32`) or listen on 127.0.0.1"
        )


def _database_url(url: str | None) -> str | None:
    if url is not None and not url.startswith(("postgresql://", "postgres://")):
        raise ConfigError("HUB_DATABASE_URL is not a PostgreSQL URL: write postgresql://owner:password@host:5432/millwright")
    return url


def _mqtt_url(text: str, where: str) -> str:
    try:
        url = urlsplit(text)
        valid = url.scheme in ("mqtt", "mqtts") and bool(url.hostname) and (url.port is None or url.port > 0)
        password = url.password
    except ValueError:
        valid, password = False, None
    if not valid:
        raise ConfigError(
            f"{where} is not an MQTT address: write mqtt://HOST:1883 or mqtts://USER:PASSWORD@HOST:8883, special characters percent-encoded"
        )
    if "hub.toml" in where and password:
        raise ConfigError(f"{where} holds a password: secrets do not belong in a file that is passed around; use HUB_MQTT_URL instead")
    return text


def _erp_url(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        url = urlsplit(text)
        valid = url.scheme in ("http", "https") and bool(url.hostname and url.username) and len(url.path.strip("/")) > 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError("HUB_ERP is not the address of a Tryton database: write http://USER:PASSWORD@HOST:PORT/DATABASE")
    return text


def _kafka_brokers(text: str, where: str) -> str:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        host, _, port = part.rpartition(":")
        if not host or not _is_port(port) or not int(port):
            raise ConfigError(f"{where}: {_shown(part)} is not HOST:PORT: write for example localhost:9092,other:9092")
    return ",".join(parts)


def home_path(environ: Mapping[str, str], here: Path) -> Path:
    """Where the home is, or would be."""
    return _path(environ.get("HUB_HOME") or ".hub", here, "HUB_HOME")


def _path(text: str, here: Path, where: str) -> Path:
    try:
        return Path(os.path.abspath(here / Path(text).expanduser()))
    except RuntimeError:
        raise ConfigError(f"{where}: {_shown(text)} is in the home of a user that is not known: write the whole path") from None


def _shown(value: object, most: int = 80) -> str:
    """A value for a message: on one line, and no more of it than tells which it is."""
    text = repr(value[:most] if isinstance(value, str) else value)
    if isinstance(value, str):
        return text if len(value) <= most else f"{text}… ({len(value)} characters)"
    return text if len(text) <= most else f"{text[:most]}…"


def _cause(error: Exception) -> str:
    """Why something cannot be read, without the path that Python adds."""
    return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())[:200]


def _listed(names: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _kind(value: object) -> str:
    names = {
        dict: "a table",
        list: "a list",
        str: "an empty text",
        bool: "true/false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)
