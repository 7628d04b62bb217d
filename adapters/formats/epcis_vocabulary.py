"""The Core Business Vocabulary of EPCIS 2.0, in its four spellings, and the names that a document's JSON-LD contexts give to namespaces.

A value of a standard vocabulary is a bare word of that vocabulary (`shipping`), a CURIE (`cbv:BizStep-shipping`), a web URI or the URN of CBV 1;
`standard` gives the bare word for all four. Any other URI or CURIE is a vocabulary of the sender's own and stays as it is.
"""

import re
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

IRI_CHARS_MAX = 300  # of a namespace: it is written out in the name of each field that is in it

STEPS = frozenset({
    "accepting", "arriving", "assembling", "collecting", "commissioning", "consigning", "creating_class_instance", "cycle_counting",
    "decommissioning", "departing", "destroying", "disassembling", "dispensing", "encoding", "entering_exiting", "holding",
    "inspecting", "installing", "killing", "loading", "other", "packing", "picking", "receiving", "removing", "repackaging",
    "repairing", "replacing", "reserving", "retail_selling", "sampling", "sensor_reporting", "shipping", "staging_outbound",
    "stock_taking", "stocking", "storing", "transporting", "unloading", "unpacking", "void_shipping",
})  # fmt: skip
DISPOSITIONS = frozenset({
    "active", "available", "completeness_inferred", "completeness_verified", "conformant", "container_closed", "container_open",
    "damaged", "destroyed", "dispensed", "disposed", "encoded", "expired", "in_progress", "in_transit", "inactive", "mismatch_class",
    "mismatch_instance", "mismatch_quantity", "needs_replacement", "no_pedigree_match", "non_conformant", "non_sellable_other",
    "partially_dispensed", "recalled", "reserved", "retail_sold", "returned", "sellable_accessible", "sellable_not_accessible",
    "stolen", "unavailable", "unknown",
})  # fmt: skip
TRANSACTIONS = frozenset({
    "bol", "cert", "desadv", "inv", "pedigree", "po", "poc", "prodorder", "recadv", "rma", "testprd", "testres", "upevt",
})  # fmt: skip
PARTIES = frozenset({"location", "owning_party", "possessing_party"})
ERRORS = frozenset({"did_not_occur", "incorrect_data"})


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One vocabulary: what it is called in messages, its words, and the marks of its URIs (`BizStep-`, `bizstep:`)."""

    name: str
    words: frozenset[str]
    web: str
    urn: str

    def standard(self, value: str) -> str | None:
        """The bare word of a value in any spelling; another URI as it is; None for a bare word that is none of the vocabulary's."""
        if value in self.words:
            return value
        for mark in (f"https://ref.gs1.org/cbv/{self.web}-", f"https://ns.gs1.org/cbv/{self.web}-", f"cbv:{self.web}-", self.urn):
            if value.startswith(mark) and value.removeprefix(mark) in self.words:
                return value.removeprefix(mark)
        return value if is_uri(value) else None


STEP = Vocabulary("bizStep", STEPS, "BizStep", "urn:epcglobal:cbv:bizstep:")
DISPOSITION = Vocabulary("disposition", DISPOSITIONS, "Disp", "urn:epcglobal:cbv:disp:")
TRANSACTION = Vocabulary("business transaction type", TRANSACTIONS, "BTT", "urn:epcglobal:cbv:btt:")
PARTY = Vocabulary("source or destination type", PARTIES, "SDT", "urn:epcglobal:cbv:sdt:")
ERROR = Vocabulary("error reason", ERRORS, "ER", "urn:epcglobal:cbv:er:")

COMMENT = "{http://www.w3.org/2000/01/rdf-schema#}comment"  # a field that says nothing of the event

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")


def is_uri(value: object) -> bool:
    """Whether a value has the form of a URI or a CURIE."""
    return isinstance(value, str) and _URI.fullmatch(value) is not None


_STANDARD_CONTEXT = re.compile(r"https?://(?:ref|gs1)\.(?:gs1\.org|github\.io)/(?:standards/epcis|EPCIS)/.*epcis-context\.jsonld")
# Prefixes that the standard's own context declares.
_DECLARED = {
    "epcis": "https://ref.gs1.org/epcis/",
    "cbv": "https://ref.gs1.org/cbv/",
    "gs1": "https://gs1.org/voc/",
    "cbvmda": "urn:epcglobal:cbv:mda:",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "owl": "http://www.w3.org/2002/07/owl#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "dcterms": "http://purl.org/dc/terms/",
}


@dataclass(frozen=True, slots=True)
class Names:
    """What names mean in a document or event. `open`: a context lies elsewhere, which the hub never fetches, and may declare any word."""

    terms: ChainMap[str, str] = field(default_factory=lambda: ChainMap(_DECLARED))
    open: bool = False

    def within(self, context: Any) -> "Names":
        """The names inside an object with a `@context` of its own. Raises ValueError for what is no context."""
        own, is_open = dict[str, str](), self.open
        for entry in context if isinstance(context, list) else [context]:
            if isinstance(entry, dict):
                for term, meaning in entry.items():
                    iri = meaning.get("@id", "") if isinstance(meaning, dict) else meaning
                    if isinstance(iri, str) and not term.startswith("@"):
                        if len(iri) > IRI_CHARS_MAX:
                            raise ValueError
                        own[term] = iri
            elif isinstance(entry, str) and is_uri(entry):
                is_open = is_open or _STANDARD_CONTEXT.fullmatch(entry) is None
            elif entry is not None:
                raise ValueError
        return Names(self.terms.new_child(own), is_open)  # no copy: each event may have a context of its own

    def known(self, name: str) -> bool:
        """Whether an extension may be called that: in a namespace, a JSON-LD keyword, or a word that some context may declare."""
        return ":" in name or name.startswith("@") or name in self.terms or self.open

    def expand(self, name: str) -> str:
        """`{namespace}local` for a prefixed name whose prefix is declared, else the name."""
        prefix, colon, local = name.partition(":")
        if colon and prefix in self.terms and not local.startswith("//"):
            return f"{{{self.terms[prefix]}}}{local}"
        return name


def texts(value: Any) -> Sequence[str] | None:
    """A text or a list of texts as a list; None for anything else."""
    found = [value] if isinstance(value, str) else value
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else None
