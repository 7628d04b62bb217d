"""Hypothesis strategies for histories: small sets of facts of all event types that share items, lots, orders, units and documents.

Names are few on purpose, so that facts meet: a receipt its order and its notice, an issue the lot that somebody made, a reversal its
original (or none), two definitions the same item.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from events.base import Envelope, Fact, Recorded, event_class, microseconds
from hub.log import codec
from tests import copied

Draw = Callable[[st.SearchStrategy[Any]], Any]
START = datetime(2026, 3, 1, 6, tzinfo=UTC)

_ITEMS, _LOTS, _SERIALS, _UNITS = ("A", "B"), ("L1", "L2"), ("S1", "S2"), ("EA", "KGM")
_PARTNERS, _PLACES, _STATUS = ("ACME", "BOLT"), ("WH", "LINE"), ("unrestricted", "quality")
_of = st.sampled_from
_quantities = st.fixed_dictionaries({"value": _of(("0", "1", "2", "3", "0.5", "10.250")), "unit": _of((*_UNITS, "EA"))})
_lot = st.fixed_dictionaries({"item": _of(_ITEMS), "lot": _of(_LOTS), "quantity": _quantities})
_things = st.one_of(
    _lot,
    _lot,
    st.fixed_dictionaries({"item": _of(_ITEMS), "quantity": _quantities}),
    st.fixed_dictionaries({"item": _of(_ITEMS), "serial": _of(_SERIALS)}),
    st.fixed_dictionaries({"handling_unit": _of(("U1", "U2"))}),
    st.fixed_dictionaries({"item": _of(_ITEMS), "lot": _of(_LOTS), "handling_unit": _of(("U1", "U2")), "quantity": _quantities}),
)
_some = st.lists(_things, min_size=1, max_size=2)
_few = st.lists(_things, max_size=2)
_held = {"raw_sha256": _of(("aa", "bb")), "part": st.just(1), "line": _of(("", "1")), "format": st.just("x12-856")}


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), strategy)


def _lines() -> st.SearchStrategy[Any]:
    line = {"line": _of(("10", "20")), "item": _of(_ITEMS), "quantity": _quantities, "over_tolerance_percent": _of((None, "10"))}
    return st.lists(st.fixed_dictionaries(line), min_size=1, max_size=2)


_answers = _of(("accepted", "changed", "rejected"))
_order = _of(("W1", "W2"))
_po = _of(("PO1", "PO2"))
_po_line = _maybe(_of(("10", "20")))
_asn = _of(("N1", "N2"))
_shipment = _of(("SH1", "SH2"))
_place = _of(_PLACES)
_partner = _of(_PARTNERS)
_number = _of(("1", "2", "3"))
_inside = {"things": _some, "location": _place, "status": _of(_STATUS)}
_made = {"inputs": _some, "outputs": _some, "location": _place, "status": _of(_STATUS)}

_times = st.integers(0, 5).map(lambda hour: START + timedelta(hours=hour))
_machine = _of(("ulm/press/p1", "ulm/press/p2"))
_edge, _epoch, _gap = _of(("edge1", "edge2")), _of(("20260301T1-a", "20260301T2-b")), _of(("g1", "g2"))
_posting, _try = _of(("p1", "p2")), st.integers(1, 2)
_worked = {"order": _maybe(_order), "item": _maybe(_of(_ITEMS)), "lot": _maybe(_of(_LOTS))}
_changed = {"person": _of(("p1", "p2")), "name": _of(("ann", "bob")), "change": st.integers(1, 3)}

# Every event type with what its fields may be; `original` and `quarantined_key` are drawn from the keys of the same history.
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "masterdata.item_defined": {"item": _of(_ITEMS), "base_unit": _of(_UNITS), "description": _of(("", "Bolt"))},
    "masterdata.partner_defined": {"partner": _partner, "role": _of(("supplier", "customer", "carrier"))},
    "masterdata.location_defined": {"location": _place, "owner": _of(("own", "supplier"))},
    "procurement.purchase_order_issued": {"purchase_order": _po, "supplier": _partner, "lines": _lines()},
    "procurement.purchase_order_acknowledged": {
        "purchase_order": _po, "supplier": _partner, "status": _answers, "code": st.just("AC"),
        "lines": st.lists(st.fixed_dictionaries({"line": _of(("10", "20")), "status": _answers, "item": _maybe(_of(_ITEMS))}), max_size=2),
    },
    "procurement.asn_received": {
        "asn": _asn, "partner": _partner, "content": st.just("c0"), "carrier": _maybe(_partner),
        "purchase_orders": st.lists(_po, max_size=2),
    },
    "procurement.asn_line_received": {
        "asn": _asn, "partner": _partner, "line": _number, "thing": _things, "purchase_order": _maybe(_po), "purchase_order_line": _po_line,
        "handling_units": st.lists(_of(("U1", "U2")), max_size=2),
    },
    "procurement.asn_handling_unit_received": {
        "asn": _asn, "partner": _partner, "handling_unit": _of(("U1", "U2")), "parent": _maybe(_of(("U3",))),
    },
    "procurement.goods_received": {
        **_inside, "receipt": _number, "supplier": _maybe(_partner), "purchase_order": _maybe(_po), "purchase_order_line": _po_line,
        "asn": _maybe(_asn), "asn_partner": _maybe(_partner),
    },
    "production.order_released": {"order": _order, "item": _of(_ITEMS), "quantity": _quantities, "work_center": _maybe(_of(("C1",)))},
    "production.material_issued": {**_inside, "order": _order, "equipment": _maybe(_of(("E1",)))},
    "production.output_produced": {**_inside, "output": _number, "order": _maybe(_order)},
    "production.scrap_reported": {"scrap": _number, "order": _maybe(_order), "location": _maybe(_place), "things": _some},
    "production.lot_reworked": {**_made, "rework": _number},
    "production.lot_transformed": {
        "transformation": _number, "order": _maybe(_order), "inputs": _few, "outputs": _few, "location": _maybe(_place),
    },
    "inventory.stock_transferred": {"transfer": _number, "things": _some, "from_location": _place, "to_location": _place},
    "inventory.lot_split": {**_made, "split": _number},
    "inventory.lot_merged": {**_made, "merge": _number},
    "inventory.objects_decommissioned": {"document": _number, "things": _some, "location": _maybe(_place)},
    "inventory.movement_reversed": {"reversal": _number},
    "logistics.handling_unit_packed": {"container": _things, "contents": _few, "location": _maybe(_place)},
    "logistics.handling_unit_unpacked": {"container": _things, "contents": _few},
    "logistics.shipment_dispatched": {
        "shipment": _shipment, "things": _some, "from_location": _place, "customer": _maybe(_partner), "carrier": _maybe(_partner),
        "sales_order": _maybe(_of(("SO1",))),
    },
    "logistics.milestone_reported": {"shipment": _shipment, "code": _of(("AF", "X1", "D1")), "place": _of(("", "Ulm"))},
    "logistics.delivery_proved": {"shipment": _shipment, "customer": _partner, "things": _some},
    "logistics.return_received": {
        "return_number": _number, "customer": _partner, "shipment": _maybe(_shipment), "things": _some, "location": _place,
    },
    "logistics.objects_observed": {
        "observation": _number, "action": st.just("OBSERVE"), "things": _few, "location": _maybe(_place), "container": _maybe(_things),
        "transactions": st.lists(st.tuples(_of(("po", "desadv")), _of(("PO1", "N1"))), max_size=1),
    },
    "integration.delivery_quarantined": {**_held, "reason": st.just("no such unit")},
    "integration.content_conflicted": {
        **_held, "refused_source": st.just("erp"), "refused_key": _of(("k1", "k2")), "refused_type": st.just("production.order_released"),
        "refused_data": st.just({"order": "W1"}), "stored_digest": st.just("00"), "refused_digest": st.just("11"),
        "reason": st.just("other"),
    },
    "integration.quarantine_redriven": {"raw_sha256": _of(("aa", "bb")), "outcome": st.just("accepted"), "facts": st.just(1)},
    "integration.functional_group_acknowledged": {
        "partner": _partner, "functional_id": st.just("PO"), "control": _number, "status": _of(("accepted", "rejected")), "code": st.just("A"),
        "included": st.just(1), "received": st.just(1), "accepted": st.integers(0, 1),
    },
    "integration.gap_detected": {
        "gap": _gap, "edge": _edge, "producer": st.just("plc"), "kind": _of(("sequence", "silent")), "reason": st.just("lost"),
        "first": _maybe(st.just(3)), "last": _maybe(st.just(9)), "since": _maybe(_times), "tags": _of(((), ("a", "b"))),
    },
    "integration.gap_filled": {"gap": _gap, "edge": _edge, "producer": st.just("plc"), "how": _of(("late", "history"))},
    "integration.clock_skew_detected": {"edge": _edge, "clock": st.just("plc"), "seconds": _of(("420", "-7.5")), "compared_with": st.just("edge")},
    "integration.edge_epoch_began": {"edge": _edge, "epoch": _epoch, "reason": st.just("lost")},
    "integration.workflow_woken": {"process": st.just("procure_to_receipt"), "instance": _of(("po/PO1", "po/PO2")), "what": st.just("late"), "at": _times},
    "integration.posting_intended": {
        "posting": _posting, "target": _of(("erp", "wms")), "lane": _of(("l1", "l2")), "document": st.just("receipt"),
        "body": _of(({"quantity": "1"}, {"quantity": "2"})),
    },
    **{
        f"integration.posting_{step}": {"posting": _posting, "attempt": _try, **({} if step == "sent" else {"reason": _of(("busy", "closed"))})}
        for step in ("sent", "unsent", "rejected", "outcome_unknown", "retried")
    },
    "integration.posting_accepted": {"posting": _posting, "attempt": _try, "document_id": _of(("D1", "D2"))},
    "integration.posting_verified": {"posting": _posting, "document_id": _of(("D1", "D2"))},
    "integration.posting_held": {"posting": _posting, "number": _try, "reason": _of(("busy", "closed"))},
    "integration.posting_resumed": {"posting": _posting, "number": _try, "reason": st.just("go on")},
    "integration.posting_skipped": {"posting": _posting, "reason": st.just("by hand")},
    "equipment.readings_recorded": {
        "edge": _edge, "epoch": _epoch, "lane": _of(("l1", "l2")), "number": st.integers(1, 11), "producer": _of(("plc", "scale")),
        "readings": st.integers(1, 9), "first_at": _times, "last_at": _times,
    },
    "equipment.state_changed": {"equipment": _machine, "state": _of(("Execute", "Held")), "previous": _maybe(st.just("Idle")), **_worked},
    "equipment.count_reported": {
        "equipment": _machine, "counter": _of(("good", "scrap")), "quantity": _quantities, "total": _of(("7", "-3.5")), "rejected": st.booleans(),
        **_worked,
    },
    "equipment.counter_reset": {
        "equipment": _machine, "counter": _of(("good", "scrap")), "before": st.just("9"), "after": _of(("0", "1")), "unit": _of(_UNITS),
        "rolled_over": st.booleans(),
    },
    "equipment.limit_exceeded": {
        "equipment": _machine, "tag": _of(("t1", "t2")), "value": _of(("81", "85.5")), "limit": st.just("80"), "above": st.just(True), **_worked,
    },
    "equipment.limit_kept": {
        "equipment": _machine, "tag": _of(("t1", "t2")), "value": st.just("70"), "worst": _of(("90", "91")), "exceeded_at": _times,
    },
    "equipment.downtime_started": {"equipment": _machine, "state": st.just("Stopped"), "reason": _maybe(st.just("jam")), **_worked},
    "equipment.downtime_ended": {"equipment": _machine, "state": st.just("Execute"), "started_at": _times},
    "security.access_granted": {**_changed, "roles": st.just(("buyer",)), "held": _of((("buyer",), ("buyer", "quality")))},
    "security.access_revoked": {**_changed, "roles": st.just(("buyer",)), "held": _of(((), ("quality",)))},
    "security.person_renamed": {**_changed, "previous": st.just("ann"), "held": _of(((), ("quality",)))},
    "security.act_performed": {"action": st.just("edge.enrol"), "subject": st.just("edge/e1")},
    "inventory.fact_retracted": {"reason": st.just("wrong lot")},
}  # fmt: skip
_POINTS_BACK = {"inventory.movement_reversed": "original", "inventory.fact_retracted": "original"}


@st.composite
def histories(draw: Draw, most: int = 14, types: Sequence[str] = tuple(FIELDS)) -> list[Fact]:
    """A set of facts with distinct keys, in some order of arrival, of few types at a time, so that they meet; about a fifth undo others."""
    back = [name for name in types if name in _POINTS_BACK]
    few = _of(draw(st.lists(_of(types), min_size=1, max_size=5, unique=True)))
    chosen = draw(st.lists(st.one_of(few, few, few, few, _of(back) if back else few), min_size=1, max_size=most))
    return [_fact(draw, f"k{n}", type_, len(chosen)) for n, type_ in enumerate(chosen)]


def _fact(draw: Draw, key: str, type_: str, count: int) -> Fact:
    data = {name: value for name, value in draw(st.fixed_dictionaries(FIELDS[type_])).items() if value is not None}
    keys = st.integers(0, count).map(lambda n: f"k{n}")  # k{count} is nobody's
    if field := _POINTS_BACK.get(type_):
        data[field] = draw(keys)
    if type_ == "integration.quarantine_redriven":
        data["quarantined_key"] = draw(keys)
    at = START + timedelta(hours=draw(st.integers(0, 5)))
    source = draw(_of(("erp", "erp", "erp", "mes")))
    return Fact(Envelope(source=source, key=key, occurred_at=at, effective_at=at), event_class(type_).of(data))


def recorded(facts: Sequence[Fact]) -> list[Recorded]:
    """Facts as the log would hand them to a fold after it took them in this order: encoded, decoded, with positions from 1."""
    found = []
    for position, fact in enumerate(facts, 1):
        at = microseconds(START + timedelta(seconds=position))
        (fields,) = copied.rows(codec.packed(codec.encode(codec.row_of(fact)), position, position, at))
        found.append(codec.decode(copied.as_selected(fields)))
    return found
