"""Rows in PostgreSQL's binary COPY format as psycopg gives them when they are selected; read by the format's description, not by the codec."""

import struct
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from events.base import _EPOCH

FIELDS = 14  # of a row of log.event: position, version, recorded_at, stream, key, occurred_at, effective_at, schema_version, digest, …
KEY, DIGEST = 4, 8


def rows(block: bytes) -> Iterator[list[bytes]]:
    """The fields of each row of `log.event` in a block. Raises `ValueError` for bytes that are no whole rows of it."""
    at = 0
    while at < len(block):
        (count,) = struct.unpack_from("!h", block, at)
        at += 2
        fields = []
        for _ in range(count):
            (length,) = struct.unpack_from("!i", block, at)
            fields.append(block[at + 4 : at + 4 + length])
            at += 4 + length
        if count != FIELDS:
            raise ValueError(f"a row of {count} fields, not of {FIELDS}")
        yield fields
    if at != len(block):
        raise ValueError(f"the last row ends at {at}, the block at {len(block)}")


def as_selected(fields: Sequence[bytes]) -> tuple[Any, ...]:
    """The columns `hub.log.codec.COLUMNS` of a row."""
    position, version, schema, occurred, effective, recorded = (int.from_bytes(fields[n], "big", signed=True) for n in (0, 1, 7, 5, 6, 2))
    stream, type_, source, key = (fields[n].decode() for n in (3, 9, 10, 11))
    times = [_EPOCH + timedelta(microseconds=us) for us in (occurred, effective, recorded)]
    return position, stream, version, type_, schema, source, key, *times, fields[12], fields[13]
