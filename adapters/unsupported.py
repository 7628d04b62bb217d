"""What no other mapping wants: named as well as its first bytes allow, and held with the reason and the next step.

Only the beginning is looked at, with bounded patterns: no XML is parsed, no document type or entity is ever read, no name of a file is believed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hub.intake.mapping import Context, Held, Part

HEAD_BYTES = 16_384  # long licence comments stand before the root element of real XML files
_SOURCE = "unknown"
_PREFIX = (
    (b"SQLite format 3\x00", "sqlite", "a SQLite database"),
    (b"%PDF-", "pdf", "a PDF document"),
    (b"PK\x03\x04", "zip", "a ZIP archive (or an office document)"),
    (b"\x1f\x8b", "gzip", "a gzip archive"),
    (b"\x89PNG", "png", "an image"),
    (b"\xff\xd8\xff", "jpeg", "an image"),
    (b"-----BEGIN PGP", "pgp", "a PGP message"),
)
_UNPACK = {"zip", "gzip", "pgp"}
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_NAME = r"[A-Za-z_][A-Za-z0-9_.-]{0,60}"
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)|<\?.*?(?:\?>|\Z)", re.DOTALL)
_DOCTYPE = re.compile(rf"\s*<!DOCTYPE\s+(?:{_NAME}:)?({_NAME})", re.IGNORECASE)
_ROOT = re.compile(rf"\s*<(?:({_NAME}):)?({_NAME})(?=[\s/>])([^>]{{0,8000}})")
_XMLNS = r"""\sxmlns{}\s*=\s*["']([^"']{{1,300}})["']"""
_VERSION = re.compile(r"""\sschemaVersion\s*=\s*["'](\d{1,2}(?:\.\d{1,2})?)["']""")
_IDOC = re.compile(rf"\s*<IDOC[\s>].{{0,400}}?<IDOCTYP>({_NAME})", re.DOTALL)
_EDIFACT = re.compile(r"(?:UNA.{6}\s*)?(UNB|UNH|UNG)([^A-Za-z0-9\s])", re.DOTALL)
_JSON = re.compile(r"\{\s*[\"}]|\[\s*[\[{\]\"\-0-9tfn]")


@dataclass(frozen=True, slots=True)
class _Found:
    """A format: how it is called, and what it is in words; `next_step` where it is another than to wait for a mapping."""

    name: str
    words: str
    next_step: str = "it is kept here and can be driven again when a mapping for it exists"

    @property
    def format(self) -> str:
        return f"unsupported:{self.name}" if self.name else "unknown"


class Unsupported:
    """The mapping; see the module's docstring."""

    name = "unsupported/1"
    priority = 100

    def recognises(self, body: bytes) -> bool:
        """Everything: it is asked last."""
        return True

    def read(self, body: bytes, context: Context) -> Sequence[Part]:
        """One held part that says what the body is."""
        found = _told(body)
        reason = f"{found.words} is not supported yet: {found.next_step}" if found.name else f"{found.words}: {found.next_step}"
        return [Part(1, found.format, _SOURCE, [Held("", reason, "", _SOURCE)])]


def _told(body: bytes) -> _Found:
    if not body.strip(b" \t\r\n\x00"):
        return _Found("", "the delivery is empty", "send it again from its source")
    for prefix, name, words in _PREFIX:
        if body.startswith(prefix):
            step = "unpack it and send what is in it" if name in _UNPACK else "send the data in a format that the hub maps"
            return _Found(name, words, step)
    head = body[:HEAD_BYTES]
    encoding = next((encoding for bom, encoding in _BOMS if head.startswith(bom)), "utf-8")
    text = head.decode(encoding, "replace").lstrip("\ufeff \t\r\n")
    for rule in (_edifact, _xml, _idoc, _json, _csv):
        if (found := rule(text)) is not None:
            return found
    kind = (
        "plain text"
        if "\ufffd" not in text[:2000] and text[:2000].replace("\n", "").replace("\t", "").replace("\r", "").isprintable()
        else "bytes"
    )
    return _Found(
        "", f"{kind} in no format that the hub knows", "see docs/extending.md: a mapping for it is one new file; then drive it again"
    )


def _edifact(text: str) -> _Found | None:
    match = _EDIFACT.match(text)
    if match is None:
        return None
    separator = re.escape(match[2])
    message = re.search(rf"UNH{separator}[^{separator}'\r\n]{{0,40}}{separator}([A-Z]{{3,6}})(?![A-Za-z0-9])", text)
    if message is None:
        return _Found("edifact", "an EDIFACT interchange")
    return _Found(f"edifact-{message[1]}", f"EDIFACT {message[1]}")


def _xml(text: str) -> _Found | None:
    if not text.startswith("<"):
        return None
    text = _COMMENT.sub("", text).lstrip()
    if match := _DOCTYPE.match(text):
        if match[1].lower() == "html":
            return _Found("html", "an HTML page", "send the data in a format that the hub maps")
        words = f"an XML document {match[1]} with a document type declaration, which the hub never reads,"
        return _Found(f"xml-{match[1]}", words)
    match = _ROOT.match(text)
    if match is None:
        return None
    prefix, root, attributes = match[1], match[2], match[3]
    space = re.search(_XMLNS.format(f":{re.escape(prefix)}" if prefix else ""), attributes)
    namespace = space[1] if space else ""
    if root.lower() == "html":
        return _Found("html", "an HTML page", "send the data in a format that the hub maps")
    if "epcglobal:epcis" in namespace:
        return _epcis(root, namespace, attributes)
    if "B2MML" in namespace or "BatchML" in namespace:
        return _Found(f"b2mml-{root}", f"B2MML {root}")
    if namespace == "http://www.w3.org/2001/XMLSchema":
        return _Found("xml-schema", "an XML Schema", "it describes messages and is none itself: send messages")
    if root == "Edmx":
        return _Found("odata-metadata", "OData metadata", "it describes a service and holds no data: connect the service itself")
    if idoc := _IDOC.match(text[match.end() + 1 :]):
        return _Found(f"idoc-{idoc[1]}", f"SAP IDoc {idoc[1]} in XML")
    return _Found(f"xml-{root}", f"an XML document {root}" + (f" of {namespace[:120]}" if namespace else ""))


def _epcis(root: str, namespace: str, attributes: str) -> _Found:
    version = _VERSION.search(attributes)
    said = version[1] if version else "2.0" if namespace.endswith(":2") else "1"
    if root in ("EPCISDocument", "EPCISQueryDocument") and version:
        extra = "" if root == "EPCISDocument" else "query-"
        return _Found(
            f"epcis-{extra}{said}-xml", f"an {root} {said} in XML", "send EPCIS 2.0 JSON, or drive it again when a mapping for it exists"
        )
    return _Found(f"epcis-xml-{root}", f"EPCIS {root} in XML")


def _idoc(text: str) -> _Found | None:
    """A flat file IDoc begins with its control record, EDI_DC40 (or EDI_DC); the basic type stands at character 39 of EDI_DC40."""
    if not text.startswith("EDI_DC"):
        return None
    basic = re.match(_NAME, text[39:69]) if text.startswith("EDI_DC40") else None
    return _Found(f"idoc-{basic[0]}", f"SAP IDoc {basic[0]}") if basic else _Found("idoc", "a SAP IDoc")


def _json(text: str) -> _Found | None:
    if not _JSON.match(text):
        return None
    if "json-schema.org/" in text[:2000] and '"$schema"' in text[:2000]:
        return _Found("json-schema", "a JSON Schema", "it describes messages and is none itself: send messages")
    step = "send EPCIS 2.0, CloudEvents or canonical JSON (docs/keys.md), or add a mapping (docs/extending.md) and drive it again"
    return _Found("json", "JSON of no kind that the hub maps", step)


def _csv(text: str) -> _Found | None:
    """Rows with the same number of columns; a text that was cut off gives up its last row."""
    rows = [row for row in text.split("\n") if row.strip()]
    rows = rows[:-1][:6] if len(text) >= HEAD_BYTES - 16 else rows[:6]
    if len(rows) < 2 or not all(row.rstrip("\r").replace("\t", "").isprintable() for row in rows):
        return None
    for mark in (";", "\t", "|", ","):
        counts = {re.sub(r'"[^"]*"', "", row).count(mark) for row in rows}
        if len(counts) == 1 and counts != {0}:
            return _Found("csv", "a table of separated values", "add a mapping for it (docs/extending.md) and drive it again")
    return None


MAPPING = Unsupported()
