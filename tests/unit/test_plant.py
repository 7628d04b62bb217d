"""The simulated plant: its plan is a pure function, consistent in itself, and says what the hub's own mappings say; its parts lose nothing."""

import hashlib
import http.server
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from events.base import Event, Fact, validated
from events.vocabulary import gs1_valid
from hub.app import answers, queries
from hub.app.demo.plant.plan import PARTS, Message, Plan, expected_exceptions, follow_seed, plan
from hub.app.home import Home
from hub.app.servers import process
from hub.app.servers.broker import HOST, Broker
from hub.app.settings import Settings
from hub.app.wiring import open_hub
from hub.intake.delivery import Delivery
from hub.intake.mapping import Context, Line
from projections.movements import OWN, movements
from tests.facts import START

ROOT = Path(__file__).parents[2]
SEEDS = [(7, 40), (1, 6), (2, 1), (99, 15)]
_PRINT = """
import hashlib, sys
from hub.app.demo.plant.plan import PARTS, plan
found = plan(int(sys.argv[1]), int(sys.argv[2]))
whole = hashlib.sha256()
for part in PARTS:
    for m in found.messages[part]:
        whole.update(repr((part, m.target, m.body, m.content_type, m.expected, m.due, m.after)).encode())
print(whole.hexdigest(), dict(found.exceptions))
"""


@cache
def _plan(seed: int, orders: int) -> Plan:
    return plan(seed, orders)


def _messages(planned: Plan) -> Iterator[tuple[str, Message]]:
    return ((part, message) for part in PARTS for message in planned.messages[part])


def _rows(message: Message) -> list[dict[str, Any]]:
    """The canonical facts or CloudEvents of a message, read by this test's own eyes."""
    try:
        value = json.loads(message.body)
    except ValueError:
        return [json.loads(line) for line in message.body.splitlines()]
    return value if isinstance(value, list) else value.get("facts", [value])


def _canonical(planned: Plan) -> Iterator[tuple[dict[str, Any], Event, datetime]]:
    """Row, event and effective time of every accepted canonical fact and CloudEvent."""
    for part, message in _messages(planned):
        if part in ("supplier", "epcis") or any(e.outcome != "accepted" for e in message.expected):
            continue
        for row, expected in zip(_rows(message), message.expected, strict=True):
            assert (row["source"], row.get("key") or row["businesskey"]) == (expected.source, expected.business_key)
            version = row.get("schema_version") or (2 if row["type"] == "production.output_produced" else 1)
            at = row.get("effective_at") or row.get("time") or row["occurred_at"]
            yield row, validated(row["type"], version, row["data"]), datetime.fromisoformat(at)


