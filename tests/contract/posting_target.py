"""A system that is told: a small HTTP server with a database of its own, which refuses a second document with one key, and is slow, mute or cross when told.

python -m tests.contract.posting_target PORT FILE
"""

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from events.errors import Unavailable
from hub.app.servers.process import free_port, wait_until
from hub.outbox.target import Accepted, Document, OutcomeUnknown, Posting, Rejected

HOST = "127.0.0.1"
TABLE = "create table if not exists document (id integer primary key, key text unique, kind text, body text, at text)"


class Server:
    """The system as a process, and its database as the judge reads it."""

    def __init__(self, folder: Path) -> None:
        self.port, self.file = free_port(), folder / "target.db"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._child = subprocess.Popen([sys.executable, "-m", __name__, str(self.port), str(self.file)])
        assert wait_until(self._answers, 20)

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait(10)
            self._child = None

    def be(self, **mode: Any) -> None:
        """`before_s`, `after_s`: sleeps before or after it commits; `reject`: words; `times`: for so many requests; `garble`: keeps something else."""
        httpx.post(f"http://{HOST}:{self.port}/mode", json=mode).raise_for_status()

    def documents(self) -> list[tuple[str, dict[str, Any]]]:
        """Key and body of all documents, in their order, by SQL."""
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            return [(key, json.loads(body)) for key, body in db.execute("select key, body from document order by id")]

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://{HOST}:{self.port}/documents?key=x", timeout=1).status_code == 404
        return False


class HttpTarget:
    """The adapter for it."""

    def __init__(self, server: Server, *, answer_s: float = 1.0, refuses_twice: bool = True) -> None:
        self.name, self.refuses_twice = "erp", refuses_twice
        self._url = f"http://{HOST}:{server.port}"
        self._client = httpx.Client(timeout=answer_s)
        self.sends: list[str] = []  # keys, as they left

    def ready(self) -> None:
        self._ask("/documents?key=x")

    def send(self, posting: Posting) -> Accepted | Rejected:
        self.sends.append(posting.key)
        said = {"key": posting.key, "kind": posting.document, "body": posting.body}
        try:
            reply = self._client.post(f"{self._url}/documents", json=said)
        except httpx.ConnectError as error:
            raise Unavailable(f"{self._url} cannot be reached: {error}") from error
        except httpx.TransportError as error:
            raise OutcomeUnknown(f"{self._url} did not answer: {type(error).__name__}") from error
        if reply.status_code == 422:
            return Rejected(reply.text)
        return Accepted(reply.json()["id"])

    def find(self, posting: Posting) -> Document | None:
        reply = self._ask(f"/documents?key={posting.key}")
        return None if reply.status_code == 404 else _document(reply.json())

    def documents(self, since: datetime, until: datetime) -> Iterator[Document]:
        found = [_document(one) for one in self._ask("/documents").json()]
        return (one for one in found if since <= one.at < until)

    def _ask(self, path: str) -> httpx.Response:
        try:
            return self._client.get(self._url + path)
        except httpx.TransportError as error:
            raise Unavailable(f"{self._url} cannot be reached: {type(error).__name__}") from error


def _document(said: dict[str, Any]) -> Document:
    return Document(said["id"], said["key"], said["kind"], said["body"], datetime.fromisoformat(said["at"]))


def main(port: int, file: str) -> None:
    """Serve until killed."""
    mode: dict[str, Any] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

        def do_GET(self) -> None:
            with contextlib.closing(sqlite3.connect(file)) as db:
                key = self.path.partition("?key=")[2]
                where, values = ("where key = ?", [key]) if "?key=" in self.path else ("", [])
                found = db.execute(f"select id, key, kind, body, at from document {where} order by id", values).fetchall()  # noqa: S608
            said = [{"id": f"D{id_}", "key": key, "kind": kind, "body": json.loads(body), "at": at} for id_, key, kind, body, at in found]
            self._answer(404 if values and not said else 200, said[0] if values and said else said)

        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == "/mode":
                mode.clear()
                mode.update(said)
                self._answer(200, {})
                return
            with lock:
                now = dict(mode) if mode.get("times", 1) > 0 else {}
                mode["times"] = mode.get("times", 1 << 30) - 1
            time.sleep(now.get("before_s", 0))
            if "reject" in now:
                self._answer(422, now["reject"])
                return
            body = {**said["body"], "quantity": "0"} if now.get("garble") else said["body"]
            with contextlib.closing(sqlite3.connect(file, timeout=20)) as db:
                db.execute(
                    "insert into document (key, kind, body, at) values (?, ?, ?, ?) on conflict (key) do nothing",
                    (said["key"], said["kind"], json.dumps(body), datetime.now(UTC).isoformat()),
                )
                db.commit()
                ((id_,),) = db.execute("select id from document where key = ?", (said["key"],))
            time.sleep(now.get("after_s", 0))
            self._answer(200, {"id": f"D{id_}"})

        def _answer(self, status: int, said: Any) -> None:
            body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            with contextlib.suppress(OSError):  # nobody waits for it any more
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("pragma journal_mode = wal")
        db.execute(TABLE)
    ThreadingHTTPServer((HOST, port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
