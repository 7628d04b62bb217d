"""X12 856: every way to write a notice gives the same facts, every structure maps, and each fault holds what it is about and nothing else."""

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.formats import units, x12
from adapters.formats.x12_values import decimal_text
from adapters.x12 import asn
from adapters.x12.mapping import MAPPING
from events.base import Fact
from events.vocabulary import rec20
from hub.intake.mapping import Context, Held, Line, Part, Partner
from tests.edi import WRITTEN, interchange, rewrite

SSCC = "106141412345678908"  # GS1 General Specifications: check digit 8
SSCC_2 = "006141411234567890"
HEAD = ["BSN*00*A1*20260105*0600*0001", "HL*1**S", "DTM*017*20260107"]
ORDER = ["HL*2*1*O", "PRF*PO1"]


def read(text: str | bytes, **partners: Partner) -> Sequence[Part]:
    body = text if isinstance(text, bytes) else text.encode()
    assert MAPPING.recognises(body)
    return MAPPING.read(body, Context(raw="0" * 64, partners={f"x12:ZZ:{name}": p for name, p in partners.items()}))


def facts(part: Part) -> dict[str, Fact]:
    found = [f for line in part.lines if isinstance(line, Line) for f in line.facts]
    assert len({f.envelope.key for f in found}) == len(found)
    return {f.envelope.key: f for f in found}


def notice(*segments: str, **partners: Partner) -> dict[str, dict[str, Any]]:
    """Data of the facts of a sound notice by the end of their key."""
    (part,) = read(interchange([[*HEAD, *segments]]), **partners)
    assert not [line for line in part.lines if isinstance(line, Held)]
    return {key.removeprefix("856/A1").removeprefix("/"): f.event.data() for key, f in facts(part).items()}


def said(data: dict[str, Any]) -> tuple[Any, ...]:
    thing = data["thing"]
    quantity = thing.get("quantity")
    return (
        thing.get("lot"),
        thing.get("serial"),
        tuple(data.get("handling_units", ())),
        quantity and (quantity["value"], quantity["unit"]),
    )


# -- one content, many ways to write it -------------------------------------------------------------------------------------------------

TEXT = st.text(alphabet="ABCXYZ0189 -.", min_size=1, max_size=12).map(str.strip).filter(bool)
LINE = st.tuples(TEXT, st.integers(1, 9999), st.sampled_from(["EA", "LB", "KG"]), st.none() | TEXT)


def lines_of(lines: Sequence[tuple[str, int, str, str | None]]) -> list[str]:
    out = [*HEAD, *ORDER]
    for n, (item, quantity, unit, lot) in enumerate(lines, 3):
        out += [f"HL*{n}*2*I", f"LIN*{n}*BP*{item}" + (f"*LT*{lot}" if lot else ""), f"SN1**{quantity}*{unit}"]
    return out


@given(st.lists(LINE, min_size=1, max_size=5), WRITTEN, WRITTEN)
def test_the_same_notice_in_other_writing_is_the_same_facts(lines: list[Any], one: dict[str, Any], other: dict[str, Any]) -> None:
    found = []
    for how in (one, other):
        (part,) = read(rewrite(lines_of(lines), how))
        found.append({key: f.digest() for key, f in facts(part).items()})
    assert len(found[0]) == 1 + len(lines)
    assert found[0] == found[1]


@given(st.lists(LINE, min_size=1, max_size=5), st.data())
def test_another_quantity_changes_its_line_and_the_header_alone(lines: list[Any], data: st.DataObject) -> None:
    n = data.draw(st.integers(0, len(lines) - 1))
    changed = [(item, q + (i == n), unit, lot) for i, (item, q, unit, lot) in enumerate(lines)]
    (before,), (after,) = read(interchange([lines_of(lines)])), read(interchange([lines_of(changed)]))
    old, new = ({k: f.digest() for k, f in facts(p).items()} for p in (before, after))
    assert {k for k in old if old[k] != new[k]} == {"856/A1", f"856/A1/HL{n + 3}"}
    assert old.keys() == new.keys()


# -- structures ---------------------------------------------------------------------------------------------------------------------------

ITEM = ["LIN*1*BP*X-1", "SN1**5*EA"]


