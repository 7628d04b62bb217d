"""X12 out: what is written is read as the same event again, and what a reader could not take is refused with the name of its element."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.formats import units, x12, x12_orders, x12_write
from adapters.formats.x12_write import Envelope, Marks, OutGroup, OutSet, write
from adapters.x12 import documents
from adapters.x12.mapping import MAPPING
from events.base import Fact
from events.errors import Refused
from events.procurement import PurchaseOrderAcknowledged, PurchaseOrderIssued
from events.vocabulary import rec20
from hub.intake.mapping import Context, Line, Partner
from projections.naming import named

AT = datetime(2026, 1, 5, 6, 7, tzinfo=UTC)
BERLIN = Partner(zone=ZoneInfo("Europe/Berlin"), units={"ZZ": "XBX", "ZY": "BX", "CT": "EA"})
HERE = Partner()


def envelope(**changed: Any) -> Envelope:
    said: dict[str, Any] = {"sender": "ZZ:PLANT", "receiver": "ZZ:ACME", "control": 7, "at": AT}
    return Envelope(**(said | changed))


def body(code: str, kind: str, segments: Sequence[Sequence[str]], **changed: Any) -> bytes:
    return write(envelope(**changed), [OutGroup(kind, 9, [OutSet(code, 1, segments)])])


def read(raw: bytes, partner: Partner = HERE) -> Fact:
    (part,) = MAPPING.read(raw, Context(raw="0" * 64, partners={"x12:ZZ:PLANT": partner, "x12:ZZ:ACME": partner}))
    (line,) = part.lines
    assert isinstance(line, Line), line
    (fact,) = line.facts
    return fact


# -- the law: write, then read ------------------------------------------------------------------------------------------------------------

_CHARACTERS = sorted(x12_write._EXTENDED - set("*~>"))
PLAIN = st.text(alphabet=_CHARACTERS, min_size=1, max_size=20).map(str.strip).filter(bool)
ITEM = PLAIN | st.sampled_from(["00036000291452", "036000291452", "BOLT-8", "10614141000415", "1" * 48])
UNIT = st.sampled_from(sorted(set(units.X12.values()) - {"CT"}))  # which a partner below reads as EA
QUANTITY = st.fixed_dictionaries({"value": st.decimals(0, 10**11, places=4).map(lambda d: f"{d:f}"), "unit": UNIT})
TIME = st.integers(-(10**11), 10**11).map(lambda n: AT + timedelta(milliseconds=10 * n)) | (
    st.dates(date(1900, 1, 1), date(2100, 1, 1)).map(lambda d: datetime(d.year, d.month, d.day, tzinfo=ZoneInfo("Europe/Berlin")))
)
DATE = st.dates(date(1900, 1, 1), date(2100, 1, 1))
PARTNER = st.sampled_from([HERE, BERLIN])


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def distinct(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({line["line"]: line for line in lines}.values())


ORDER = st.fixed_dictionaries(
    {
        "purchase_order": PLAIN.filter(lambda text: len(text) <= 22),
        "supplier": st.just("ACME"),
        "lines": st.lists(
            st.fixed_dictionaries({"line": PLAIN, "item": ITEM, "quantity": QUANTITY, "requested_at": maybe(TIME)}), min_size=1, max_size=4
        ).map(distinct),
    }
)


@given(ORDER, DATE, PARTNER, st.sampled_from(sorted(x12_orders.ORDERS)))
def test_an_order_that_is_written_is_read_as_the_same(data: dict[str, Any], ordered: date, partner: Partner, kind: str) -> None:
    event = PurchaseOrderIssued.of(data)
    raw = body("850", "PO", documents.purchase_order(event, ordered, partner, kind=kind))
    fact = read(raw, partner)
    assert fact.event == event
    assert fact.envelope.key == f"850/{event.purchase_order}"
    assert fact.envelope.occurred_at.astimezone(partner.zone or UTC).date() == ordered
    assert read(raw, partner).digest() == fact.digest()


@st.composite
def acknowledgements(draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, Any]:
    """Acknowledgements whose statuses are those of their codes."""
    code, status = draw(st.sampled_from(sorted(x12_orders.ACKNOWLEDGED.items())))
    lines = []
    for name in draw(st.lists(PLAIN, max_size=4, unique=True)):
        answers = []
        for own, meant in draw(st.lists(st.sampled_from(sorted(x12_orders.ANSWERED.items())), max_size=3)):
            said = {
                "status": meant,
                "code": own,
                "quantity": draw(maybe(QUANTITY)),
                "ship_at": draw(maybe(TIME)),
                "deliver_at": draw(maybe(TIME)),
            }
            answers.append(said | ({"item": draw(ITEM)} if own == "IS" else {}))
        statuses = {one["status"] for one in answers}
        line = {"line": name, "item": draw(maybe(ITEM)), "quantity": draw(maybe(QUANTITY)), "answers": answers}
        line |= {"ship_at": draw(maybe(TIME)), "deliver_at": draw(maybe(TIME))}
        lines.append(line | {"status": status if not statuses else "changed" if len(statuses) > 1 else statuses.pop()})
    return {
        "purchase_order": draw(PLAIN), "supplier": "PLANT", "status": status, "code": code, "purpose": draw(st.sampled_from(["00", "04", "05"])),
        "release": draw(maybe(PLAIN)), "acknowledgement": draw(maybe(PLAIN)), "ship_at": draw(maybe(TIME)), "deliver_at": draw(maybe(TIME)),
        "lines": lines,
    }  # fmt: skip


@given(acknowledgements(), DATE, DATE, PARTNER)
def test_an_acknowledgement_that_is_written_is_read_as_the_same(
    data: dict[str, Any], ordered: date, answered: date, partner: Partner
) -> None:
    event = PurchaseOrderAcknowledged.of(data)
    fact = read(body("855", "PR", documents.acknowledgement(event, ordered, answered, partner)), partner)
    assert fact.event == event
    assert fact.envelope.key.startswith("855/")
    assert fact.envelope.key.count("/") == 4
    assert fact.envelope.key.endswith(f"/{answered:%Y%m%d}")
    assert named(fact.event) == named(event)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.sampled_from(["~", "|", "\n", "'"]), st.booleans())
def test_any_interchange_that_is_written_is_sound(sizes: list[int], end: str, repeats: bool) -> None:
    marks = Marks(element="*", segment=end, component="<", repetition="^" if repeats else "U")
    groups = [
        OutGroup("PO", 10 + g, [OutSet("850", n, [["BEG", "00", "SA", f"P{g}{n}", "", "20260105"]]) for n in range(1, size + 1)])
        for g, size in enumerate(sizes)
    ]
    raw = write(envelope(marks=marks, release="005010" if repeats else "004010"), groups)
    assert len(raw.split(end.encode())[0]) == 105  # ISA has a fixed width
    sets = x12.parse(raw)
    assert [one.fault for one in sets] == [None] * sum(sizes)
    assert [one.segments[0][3] for one in sets] == [out.segments[0][3] for group in groups for out in group.sets]


def test_the_bytes_of_an_interchange() -> None:
    event = PurchaseOrderIssued.of(
        {
            "purchase_order": "PO1",
            "supplier": "ACME",
            "lines": [
                {"line": "10", "item": "00036000291452", "quantity": {"value": "24", "unit": "EA"}, "over_tolerance_percent": "5"},
                {"line": "20", "item": "NUT", "quantity": {"value": "0.5", "unit": "KGM"}, "requested_at": "2026-01-20T12:30:00Z"},
            ],
        }
    )
    segments = documents.purchase_order(event, date(2026, 1, 5), HERE)
    assert body("850", "PO", segments, test=True, group_receiver="ACMEPO") == (
        b"ISA*00*          *00*          *ZZ*PLANT          *ZZ*ACME           *260105*0607*U*00401*000000007*0*T*>~"
        b"GS*PO*PLANT*ACMEPO*20260105*0607*9*X*004010~ST*850*0001~BEG*00*SA*PO1**20260105~PO1*10*24*EA***UK*00036000291452~"
        b"PO1*20*0.5*KG***BP*NUT~DTM*002*20260120*1230*UT~CTT*2~SE*7*0001~GE*1*9~IEA*1*000000007~"
    )


def test_every_unit_of_the_table_can_be_written() -> None:
    for code in set(units.X12.values()):
        unit = units.to_x12(code, {})
        assert unit is not None
        assert units.from_x12(unit, {}) == code
    assert {code for code in rec20() if units.to_x12(code, {})} == set(units.X12.values())


def test_a_partners_own_unit_is_written_and_never_one_that_he_reads_otherwise() -> None:
    assert (units.to_x12("BX", BERLIN.units), units.to_x12("CT", BERLIN.units), units.to_x12("EA", BERLIN.units)) == ("ZY", None, "CT")
    order = PurchaseOrderIssued.of(
        {"purchase_order": "P", "supplier": "A", "lines": [{"line": "1", "item": "B", "quantity": {"value": "1", "unit": "CT"}}]}
    )
    with pytest.raises(Refused, match="line 1 of the order P: the unit CT has no X12 code: name one for this partner"):
        documents.purchase_order(order, date(2026, 1, 5), BERLIN)


# -- what is refused ----------------------------------------------------------------------------------------------------------------------

LINE = {"line": "10", "item": "BOLT", "quantity": {"value": "1", "unit": "EA"}}


def order_with(**changed: Any) -> Sequence[Sequence[str]]:
    line = LINE | {name: value for name, value in changed.items() if name in ("line", "item", "quantity", "requested_at")}
    data = {"purchase_order": changed.get("purchase_order", "PO1"), "supplier": "ACME", "lines": [line]}
    return documents.purchase_order(PurchaseOrderIssued.of(data), date(2026, 1, 5), HERE, kind=changed.get("kind", "SA"))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"item": "BOLT*8"}, r"PO107 of the 850 0001, segment 3 is 'BOLT\*8' and holds '\*', the element separator"),
        ({"item": "BOLT~8"}, "PO107 .* holds '~', the segment terminator"),
        ({"item": "BOLT>8"}, "PO107 .* holds '>', the component separator"),
        ({"item": "Schraube für"}, "PO107 .* holds 'ü', which is not in the extended character set"),
        ({"item": "BOLT^8"}, "PO107 .* holds '\\^', which is not in the extended character set"),
        ({"item": "B" * 49}, "PO107 .* 49 characters: X12 takes 1 to 48"),
        ({"line": "1" * 21}, "PO101 .* 21 characters: X12 takes 1 to 20"),
        ({"purchase_order": "P" * 23}, "BEG03 .* 23 characters: X12 takes 1 to 22"),
        ({"quantity": {"value": "1234567890123456", "unit": "EA"}}, "PO102 .* 16 characters: X12 takes 1 to 15"),
        ({"quantity": {"value": "1", "unit": "A9"}}, "line 10 of the order PO1: the unit A9 has no X12 code"),
        ({"requested_at": "2026-01-05T06:00:00.001Z"}, "finer than the hundredths of a second"),
        ({"kind": "BK"}, "the kind of order 'BK'"),
    ],
)
def test_an_order_that_x12_cannot_say_is_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        body("850", "PO", order_with(**changed))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"status": "accepted"}, "is accepted, but its code AC means changed"),
        ({"code": "ZZ"}, "is changed, but its code ZZ is not known"),
        ({"purpose": "07"}, "has the purpose 07"),
        ({"lines": [{"line": "1", "status": "rejected"}]}, "line 1 .* is rejected, but what is written of it would be read as changed"),
        ({"lines": [{"line": "1", "status": "accepted", "answers": [{"status": "accepted", "code": "IR"}]}]}, "code IR means rejected"),
        (
            {"lines": [{"line": "1", "status": "changed", "answers": [{"status": "changed", "code": "IS"}]}]},
            "another item comes with the code IS",
        ),
        (
            {"lines": [{"line": "1", "status": "accepted", "answers": [{"status": "accepted", "code": "IA", "item": "B"}]}]},
            "another item comes with the code IS",
        ),
    ],
)
def test_an_acknowledgement_that_would_be_read_otherwise_is_refused(changed: dict[str, Any], reason: str) -> None:
    data = {"purchase_order": "PO1", "supplier": "PLANT", "status": "changed", "code": "AC"} | changed
    with pytest.raises(Refused, match=reason):
        documents.acknowledgement(PurchaseOrderAcknowledged.of(data), date(2026, 1, 5), date(2026, 1, 6), HERE)


BEG = ["BEG", "00", "SA", "PO1", "", "20260105"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"sender": "PLANT"}, "the sender 'PLANT' is not written as QUALIFIER:ID"),
        ({"receiver": "ZZ:" + "A" * 16}, "the receiver .* at most 15 characters"),
        ({"receiver": "ZZ:A*B"}, r"the receiver 'ZZ:A\*B' is 'A\*B' and holds '\*'"),
        ({"receiver": "ZZ:A "}, "a blank at its beginning or end would be lost"),
        ({"control": 0}, r"interchange control number \(ISA13\) is 0"),
        ({"control": 10**9}, r"interchange control number \(ISA13\) is 1000000000"),
        ({"release": "4010"}, "the release '4010'"),
        ({"release": "005010"}, "release 005010 has a repetition separator in ISA11"),
        ({"marks": Marks(repetition="^")}, "release 004010 has U in ISA11"),
        ({"marks": Marks(element="A")}, "'A' cannot be the element separator"),
        ({"marks": Marks(element="\n")}, "cannot be the element separator"),
        ({"marks": Marks(segment="")}, "'' cannot be the segment terminator"),
        ({"marks": Marks(component="*")}, "two delimiters are the same"),
        ({"group_sender": "X" * 16}, "GS02 of the group is 'X*', 16 characters: X12 takes 1 to 15"),
    ],
)
def test_an_envelope_that_a_reader_could_not_tell_is_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        body("850", "PO", [BEG], **changed)


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ([["BEG", "00", "SA", "", "", "20260105"]], "BEG03 of the 850 0001, segment 2 is empty, but must be there"),
        ([[*BEG[:5], "2026-1-5"]], "BEG05 .* which is no DT"),
        ([[*BEG[:5], "260105"]], "BEG05 .* 6 characters: X12 takes 8 to 8"),
        ([BEG, ["PO1", "1", "1e3", "EA"]], "PO102 .* which is no R"),
        ([BEG, ["PO1", "1", "-.", "EA"]], "PO102"),
        ([BEG, ["CTT", "x"]], "CTT01 .* which is no N0"),
        ([[*BEG, "1", "2"]], "BEG has 7 elements, it may have 6"),
        ([BEG, ["N1", "ST", "X"]], "the segment 'N1' is not one that the hub writes"),
        ([BEG, ["PO1", " 1"]], "a blank at its beginning or end would be lost"),
        ([BEG, ["PO1", "1\x07"]], "which is not in the extended character set"),
    ],
)
def test_a_segment_that_does_not_fit_its_specification_is_refused(segments: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        body("850", "PO", segments)


def test_the_basic_character_set_has_no_small_letters() -> None:
    marks = Marks(extended=False)
    body("850", "PO", [BEG, ["PO1", "A!\"&'()+,-./:;?= 1"]], marks=marks)
    with pytest.raises(Refused, match="holds 'a', which is not in the basic character set"):
        body("850", "PO", [BEG, ["PO1", "a"]], marks=marks)


def test_numbers_that_stand_twice_and_what_is_empty_are_refused() -> None:
    one = OutSet("850", 1, [BEG])
    for groups, reason in (
        ([OutGroup("PO", 9, [one, one])], "ST02"),
        ([OutGroup("PO", 9, [one]), OutGroup("PO", 9, [one])], "GS06"),
        ([], "nothing to send"),
        ([OutGroup("PO", 9, [])], "nothing to send"),
    ):
        with pytest.raises(Refused, match=reason):
            write(envelope(), groups)


@given(st.text(max_size=30))
def test_whatever_stands_in_an_element_is_refused_or_read_again(text: str) -> None:
    try:
        raw = body("850", "PO", [BEG, ["PO1", "1", "1", "EA", "", "", "BP", text]])
    except Refused:
        return
    (one,) = x12.parse(raw)
    assert one.fault is None
    assert one.segments[1][7] == text


def test_the_writer_knows_no_clock() -> None:
    later = envelope(at=AT + timedelta(days=1))
    group = [OutGroup("PO", 9, [OutSet("850", 1, [BEG])])]
    assert write(envelope(), group) == write(envelope(), group) != write(later, group)
