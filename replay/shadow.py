"""Shadows: the tables beside a live view that `rebuild` and `verify` fill and `promote` swaps in, and whether what they hold can be trusted.

The mark of a shadow (the comment of its schema) names the code that folded it and, once it is whole, its position and the digest of all its
rows there. A shadow that is not what its mark says is no evidence about anything: it is folded anew.
"""

import hashlib
from functools import cache
from pathlib import Path

import events
import projections
from events.errors import Corrupt
from hub.log import codec
from hub.log.follow import position, shadow_schema, step
from projections.base import TableView
from replay.tables import GONE, ReplayTables, Session


@cache
def code() -> str:
    """What identifies the code that folds: sha256 (hex) over the sources of views, events, upcasters and the log's codec."""
    found = hashlib.sha256()
    packages = [path for package in (events, projections) for folder in package.__path__ for path in Path(folder).rglob("*")]
    for path in sorted([Path(codec.__file__), *packages]):
        if path.suffix in (".py", ".json", ".sql"):
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


class Shadow:
    """The shadow of a view, in the hands of who is alone with it."""

    def __init__(self, session: Session, view: TableView) -> None:
        self.schema = shadow_schema(view.name)
        self._session = session
        self._view = view

    def restart(self) -> None:
        """Throw away what is there and begin at position 0."""
        with self._session.transaction() as tables:
            tables.drop(self.schema)
            tables.ensure(self._view, self.schema)
            tables.set_mark(self.schema, {"code": code()})

    def resume(self) -> None:
        """Begin to fold on: until `seal` nobody takes this shadow for whole."""
        with self._session.transaction() as tables:
            tables.set_mark(self.schema, {"code": code()})

    def step(self, limit: int, upto: int) -> int:
        """Fold one batch, durably; how many facts there were."""
        with self._session.transaction() as tables:
            return step(tables, self._view, self.schema, limit, upto)

    def position(self) -> int:
        """The last position folded in."""
        with self._session.transaction() as tables:
            return position(tables, self.schema)

    def seal(self) -> str:
        """Mark the shadow as whole; the digest of all its rows and columns."""
        with self._session.transaction() as tables:
            return self.seal_in(tables)

    def seal_in(self, tables: ReplayTables) -> str:
        """The same in a transaction that goes on."""
        mark = self._whole(tables)
        tables.set_mark(self.schema, mark)
        return str(mark["digest"])

    @property
    def begun(self) -> bool:
        """A rebuild by the same code was interrupted: it can go on."""
        try:
            with self._session.transaction() as tables:
                return tables.mark(self.schema) == {"code": code()} and position(tables, self.schema) >= 0
        except (Corrupt, *GONE):
            return False

    def flaw(self) -> str:
        """Why these tables cannot be taken for the fold of the log up to their position, as the end of a sentence; empty where they can."""
        try:
            with self._session.transaction() as tables:
                mark = tables.mark(self.schema)
                if mark is None:
                    return "is not there"
                if mark.get("code") != code():
                    return "was folded by other code than this"
                if "digest" not in mark:
                    return "is not finished"
                return "" if mark == self._whole(tables) else "was changed by somebody after it was folded"
        except (Corrupt, *GONE) as error:
            return f"cannot be used: {error}"

    def _whole(self, tables: ReplayTables) -> dict[str, object]:
        return {"code": code(), "position": position(tables, self.schema), "digest": tables.digest(self._view, self.schema)}