def test_shipment_order_tare_pack_item() -> None:
    tree = [
        *ORDER,
        "HL*3*2*T",
        f"MAN*GM*00{SSCC}",
        "HL*4*3*P",
        f"MAN*GM*{SSCC_2}",
        "HL*5*4*I",
        "LIN*7*UP*614141000036*BP*X-1*VP*V1*LT*L1",
        "SN1**5*EA",
    ]
    found = notice(*tree)
    assert found["HL3"]["handling_unit"] == SSCC
    assert "parent" not in found["HL3"]
    assert found["HL4"]["parent"] == SSCC
    line = found["HL5"]
    assert said(line) == ("L1", None, (SSCC, found["HL4"]["handling_unit"]), ("5", "EA"))
    assert line["thing"]["item"] == "00614141000036"  # the GTIN before the buyer's number
    assert line["item_numbers"] == {"UP": "614141000036", "BP": "X-1", "VP": "V1", "LT": "L1"}
    assert (line["purchase_order"], line["purchase_order_line"]) == ("PO1", "7")


def test_shipment_and_items_alone_with_their_own_orders() -> None:
    found = notice("HL*2*1*I", *ITEM, "PRF*PO7*R2***30", "HL*3*1*I", "LIN**VP*V*PO*PO8*PL*4", "SN1**.5*KG")
    assert (found["HL2"]["purchase_order"], found["HL2"]["purchase_order_line"], found["HL2"]["references"]) == (
        "PO7",
        "30",
        {"release": "R2"},
    )
    assert (found["HL3"]["purchase_order"], found["HL3"]["purchase_order_line"]) == ("PO8", "4")
    assert said(found["HL3"])[3] == ("0.5", "KGM")


def test_shipment_tare_order_pack_item() -> None:
    found = notice("HL*2*1*T", f"MAN*GM*{SSCC}", "HL*3*2*O", "PRF*PO9", "HL*4*3*P", "MAN*CP*1Z9", "HL*5*4*I", *ITEM)
    assert said(found["HL5"]) == (None, None, (SSCC, "1Z9"), ("5", "EA"))
    assert found["HL5"]["purchase_order"] == "PO9"
    assert found["HL4"]["parent"] == SSCC


def test_packs_below_their_item_share_its_quantity_where_they_say_how() -> None:
    packs = ["HL*4*3*P", "MAN*W*A", "SN1**2*EA", "HL*5*3*P", "MAN*W*B", "REF*LT*L2", "SN1**3*EA"]
    found = notice(*ORDER, "HL*3*2*I", *ITEM, *packs)
    assert [said(found[f"HL3#{n}"]) for n in (1, 2)] == [(None, None, ("A",), ("2", "EA")), ("L2", None, ("B",), ("3", "EA"))]
    assert found["HL4"]["handling_unit"] == "A"
    found = notice(*ORDER, "HL*3*2*I", *ITEM, *(s for s in packs if not s.startswith("SN1")))
    assert [said(found[f"HL3#{n}"]) for n in (1, 2, 3)] == [
        (None, None, (), ("5", "EA")),
        (None, None, ("A",), None),
        ("L2", None, ("B",), None),
    ]


def test_a_parent_left_out_is_the_nearest_level_above() -> None:
    found = notice("HL*2**O", "PRF*PO1", "HL*3**P", "MAN*GM*A", "HL*4**I", *ITEM, "HL*5**O", "PRF*PO2", "HL*6**I", *ITEM)
    assert (found["HL4"]["purchase_order"], found["HL4"]["handling_units"]) == ("PO1", ["A"])
    assert found["HL6"]["purchase_order"] == "PO2"
    assert "handling_units" not in found["HL6"]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (["LIN*1*BP*X*LT*L1", "SN1**5*EA"], [("L1", None, (), ("5", "EA"))]),
        (["LIN*1*BP*X", "SN1**5*EA", "REF*BT*L1"], [("L1", None, (), ("5", "EA"))]),
        (
            ["LIN*1*BP*X", "SN1**5*EA", "REF*LT*L1", "REF*LT*L2"],
            [(None, None, (), ("5", "EA")), ("L1", None, (), None), ("L2", None, (), None)],
        ),
        (["LIN*1*BP*X*SN*S1", "SN1**1*EA"], [(None, "S1", (), ("1", "EA"))]),
        (
            ["LIN*1*BP*X", "SN1**3*EA", "REF*SE*S1", "REF*SE*S2"],
            [(None, "S1", (), ("1", "EA")), (None, "S2", (), ("1", "EA")), (None, None, (), ("1", "EA"))],
        ),
        (
            ["LIN*1*BP*X", "SN1**7*EA", "SLN*1**I*4*EA****LT*L1", "SLN*2**I*3*EA****LT*L2"],
            [("L1", None, (), ("4", "EA")), ("L2", None, (), ("3", "EA"))],
        ),
        (["LIN*1*BP*X", "SN1**1400*EA", "CLD*2*700", "REF*LS*A", "REF*LS*B"], [(None, None, (u,), ("700", "EA")) for u in "AB"]),
        (["LIN*1*BP*X", "SN1**5*EA", f"MAN*GM*00{SSCC}"], [(None, None, (SSCC,), ("5", "EA"))]),
        (["LIN*1*BP*X", "SN1**2*EA", "LIN*2*BP*Y", "SN1**3*EA"], [(None, None, (), ("2", "EA")), (None, None, (), ("3", "EA"))]),
    ],
)
def test_lots_serials_loads_and_marks_of_a_line(item: list[str], expected: list[Any]) -> None:
    found = notice("HL*2*1*I", *item)
    keys = ["HL2"] if len(expected) == 1 else [f"HL2#{n}" for n in range(1, len(expected) + 1)]
    assert [said(found[key]) for key in keys] == expected
    assert found.keys() == {"", *keys}


