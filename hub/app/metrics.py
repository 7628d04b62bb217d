"""`/metrics`: the numbers of all processes of a home, and of the log and its views, in Prometheus's text.

Each process leaves its numbers in `run/metrics/ROLE.prom` every `limits.METRICS_WRITE_S`, with its pid and start; whoever serves `/metrics`
adds the label `role`. So nobody asks a process that hangs, a scrape never waits, and each series is one process's: it starts anew at 0 with
the process, which is how Prometheus expects a counter to be reset. What a killed process left is not shown any more; that it is gone is.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from events.errors import HubError
from hub import limits, telemetry
from hub.app import answers
from hub.app.home import Home
from hub.app.servers import process
from hub.app.supervisor import read_processes
from hub.app.wiring import Hub

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_log = logging.getLogger(__name__)
_MARK = "# process "


@contextlib.contextmanager
def left(home: Home, role: str) -> Iterator[None]:
    """Leave this process's numbers for `/metrics` for the time of a `with` block, and none after it."""
    path, stop = home.metrics / f"{role}.prom", threading.Event()
    mark = f"{_MARK}{os.getpid()} {process.start_ticks(os.getpid()) or 0}\n".encode()
    own = ProcessCollector(registry=None)

    def leave() -> None:
        while True:
            try:
                beside = path.with_suffix(".new")
                beside.write_bytes(mark + _text([telemetry.REGISTRY, own]))
                beside.replace(path)  # not flushed: it is worth nothing after a crash of the machine
            except OSError as error:
                _log.warning("the numbers of %s cannot be left in %s (%s): correct its permissions or free some space", role, path, error)
            if stop.wait(limits.METRICS_WRITE_S):
                return

    leaver = threading.Thread(target=leave, name="metrics", daemon=True)
    leaver.start()
    try:
        yield
    finally:
        stop.set()
        leaver.join(timeout=1)
        path.unlink(missing_ok=True)


def text(hub: Hub, role: str) -> bytes:
    """Everything, as the process of `role` sees it: its own numbers as they are now."""
    home = Home(hub.settings.home)
    return _text([_Processes(home, role), _State(hub)])


def _text(parts: Iterable[Collector | CollectorRegistry]) -> bytes:
    return b"".join(generate_latest(part) for part in parts)


class _Processes(Collector):
    """The numbers of each process with its role, and which processes there are."""

    def __init__(self, home: Home, role: str) -> None:
        self._home, self._role = home, role

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        age = GaugeMetricFamily("hub_process_metrics_age_seconds", "How old the numbers of a process are.", labels=["role"])
        up = GaugeMetricFamily("hub_process_up", "Whether a process of the hub lives.", labels=["role"])
        restarts = CounterMetricFamily("hub_process_restarts", "Times that the supervisor started it again.", labels=["role"])
        _merge(merged, self._role, [*telemetry.REGISTRY.collect(), *ProcessCollector(registry=None).collect()])
        age.add_metric([self._role], 0.0)
        gone = set()
        for path in sorted(self._home.metrics.glob("*.prom")):
            if path.stem == self._role:
                continue
            try:
                written, said = path.stat().st_mtime, path.read_text("utf-8")
                pid, started = (int(word) for word in said.partition("\n")[0].removeprefix(_MARK).split())
            except (OSError, ValueError):
                continue  # ended just now, or not of ours
            if process.start_ticks(pid) != started:
                gone.add(path.stem)
                continue
            _merge(merged, path.stem, text_string_to_metric_families(said))
            age.add_metric([path.stem], max(0.0, time.time() - written))
        processes = read_processes(self._home)
        for one in processes:
            up.add_metric([one.role], 1)
            restarts.add_metric([one.role], one.restarts)
        for role in sorted(gone - {one.role for one in processes}):
            up.add_metric([role], 0)
        yield from merged.values()
        yield from (age, up, restarts)


def _merge(merged: dict[str, Metric], role: str, families: Iterable[Metric]) -> None:
    for family in families:
        metric = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        for sample in family.samples:
            metric.add_sample(sample.name, {**sample.labels, "role": role}, sample.value)


class _State(Collector):
    """The log and its views, by what the database says."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        try:
            found = answers.status(self._hub)
        except HubError as error:
            _log.warning("the numbers of the log are missing from /metrics: %s", error)
            yield GaugeMetricFamily("hub_log_up", "Whether the log answers.", 0)
            return
        yield GaugeMetricFamily("hub_log_up", "Whether the log answers.", 1)
        yield GaugeMetricFamily("hub_log_position", "The last position of the log: how many facts it has.", found["head"])
        yield GaugeMetricFamily("hub_quarantine_open", "Deliveries and lines that are held and not settled.", found["quarantine"])
        at = GaugeMetricFamily("hub_view_position", "The last position folded into a view.", labels=["view"])
        lag = GaugeMetricFamily("hub_view_lag_facts", "Facts that a view has not folded yet.", labels=["view"])
        waits = GaugeMetricFamily("hub_view_lag_seconds", "Since when the first of them waits; 0 at the head.", labels=["view"])
        stuck = GaugeMetricFamily("hub_view_stuck", "Whether a view stands still though facts wait (1).", labels=["view"])
        for view, position in found["views"].items():
            at.add_metric([view], position)
            lag.add_metric([view], max(0, found["head"] - position))
            waits.add_metric([view], found["waits_s"].get(view, 0.0))
            stuck.add_metric([view], int(view in found["stuck"]))
        kinds = GaugeMetricFamily("hub_exceptions_open", "Exceptions that are open, by kind.", labels=["kind"])
        for kind, count in found["exceptions_by_kind"].items():
            kinds.add_metric([kind], count)
        yield from (at, lag, waits, stuck, kinds)
