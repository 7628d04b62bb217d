"""EPCIS 2.0 JSON documents, query results and single events to facts, one fact an event.

Which fact an event makes follows from its type, action and bizStep; what no fact has a field for is kept in the envelope's `details`. Keys are those
of docs/keys.md: the eventID, else the event's hash as the Core Business Vocabulary defines it; an errorDeclaration makes a retraction.
"""

from collections.abc import Callable, Sequence
from typing import Any

from adapters.formats import epcis, epcis_event, epcis_hash
from adapters.formats.epcis_event import Event, Raw, Wrong
from events import canonical, gs1
from events.base import Envelope, Fact
from events.base import Event as CanonicalEvent
from events.errors import Refused
from events.inventory import FactRetracted, ObjectsDecommissioned
from events.logistics import HandlingUnitPacked, HandlingUnitUnpacked, ObjectsObserved, ReturnReceived, ShipmentDispatched
from events.procurement import GoodsReceived
from events.production import LotTransformed, OutputProduced, ScrapReported
from events.vocabulary import rec20
from hub.intake.mapping import Context, Held, Line, Part, Partner

Data = dict[str, Any]
FORMAT = "epcis-2.0-json"
UNKNOWN = "unknown"  # a location that must be named and is not


class Epcis:
    """The mapping; see the module's docstring."""

    name = "epcis-2.0-json/1"
    priority = 20

    def recognises(self, body: bytes) -> bool:
        """JSON that speaks of EPCIS; asked before canonical JSON."""
        return epcis.looks_like(body)

    def read(self, body: bytes, context: Context) -> Sequence[Part]:
        """One part, a line an event: its number in the document; "" for an event that came alone."""
        try:
            document = epcis.read(canonical.loads(body))
        except Wrong as wrong:
            return [Part(1, FORMAT, "epcis", [Held("", wrong.reason, wrong.place, "epcis")])]
        except Refused as error:
            return [Part(1, FORMAT, "epcis", [Held("", str(error), "", "epcis")])]
        source = f"epcis:{_party(document.sender)}" if document.sender else "epcis"
        partner = context.partners.get(source) or Partner()
        lines = [self._line("" if document.single else str(raw.number), raw, document, source, partner, context) for raw in document.events]
        return [Part(1, FORMAT, source, lines)]

    def _line(self, path: str, raw: Raw, document: epcis.Document, source: str, partner: Partner, context: Context) -> Line | Held:
        try:
            event = epcis_event.check(raw, document.ignored)
            key = event.id or epcis_hash.event_id(raw.value, raw.names, document.ignored)
            made, at = _Maker(event, key, partner).event(), event.time
            if event.error is not None:
                made = FactRetracted.of({"original": key, "reason": event.error.reason, "corrective": list(event.error.corrective)})
                key, at = f"{key}#error:{canonical.time_text(event.error.time)}", event.error.time
            envelope = Envelope(
                source=source, key=key, occurred_at=at, effective_at=at, mapping=self.name, raw=context.raw,
                traceparent=context.traceparent, details=event.rest,
            )  # fmt: skip
        except Wrong as wrong:
            return Held(path, wrong.reason, wrong.place, source)
        except Refused as error:
            return Held(path, str(error), raw.where, source)
        if len(key) > 600:
            return Held(path, "the eventID is longer than 550 characters", f"{raw.where}.eventID".lstrip("."), source)
        return Line(path, [Fact(envelope, made)])