def test_several_marks_of_a_pack_are_facts_of_one_level() -> None:
    found = notice("HL*2*1*P", "MAN*CP*1Z9", f"MAN*GM*{SSCC}", "HL*3*2*I", *ITEM)
    assert [found[f"HL2#{n}"]["handling_unit"] for n in (1, 2)] == ["1Z9", SSCC]
    assert found["HL3"]["handling_units"] == [SSCC]


def test_the_header() -> None:
    segments = ["TD5**2*RDWY", "REF*BM*B1", "DTM*011*20260104*2230*ES", "N1*SF*ACME*92*7", "N1*ST**92*P1", *ORDER, "HL*3*2*I", *ITEM]
    header = notice(*segments)[""]
    assert (header["asn"], header["partner"], header["purpose"], header["carrier"]) == ("A1", "ACME", "00", "RDWY")
    assert (header["ship_from"], header["ship_to"], header["purchase_orders"]) == ("ACME (92:7)", "92:P1", ["PO1"])
    assert (header["ship_at"], header["expected_at"]) == ("2026-01-05T03:30:00Z", "2026-01-07T00:00:00Z")


@pytest.mark.parametrize(
    ("segments", "partner", "expected", "quality"),
    [
        ([], Partner(), "2026-01-05T06:00:00+00:00", "assumed_utc"),
        ([], Partner(zone=ZoneInfo("America/Chicago")), "2026-01-05T12:00:00+00:00", "partner_zone"),
        (["DTM*011*20260105*0600*ET"], Partner(zone=ZoneInfo("America/Chicago")), "2026-01-05T11:00:00+00:00", "offset"),
        (["DTM*011*20260105*0600*01"], Partner(), "2026-01-05T05:00:00+00:00", "offset"),
        (["DTM*011*20260105*0700*ET"], Partner(), "2026-01-05T06:00:00+00:00", "assumed_utc"),
    ],
)
def test_times_and_how_sure_they_are(segments: list[str], partner: Partner, expected: str, quality: str) -> None:
    (part,) = read(interchange([[*HEAD, *segments, "HL*2*1*I", *ITEM]]), ACME=partner)
    for f in facts(part).values():
        assert (f.envelope.occurred_at.isoformat(), f.envelope.effective_at.isoformat(), f.envelope.time_quality) == (
            expected,
            expected,
            quality,
        )


def test_daylight_time_by_rule() -> None:
    for date, hour in (("20260308", 6), ("20260707", 5), ("20261101", 6), ("20060402", 5), ("20060401", 6)):
        header = notice(f"DTM*011*{date}*0300*CT", "HL*2*1*I", *ITEM)[""]
        assert int(header["ship_at"][11:13]) - 3 == (5 if date == "20260308" else hour), date


def test_a_partners_own_unit_comes_before_the_table() -> None:
    assert said(notice("HL*2*1*I", "LIN**BP*X", "SN1**5*CT", ACME=Partner(units={"CT": "EA"}))["HL2"])[3] == ("5", "EA")
    assert all(code in rec20() for code in units.X12.values())
    assert units.from_x12("ST", {}) == "SET"
    assert units.from_x12("ZZ", {}) is None


