"""Shadows: the tables beside a live view that `rebuild` and `verify` fill and `promote` swaps in, and whether what they hold can be trusted.

The mark of a shadow (the comment of its schema) names the code that folded it and, once it is whole, its position and the digest of all its
rows there. A shadow that is not what its mark says is no evidence about anything: it is folded anew.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import events
import hub.workflows
import projections
from events.errors import Corrupt
from hub.log import codec
from hub.log.follow import position, shadow_schema, step
from projections.base import Bare, TableView
from replay.tables import GONE, ReplayTables, Session


@cache
def code() -> str:
    """What identifies the code that folds: sha256 (hex) over the sources of views, events, upcasters and the log's codec."""
    found = hashlib.sha256()
    packages = [path for package in (events, projections, hub.workflows) for folder in package.__path__ for path in Path(folder).rglob("*")]
    for path in sorted([Path(codec.__file__), *packages]):
        if path.suffix in (".py", ".json", ".sql"):
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _bare() -> dict[str, object]:
    """The mark of a shadow whose tables are bare."""
    return {"code": code(), "bare": True}


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
            tables.ensure(Bare(self._view), self.schema)
            tables.set_mark(self.schema, _bare())

    def resume(self) -> None:
        """Begin to fold on: until `seal` nobody takes this shadow for whole."""
        with self._session.transaction() as tables:
            tables.set_mark(self.schema, {"code": code()})

    def fill(self, limit: int, upto: int) -> Iterator[int]:
        """Fold up to a position; how many facts each batch had, once it is durable.

        A shadow that was begun at the first fact gets the rows of all of them first, and is keyed, indexed and settled once, at the end.
        """
        with self._session.transaction() as tables:
            bare = tables.mark(self.schema) == _bare()
        view = Bare(self._view) if bare else self._view
        folded = 1
        while folded:
            with self._session.transaction() as tables:
                folded = step(tables, view, self.schema, limit, upto)
            if folded:
                yield folded
        if bare:
            with self._session.transaction() as tables:
                tables.dress(self._view, self.schema)
                tables.set_mark(self.schema, {"code": code()})

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
                return tables.mark(self.schema) in ({"code": code()}, _bare()) and position(tables, self.schema) >= 0
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
