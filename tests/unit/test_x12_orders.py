"""X12 850 and 855: every way to write a document gives the same fact, what is no order is never taken for one, and each fault says where it is."""

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.formats import x12_orders
from adapters.x12.mapping import MAPPING
from events.base import Fact
from hub.intake.mapping import Context, Held, Line, Part, Partner
from tests.edi import WRITTEN, interchange, rewrite

BEG = "BEG*00*SA*PO1**20260105"
LINE = "PO1*10*24*EA***BP*BOLT-8"
BAK = "BAK*00*AC*PO1*20260105****S77*20260106"


def read(body: str | bytes, partner: Partner | None = None) -> Sequence[Part]:
    raw = body if isinstance(body, bytes) else body.encode()
    assert MAPPING.recognises(raw)
    return MAPPING.read(raw, Context(raw="0" * 64, partners={"x12:ZZ:ACME": partner or Partner()}))


def fact(code: str, *segments: str, partner: Partner | None = None) -> Fact:
    """The one fact of a sound set."""
    (part,) = read(interchange([segments], code=code), partner)
    (line,) = part.lines
    assert isinstance(line, Line), line
    (found,) = line.facts
    assert (part.format, line.path, found.envelope.mapping) == (f"x12-{code}", "", f"x12-{code}/1")
    return found


def order(*segments: str, partner: Partner | None = None) -> dict[str, Any]:
    return fact("850", BEG, *segments, partner=partner).event.data()


def answer(*segments: str, partner: Partner | None = None) -> dict[str, Any]:
    return fact("855", BAK, *segments, partner=partner).event.data()


def held(code: str, *segments: str, partner: Partner | None = None) -> Held:
    (part,) = read(interchange([segments], code=code), partner)
    (line,) = part.lines
    assert isinstance(line, Held), line
    assert (part.format, line.path, line.source) == (f"x12-{code}", "", "x12:ZZ:ACME")
    return line


# -- 850 ----------------------------------------------------------------------------------------------------------------------------------


def test_an_order() -> None:
    found = fact(
        "850",
        *("BEG*00*SA*PO1**20260105*C9", "CUR*BY*USD", "REF*DP*845", "DTM*002*20260120", "N1*ST*PLANT 1*92*P1", "N1*VN*ACME*92*000009"),
        *("DTM*002*20991231", "PO1*10*24*EA*1.25*PE*UP*036000291452*BP*BOLT-8*VP*V8", "PID*F****HEX BOLT", "DTM*002*20260115*1230*UT"),
        *("PO1*20*.5*KG***BP*NUT-8", "CTT*2", "AMT*TT*30"),
    )
    assert found.event.data() == {
        "purchase_order": "PO1",
        "supplier": "PLANT",  # the receiver, by the name that his ship notices have
        "lines": [
            {"line": "10", "item": "00036000291452", "quantity": {"value": "24", "unit": "EA"}, "requested_at": "2026-01-15T12:30:00Z"},
            {"line": "20", "item": "NUT-8", "quantity": {"value": "0.5", "unit": "KGM"}, "requested_at": "2026-01-20T00:00:00Z"},
        ],
    }
    e = found.envelope
    assert (e.source, e.key, e.occurred_at.isoformat(), e.time_quality) == (
        "x12:ZZ:ACME",
        "850/PO1",
        "2026-01-05T00:00:00+00:00",
        "assumed_utc",
    )
    assert e.occurred_at == e.effective_at
    content = e.details.pop("content")
    assert len(content) == 64
    assert e.details == {
        "type": "SA",
        "contract": "C9",
        "ship_to": "PLANT 1 (92:P1)",
        "seller": "ACME (92:000009)",
        "references": {"DP": "845", "DTM 002": "20260120"},  # not the date in the loop of a party
        "lines": {
            "10": {"numbers": {"UP": "036000291452", "BP": "BOLT-8", "VP": "V8"}, "references": {"description": "HEX BOLT", "DTM 002": "20260115 1230 UT"}},
            "20": {"numbers": {"BP": "NUT-8"}},
        },
    }  # fmt: skip


