"""EPCIS 2.0 JSON: what each event becomes, what is held and where, and that another spelling of an event is the same fact."""

import copy
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.epcis import MAPPING
from adapters.formats import epcis, epcis_event, epcis_hash
from events import canonical
from events.base import Fact
from events.gs1 import Key, parse, scanned
from hub.intake.mapping import Context, Held

Json = dict[str, Any]
CONTEXT = ["https://ref.gs1.org/standards/epcis/epcis-context.jsonld", {"ext": "https://example.com/ext/"}]
OBJECT: Json = {
    "type": "ObjectEvent",
    "eventID": "urn:uuid:1",
    "eventTime": "2026-01-05T07:00:00+01:00",
    "eventTimeZoneOffset": "+01:00",
    "action": "ADD",
    "bizStep": "commissioning",
    "bizLocation": {"id": "urn:epc:id:sgln:4012345.00011.0"},
    "epcList": ["urn:epc:id:sgtin:4012345.012345.12", "urn:epc:id:sgtin:4012345.012345.00123"],
    "quantityList": [{"epcClass": "urn:epc:class:lgtin:4012345.012345.L1", "quantity": 2.50, "uom": "KGM"}],
}
PACK: Json = {
    "type": "AggregationEvent",
    "eventID": "urn:uuid:2",
    "eventTime": "2026-01-05T08:00:00Z",
    "eventTimeZoneOffset": "+00:00",
    "action": "ADD",
    "parentID": "urn:epc:id:sscc:4012345.0000000333",
    "childEPCs": ["urn:epc:id:sgtin:4012345.012345.12"],
}
MIX: Json = {
    "type": "TransformationEvent",
    "eventID": "urn:uuid:3",
    "eventTime": "2026-01-05T08:00:00Z",
    "eventTimeZoneOffset": "+00:00",
    "inputQuantityList": [{"epcClass": "urn:epc:class:lgtin:4012345.012345.L1", "quantity": 2}],
    "outputEPCList": ["urn:epc:id:sgtin:4012345.011111.1E5"],
    "bizTransactionList": [{"type": "prodorder", "bizTransaction": "urn:epcglobal:cbv:bt:4012345000115:PO-7"}],
}


def document(*events: Json, **more: Any) -> bytes:
    head = {"@context": CONTEXT, "type": "EPCISDocument", "schemaVersion": "2.0", "creationDate": "2026-01-05T06:00:00Z"}
    return json.dumps({**head, "epcisBody": {"eventList": list(events)}, **more}).encode()


def lines(body: bytes) -> list[Fact | Held]:
    (part,) = MAPPING.read(body, Context(raw="0" * 64))
    assert part.format == "epcis-2.0-json"
    return [line if isinstance(line, Held) else line.facts[0] for line in part.lines]


def fact(event: Json, **more: Any) -> Fact:
    (found,) = lines(document(event, **more))
    assert isinstance(found, Fact), found
    return found


def data(event: Json) -> Json:
    return {"type": fact(event).event.type, **fact(event).event.data()}


def held(event: Json) -> tuple[str, str]:
    (found,) = lines(document(event))
    assert isinstance(found, Held), found
    return found.place.removeprefix("eventList[0]."), found.reason


def test_commissioning_makes_output_with_serials_as_text_and_exact_quantities() -> None:
    found = data(OBJECT)
    assert found["type"] == "production.output_produced"
    assert found["location"] == "4012345000115"
    assert [(t.get("serial"), t.get("lot"), t.get("quantity")) for t in found["things"]] == [
        ("00123", None, None),
        ("12", None, None),
        (None, "L1", {"value": "2.5", "unit": "KGM"}),
    ]
    assert {t["item"] for t in found["things"]} == {"04012345123456"}
    assert fact(OBJECT).envelope.occurred_at.isoformat() == "2026-01-05T06:00:00+00:00"


@pytest.mark.parametrize(
    ("change", "type_"),
    [
        ({"action": "OBSERVE", "bizStep": "inspecting"}, "logistics.objects_observed"),
        ({"action": "OBSERVE", "bizStep": "receiving"}, "procurement.goods_received"),
        ({"action": "OBSERVE", "bizStep": "cbv:BizStep-receiving", "disposition": "returned"}, "logistics.return_received"),
        ({"action": "OBSERVE", "bizStep": "https://ref.gs1.org/cbv/BizStep-shipping"}, "logistics.shipment_dispatched"),
        ({"action": "DELETE", "bizStep": "urn:epcglobal:cbv:bizstep:destroying"}, "production.scrap_reported"),
        ({"action": "DELETE", "bizStep": "decommissioning"}, "inventory.objects_decommissioned"),
        ({"action": "ADD", "bizStep": "https://example.com/own"}, "production.output_produced"),
        ({"epcList": [], "quantityList": [], "sensorElementList": [{"sensorReport": [{"value": 1}]}]}, "logistics.objects_observed"),
    ],
)
def test_action_and_step_say_what_an_object_event_is(change: Json, type_: str) -> None:
    assert data(OBJECT | change)["type"] == type_


