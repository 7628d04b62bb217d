"""The trace of a delivery: W3C's rules, and that a fact says the same whichever trace brought it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.canonical_json import MAPPING
from events.traces import traceparent
from hub.intake.mapping import Context, Line
from hub.log.codec import encode, row_of
from tests.facts import received

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("said", [TRACE, TRACE.encode(), TRACE[:-2] + "00", "cc" + TRACE[2:], "cc" + TRACE[2:] + "-what-will-be"])
def test_what_w3c_allows_is_kept_in_version_00(said: str | bytes) -> None:
    text = said.decode() if isinstance(said, bytes) else said
    assert traceparent(said) == "00" + text[2:55]


@pytest.mark.parametrize(
    "said",
    [
        None, "", b"", "x", TRACE.upper(), TRACE + "-more", TRACE + "\n", " " + TRACE, "ff" + TRACE[2:], TRACE[:-1], TRACE + "0", "cc" + TRACE[2:] + "more",
        "00-" + "0" * 32 + TRACE[35:], TRACE[:36] + "0" * 16 + "-01", "cc" + TRACE[2:] + "-" + "x" * 600, b"\xff" * 55, "\x00" * 55, TRACE.replace("a", "Ａ"),
    ],
)  # fmt: skip
def test_what_it_does_not_is_ignored(said: str | bytes | None) -> None:
    assert traceparent(said) == ""


@given(st.text(max_size=80) | st.binary(max_size=80))
def test_nothing_raises_and_what_comes_out_stays_as_it_is(said: str | bytes) -> None:
    found = traceparent(said)
    assert found == "" or (len(found) == 55 and traceparent(found) == found)


def test_the_trace_is_in_the_row_and_not_in_the_digest() -> None:
    plain = received("K1", "A", "L1", "5")
    traced = replace(plain, envelope=replace(plain.envelope, traceparent=TRACE))
    with_, without = encode(row_of(traced)), encode(row_of(plain))
    assert TRACE.encode() in with_.body
    assert b"traceparent" not in without.body
    assert (with_.digest, with_.key) == (without.digest, without.key)


@pytest.mark.parametrize(
    ("said", "kept"), [(f'"{TRACE}"', TRACE), ('"rubbish"', "of the transport"), ("17", "of the transport"), ("null", "of the transport")]
)
def test_a_cloud_event_says_its_own_trace(said: str, kept: str) -> None:
    body = (
        '{"specversion":"1.0","id":"R1","source":"erp","type":"procurement.goods_received","time":"2026-01-05T06:00:00Z","traceparent":%s,'
        '"data":{"receipt":"R1","things":[{"item":"A","lot":"L","quantity":{"value":"1","unit":"EA"}}],"location":"WH"}}'
    )
    (part,) = MAPPING.read((body % said).encode(), Context(raw="00", traceparent="of the transport"))
    (line,) = part.lines
    if not isinstance(line, Line):
        pytest.fail(line.reason)
    assert line.facts[0].envelope.traceparent == kept