TEXT = st.text(alphabet="ABCXYZ0189 -.", min_size=1, max_size=12).map(str.strip).filter(bool)
LINES = st.lists(st.tuples(TEXT, st.integers(1, 9999), st.sampled_from(["EA", "LB", "KG"])), min_size=1, max_size=5)


def lines_of(lines: Sequence[tuple[str, int, str]]) -> list[str]:
    return [f"PO1*{n}*{quantity}*{unit}***BP*{item}" for n, (item, quantity, unit) in enumerate(lines, 1)]


@given(LINES, WRITTEN, WRITTEN, st.sampled_from(["850", "855"]))
def test_the_same_document_in_other_writing_is_the_same_fact(lines: Any, one: dict[str, Any], other: dict[str, Any], code: str) -> None:
    digests = []
    for how in (one, other):
        (part,) = read(rewrite([BEG if code == "850" else BAK, *lines_of(lines), "CTT*1"], how, code))
        (line,) = part.lines
        assert isinstance(line, Line), line
        digests.append([f.digest() for f in line.facts])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("changed", ["PO1*10*25*EA***BP*BOLT-8", "PO1*10*24*EA*2.50**BP*BOLT-8", "PO1*10*24*EA***BP*BOLT-8*VP*X"])
def test_the_same_number_with_other_content_is_another_content(changed: str) -> None:
    """Also where it differs in what no field has, such as the price."""
    old, new = fact("850", BEG, LINE), fact("850", BEG, changed)
    assert old.envelope.key == new.envelope.key
    assert old.digest() != new.digest()


@pytest.mark.parametrize("purpose", ["06", "07"])
def test_a_copy_or_confirmation_is_the_same_order(purpose: str) -> None:
    assert fact("850", BEG.replace("*00*", f"*{purpose}*"), LINE).digest() == fact("850", BEG, LINE).digest()


@pytest.mark.parametrize(
    ("beg", "reason"),
    [
        ("BEG*01*SA*PO1**20260105", "BEG01 is '01' (cancellation)"),
        ("BEG*04*SA*PO1**20260105", "BEG01 is '04' (change)"),
        ("BEG*05*SA*PO1**20260105", "BEG01 is '05' (replace)"),
        ("BEG*22*SA*PO1**20260105", "BEG01 is '22' (information copy)"),
        ("BEG**SA*PO1**20260105", "BEG01 is ''"),
        ("BEG*00*BK*PO1**20260105", "BEG02 is 'BK' (blanket order)"),
        ("BEG*00*RL*PO1*7*20260105", "BEG02 is 'RL' (release or delivery order)"),
        ("BEG*00*CP*PO1**20260105", "BEG02 is 'CP' (change to a purchase order)"),
        ("BEG*00*QQ*PO1**20260105", "BEG02 is 'QQ'"),
    ],
)
def test_what_is_no_order_by_itself_is_held_and_can_be_driven_again(beg: str, reason: str) -> None:
    found = held("850", beg, LINE)
    assert found.reason.startswith(reason)
    assert found.reason.endswith("it is kept here and can be driven again when a mapping for it exists")
    assert found.place == "segment 4 (BEG), line 1"


