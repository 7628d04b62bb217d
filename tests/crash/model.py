"""model: the hub against a dict.

Promise: any sequence of appends, repetitions, conflicts, crashes, follows, rebuilds, re-drives and old versions ends in what a dict says
    (P2 to P5, P7).
Way: a hypothesis state machine drives the program's own log, door, followers and replay on a real PostgreSQL; crashes are raised at the named
    points, connections are ended by the server under an open transaction, and what was interrupted is given again.
Oracle: a list of facts and a dict from (source, key) to its place. After every step the log, read by plain SQL, is that list: positions,
    streams, versions, keys, data; every answer was the one the dict gives; each view that has come to the head has, as text, the rows that
    it makes of the list. A failure prints hypothesis's smallest falsifying example.
"""

import hashlib
import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import psycopg
from hypothesis import HealthCheck, reporting, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from psycopg import sql

from adapters.canonical_json import CanonicalJson
from events.base import Fact
from events.errors import HubError, Unavailable
from hub import points
from hub.app.wiring import mappings
from hub.intake.delivery import Delivery, Outcome
from hub.intake.door import Intake
from hub.intake.mapping import Context, Part
from hub.intake.redrive import redrive_entry
from hub.log.follow import Follower, ensure, live_schema
from hub.log.store import Accepted, Conflict, Duplicate, Log, Result
from projections.base import TableView
from projections.quarantine import entries
from replay.promote import promote
from replay.rebuild import rebuild
from replay.verify import verify
from tests.contract import view_suite
from tests.crash import mechanisms
from tests.crash.ground import Access, Ground, Trial
from tests.crash.hubs import followed
from tests.crash.report import Found
from tests.facts import START, fact, thing
from tests.histories.copies import old_row
from tests.histories.strategy import recorded

T = TypeVar("T")
PROCESSES = 2  # each searches its part of the examples on a log of its own
KEYS, VARIANTS = 24, 2  # few, so that facts meet
LATE = b"LATE "  # deliveries that begin so are understood once their mapping is mended
HELD, REFUSED = "integration.delivery_quarantined", "integration.content_conflicted"
EXERCISED = (
    "accepted", "duplicate", "conflict", "twice in a batch", "died before commit", "died after commit", "connection cut", "intake died",
    "old version stored", "old version repeated", "quarantined", "re-driven", "re-driven in vain", "follower died", "view at the head",
    "rebuild interrupted", "rebuilt and verified", "promoted",
)  # fmt: skip


class Crash(BaseException):
    """The process dies here. No error of the program, so that nothing in it takes it for one."""


class LateMapping(CanonicalJson):
    """A mapping that fails on everything, until somebody mends it."""

    priority = 1
    mended = False

    def recognises(self, body: bytes) -> bool:
        return body.startswith(LATE)

    def read(self, body: bytes, context: Context) -> Sequence[Part]:
        if not self.mended:
            raise ValueError("a mistake in the mapping")
        return super().read(body.removeprefix(LATE), context)


Choice = tuple[int, int]  # number of a key, and which of its contents
choices = st.tuples(st.integers(0, KEYS - 1), st.integers(0, VARIANTS - 1))
outputs = st.tuples(st.sampled_from(range(1, KEYS, 5)), st.integers(0, VARIANTS - 1))  # the type that has an older version
batches = st.lists(choices, min_size=1, max_size=6)
forms = st.sampled_from(("plain", "late", "late", "broken"))
deliveries = st.lists(st.tuples(choices, forms), min_size=1, max_size=3)
number = st.integers(0, len(followed()) - 1)
writers = st.integers(0, 1)
sizes = st.integers(1, 9)


def made(choice: Choice) -> Fact:
    """The fact of a choice. Outputs are such as version 1 could say too: one lot."""
    n, variant = choice
    quantity, key, minute = str(variant + 1), f"K{n}", n * 7 % 5
    inside = {"things": [thing("A", f"L{n % 3}", quantity)], "location": "WH"}
    match n % 5:
        case 0:
            return fact(key, "procurement.goods_received", {"receipt": f"R{n % 2}", "supplier": "S", **inside}, minute)
        case 1:
            return fact(key, "production.output_produced", {"output": key, "order": f"O{n % 2}", **inside}, minute)
        case 2:
            return fact(key, "inventory.movement_reversed", {"reversal": key, "original": f"K{n - 2 + variant}"}, minute)
        case 3:
            return fact(key, "production.material_issued", {"order": f"O{n % 2}", **inside}, minute)
    parts = {"inputs": [thing("A", "L0", "1")], "outputs": [thing("A", "L1", quantity)], "location": "WH"}
    return fact(key, "inventory.lot_split", {"split": key, **parts}, minute)