def test_documents_are_known_by_their_numbers() -> None:
    transactions = [
        {"type": "po", "bizTransaction": "urn:epcglobal:cbv:bt:4012345000115:45:00"},
        {"type": "desadv", "bizTransaction": "urn:epcglobal:cbv:bt:4012345000115:ASN-7"},
    ]
    parties = [{"type": "possessing_party", "source": "urn:epc:id:pgln:4012345.00001"}]
    found = data(OBJECT | {"action": "OBSERVE", "bizStep": "receiving", "bizTransactionList": transactions, "sourceList": parties})
    assert (found["purchase_order"], found["asn"], found["asn_partner"]) == ("45:00", "ASN-7", "4012345000016")
    shipped = data(OBJECT | {"action": "OBSERVE", "bizStep": "shipping", "bizTransactionList": transactions})
    assert shipped["shipment"] == "ASN-7"


def test_packing_unpacking_and_what_was_seen_in_a_container() -> None:
    assert data(PACK)["container"]["handling_unit"] == "040123450000003338"
    emptied = {name: value for name, value in PACK.items() if name != "childEPCs"} | {"action": "DELETE"}
    assert data(emptied)["type"] == "logistics.handling_unit_unpacked"
    assert "contents" not in data(emptied)
    seen = data(PACK | {"action": "OBSERVE"})
    assert (seen["type"], seen["container"]["handling_unit"]) == ("logistics.objects_observed", "040123450000003338")
    asset = data(PACK | {"type": "AssociationEvent", "parentID": "urn:epc:id:grai:4012345.66666.87"})
    assert asset["container"]["handling_unit"] == "8003/0401234566666387"


def test_transformation_belongs_to_its_order() -> None:
    found = data(MIX)
    assert (found["order"], found["transformation"]) == ("PO-7", "urn:uuid:3")
    assert found["inputs"][0]["quantity"] == {"value": "2", "unit": "EA"}
    assert found["outputs"][0]["serial"] == "1E5"


def test_an_error_declaration_retracts_its_event() -> None:
    declared = {"declarationTime": "2026-01-06T01:00:00+01:00", "reason": "incorrect_data", "correctiveEventIDs": ["urn:uuid:9"]}
    found = fact(PACK | {"errorDeclaration": declared})
    assert (found.event.type, found.envelope.key) == ("inventory.fact_retracted", "urn:uuid:2#error:2026-01-06T00:00:00Z")
    assert found.event.data() == {"original": "urn:uuid:2", "reason": "incorrect_data", "corrective": ["urn:uuid:9"]}


def test_what_no_field_holds_is_kept_and_is_content() -> None:
    more = {"ilmd": {"ext:grade": "A"}, "disposition": "active", "ext:note": {"ext:by": "x"}, "certificationInfo": "https://example.com/c"}
    found = fact(OBJECT | more)
    assert found.envelope.details["ilmd"] == {"{https://example.com/ext/}grade": "A"}
    assert found.envelope.details["{https://example.com/ext/}note"] == {"{https://example.com/ext/}by": "x"}
    for change in ({"ilmd": {"ext:grade": "B"}}, {"disposition": "in_progress"}, {"ext:note": {"ext:by": "y"}}):
        assert fact(OBJECT | more | change).digest() != found.digest()


def without(event: Json, *names: str) -> Json:
    return {name: value for name, value in event.items() if name not in names}