@pytest.mark.parametrize(
    ("segments", "reason", "place"),
    [
        ([], "the transaction set is empty", ""),
        (["REF*DP*1", BEG, LINE], "an 850 begins with BEG, not with REF", "segment 4 (REF), line 1"),
        ([BEG, BEG, LINE], "BEG stands twice", "segment 5 (BEG), line 1"),
        ([BEG], "the order PO1 has no line", "segment 4 (BEG), line 1"),
        (["BEG*00*SA***20260105", LINE], "BEG03 must be the number of the order, 1 to 22 characters", "segment 4 (BEG), line 1"),
        (["BEG*00*SA*" + "P" * 23 + "**20260105", LINE], "1 to 22 characters", "segment 4 (BEG), line 1"),
        (["BEG*00*SA*PO1", LINE], "BEG05: '' is not a date", "segment 4 (BEG), line 1"),
        (["BEG*00*SA*PO1**20260231", LINE], "no date and time that exists", "segment 4 (BEG), line 1"),
        ([BEG, "PO1*10**EA***BP*B"], "PO102: '' is not a number", "segment 5 (PO1), line 1"),
        ([BEG, "PO1*10*-1*EA***BP*B"], "PO102 is -1: a quantity cannot be negative", "segment 5 (PO1), line 1"),
        ([BEG, "PO1*10*1****BP*B"], "PO103 is empty", "segment 5 (PO1), line 1"),
        ([BEG, "PO1*10*1*EA"], "PO1 names no item", "segment 5 (PO1), line 1"),
        ([BEG, "PO1*10*1*EA***BP"], "PO106 is BP, but PO107 is empty", "segment 5 (PO1), line 1"),
        ([BEG, "PO1*10*1*EA****B"], "PO107 is a number without its qualifier", "segment 5 (PO1), line 1"),
        ([BEG, LINE, LINE], "the line 10 stands twice: the first is segment 5 (PO1), line 1", "segment 6 (PO1), line 1"),
        ([BEG, LINE, "DTM*002*20260231"], "DTM02 and DTM03", "segment 6 (DTM), line 1"),
        ([BEG, LINE, "SCH*1*EA***002*2026"], "SCH06 and SCH07", "segment 6 (SCH), line 1"),
        ([BEG, LINE, "CTT*1", "REF*A*B"], "a segment follows CTT", "segment 7 (REF), line 1"),
        ([BEG, LINE, "CTT*1", "CTT*1"], "CTT stands twice", "segment 7 (CTT), line 1"),
        ([BEG, f"PO1*10*{'9' * 21}*EA***BP*B"], "out of range", "segment 4 (BEG), line 1"),
        ([BEG, f"PO1*10*1*EA***BP*{'B' * 201}"], "item", "segment 4 (BEG), line 1"),
    ],
)
def test_a_fault_anywhere_holds_the_order(segments: list[str], reason: str, place: str) -> None:
    """A fact with the other lines alone would say that only they were ordered."""
    found = held("850", *segments)
    assert reason in found.reason
    assert found.place == place
    assert found.reason.endswith("; correct it at the sender and send it again")


def test_an_unknown_unit_names_its_remedy_and_a_partners_own_is_taken() -> None:
    found = held("850", BEG, LINE, "PO1*20*1*ZZ***BP*B")
    assert (found.reason, found.place) == (
        "the unit 'ZZ' (PO103) is not known: name its UN/ECE Rec 20 code for this partner in the configuration",
        "segment 6 (PO1), line 1",
    )
    assert order("PO1*20*1*ZZ***BP*B", partner=Partner(units={"ZZ": "BG"}))["lines"][0]["quantity"] == {"value": "1", "unit": "BG"}


def test_an_order_without_a_receiver_has_no_supplier() -> None:
    (part,) = read(interchange([[BEG, LINE]], code="850").replace("PLANT          ", " " * 15))
    assert [line.reason for line in part.lines if isinstance(line, Held)] == [
        "the receiver's id (ISA08) is not there: it names the supplier; correct it at the sender and send it again"
    ]


def test_lines_without_a_number_take_their_place() -> None:
    assert [line["line"] for line in order("PO1**1*EA***BP*A", "PO1**2*EA***BP*B")["lines"]] == ["1", "2"]
    assert "stands twice" in held("850", BEG, "PO1*2*1*EA***BP*A", "PO1**2*EA***BP*B").reason


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([LINE], None),
        (["DTM*010*20260120", LINE], None),  # when to ship is not when to deliver
        (["DTM*106*20260120", LINE], "2026-01-20T00:00:00Z"),
        (["DTM*002*20260120", LINE, "SCH*24*EA***002*20260118*0600"], "2026-01-18T06:00:00Z"),
        ([LINE, "SCH*12*EA***002*20260118", "SCH*12*EA***002*20260125"], None),  # two deliveries: no one time
        ([LINE, "SCH*24*EA***002*20260118", "DTM*002*20260130"], "2026-01-18T00:00:00Z"),  # a date within the schedule
        ([LINE, "N1*ST*X", "DTM*002*20260130"], None),
    ],
)
def test_when_a_line_is_requested(segments: list[str], expected: str | None) -> None:
    assert order(*segments)["lines"][0].get("requested_at") == expected


