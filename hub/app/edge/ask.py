"""What an edge is asked on its own machine, by commands and by the demo's console."""

import json
import os
import urllib.error
import urllib.request
from typing import Any

from events.errors import HubError, Refused, Unavailable
from hub.app.edge.config import Configured

ASK_S = 5.0


def ask(configured: Configured, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the edge that runs with this configuration answers. Raises `Unavailable` where none does."""
    url = f"http://{configured.config.listen}{path}"
    headers = {"content-type": "application/json"}
    if token := os.environ.get("HUB_EDGE_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=ASK_S) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            detail = str(json.load(error)["detail"])
        except (ValueError, KeyError, TypeError):
            detail = str(error)
        raise (Unavailable if error.code == 503 else Refused)(detail) from error
    except (OSError, ValueError) as error:
        raise Unavailable(f"no edge answers at {url} ({error}): start it with `hub edge --config {configured.document.path}`") from error
    if "edge" in found and found["edge"] != configured.config.edge:
        raise HubError(f"at {url} the edge {found['edge']!r} answers, not {configured.config.edge!r}: correct `listen`")
    return found


def status(configured: Configured) -> dict[str, Any]:
    """`hub edge status --json`: what the edge says, or while none answers what its spool tells, without rates and sources."""
    from adapters.edge.spool import Spool
    from hub.app.edge.process import spool_status

    try:
        return ask(configured, "/status")
    except Unavailable as error:
        spool = Spool(configured.at(configured.config.spool.path), "", bytes_max=configured.config.spool.max, read_only=True)
        try:
            found = spool_status(spool)
        finally:
            spool.close()
        return {**found, "line": {"url": configured.config.hub.url, "up": False, "trouble": str(error)}, "sources": []}


def is_well(status: dict[str, Any]) -> bool:
    """All zeros: the line is up, nothing waits, every source is connected."""
    return bool(status["line"]["up"] and not status["backlog"] and all(one["connected"] for one in status["sources"]))
