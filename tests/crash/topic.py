"""The oracle of the Kafka relay: a topic read by a plain consumer, against the log read by plain SQL. Nothing of the relay's own is used."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, TopicPartition

WAIT_S = 30.0


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
