"""Tryton as a source: purchase orders, items, partners and locations that people make there, read by polling.

A round looks for what was written since the newest record of the round before, less an overlap, since a transaction is seen only when it ends, but stamped
when it began; once an hour a round reads everything, so that one of any length is seen. What was told before and says the same is not told
again; after a restart everything is told once more, and is a duplicate.
"""

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from adapters.tryton.rpc import Rpc
from adapters.tryton_records import FIELDS, ITEM, LOCATION, ORDER, PARTY
from events import canonical
from events.errors import Refused, Unavailable
from hub import limits
from hub.intake.delivery import Delivery, Outcome

_ISSUED = ["state", "in", ["processing", "done"]]  # one that is only confirmed may still go back into draft
_STORED = [["type", "=", "storage"], ["code", "!=", None], ["code", "not like", "%/%"]]  # P/STATUS is P's stock of a status (docs/erp.md)
_GOODS = [["type", "in", ["goods", "assets"]], ["code", "!=", None]]
_WANTED: dict[str, list[Any]] = {ITEM: _GOODS, PARTY: [["code", "!=", None]], LOCATION: _STORED, ORDER: [_ISSUED]}
_OWN_STAMPS = ("create_date", "write_date")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_RELATED = {ITEM: ("template", "default_uom")}  # whose writing changes what is told


class TrytonSource:
    """The adapter. `address`: http://USER:PASSWORD@HOST:PORT/DATABASE; `name`: of the source, `tryton:NAME`, for ever."""

    def __init__(
        self,
        address: str,
        name: str = "erp",
        *,
        poll_s: float = limits.ERP_POLL_S,
        overlap_s: float = limits.ERP_OVERLAP_S,
        sweep_s: float = limits.ERP_SWEEP_S,
    ) -> None:
        self._rpc = Rpc(address)
        self._source = f"tryton:{name}"
        self.name = f"tryton {self._rpc.address}/{self._rpc.database}"
        self._poll_s, self._overlap, self._sweep_s = poll_s, timedelta(seconds=overlap_s), sweep_s
        self._told: dict[tuple[str, int], bytes] = {}  # 32 bytes for each record that there is
        self._since: dict[str, datetime] = {}
        self._newest: dict[str, datetime] = {}
        self._todo: list[tuple[str, list[int]]] = []
        self._in_hand = 0
        self._own: list[int] = []  # parties that are our companies
        self._looking, self._next_at, self._sweep_at = False, 0.0, 0.0

    def open(self) -> None:
        """Log in. Raises `Unavailable`."""
        self._own = [row["party"] for row in self._ask("company.company", "search_read", [], 0, None, None, ["party"])]

    def receive(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        """Records that are new or say something new. Raises `Unavailable`."""
        until = time.monotonic() + wait_s
        while True:
            if not self._todo:
                self._end_round()
            if not self._todo and not self._begin_round(until):
                return []
            model, ids = self._todo[0]
            now, later = ids[: min(limit, limits.ERP_PAGE)], ids[min(limit, limits.ERP_PAGE) :]
            found = self._read(model, now)
            self._todo[:1] = [(model, later)] if later else []
            if found:
                return found

    def close(self) -> None:
        """Give the round up: what it had not brought to its end is looked for again."""
        self._todo, self._looking, self._in_hand, self._next_at = [], False, 0, 0.0

    def _begin_round(self, until: float) -> bool:
        """Look for what was written, when it is time; False where it is not within `until`."""
        if self._next_at > until or self._in_hand:
            time.sleep(max(0.0, until - time.monotonic()))
            return False
        time.sleep(max(0.0, self._next_at - time.monotonic()))
        now = time.monotonic()
        self._next_at, self._looking, self._newest = now + self._poll_s, True, {}
        if now >= self._sweep_at:
            self._sweep_at, self._since = now + self._sweep_s, {}
        for model, wanted in _WANTED.items():
            ours = [["id", "not in", self._own]] if model == PARTY else []
            if ids := self._ask(model, "search", [*wanted, *ours, *self._written(model)], 0, None, [["id", "ASC"]]):
                self._todo.append((model, ids))
        return bool(self._todo)

    def _end_round(self) -> None:
        """Once all of a round is durable, the next looks from its newest record on."""
        if self._looking and not self._in_hand:
            self._looking = False
            for model, newest in self._newest.items():
                self._since[model] = newest - self._overlap

    def _written(self, model: str) -> list[Any]:
        since = self._since.get(model)
        if since is None:
            return []
        names = [
            f"{related}{stamp}" for related in ("", *(f"{r}." for r in _RELATED.get(model, ()))) for stamp in ("write_date", "create_date")
        ]
        return [["OR", *([name, ">=", since] for name in names)]]

    def _read(self, model: str, ids: list[int]) -> list[Delivery]:
        found = []
        rows = self._ask(model, "search_read", [["id", "in", ids], *_WANTED[model]], 0, None, None, [*FIELDS[model], *_OWN_STAMPS])
        for row in rows:
            self._newest[model] = max(self._newest.get(model, _LONG_AGO), row["write_date"] or row["create_date"])
            record = {name: row[name] for name in row if name not in _OWN_STAMPS or name in FIELDS[model]}
            body = canonical.dumps({"tryton": model, "source": self._source, "record": record})
            told, which = hashlib.sha256(body).digest(), (model, row["id"])
            if self._told.get(which) != told:
                found.append(Delivery(body, "tryton", datetime.now(UTC), {}, partial(self._done, which, told)))
        self._in_hand += len(found)
        return found

    def _ask(self, model: str, method: str, *params: Any) -> Any:
        try:
            return self._rpc.read(f"model.{model}.{method}", *params)
        except Refused as error:
            raise Unavailable(f"{self.name} does not show its records ({error}): let the user of its address read {model}") from error

    def _done(self, which: tuple[str, int], told: bytes, outcome: Outcome) -> None:
        self._told[which] = told
        self._in_hand -= 1
