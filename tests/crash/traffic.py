"""What trials share whose hub is forked from one import: sources that are never killed, the hub's processes, and the verdict at the end."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence

from hub.app.servers import process
from tests.crash.counted import judge, judge_views, stored
from tests.crash.deliveries import delivery, kind
from tests.crash.ground import Access, Child, Ground
from tests.crash.hubs import followed_to, run_follow, run_intake, run_relay
from tests.crash.report import Found
from tests.crash.sources import Record, run_source
from tests.crash.topic import NAME, Topic

SOURCES = 3
PER_SECOND = 150.0  # new deliveries a second of one source: enough that there is always work, and a whole run stays below a million facts


class Traffic:
    """Sources that send on until `drain`, and processes of the hub that take from them and follow."""

    def __init__(self, ground: Ground, access: Access, topic: Topic | None = None) -> None:
        self.ground, self.access, self.topic = ground, access, topic
        self.places = [ground.folder / f"source-{n}" for n in range(SOURCES)]
        self._records = [ground.folder / f"record-{n}.json" for n in range(SOURCES)]
        self._sources = [
            ground.fork(f"source {n}", run_source, ground.seed, n, self.places[n], self._records[n], PER_SECOND, hub=False)
            for n in range(SOURCES)
        ]

    def start(self, slot: str, first: Callable[[], None] = lambda: None) -> Child:
        """A process of the hub: `intake…`, `follow…` or `relay`; `first` is called in it before it begins."""

        def work() -> None:
            first()
            if slot.startswith("intake"):
                run_intake(self.access.owner, self.places)
            elif self.topic is not None and slot == "relay":
                run_relay(self.access.owner, self.topic.brokers, NAME)
            else:
                run_follow(self.access.owner)

        return self.ground.fork(slot, work)

    def drain(self, hub: Sequence[Child], found: Found) -> None:
        """Let these processes of the hub live until every source has its acknowledgements and every view is at the head; end them."""
        for source in self._sources:
            source.send(signal.SIGTERM)
        until = time.monotonic() + 60
        drained = all(source.wait(until - time.monotonic()) and source.code == 0 for source in self._sources)
        found.wrong["sources not drained"] = int(not drained)
        process.wait_until(lambda: followed_to(self.access, self.access.head()), 30 if self.ground.complete else 8, every=0.05)
        if self.topic is not None:
            found.wrong["relay behind"] = int(not self.topic.published(self.access, 60))
        for child in hub:
            child.send(signal.SIGTERM)
        found.wrong["not ended by SIGTERM"] = sum(not child.wait(10) for child in hub) if self.ground.complete else 0

    def judge(self, found: Found) -> None:
        """The sources' own records against the events in the database, the tally against the log, all views against the log folded anew."""
        ground, log = self.ground, stored(self.access)
        records = [Record.load(path) for path in self._records if path.exists()]
        sent: set[str] = set()
        acked: list[str] = []
        calls: list[tuple[str, int, int, int]] = []
        astray = wrong_position = 0
        for source, record in enumerate(records):
            for n, call in enumerate(record.sent):
                one = delivery(ground.seed, source, n)
                sent.update(one.ids)
                if n < len(record.acks):
                    ack, position = record.acks[n]
                    acked.extend(one.ids)
                    if one.own:
                        calls.append((one.ids[0], call, ack, position))
                        wrong_position += position != log.at.get(one.ids[0]) and ground.complete
            astray += record.astray
        judge(found, log, sent, acked)
        found.in_flight = sum(r.in_flight for r in records)
        found.redelivered = sum(r.redelivered for r in records)
        found.wrong.update({"acknowledged with another position": wrong_position, "acknowledged astray": astray})
        found.also["deliveries"] = dict(Counter(kind(ground.seed, s, n) for s, r in enumerate(records) for n in range(len(r.sent))))
        ground.history.calls("sources", calls)
        ground.history.log(log.log)
        self._judge_tally(log.head, found)
        if self.topic is not None:
            self.topic.judge(self.access, found)
        if ground.complete:
            judge_views(found, self.access, print)

    def _judge_tally(self, head: int, found: Found) -> None:
        ((rows, distinct, position),) = self.access.ask(
            "select count(*), count(distinct s.position), (select p.position from view_tally.position p) from view_tally.seen s"
        )
        found.twice += rows - distinct
        found.skipped += position - distinct
        found.wrong["tally behind"] = head - position
