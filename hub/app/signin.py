"""Who decides: the person behind a request or a command, and the console's form that begins and ends their session.

A decision needs a person: by a token in `Authorization: Bearer` or in HUB_TOKEN, or by a session, whose cookie other sites' pages cannot use
(SameSite=Strict, and the page that sends it must be ours). HUB_API_TOKEN is for machines and decides nothing.
"""

import logging
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlencode

import anyio
from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRouter
from starlette.requests import HTTPConnection

from hub import limits
from hub.app.html import Html, command, name, style, tag, text
from hub.app.people import TOKEN
from hub.app.settings import secret
from hub.app.web import Headers, body_of, cookies, own_page, problem
from hub.app.wiring import Hub
from hub.security import access, tokens
from hub.security.people import NotAllowed, Person
from hub.security.tokens import NotIdentified

COOKIE = "millwright-session"
PATH = "/signin"
_SAFE = ("GET", "HEAD")
_log = logging.getLogger(__name__)


def decider(hub: Hub, asked: HTTPConnection | Mapping[str, str]) -> Person:
    """The person who decides, by a request (also the one that began a page of the console) or by a command's environment.

    Raises `NotIdentified` where nobody is shown who has access now, `NotAllowed` for a machine's token or a page that is not ours, `Unavailable`.
    """
    if not isinstance(asked, HTTPConnection):
        token = secret(asked, TOKEN)
        if token is None:
            raise NotIdentified(f"a decision needs a person: set {TOKEN} to your token (`hub people token NAME` makes one)")
        return hub.people.identify(token)
    headers = dict(asked.headers)
    if _bearer(headers) is None and asked.scope.get("method", "GET") not in _SAFE and not own_page(headers):
        raise NotAllowed("a session decides from the hub's own pages only: the request does not say that it is from one")
    return person_of(hub, headers)


def person_of(hub: Hub, headers: Headers) -> Person:
    """The person whom a request's headers show, to read or to decide. A Bearer token goes before a session. Raises as `decider` does."""
    if (token := _bearer(headers)) is not None:
        if hub.settings.api_token is not None and hub.settings.api_token.matches(token):
            raise NotAllowed("HUB_API_TOKEN is for machines and cannot decide: send a person's token (`hub people token NAME` makes one)")
        return hub.people.identify(token)
    for value in cookies(headers, COOKIE):
        if (session := hub.sessions.find(value)) is not None:
            try:
                return hub.people.still(session.person.id, session.digest)
            except NotIdentified:
                hub.sessions.end(value)
                raise
    raise NotIdentified("a decision needs a person: send Authorization: Bearer with your token, or sign in at /signin")


def _bearer(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def signed_in(hub: Hub, request: HTTPConnection) -> Person | None:
    """Who signed in, as they were then, to be shown on a page: nothing is looked up."""
    found = (hub.sessions.find(value) for value in cookies(dict(request.headers), COOKIE))
    return next((session.person for session in found if session is not None), None)


def entering(hub: Hub) -> Callable[[Headers], bool]:
    """Whether a request shows a person who has access: what lets people in where a token of the machine is needed otherwise."""

    def enters(headers: Headers) -> bool:
        try:
            person_of(hub, headers)
        except (NotIdentified, NotAllowed):
            return False
        return True

    return enters


def routes(hub: Hub) -> APIRouter:
    """The form, its two posts, and who one is."""
    router = APIRouter()
    at_once = anyio.CapacityLimiter(limits.IDENTIFY_AT_ONCE_MAX)

    @router.get("/v1/me")
    def me(request: Request) -> Response:
        """The person whose token or session the request shows, and what they may do. 401 for nobody, 403 for a machine's token."""
        person = decider(hub, request)
        rules = access.CURRENT
        found = {"person": person.id, "name": person.name, "roles": sorted(person.roles), "actions": rules.actions(person)}
        return JSONResponse({**found, "rules": rules.version}, headers=_NO_STORE)

    @router.get(PATH, include_in_schema=False)
    def form(request: Request, next: str = "/") -> Response:  # noqa: A002 - the name in the address
        return _page(signed_in(hub, request), _local(next))

    @router.post(PATH, include_in_schema=False)
    async def sign_in(request: Request) -> Response:
        if not own_page(dict(request.headers)):
            return _foreign()
        body = await body_of(request, limits.SIGN_IN_BYTES_MAX)
        said = parse_qs((body or b"").decode("latin-1"), max_num_fields=4)
        token, back = said.get("token", [""])[0].strip(), _local(said.get("next", ["/"])[0])
        try:
            person = await anyio.to_thread.run_sync(hub.people.identify, token, limiter=at_once)
        except NotIdentified as error:
            _log.warning("a sign-in from %s was refused", request.client.host if request.client else "somewhere")
            return _page(None, back, str(error), 401)
        for old in cookies(dict(request.headers), COOKIE):
            hub.sessions.end(old)
        answer = RedirectResponse(back, 303, _NO_STORE)
        value = hub.sessions.begin(person, tokens.parsed(token)[1])
        answer.set_cookie(COOKIE, value, int(limits.SESSION_S), secure=request.url.scheme == "https", httponly=True, samesite="strict")
        return answer

    @router.post("/signout", include_in_schema=False)
    def sign_out(request: Request) -> Response:
        if not own_page(dict(request.headers)):
            return _foreign()
        for value in cookies(dict(request.headers), COOKIE):
            hub.sessions.end(value)
        answer = RedirectResponse(PATH, 303, _NO_STORE)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    return router


def who(person: Person | None, here: str) -> Html:
    """For the frame of a page: who is signed in and the way out, or the way in."""
    if person is None:
        return tag("a", "Sign in", href=f"{PATH}?{urlencode({'next': here})}", cls="who")
    shown = tag("span", name(person.name), " ", tag("span", ", ".join(sorted(person.roles)), cls="roles"))
    return tag("form", shown, tag("button", "Sign out", type="submit"), method="post", action="/signout", cls="who")


_NO_STORE = {"Cache-Control": "no-store"}


def _foreign() -> Response:
    return problem(403, "only the hub's own page may sign in or out: open /signin")


def _local(path: str) -> str:
    """A path of ours to go on to; the first page for anything else, such as another site."""
    return path if path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable() else "/"


def _page(person: Person | None, back: str, trouble: str = "", code: int = 200) -> Response:
    field = tag(
        "input", name="token", type="password", placeholder="mw_…", aria_label="Token", autocomplete="off", autofocus=True, required=True, cls="field"
    )  # fmt: skip
    body = text(
        tag("h1", "Sign in"),
        tag("p", trouble, cls="whole warn", role="alert") if trouble else None,
        tag("p", "You are signed in as ", name(person.name), ": signing in again ends that session.", cls="soft") if person else None,
        tag("p", "Decisions carry the name of the person who makes them.", cls="soft"),
        tag(
            "form", tag("label", "Your token", field), tag("input", type="hidden", name="next", value=back),
            tag("button", "Sign in", type="submit", cls="plain"), method="post", action=PATH, cls="signin",
        ),
        tag("p", "No token? On the hub's machine: ", command("hub people add NAME --role ROLE"), " or ", command("hub people token NAME"), cls="soft"),
    )  # fmt: skip
    bar = tag("header", tag("a", "Millwright", href="/", cls="mark"), cls="bar")
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Sign in – Millwright</title><style>{style()}</style></head>"
    )
    return HTMLResponse(f'{head}<body>{bar}<div class="page narrow">{body}</div></body></html>', code, _NO_STORE)