def test_dates_are_midnights_of_the_partner() -> None:
    partner = Partner(zone=ZoneInfo("America/Chicago"))
    found = fact("850", BEG, LINE, "DTM*002*20260707", partner=partner)
    assert (found.envelope.occurred_at.isoformat(), found.envelope.time_quality) == ("2026-01-05T06:00:00+00:00", "partner_zone")
    assert found.event.data()["lines"][0]["requested_at"] == "2026-07-07T05:00:00Z"


# -- 855 ----------------------------------------------------------------------------------------------------------------------------------


def test_an_acknowledgement() -> None:
    found = fact(
        "855",
        *("BAK*05*AC*PO/1*20260105*R2*Q4**S77*20260106", "DTM*068*20260118", "DTM*067*20260120", "N1*ST*PLANT", "DTM*067*20991231"),
        *(LINE, "DTM*017*20260121", "ACK*IA*14*EA*068*20260119", "ACK*IB*10*EA", "DTM*067*20260201*0900*UT", "PO1*20*5*EA***BP*NUT"),
        *("ACK*IS*5*EA****VP*V9", "PO1*30*1*EA***BP*PIN", "ACK*R2", "PO1*40*3*EA***BP*CAP", "CTT*4"),
    )
    assert found.event.data() == {
        "purchase_order": "PO/1",
        "supplier": "ACME",
        "status": "changed",
        "code": "AC",
        "purpose": "05",
        "release": "R2",
        "acknowledgement": "S77",
        "ship_at": "2026-01-18T00:00:00Z",
        "deliver_at": "2026-01-20T00:00:00Z",
        "lines": [
            {
                "line": "10", "item": "BOLT-8", "status": "changed", "quantity": {"value": "24", "unit": "EA"}, "deliver_at": "2026-01-21T00:00:00Z",
                "answers": [
                    {"status": "accepted", "code": "IA", "quantity": {"value": "14", "unit": "EA"}, "ship_at": "2026-01-19T00:00:00Z"},
                    {"status": "backordered", "code": "IB", "quantity": {"value": "10", "unit": "EA"}, "deliver_at": "2026-02-01T09:00:00Z"},
                ],
            },
            {
                "line": "20", "item": "NUT", "status": "changed", "quantity": {"value": "5", "unit": "EA"},
                "answers": [{"status": "changed", "code": "IS", "quantity": {"value": "5", "unit": "EA"}, "item": "V9"}],
            },
            {
                "line": "30", "item": "PIN", "status": "rejected", "quantity": {"value": "1", "unit": "EA"},
                "answers": [{"status": "rejected", "code": "R2"}],
            },
            {"line": "40", "item": "CAP", "status": "changed", "quantity": {"value": "3", "unit": "EA"}},
        ],
    }  # fmt: skip
    assert (found.envelope.key, found.envelope.occurred_at.isoformat()) == ("855/PO%2F1/R2/S77/20260106", "2026-01-06T00:00:00+00:00")
    assert found.event.stream() == "purchase_order/PO/1"
    assert (found.envelope.details["request"], found.envelope.details["lines"]["20"]) == ("Q4", {"numbers": {"BP": "NUT"}})


@pytest.mark.parametrize(("code", "status"), sorted(x12_orders.ACKNOWLEDGED.items()))
def test_what_the_header_says(code: str, status: str) -> None:
    found = fact("855", f"BAK*00*{code}*PO1*20260105", "PO1*10")
    assert (found.event.data()["status"], found.event.data()["lines"]) == (status, [{"line": "10", "status": status}])
    assert found.envelope.key == "855/PO1///"
    assert fact("855", f"BAK*00*{code}*PO1*20260105").event.data().get("lines") is None


