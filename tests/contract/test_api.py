"""The HTTP API on a real log: what a status means, what is kept, who may ask."""

import json
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketDisconnect

from adapters.http_queue import HttpQueue, QueueFull
from events.errors import Corrupt, Refused, Unavailable
from hub import limits
from hub.app.api import make_app
from hub.app.home import Home
from hub.app.servers.postgres import Database, PrivateServer
from hub.app.servers.process import free_port
from hub.app.settings import Secret, Settings
from hub.app.wiring import Hub
from hub.intake.delivery import Delivery, Outcome
from hub.intake.door import Loop
from hub.log.migrate import migrate
from hub.log.store import Log
from tests.contract.adapter_http import Served

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def hub(fresh_database: str, tmp_path: Path) -> Iterator[Hub]:
    migrate(fresh_database)
    opened = Hub(Settings(home=tmp_path), Database(fresh_database))
    yield opened
    opened.log.close()


@pytest.fixture
def client(hub: Hub) -> Iterator[TestClient]:
    queue = HttpQueue(limits.HTTP_WAITING_MAX)
    stop = threading.Event()
    loop = threading.Thread(target=Loop(queue, hub.intake(), print).run, args=(stop,))
    loop.start()
    yield TestClient(make_app(hub, queue), base_url="http://127.0.0.1")
    stop.set()
    loop.join()


def row(key: str, quantity: object = "5", **more: Any) -> dict[str, Any]:
    thing = {"item": "A", "lot": "L1", "quantity": {"value": quantity, "unit": "EA"}}
    data = {"receipt": key, "things": [thing], "location": "WH", "supplier": "ACME"}
    return {
        "type": "procurement.goods_received", "source": "erp:main", "key": key, "occurred_at": "2026-01-05T06:00:00Z", "data": data, **more,
    }  # fmt: skip


def stored(hub: Hub) -> list[tuple[str, str]]:
    with psycopg.connect(hub.database.owner_url) as connection:
        return connection.execute("select type, business_key from log.event order by position").fetchall()


def test_a_fact_is_durable_when_it_is_answered(client: TestClient, hub: Hub) -> None:
    answer = client.post("/v1/facts", json=row("R1"))
    assert answer.status_code == 200
    assert stored(hub) == [("procurement.goods_received", "R1")]
    (line,) = answer.json()["parts"][0]["rows"]
    assert (line["outcome"], line["business_key"], line["position"]) == ("accepted", "R1", 1)
    assert client.post("/v1/facts", json=row("R1")).json()["outcome"] == "duplicate"


def test_a_mixed_batch_answers_row_by_row(client: TestClient, hub: Hub) -> None:
    client.post("/v1/facts", json=row("R1"))
    answer = client.post("/v1/facts", json=[row("R1"), row("R2"), row("R1", "6"), row("R3", "half"), row("R4")])
    assert answer.status_code == 207
    rows = answer.json()["parts"][0]["rows"]
    assert [r["outcome"] for r in rows] == ["duplicate", "accepted", "conflict", "quarantined", "accepted"]
    assert "decimal string" in rows[3]["reason"]
    assert [key for type_, key in stored(hub) if not type_.startswith("integration.")] == ["R1", "R2", "R4"]


def test_what_cannot_be_mapped_is_kept_and_says_why(client: TestClient, hub: Hub) -> None:
    body = b'{"type": "procurement.goods_received", "key": "R1", "key": "R2"}'
    answer = client.post("/v1/facts", content=body)
    assert answer.status_code == 422
    assert "'key' stands twice" in answer.json()["parts"][0]["rows"][0]["reason"]
    with psycopg.connect(hub.database.owner_url) as connection:
        assert connection.execute("select body from log.delivery").fetchall() == [(body,)]
    assert [type_ for type_, _ in stored(hub)] == ["integration.delivery_quarantined"]


def test_a_conflict_alone_is_409(client: TestClient) -> None:
    client.post("/v1/facts", json=row("R1"))
    assert client.post("/v1/facts", json=row("R1", "6")).status_code == 409


