"""Kafka: fetches Apache Kafka's jars with Maven and runs one real broker (KRaft, one node, loopback, no login) for tests and trials.

    <cache>/kafka-<version>/       the jars: $XDG_CACHE_HOME or ~/.cache, below millwright/; a folder named by KAFKA_LIB is taken instead
    <folder>/                      one broker: server.properties, log4j2.properties, data/, tmp/, kafka.log, kafka.json (address, pid), lock

A folder keeps its address over restarts where the port is still free, and what was acknowledged survives kill -9 and power loss. Any user
of this machine can connect, so it is no broker for production; there set HUB_KAFKA to a cluster of your own.

Errors: `Unavailable` (exit code 3), with the remedy.
"""

from __future__ import annotations

import argparse
import base64
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from events.errors import Unavailable
from hub.app.home import write_atomically
from hub.app.servers import process
from hub.app.servers.single import Single, end_by_sigterm, is_free, recorded, running, say

VERSION = "4.1.1"
JAVA_MIN = 17  # the oldest Java that a Kafka 4 broker runs on
FETCH_S = 900.0  # some 45 MB and Maven's own plugin over a slow line
START_S = 60.0  # 3 s usually; a loaded machine with two cores takes longer
STOP_S = 8.0  # then it is killed, which loses nothing
PROBE_S = 2.0  # one question to the broker
RECORD = "kafka.json"
INSTALL = "install Java 17 or newer and Maven (Debian: apt-get install openjdk-17-jre-headless maven)"

_POM = f"""<project><modelVersion>4.0.0</modelVersion><groupId>millwright</groupId><artifactId>kafka</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
</dependencies></project>
"""
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_HEAP = ("-Xms128m", "-Xmx512m", "-XX:+ExitOnOutOfMemoryError")
_LOG4J = """status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAIN",
    # one node: nothing can be replicated, and the internal topics' defaults of three would never be met
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # a group starts at once, and a misspelt topic is an error instead of a new topic
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
    # after kill -9 the controller refuses the same broker until its old session is over (default 9 s)
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "1000",
    # nothing is acknowledged before it is on the disk
    "log.flush.interval.messages": "1",
}


# -- the program --


def available() -> str | None:
    """Why Kafka cannot run here, with the remedy; None if it can (perhaps after a `fetch`)."""
    java = _java()
    if java is None:
        return f"there is no java: {INSTALL}"
    version = _java_version(java)
    if version < JAVA_MIN:
        return f"{java} is version {version or 'unknown'}, Kafka {VERSION} needs {JAVA_MIN}: {INSTALL}, or set JAVA_HOME"
    if own := os.environ.get("KAFKA_LIB"):
        return (
            None
            if any(Path(own).glob("kafka_*.jar"))
            else f"KAFKA_LIB: {own} holds no kafka_*.jar: name the folder of Kafka's jars or unset it"
        )
    if not _cache().is_dir() and shutil.which("mvn") is None:
        return (
            f"Kafka {VERSION} is not in {_cache()} and there is no mvn to fetch it: {INSTALL}, or set KAFKA_LIB to the folder of its jars"
        )
    return None


def fetch(progress: Callable[[str], None] = lambda text: None) -> Path:
    """The folder of Kafka's jars, fetched from Maven Central first where they are missing. Safe when several processes do it at once."""
    if reason := available():
        raise Unavailable(f"Kafka: {reason}")
    if own := os.environ.get("KAFKA_LIB"):
        return Path(own)
    cache = _cache()
    if not cache.is_dir():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with process.locked(cache.with_name(cache.name + ".lock")):
            if not cache.is_dir():
                progress(f"fetching Apache Kafka {VERSION} from Maven Central into {cache}")
                _download(cache)
    return cache


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "millwright" / f"kafka-{VERSION}"


def _download(cache: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{cache.name}-", dir=cache.parent) as temporary:
        work = Path(temporary)
        (work / "pom.xml").write_text(_POM, "utf-8")
        # -C: a wrong checksum fails. A repository of its own, so that only the jars stay behind.
        argv = [
            "mvn",
            "-q",
            "-B",
            "-C",
            f"-Dmaven.repo.local={work / 'repository'}",
            _COPY,
            f"-DoutputDirectory={work / 'lib'}",
            "-DincludeScope=runtime",
        ]
        try:
            done = subprocess.run(argv, cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_S, check=False)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"Kafka: fetching it took longer than {FETCH_S:.0f} s: look at the network and try again") from None
        if done.returncode != 0:
            said = " | ".join((done.stdout + done.stderr).strip().splitlines()[:3])
            raise Unavailable(f"Kafka: Maven could not fetch it ({said}): look at the network and Maven's settings, or set KAFKA_LIB")
        (work / "lib").rename(cache)


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")