class _Maker:
    """Makes the canonical event of one EPCIS event."""

    def __init__(self, event: Event, key: str, partner: Partner) -> None:
        self._e = event
        self._key = key if len(key) <= 200 else canonical.digest(key).hex()
        self._units = partner.units

    def event(self) -> CanonicalEvent:
        """The fact. Raises `Wrong` for a unit that nobody knows, `Refused` for what no fact can hold."""
        return _RULES[self._e.type](self)

    def object(self) -> CanonicalEvent:
        e = self._e
        if e.step == "receiving" and e.action != "DELETE":
            return self._returned() if e.disposition == "returned" else self._received()
        if e.action == "ADD":
            return self._made()
        if e.action == "DELETE":
            return self._gone()
        return self._dispatched() if e.step == "shipping" and self._things("epcList", "quantityList") else self._observed()

    def aggregation(self) -> CanonicalEvent:
        e = self._e
        if e.action == "OBSERVE":
            return self._observed("childEPCs", "childQuantityList")
        cls = HandlingUnitPacked if e.action == "ADD" else HandlingUnitUnpacked
        contents = self._things("childEPCs", "childQuantityList")
        return cls.of({"container": _container(e.parent), "contents": contents, "location": self._place() or None})

    def transaction(self) -> CanonicalEvent:
        return self._observed()

    def transformation(self) -> CanonicalEvent:
        e = self._e
        name = gs1.parse(e.transformation) if e.transformation else None
        return LotTransformed.of(
            {
                "transformation": name.path if name else e.transformation or self._key,
                "order": self._document("prodorder"),
                "inputs": self._things("inputEPCList", "inputQuantityList"),
                "outputs": self._things("outputEPCList", "outputQuantityList"),
                "location": self._place() or None,
            }
        )

    def _made(self) -> CanonicalEvent:
        things = self._things("epcList", "quantityList")
        if not things:
            return self._observed()
        order, place = self._document("prodorder"), self._place() or UNKNOWN
        return OutputProduced.of({"output": self._key, "order": order, "things": things, "location": place})

    def _gone(self) -> CanonicalEvent:
        things = self._things("epcList", "quantityList")
        if not things:
            return self._observed()
        if self._e.step == "destroying":
            return ScrapReported.of(
                {"scrap": self._key, "things": things, "location": self._place() or UNKNOWN, "reason": self._e.disposition}
            )
        place = self._place() or None
        return ObjectsDecommissioned.of({"document": self._key, "things": things, "location": place, "reason": self._e.step})

    def _received(self) -> CanonicalEvent:
        things = self._things("epcList", "quantityList")
        if not things:
            return self._observed()
        supplier = self._partner(self._e.sources)
        notice = self._document("desadv")
        return GoodsReceived.of(
            {
                "receipt": self._document("recadv") or self._key,
                "things": things,
                "location": self._place() or UNKNOWN,
                "supplier": supplier,
                "purchase_order": self._document("po"),
                "asn": notice,
                "asn_partner": supplier if notice else None,
            }
        )

    def _returned(self) -> CanonicalEvent:
        things = self._things("epcList", "quantityList")
        if not things:
            return self._observed()
        number, customer = self._document("rma") or self._key, self._partner(self._e.sources) or UNKNOWN
        return ReturnReceived.of({"return_number": number, "customer": customer, "things": things, "location": self._place() or UNKNOWN})

    def _dispatched(self) -> CanonicalEvent:
        return ShipmentDispatched.of(
            {
                "shipment": self._document("desadv") or self._document("bol") or self._key,
                "line": self._key,
                "things": self._things("epcList", "quantityList"),
                "from_location": self._place() or UNKNOWN,
                "customer": self._partner(self._e.destinations),
            }
        )

    def _observed(self, instances: str = "epcList", quantities: str = "quantityList") -> CanonicalEvent:
        e = self._e
        return ObjectsObserved.of(
            {
                "observation": self._key,
                "action": e.action,
                "things": self._things(instances, quantities),
                "step": e.step,
                "disposition": e.disposition,
                "location": self._place() or None,
                "container": _container(e.parent) if e.parent else None,
                "transactions": sorted({(type_ or "other", _number(name)) for type_, name in e.transactions}),
            }
        )

    def _things(self, instances: str, quantities: str) -> list[Data]:
        """Instances in the order of their identifiers, each once, then quantities: a list of EPCs has no order of its own."""
        once = {canonical.dumps(found): found for found in (gs1.thing(uri) for uri in self._e.epcs.get(instances, ()))}
        counted = [self._quantity(one) for one in self._e.quantities.get(quantities, ())]
        return [*(once[name] for name in sorted(once)), *sorted(counted, key=canonical.dumps)]

    def _quantity(self, one: epcis_event.Quantity) -> Data:
        thing: Data = dict(gs1.thing(one.epc_class, "item"))
        if one.value is not None:
            unit = "EA" if one.unit is None else self._units.get(one.unit) or one.unit
            if unit not in rec20():
                raise Wrong(
                    f"the unit {one.unit!r} is no code of UN/ECE Recommendation 20: correct it, or map it for this partner",
                    f"{one.place}.uom",
                )
            thing["quantity"] = {"value": canonical.decimal_text(one.value), "unit": unit}
        return thing

    def _place(self) -> str:
        """A GLN, with its extension where it has one; another URI as it is."""
        return _location(self._e.place)

    def _document(self, type_: str) -> str | None:
        """The number of the first business transaction of a type."""
        return next((_number(name) for found, name in self._e.transactions if found == type_), None)

    @staticmethod
    def _partner(parties: Sequence[tuple[str, str]]) -> str | None:
        """The owning party, else the one in possession."""
        by_type = {type_: _party(name) for type_, name in reversed(parties)}
        return by_type.get("owning_party") or by_type.get("possessing_party")


_RULES: dict[str, Callable[[_Maker], CanonicalEvent]] = {
    "ObjectEvent": _Maker.object,
    "AggregationEvent": _Maker.aggregation,
    "AssociationEvent": _Maker.aggregation,
    "TransactionEvent": _Maker.transaction,
    "TransformationEvent": _Maker.transformation,
}


def _container(uri: str) -> Data:
    """The thing that holds others: a serial of an item as what it is, anything else as a handling unit."""
    return gs1.thing(uri, "handling_unit")


def _location(uri: str) -> str:
    key = gs1.parse(uri) if uri else None
    if key is None or key.ai != "414":
        return uri
    extension = key.qualifier("254")
    return f"{key.value}/{extension}" if extension else key.value


def _party(name: str) -> str:
    """A GLN for a party or location key; another name as it is."""
    key = gs1.parse(name)
    return key.value if key and key.ai in ("417", "414") else name


def _number(uri: str) -> str:
    """The number of a business document: what follows the GLN of its issuer in a CBV identifier, a GS1 key's path, else the URI."""
    if uri.startswith("urn:epcglobal:cbv:bt:") and uri.count(":") >= 5:
        return uri.split(":", 5)[5]
    key = gs1.parse(uri)
    return key.path if key else uri


MAPPING = Epcis()