@pytest.mark.parametrize("name", ["integration.delivery_quarantined", "os:system", "procurement.unheard_of", 7, None])
def test_types_come_from_the_registry_only(client: TestClient, name: object) -> None:
    assert client.post("/v1/facts", json=row("R1", type=name)).status_code == 422


def test_newline_delimited_and_cloudevents(client: TestClient, hub: Hub) -> None:
    lines = "\n".join(json.dumps(row(f"N{n}")) for n in range(3))
    assert client.post("/v1/facts", content=lines).status_code == 200
    event = {"specversion": "1.0", "id": "77", "source": "erp:main", "type": "procurement.goods_received", "time": "2026-01-05T06:00:00Z",
             "businesskey": "C1", "data": row("C1")["data"]}  # fmt: skip
    assert client.post("/v1/facts", json=[event]).json()["parts"][0]["format"] == "cloudevents-json"
    assert [key for _, key in stored(hub)] == ["N0", "N1", "N2", "C1"]


def test_bad_requests_say_what_to_do(client: TestClient) -> None:
    assert client.post("/v1/facts", content=b"").status_code == 400
    big = client.post("/v1/facts", content=b"x" * (limits.HTTP_BODY_BYTES_MAX + 1))
    assert big.status_code == 413
    assert "in parts" in big.json()["detail"]
    assert client.get("/v1/trace/A", params={"direction": "sideways"}).status_code == 400


def test_a_full_queue_asks_the_client_to_come_back(hub: Hub) -> None:
    queue = HttpQueue(1)
    queue.submit(b"waits", {}, datetime.now(UTC))
    answer = TestClient(make_app(hub, queue), base_url="http://127.0.0.1").post("/v1/facts", json=row("R1"))
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"


def test_a_queue_that_holds_too_many_bytes_asks_the_client_to_come_back() -> None:
    queue = HttpQueue(9, 100)
    first = queue.submit(b"x" * 200, {}, datetime.now(UTC))  # alone, however large
    with pytest.raises(QueueFull, match="200 bytes"):
        queue.submit(b"x", {}, datetime.now(UTC))
    (taken,) = queue.receive(9, 0)
    with pytest.raises(QueueFull):  # what is in hand is in memory too
        queue.submit(b"x", {}, datetime.now(UTC))
    taken.done(Outcome("", ()))
    assert first.done()
    queue.submit(b"x" * 60, {}, datetime.now(UTC))
    queue.submit(b"x" * 40, {}, datetime.now(UTC))
    queue.receive(1, 0)
    queue.close()  # what was in hand is given up
    queue.submit(b"x" * 60, {}, datetime.now(UTC))
    with pytest.raises(QueueFull):
        queue.submit(b"x", {}, datetime.now(UTC))


def test_stock_is_read_after_it_was_written(client: TestClient) -> None:
    client.post("/v1/facts", json=row("R1", "2.50"))
    (line,) = client.get("/v1/stock").json()
    assert (line["location"], line["lot"], line["quantity"], line["unit"]) == ("WH", "L1", "2.5", "EA")
    assert client.get("/health/ready").json()["ready"] is True


