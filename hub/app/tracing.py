"""Spans and numbers to a collector, by OTLP over HTTP, where OTEL_EXPORTER_OTLP_ENDPOINT (or that of traces or metrics alone) names one.

All else is OpenTelemetry's own environment: headers, time-outs, sampling, resource. Without an endpoint nothing of it is even imported.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prometheus_client import Metric

from hub import limits, telemetry
from hub.app.settings import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, MetricsData
    from opentelemetry.sdk.metrics.export import Metric as OtlpMetric
    from opentelemetry.sdk.resources import Resource

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
EXPORT_S = 60.0  # OTEL_METRIC_EXPORT_INTERVAL where it is not set


@contextlib.contextmanager
def exported(role: str, *, numbers: bool = True) -> Iterator[None]:
    """Export the spans of this process, and its numbers, for the time of a `with` block. Raises `ConfigError`."""
    with contextlib.ExitStack() as stack:
        if named("TRACES"):
            stack.enter_context(_spans(_resource(role)))
        if numbers and named("METRICS"):
            stack.enter_context(_numbers(_resource(role)))
        yield


def named(signal: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment names a collector for a signal. Raises `ConfigError` for an address or protocol that cannot be used."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get(f"OTEL_{signal}_EXPORTER", "otlp").lower() == "none":
        return False
    name = next((n for n in (_ENDPOINT.replace("OTLP", f"OTLP_{signal}"), _ENDPOINT) if environ.get(n)), None)
    if name is None:
        return False
    try:
        url = urlsplit(environ[name])
        valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{name} is not the address of a collector: write http://HOST:4318 or https://HOST")
    for protocol in (_PROTOCOL.replace("OTLP", f"OTLP_{signal}"), _PROTOCOL):
        if environ.get(protocol, "http/protobuf") != "http/protobuf":
            raise ConfigError(
                f"{protocol} names a protocol that the hub does not speak: write http/protobuf, which collectors take on port 4318"
            )
    return True


def _resource(role: str) -> "Resource":
    from opentelemetry.sdk.resources import Resource

    name = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "millwright"}
    return Resource.create({**name, "service.instance.id": f"{role}@{socket.gethostname()}", "hub.role": role})


@contextlib.contextmanager
def _spans(resource: "Resource") -> Iterator[None]:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    telemetry.trace_to(provider.get_tracer("millwright"))
    try:
        yield
    finally:
        telemetry.trace_to(None)
        _bounded(provider.shutdown)


@contextlib.contextmanager
def _numbers(resource: "Resource") -> Iterator[None]:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    exporter, stop, began = OTLPMetricExporter(), threading.Event(), time.time_ns()
    every_s = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or EXPORT_S * 1000) / 1000

    def export() -> None:
        exporter.export(otlp(telemetry.REGISTRY.collect(), resource, began))

    def last() -> None:
        export()
        exporter.shutdown()

    def run() -> None:
        while not stop.wait(every_s):
            export()

    threading.Thread(target=run, name="otlp metrics", daemon=True).start()
    try:
        yield
    finally:
        stop.set()
        _bounded(last)


def _bounded(end: Callable[[], object]) -> None:
    """Let the last go out, but do not wait long for a collector that is gone."""
    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(limits.TRACE_END_S)


def otlp(families: Iterable[Metric], resource: "Resource", began: int) -> "MetricsData":
    """Prometheus's families as OpenTelemetry's, under the same names; counted since `began`, ns since 1970."""
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    now = time.time_ns()
    scope = ScopeMetrics(InstrumentationScope("millwright"), [_metric(family, began, now) for family in families if family.samples], "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(family: Metric, began: int, now: int) -> "OtlpMetric":
    from opentelemetry.sdk.metrics import export as sdk

    unit = "s" if family.name.endswith("_seconds") else "1"
    if family.type == "histogram":
        histograms = [_histogram(*one, began, now) for one in _by_labels(family)]
        return sdk.Metric(family.name, family.documentation, unit, sdk.Histogram(histograms, sdk.AggregationTemporality.CUMULATIVE))
    points = [sdk.NumberDataPoint(sample.labels, began, now, sample.value) for sample in family.samples]
    if family.type == "gauge":
        return sdk.Metric(family.name, family.documentation, unit, sdk.Gauge(points))
    sums = sdk.Sum(points, sdk.AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return sdk.Metric(f"{family.name}_total", family.documentation, unit, sums)


def _by_labels(family: Metric) -> "Iterator[tuple[dict[str, str], list[tuple[float, float]], float]]":
    """The histograms of a family: labels, (bound, count up to it) rising, sum."""
    found: dict[tuple[tuple[str, str], ...], tuple[list[tuple[float, float]], list[float]]] = {}
    for sample in family.samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        buckets, total = found.setdefault(labels, ([], []))
        if "le" in sample.labels:
            buckets.append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            total.append(sample.value)
    for labels, (buckets, (sum_,)) in found.items():
        yield dict(labels), buckets, sum_


def _histogram(labels: dict[str, str], buckets: list[tuple[float, float]], total: float, began: int, now: int) -> "HistogramDataPoint":
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    upto = [count for _, count in buckets]
    counts = [int(count - before) for count, before in zip(upto, [0.0, *upto[:-1]], strict=True)]
    bounds = [bound for bound, _ in buckets[:-1]]
    nothing = float("nan")  # smallest and largest are not kept
    return HistogramDataPoint(labels, began, now, int(upto[-1]), total, counts, bounds, nothing, nothing)
