"""The intake row: facts that are posted to the hub's own API process, from bytes on the wire through mapping to durable and answered.

Clients in a process of their own hold their connections open, and each posts its next request when the last one was answered.
"""

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg

from events import Fact, canonical
from hub.app.servers import process
from hub.app.servers.process import free_port
from tests.performance import append
from tests.performance.report import Against, Row, Sample, measure

LANES = 32
SETTINGS = f"`hub-api` alone (no follower beside it), {LANES} connections kept open"


def rows(bench: append.Bench, only: str = "") -> Iterator[list[Row]]:
    """The rows of this file whose name begins with `only`."""
    if "intake-http-100".startswith(only):
        append_1000 = {Against("append-1000", ">=", 0.3): lambda: bench.door(1000)}
        yield measure("intake-http-100", "facts/s", lambda: posted(bench, 100), append_1000, bench.rounds, SETTINGS)


def posted(bench: append.Bench, size: int) -> Sample:
    """So many facts a request; all must be accepted, and in the log when the last answer is there."""
    bodies = [canonical.dumps([posted_row(one) for one in part]) for part in append.batches(bench.facts, size)]
    with bench.log_url() as url, _api(url) as port:
        _post(port, [canonical.dumps([posted_row(one) for one in append.facts(10, 99)])])
        took = append.together([(_clients, (port, bodies))])
        with psycopg.connect(url) as connection:
            (count,) = connection.execute("select max(position) from log.event").fetchone() or (0,)
    assert count == len(bench.facts) + 10, f"{count} facts are in the log, {len(bench.facts) + 10} were sent"
    return Sample(len(bench.facts) / took)


def posted_row(one: Fact) -> dict[str, Any]:
    """A fact as a source sends it."""
    e = one.envelope
    return {
        "type": one.event.type, "source": e.source, "key": e.key, "occurred_at": e.occurred_at, "effective_at": e.effective_at, "data": one.event.data(),
    }  # fmt: skip


@contextlib.contextmanager
def _api(url: str) -> Iterator[int]:
    """The API process; the port on which it answers."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        with hub_process("api", url, Path(folder) / "home", lambda: _live(port), HUB_LISTEN=f"127.0.0.1:{port}"):
            yield port


@contextlib.contextmanager
def hub_process(role: str, url: str, home: Path, answers: Callable[[], bool], **settings: str) -> Iterator[None]:
    """A process of the hub as the supervisor starts it, from when it answers."""
    said = home.with_name(f"hub-{role}.log")
    env = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    env |= {"HUB_HOME": str(home), "HUB_DATABASE_URL": url, **settings}
    with open(said, "wb") as log:
        running = subprocess.Popen([sys.executable, "-m", "hub.app.worker", role], env=env, stdout=log, stderr=log)
    try:
        if not process.wait_until(answers, 60):
            raise RuntimeError(f"hub-{role} does not answer: {process.tail(said)}")
        yield
    finally:
        running.terminate()
        running.wait(30)


def _live(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _clients(port: int, bodies: Sequence[bytes], ready: Any) -> None:
    """Post all bodies over several connections. A client that fails ends the process."""
    failed: list[BaseException] = []

    def client(mine: Sequence[bytes]) -> None:
        try:
            _post(port, mine)
        except BaseException as error:  # noqa: BLE001 - told by the process, which is waited for
            failed.append(error)

    clients = [threading.Thread(target=client, args=(bodies[n::LANES],)) for n in range(LANES)]
    ready.wait()
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    if failed:
        raise failed[0]


def _post(port: int, bodies: Sequence[bytes]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for body in bodies:
        connection.request("POST", "/v1/facts", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found = answer.read()
        if answer.status != 200:  # the log is counted afterwards
            raise RuntimeError(f"hub-api answered {answer.status}: {found[:500]!r}")
    connection.close()