@pytest.mark.parametrize(
    ("event", "place", "reason"),
    [
        (OBJECT | {"type": "MagicEvent"}, "type", "MagicEvent"),
        (without(OBJECT, "action"), "action", "missing"),
        (without(OBJECT, "eventTime"), "eventTime", "missing"),
        (without(OBJECT, "eventTimeZoneOffset"), "eventTimeZoneOffset", "missing"),
        (OBJECT | {"eventTime": "22-07-2026"}, "eventTime", "must be a time"),
        (OBJECT | {"eventTime": "2026-13-01T00:00:00Z"}, "eventTime", "must be a time"),
        (OBJECT | {"action": "CREATE"}, "action", "ADD, OBSERVE, DELETE"),
        (OBJECT | {"bizStep": "transforming"}, "bizStep", "Core Business Vocabulary"),
        (OBJECT | {"disposition": "in_transport"}, "disposition", "Core Business Vocabulary"),
        (OBJECT | {"sourceList": [{"type": "place", "source": "urn:epc:id:sgln:952012.345678.0"}]}, "sourceList[0].type", "'place'"),
        (OBJECT | {"ilmd": {"materialType": "soil"}}, "ilmd.materialType", "namespace"),
        (OBJECT | {"weight": 5}, "weight", "namespace"),
        (OBJECT | {"quantityList": [{"epcClass": "urn:x:y", "quantity": "twenty"}]}, "quantityList[0].quantity", "number"),
        (OBJECT | {"quantityList": [{"epcClass": "urn:x:y", "quantity": -1}]}, "quantityList[0].quantity", "negative"),
        (OBJECT | {"quantityList": [{"epcClass": "urn:x:y", "quantity": 1, "uom": "ZZZ"}]}, "quantityList[0].uom", "Recommendation 20"),
        (OBJECT | {"quantityList": [{"epcClass": "urn:x:y", "weight": 5}]}, "quantityList[0].weight", "namespace"),
        (OBJECT | {"epcList": ["urn:epc:id:x", 7]}, "epcList[1]", "URI"),
        (OBJECT | {"epcList": "urn:x:y"}, "epcList", "list"),
        (OBJECT | {"certificationInfo": [{"a:b": 1}]}, "certificationInfo", "URI"),
        (OBJECT | {"errorDeclaration": {}}, "errorDeclaration.declarationTime", "missing"),
        (without(PACK, "parentID"), "parentID", "missing"),
        (without(OBJECT, "epcList", "quantityList"), "", "names no objects"),
        (without(PACK, "childEPCs"), "", "names no children"),
        (without(MIX, "outputEPCList"), "", "inputs and outputs"),
    ],
)
def test_what_is_wrong_is_held_with_its_place(event: Json, place: str, reason: str) -> None:
    found = held(event)
    assert found[0].removeprefix("eventList[0]") == place
    assert reason in found[1]


def test_one_bad_event_does_not_hold_the_others() -> None:
    found = lines(document(OBJECT, PACK | {"action": "?"}, MIX))
    assert [type(line).__name__ for line in found] == ["Fact", "Held", "Fact"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"@context": None}, ""),
        ({"schemaVersion": "1.2"}, "schemaVersion"),
        ({"creationDate": "yesterday"}, "creationDate"),
        ({"epcisBody": {}}, "epcisBody.eventList"),
        ({"epcisBody": {"eventList": []}}, "epcisBody.eventList"),
        ({"sender": 5}, "sender"),
        ({"@context": 7}, "@context"),
    ],
)
def test_a_fault_of_the_document_holds_it_whole(change: Json, place: str) -> None:
    value = json.loads(document(OBJECT)) | change
    if place == "":
        del value["@context"]
    (found,) = lines(json.dumps(value).encode())
    assert isinstance(found, Held)
    assert found.place == (place or "@context")


@pytest.mark.parametrize("type_", [{"a": 1}, ["ObjectEvent"], 1, None])
def test_a_type_that_is_no_text_is_held(type_: object) -> None:
    (held,) = lines(json.dumps({"type": type_, "x": ["ObjectEvent", "eventTime"]}).encode())
    assert isinstance(held, Held)
    assert held.place == "type"


def test_query_results_and_bare_events_are_taken_too() -> None:
    results = {"queryResults": {"queryName": "SimpleEventQuery", "resultsBody": {"eventList": [OBJECT]}}}
    (found,) = lines(json.dumps(json.loads(document()) | {"type": "EPCISQueryDocument", "epcisBody": results}).encode())
    (bare,) = lines(json.dumps(OBJECT | {"@context": CONTEXT}).encode())
    assert isinstance(found, Fact)
    assert isinstance(bare, Fact)
    assert found.digest() == bare.digest() == fact(OBJECT).digest()


def test_the_sender_is_part_of_the_source() -> None:
    assert fact(OBJECT, sender="urn:epc:id:sgln:4012345.00011.0").envelope.source == "epcis:4012345000115"
    assert fact(OBJECT, sender="packstation-1").envelope.source == "epcis:packstation-1"
    assert fact(OBJECT).envelope.source == "epcis"


