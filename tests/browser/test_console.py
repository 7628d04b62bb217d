"""The console as people meet it: true numbers, live, honest when it cannot know, and safe with whatever a partner calls a lot."""

import json
import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from events import Fact
from hub.app import answers, queries
from hub.app.demo.line import CUT, order, ordered
from hub.app.demo.outage import order_file
from hub.app.home import Home
from tests.browser.console import PHONE, WIDE, Console, running, shoot, until
from tests.facts import fact, received, thing

pytestmark = pytest.mark.browser
TOKEN = "0123456789abcdef0123456789abcdef"
HOSTILE = """<script>document.title='owned'</script>"'><img src=x onerror=alert(1)>{{7*7}}"""
GTIN = "09521002000092"
LOOKS = [(size, scheme) for size in ("wide", "phone") for scheme in ("light", "dark")]


@pytest.fixture
def console(fresh_database: str, tmp_path: Path) -> Iterator[Console]:
    with running(fresh_database, tmp_path / "home") as opened:
        yield opened


def item(name: str, description: str) -> Fact:
    return fact(f"I-{name}", "masterdata.item_defined", {"item": name, "description": description, "base_unit": "EA"})


def place(name: str) -> Fact:
    return fact(f"L-{name}", "masterdata.location_defined", {"location": name})


def lot(name: str, quantity: str) -> dict[str, Any]:
    of, _, own = name.partition("/")
    return thing(of, own, quantity)


def step(order: str, takes: str, makes: str, minute: float, quantity: str = "2") -> list[Fact]:
    """An order that consumes ITEM/LOT and makes ITEM/LOT."""
    return [
        fact(
            f"{order}-in-{takes}", "production.material_issued",
            {"order": order, "things": [lot(takes, quantity)], "location": "WH"}, minute,
        ),
        fact(
            f"{order}-out-{makes}", "production.output_produced",
            {"output": f"{order}-{makes}", "order": order, "things": [lot(makes, quantity)], "location": "WH"}, minute + 1,
        ),
    ]  # fmt: skip


def big(page: Page, name: str) -> str:
    return page.locator(f"[data-number={name}] .value").inner_text()


def scan(page: Page, what: str) -> None:
    """As a scanner types: where the cursor is already, over what was there, Enter at the end."""
    expect(page.locator(".ask input")).to_be_focused()
    page.keyboard.type(what)
    page.keyboard.press("Enter")