@pytest.mark.parametrize(
    ("text", "plain"), [("5", "5"), (".50", "0.5"), ("5.", "5"), ("+07", "7"), ("1.5E2", "150"), ("2E-3", "0.002"), ("-1", "-1")]
)
def test_numbers(text: str, plain: str) -> None:
    assert decimal_text(text) == plain


@pytest.mark.parametrize("text", ["", ".", "-", "1,5", "1e5x", "½", "٣", "9" * 41])
def test_no_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        decimal_text(text)


# -- faults -------------------------------------------------------------------------------------------------------------------------------

SOUND = interchange([[*HEAD, *ORDER, "HL*3*2*I", *ITEM, "CTT*1"]])


@pytest.mark.parametrize(
    ("old", "new", "reason", "place"),
    [
        ("SE*11*", "SE*12*", "SE01 says '12' segments, there are 11", "segment 13 (SE), line 1"),
        ("SE*11*0001", "SE*11*0002", "SE02 is '0002', but ST02 is '0001'", "segment 13 (SE), line 1"),
        ("SE*11*0001~", "", "no SE", "segment 3 (ST), line 1"),
        ("GE*1*9~", "", "no GE", "segment 2 (GS), line 1"),
        ("GE*1*9", "GE*2*9", "GE01 says '2' transaction sets, there are 1", "segment 14 (GE), line 1"),
        ("GE*1*9", "GE*1*8", "GE02 is '8', but GS06 is '9'", "segment 14 (GE), line 1"),
        ("IEA*1*000000007~", "", "no IEA", "segment 1 (ISA), line 1"),
        ("IEA*1*000000007", "IEA*1*000000008", "IEA02", "segment 15 (IEA), line 1"),
        ("IEA*1*", "IEA*2*", "IEA01 says '2' functional groups, there are 1", "segment 15 (IEA), line 1"),
        ("IEA*1*000000007~", "IEA*1*0000", "IEA02", "segment 15 (IEA), line 1"),
        ("PRF*PO1~", "PRF*PO1~garbage!~", "'garbage!' is no segment tag", "segment 9 (garbage!), line 1"),
        ("GS*SH", "XX*1~GS*SH", "outside any transaction set", "segment 2 (XX), line 1"),
        ("HL*3*2*I", "HL*2*1*I", "HL01 2 stands twice", "segment 9 (HL), line 1"),
        ("HL*3*2*I", "HL*3*9*I", "the parent HL 9 of HL 3 does not exist", "segment 9 (HL), line 1"),
        ("HL*3*2*I", "HL*3*3*I", "the parent HL 3 of HL 3 does not exist", "segment 9 (HL), line 1"),
        ("HL*3*2*I", "HL*3*2*S", "stands below HL 2", "segment 9 (HL), line 1"),
        ("HL*1**S", "HL*1**O", "not the shipment", "segment 5 (HL), line 1"),
        ("BSN*00*A1*", "BSN*00**", "BSN02 must be the number of the notice", "segment 4 (BSN), line 1"),
        ("BSN*00*A1*20260105", "BSN*00*A1*20260231", "no date and time that exists", "segment 4 (BSN), line 1"),
        ("BSN*00*A1*20260105*0600*0001~", "", "SE01", "segment 12 (SE), line 1"),
        ("*PO1", "*" + "P" * 5000, "longer than 4000", "segment 8 (PRF), line 1"),
        ("*PO1", "*P\x07O1", "control character", "segment 8 (PRF), line 1"),
        ("CTT*1~", "CTT*1~REF*X*1~", "SE01", "segment 14 (SE), line 1"),
        ("ZZ*ACME           ", "ZZ*               ", "ISA06", "segment 1 (ISA), line 1"),
    ],
)
def test_a_fault_of_envelope_or_syntax_holds_the_set(old: str, new: str, reason: str, place: str) -> None:
    assert old in SOUND
    (part,) = read(SOUND.replace(old, new))
    (held,) = part.lines
    assert isinstance(held, Held)
    assert (part.format, held.path, held.place) == ("x12-856", "", place)
    assert reason in held.reason


def test_a_cut_file_is_held_wherever_it_is_cut() -> None:
    for n in range(4, len(SOUND) - 1):
        for part in read(SOUND[:n]):
            assert all(isinstance(line, Held) and line.reason for line in part.lines), n
    assert not any(isinstance(line, Held) for line in read(SOUND[:-1])[0].lines)  # only the last terminator is not there


