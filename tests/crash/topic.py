"""The Kafka relay in trials: a real broker that the trial may kill, and the oracle.

The oracle is the topic read by a plain consumer against the log read by plain SQL. Nothing of the relay's own is used.
"""

import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition

from hub.app.servers import kafka, process
from tests.crash.ground import Access, Child, Ground, Missing
from tests.crash.report import Found
from tests.crash.roads import make_topic

WAIT_S = 30.0
NAME = "trial.log"
PARTITIONS = 3


@dataclass(frozen=True, slots=True)
class Published:
    """One message: where it is, and what it says. `about` is (id, stream, version, type) by its headers."""

    partition: int
    offset: int
    position: int
    key: bytes
    about: tuple[str, str, int, str]
    data: bytes


@dataclass(slots=True)
class Account:
    """What a topic holds of a log, counted."""

    lost: int = 0  # positions of the log that are not on it
    left_out: int = 0  # facts that a partition went past, whether or not they came later
    misordered: int = 0  # streams on two partitions; versions whose first message stands behind that of a later one
    different: int = 0  # messages that are not what the log holds at their position
    again: int = 0  # messages of what was there already
    turns: int = 0  # places where a partition goes back to what it had


def read_topic(brokers: str, topic: str) -> list[Published]:
    """Everything that a topic holds now, a partition after the other."""
    return [_published(*one) for one in read_raw(brokers, topic)]


def read_raw(brokers: str, topic: str) -> list[tuple[int, int, bytes, bytes, dict[str, bytes]]]:
    """The same as (partition, offset, key, value, headers)."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": f"reads-{topic}", "enable.auto.commit": False})
    try:
        found = []
        for number in sorted(consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions):
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=WAIT_S, cached=False)
            consumer.assign([TopicPartition(topic, number, 0)])
            at = 0
            while at < end:
                messages = consumer.consume(1, WAIT_S) + consumer.consume(1000, 0)  # else it waits until there are so many
                if not messages:
                    raise AssertionError(f"{topic}[{number}] ends at {end} and gave nothing after {at}")
                for message in messages:
                    assert message.error() is None, message.error()
                    told: Any = message.headers() or ()  # typed as either of what may be given and what comes back
                    headers = {name: bytes(text) for name, text in told}
                    found.append((number, message.offset() or 0, bytes(message.key() or b""), bytes(message.value() or b""), headers))
                    at = (message.offset() or 0) + 1
        return found
    finally:
        consumer.close()


def _published(partition: int, offset: int, key: bytes, value: bytes, headers: dict[str, bytes]) -> Published:
    said = {name: text.decode() for name, text in headers.items()}
    about = said["ce_id"], said["ce_subject"], int(said["ce_streamversion"]), said["ce_type"]
    return Published(partition, offset, int(said["ce_position"]), key, about, value)


def account(log: Iterable[tuple[int, str, str, int, str, bytes]], published: Sequence[Published]) -> Account:
    """(position, id, stream, version, type, data) of each fact of the log, against the messages in the order of each partition."""
    found = Account()
    facts = {position: ((id_, stream, version, type_), data) for position, id_, stream, version, type_, data in log}
    partition_of: dict[str, int] = {}
    latest: dict[str, int] = {}
    seen: set[int] = set()
    lanes: dict[int, list[int]] = defaultdict(list)
    for one in published:
        stream, version = one.about[1], one.about[2]
        found.different += facts.get(one.position) != (one.about, one.data) or one.key != stream.encode()
        found.misordered += partition_of.setdefault(stream, one.partition) != one.partition
        found.again += one.position in seen
        if one.position not in seen:
            found.misordered += version < latest.get(stream, 0)
            latest[stream] = max(version, latest.get(stream, 0))
            seen.add(one.position)
        lanes[one.partition].append(one.position)
    found.lost = len(facts.keys() - seen)
    for lane in lanes.values():
        place = {position: n for n, position in enumerate(sorted(set(lane)))}
        at = -1
        for position in lane:
            found.left_out += max(0, place[position] - at - 1)
            found.turns += place[position] <= at
            at = place[position]
    return found


class Topic:
    """A topic of a broker of its own, kept by a process of its own, which kills the broker and starts it again when it is asked to."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._folder = ground, ground.folder / "relayed"
        self._folder.mkdir()
        self.kills = 0
        self._keeper: Child = ground.fork("broker", _keep, self._folder, hub=False)
        if not process.wait_until(lambda: self._starts() == 1 or self._keeper.ended(), 90) or self._keeper.ended():
            raise AssertionError(f"the broker did not start: {process.tail(ground.log)}")
        self.brokers = (self._folder / "brokers").read_text()

    def kill(self) -> bool:
        """SIGKILL to the broker, which comes back after a while; False where it is not back from the last time."""
        if self._starts() <= self.kills:
            return False
        self.kills += 1
        self._keeper.send(signal.SIGUSR1)
        return True

    def published(self, access: Access, seconds: float) -> bool:
        """Whether the relay's position comes to the head of the log as of now."""

        def there() -> bool:
            try:
                return bool(access.ask("select position from relay.position")[0][0] >= head)
            except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
                return False

        head = access.head()
        return process.wait_until(there, seconds, every=0.05)

    def judge(self, access: Access, found: Found) -> None:
        """The whole topic against the whole log."""
        process.wait_until(lambda: self._starts() > self.kills, 60)
        out = self._ground.folder / "account.json"
        reader = self._ground.fork("reader", _account, access, self.brokers, out, hub=False)  # so that its client's threads are not in ours
        if not reader.wait(120) or reader.code != 0:
            raise AssertionError(f"the topic was not read: {process.tail(self._ground.log)}")
        seen = Account(**json.loads(out.read_text()))
        found.lost += seen.lost
        found.skipped += seen.left_out
        found.misordered += seen.misordered
        found.wrong["published otherwise than stored"] = seen.different
        found.wrong["broker did not come back"] = int(self._starts() <= self.kills)
        found.also["published again"] = seen.again
        assert found.exercised is not None
        found.exercised["broker killed"] = self.kills

    def _starts(self) -> int:
        try:
            return int((self._folder / "starts").read_text() or 0)
        except FileNotFoundError:
            return 0


def topic(ground: Ground, found: Found) -> Topic | None:
    """A topic to relay to; None, with the reason in the row, where there is no Kafka to be had. In CI there is."""
    if reason := kafka.available():
        if os.environ.get("HUB_CI") == "1":
            raise Missing(reason)
        found.also["relay not tried"] = reason
        return None
    return Topic(ground)


def _keep(folder: Path) -> None:
    """Run the broker; each SIGUSR1 kills it and, a while later, starts it again. It dies with us."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    broker = kafka.Kafka(folder / "kafka").start()
    make_topic(broker.brokers, NAME, PARTITIONS)
    (folder / "brokers").write_text(broker.brokers)
    for starts in range(1, 1_000_000):
        (folder / "starts").write_text(str(starts))
        signal.sigwait([signal.SIGUSR1])
        broker.kill()
        time.sleep(0.3 * (starts % 4))
        broker.start()


def _account(access: Access, brokers: str, out: Path) -> None:
    rows = access.ask("select position, key::text, stream, version, type, data from log.event order by position")
    out.write_text(json.dumps(asdict(account(rows, read_topic(brokers, NAME)))))