# -- identifiers


KEYS = [
    ("urn:epc:id:sgtin:4012345.012345.A%2FB", "https://id.gs1.org/01/04012345123456/21/A%2FB"),
    ("urn:epc:class:lgtin:4012345.012345.L.1", "http://example.com/products/01/4012345123456/10/L.1?17=271231"),
    ("urn:epc:id:sscc:4012345.0000000333", "https://id.gs1.de/00/040123450000003338"),
    ("urn:epc:id:sgln:4012345.00011.987", "https://id.gs1.org/414/4012345000115/254/987"),
    ("urn:epc:id:grai:4012345.66666.87", "https://id.gs1.org/8003/0401234566666387"),
    ("urn:epc:idpat:sgtin:4012345.012345.*", "https://id.gs1.org/01/04012345123456"),
]


@pytest.mark.parametrize(("urn", "link"), KEYS)
def test_urn_and_digital_link_name_the_same_key(urn: str, link: str) -> None:
    found = parse(urn)
    assert found is not None
    assert found == parse(link)
    assert parse(found.link) == found


@pytest.mark.parametrize(
    "uri",
    [
        "urn:epc:id:sgtin:4012345.0123.1",
        "urn:epc:idpat:sgtin:4012345.*.*",
        "http://transaction.acme.com/po/12345678",
        "geo:47.5,11.1",
        "urn:epc:id:sgtin:a.b.c",
        "urn:epc:id:sgtin:4012345.012345.%00",
        "urn:epc:id:itip:4012345.012345.0X.02.9",
        "https://id.gs1.org/01/04012345123456/21/a%0Ab",
    ],
)
def test_what_is_no_gs1_key_stays_what_it_is(uri: str) -> None:
    assert parse(uri) is None
    assert data(OBJECT | {"epcList": [uri], "quantityList": []})["things"] == [{"serial": uri}]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("(01)04012345123456(10)L1", Key("01", "04012345123456", (("10", "L1"),))),
        ("]C10104012345123456172712311012-A", Key("01", "04012345123456", (("10", "12-A"),))),
        ("(01) 04012345123456 (21) 00123", Key("01", "04012345123456", (("21", "00123"),))),
        ("(00) 0 4012345 0000003338", None),
        ("00040123450000003338", Key("00", "040123450000003338")),
        ("L1", None),
    ],
)
def test_scans_are_read(text: str, key: Key | None) -> None:
    assert scanned(text) == (key or (Key("00", "040123450000003338") if text.startswith("(00)") else None))


def test_a_long_link_takes_time_in_proportion() -> None:
    began = time.process_time()
    assert parse("https://id.gs1.org" + "/01/04012345123456/x" * 200_000) is None
    assert parse("https://example.com" + "/01/x" * 200_000 + "/01/04012345123456/10/L1") == Key("01", "04012345123456", (("10", "L1"),))
    assert time.process_time() - began < 5


# -- what a document may ask for


SENSORS: Json = {
    "type": "ObjectEvent",
    "eventTime": "2026-01-05T08:00:00Z",
    "eventTimeZoneOffset": "+00:00",
    "action": "OBSERVE",
    "sensorElementList": [{"sensorMetadata": {"time": "2026-01-05T08:00:00Z"}, "sensorReport": [{"type": "Temperature", "value": 2}]}],
}


@pytest.mark.parametrize("metadata", [None, 30, "time", ["time"]])
def test_sensor_metadata_that_is_no_object_is_held(metadata: object) -> None:
    (report,) = [element["sensorReport"] for element in SENSORS["sensorElementList"]]
    (held,) = lines(document(SENSORS | {"sensorElementList": [{"sensorMetadata": metadata, "sensorReport": report}]}))
    assert isinstance(held, Held)
    assert held.place == "eventList[0].sensorElementList[0].sensorMetadata"


def test_the_type_of_a_document_that_is_null_is_none() -> None:
    (entry,) = fact(SENSORS | {"bizTransactionList": [{"type": None, "bizTransaction": "urn:x:1"}]}).envelope.details["bizTransactionList"]
    assert entry == {"bizTransaction": "urn:x:1", "type": None}


def test_a_read_point_is_checked_beside_a_location_too() -> None:
    (held,) = lines(document(SENSORS | {"readPoint": "urn:x:1", "bizLocation": {"id": "urn:x:2"}}))
    assert isinstance(held, Held)
    assert held.place == "eventList[0].readPoint"