def old_data(one: Fact) -> dict[str, Any]:
    """What a hub of version 1 stored for an output."""
    data = one.event.data()
    (only,) = data.pop("things")
    return {**data, "item": only["item"], "lot": only["lot"], "quantity": only["quantity"]["value"], "unit": only["quantity"]["unit"]}


@dataclass
class Entry:
    """A fact as the model has it. `said` is what makes another of its key a conflict; None where the key says it all."""

    stream: str
    type: str
    source: str
    key: str
    said: object = None
    fact: Fact | None = None  # None: in the hub's own words, taken from the log when a view is first compared
    data: dict[str, Any] | None = None  # as stored
    schema_version: int = 1


class Machine(RuleBasedStateMachine):
    """One run on an emptied log."""

    access: Access
    owner: psycopg.Connection[tuple[Any, ...]]  # in autocommit: the oracle's
    laws: psycopg.Connection[tuple[Any, ...]]  # to the empty schemas in which views fold the model's list
    judging = True  # with a mechanism taken away it goes on and only counts
    counts: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.at: dict[tuple[str, str], int] = {}
        self.logs = [Log(self.access.door) for _ in range(2)]  # what one remembers of streams, the other makes untrue
        self.followers = [Follower(self.access.follow, view) for view in followed()]
        self.compared: dict[str, int] = {}  # the head at which a view was compared last
        self.late = LateMapping()
        for follower in self.followers:
            follower.ensure()
        _empty(self.owner)

    def teardown(self) -> None:
        points.arm(None)
        for log in self.logs:
            log.close()
        for follower in self.followers:
            follower.close()
        ((stored, head),) = self._ask("select count(*), coalesce(max(position), 0) from log.event")
        rows = self._ask("select source, business_key, count(*) from log.event group by 1, 2")
        self.counts["twice"] += sum(n - 1 for _, _, n in rows)
        self.counts["skipped"] += head - stored
        if self.judging:  # otherwise the model has what a log with the mechanism would have
            self.counts["lost"] += len(self.at.keys() - {(source, key) for source, key, _ in rows})
        self.counts["facts"] += stored
        self.counts["examples"] += 1

    # -- append ----------------------------------------------------------------------------------------------------------------------------

    @rule(writer=writers, chosen=batches)
    def append(self, writer: int, chosen: list[Choice]) -> None:
        """New, repeated and contradicting facts, also within the batch."""
        self._append(writer, chosen)

    @rule(writer=writers, chosen=batches, point=st.sampled_from(("before commit", "after commit")), same=st.booleans())
    def append_dies(self, writer: int, chosen: list[Choice], point: str, same: bool) -> None:
        """The writer dies in the middle, or its answer is lost; the caller asks again, the same writer or one that was just started."""
        with self._dies(point) as died:
            self.logs[writer].append([made(choice) for choice in chosen])
        self._same(died, [point], "an append reaches its points")
        if point == "after commit":
            self._expect([_entry(made(choice)) for choice in chosen])
        if not same:
            self.logs[writer].close()
            self.logs[writer] = Log(self.access.door)
        self.counts[f"died {point}"] += 1
        self._append(writer, chosen)

    @rule(writer=writers, chosen=batches)
    def append_cut(self, writer: int, chosen: list[Choice]) -> None:
        """The server ends the connection when all is written and nothing is committed."""

        def cut(name: str) -> None:
            if name == "before commit":
                points.arm(None)
                self._ask("""select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = current_database()
                             and application_name = 'hub log' and state = 'idle in transaction'""")

        points.arm(cut)
        try:
            self.logs[writer].append([made(choice) for choice in chosen])
        except Unavailable:
            self.counts["connection cut"] += 1
        else:
            raise AssertionError("what the server had ended was taken for committed")
        self._append(writer, chosen)

    @rule(chosen=outputs)
    def store_old(self, chosen: Choice) -> None:
        """An output as an older hub stored it; what it means today is a duplicate of it, another content a conflict."""
        one = made(chosen)
        entry = _entry(one)
        at = self.at.get((entry.source, entry.key))
        if at is None:
            positions = self._program(lambda: self.logs[0].append_rows([old_row(one, 1, old_data(one))]))
            self._same(positions, [len(self.entries) + 1], "an old row is appended")
            self._add(replace(entry, data=old_data(one), schema_version=1))
            self.counts["old version stored"] += 1
        else:
            self.counts["old version repeated"] += self.entries[at - 1].schema_version == 1
        self._append(1, [chosen, (chosen[0], 1 - chosen[1])])

    # -- deliveries ------------------------------------------------------------------------------------------------------------------------

    @rule(sent=deliveries)
    def deliver(self, sent: list[tuple[Choice, str]]) -> None:
        """Through the door: what cannot be mapped is held, what contradicts is kept beside."""
        self._deliver(sent)

    @rule(sent=deliveries, point=st.sampled_from(("delivery kept", "mapped", "before commit", "after commit", "conflict found")))
    def deliver_dies(self, sent: list[tuple[Choice, str]], point: str) -> None:
        """Intake dies in the middle; the source sends all of it again."""
        with self._dies(point) as died:
            self._intake().take([_delivery(one) for one in sent])
        if not died:
            self._delivered(sent)  # nothing contradicted
        elif point in ("after commit", "conflict found"):
            self._expect([self._mapped(one)[0] for one in sent])
        self.counts["intake died"] += len(died)
        self._deliver(sent)

    @precondition(lambda self: not self.late.mended)
    @rule()
    def mend(self) -> None:
        """From now on late deliveries are understood."""
        self.late.mended = True

    @precondition(lambda self: any(entry.type in (HELD, REFUSED) for entry in self.entries))
    @rule(which=st.integers(0, 20))
    def redrive(self, which: int) -> None:
        """Send some entries of the quarantine again, also those that are settled."""
        (quarantine,) = (follower for follower in self.followers if follower.view.name == "quarantine")
        self._program(lambda: _to_head(quarantine))
        held = entries(self.owner.cursor(), settled=True)
        self._same(len(held), sum(entry.type in (HELD, REFUSED) for entry in self.entries), "how many entries are listed")
        for entry in (held * 2)[which % len(held) :][:3] if held else ():
            self._redrive(entry)

    def _redrive(self, entry: dict[str, Any]) -> None:
        said = self._program(lambda: redrive_entry(self.logs[0], self._intake(), entry))
        mapped, understood = self._mapped(_of_sha256(entry["sha256"]))
        if not understood:
            self._same(said and said[:2], ("quarantined", 0), "what cannot be mapped stays held")
            self.counts["re-driven in vain"] += 1
            return
        (result,) = self._expect([mapped])
        outcome = _name(result)
        self._same(said and said[:2], (outcome, int(outcome == "accepted")), "what a re-drive answers")
        if entry["kind"] == "quarantined" and outcome == "conflict":
            self._expect([_refused(entry["sha256"], mapped)])
        if entry["kind"] == "quarantined" or outcome != "conflict":
            key = f"{entry['held_key']}!redriven"
            self._expect([Entry(f"delivery/{entry['sha256']}", "integration.quarantine_redriven", entry["source"], key)])
            self.counts["re-driven"] += 1

    # -- followers and replay --------------------------------------------------------------------------------------------------------------

    @rule(n=number, batch=sizes, steps=st.integers(1, 40))
    def follow(self, n: int, batch: int, steps: int) -> None:
        """A view follows for a while."""
        for _ in range(steps):
            if not self._program(lambda: self.followers[n].step(batch)):
                break

    @rule(n=number, batch=sizes, point=st.sampled_from(points.FOLLOW))
    def follow_dies(self, n: int, batch: int, point: str) -> None:
        """A follower dies: rows and position move together, or neither does. Another takes over."""
        view = followed()[n]
        before = self._position(view)
        with self._dies(point) as died:
            self._program(lambda: self.followers[n].step(batch))
        moved = min(before + batch, len(self.entries)) if point == "view committed" else before
        self._same(self._position(view), moved, f"where view {view.name} is")
        self.followers[n].close()
        self.followers[n] = Follower(self.access.follow, view)
        self.counts["follower died"] += len(died)
        self._program(lambda: self.followers[n].step(batch))

    @rule(n=number, batch=sizes, restart=st.booleans())
    def rebuild_dies(self, n: int, batch: int, restart: bool) -> None:
        """A rebuild dies in its second batch; rebuild and verify will meet what it left."""
        with self._dies("position moved", nth=2) as died:
            self._program(lambda: rebuild(self.access.follow, [followed()[n]], batch=batch, restart=restart))
        self.counts["rebuild interrupted"] += len(died)

    @rule(n=number, batch=sizes, swap=st.booleans())
    def replay(self, n: int, batch: int, swap: bool) -> None:
        """Rebuild, verify, promote."""
        view = followed()[n]
        self._program(lambda: rebuild(self.access.follow, [view], batch=batch))
        verified = self._program(lambda: verify(self.access.follow, [view]))
        different = verified and (verified[0], [name for name, table in verified[1][view.name].items() if not table.equal])
        self._same(different, (len(self.entries), []), f"what verify finds different in view {view.name}")
        self.counts["rebuilt and verified"] += 1
        if swap:
            self._program(lambda: promote(self.access.follow, [view]))
            self.compared.pop(view.name, None)  # other tables now
            self.counts["promoted"] += 1

    # -- what always holds -----------------------------------------------------------------------------------------------------------------

    @invariant()
    def log_is_the_list(self) -> None:
        """Positions, streams, versions, keys, data."""
        if not self.judging:
            return
        found = self._ask(
            """select position, stream, version, type, source, business_key, schema_version, convert_from(data, 'UTF8')
               from log.event order by position"""
        )
        versions: Counter[str] = Counter()
        for n, (row, entry) in enumerate(zip(found, self.entries, strict=False), 1):
            versions[entry.stream] += 1
            expected = (n, entry.stream, versions[entry.stream], entry.type, entry.source, entry.key, entry.schema_version)
            assert row[:7] == expected, f"the log has {row[:7]}, the model {expected}"
            assert entry.data is None or json.loads(row[7]) == entry.data, f"position {n} has {row[7]}, the model {entry.data}"
        assert len(found) == len(self.entries), f"the log has {len(found)} events, the model {len(self.entries)}"

    @invariant()
    def views_are_the_list(self) -> None:
        """A view at the head, whenever it or the head is another, has the rows that it makes of the list."""
        head = len(self.entries)
        for view in followed() if self.judging and head else ():
            if self.compared.get(view.name) != head and self._position(view) == head:
                self._compare(view)
                self.compared[view.name] = head
                self.counts["view at the head"] += 1

    def _compare(self, view: TableView) -> None:
        facts = [self._fact(position) for position in range(1, len(self.entries) + 1)]
        with view_suite.folded(self.laws, view, recorded(facts)) as cursor:
            for table in view.tables:
                query = 'select t::text from {} t order by t::text collate "C"'
                expected = cursor.execute(sql.SQL(query).format(sql.Identifier(table.name))).fetchall()
                found = cursor.execute(sql.SQL(query).format(sql.Identifier(live_schema(view.name), table.name))).fetchall()
                assert found == expected, f"view {view.name}, table {table.name} has {found}, the list makes {expected}"

    def _fact(self, position: int) -> Fact:
        entry = self.entries[position - 1]
        if entry.fact is None:
            (found,) = self.logs[0].read(position - 1, 1)
            entry.fact = found.fact
        return entry.fact

    # -- the model -------------------------------------------------------------------------------------------------------------------------

    def _append(self, writer: int, chosen: list[Choice]) -> None:
        known = [_entry(made(choice)) for choice in chosen]
        self.counts["twice in a batch"] += len({entry.key for entry in known}) < len(known)
        results = self.logs[writer].append([made(choice) for choice in chosen])
        said, expected = [[(_name(result), result.position) for result in found] for found in (results, self._expect(known))]
        self._same(said, expected, "what append answers")

    def _expect(self, given: Sequence[Entry]) -> list[Result]:
        """What the log must answer; the model takes what is new."""
        results: list[Result] = []
        for entry in given:
            at = self.at.get((entry.source, entry.key))
            if at is None:
                self._add(entry)
                results.append(Accepted(len(self.entries)))
            elif self.entries[at - 1].said == entry.said:
                results.append(Duplicate(at))
            else:
                results.append(Conflict(at, b"", b""))
            self.counts[_name(results[-1])] += 1
        return results

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.at[entry.source, entry.key] = len(self.entries)

    def _mapped(self, sent: tuple[Choice, str]) -> tuple[Entry, bool]:
        """What a delivery becomes first, and whether it can be mapped."""
        choice, form = sent
        sha256 = hashlib.sha256(_body(sent)).hexdigest()
        if form == "plain" or (form == "late" and self.late.mended):
            one = made(choice)
            return _entry(replace(one, envelope=replace(one.envelope, mapping=CanonicalJson.name, raw=sha256))), True
        source = "trial" if form == "late" else "erp:main"  # where nobody can tell whose it is, the transport's name
        return Entry(f"delivery/{sha256}", HELD, source, f"held:{sha256}:1:"), False

    def _deliver(self, sent: list[tuple[Choice, str]]) -> None:
        outcomes = self._intake().take([_delivery(one) for one in sent])
        self._same([(outcome.outcome, _position_of(outcome)) for outcome in outcomes], self._delivered(sent), "what intake answers")

    def _delivered(self, sent: list[tuple[Choice, str]]) -> list[tuple[str, int | None]]:
        """What intake must answer to deliveries; the model takes what is new, and behind all of it what was refused."""
        mapped = [self._mapped(one) for one in sent]
        results = self._expect([entry for entry, _ in mapped])
        answers: list[tuple[str, int | None]] = []
        for one, (entry, understood), result in zip(sent, mapped, results, strict=True):
            self.counts["quarantined"] += not understood
            answers.append((_name(result), result.position) if understood else ("quarantined", None))
            if isinstance(result, Conflict):
                self._expect([_refused(hashlib.sha256(_body(one)).hexdigest(), entry)])
        return answers

    # -- the program -----------------------------------------------------------------------------------------------------------------------

    def _intake(self) -> Intake:
        return Intake(self.logs[0], [*mappings(), self.late])

    @contextmanager
    def _dies(self, point: str, nth: int = 1) -> Iterator[list[str]]:
        """The nth time that a point is reached within the block, the process dies; its name is then in the list."""
        died: list[str] = []
        left = nth

        def die(name: str) -> None:
            nonlocal left
            left -= name == point
            if not left:
                points.arm(None)
                died.append(name)
                raise Crash(name)

        points.arm(die)
        try:
            with suppress(Crash):
                yield died
        finally:
            points.arm(None)

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        return self.owner.execute(query.encode()).fetchall()

    def _position(self, view: TableView) -> int:
        return int(self._ask(f"select position from {live_schema(view.name)}.position")[0][0])  # noqa: S608 - our own names

    def _program(self, call: Callable[[], T]) -> T | None:
        """Call the program. With a mechanism taken away, views may refuse what is in the log: then only the log is counted."""
        try:
            return call()
        except HubError:
            if self.judging:
                raise
            return None

    def _same(self, found: object, expected: object, what: str) -> None:
        if self.judging:
            assert found == expected, f"{what}: {found}, and it must be {expected}"


