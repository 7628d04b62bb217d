"""What no mapping wants is named by its first bytes, held once, and says what to do next."""

import gzip
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.unsupported import MAPPING
from hub.intake.mapping import Context, Held

EPCIS = '<?xml version="1.0"?>\n<!-- a > comment -->\n<e:EPCISDocument xmlns:e="urn:epcglobal:epcis:xsd:1" schemaVersion="1.2">'
BOMB = '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><lolz>&c;</lolz>'
SECRET = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>'


@pytest.mark.parametrize(
    ("body", "format_", "words"),
    [
        ("UNA:+.? 'UNB+UNOA:1+A+B+1'UNH+1+ORDERS:D:96A:UN'", "unsupported:edifact-ORDERS", "EDIFACT ORDERS is not supported yet"),
        ("\ufeffUNH+1+DESADV:D:96A:UN'BGM+351+1'", "unsupported:edifact-DESADV", "EDIFACT DESADV"),
        ("UNB+UNOD'UNH+000001'\nATR+NEW+X'", "unsupported:edifact", "an EDIFACT interchange"),
        (EPCIS, "unsupported:epcis-1.2-xml", "EPCIS 2.0 JSON"),
        (EPCIS.replace("EPCISDocument", "Poll"), "unsupported:epcis-xml-Poll", "EPCIS Poll"),
        ('<EPCISDocument schemaVersion="2.0" xmlns="urn:epcglobal:epcis:xsd:2"/>', "unsupported:epcis-2.0-xml", "2.0 in XML"),
        ('<SyncMaterialInformation xmlns="http://www.mesa.org/xml/B2MML-V0401"/>', "unsupported:b2mml-SyncMaterialInformation", "B2MML"),
        ("<ORDERS05><IDOC BEGIN='1'><EDI_DC40><IDOCTYP>ORDERS05</IDOCTYP>", "unsupported:idoc-ORDERS05", "IDoc ORDERS05 in XML"),
        ("EDI_DC40  " + "0" * 29 + "DESADV01", "unsupported:idoc-DESADV01", "SAP IDoc DESADV01"),
        ("EDI_DC40  0320000000000000000" + " " * 90, "unsupported:idoc", "a SAP IDoc"),
        ("<message>\n", "unsupported:xml-message", "an XML document message"),
        ('<?xml version="1.0"?><a:b xmlns:a="urn:x"/>', "unsupported:xml-b", "an XML document b of urn:x"),
        (BOMB, "unsupported:xml-lolz", "which the hub never reads"),
        (SECRET, "unsupported:xml-x", "which the hub never reads"),
        ("<!DOCTYPE html><html>", "unsupported:html", "HTML"),
        ('{"a": 1}', "unsupported:json", "JSON"),
        ('{"$schema": "https://json-schema.org/draft/2020-12/schema"}', "unsupported:json-schema", "JSON Schema"),
        ("a;b\n1;2\n3;4\n", "unsupported:csv", "separated values"),
        ('a,"b,c"\r\n1,2\r\n', "unsupported:csv", "separated values"),
        ("{not json", "unknown", "plain text"),
        ("<", "unknown", "plain text"),
        ("Some words, and more.\nA licence, in two, lines.\n", "unknown", "docs/extending.md"),
        ("", "unknown", "the delivery is empty"),
        (" \r\n", "unknown", "the delivery is empty"),
    ],
)
def test_told_by_content(body: str, format_: str, words: str) -> None:
    (part,) = MAPPING.read(body.encode(), Context(raw=""))
    (held,) = part.lines
    assert isinstance(held, Held)
    assert (part.format, part.number, held.path) == (format_, 1, "")
    assert words in held.reason
    assert "passwd" not in held.reason


def test_binary_files_and_other_encodings() -> None:
    for body, format_ in (
        (gzip.compress(b"x"), "unsupported:gzip"),
        (b"PK\x03\x04rest", "unsupported:zip"),
        (b"SQLite format 3\x00rest", "unsupported:sqlite"),
        ("<message/>".encode("utf-16"), "unsupported:xml-message"),
        (bytes(range(256)), "unknown"),
    ):
        assert MAPPING.read(body, Context(raw=""))[0].format == format_


@given(st.binary(max_size=300), st.sampled_from([b"", b"<", b"<!DOCTYPE ", b"UNB", b"EDI_DC40", b"{", b"a,b\n", b"\xff\xfe"]))
def test_any_bytes_give_one_held_part(body: bytes, start: bytes) -> None:
    (part,) = MAPPING.read(start + body, Context(raw=""))
    (held,) = part.lines
    assert isinstance(held, Held)
    assert held.reason
    assert len(part.format) < 100
    assert part.format.isprintable()


@pytest.mark.parametrize(
    "piece", [b"<", b"<!--", b"<a ", b'<a b="', b"UNB+", b"UNH+1+", b"a,b\n", b"<?", b"<IDOC ", b"<!DOCTYPE ", b"{", b'"', b"\n", b"=', "]
)
def test_a_large_body_is_told_by_its_beginning_alone(piece: bytes) -> None:
    body = b"<a>" * (piece == b"<IDOC ") + piece * (8 * 1024 * 1024 // len(piece))
    start = time.process_time()
    MAPPING.read(body, Context(raw=""))
    assert time.process_time() - start < 1
