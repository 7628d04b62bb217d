"""What the sources of the trials send: delivery n of a source is a pure function of seed, source and n.

Every delivery that makes something new carries an id inside its data, `id-SOURCE-N-K`, that is no part of its key: facts are counted by it.
Bytes that no mapping takes are counted by their sha256, which is all that the log says of them.
"""

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any

from tests.facts import thing

_KINDS = ("received", "issued", "produced", "item", "batch", "held", "conflict", "again")
_WEIGHTS = (46, 16, 10, 4, 10, 4, 6, 4)
NEAR = 40  # how far back a conflict or a repetition looks for what it is about


@dataclass(frozen=True, slots=True)
class Sent:
    """One delivery: its bytes and the ids that must be in the log once, because of it. `own` is False for what repeats or contradicts."""

    body: bytes
    ids: tuple[str, ...]
    own: bool = True


def kind(seed: int, source: int, n: int) -> str:
    """What delivery n is; a conflict or a repetition with nothing behind it to be about is an ordinary one."""
    found = _kind(seed, source, n)
    return found if found not in ("conflict", "again") or _before(seed, source, n) is not None else "received"


def delivery(seed: int, source: int, n: int) -> Sent:
    """Delivery n of a source."""
    what = kind(seed, source, n)
    ids: tuple[str, ...] = (f"id-{source}-{n}-0",)
    if what == "held":
        body = f"no document at all: {source} {n} {seed}".encode()
        return Sent(body, (hashlib.sha256(body).hexdigest(),), own=False)
    if what == "batch":
        ids = tuple(f"id-{source}-{n}-{k}" for k in range(3))
        return Sent(_json([_received(source, n, k, id_) for k, id_ in enumerate(ids)]), ids)
    if what == "again":
        return Sent(delivery(seed, source, _before(seed, source, n) or 0).body, (), own=False)
    if what == "conflict":
        taken = _received(source, _before(seed, source, n) or 0, 0, ids[0])
        return Sent(_json(taken), ids, own=False)
    made = {"received": _received, "issued": _issued, "produced": _produced, "item": _item}[what]
    return Sent(_json(made(source, n, 0, ids[0])), ids)


def body(seed: int, source: int, n: int) -> bytes:
    """The bytes of delivery n of a source."""
    return delivery(seed, source, n).body


def _kind(seed: int, source: int, n: int) -> str:
    return random.Random(f"{seed}/{source}/{n}").choices(_KINDS, _WEIGHTS)[0]


def _before(seed: int, source: int, n: int) -> int | None:
    """The nearest receipt before n."""
    return next((m for m in range(n - 1, max(-1, n - NEAR), -1) if _kind(seed, source, m) == "received"), None)


def _json(rows: Any) -> bytes:
    return json.dumps(rows).encode()


def _row(source: int, n: int, k: int, type_: str, data: dict[str, Any]) -> dict[str, Any]:
    at = f"2026-01-{1 + n // 1440 % 28:02}T{n // 60 % 24:02}:{n % 60:02}:00Z"
    return {"type": type_, "source": f"trial:{source}", "key": f"k-{source}-{n}-{k}", "occurred_at": at, "data": data}


def _received(source: int, n: int, k: int, id_: str) -> dict[str, Any]:
    things = [thing("A", f"L{source}-{n % 50}", str(n % 9 + 1))]
    data = {"receipt": f"R{source}-{n // 5}", "line": id_, "things": things, "location": "WH", "supplier": "ACME"}
    return _row(source, n, k, "procurement.goods_received", data)


def _issued(source: int, n: int, k: int, id_: str) -> dict[str, Any]:
    data = {"order": f"O{source}-{n // 10}", "things": [thing("A", f"L{source}-{n % 50}", "1")], "location": "WH", "operation": id_}
    return _row(source, n, k, "production.material_issued", data)


def _produced(source: int, n: int, k: int, id_: str) -> dict[str, Any]:
    data = {"output": id_, "order": f"O{source}-{n // 10}", "things": [thing("B", f"M{source}-{n // 10}", "2")], "location": "FG"}
    return _row(source, n, k, "production.output_produced", data)


def _item(source: int, n: int, k: int, id_: str) -> dict[str, Any]:
    return _row(source, n, k, "masterdata.item_defined", {"item": id_, "base_unit": "EA"})
