"""Signing in as people meet it, and what other sites' pages try with their browser."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from hub.app import people
from hub.security.tokens import new_token
from tests.browser.console import PHONE, WIDE, Console, running, shoot
from tests.facts import received

pytestmark = pytest.mark.browser
API_TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def console(fresh_database: str, tmp_path: Path) -> Iterator[Console]:
    with running(fresh_database, tmp_path / "home") as opened:
        opened.append([received("G1", "A", "L1", "10")])
        yield opened


def sign_in(page: Page, token: str) -> None:
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    page.keyboard.type(token)
    page.keyboard.press("Enter")


def test_a_person_signs_in_where_they_were_and_out_again(console: Console, browser: Browser) -> None:
    token = people.add(console.hub, "Bea <b>Buyer", ["buyer", "planner"]).token
    with console.page(browser, "/stock?accounts=all") as page:
        page.locator(".bar .who").click()
        page.wait_for_url("**/signin?next=*")
        shoot(page, "signin-wide-light")
        sign_in(page, new_token("0" * 16)[0])
        expect(page.get_by_role("alert")).to_contain_text("hub people token NAME")
        shoot(page, "signin-refused")
        sign_in(page, token)
        page.wait_for_url("**/stock?accounts=all")
        expect(page.locator(".bar .who")).to_contain_text("Bea <b>Buyer buyer, planner")
        shoot(page, "signed-in-wide-light")
        assert page.evaluate("document.cookie") == ""  # no script reads the session
        assert token not in page.content()
        assert page.evaluate("JSON.stringify([localStorage, sessionStorage])").count(token) == 0
        me = page.evaluate("fetch('/v1/me').then((answer) => answer.json())")
        assert me["name"] == "Bea <b>Buyer"
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/signin")
        assert page.evaluate("fetch('/v1/me').then((answer) => answer.status)") == 401
        page.goto(console.base + "/")
        expect(page.locator(".bar .who")).to_have_text("Sign in")


@pytest.mark.parametrize(("size", "name"), [(WIDE, "wide"), (PHONE, "phone")])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen(console: Console, browser: Browser, size: object, name: str, scheme: str) -> None:
    token = people.add(console.hub, "Maximiliane Musterfrau", ["buyer", "receiver", "supervisor"]).token
    with console.page(browser, "/signin", size, scheme) as page:
        shoot(page, f"signin-{name}-{scheme}")
        widths = [page.evaluate("[document.documentElement.scrollWidth, innerWidth]")]
        sign_in(page, token)
        page.wait_for_selector(".verdict")
        shoot(page, f"signed-in-{name}-{scheme}")
        widths.append(page.evaluate("[document.documentElement.scrollWidth, innerWidth]"))
        assert all(wide <= screen for wide, screen in widths), widths


EVIL = """<!doctype html><iframe id=frame src="{hub}/signin" style="width:600px;height:300px"></iframe>
<form id=out method=post action="{hub}/signout" target=sink></form><iframe name=sink></iframe>
<form id=in method=post action="{hub}/signin" target=sink><input name=token value="{token}"></form>
<script>
const tried = [];
const attempt = (what, asked) => tried.push(asked.then((answer) => [what, answer.type, answer.status], (error) => [what, "refused", 0]));
for (const mode of ["no-cors", "cors"]) {{
  attempt(mode + " me", fetch("{hub}/v1/me", {{mode, credentials: "include"}}));
  attempt(mode + " out", fetch("{hub}/signout", {{method: "POST", mode, credentials: "include"}}));
  attempt(mode + " facts", fetch("{hub}/v1/facts", {{method: "POST", mode, credentials: "include", body: "[]"}}));
}}
attempt("socket", new Promise((done, fail) => {{
  const socket = new WebSocket("{hub}".replace("http", "ws") + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket");
  socket.onopen = () => done({{type: "open", status: 101}}); socket.onerror = fail;
}}));
</script>"""


def test_other_sites_pages_do_nothing_with_a_session(console: Console, browser: Browser, tmp_path: Path) -> None:
    """A page of another port of this machine, which browsers count as the same site and send the cookie along for."""
    token = people.add(console.hub, "bea", ["buyer"]).token
    other = people.add(console.hub, "eve", ["buyer"]).token
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "index.html").write_text(EVIL.format(hub=console.base, token=other), "utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "evil")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = browser.new_context()
    try:
        mine, evil = context.new_page(), context.new_page()
        mine.goto(console.base + "/signin")
        sign_in(mine, token)
        mine.wait_for_selector(".verdict")
        head = console.hub.log.head()
        evil.goto(f"http://127.0.0.1:{server.server_port}/")
        answers = evil.evaluate("Promise.all(tried)")
        assert [one for one in answers if one[1] not in ("refused", "opaque")] == []  # nothing that its script may look into
        assert ["socket", "refused", 0] in answers
        assert evil.frame_locator("#frame").locator("form").count() == 0
        for form in ("out", "in"):
            evil.evaluate(f"document.getElementById('{form}').submit()")
            evil.wait_for_timeout(500)
        cookie = [one for one in context.cookies() if one["name"] == "millwright-session"]
        assert [(one["httpOnly"], one["sameSite"]) for one in cookie] == [(True, "Strict")]
        assert mine.evaluate("fetch('/v1/me').then((answer) => answer.json())")["name"] == "bea"
        assert console.hub.log.head() == head
    finally:
        context.close()
        server.shutdown()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        pass


def test_where_others_reach_the_hub_a_person_needs_no_machines_token(fresh_database: str, tmp_path: Path, browser: Browser) -> None:
    with running(fresh_database, tmp_path / "home", API_TOKEN) as console:
        console.append([received("G1", "A", "L1", "10")])
        token = people.add(console.hub, "bea", ["buyer"]).token
        head = console.hub.log.head()
        with console.page(browser, "/signin") as page:
            sign_in(page, token)
            expect(page.locator(".pulse")).to_contain_text(f"fact {head}")
            console.append([received("G2", "A", "L2", "10")])
            expect(page.locator(".pulse")).to_contain_text(f"fact {head + 1}")  # over the socket, by the session
            people.revoke(console.hub, "bea")
            expect(page.locator("#gone")).to_be_visible(timeout=45_000)  # what was open has ended too
            assert page.request.get(console.base + "/stock").status == 401