def test_the_next_interchange_is_not_held_by_a_broken_one() -> None:
    first, second = read(SOUND.replace("IEA*1*000000007~", "") + "\r\n" + SOUND.replace("ACME  ", "OTHER "))
    assert isinstance(first.lines[0], Held)
    assert (second.number, second.source, len(facts(second))) == (2, "x12:ZZ:OTHER", 2)
    assert [p.number for p in read(SOUND + "\n" + SOUND)] == [1, 2]
    garbage, after = read(SOUND + "rubbish\n" + SOUND.replace("*", "|"))[1:]
    assert isinstance(garbage.lines[0], Held)
    assert len(facts(after)) == 2


def test_one_wrong_set_does_not_hold_its_neighbour() -> None:
    body = [*HEAD, "HL*2*1*I", *ITEM]
    one, two = read(interchange([[*body, "HL*2*1*I"], [s.replace("A1", "A2") for s in body]]))
    assert isinstance(one.lines[0], Held)
    assert facts(two).keys() == {"856/A2", "856/A2/HL2"}


@pytest.mark.parametrize(
    ("item", "reason", "place"),
    [
        (["LIN*1*BP*X"], "no SN1", "segment 12 (HL), line 1"),
        (["LIN*1*BP*X", "SN1**5*ZZ"], "the unit 'ZZ'", "segment 14 (SN1), line 1"),
        (["LIN*1*BP*X", "SN1**5"], "SN103 is empty", "segment 14 (SN1), line 1"),
        (["LIN*1*BP*X", "SN1**five*EA"], "'five' is not a number", "segment 14 (SN1), line 1"),
        (["LIN*1*BP*X", "SN1**-5*EA"], "cannot be negative", "segment 14 (SN1), line 1"),
        (["LIN*1*BP*X", "SN1**5*EA", "SN1**6*EA"], "SN1 stands twice", "segment 15 (SN1), line 1"),
        (["SN1**5*EA"], "no LIN", "segment 12 (HL), line 1"),
        (["LIN*1", "SN1**5*EA"], "names no item", "segment 13 (LIN), line 1"),
        (["LIN*1*LT*L1", "SN1**5*EA"], "names no item", "segment 13 (LIN), line 1"),
        (["LIN*1*BP*" + "X" * 201, "SN1**5*EA"], "item", "segment 12 (HL), line 1"),
        (["LIN*1*BP*X", "SN1**" + "9" * 21 + "*EA"], "out of range", "segment 12 (HL), line 1"),
    ],
)
def test_a_fault_of_a_line_holds_the_line_alone(item: list[str], reason: str, place: str) -> None:
    (part,) = read(interchange([[*HEAD, *ORDER, "HL*3*2*I", *ITEM, "HL*4*2*I", *item, "HL*5*2*I", *ITEM]]))
    (held,) = (line for line in part.lines if isinstance(line, Held))
    assert (held.path, held.place, held.source) == ("HL4", place, "x12:ZZ:ACME")
    assert reason in held.reason
    assert facts(part).keys() == {"856/A1", "856/A1/HL3", "856/A1/HL5"}


@pytest.mark.parametrize(
    "item",
    [
        ["LIN**BP*A" + "".join(f"*X{n % 90 + 10}*{n}" for n in range(600)), "SN1**1*EA", *(f"REF*LT*{n}" for n in range(600))],
        ["LIN**BP*A", "SN1**1*EA", *(f"REF*{n}*a" for n in range(600)), *(f"REF*LT*{n}" for n in range(600))],
        ["LIN**BP*A", "SN1**1*EA", "HL*4*3*T", *(f"REF*LT*{n}" for n in range(200)), *(f"HL*{n}*4*P" for n in range(5, 205))],
        [*(f"MAN*GM*{n}" for n in range(200)), *("LIN**BP*A", "SN1**1*EA") * 200],
    ],
)
def test_a_line_that_would_make_gigabytes_is_held(item: list[str]) -> None:
    """What each of its lots, serials and packs repeats grows by the square: 40 KB made 1.4 million facts."""
    body = interchange([[*HEAD, *ORDER, "HL*3*2*I", *item]])
    assert len(body) < 20_000
    (part,) = read(body)
    assert [(line.path, line.reason) for line in part.lines if isinstance(line, Held)] == [
        ("HL3", "the item names too many lots, serials or packs for all that it says of each: send it in several levels")
    ]


