"""Golden histories: small recorded logs beside this file (NAME.ndjson, one fact a line) and the digests that every view must make of them.

`python -m tests.histories.golden OWNER_URL_OF_AN_EMPTY_DATABASE` writes NAME.digests.json anew after a view was meant to change: look at
the rows that it prints before you commit the digests.
"""

import json
import sys
from pathlib import Path
from typing import Any

from events import canonical
from events.base import Fact, envelope_of, validated
from hub.app.wiring import views
from projections.digest import view_digest
from tests.contract import view_suite
from tests.histories.strategy import recorded

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The histories there are."""
    return sorted(path.stem for path in FOLDER.glob("*.ndjson"))


def facts(name: str) -> list[Fact]:
    """A history's facts in their recorded order, old schema versions lifted to the current one."""
    found = []
    for line in (FOLDER / f"{name}.ndjson").read_bytes().splitlines():
        row: dict[str, Any] = canonical.loads(line)
        said = {"source": row["source"], "key": row["business_key"], "occurred_at": row["occurred_at"], "effective_at": row["effective_at"]}
        found.append(Fact(envelope_of(said), validated(row["type"], row["schema_version"], row["data"])))
    return found


def digests(name: str) -> dict[str, str]:
    """The business digests that a history must give, by view."""
    found: dict[str, str] = json.loads((FOLDER / f"{name}.digests.json").read_text())
    return found


def main(url: str) -> None:
    """Write all digests anew and print the rows behind them."""
    with view_suite.prepared(url) as connection:
        for name in names():
            found = {}
            for view in (view for view in views() if not view.by_arrival):
                with view_suite.folded(connection, view, recorded(facts(name))) as cursor:
                    found[view.name] = view_digest(cursor, view_suite.schema_of(view), view, business=True)
                    for table in view.tables:
                        print(f"-- {name}, {view.name}.{table.name}: {', '.join(table.columns)}")
                        for row in view_suite.rows(cursor, table.name):
                            print("  ", *row, sep=" | ")
            (FOLDER / f"{name}.digests.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
