"""`hub edge check`: tries the spool, the line and every source, and says what it saw."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from adapters.edge.forwarder import HubClient
from adapters.edge.spool import Spool
from events.errors import HubError, Unavailable
from hub.app.edge.config import Configured
from hub.app.edge.sources import delivery_sources, reading_sources


def checks(configured: Configured) -> Iterator[dict[str, Any]]:
    """A row a check: what, ok, seen."""
    config = configured.config
    yield {"what": "configuration", "ok": True, "seen": f"{configured.document.path} of edge {config.edge}, plant time {config.plant.zone}"}
    yield _row("spool", lambda: _spool(configured))
    yield _row("line to the hub", lambda: _line(configured))
    for part in config.folders:
        yield _row(f"folder {part.name}", lambda part=part: _folder(configured, part))  # type: ignore[misc]
    for name, adapter in delivery_sources(configured):
        yield _row(f"{name} ({adapter.name})", adapter.check)
    for name, source in reading_sources(configured):
        yield _row(f"{name} ({source.name})", source.check)


def _row(what: str, check: Callable[[], Sequence[str]]) -> dict[str, Any]:
    try:
        return {"what": what, "ok": True, "seen": "; ".join(check())}
    except HubError as error:
        return {"what": what, "ok": False, "seen": str(error)}


def _spool(configured: Configured) -> Sequence[str]:
    path = configured.at(configured.config.spool.path)
    if not path.exists():
        return [f"{path} is not there yet: it is made when the edge starts"]
    spool = Spool(path, configured.config.edge, read_only=True)
    try:
        return [f"{path}, epoch {spool.epoch}, {sum(lane.backlog for lane in spool.lanes())} entries wait for the hub"]
    finally:
        spool.close()


def _line(configured: Configured) -> Sequence[str]:
    from hub.app.edge.process import tls_of

    config = configured.config
    client = HubClient(config.hub.url, tls_of(configured))
    try:
        answer = client.lanes(config.edge, "check")
    finally:
        client.close()
    ahead_s = answer.ahead_s(datetime.now(UTC))
    return [f"{config.hub.url} answers and knows {config.edge}; our clock is {ahead_s:+.1f} s from the hub's"]


def _folder(configured: Configured, part: Any) -> Sequence[str]:
    path = configured.at(part.path)
    if not path.is_dir():
        raise Unavailable(f"{path} is no folder: make it, or correct its path")
    return [f"{path}, {sum(1 for one in path.iterdir() if one.is_file())} files wait"]