def _entry(one: Fact) -> Entry:
    e, event = one.envelope, one.event
    return Entry(event.stream(), event.type, e.source, e.key, event.data(), one, event.data(), event.version)


def _name(result: Result) -> str:
    return type(result).__name__.lower()


def _position_of(outcome: Outcome) -> int | None:
    ((line,),) = (part.lines for part in outcome.parts)
    return line.position


def _refused(sha256: str, entry: Entry) -> Entry:
    """What is kept of a delivered fact whose key is taken by another content."""
    return Entry(f"delivery/{sha256}", REFUSED, entry.source, f"held:{sha256}:1::{entry.key}")


def _body(sent: tuple[Choice, str]) -> bytes:
    choice, form = sent
    one = made(choice)
    row: dict[str, Any] = {"type": one.event.type, "source": one.envelope.source, "key": one.envelope.key, "data": one.event.data()}
    row["occurred_at"] = one.envelope.occurred_at.isoformat()
    if form == "broken":
        row["data"]["no such field"] = choice
    return (LATE if form == "late" else b"") + json.dumps(row).encode()


def _of_sha256(sha256: str) -> tuple[Choice, str]:
    """What was sent as the bytes of this sum."""
    every = (((n, variant), form) for n in range(KEYS) for variant in range(VARIANTS) for form in ("plain", "late", "broken"))
    return next(sent for sent in every if hashlib.sha256(_body(sent)).hexdigest() == sha256)