def test_a_line_with_thousands_of_serials_maps() -> None:
    serials = [f"REF*SE*S{n:07}" for n in range(5000)]
    (part,) = read(interchange([[*HEAD, *ORDER, "HL*3*2*I", "LIN*1*UP*036000291452*BP*BOLT*PL*10", "SN1**5000*EA", *serials, "REF*LT*L1"]]))
    assert len(facts(part)) == 5001


def test_a_notice_that_makes_more_facts_than_a_file_may_is_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asn, "FACTS_MAX", 10)

    def body(number: str, lines: int) -> list[str]:
        return [*(s.replace("A1", number) for s in HEAD), *(s for n in range(2, lines + 2) for s in (f"HL*{n}*1*I", *ITEM))]

    first, second, third = read(interchange([body("A1", 6), body("A2", 4), body("A3", 1)]))
    assert (len(facts(first)), len(facts(third))) == (7, 2)
    (held,) = second.lines
    assert isinstance(held, Held)
    assert (held.path, held.place) == ("", "segment 36 (HL), line 1")  # the level of the first fact that was too many
    assert held.reason == "the file would make more than 10 facts: send this notice in several"
    (exact,) = read(interchange([body("A1", 9)]))
    assert len(facts(exact)) == 10


def test_other_sets_and_fragments_are_held_by_name() -> None:
    (part,) = read(SOUND.replace("ST*856", "ST*810"))
    assert part.format == "unsupported:x12-810"
    assert isinstance(part.lines[0], Held)
    assert part.lines[0].reason.startswith("X12 810 (invoice) is not supported yet")
    for fragment in (SOUND[SOUND.index("GS*") :], SOUND[SOUND.index("ST*856") :]):
        (part,) = read(fragment)
        assert part.format == "x12-856"
        assert isinstance(part.lines[0], Held)
        assert "sender is not known" in part.lines[0].reason


def test_other_encodings() -> None:
    expected = {k: f.digest() for k, f in facts(read(SOUND)[0]).items()}
    for body in (SOUND.encode("utf-16"), SOUND.encode("cp500")):
        assert {k: f.digest() for k, f in facts(read(body)[0]).items()} == expected
    latin = SOUND.replace("X-1", "Schraube für").encode("latin-1")
    assert facts(read(latin)[0])["856/A1/HL3"].event.data()["thing"]["item"] == "Schraube für"


def test_a_long_file_takes_time_in_proportion() -> None:
    """No step looks at all segments again for each: marks, orders, references and levels of one notice in thousands."""
    body = [*HEAD, *(f"REF*Z{n % 10}*{n}" for n in range(20_000)), *ORDER, "HL*3*2*P", *(f"MAN*GM*{n}" for n in range(5_000))]
    for n in range(4, 5_004):
        body += [f"HL*{n}*3*I", *ITEM]
    (part,) = read(interchange([body]))
    assert len(facts(part)) == 1 + 5_000 + 5_000
    stray = "GS*SH*A*B*20260105*0600*9*X*004010~" + "ST*856*1~SE*2*1~" * 20_000 + "XX*1~" * 20_000
    assert all(isinstance(p.lines[0], Held) for p in read(SOUND[: SOUND.index("GS*")] + stray))


# -- anything at all ----------------------------------------------------------------------------------------------------------------------


def check(body: bytes) -> None:
    MAPPING.recognises(body)
    parts = MAPPING.read(body, Context(raw="0" * 64))
    assert [p.number for p in parts] == list(range(1, len(parts) + 1))
    for part in parts:
        for line in part.lines:
            if isinstance(line, Held):
                assert line.reason
            for f in line.facts if isinstance(line, Line) else ():
                assert len(f.digest()) == 32


@given(st.binary(max_size=400))
def test_any_bytes_give_parts(body: bytes) -> None:
    check(body)
    check(b"ISA*" + body)


@given(st.data())
def test_a_mutated_notice_gives_parts(data: st.DataObject) -> None:
    text = bytearray(SOUND.encode())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(text) - 1))
        piece = data.draw(
            st.binary(max_size=6) | st.sampled_from([b"~", b"*", b"~HL*", b"~MAN*GM*", b"~ISA*", b"~SE*", b"\x00", b"\xff", b"*" * 40])
        )
        text[at : at + data.draw(st.integers(0, 8))] = piece
    check(bytes(text))


def test_parse_of_nothing() -> None:
    assert x12.parse(b"") == []
    assert x12.parse(b" \r\n\x1a") == []