def _java_version(java: str) -> int:
    """The feature release (17, 21, …); 0 if it does not say."""
    try:
        said = subprocess.run([java, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False).stderr
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0


# -- one broker --


class Kafka(Single):
    """One broker in one folder: `with Kafka(folder) as kafka: kafka.brokers`. Start it from a thread that outlives it."""

    program = "Kafka"
    stop_s = STOP_S

    def __init__(self, folder: Path | str, *, port: int | None = None, start_s: float = START_S) -> None:
        super().__init__(folder, "kafka.log", RECORD, start_s)
        self.brokers = ""
        self._wanted_port = port

    def start(self) -> Self:
        """Start the broker and wait until it answers. Its jars are fetched first where they are missing."""
        lib = fetch()
        self._take_folder()
        try:
            self._kill_left_over()
            self._configure()
            self._format(lib)
            known = {"brokers": self.brokers, "ports": self._ports}
            self._spawn(self._java_argv(lib, "kafka.Kafka", "server.properties"), _environment(), known)
        except BaseException:
            self.kill()
            raise
        return self

    def _configure(self) -> None:
        known = [int(port) for port in recorded(self._record).get("ports", [0, 0])]
        port = self._free_port(self._wanted_port, known[0])
        controller = known[1] if known[1] != port and is_free(known[1]) else process.free_port()
        self._ports = [port, controller]
        self.brokers = f"127.0.0.1:{port}"
        settings = _SETTINGS | {
            "listeners": f"PLAIN://{self.brokers},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAIN://{self.brokers}",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": str(self.folder / "data"),
        }
        (self.folder / "tmp").mkdir(exist_ok=True)
        write_atomically(self.folder / "server.properties", "".join(f"{name}={_escaped(value)}\n" for name, value in settings.items()))
        write_atomically(self.folder / "log4j2.properties", _LOG4J)

    def _format(self, lib: Path) -> None:
        if (self.folder / "data" / "meta.properties").exists():
            return
        cluster = "m" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]  # a leading "-" would read as an option
        argv = self._java_argv(lib, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", "server.properties", "--ignore-formatted")
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=self._start_s, env=_environment(), check=False
        )
        if done.returncode != 0:
            raise Unavailable(
                f"Kafka in {self.folder} could not be formatted ({(done.stdout + done.stderr).strip()}): remove that folder and try again"
            )

    def _java_argv(self, lib: Path, main: str, *arguments: str) -> list[str]:
        """The command of a Java program of Kafka's; `server.properties` among its arguments becomes this folder's own."""
        options = [f"-Djava.io.tmpdir={self.folder / 'tmp'}", f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"]
        named = [str(self.folder / one) if one == "server.properties" else one for one in arguments]
        return [_java() or "java", *_HEAP, *options, "-cp", f"{lib}/*", main, *named]

    def _answers(self) -> bool:
        return answers(self.brokers)


def answers(brokers: str) -> bool:
    """Whether a broker there is ready for clients: it accepts, and its metadata names a live broker."""
    host, _, port = brokers.split(",")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PROBE_S).close()
    except OSError:
        return False
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    silent = logging.getLogger("hub.app.servers.kafka.probe")
    silent.disabled = True  # a refused connection is an answer here, no news
    try:
        return bool(AdminClient({"bootstrap.servers": brokers}, logger=silent).list_topics(timeout=PROBE_S).brokers)
    except KafkaException:
        return False


def address(folder: Path | str) -> str | None:
    """HOST:PORT of the broker that runs in that folder now, or None."""
    record = recorded(Path(folder) / RECORD)
    return None if running(record) is None else str(record["brokers"])


def argv(home: Path | str) -> list[str]:
    """The command that runs a home's broker in the foreground, for a supervisor: everything it starts ends with it."""
    return [sys.executable, "-m", "hub.app.servers.kafka", "run", "--dir", str(Path(home) / "kafka")]


def _environment() -> dict[str, str]:
    """Ours without the hub's secrets, and nothing that would load another Kafka's classes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HUB_") and name != "CLASSPATH"}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\")


# -- in the foreground --


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m hub.app.servers.kafka fetch | run [--dir DIR] [--port N]`; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hub.app.servers.kafka", description="One real Apache Kafka broker on loopback.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="fetch Kafka's jars if they are missing")
    run = commands.add_parser("run", help="run a broker until Ctrl-C; fetches the jars first")
    run.add_argument("--dir", type=Path, default=Path("build/kafka"), help="its data, kept between runs (default: %(default)s)")
    run.add_argument("--port", type=int, default=None, help="its port on 127.0.0.1 (default: the last one of that folder, else a free one)")
    chosen = parser.parse_args(arguments)
    end_by_sigterm()
    try:
        lib = fetch(say)
        if chosen.command == "fetch":
            say(str(lib))
            return 0
        return _run(chosen.dir, chosen.port)
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 0


def _run(folder: Path, port: int | None) -> int:
    with Kafka(folder, port=port) as kafka:
        say(f"Apache Kafka {VERSION} listens on {kafka.brokers}; data and log in {kafka.folder}")
        say(f"Point the hub at it:  HUB_KAFKA={kafka.brokers} .venv/bin/hub demo    (Ctrl-C ends the broker, its data stay)")
        kafka.until_ended()


if __name__ == "__main__":
    sys.exit(main())
