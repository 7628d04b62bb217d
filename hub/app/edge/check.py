"""`hub edge check`: tries the spool, the line and every source, and says what it saw."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from adapters.edge.forwarder import Forwarder
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

    forwarder = Forwarder(_Nothing(configured.config.edge), configured.config.hub.url, tls_of(configured))  # type: ignore[arg-type]
    try:
        forwarder.step(threading.Event())
    finally:
        forwarder.close()
    return [
        f"{configured.config.hub.url} answers and knows {configured.config.edge}; our clock is {forwarder.line.skew_s:+.1f} s from the hub's"
    ]


def _folder(configured: Configured, part: Any) -> Sequence[str]:
    path = configured.at(part.path)
    if not path.is_dir():
        raise Unavailable(f"{path} is no folder: make it, or correct its path")
    return [f"{path}, {sum(1 for one in path.iterdir() if one.is_file())} files wait"]


class _Nothing:
    """A spool with nothing in it: to ask the hub how the line is."""

    def __init__(self, edge: str) -> None:
        self.edge, self.epoch = edge, "check"

    def lanes(self) -> list[Any]:
        return []

    def acknowledge(self, upto: dict[str, int]) -> None: ...

    def differs(self, upto: dict[str, int], runs: dict[str, str]) -> bool:
        return False

    def waiting(self, limit: int, bytes_max: int) -> list[Any]:
        return []

    def again(self, limit: int, bytes_max: int) -> list[Any]:
        return []