@pytest.mark.parametrize(("code", "status"), sorted(x12_orders.ANSWERED.items()))
def test_what_a_line_is_answered(code: str, status: str) -> None:
    (line,) = answer(LINE, f"ACK*{code}*24*EA", f"ACK*{code}*1*EA")["lines"]
    assert (line["status"], [a["status"] for a in line["answers"]]) == (status, [status, status])


def test_a_copy_is_the_same_acknowledgement_and_another_one_is_another() -> None:
    first = fact("855", BAK, LINE)
    assert fact("855", BAK.replace("*00*", "*07*"), LINE).digest() == first.digest()
    for other in ("S78*20260106", "S77*20260107"):
        assert fact("855", BAK.replace("S77*20260106", other), LINE).envelope.key != first.envelope.key
    again = fact("855", BAK, LINE, "ACK*IR")
    assert (again.envelope.key, again.digest() == first.digest()) == (first.envelope.key, False)


@pytest.mark.parametrize(
    ("segments", "reason", "place"),
    [
        (["BAK*01*AC*PO1*20260105"], "BAK01 is '01' (cancellation), which is not known as an answer", "segment 4 (BAK), line 1"),
        (["BAK*00*ZZ*PO1*20260105"], "BAK02 is 'ZZ', which says neither", "segment 4 (BAK), line 1"),
        (["BAK*00*AC**20260105"], "BAK03 must be the number of the order", "segment 4 (BAK), line 1"),
        (["BAK*00*AC*PO1"], "BAK04: '' is not a date", "segment 4 (BAK), line 1"),
        (["BAK*00*AC*PO1*20260105*****20261301"], "BAK09", "segment 4 (BAK), line 1"),
        ([BAK, LINE, "ACK*QQ"], "ACK01 is 'QQ', which says neither", "segment 6 (ACK), line 1"),
        ([BAK, LINE, "ACK*IA*x*EA"], "ACK02: 'x' is not a number", "segment 6 (ACK), line 1"),
        ([BAK, LINE, "ACK*IA*1"], "ACK03 is empty", "segment 6 (ACK), line 1"),
        ([BAK, LINE, "ACK*IA*1*EA*067*20260231"], "ACK05", "segment 6 (ACK), line 1"),
        ([BAK, LINE, "ACK*IA", "DTM*067*20260231"], "DTM02 and DTM03", "segment 7 (DTM), line 1"),
    ],
)
def test_a_fault_holds_the_acknowledgement(segments: list[str], reason: str, place: str) -> None:
    found = held("855", *segments)
    assert reason in found.reason
    assert found.place == place


# -- bounds -------------------------------------------------------------------------------------------------------------------------------


def test_a_document_with_more_lines_than_a_fact_has_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(x12_orders, "LINES_MAX", 3)
    lines = [f"PO1*{n}*1*EA***BP*B" for n in range(4)]
    assert len(order(*lines[:3])["lines"]) == 3
    found = held("850", BEG, *lines)
    assert (found.place, found.reason) == ("segment 8 (PO1), line 1", "the document has more than 3 lines: send it in several")


@pytest.mark.parametrize(("code", "first"), [("850", BEG), ("855", BAK)])
def test_a_document_that_says_too_much_is_held(code: str, first: str) -> None:
    found = held(code, first, LINE, *(f"REF*ZZ*{'R' * 2000}" for _ in range(8_000)))
    assert found.reason == "the document says too much for one: send it in several"


def test_a_long_order_maps() -> None:
    lines = [s for n in range(9_000) for s in (f"PO1*{n}*1*EA***UP*036000291452*BP*BOLT-{n}", "PID*F****HEX BOLT", "DTM*002*20260120")]
    assert len(order(*lines)["lines"]) == 9_000