def test_a_place_that_is_null_is_none_and_counts_for_nothing_in_the_hash() -> None:
    assert fact(SENSORS | {"readPoint": None, "bizLocation": None}).envelope.key == fact(SENSORS).envelope.key


def test_contexts_of_events_do_not_repeat_that_of_the_document() -> None:
    """800 KB: a copy of the document's names for each event would take 3 GiB."""
    names = {f"t{n}": f"urn:x:{n}:" for n in range(20_000)}
    value = json.loads(document(*[SENSORS | {"@context": {"mine": "urn:m:"}, "mine:a": 1}] * 4000, **{"@context": [CONTEXT[0], names]}))
    tracemalloc.start()
    found = epcis.read(value)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert found.events[-1].names.expand("t7:a") == "{urn:x:7:}a"
    assert found.events[-1].names.expand("mine:a") == "{urn:m:}a"


def test_a_namespace_of_any_length_is_held() -> None:
    """It stands in the name of each field that is in it: 200 KB would make 2 GB."""
    (held,) = lines(document(SENSORS | {"e:a": 1}, **{"@context": [CONTEXT[0], {"e": "urn:" + "x" * 300}]}))
    assert isinstance(held, Held)
    assert held.place == "@context"


# -- the same event, told otherwise


def told_otherwise(draw: st.DrawFn, event: Json) -> Json:
    """Other order of fields and of unordered lists, other spellings of identifiers and vocabulary."""
    spelt = dict(KEYS) | {
        "urn:epc:id:sgtin:4012345.012345.12": "https://id.gs1.org/01/04012345123456/21/12",
        "urn:epc:class:lgtin:4012345.012345.L1": "https://id.gs1.org/01/04012345123456/10/L1",
        "urn:epc:id:sgln:4012345.00011.0": "https://id.gs1.org/414/4012345000115",
    }
    other = copy.deepcopy(event)
    for name in ("epcList", "childEPCs"):
        if name in other:
            other[name] = draw(st.permutations(other[name]))
    if "bizStep" in other:
        other["bizStep"] = draw(st.sampled_from(["{}", "cbv:BizStep-{}", "https://ref.gs1.org/cbv/BizStep-{}"])).format(other["bizStep"])
    text = json.dumps({name: other[name] for name in draw(st.permutations(list(other)))})
    for urn, link in spelt.items():
        if draw(st.booleans()):
            text = text.replace(json.dumps(urn), json.dumps(link))
    found: Json = json.loads(text)
    return found | {"recordTime": "2026-02-01T00:00:00Z"}


@given(st.data())
def test_another_spelling_is_the_same_event(draw: st.DataObject) -> None:
    event = draw.draw(st.sampled_from([OBJECT, PACK])) | {"ilmd": {"ext:grade": "A"}} if draw.draw(st.booleans()) else OBJECT
    event = {name: value for name, value in event.items() if name != "ilmd" or event["type"] == "ObjectEvent"}
    other = draw.draw(st.composite(told_otherwise)(event))
    assert fact(event).digest() == fact(other).digest()
    one, two = fact(without(event, "eventID")), fact(without(other, "eventID"))
    assert one.envelope.key == two.envelope.key
    assert one.envelope.key.startswith("ni:///sha-256;")


def test_white_space_number_forms_and_prefixes_make_no_conflict() -> None:
    event = OBJECT | {"ext:note": "x"}
    renamed = document(OBJECT | {"mine:note": "x"}, **{"@context": [CONTEXT[0], {"mine": "https://example.com/ext/"}]})
    (other,) = lines(b"\xef\xbb\xbf  " + renamed.replace(b"2.5,", b"2.500,"))
    assert isinstance(other, Fact)
    assert other.digest() == fact(event).digest()


def test_hash_vectors_of_the_vocabulary(shared_corpus: Path) -> None:
    folder = shared_corpus / "epcis" / "RalphTro+epcis-event-hash-generator" / "examples"
    compared = 0
    for file in sorted(folder.glob("*.jsonld")):
        found = epcis.read(canonical.loads(file.read_bytes()))
        ids = [epcis_hash.event_id(raw.value, raw.names, found.ignored) for raw in found.events]
        assert ids == file.with_suffix(".hashes").read_text().split(), file.name
        assert all(epcis_event.check(raw, found.ignored) for raw in found.events)
        compared += len(ids)
    assert compared == 27
