"""HTTP as the plant's systems use it: one request at a time, sent again with back-off until the hub has answered for good."""

import argparse
import http.client
import os
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from hub.app.demo.plant.part import RETRY_FIRST_S, RETRY_MAX_S, Part, Stopped, arguments, note, stop_on_sigterm
from hub.app.demo.plant.plan import Message

TIMEOUT_S = 60.0  # longer than the hub waits for its log
# Everything in the request is durable: taken, in part or all in conflict (409), or kept in quarantine (422). Other answers kept nothing.
_FINAL = {*range(200, 300), 409, 422}


class Http:
    """A road over HTTP/1.1 with one connection that is kept open."""

    window = 1

    def __init__(self, part: str, url: str, stop: threading.Event) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        self._part = part
        self._stop = stop
        made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = made(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT_S)
        self._url = url
        self._token = os.environ.get("HUB_API_TOKEN", "")
        self._arrived: list[int] = []

    def offer(self, index: int, message: Message) -> None:
        """Post until it is answered for good. Raises `Stopped`."""
        headers = {"Content-Type": message.content_type}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        wait_s = RETRY_FIRST_S
        while True:
            problem = self._post(message, headers)
            if not problem:
                self._arrived.append(index)
                return
            note(self._part, f"{self._url}{message.target}: {problem}; again in {wait_s:.1f} s")
            if self._stop.wait(wait_s):
                raise Stopped
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    def _post(self, message: Message, headers: dict[str, str]) -> str:
        """What is in the way; "" when the hub has it."""
        try:
            self._connection.request("POST", message.target, message.body, headers)
            answer = self._connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return f"no answer ({error!r})"
        return "" if answer.status in _FINAL else f"answered {answer.status} {said[:200].decode('utf-8', 'replace')}"

    def acknowledged(self, wait_s: float) -> Sequence[int]:
        """What was answered; waits only where nothing was."""
        if not self._arrived and wait_s > 0:
            self._stop.wait(wait_s)
        arrived, self._arrived = self._arrived, []
        return arrived

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def options(part: str) -> argparse.ArgumentParser:
    """The options of a part that posts."""
    parser = arguments(part, "HTTP")
    parser.add_argument(
        "--http", required=True, metavar="URL", help="the hub, such as http://127.0.0.1:8080; HUB_API_TOKEN holds its token"
    )
    return parser


def run(part: str, parser: argparse.ArgumentParser, *, wms_without_kafka: bool = False) -> int:
    """A whole part that posts."""
    chosen = parser.parse_args()
    stop = stop_on_sigterm()
    with_wms = wms_without_kafka and not chosen.kafka
    return Part(part, chosen, stop, with_wms=with_wms).run(Http(part, chosen.http, stop))
