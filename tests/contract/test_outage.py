"""Outages in the demo, each way with its real processes: it ends at zero, nothing is missing that no gap tells, and nobody else can begin one."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from playwright.sync_api import expect, sync_playwright

from events.errors import Refused, Unavailable
from hub.app.demo import outage
from hub.app.demo.line import CUT, HOLD, order
from hub.app.home import Home
from hub.app.servers.process import free_port
from hub.app.supervisor import Child, Process, Supervisor, read_processes
from tests.browser.console import QUIET, until

ROOT = Path(__file__).resolve().parents[2]
HUB = (sys.executable, "-c", "from hub.app.cli import main; main()")
SETTLED_S = 40.0  # a line that was held is noticed after 20


@dataclass
class Demo:
    """A demo that runs, with a plant that goes on and on."""

    home: Home
    url: str
    env: dict[str, str]
    began: datetime  # when all was zero for the first time: from then on nothing may be missing

    def hub(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command."""
        done = subprocess.run([*HUB, *words], env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout, done.stderr

    def post(self, asked: object, method: str = "POST", **headers: str) -> tuple[int, str]:
        """What the console answers, and why."""
        return request(f"{self.url}edge/outage", json.dumps(asked).encode(), method, **headers)

    def processes(self) -> dict[str, Process]:
        return {one.role: one for one in read_processes(self.home)}

    def at_zero(self) -> bool:
        """What `hub edge status` says."""
        return self.hub("edge", "status", "--config", str(self.home.spool / "edge.yaml"))[0] == 0


def request(url: str, body: bytes, method: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=20) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["detail"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("outage")
    home = folder / "home"
    env = {**os.environ, "HUB_HOME": str(home), "HUB_LISTEN": f"127.0.0.1:{free_port()}", "PYTHONPATH": str(ROOT)}
    said = folder / "said"
    with said.open("wb") as errors:
        running = subprocess.Popen([*HUB, "demo", "--json"], env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line, said.read_text()
        found = Demo(Home(home), json.loads(line)["url"], env, datetime.now(UTC))
        until(found.at_zero, 60)
        found.began = datetime.now(UTC)
        yield found
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=20)
    assert "Traceback" not in said.read_text(), said.read_text()


@pytest.fixture
def calm(demo: Demo) -> Demo:
    """The demo without an outage, whatever another test left."""
    outage.end(demo.home)
    until(demo.at_zero, SETTLED_S)
    return demo


@pytest.mark.parametrize(("way", "killed"), [("cut", ""), ("hold", ""), ("broker", "broker"), ("edge", "hub-edge")])
def test_each_way_ends_at_zero(calm: Demo, way: str, killed: str) -> None:
    before = calm.processes()
    code, said, errors = calm.hub("simulate", "outage", "--way", way, "--seconds", "3", "--json")
    assert code == 0, said + errors
    summary = json.loads(said)
    assert {name: summary[name] for name in ("how", "backlog", "line_up", "sources_down")} == {
        "how": way, "backlog": 0, "line_up": True, "sources_down": [],
    }  # fmt: skip
    assert killed or summary["backlog_peak"] >= 3, "three entries a second come"
    after = calm.processes()
    assert {role for role in before if after[role].pid != before[role].pid} == ({killed} if killed else set())
    until(calm.at_zero, SETTLED_S)


def test_it_ends_by_itself_whatever_becomes_of_who_asked(calm: Demo) -> None:
    before = calm.processes()["hub-edge"]
    asking = subprocess.Popen([*HUB, "simulate", "outage", "--way", "edge", "--seconds", "4"], env=calm.env, cwd=ROOT)
    until(lambda: "hub-edge" not in calm.processes(), 20)
    begun = time.monotonic()
    asking.kill()
    asking.wait()
    until(lambda: "hub-edge" in calm.processes(), 10)
    assert time.monotonic() - begun > 2
    assert calm.processes()["hub-edge"].restarts == before.restarts + 1
    until(calm.at_zero, SETTLED_S)


def test_one_at_a_time_and_only_what_there_is(calm: Demo, tmp_path: Path) -> None:
    assert calm.post({"way": "cut", "seconds": 60}) == (204, "")
    assert str(outage.under_way(calm.home)).startswith("the line to the hub is cut, ")
    code, said = calm.post({"way": "edge", "seconds": 60})
    assert (code, "under way (the line to the hub is cut" in said) == (400, True), said
    code, _, said = calm.hub("simulate", "outage", "--way", "broker")
    assert (code, "under way" in said) == (2, True), said
    assert {"hub-edge", "broker"} <= calm.processes().keys()
    assert calm.post({}, "DELETE")[0] == 204
    assert outage.under_way(calm.home) is None
    for way, seconds, reason in (
        ("hub", 5, "cut, hold, broker, edge"),
        ("cut", 0.5, "1 to 86400"),
        ("cut", "nan", "1 to 86400"),
        ("cut", [], "seconds"),
    ):
        code, said = calm.post({"way": way, "seconds": seconds})
        assert (code, reason in said) == (400, True), said
    code, _, said = calm.hub("simulate", "outage", "--way", "cable")
    assert (code, "cut, hold, broker, edge" in said) == (2, True), said
    with pytest.raises(Unavailable, match="no demo with an edge"):
        outage.begin(Home.open(tmp_path / "other"), "edge", 5)


def test_no_other_site_can_begin_or_end_one(calm: Demo) -> None:
    for origin in ("https://elsewhere.example", "null", "http://127.0.0.1:1"):
        for method in ("POST", "DELETE"):
            code, said = calm.post({"way": "edge", "seconds": 60}, method, Origin=origin)
            assert (code, "own pages" in said) == (403, True), (origin, method)
    code, said = calm.post({"way": "edge", "seconds": 60}, Host="elsewhere.example")
    assert (code, "only this machine" in said) == (403, True)
    assert outage.under_way(calm.home) is None


def test_where_no_child_asks_for_orders_none_is_obeyed(tmp_path: Path) -> None:
    """A hub in production has a broker or edge elsewhere; one that its supervisor kept would not look at the file."""
    home = Home.open(tmp_path / "home")
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    with Supervisor(home, [Child("broker", sleeper), Child("hub-edge", sleeper)], private_database=False) as supervisor:
        before = {one.role: one.pid for one in read_processes(home)}
        for way in (outage.BROKER, outage.EDGE):
            with pytest.raises(Unavailable, match="no demo with an edge"):
                outage.begin(home, way, 5)
            order(outage.order_file(home), way, 5)
            supervisor.step()
            time.sleep(0.2)
            supervisor.step()
        assert {one.role: one.pid for one in read_processes(home)} == before


def test_a_broker_that_is_not_stopped_is_no_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks is not told that something is stopped which runs."""
    monkeypatch.setattr(outage, "OBEY_S", 0.3)
    home = Home.open(tmp_path / "home")
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    with Supervisor(home, [Child("broker", sleeper), Child(outage.LINE_ROLE, sleeper)], private_database=False):
        with pytest.raises(Unavailable, match="still runs"):
            outage.begin(home, outage.BROKER, 5)
        assert outage.under_way(home) is None
        with pytest.raises(Unavailable, match="hub-edge does not run now"):
            outage.begin(home, outage.EDGE, 5)
        outage.begin(home, CUT, 5)
        with pytest.raises(Refused, match="under way"):
            outage.begin(home, HOLD, 5)


@pytest.mark.browser
def test_a_person_pulls_the_cable(calm: Demo, chromium: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        page = browser.new_page()
        page.goto(calm.url)
        page.click("nav >> text=Edge")
        expect(page.locator(".verdict")).to_contain_text("Healthy")
        page.select_option("select[name=way]", "cut")
        page.fill("input[name=seconds]", "60")
        page.wait_for_timeout(1500)  # what somebody has typed stays while numbers come
        page.click("text=Let it fail")
        expect(page.locator(".verdict")).to_contain_text("The line to the hub is cut, 5")
        expect(page.locator("[data-number=down]")).to_contain_text("the line to the hub")
        until(lambda: int(page.locator("[data-number=backlog] .value").inner_text()) >= 9, 20)
        expect(page.locator("[data-number=oldest]")).to_contain_text("since it came to the edge")
        expect(page.locator("[data-number=disk]")).to_contain_text("full in")
        expect(page.locator("[data-number=drain] .value")).to_have_text("0.0/s")
        other = browser.new_page()
        other.goto(calm.url)
        expect(other.locator(".alarm.warn")).to_contain_text("the line to the hub is cut")
        page.click("text=End it now")
        expect(page.locator(".verdict")).to_contain_text("Healthy")
        expect(page.locator(".verdict")).to_contain_text("The last outage (the line to the hub is cut): at most")
        expect(page.locator("[data-number=down] .value")).to_have_text("0")
        expect(other.locator(".alarm.warn")).to_have_count(0)
        browser.close()


def test_nothing_is_missing_that_no_gap_tells(calm: Demo) -> None:
    """Last: what machines wrote down before they said it, against readings in the log and open gaps, over all that went before."""
    until(lambda: all(len(said) > 50 for said in written(calm).values()), 60)
    for producer, said in written(calm).items():
        until(lambda producer=producer, last=said[-1][1]: any(at >= last for _, at in readings(calm, producer)), 20)  # type: ignore[misc]
        there = readings(calm, producer)
        gaps = [json.loads(line) for line in calm.hub("edge", "gaps", "--json")[1].splitlines()]
        known = [(when(gap["since"]), when(gap["until"])) for gap in gaps if gap["producer"] == producer]
        missing = [one for one in said if one not in there]
        assert [one for one in missing if not any(since <= one[1] <= till for since, till in known)] == []


def written(demo: Demo) -> dict[str, list[tuple[str, datetime]]]:
    """Tag and time of what the machines of each producer wrote down since all was zero for the first time."""
    packer = ((row["at"] / 1000, f"Packaging/PackCell1/CasePacker1/{tag}") for row in rows(demo, "packer") for tag in row["changed"])
    found = {
        "machines": [(row["tag"], when(row["at"])) for row in rows(demo, "machine")],
        "Packaging/PackCell1": [(tag, datetime.fromtimestamp(at, UTC)) for at, tag in packer],
    }
    return {producer: [one for one in said if one[1] > demo.began] for producer, said in found.items()}


def rows(demo: Demo, machine: str) -> list[dict[str, Any]]:
    """What a machine wrote down, but for a line that is not whole yet."""
    text = (demo.home.run / "plant" / f"{machine}.jsonl").read_text()
    return [json.loads(line) for line in text[: text.rindex("\n")].split("\n")]


def when(text: str) -> datetime:
    return datetime.fromisoformat(text)


def readings(demo: Demo, producer: str) -> set[tuple[str, datetime]]:
    """Tag and source time of all readings of a producer in the log's deliveries: read by SQL, not by the hub's code."""
    owner_url = json.loads(demo.hub("status", "--json")[1])["owner_url"]
    with psycopg.connect(owner_url) as connection:
        bodies = connection.execute("select body from log.delivery where body like %s::bytea", [b'{"millwright_edge":1,%']).fetchall()
    documents = (json.loads(bytes(body)) for (body,) in bodies)
    return {(tag, when(at)) for one in documents if one["producer"] == producer for tag, _, at, *_ in one["readings"] if at}