def _delivery(sent: tuple[Choice, str]) -> Delivery:
    return Delivery(_body(sent), "trial", START)


def _to_head(follower: Follower) -> None:
    while follower.step():
        pass


def _empty(owner: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Make an empty log and empty views at position 0, as the owner of the server can and nobody else. Rows go, tables stay: those are some
    hundred files."""
    with owner.transaction():
        owner.execute("set local session_replication_role = replica")  # no trigger refuses
        owner.execute("delete from log.event; delete from log.delivery; delete from intake.seen")
        for (shadow,) in owner.execute("select nspname from pg_namespace where starts_with(nspname, 'shadow_')").fetchall():
            owner.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(shadow)))
        for view in followed():
            for table in view.tables:
                owner.execute(sql.SQL("delete from {}").format(sql.Identifier(live_schema(view.name), table.name)))
            owner.execute(sql.SQL("update {} set position = 0, fact = null").format(sql.Identifier(live_schema(view.name), "position")))


def _search(access: Access, seed: int, examples: int, steps: int, judging: bool, record: Path) -> None:
    """Search, as a process of its own."""
    lines: list[object] = []
    counts: Counter[str] = Counter()
    asked = settings(
        max_examples=examples,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    failure = ""
    with psycopg.connect(access.owner) as laws, psycopg.connect(access.owner, autocommit=True) as owner:
        for view in followed():
            ensure(laws.cursor(), view, view_suite.schema_of(view))
        laws.commit()
        given = {"access": access, "owner": owner, "laws": laws, "judging": judging, "counts": counts}
        machine = hypothesis.seed(seed)(type("Machine", (Machine,), given))
        try:
            with reporting.with_reporter(lines.append):
                run_state_machine_as_test(machine, settings=asked)
        except Exception:  # noqa: BLE001 - whatever it is, the trial shows it with its example
            failure = "\n".join([traceback.format_exc(limit=-3), *map(str, lines)])
    record.write_text(json.dumps({"counts": counts, "failure": failure}))


def run(ground: Ground) -> Found:
    """The trial; see the module's docstring."""
    mappings()
    exercised = [name for name in EXERCISED if ground.complete or name != "view at the head"]  # compared where the log is right
    found = Found(runs=0)
    examples, steps = ground.size(40, 1000) // PROCESSES, ground.size(30, 50)
    records = [ground.folder / f"model-{n}" for n in range(PROCESSES)]
    with ground.database() as one, ground.database() as other:
        children = [
            ground.fork(f"model {n}", _search, access, ground.seed * PROCESSES + n, examples, steps, ground.complete, records[n])
            for n, access in enumerate((one, other))
        ]
        for child in children:
            child.wait(SECONDS[0 if ground.small else 1])
        found.wrong["processes that failed"] = sum(child.code != 0 for child in children)
    counts: Counter[str] = Counter()
    for record in records:
        said = json.loads(record.read_text()) if record.exists() else {"counts": {}, "failure": ""}
        counts.update(said["counts"])
        found.wrong["falsified"] = found.wrong.get("falsified", 0) + bool(said["failure"])
        if said["failure"]:
            print(said["failure"])
    found.runs = counts["examples"]
    found.lost, found.twice, found.skipped = counts["lost"], counts["twice"], counts["skipped"]
    found.exercised = {name: counts[name] for name in exercised}
    found.also |= {"steps of an example": steps, "facts": counts["facts"]}
    return found


SECONDS = 600, 28_800  # for up to 300 s hypothesis looks for a smaller example of what it found
TRIAL = Trial("model", run, seconds=SECONDS, without={"receipt": mechanisms.receipt})
