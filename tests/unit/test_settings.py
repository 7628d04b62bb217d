"""Settings and home: what is read from where, and that every mistake is refused with its file, key and remedy."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from hub.app.home import FORMAT, Home, HomeRefused
from hub.app.settings import ConfigError, Secret, Settings

TOKEN = "t0ken-" * 6


def load(tmp_path: Path, toml: str | None = None, **env: str) -> Settings:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    if toml is not None:
        (home / "hub.toml").write_text(toml, "utf-8")
    return Settings.load({"HUB_HOME": str(home), **env}, cwd=tmp_path)


def test_nothing_set_gives_a_private_hub_on_loopback(tmp_path: Path) -> None:
    settings = Settings.load({}, cwd=tmp_path)
    assert settings.home == tmp_path / ".hub"
    assert (settings.api_host, settings.api_port, settings.api_token) == ("127.0.0.1", 8080, None)
    assert (settings.database_url, settings.mqtt_url, settings.kafka_brokers, settings.watch) == (None, None, None, None)
    assert settings.partners == {}
    assert not (tmp_path / ".hub").exists()


def test_the_hub_does_not_take_in_its_own_log(tmp_path: Path) -> None:
    assert load(tmp_path, HUB_RELAY="k:1").relay_topic == "millwright.log"
    assert load(tmp_path, HUB_RELAY="k:1", HUB_RELAY_TOPIC="a").relay_brokers == "k:1"
    with pytest.raises(ConfigError, match=r"HUB_RELAY_TOPIC: the hub takes in what comes on a, .*: name another topic"):
        load(tmp_path, HUB_RELAY="k:1", HUB_RELAY_TOPIC="a", HUB_KAFKA="k:1", HUB_KAFKA_TOPICS="b,a")
    with pytest.raises(ConfigError, match="HUB_RELAY: 'k' is not HOST:PORT"):
        load(tmp_path, HUB_RELAY="k")


def test_the_erp_is_an_address_with_a_user_and_a_database(tmp_path: Path) -> None:
    address = "http://hub:secret@erp.example:8000/works"
    assert load(tmp_path, HUB_ERP=address).erp_url == address
    assert "secret" not in repr(load(tmp_path, HUB_ERP=address))
    for wrong in ("erp.example:8000", "http://erp.example/works", "http://hub:secret@erp.example:8000/", "http://[a:b@c/d"):
        with pytest.raises(ConfigError, match="HUB_ERP is not the address of a Tryton database") as refused:
            load(tmp_path, HUB_ERP=wrong)
        assert "secret" not in str(refused.value)


def test_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    toml = """
        [api]
        listen = "[::1]:9000"
        [mqtt]
        url = "mqtt://plant:1883"
        topics = ["a/#", "b/#"]
        [kafka]
        brokers = ["k1:9092", "k2:9092"]
        [relay]
        brokers = ["r1:9092"]
        topic = "plant.log"
        [watch]
        folder = "in"
        [partners."x12:ZZ:ACME"]
        zone = "Europe/Berlin"
        units = { BX = "CS" }
    """
    settings = load(tmp_path, toml)
    assert (settings.api_host, settings.api_port) == ("::1", 9000)
    assert settings.mqtt_url == "mqtt://plant:1883"
    assert settings.mqtt_topics == ("a/#", "b/#")
    assert settings.kafka_brokers == "k1:9092,k2:9092"
    assert (settings.relay_brokers, settings.relay_topic) == ("r1:9092", "plant.log")
    assert settings.watch == tmp_path / "in"
    assert str(settings.partners["x12:ZZ:ACME"].tzinfo) == "Europe/Berlin"
    assert settings.partners["x12:ZZ:ACME"].units == {"BX": "CS"}
    settings = load(tmp_path, toml, HUB_LISTEN="localhost:1", HUB_MQTT_TOPICS="c, d/#", HUB_KAFKA="z:1", HUB_WATCH="/w")
    assert (settings.api_host, settings.api_port, settings.mqtt_topics) == ("localhost", 1, ("c", "d/#"))
    assert (settings.kafka_brokers, settings.watch) == ("z:1", Path("/w"))


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("x = ", ["hub.toml", "TOML"]),
        ("colour = 1", ["hub.toml", "colour", "known are"]),
        ("api = 1", ["hub.toml", "api", "[api]"]),
        ("[api]\nport = 1", ["hub.toml", "api.port", "listen"]),
        ("[api]\nlisten = 8080", ["api.listen", "a number", "double quotes"]),
        ('[api]\nlisten = "8080"', ["api.listen", "HOST:PORT"]),
        ('[api]\nlisten = "localhost:99999"', ["api.listen", "HOST:PORT"]),
        (f'[api]\nlisten = "localhost:{"9" * 5000}"', ["api.listen", "HOST:PORT"]),
        (f'[api]\nlisten = "localhost:{"0" * 5000}80"', ["api.listen", "HOST:PORT"]),
        (f'[kafka]\nbrokers = "k1:{"9" * 5000}"', ["kafka.brokers", "HOST:PORT"]),
        ("x = " + "[" * 5000 + "]" * 5000, ["hub.toml", "nested"]),
        ('[watch]\nfolder = "~nobody-of-that-name/in"', ["watch.folder", "whole path"]),
        ('[mqtt]\nurl = "plant:1883"', ["mqtt.url", "mqtt://"]),
        ('[mqtt]\nurl = "mqtt://u:secret@plant"', ["mqtt.url", "password", "HUB_MQTT_URL"]),
        ("[mqtt]\ntopics = [1]", ["mqtt.topics", "list of texts"]),
        ('[kafka]\nbrokers = "k1"', ["kafka.brokers", "HOST:PORT"]),
        ('[partners."x12:ZZ:ACME"]\nzone = "Europe/Atlantis"', ["x12:ZZ:ACME", "Europe/Atlantis", "Europe/Berlin"]),
        ('[partners."x12:ZZ:ACME"]\nzone = "../../etc/passwd"', ["x12:ZZ:ACME", "not an IANA"]),
        ('[partners."x12:ZZ:ACME"]\nunits = { BX = "case" }', ["x12:ZZ:ACME", "units.BX", "Rec 20"]),
        ('[partners."x12:ZZ:ACME"]\nzone = 1', ["x12:ZZ:ACME", "zone 1"]),
        ('[partners."x12:ZZ:ACME"]\ntz = "UTC"', ["x12:ZZ:ACME", "'tz'", "zone"]),
        ("partners = 1", ["partners", "tables"]),
        ('[watch]\nfolder = "/srv/in\\u0000box"', ["watch.folder", "NUL", "remove"]),
        ('[mqtt]\ntopics = ["plant/\\u0000"]', ["mqtt.topics", "NUL", "remove"]),
    ],
)
def test_mistakes_in_the_file_name_file_key_and_remedy(tmp_path: Path, toml: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, toml)
    assert refused.value.exit_code == 2
    assert [word for word in ["hub.toml", *words] if word not in str(refused.value)] == []
    assert "secret" not in str(refused.value).replace("secrets", "")


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:80", "hub.example:80"])
def test_an_address_others_reach_needs_a_long_token(tmp_path: Path, listen: str) -> None:
    for token in ({}, {"HUB_API_TOKEN": "short"}):
        with pytest.raises(ConfigError, match=r"HUB_API_TOKEN .*32 characters"):
            load(tmp_path, HUB_LISTEN=listen, **token)
    assert load(tmp_path, HUB_LISTEN=listen, HUB_API_TOKEN=TOKEN).api_token == Secret(TOKEN)


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:0"])
def test_loopback_needs_none(tmp_path: Path, listen: str) -> None:
    assert load(tmp_path, HUB_LISTEN=listen).api_token is None


def test_secrets_hide_and_may_come_from_files(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    settings = load(tmp_path, HUB_API_TOKEN_FILE=str(file), HUB_DATABASE_URL="postgresql://o:canary@db/x", HUB_MQTT_URL="mqtt://u:canary@m")
    assert settings.api_token is not None
    assert settings.api_token.reveal() == TOKEN
    assert settings.api_token.matches(TOKEN)
    shown = f"{settings!r} {settings} {settings.api_token} {settings.api_token!r}"
    assert TOKEN not in shown
    assert "canary" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(settings.api_token)
    with pytest.raises(ConfigError, match="both set"):
        load(tmp_path, HUB_API_TOKEN=TOKEN, HUB_API_TOKEN_FILE=str(file))
    with pytest.raises(ConfigError, match=r"HUB_API_TOKEN_FILE: .*cannot be read"):
        load(tmp_path, HUB_API_TOKEN_FILE=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="HUB_DATABASE_URL"):
        load(tmp_path, HUB_DATABASE_URL="mysql://x")


def test_home_is_private_and_opens_again(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "a" / "b")
    for folder in (home.path, home.run, home.log, home.broker, home.inbox, home.secrets):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (home.path / "VERSION").read_text() == FORMAT + "\n"
    os.chmod(home.path, 0o755)
    assert Home.open(home.path).path.stat().st_mode & 0o777 == 0o700


def test_home_of_another_format_or_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "h")
    for version, remedy in (("2", "newer hub"), ("", "HUB_HOME"), ("garbage", "HUB_HOME")):
        (home.path / "VERSION").write_text(version)
        with pytest.raises(HomeRefused, match=remedy):
            Home.open(home.path)
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.jpg").touch()
    with pytest.raises(HomeRefused, match=r"cat\.jpg.*HUB_HOME"):
        Home.open(foreign)
    assert os.listdir(foreign) == ["cat.jpg"]
    (tmp_path / "file").touch()
    with pytest.raises(HomeRefused, match="cannot be used"):
        Home.open(tmp_path / "file")


def test_home_with_only_its_settings_is_taken(tmp_path: Path) -> None:
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "hub.toml").touch()
    assert Home.open(tmp_path / "h").run.is_dir()


@pytest.mark.parametrize("long", ["9" * 5000, "ä" * 5000, "x y" * 2000])
def test_a_long_value_is_named_and_not_repeated(tmp_path: Path, long: str) -> None:
    tomls = [
        f'[api]\nlisten = "{long}"', f'[kafka]\nbrokers = "{long}"', f'[mqtt]\nurl = "{long}"', f'"{long}" = 1', f'[api]\n"{long}" = 1',
        f'[watch]\nfolder = "~{long}/in"', f'[partners."p"]\nzone = "{long}"', f'[partners."p"]\nunits = {{ BX = "{long}" }}',
        f'[partners."p"]\nunits = {{ "{long}" = "case" }}', f'[partners."{long}"]\nzone = "Nowhere"', f'[partners."p"]\n"{long}" = 1', f'"{long}" = 1\n"{long}" = 2',
    ]  # fmt: skip
    (tmp_path / "home").mkdir()
    for toml in tomls:
        (tmp_path / "home" / "hub.toml").write_text(toml)
        with pytest.raises(ConfigError) as refused:
            Settings.load({"HUB_HOME": str(tmp_path / "home")})
        assert len(str(refused.value)) < 600 + len(str(tmp_path)), toml[:20]
    (tmp_path / "home" / "hub.toml").unlink()
    names = (
        "HUB_HOME",
        "HUB_LISTEN",
        "HUB_KAFKA",
        "HUB_MQTT_URL",
        "HUB_WATCH",
        "HUB_API_TOKEN_FILE",
        "HUB_LOG",
        "HUB_API_TOKEN",
        "HUB_DATABASE_URL",
    )
    for name in names:
        try:
            Settings.load({"HUB_HOME": str(tmp_path / "home"), name: f"~{long}/:x"})
        except ConfigError as error:
            assert len(str(error)) < 600 + len(str(tmp_path)), name  # noqa: PT017 - some are valid