@pytest.mark.parametrize("off", [timedelta(days=-1), timedelta(days=1)])
def test_readiness_asks_no_time_of_day(off: timedelta, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock by which facts are recorded is a day away from the database's."""
    client = TestClient(make_app(hub, HttpQueue(1)), base_url="http://127.0.0.1")
    hub.catch_up()
    with Log(hub.door_url, lambda: datetime.now(UTC) + off) as log:
        hub.intake(log).take([Delivery(json.dumps(row("R1")).encode(), "test", datetime.now(UTC))])
    for _ in range(2):
        assert client.get("/health/ready").status_code == 200  # behind, but not for long
    monkeypatch.setattr(limits, "READY_LAG_S", 0.0)
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert "a view is behind" in answer.json()["reasons"][0]
    hub.catch_up()
    monkeypatch.setattr(limits, "READY_LAG_S", 30.0)
    assert client.get("/health/ready").json() == {"ready": True, "oldest_unprocessed_s": 0.0, "reasons": []}


def test_readiness_says_why_not(fresh_database: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = ["the log is full"]
    private = Hub(hub.settings, Database(fresh_database, None, PrivateServer(Home(tmp_path))))
    client = TestClient(make_app(private, HttpQueue(1), lambda: trouble[0]), base_url="http://127.0.0.1")
    assert client.get("/health/ready").json()["reasons"] == ["the log is full"]
    trouble[0] = ""
    assert client.get("/health/ready").status_code == 200
    monkeypatch.setattr(limits, "DISK_FREE_BYTES_MIN", 1 << 62)
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert f"the disk under {tmp_path} has" in answer.json()["reasons"][0]


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}])
def test_without_a_token_only_this_machine_may_ask(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/v1/stock", headers=headers).status_code == 403


def test_a_test_client_is_no_machine_of_ours(hub: Hub) -> None:
    assert TestClient(make_app(hub, HttpQueue(1))).get("/health/live").status_code == 403  # its Host is testserver


@pytest.fixture
def guarded(hub: Hub) -> TestClient:
    """As others reach it: with a token."""
    opened = Hub(Settings(home=hub.settings.home, api_host="0.0.0.0", api_token=Secret(TOKEN)), hub.database)
    return TestClient(make_app(opened, HttpQueue(4)), base_url="http://hub.example:8080")


@pytest.mark.parametrize(
    ("origin", "code"),
    [("http://hub.example:8080", 200), ("https://HUB.example:8080", 200), ("http://evil.example", 403), ("null", 403), ("", 403)],
)
def test_other_sites_pages_cannot_use_a_browsers_login(guarded: TestClient, origin: str, code: int) -> None:
    basic = b64encode(f"anyone:{TOKEN}".encode()).decode()
    found = guarded.get("/health/live", headers={"Authorization": f"Basic {basic}", "Origin": origin})
    assert found.status_code == code
    assert guarded.cookies or code == 403
    if code == 403:
        assert found.headers["content-type"] == "application/problem+json"
        with (
            pytest.raises(WebSocketDisconnect),
            guarded.websocket_connect("/ws", headers={"Origin": origin, "Authorization": f"Basic {basic}"}),
        ):
            pass


@pytest.mark.parametrize(
    "headers",
    [
        {b"Cookie": b"millwright=\xe9"},
        {b"Cookie": b"millwright"},
        {b"Authorization": b"Bearer \xe9"},
        {b"Authorization": b"Basic \xe9"},
        {b"Authorization": b"Basic " + b64encode(b"\xe9:\xff")},
    ],
)
def test_a_login_of_any_bytes_is_wrong(guarded: TestClient, headers: dict[bytes, bytes]) -> None:
    assert guarded.get("/health/live", headers=headers).status_code == 401


def test_whatever_goes_wrong_is_a_problem_in_one_line(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(hub, HttpQueue(1))
    errors = {
        400: [Refused("no\nsuch thing"), psycopg.errors.NumericValueOutOfRange("bigint out of range")],
        503: [Unavailable("the log is away"), psycopg.OperationalError("server closed the connection\n\tunexpectedly")],
        500: [Corrupt("position 7 does not decode"), psycopg.errors.UndefinedTable("no such view"), ZeroDivisionError("a bug")],
    }

    def fails(error: Exception) -> Callable[[], None]:
        def route() -> None:
            raise error

        return route

    for code, found in errors.items():
        for n, error in enumerate(found):
            app.get(f"/boom/{code}/{n}")(fails(error))
    client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
    for code, found in errors.items():
        for n, error in enumerate(found):
            answer = client.get(f"/boom/{code}/{n}")
            assert (answer.status_code, answer.headers["content-type"]) == (code, "application/problem+json"), error
            detail = answer.json()["detail"]
            assert "\n" not in detail
            assert detail == " ".join(str(error).split()) or "hub-api.log" in detail
            assert (answer.headers.get("Retry-After") is not None) == (code == 503)
    assert [record.getMessage() for record in caplog.records if record.name == "hub.app.api"] == [
        "GET /boom/500/0: Corrupt: position 7 does not decode",
        "GET /boom/500/1: UndefinedTable: no such view",
    ]


def test_a_database_that_is_away_is_a_problem(hub: Hub) -> None:
    away = Hub(hub.settings, Database("postgresql://127.0.0.1:1/x"))
    client = TestClient(make_app(away, HttpQueue(1)), base_url="http://127.0.0.1")
    for path in ("/v1/stock", "/v1/trace/A", "/v1/exceptions", "/v1/events", "/v1/status", "/health/ready"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json"), path


def test_the_status_tells_no_address_of_the_database(client: TestClient) -> None:
    answer = client.get("/v1/status")
    assert answer.json().keys() >= {"processes", "head", "views", "oldest_unprocessed_s", "quarantine", "exceptions"}
    assert "postgresql://" not in answer.text  # it holds a password where the server is one's own


def test_what_no_text_can_hold_is_a_bad_request(client: TestClient) -> None:
    answer = client.get("/v1/trace/a%00b")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert "NUL" in answer.json()["detail"]
    assert client.get("/v1/events", params={"first": 10**30}).json() == []


@pytest.mark.parametrize(
    ("method", "path", "code", "allowed"),
    [
        ("GET", "/v1/facts", 405, "POST"),
        ("PUT", "/v1/facts", 405, "POST"),
        ("DELETE", "/epcis/capture", 405, "POST"),
        ("POST", "/v1/stock", 405, "GET"),
        ("POST", "/v1/trace/A/L1", 405, "GET"),
        ("GET", "/v1/nowhere", 404, None),
        ("PUT", "/epcis/", 404, None),
    ],
)
def test_wrong_methods_and_paths_below_a_console(hub: Hub, method: str, path: str, code: int, allowed: str | None) -> None:
    app = make_app(hub, HttpQueue(1))
    app.mount("/", PlainTextResponse("a page", 404))  # takes all that is left, as the console does
    answer = TestClient(app, base_url="http://127.0.0.1").request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (code, "application/problem+json")
    assert answer.headers.get("Allow") == allowed


def test_a_client_that_goes_amid_its_body_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    served = Served(port, 4)
    served.open()
    try:
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(b"POST /v1/facts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{")
            time.sleep(0.3)
        time.sleep(0.5)
    finally:
        served.close()
    assert [record for record in caplog.records if record.exc_info or "Exception" in record.getMessage()] == []
    assert served.receive(1, 0) == []


def test_with_a_token_every_request_needs_it(hub: Hub) -> None:
    opened = Hub(Settings(home=hub.settings.home, api_host="0.0.0.0", api_token=Secret(TOKEN)), hub.database)
    client = TestClient(make_app(opened, HttpQueue(4)), base_url="http://hub.example:8080")
    for path in ("/v1/stock", "/health/live", "/openapi.json", "/", "/nowhere"):
        answer = client.get(path)
        assert (answer.status_code, "Basic" in answer.headers["www-authenticate"]) == (401, True)
    wrong = TOKEN[:-1] + "0"
    basic = b64encode(f"anyone:{TOKEN}".encode()).decode()
    assert client.get("/v1/stock", headers={"Authorization": f"Bearer {wrong}"}).status_code == 401
    assert client.get("/v1/stock", headers={"Authorization": "Basic %%%"}).status_code == 401
    assert client.get("/v1/stock", headers={"Authorization": f"Basic {basic}"}).status_code == 200
    with pytest.raises(WebSocketDisconnect), TestClient(client.app, base_url="http://hub.example").websocket_connect("/ws"):
        pass
    answer = client.get("/health/live", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert TOKEN not in str(answer.headers)
    assert client.get("/health/live").status_code == 200  # the browser's cookie, set by the answer before
