"""What the hub tells of its work: numbers and spans, told by the loops once a batch and never once a fact (docs/telemetry.md lists them).

The numbers of a process are in `REGISTRY`; `/metrics` shows those of all. Spans are made where `trace_to` has named a tracer, which a
process does that has somewhere to send them, and cost a compare elsewhere. A span names the traces its facts came from by links: a batch
has many and is the child of none. Labels are names from the code (adapters, views, outcomes), never names from data.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from events.base import Fact, Recorded
from hub import limits

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Tracer

L = TypeVar("L")
R = TypeVar("R")

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each: `process_start_time_seconds` says since when a process counts
REGISTRY = CollectorRegistry(auto_describe=True)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def _counter(name: str, words: str, *labels: str) -> Counter:
    return Counter(name, words, labels, registry=REGISTRY)


def _histogram(name: str, words: str, buckets: Sequence[float], *labels: str) -> Histogram:
    return Histogram(name, words, labels, buckets=buckets, registry=REGISTRY)


FACTS = _counter("hub_append_facts", "Facts that append has answered, by its answer.", "outcome")
APPEND_SECONDS = _histogram("hub_append_duration_seconds", "One append: from facts to durable, waiting for the lock included.", _SECONDS)
APPEND_SIZE = _histogram("hub_append_batch_facts", "Facts that shared one append.", _SIZES)
APPEND_FAILED = _counter("hub_append_failures", "Appends that were not answered, by the kind of error; they are tried again.", "error")

DELIVERIES = _counter("hub_intake_deliveries", "Deliveries that were made durable and acknowledged.", "adapter", "outcome")
INTAKE_SECONDS = _histogram("hub_intake_batch_duration_seconds", "One batch: from received to durable.", _SECONDS, "adapter")
INTAKE_SIZE = _histogram("hub_intake_batch_deliveries", "Deliveries that shared one batch.", _SIZES, "adapter")
CONNECTED = Gauge("hub_adapter_connected", "Whether an adapter has its source (1) or waits for it (0).", ["adapter"], registry=REGISTRY)

FOLDED = _counter("hub_view_facts", "Facts folded into a view, committed.", "view")
FOLLOW_SECONDS = _histogram("hub_view_batch_duration_seconds", "One batch of a follower: read, folded and committed.", _SECONDS, "view")
FOLLOW_SIZE = _histogram("hub_view_batch_facts", "Facts folded in one transaction.", _SIZES, "view")

RETRIES = _counter("hub_retries", "Times a loop has to try again.", "loop")
BACKOFF = Gauge("hub_backoff_seconds", "How long a loop waits before it tries again; 0 while it works.", ["loop"], registry=REGISTRY)
LOGGED = _counter("hub_log_messages", "Messages of this process, each repetition counted.", "level")
LOG_LOST = _counter("hub_log_lines_lost", "Log lines that could not be written.")


def backs_off(loop: str, seconds: float) -> None:
    """A loop failed and waits; 0 seconds: it works again."""
    if seconds:
        RETRIES.labels(loop).inc()
    BACKOFF.labels(loop).set(seconds)


def appending(append: Callable[[L, Sequence[Any]], list[R]]) -> Callable[[L, Sequence[Any]], list[R]]:
    """Decorator of a way into the log: tells each append, and makes a span of it."""

    @functools.wraps(append)
    def told(log: L, facts: Sequence[Any]) -> list[R]:
        if not facts:
            return append(log, facts)
        began = time.perf_counter()
        with span("append", (f.envelope.traceparent for f in facts if isinstance(f, Fact)), facts=len(facts)):
            try:
                results = append(log, facts)
            except Exception as error:
                APPEND_FAILED.labels(type(error).__name__).inc()
                raise
        APPEND_SECONDS.observe(time.perf_counter() - began)
        APPEND_SIZE.observe(len(facts))
        kinds = list(map(type, results))
        for kind in set(kinds):
            FACTS.labels(_OUTCOMES.get(kind.__name__, "accepted")).inc(kinds.count(kind))
        return results

    return told


_OUTCOMES = {"Duplicate": "duplicate", "Conflict": "conflict"}


def taken(adapter: str, outcomes: Mapping[str, int], seconds: float) -> None:
    """A batch of deliveries is acknowledged, so many by outcome; it was durable after so many seconds."""
    INTAKE_SECONDS.labels(adapter).observe(seconds)
    INTAKE_SIZE.labels(adapter).observe(sum(outcomes.values()))
    for outcome, count in outcomes.items():
        DELIVERIES.labels(adapter, outcome).inc(count)


def followed(view: str, facts: int, seconds: float) -> None:
    """A batch was folded into a view that is followed, and committed."""
    FOLDED.labels(view).inc(facts)
    FOLLOW_SECONDS.labels(view).observe(seconds)
    FOLLOW_SIZE.labels(view).observe(facts)


# -- spans ---------------------------------------------------------------------------------------------------------------------------

_tracer: Tracer | None = None


def trace_to(tracer: Tracer | None) -> None:
    """Make spans from now on, or no more."""
    global _tracer
    _tracer = tracer


def folded(name: str, view: str, facts: Sequence[Recorded], seconds: float) -> None:
    """A span for a batch that was folded just now: only then it is known which facts it had, and that it had any."""
    if _tracer is None:
        return
    ended = time.time_ns()
    attributes = {"view": view, "facts": len(facts), "first_position": facts[0].position, "last_position": facts[-1].position}
    links, told = _links((f.envelope.traceparent for f in facts), attributes)
    _tracer.start_span(name, links=links, attributes=told, start_time=ended - int(seconds * 1e9)).end(ended)


@contextlib.contextmanager
def _span(tracer: Tracer, name: str, traces: Iterable[str], attributes: dict[str, Any]) -> Iterator[None]:
    links, told = _links(traces, attributes)
    with tracer.start_as_current_span(name, links=links, attributes=told):
        yield


def span(name: str, traces: Iterable[str], **attributes: Any) -> contextlib.AbstractContextManager[None]:
    """A span for the time of a `with` block, linked to what the distinct ones of `traces` name."""
    return _NO_SPAN if _tracer is None else _span(_tracer, name, traces, attributes)


_NO_SPAN = contextlib.nullcontext()


def _links(traces: Iterable[str], attributes: dict[str, Any]) -> tuple[list[Link], dict[str, Any]]:
    """Links to distinct traces, as many as a span may have, and the attributes with the number of all."""
    from opentelemetry.trace import Link, SpanContext, TraceFlags

    distinct = dict.fromkeys(traces)
    distinct.pop("", None)
    links = []
    for one in list(distinct)[: limits.SPAN_LINKS_MAX]:
        _, trace, parent, flags = one.split("-")
        links.append(Link(SpanContext(int(trace, 16), int(parent, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))))
    return links, {f"hub.{name}": value for name, value in {**attributes, "traces": len(distinct)}.items()}
