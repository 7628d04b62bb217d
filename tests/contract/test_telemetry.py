"""What a running hub tells of itself: numbers that are the log's, of all processes, after kill -9 too, and spans linked to the sources' traces."""

import http.client
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from events.errors import Unavailable
from hub import telemetry
from hub.app import metrics, tracing, worker
from hub.app.home import Home
from hub.app.servers import process
from hub.app.servers.process import free_port
from hub.app.settings import ConfigError, Settings
from hub.app.supervisor import read_processes
from hub.app.wiring import views
from hub.intake.door import Loop
from hub.log.follow import Follower, Following
from hub.log.migrate import migrate
from hub.log.store import Accepted, Duplicate, Log
from replay.rebuild import rebuild
from tests.conftest import new_database
from tests.facts import START, as_role, received

ROOT = Path(__file__).resolve().parents[2]
HUB = [sys.executable, "-c", "from hub.app.cli import main; main()"]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"


class Collector:
    """An OTLP collector: takes spans and metrics by HTTP and keeps them."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: dict[str, Any] = {}
        outer = self

        class Take(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    found = ExportTraceServiceRequest.FromString(body)
                    outer.spans += [s for r in found.resource_spans for scope in r.scope_spans for s in scope.spans]
                else:
                    told = ExportMetricsServiceRequest.FromString(body)
                    for r in told.resource_metrics:
                        role = next(a.value.string_value for a in r.resource.attributes if a.key == "hub.role")
                        outer.metrics |= {f"{role} {m.name}": m for scope in r.scope_metrics for m in scope.metrics}
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Take)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def linked(self, trace: str) -> dict[str, set[str]]:
        """Names of spans with a link to that trace, each with the views it is of."""
        found: dict[str, set[str]] = {}
        for span in list(self.spans):
            if any(f"00-{link.trace_id.hex()}-{link.span_id.hex()}-01" == trace for link in span.links):
                found.setdefault(span.name, set()).update(a.value.string_value for a in span.attributes if a.key == "hub.view")
        return found


@dataclass
class Running:
    """A hub that serves."""

    port: int
    home: Home
    collector: Collector

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body or None, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(self, keys: list[str], trace: str | None = None) -> list[str]:
        """The outcome of each fact."""
        facts = [
            {
                "type": "procurement.goods_received", "source": "erp", "key": key, "occurred_at": "2026-01-05T06:00:00Z",
                "data": {"receipt": key, "things": [{"item": "A", "lot": "L", "quantity": {"value": "1", "unit": "EA"}}], "location": "WH"},
            }
            for key in keys
        ]  # fmt: skip
        headers = {"Content-Type": "application/json"} | ({"traceparent": trace} if trace is not None else {})
        status, said = self.ask("POST", "/v1/facts", json.dumps(facts).encode(), headers)
        assert status == 200, said
        return [row["outcome"] for row in json.loads(said)["parts"][0]["rows"]]

    def scrape(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of /metrics, read by Prometheus's own parser; each series is there once."""
        status, said = self.ask("GET", "/metrics")
        assert status == 200
        found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(said.decode()):
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in found
                found[key] = sample.value
        return found

    def value(self, name: str, **labels: str) -> float | None:
        return self.scrape().get((name, frozenset(labels.items())))

    def sql(self, query: str) -> Any:
        with psycopg.connect(self.command("status")["database_url"]) as connection:
            return (connection.execute(query.encode()).fetchone() or (None,))[0]

    def command(self, *words: str, **more: str) -> Any:
        env = {**os.environ, "HUB_HOME": str(self.home.path), "HUB_LISTEN": f"127.0.0.1:{self.port}", **more}
        done = subprocess.run([*HUB, *words, "--json"], env=env, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        return json.loads(done.stdout)

    def pid(self, role: str) -> int | None:
        return next((one.pid for one in read_processes(self.home) if one.role == role), None)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    collector, port, home = Collector(), free_port(), tmp_path_factory.mktemp("telemetry") / "home"
    env = {
        **os.environ, "HUB_HOME": str(home), "HUB_LISTEN": f"127.0.0.1:{port}", "HUB_WATCH": str(home.parent / "in"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }  # fmt: skip
    hub = subprocess.Popen([*HUB, "serve", "--json"], env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert hub.stdout is not None
        assert json.loads(hub.stdout.readline())["home"] == str(home)
        yield Running(port, Home(home), collector)
    finally:
        hub.send_signal(signal.SIGTERM)
        hub.communicate(timeout=30)
        collector.close()


def until(happened: Callable[[], bool], seconds: float = 20) -> bool:
    return process.wait_until(happened, seconds, every=0.1)


def test_a_trace_goes_from_a_request_through_the_log_to_the_spans_of_every_follower(running: Running) -> None:
    names = {view.name for view in views()}
    assert running.post(["T1", "T2"], TRACE) == ["accepted", "accepted"]
    assert until(lambda: running.collector.linked(TRACE).get("follow batch") == names), running.collector.linked(TRACE)
    assert running.collector.linked(TRACE).keys() == {"intake batch", "append", "follow batch"}
    intake, append = (
        next(s for s in running.collector.spans if s.name == name and any(link.trace_id.hex() == TRACE[3:35] for link in s.links))
        for name in ("intake batch", "append")
    )
    assert append.parent_span_id == intake.span_id
    assert {a.key: a.value.int_value for a in append.attributes}["hub.facts"] == 2
    _, said = running.ask("GET", "/v1/events?limit=1000")
    assert {row["traceparent"] for row in json.loads(said) if row["business_key"] in ("T1", "T2")} == {TRACE}
    assert running.post(["T1", "T2"], OTHER) == ["duplicate", "duplicate"]
    assert until(lambda: "append" in running.collector.linked(OTHER))
    assert "follow batch" not in running.collector.linked(OTHER)  # the log keeps the trace that brought the fact first


def test_a_rebuild_is_linked_to_where_its_facts_came_from_and_works_without_its_collector(running: Running) -> None:
    running.post(["T3"], TRACE)
    running.command("replay", "rebuild", "--all", "--restart", OTEL_EXPORTER_OTLP_ENDPOINT=running.collector.url)
    assert running.collector.linked(TRACE)["replay batch"] == {view.name for view in views()}
    running.command("replay", "rebuild", "--all", "--restart", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")


@pytest.mark.parametrize("trace", ["rubbish", "ff" + TRACE[2:], "0" * 5000, TRACE + "-x", ""])
def test_a_bad_trace_is_no_error_and_not_kept(running: Running, trace: str) -> None:
    key = f"bad {len(trace)} {trace[:2]}"
    assert running.post([key], trace) == ["accepted"]
    _, said = running.ask("GET", "/v1/events?limit=1000")
    assert [row["traceparent"] for row in json.loads(said) if row["business_key"] == key] == [None]


def test_numbers_are_those_of_the_log_and_each_process_has_its_own_after_kill_too(running: Running) -> None:
    repeated = running.value("hub_append_facts_total", outcome="duplicate", role="hub-api") or 0
    running.post([f"N{n}" for n in range(300)])
    running.post([f"N{n}" for n in range(200)])
    running.ask("POST", "/v1/facts", b"what is this")
    (Path(running.home.path).parent / "in" / "a.json").write_text("what is that")
    assert until(lambda: running.sql("select count(*) from view_quarantine.entry") == 2)
    head = running.sql("select count(*) from log.event")

    def told() -> bool:
        found = running.scrape()
        accepted = sum(v for (name, labels), v in found.items() if name == "hub_append_facts_total" and ("outcome", "accepted") in labels)
        folded = [v for (name, _), v in found.items() if name == "hub_view_facts_total"]
        return accepted == head and sorted(folded) == [head] * len(views())

    assert until(told), running.scrape()
    assert running.value("hub_log_position") == head
    assert running.value("hub_quarantine_open") == 2
    assert {running.value("hub_view_position", view=view.name) for view in views()} == {head}
    assert {running.value("hub_view_lag_facts", view=view.name) for view in views()} == {0}
    assert (running.value("hub_append_facts_total", outcome="duplicate", role="hub-api") or 0) - repeated == 200
    held = {"adapter": "folder", "outcome": "quarantined", "role": "hub-intake"}
    assert until(lambda: running.value("hub_intake_deliveries_total", **held) == 1)  # a process leaves its numbers now and then
    assert running.value("hub_adapter_connected", adapter="folder", role="hub-intake") == 1
    before = running.pid("hub-follow")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert until(lambda: running.pid("hub-follow") not in (None, before))
    assert until(lambda: running.value("process_start_time_seconds", role="hub-follow") is not None)
    running.post(["after"])
    assert until(lambda: running.value("hub_view_facts_total", view="stock", role="hub-follow") == 1)  # it counts anew, from 0
    assert running.value("hub_process_restarts_total", role="hub-follow") == 1
    assert running.value("hub_process_up", role="hub-follow") == 1
    assert running.value("hub_log_position") == head + 1


def test_what_a_dead_process_left_is_not_shown_but_that_it_is_gone(tmp_path: Path) -> None:
    home, mine = Home.open(tmp_path), process.start_ticks(os.getpid()) or 0
    for role, started in (("hub-dead", mine - 1), ("hub-lives", mine)):
        said = f'# process {os.getpid()} {started}\n# TYPE hub_retries_total counter\nhub_retries_total{{loop="x"}} 3.0\n'
        (home.metrics / f"{role}.prom").write_text(said)
    (home.metrics / "half.prom").write_text("# proc")
    found = {
        (s.name, s.labels["role"]): s.value for m in metrics._Processes(home, "hub-api").collect() for s in m.samples if "role" in s.labels
    }
    assert found["hub_retries_total", "hub-lives"] == 3
    assert ("hub_retries_total", "hub-dead") not in found
    assert found["hub_process_up", "hub-dead"] == 0
    assert ("hub_process_up", "half") not in found


def test_labels_are_bounded_and_hold_nothing_of_the_data(running: Running) -> None:
    running.post([f"L{n}" for n in range(500)], OTHER)
    names = {name for _, labels in running.scrape() for name, _ in labels}
    assert names <= {"outcome", "error", "adapter", "view", "loop", "level", "role", "kind", "le"}
    before = len(running.scrape())
    running.post([f"M{n}" for n in range(500)], TRACE)
    time.sleep(0.1)
    assert len(running.scrape()) == before


def test_a_collector_gets_the_same_numbers(running: Running) -> None:
    running.post([f"C{n}" for n in range(20)])
    wanted = running.value("hub_append_facts_total", outcome="accepted", role="hub-api")
    batches = running.value("hub_append_batch_facts_count", role="hub-api")
    sent = running.collector.metrics

    def told() -> bool:
        found = sent.get("hub-api hub_append_facts_total")
        return found is not None and any(
            p.as_double == wanted and p.attributes[0].value.string_value == "accepted" for p in found.sum.data_points
        )

    assert until(told)
    (point,) = sent["hub-api hub_append_batch_facts"].histogram.data_points
    assert (point.count, sum(point.bucket_counts)) == (batches, batches)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1


def test_neither_digest_nor_views_know_the_trace(pg_owner_url: str) -> None:
    digests = []
    for traces in ([""] * 3, [TRACE, OTHER, ""]):
        with new_database(pg_owner_url) as owner:
            migrate(owner)
            log = Log(as_role(owner, "hub_door"), now=lambda: START)
            facts = [received(f"R{n}", "A", "L1", "5", minute=n) for n in range(3)]
            traced = [replace(f, envelope=replace(f.envelope, traceparent=t)) for f, t in zip(facts, traces, strict=True)]
            assert {type(r) for r in log.append(traced)} == {Accepted}
            assert {type(r) for r in log.append(facts)} == {Duplicate}
            assert [f.envelope.traceparent for f in log.read(0, 9)] == traces
            digests.append({name: done.digest for name, done in rebuild(as_role(owner, "hub_follow"), views())[1].items()})
            log.close()
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, ["OTEL_EXPORTER_OTLP_ENDPOINT", "http://"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "x" * 5000}, ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]),
    ],
)  # fmt: skip
def test_a_collector_that_cannot_be_is_refused(env: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        tracing.named("TRACES", env)
    assert [word for word in words if word not in str(refused.value)] == []
    assert len(str(refused.value)) < 300


def test_without_a_collector_there_is_none_and_nothing_is_imported() -> None:
    none = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}
    assert [tracing.named("TRACES", env) for env in ({}, none, {**none, "OTEL_SDK_DISABLED": ""})] == [False, False, True]
    code = "import sys, hub.app.worker, hub.telemetry as t, hub.app.tracing as x; x.exported('r').__enter__(); print(any('opentelemetry' in m for m in sys.modules))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_each_loop_waits_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, waiting = threading.Event(), []

    def fails() -> None:
        stop.set()
        raise Unavailable("nothing is there")

    def run_all(works: list[Callable[[], None]], _: threading.Event) -> None:
        for work in works:
            stop.clear()
            work()

    monkeypatch.setattr(worker, "_run_all", run_all)
    monkeypatch.setattr(telemetry, "backs_off", lambda loop, seconds: waiting.append(loop) if seconds else None)
    for kind in (Following, Follower, Loop):
        monkeypatch.setattr(kind, "run", lambda self, *_: fails())
    hub: Any = SimpleNamespace(
        settings=Settings(home=Path(), relay_brokers="k:1", kafka_brokers="k:1", watch=Path()),
        follow_url="",
        door_url="",
        intake=lambda log: None,
    )
    for role in (worker.run_relay, worker.run_intake, worker.run_follow):
        role(hub, stop)
    assert waiting == ["the Kafka relay", "intake folder", "intake kafka", *(f"view {view.name}" for view in views())]