def looks(console: Console, browser: Browser, path: str, name: str) -> None:
    """Pictures at both sizes in both schemes; nothing is wider than the screen, and both schemes differ."""
    papers = {}
    for size, scheme in LOOKS:
        with console.page(browser, path, WIDE if size == "wide" else PHONE, scheme) as page:
            page.wait_for_selector(".live")
            page.wait_for_timeout(1200)
            shoot(page, f"{name}-{size}-{scheme}")
            papers[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert width[0] <= width[1], (name, size, width)
    assert papers["light"] != papers["dark"]


def test_overview_tells_the_truth_and_follows(console: Console, browser: Browser) -> None:
    console.append([item("A", "Copper wire"), place("WH"), received("G1", "A", "L1", "10"), received("G2", "B", "L2", "4", 1)])
    assert console.post(b"neither json nor edi") == 422
    assert console.post(b"neither json nor edi either") == 422
    console.hub.catch_up()
    with console.page(browser) as page:
        status = answers.status(console.hub)
        assert status["quarantine"] == 2
        assert status["exceptions"] > 0
        until(lambda: big(page, "held") == "2", say=lambda: big(page, "held"))
        assert big(page, "exceptions") == str(status["exceptions"])
        assert big(page, "behind").replace("\n", "") == "0s"
        assert big(page, "restarts") == "0"
        expect(page.locator(".pulse b").first).to_have_text(str(status["head"]))
        expect(page.locator("[data-number=held]")).to_contain_text("hub quarantine list")
        assert "warn" in (page.locator("[data-number=held]").get_attribute("class") or "")
        assert "warn" not in (page.locator("[data-number=restarts]").get_attribute("class") or "")
        for kind, count in status["exceptions_by_kind"].items():
            expect(page.locator(".chip", has_text=kind.replace("_", " "))).to_contain_text(str(count))
        sources = {
            row.locator("td").nth(0).inner_text(): row.locator("td").nth(1).inner_text()
            for row in page.locator(".three > section").nth(1).locator("tbody tr").all()
        }
        assert sources == {"erp:main": "4", "unknown": "2"}
        for row in page.locator(".three > section").nth(0).locator("tbody tr").all():
            view, position, behind, _ = row.locator("td").all_inner_texts()
            assert (int(position), behind) == (status["views"][view], "0")

        console.append([received("G3", "A", "L3", "7", 2)], follow=False)  # nobody follows: it must be seen that views wait
        until(lambda: big(page, "behind").replace("\n", "") != "0s", say=lambda: big(page, "behind"))
        expect(page.locator("[data-number=behind]")).to_contain_text("waits for 1 fact")
        expect(page.locator(".sheet", has_text="Newest facts").locator("tbody tr").first).to_contain_text("A/L3")
        until(lambda: "warn" in (page.locator("[data-number=behind]").get_attribute("class") or ""), 15)
        expect(page.locator(".verdict")).to_contain_text("hub doctor")
        console.hub.catch_up()
        until(lambda: big(page, "behind").replace("\n", "") == "0s")
        expect(page.locator(".verdict")).to_contain_text("every view has every fact")
    looks(console, browser, "/", "overview")


def test_equipment_that_is_down_comes_first(console: Console, browser: Browser) -> None:
    """Nothing is shown of equipment where no edge tells of any."""
    with console.page(browser) as page:
        expect(page.locator(".sheet", has_text="Newest facts")).to_be_visible()
        assert page.locator("h2", has_text="Equipment").count() == 0
        said = [("a/saw", "Execute", "W1"), ("b/<i>press", "Stopped", "W2"), ("c/drill", "Execute", None)]
        states = [
            fact(f"s{n}", "equipment.state_changed", {"equipment": name, "state": state, "order": order}, n)
            for n, (name, state, order) in enumerate(said)
        ]
        down = fact("d", "equipment.downtime_started", {"equipment": "b/<i>press", "state": "Stopped"}, 5)
        counted = {"equipment": "a/saw", "counter": "good", "quantity": {"value": "1234.5", "unit": "MTR"}, "total": "9"}
        lost = {"gap": "g", "edge": "e", "producer": "plc", "kind": "sequence", "reason": "3 numbers did not come"}
        console.append([*states, down, fact("c", "equipment.count_reported", counted, 3), fact("g", "integration.gap_detected", lost)])
        sheet = page.locator(".sheet").filter(has=page.locator("h2", has_text="Equipment"))
        expect(sheet.locator("tbody tr")).to_have_count(3)
        expect(sheet.locator("h2")).to_contain_text("3, 1 down, 1 open gap")
        rows = [row.locator("td").all_inner_texts() for row in sheet.locator("tbody tr").all()]
        assert [(row[0], row[1], row[3], row[4], row[5]) for row in rows] == [
            ("b/<i>press", "Stopped", "W2", "–", "2026-01-05 06:05:00"),
            ("a/saw", "Execute", "W1", "1,234.5 MTR good", "–"),
            ("c/drill", "Execute", "–", "–", "–"),
        ]
        shoot(page, "overview-equipment")


def test_zeros_are_quiet(console: Console, browser: Browser) -> None:
    console.hub.catch_up()
    with console.page(browser) as page:
        expect(page.locator(".verdict")).to_contain_text("Quiet")
        assert [big(page, name).replace("\n", "") for name in ("behind", "held", "exceptions", "restarts")] == ["0s", "0", "0", "0"]
        assert page.locator(".big .warn, .big .bad").count() == 0
        shoot(page, "overview-empty")
    with console.page(browser, "/stock") as page:
        expect(page.locator(".page")).to_contain_text("Nothing is in stock")


def test_stock_adds_up_filters_and_follows(console: Console, browser: Browser) -> None:
    facts = [item("A", "Copper wire"), item("B", "Steel sheet"), place("WH")]
    facts += [received(f"GA{n}", "A", f"LA{n:04}", str(n + 1), n) for n in range(700)]
    facts += [received(f"GB{n}", "B", f"LB{n:04}", "2.5", n) for n in range(500)]
    console.append(facts)
    with answers.reading(console.hub) as cursor:
        rows = list(queries.stock(cursor))
        everything = list(queries.stock(cursor, everything=True))
    total = sum(Decimal(row["quantity"]) for row in rows if row["item"] == "A")
    assert len(rows) == 1200
    with console.page(browser, "/stock") as page:
        expect(page.locator("table.stock tbody tr")).to_have_count(1000)
        page.keyboard.type("copper la0007")  # the cursor is in the filter already
        expect(page.locator("table.stock tbody tr")).to_have_count(1)
        page.get_by_role("searchbox", name="Filter").fill("")
        expect(page.locator(".page")).to_contain_text("1,200 balances of 2 items")
        expect(page.locator(".item .total b").nth(0)).to_have_text(f"{total:,}")
        expect(page.locator(".item .total b").nth(1)).to_have_text("1,250")  # of all its rows, though not all are shown
        expect(page.locator(".item h2").nth(0)).to_contain_text("Copper wire")
        page.get_by_role("button", name="Show 200 more").click()
        expect(page.locator("table.stock tbody tr")).to_have_count(1200)
        page.get_by_role("searchbox", name="Filter").fill("steel lb0007")
        expect(page.locator("table.stock tbody tr")).to_have_count(1)
        expect(page.locator("table.stock tbody tr a")).to_have_attribute("href", "/trace/lot:B/LB0007")
        console.append(
            [
                fact(
                    "T1",
                    "inventory.stock_transferred",
                    {"transfer": "T1", "things": [thing("B", "LB0007", "1")], "from_location": "WH", "to_location": "LINE"},
                    900,
                )
            ]
        )
        expect(page.locator("table.stock tbody tr")).to_have_count(2)
        expect(page.locator("table.stock tbody tr").first).to_contain_text("LINE")
        page.get_by_role("searchbox", name="Filter").fill("")
        page.get_by_role("button", name="All accounts").click()
        expect(page.locator(".page")).to_contain_text(f"{len(everything) + 1:,} balances")
        expect(page.locator(".item .total b").nth(0)).to_have_text("0")
    looks(console, browser, "/stock?filter=LA000", "stock")


def test_trace_answers_with_what_it_could_not_follow(console: Console, browser: Browser) -> None:
    depth = 70
    facts = [item("A", "Copper wire"), place("WH"), received("G", "A", "L0", "2")]
    for n in range(depth):
        facts += step(f"O{n}", f"A/L{n}", f"A/L{n + 1}", 10 + 2 * n)
    facts += step("OX", "Z/NOWHERE", "A/LX", 500)
    facts.append(
        fact(
            "S1", "logistics.shipment_dispatched", {"shipment": "S1", "things": [thing("A", f"L{depth}", "2")], "from_location": "WH"}, 600
        )
    )
    facts += [received("GD1", "A", "TWIN", "1", 700), received("GD2", "B", "TWIN", "1", 701)]
    facts.append(received("GS1", GTIN, "AB-7", "1", 702))
    console.append(facts)
    with console.page(browser, "/trace") as page:
        scan(page, "L0")
        expect(page.locator("h1")).to_contain_text("A/L0")
        expect(page).to_have_url(f"{console.base}/trace/L0")
        expect(page.locator("h1")).to_contain_text("Copper wire")
        expect(page.locator(".whole")).to_contain_text("Complete.")
        expect(page.locator(".counts")).to_contain_text(f"{depth + 1}lots")
        expect(page.locator(".counts")).to_contain_text(f"{depth}orders")
        now = page.locator("section", has_text="Where it is now").first
        transit = now.locator("tbody tr", has_text="In transit")
        expect(transit).to_contain_text("S1")
        expect(transit).to_contain_text("2")
        forward = page.locator(".two > section").nth(1)
        expect(forward.locator(".qty").first).to_have_text("2 EA")
        opened = forward.locator(".line").count()
        assert opened < 2 * depth, "only what is open is sent"
        assert not forward.locator("a", has_text=f"A/L{depth}").count()
        while not forward.locator(".line", has_text="shipment S1").count():
            if (
                more := forward.get_by_role("button", name="Open all")
            ).is_visible():  # gone with the last click, whose lines are on their way
                more.click()
            page.wait_for_timeout(300)
        assert forward.locator(".line").count() == 2 * depth + 2
        forward.locator(".twist").first.click()
        expect(forward.locator(".line", has_text="shipment S1")).to_be_hidden()
        forward.locator(".twist").first.click()
        forward.locator("a", has_text="A/L3").first.click()
        expect(page.locator("h1")).to_contain_text("A/L3")
        scan(page, "LX")  # the next scan replaces the last
        expect(page.locator(".whole")).to_contain_text("NOT complete because")
        expect(page.locator("[data-code=unknown_parent]")).to_be_visible()
        expect(page.locator(".whole a")).to_have_text("Z/NOWHERE")
        scan(page, "TWIN")
        expect(page.locator("h1")).to_contain_text("TWIN names 2 things")
        page.locator(".page a", has_text="B/TWIN").click()
        expect(page.locator("h1")).to_contain_text("B/TWIN")
        scan(page, f"(01){GTIN}(17)270101(10)AB-7")
        expect(page.locator("h1")).to_contain_text(f"lot {GTIN}/AB-7")
        scan(page, "nothing like it")
        expect(page.locator("h1")).to_contain_text("Nothing is known by the name nothing like it")
        expect(page.locator(".page")).to_contain_text("hub quarantine list")
    looks(console, browser, "/trace/L60", "trace")


def test_a_lot_with_a_hostile_name_is_only_a_name(console: Console, browser: Browser) -> None:
    awkward = ["50% off?#1", "..", "a//b", "x y+z", "\u202eevil"]
    console.append(
        [item("A", HOSTILE), received("G1", "A", HOSTILE, "3"), *(received(f"G2{n}", "A", lot, "1") for n, lot in enumerate(awkward))]
    )
    assert console.post(json.dumps({"type": HOSTILE, "source": "x", "key": HOSTILE}).encode()) == 422
    console.hub.catch_up()
    for path in ("/", "/stock"):
        with console.page(browser, path) as page:
            page.locator(".page a", has_text=HOSTILE[:20]).first.wait_for()
            page.wait_for_timeout(500)
            assert page.locator(".page img, main script").count() == 0
            assert page.title().endswith("Millwright")
            if path == "/stock":
                for lot in [HOSTILE, *awkward]:
                    page.goto(console.base + path)
                    page.locator(".page table a").get_by_text(lot, exact=True).click()
                    page.locator(".answer h1").wait_for()
                    assert page.locator(".answer h1 bdi").inner_text() == f"A/{lot}"
                    expect(page.locator(".answer h1")).to_contain_text("{{7*7}}")
                    assert page.locator(".page img, main script").count() == 0


def test_a_database_that_is_down_is_said_and_recovers(console: Console, browser: Browser) -> None:
    console.append([received("G1", "A", "L1", "10")])
    with console.page(browser) as page, console.page(browser, "/stock") as stock:
        expect(page.locator(".pulse")).to_contain_text("fact 1")
        with console.database_down():
            expect(page.locator(".alarm:visible")).to_contain_text("The database has not answered for", timeout=10_000)
            expect(page.locator(".alarm:visible")).to_contain_text("hub doctor")
            expect(stock.locator(".page .whole")).to_contain_text("Stock cannot be read")
            first = page.locator("#silent-s").inner_text()
            until(lambda: page.locator("#silent-s").inner_text() != first)
            shoot(page, "database-down")
            page.goto(f"{console.base}/trace/L1")  # a page asked for meanwhile says so too, and at once
            expect(page.locator(".answer .whole")).to_contain_text("cannot be read now")
            page.goto(console.base)
            expect(page.locator(".alarm:visible")).to_be_visible(timeout=10_000)
        expect(page.locator(".alarm:visible")).to_have_count(0)
        expect(page.locator(".pulse")).to_contain_text("fact 1")
        expect(stock.locator("table.stock")).to_contain_text("L1")


def test_a_hub_that_hangs_is_said_by_the_page_itself(console: Console, browser: Browser) -> None:
    with console.page(browser) as page:
        expect(page.locator("#gone")).to_be_hidden()
        console.process.send_signal(signal.SIGSTOP)
        expect(page.locator("#gone")).to_be_visible(timeout=15_000)
        expect(page.locator("#gone")).to_contain_text("No news from the hub")
        shoot(page, "hub-gone")
        console.process.send_signal(signal.SIGCONT)
        expect(page.locator("#gone")).to_be_hidden()


def test_without_a_demo_nothing_makes_an_outage(console: Console, browser: Browser) -> None:
    """No page, no button, no request, and nothing is shown of an order that lies in the home."""
    home = Home.open(console.hub.settings.home)
    order(order_file(home), CUT, 60)
    with console.page(browser) as page:
        expect(page.locator(".verdict")).to_be_visible()
        expect(page.locator("nav a")).to_have_text(["Overview", "Stock", "Trace"])
        expect(page.locator(".alarm.warn")).to_have_count(0)
        for method, path in (("GET", "/edge"), ("POST", "/edge/outage"), ("DELETE", "/edge/outage")):
            answer = page.request.fetch(
                console.base + path, method=method, data={"way": "edge", "seconds": 5} if method == "POST" else None
            )
            assert answer.status == 404, (method, path)
            assert "does not run in a demo" in answer.json()["detail"]
    assert ordered(order_file(home))[0] == CUT


def test_the_console_is_behind_the_token(fresh_database: str, tmp_path: Path, browser: Browser) -> None:
    login: dict[str, Any] = {"username": "any", "password": TOKEN}
    with running(fresh_database, tmp_path / "home", TOKEN) as console:
        console.append([received("G1", "A", "L1", "10")])
        context = browser.new_context()
        for path in ("/", "/stock", "/trace/L1"):
            answer = context.request.get(console.base + path)
            assert answer.status == 401
            assert "L1" not in answer.text()
        context.close()
        with console.page(browser, "/", http_credentials=login) as page:
            expect(page.locator(".pulse")).to_contain_text("fact 1")
            console.append([received("G2", "A", "L2", "10")])
            expect(page.locator(".pulse")).to_contain_text("fact 2")  # over the socket, which has only the cookie
