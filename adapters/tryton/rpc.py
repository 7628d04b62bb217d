"""Tryton's own protocol: JSON-RPC over HTTP, one transaction of Tryton's a call. Nothing of Tryton is imported.

    POST http://HOST:PORT/DATABASE/rpc/   {"id": 1, "method": "model.stock.shipment.in.search_read", "params": [..., context]}

What an answer means: an answer of Tryton itself says that the transaction is over, committed or not; no answer after a request has left says
nothing. Tryton shows a user error as `["UserError", [message, description, …]]` in `error`, anything else there is a failure of its own.
"""

import base64
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import httpx

from events.errors import HubError, Refused, Unavailable
from hub import limits

SERIES = "8.0"
Row = dict[str, Any]


class Unanswered(HubError):
    """The request left and no answer came: Tryton may have done it, or may still be at it."""


class Busy(Unanswered):
    """Tryton, or something before it, had no room: as far as it was Tryton, it did not get its locks and undid what it had begun."""


class Failed(Refused):
    """Tryton failed in the middle and undid what it had begun: an error in Tryton, a module, or what it was sent."""


class Rpc:
    """One user's access to one database; used by several threads. `url`: http://USER:PASSWORD@HOST:PORT/DATABASE.

    Raises `Refused` for another form of `url`. `timeout_s`: how long an answer is waited for.
    """

    def __init__(self, url: str, timeout_s: float = limits.ERP_ANSWER_S) -> None:
        parts = urlsplit(url)
        self.database = unquote(parts.path.strip("/"))
        try:
            right = parts.scheme in ("http", "https") and parts.hostname and parts.username and self.database and parts.port != 0
        except ValueError:
            right = False
        if not right or "/" in self.database:
            raise Refused("the address of Tryton cannot be read: write http://USER:PASSWORD@HOST:PORT/DATABASE")
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        netloc = parts.netloc.rpartition("@")[2]
        self.address = f"{parts.scheme}://{netloc}"
        self._http = httpx.Client(
            base_url=f"{self.address}/{parts.path.strip('/')}",
            timeout=httpx.Timeout(timeout_s, connect=limits.ERP_CONNECT_S),
            limits=httpx.Limits(max_keepalive_connections=0),  # a connection that went stale would leave every second request in doubt
            trust_env=False,
        )
        self._session = ""
        self._context: Row = {}
        self._entering = threading.Lock()
        self._numbers = count(1)

    def close(self) -> None:
        """Close what is open to the server, for good."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def renew(self) -> None:
        """Log in anew: what the user may do has changed."""
        self._session = ""

    @property
    def context(self) -> Row:
        """The user's own context: company, language."""
        if not self._session:
            self._enter("")
        return self._context

    def read(self, method: str, *params: Any, **context: Any) -> Any:
        """A call that changes nothing. Raises `Unavailable` also where no answer came, `Refused` in Tryton's words."""
        try:
            return self.call(method, *params, **context)
        except Unanswered as error:
            raise Unavailable(str(error)) from error

    def call(self, method: str, *params: Any, **context: Any) -> Any:
        """The result of `model.NAME.METHOD`. Raises `Unavailable` (nothing was done), `Unanswered`, `Refused` in Tryton's words, `Failed`."""
        said, session = {**self.context, **context}, self._session
        answer = self._post(method, [*params, said], session)
        if answer.status_code == httpx.codes.UNAUTHORIZED:  # a session ends by itself; nothing was done
            self._enter(session)
            answer = self._post(method, [*params, said], self._session)
        return self._result(method, answer)

    def search(self, model: str, domain: Sequence[Any], fields: Sequence[str], *, limit: int | None = None, **context: Any) -> list[Row]:
        """Records in the order of their ids; a field may go through a relation: `moves.lot.number`."""
        return self.read(f"model.{model}.search_read", domain, 0, limit, [["id", "ASC"]], list(fields), **context)  # type: ignore[no-any-return]

    def pages(self, model: str, domain: Sequence[Any], fields: Sequence[str]) -> Iterable[Row]:
        """All records, a page at a time in the order of their ids: what is added meanwhile moves nothing."""
        after = 0
        while page := self.search(model, [["id", ">", after], *domain], fields, limit=limits.ERP_PAGE):
            yield from page
            after = page[-1]["id"]

    def _enter(self, session: str) -> None:
        """Log in, unless somebody else has done so since `session`."""
        with self._entering:
            if self._session != session:
                return
            try:
                answer = self._post("common.db.login", [self._user, {"password": self._password}, "en"], "")
                if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                    raise Unavailable(f"{self._what} does not let {self._user} in: correct the password of its address")
                user, token, *_ = self._result("common.db.login", answer)
                entered = base64.b64encode(f"{self._user}:{user}:{token}".encode()).decode()
                asked = self._post("model.res.user.get_preferences", [True, {}], entered)
                known = self._result("model.res.user.get_preferences", asked)
                self._context = {name: known[name] for name in ("company", "language") if known.get(name) is not None}
            except Unanswered as error:
                raise Unavailable(str(error)) from error
            self._session = entered

    @property
    def _what(self) -> str:
        return f"Tryton at {self.address}/{self.database}"

    def _post(self, method: str, params: list[Any], session: str) -> httpx.Response:
        body = json.dumps({"id": next(self._numbers), "method": method, "params": params}, default=_encode, allow_nan=False).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Session {session}"} if session else {})
        try:
            return self._http.post("/rpc/", content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unavailable(f"{self._what} cannot be reached ({error}): start it, or correct its address") from error
        except httpx.RequestError as error:
            raise Unanswered(f"{self._what} did not answer {method} ({str(error) or type(error).__name__})") from error

    def _result(self, method: str, answer: httpx.Response) -> Any:
        status = answer.status_code
        if status >= 500:
            kind = Busy if status == httpx.codes.SERVICE_UNAVAILABLE else Unanswered
            raise kind(f"{self._what} answered {method} with {status} {answer.reason_phrase}, which does not say what was done")
        if status != httpx.codes.OK:
            remedy = {401: "its session ended twice", 403: "activate the module millwright there (docs/erp.md)", 404: "correct its address"}
            raise Unavailable(
                f"{self._what} answered {method} with {status} {answer.reason_phrase}: {remedy.get(status, 'try again later')}"
            )
        try:
            said = json.loads(answer.content, parse_float=Decimal, object_hook=_decode)
        except ValueError as error:
            raise Unanswered(f"{self._what} answered {method} with what is not JSON ({error})") from error
        if "error" not in said:
            return said["result"]
        why: list[Any] = said["error"]
        kind, words = why[0], why[1] if len(why) > 1 else ""
        if kind in ("UserError", "UserWarning"):
            texts = words[1:] if kind == "UserWarning" else words[:2]
            raise Refused(" ".join(text.strip() for text in texts if isinstance(text, str) and text.strip()))
        raise Failed(f"{self._what} failed at {method}: {kind}")


def day(value: date) -> Row:
    """A date as a domain has it."""
    return {"__class__": "date", "year": value.year, "month": value.month, "day": value.day}


def _encode(value: object) -> Row:
    if isinstance(value, datetime):
        utc = value.astimezone(UTC)
        parts: Mapping[str, int] = {
            name: getattr(utc, name) for name in ("year", "month", "day", "hour", "minute", "second", "microsecond")
        }
        return {"__class__": "datetime", **parts}
    if isinstance(value, date):
        return day(value)
    if isinstance(value, Decimal):
        return {"__class__": "Decimal", "decimal": str(value)}
    raise TypeError(f"{type(value).__name__} has no form in Tryton's JSON")


_DECODERS: Mapping[str, Callable[[Row], Any]] = {
    "datetime": lambda d: datetime(d["year"], d["month"], d["day"], d["hour"], d["minute"], d["second"], d["microsecond"], tzinfo=UTC),
    "date": lambda d: date(d["year"], d["month"], d["day"]),
    "Decimal": lambda d: Decimal(d["decimal"]),
}


def _decode(value: Row) -> Any:
    decoder = _DECODERS.get(value.get("__class__", ""))
    return decoder(value) if decoder else value