def test_the_same_seed_gives_the_same_bytes_in_any_process() -> None:
    said = set()
    for hash_seed in ("0", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": "Asia/Tokyo" if hash_seed == "0" else "UTC"}
        run = subprocess.run([sys.executable, "-c", _PRINT, "7", "40"], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
        said.add(run.stdout)
    assert len(said) == 1
    other = subprocess.run([sys.executable, "-c", _PRINT, "8", "40"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert other not in said


def test_it_has_the_size_of_a_demo() -> None:
    assert 1500 <= sum(e.outcome == "accepted" for _, m in _messages(_plan(7, 40)) for e in m.expected) <= 4000


@pytest.mark.parametrize(("seed", "orders"), SEEDS)
def test_stock_is_never_negative_in_effective_time(seed: int, orders: int) -> None:
    """Folded anew from what is sent, with the hub's own rules of movement, reversals included."""
    lines: list[tuple[datetime, int, tuple[str, ...], Decimal]] = []
    by_key = {(row["source"], row.get("key") or row["businesskey"]): event for row, event, _ in _canonical(_plan(seed, orders))}
    undone: Counter[tuple[str, str]] = Counter()
    for row, event, at in _canonical(_plan(seed, orders)):
        sign, moved = 1, movements(event)
        if row["type"] == "inventory.movement_reversed":
            name = (row["source"], row["data"]["original"])
            undone[name] += 1
            sign, moved = -1, movements(by_key[name])
            assert moved
        for m in moved:
            for account, status, by in ((m.source, m.source_status, -m.quantity), (m.target, m.target_status, m.quantity)):
                lines.append((at, len(lines), (account, status, m.item, m.lot, m.serial, m.unit), sign * by))
    assert set(undone.values()) == {1}
    instants: dict[tuple[str, ...], dict[datetime, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for at, _, stay, by in lines:
        instants[stay][at] += by
    for stay, changes in instants.items():
        total = Decimal(0)
        for at in sorted(changes):
            total += changes[at]
            assert total >= 0 or not stay[0].startswith(OWN), (stay, at, total)
    assert sum(by for *_, by in lines) == 0
    ends = {stay: sum(changes.values(), Decimal(0)) for stay, changes in instants.items() if stay[0].startswith(OWN)}
    assert any(ends.values())


@pytest.mark.parametrize(("seed", "orders"), SEEDS)
def test_each_key_is_accepted_once_and_repeated_only_after_it(seed: int, orders: int) -> None:
    planned = _plan(seed, orders)
    accepted = Counter((e.source, e.business_key) for _, m in _messages(planned) for e in m.expected if e.outcome == "accepted")
    assert set(accepted.values()) == {1}
    for part in PARTS:
        messages = planned.of(part)
        assert [m.due for m in messages] == sorted(m.due for m in messages)
        for n, m in enumerate(messages):
            leaning = [(e.source, e.business_key) for e in m.expected if e.outcome in ("duplicate", "conflict")]
            assert bool(leaning) == (m.after is not None)
            if m.after is not None:
                first = messages[m.after]
                assert m.after < n
                assert {(e.source, e.business_key) for e in first.expected if e.outcome == "accepted"} >= set(leaning)
                assert first.body != m.body or all(e.outcome == "duplicate" for e in m.expected)


@pytest.mark.parametrize(("seed", "orders"), SEEDS)
def test_every_trouble_is_there(seed: int, orders: int) -> None:
    planned = _plan(seed, orders)
    outcomes = Counter(e.outcome for _, m in _messages(planned) for e in m.expected)
    assert set(outcomes) == {"accepted", "duplicate", "conflict", "quarantined"}
    assert {e.source for _, m in _messages(planned) for e in m.expected if e.outcome == "quarantined"} == {"unknown", "x12:ZZ:BEARTEC"}
    conflicts = {e.source for _, m in _messages(planned) for e in m.expected if e.outcome == "conflict"}
    assert conflicts == {"mes:plant-1", "erp:main", "x12:ZZ:ALUCAST"}
    assert {"over_receipt", "quantity_variance", "unknown_item", "content_conflict"} == set(expected_exceptions(planned))
    for part in PARTS:
        assert any(e.outcome == "duplicate" for m in planned.of(part) for e in m.expected) or part == "supplier"
    reordered = [m for part, m in _messages(planned) if any(e.outcome == "duplicate" for e in m.expected) and part in ("mes", "wms", "erp")]
    assert any(m.body not in {o.body for _, o in _messages(planned) if o is not m} for m in reordered)  # other white space
    rows = [row for row, _, _ in _canonical(planned)]
    effective = [row["effective_at"] for row in rows if row["source"] == "mes:plant-1"]
    assert effective != sorted(effective)  # late ones
    assert any(row.get("schema_version") == 1 for row in rows)
    assert any(row["effective_at"] < row["occurred_at"] for row in rows if "effective_at" in row)


def test_the_history_has_what_a_factory_has() -> None:
    types = Counter(row["type"] for row, _, _ in _canonical(_plan(7, 40)))
    assert {
        "masterdata.item_defined",
        "procurement.goods_received",
        "production.order_released",
        "production.material_issued",
        "production.output_produced",
        "production.scrap_reported",
        "production.lot_reworked",
        "inventory.lot_split",
        "inventory.lot_merged",
        "inventory.stock_transferred",
        "inventory.objects_decommissioned",
        "inventory.movement_reversed",
        "logistics.shipment_dispatched",
        "logistics.milestone_reported",
        "logistics.delivery_proved",
        "logistics.return_received",
    } <= set(types)
    shipped = Counter(
        row["data"]["sales_order"] for row, _, _ in _canonical(_plan(7, 40)) if row["type"] == "logistics.shipment_dispatched"
    )
    assert max(shipped.values()) > 1  # partial shipments
    serials = {t["serial"] for row, _, _ in _canonical(_plan(7, 40)) for t in row["data"].get("things", []) if "serial" in t}
    assert {"00123", "1E5"} <= serials


def test_components_are_shared_and_made_of_made_things() -> None:
    """Raw material to stator, stator to motor, motor to drive unit; some lots go into several orders."""
    made: dict[str, str] = {}
    used: dict[str, set[str]] = defaultdict(set)
    orders_of: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _, event, _ in _canonical(_plan(7, 40)):
        data = event.data()
        if event.type == "production.order_released":
            made[data["order"]] = data["item"]
        if event.type == "production.material_issued":
            for t in data["things"]:
                used[data["order"]].add(t["item"])
                orders_of[t["item"], t.get("lot", "")].add(data["order"])
    below: dict[str, set[str]] = defaultdict(set)
    for order, items in used.items():
        below[made[order]] |= items

    def depth(item: str) -> int:
        return 1 + max(map(depth, below[item])) if item in below else 0

    assert max(depth(item) for item in made.values()) == 3
    assert sum(len(orders) > 1 for (_, lot), orders in orders_of.items() if lot) > 20


def test_gs1_keys_carry_their_check_digits() -> None:
    def walk(value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for name, entry in value.items():
                if isinstance(entry, str):
                    yield name, entry
                yield from walk(entry)
        elif isinstance(value, list):
            for entry in value:
                yield from walk(entry)

    keys = [(n, v) for row, _, _ in _canonical(_plan(7, 40)) for n, v in walk(row["data"]) if n in ("item", "handling_unit")]
    assert {len(v) for n, v in keys if n == "item"} == {14}
    assert {len(v) for n, v in keys if n == "handling_unit"} == {18}
    assert all(gs1_valid(v) for _, v in keys)
    notices = b"".join(m.body for m in _plan(7, 40).of("supplier"))
    marks = [m.decode() for m in re.findall(rb"MAN.GM.00(\d+)", notices)] + [m.decode() for m in re.findall(rb".UK.(\d+)", notices)]
    assert {len(m) for m in marks} == {14, 18}
    assert all(gs1_valid(m) for m in marks)


def test_over_receipts_and_variances_are_as_many_as_the_plan_says() -> None:
    """Counted from orders, notices and receipts alone."""
    planned = _plan(7, 40)
    undone = {row["data"]["original"] for row, e, _ in _canonical(planned) if e.type == "inventory.movement_reversed"}
    ordered: dict[tuple[str, str], Decimal] = {}
    received: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    of_notice: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    known, named = set(), set()
    for row, e, _ in _canonical(planned):
        data = row["data"]
        if e.type == "masterdata.item_defined":
            known.add(data["item"])
        elif e.type == "procurement.purchase_order_issued":
            ordered |= {(data["purchase_order"], line["line"]): Decimal(line["quantity"]["value"]) for line in data["lines"]}
            named |= {line["item"] for line in data["lines"]}
        elif e.type == "procurement.goods_received" and row["key"] not in undone:
            for t in data["things"]:
                received[data["purchase_order"], data["purchase_order_line"]] += Decimal(t["quantity"]["value"])
                of_notice[data["asn"], t["item"], t.get("lot", "")] += Decimal(t["quantity"]["value"])
    announced: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    for m in planned.of("supplier"):
        if all(e.outcome == "accepted" for e in m.expected):
            for asn, item, lot, quantity in _lines_of_856(m.body.decode()):
                announced[asn, item, lot] += Decimal(quantity)
    assert announced.keys() == of_notice.keys()
    assert expected_exceptions(planned) == {
        "content_conflict": sum(e.outcome == "conflict" for _, m in _messages(planned) for e in m.expected),
        "over_receipt": sum(q > ordered[line] * Decimal("1.05") for line, q in received.items()),
        "quantity_variance": sum(announced[name] != q for name, q in of_notice.items()),
        "unknown_item": len(named - known),
    }


def _lines_of_856(text: str) -> Iterator[tuple[str, str, str, str]]:
    """asn, item, lot, quantity of each item line."""
    element, end = text[3], text[105]
    asn, item, lot, quantity = "", "", "", ""
    for segment in (s.strip("\r\n").split(element) for s in text.split(end)):
        if segment[0] in ("HL", "CTT") and item:
            yield asn, item, lot, quantity
            item = lot = ""
        if segment[0] == "BSN":
            asn = segment[2]
        elif segment[0] == "LIN":
            pairs = dict(zip(segment[2::2], segment[3::2], strict=True))
            item, lot = pairs["UK"], pairs.get("LT", "")
        elif segment[0] == "SN1":
            quantity = segment[2]
        elif segment[:2] == ["REF", "LT"]:
            lot = segment[2]


def test_further_batches_share_no_key_with_the_first() -> None:
    first = {(e.source, e.business_key) for _, m in _messages(plan(7, 4)) for e in m.expected if e.business_key}
    for batch in (1, 2):
        more = plan(follow_seed(7, batch), 4, 1 + 4 * batch)
        keys = {(e.source, e.business_key) for _, m in _messages(more) for e in m.expected if e.business_key}
        assert not keys & first
        assert not {m.body for _, m in _messages(more)} & {m.body for _, m in _messages(plan(7, 4))}
        first |= keys


def _mappings() -> Mapping[str, Any]:
    """The hub's mappings that the parts speak to."""
    names = {"canonical": "adapters.canonical_json", "supplier": "adapters.x12.mapping", "epcis": "adapters.epcis"}
    return {part: import_module(name).MAPPING for part, name in names.items() if find_spec(name)}


@pytest.mark.parametrize(("seed", "orders"), SEEDS)
def test_the_hubs_mappings_find_exactly_the_planned_keys(seed: int, orders: int) -> None:
    """Every message, in the plan's order, keyed and digested as intake would do it."""
    mappings = sorted(_mappings().values(), key=lambda m: m.priority)
    known_parts = {"erp", "mes", "wms", "carrier", *_mappings()}
    planned = _plan(seed, orders)
    known: dict[tuple[str, str], bytes] = {}
    for part, message in _messages(planned):
        if part not in known_parts:
            continue
        mapping = next((m for m in mappings if m.recognises(message.body)), None)
        if mapping is None:
            assert [e.outcome for e in message.expected] == ["quarantined"], (part, message.target)
            continue
        parts = mapping.read(message.body, Context(raw=hashlib.sha256(message.body).hexdigest()))
        found = [_outcome(known, fact) for p in parts for line in p.lines for fact in _facts(line, p.source)]
        wanted = [(e.source, e.business_key, e.outcome) for e in message.expected]
        assert Counter(found) == Counter(wanted), (part, message.body[:2000])


def _facts(line: Any, source: str) -> Sequence[Any]:
    return line.facts if isinstance(line, Line) else [line.source or source]


def _outcome(known: dict[tuple[str, str], bytes], fact: Fact | str) -> tuple[str, str | None, str]:
    if isinstance(fact, str):
        return fact, None, "quarantined"
    name = (fact.envelope.source, fact.envelope.key)
    first = known.setdefault(name, b"")
    if not first:
        known[name] = fact.digest()
        return *name, "accepted"
    return *name, "duplicate" if first == fact.digest() else "conflict"


@pytest.mark.parametrize("arrival", [1, 2])
def test_the_hub_finds_the_exceptions_that_the_plan_expects(arrival: int, tmp_path: Path, fresh_database: str) -> None:
    """Everything through the hub's own door and views, the parts beside one another in two ways: same outcomes, same open exceptions."""
    if lacking := {"supplier", "epcis"} - set(_mappings()):
        pytest.skip(f"no mapping yet for {', '.join(sorted(lacking))}")
    planned = _plan(1, 6)
    queues = {part: list(planned.of(part)) for part in PARTS}
    chance = random.Random(arrival)
    order: list[Message] = []
    while waiting := [part for part in PARTS if queues[part]]:
        order.append(queues[chance.choice(waiting)].pop(0))
    with open_hub(Settings(home=tmp_path / "home", database_url=fresh_database)) as hub:
        intake = hub.intake()
        for message in order:
            (outcome,) = intake.take([Delivery(message.body, "test", START)])
            found = Counter((line.source, line.business_key, line.outcome) for part in outcome.parts for line in part.lines)
            wanted = Counter((e.source, e.business_key, e.outcome) for e in message.expected)
            assert found == wanted or outcome.parts[0].format == "unknown", message.body[:500]
        hub.catch_up()
        with answers.reading(hub) as cursor:
            assert queries.exception_counts(cursor) == expected_exceptions(planned)
            assert set(queries.ledger(cursor).values()) == {"0"}


class _Hub(http.server.BaseHTTPRequestHandler):
    """Takes posts; every fifth is kept and not answered, every seventh is refused for now."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]
    seen: int

    def do_POST(self) -> None:
        cls = type(self)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        cls.seen += 1
        if cls.seen % 7 == 0:
            self._answer(503)
            return
        cls.bodies.append(body)
        if cls.seen % 5 == 0:
            self.close_connection = True
            return
        self._answer(207 if cls.seen % 2 else 422)

    def _answer(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[tuple[str, type[_Hub]]]:
    handler = type("Hub", (_Hub,), {"bodies": [], "seen": 0})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def _start(part: str, home: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"hub.app.demo.plant.{part}", "--seed", "5", "--orders", "2"]
    command += ["--sent-log", str(home / "sent"), "--state", str(home / "state"), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _run_with_kills(part: str, home: Path, kills: int, *more: str) -> None:
    """Run a part to its end, killing it with -9 on its way so many times."""
    for n in range(kills):
        running = _start(part, home, *more)
        lines = _lines(home)
        until = time.monotonic() + 20
        while _lines(home) < lines + 5 + n and running.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        running.kill()
        running.wait()
    assert _start(part, home, *more).wait(60) == 0


def _lines(home: Path) -> int:
    return (home / "sent").read_bytes().count(b"\n") if (home / "sent").exists() else 0


def test_a_part_over_http_sends_all_and_logs_each_once_though_killed(tmp_path: Path, hub: tuple[str, type[_Hub]]) -> None:
    url, handler = hub
    _run_with_kills("erp", tmp_path, 3, "--http", url)
    messages = plan(5, 2).of("erp", with_wms=True)
    assert (tmp_path / "sent").read_bytes() == b"".join(m.log_lines() for m in messages)
    first_arrivals = list(dict.fromkeys(handler.bodies))
    assert first_arrivals == list(dict.fromkeys(m.body for m in messages))
    assert not list((tmp_path / "state").glob(".*"))
    before = len(handler.bodies)
    assert _start("erp", tmp_path, "--http", url).wait(60) == 0
    assert len(handler.bodies) == before


def test_suppliers_drop_whole_files_and_wait_until_they_are_taken(tmp_path: Path) -> None:
    inbox, taken = tmp_path / "inbox", {}
    running = _start("supplier", tmp_path, "--folder", str(inbox))
    while running.poll() is None:
        for path in inbox.glob("[!.]*"):
            taken[path.name] = path.read_bytes()
            path.unlink()
        time.sleep(0.01)
    assert running.returncode == 0
    assert taken == {m.target: m.body for m in plan(5, 2).of("supplier")}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[str, int]]:
    made = Broker(Home.open(tmp_path / "home")).prepare()
    with subprocess.Popen(made.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            assert process.wait_until(made.ready, 20)
            yield HOST, made.port
        finally:
            running.terminate()


def test_the_mes_waits_for_the_hub_and_publishes_all_though_killed(tmp_path: Path, broker: tuple[str, int]) -> None:
    url = "{}:{}".format(*broker)
    running = _start("mes", tmp_path, "--mqtt", url)
    time.sleep(1)
    assert running.poll() is None  # it waits: nobody would keep what it sends
    running.kill()
    running.wait()
    got: list[bytes] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "hub", clean_session=False)
    granted = threading.Event()
    client.on_message = lambda _c, _u, message: got.append(bytes(message.payload))
    client.on_subscribe = lambda _c, _u, _m, _r, _p: granted.set()
    client.connect(*broker)
    client.subscribe("plant/#", 1)
    client.loop_start()
    assert granted.wait(10)
    beating = threading.Event()

    def beat() -> None:
        while not beating.wait(0.05):
            client.publish("hub/heartbeat/hub", b"", qos=0)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        _run_with_kills("mes", tmp_path, 3, "--mqtt", url)
        messages = plan(5, 2).of("mes")
        assert process.wait_until(lambda: set(got) == {m.body for m in messages}, 10)
        assert (tmp_path / "sent").read_bytes() == b"".join(m.log_lines() for m in messages)
    finally:
        beating.set()
        thread.join()
        client.disconnect()
        client.loop_stop()


def test_sigterm_ends_a_part_that_waits_and_it_goes_on_later(tmp_path: Path, hub: tuple[str, type[_Hub]]) -> None:
    running = _start("carrier", tmp_path, "--http", "http://127.0.0.1:9")  # nobody listens there
    while not _lines(tmp_path):
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    assert running.wait(10) == 143
    assert _start("carrier", tmp_path, "--http", hub[0]).wait(60) == 0
    assert (tmp_path / "sent").read_bytes() == b"".join(m.log_lines() for m in plan(5, 2).of("carrier"))
