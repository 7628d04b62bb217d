"""What the tests of replay share: a log of small orders, its views followed, and which tables `verify` finds different."""

import psycopg

from hub.app.wiring import named_views, views
from hub.log.follow import Follower
from hub.log.store import Log
from replay.verify import verify
from tests.facts import as_role, fact, received, thing


def fill(log: Log, first: int, count: int) -> None:
    """Receipts, consumption and output of `count` small orders."""
    for n in range(first, first + count):
        log.append(
            [
                received(f"R{n}", "A", f"L{n}", "5", n),
                fact(
                    f"I{n}", "production.material_issued", {"order": f"O{n}", "things": [thing("A", f"L{n}", "4")], "location": "WH"}, n + 1
                ),
                fact(
                    f"P{n}",
                    "production.output_produced",
                    {"output": f"P{n}", "order": f"O{n}", "things": [thing("B", f"M{n}", "2")], "location": "WH"},
                    n + 2,
                ),
            ]
        )


def follow(owner_url: str, *names: str) -> None:
    """Bring views, all for no names, to the head in small steps."""
    for view in named_views(names):
        follower = Follower(as_role(owner_url, "hub_follow"), view)
        follower.ensure()
        while follower.step(7):
            pass
        follower.close()


def differing(url: str) -> dict[str, list[str]]:
    """View to the tables in which it differs."""
    _, found = verify(url, views())
    return {
        view: [name for name, t in tables.items() if not t.equal]
        for view, tables in found.items()
        if not all(t.equal for t in tables.values())
    }


def run(owner_url: str, *statements: str) -> None:
    """Statements by hand, as the owner."""
    with psycopg.connect(owner_url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def one(owner_url: str, query: str) -> object:
    with psycopg.connect(owner_url) as connection:
        (found,) = connection.execute(query.encode()).fetchone() or (None,)
        return found
