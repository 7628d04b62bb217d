"""X12 997, both ways: what a partner's system says of our groups, and what goes back for the groups of his."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.formats import x12, x12_text
from adapters.formats.x12_write import Marks
from adapters.x12.answers import Answer, answers
from adapters.x12.mapping import MAPPING
from events.base import Fact
from events.errors import Refused
from hub.app.wiring import mappings
from hub.intake.delivery import Delivery, PartOutcome
from hub.intake.door import Intake
from hub.intake.mapping import Context, Held, Line, Partner
from tests.contract.test_corpus import FreshHome, files
from tests.edi import WRITTEN, interchange, rewrite

AT = datetime(2026, 1, 5, 6, 7, tzinfo=UTC)

# -- in -----------------------------------------------------------------------------------------------------------------------------------

ANSWER = ["AK1*PO*0007", "AK2*850*0001", "AK5*A", "AK2*850*0002", "AK3*PO1*3**8", "AK4*2*380*6*1O", "AK4*7>1*234*1", "AK3*DTM*4*PO1*2", "AK5*R*5", "AK9*P*2*2*1*5"]  # fmt: skip


def acknowledged(body: str | bytes, partner: Partner | None = None) -> Fact:
    (part,) = MAPPING.read(
        body if isinstance(body, bytes) else body.encode(), Context("0" * 64, partners={"x12:ZZ:ACME": partner or Partner()})
    )
    (line,) = part.lines
    assert part.format == "x12-997"
    assert isinstance(line, Line), line
    (fact,) = line.facts
    return fact


def test_an_acknowledgement_of_ours() -> None:
    fact = acknowledged(interchange([ANSWER], code="997"))
    assert fact.event.data() == {
        "partner": "ACME", "functional_id": "PO", "control": "7", "status": "partially_accepted", "code": "P", "errors": ["5"],
        "included": 2, "received": 2, "accepted": 1,
        "sets": [
            {"set": "850", "control": "0001", "status": "accepted", "code": "A"},
            {
                "set": "850", "control": "0002", "status": "rejected", "code": "R", "errors": ["5"],
                "segments": [
                    {
                        "segment": "PO1", "position": 3, "codes": ["8"],
                        "elements": [
                            {"position": 2, "element": "380", "code": "6", "value": "1O"},
                            {"position": 7, "component": 1, "element": "234", "code": "1"},
                        ],
                    },
                    {"segment": "DTM", "position": 4, "loop": "PO1", "codes": ["2"]},
                ],
            },
        ],
    }  # fmt: skip
    assert fact.event.stream() == "functional_group/ACME/PO/7"
    assert fact.envelope.key.startswith("997/PO/7/")
    assert (fact.envelope.occurred_at.isoformat(), fact.envelope.time_quality) == ("2026-01-05T06:00:00+00:00", "assumed_utc")
    berlin = acknowledged(interchange([ANSWER], code="997"), Partner(zone=ZoneInfo("Europe/Berlin")))
    assert (berlin.envelope.occurred_at.isoformat(), berlin.envelope.time_quality) == ("2026-01-05T05:00:00+00:00", "partner_zone")


@given(WRITTEN, WRITTEN, st.sampled_from(["20260105", "20260207"]))
def test_the_same_answer_in_another_envelope_is_the_same_fact(one: dict[str, Any], other: dict[str, Any], date: str) -> None:
    """Its date is the envelope's, so it is no part of what it says; nor is padding of a control number."""
    plain = [s for s in ANSWER if ">" not in s]
    first = acknowledged(rewrite(plain, one, "997"))
    again = rewrite([s.replace("AK1*PO*0007", "AK1*PO*7") for s in plain], other, "997").replace(b"20260105", date.encode())
    assert acknowledged(again).digest() == first.digest()
    assert acknowledged(again).envelope.key == first.envelope.key


def test_another_answer_to_the_same_group_is_another_fact() -> None:
    found = {acknowledged(interchange([[*ANSWER[:-1], f"AK9*{code}*2*2*1"]], code="997")).envelope.key for code in "AEPRMWX"}
    assert len(found) == 7


@pytest.mark.parametrize(
    ("code", "status"),
    [("A", "accepted"), ("E", "accepted_with_errors"), ("R", "rejected"), ("M", "rejected"), ("W", "rejected"), ("X", "rejected")],
)
def test_statuses(code: str, status: str) -> None:
    data = acknowledged(interchange([["AK1*SH*12", "AK2*856*0001", f"AK5*{code}", f"AK9*{code}*1*1*1"]], code="997")).event.data()
    assert (data["status"], data["sets"][0]["status"]) == (status, status)
    whole = acknowledged(interchange([["AK1*SH*12", f"AK9*{code}*1*1*1"]], code="997")).event.data()
    assert (whole["status"], "sets" in whole) == (status, False)


@pytest.mark.parametrize(
    ("segments", "reason", "place"),
    [
        ([], "the transaction set is empty: a 997 begins with AK1", ""),
        (["AK2*850*1", "AK9*A*1*1*1"], "a 997 begins with AK1, not with AK2", "segment 4 (AK2), line 1"),
        (["AK1*PO*7", "AK2*850*1", "AK5*A"], "a 997 ends with AK9, not with AK5", "segment 6 (AK5), line 1"),
        (["AK1*PO*7"], "a 997 ends with AK9, not with AK1", "segment 4 (AK1), line 1"),
        (["AK1*PO", "AK9*A*1*1*1"], "AK102 is empty: it must say the control number of our functional group", "segment 4 (AK1), line 1"),
        (["AK1*PO*7", "AK9*Q*1*1*1"], "AK901 is 'Q', which says neither", "segment 5 (AK9), line 1"),
        (["AK1*PO*7", "AK9*A*1*x*1"], "AK903 is 'x', which is no number", "segment 5 (AK9), line 1"),
        (["AK1*PO*7", "AK2*850*1", "AK5*P", "AK9*A*1*1*1"], "AK501 is 'P', which says neither", "segment 6 (AK5), line 1"),
        (["AK1*PO*7", "AK2*850*1", "AK9*A*1*1*1"], "AK5 is missing for the last AK2", "segment 6 (AK9), line 1"),
        (["AK1*PO*7", "AK2*850*1", "AK2*850*2", "AK5*A", "AK9*A*1*1*1"], "'AK2' stands where a 997 has none", "segment 6 (AK2), line 1"),
        (["AK1*PO*7", "AK5*A", "AK9*A*1*1*1"], "'AK5' stands where a 997 has none", "segment 5 (AK5), line 1"),
        (["AK1*PO*7", "AK2*850*1", "AK4*1**1", "AK5*R", "AK9*A*1*1*1"], "'AK4' stands where a 997 has none", "segment 6 (AK4), line 1"),
        (["AK1*PO*7", "AK2*850*1", "AK3*PO1*x", "AK5*R", "AK9*A*1*1*1"], "AK302 is 'x'", "segment 6 (AK3), line 1"),
        (["AK1*PO*7", "AK2*850*1", "AK3*PO1*3", "AK4***1", "AK5*R", "AK9*A*1*1*1"], "AK401 is ''", "segment 7 (AK4), line 1"),
        (["AK1*PO*7", "AK2**1", "AK5*R", "AK9*A*1*1*1"], "AK201 is empty", "segment 5 (AK2), line 1"),
        (["AK1*PO*7", "ZZZ*1", "AK9*A*1*1*1"], "'ZZZ' stands where a 997 has none", "segment 5 (ZZZ), line 1"),
    ],
)
def test_a_fault_holds_the_acknowledgement(segments: list[str], reason: str, place: str) -> None:
    (part,) = MAPPING.read(interchange([segments], code="997").encode(), Context("0" * 64))
    (line,) = part.lines
    assert isinstance(line, Held)
    assert reason in line.reason
    assert line.place == place


def test_an_acknowledgement_without_any_date_is_held() -> None:
    body = interchange([ANSWER], code="997").replace("*20260105*0600*9*", "*2026*0600*9*").replace("*260105*0600*U*", "*      *0600*U*")
    (part,) = MAPPING.read(body.encode(), Context("0" * 64))
    assert next(line.reason for line in part.lines if isinstance(line, Held)).startswith("neither GS04 and GS05 nor ISA09 and ISA10")
    body = interchange([ANSWER], code="997").replace("*20260105*0600*9*", "*2026*0600*9*")
    assert acknowledged(body).envelope.occurred_at.isoformat() == "2026-01-05T06:00:00+00:00"


def test_ten_thousand_sets_of_one_group() -> None:
    sets = [s for n in range(10_000) for s in (f"AK2*850*{n:04}", "AK5*A")]
    assert len(acknowledged(interchange([["AK1*PO*7", *sets, "AK9*A*1*1*1"]], code="997")).event.data()["sets"]) == 10_000
    (part,) = MAPPING.read(interchange([["AK1*PO*7", *sets * 3, "AK9*A*1*1*1"]], code="997").encode(), Context("0" * 64))
    (line,) = part.lines
    assert isinstance(line, Held)
    assert line.reason == "the acknowledgement names more sets and errors than one fact can hold: look into the delivery that is kept"


# -- out ----------------------------------------------------------------------------------------------------------------------------------

BEG = "BEG*00*SA*PO1**20260105"
LINE = "PO1*10*24*EA***BP*BOLT-8"
NOTICE = ["BSN*00*A1*20260105*0600*0001", "HL*1**S", "HL*2*1*O", "PRF*PO1", "HL*3*2*I", "LIN*1*BP*X-1", "SN1**5*EA"]


def taken(*bodies: bytes) -> list[Sequence[PartOutcome]]:
    """What a fresh home decides of deliveries, one after the other."""
    intake = Intake(FreshHome(), mappings())
    return [intake.take([Delivery(body, "cli", AT)])[0].parts for body in bodies]


def answered(body: str | bytes, decided: Sequence[PartOutcome] | None = None, **how: Any) -> list[Answer]:
    raw = body if isinstance(body, bytes) else body.encode()
    numbers = itertools.count(41)
    return answers(raw, taken(raw)[0] if decided is None else decided, lambda to: next(numbers), AT, **how)


def said(body: str | bytes, **how: Any) -> list[str]:
    """The segments of the one answer between AK1 and AK9, written with `*`, after a look at what encloses them."""
    (answer,) = answered(body, **how)
    assert not answer.unanswered
    (interchange_,) = x12.interchanges(answer.body)
    assert not interchange_.fault
    assert [(one.code, one.fault) for one in interchange_.sets] == [("997", None)] * len(interchange_.sets)
    return ["*".join(s.elements) for one in interchange_.sets for s in one.segments]


def test_the_bytes_of_an_answer() -> None:
    (answer,) = answered(interchange([[BEG, LINE]], code="850"))
    assert answer == Answer(
        "x12:ZZ:ACME",
        41,
        b"ISA*00*          *00*          *ZZ*PLANT          *ZZ*ACME           *260105*0607*U*00401*000000041*0*P*>~"
        b"GS*FA*PLANT*ACME*20260105*0607*41*X*004010~ST*997*0001~AK1*PO*9~AK2*850*0001~AK5*A~AK9*A*1*1*1~SE*6*0001~GE*1*41~IEA*1*000000041~",
    )


SOUND = interchange([[BEG, LINE], ["BEG*00*SA*PO2**20260105", LINE]], code="850")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", ["AK2*850*0001", "AK5*A", "AK2*850*0002", "AK5*A", "AK9*A*2*2*2"]),
        ("SE*4*0001", "SE*5*0001", ["AK2*850*0001", "AK5*R*4", "AK2*850*0002", "AK5*A", "AK9*P*2*2*1"]),
        ("SE*4*0001", "SE*4*0007", ["AK2*850*0001", "AK5*R*3", "AK2*850*0002", "AK5*A", "AK9*P*2*2*1"]),
        ("SE*4*0001~", "", ["AK2*850*0001", "AK5*R*2", "AK2*850*0002", "AK5*A", "AK9*P*2*2*1"]),
        ("ST*850*0002", "ST*85*0002", ["AK2*850*0001", "AK5*A", "AK9*P*2*2*1"]),  # a set without a code cannot be named
        ("GE*2*9", "GE*3*9", ["AK2*850*0001", "AK5*R", "AK2*850*0002", "AK5*R", "AK9*R*3*2*0*5"]),
        ("GE*2*9", "GE*2*8", ["AK2*850*0001", "AK5*R", "AK2*850*0002", "AK5*R", "AK9*R*2*2*0*4"]),
        ("GE*2*9~", "", ["AK2*850*0001", "AK5*R", "AK2*850*0002", "AK5*R", "AK9*R*2*2*0*3"]),
        ("IEA*1*000000007", "IEA*1*000000008", ["AK2*850*0001", "AK5*R", "AK2*850*0002", "AK5*R", "AK9*R*2*2*0"]),
        (
            BEG,
            "BEG*05*SA*PO1**20260105",
            ["AK2*850*0001", "AK3*BEG*2**8", "AK4*1**7*05", "AK5*R*5", "AK2*850*0002", "AK5*A", "AK9*P*2*2*1"],
        ),
        ("*24*EA", "*24*QQ", ["AK2*850*0001", "AK3*PO1*3**8", "AK4*3**7*QQ", "AK5*R*5", "AK2*850*0002", "AK5*A", "AK9*P*2*2*1"]),
        ("*24*EA", "**EA", ["AK2*850*0001", "AK3*PO1*3**8", "AK4*2**1", "AK5*R*5", "AK2*850*0002", "AK5*A", "AK9*P*2*2*1"]),
        (BEG + "~", "", ["AK2*850*0001", "AK5*R*4", "AK2*850*0002", "AK5*A", "AK9*P*2*2*1"]),
        (BEG, "REF*A*B", ["AK2*850*0001", "AK3*REF*2**2", "AK5*R*5", "AK2*850*0002", "AK5*A", "AK9*P*2*2*1"]),
        (
            LINE,
            "PO1*10*24*EA***BP*BO\x07LT",
            ["AK2*850*0001", "AK3*PO1*3**8", "AK4*7**6", "AK5*R*5", "AK2*850*0002", "AK5*A", "AK9*P*2*2*1"],
        ),
        (LINE, "rubbish", ["AK2*850*0001", "AK5*R*5", "AK2*850*0002", "AK5*A", "AK9*P*2*2*1"]),  # what is no tag cannot stand in AK301
    ],
)
def test_each_set_is_answered_with_what_the_parser_found(old: str, new: str, expected: list[str]) -> None:
    assert old in SOUND
    assert said(SOUND.replace(old, new, 1)) == ["AK1*PO*9", *expected]


def test_a_notice_of_which_lines_are_held_is_accepted_with_errors() -> None:
    body = interchange([[*NOTICE, "HL*4*2*I", "LIN*1*BP*Y", "SN1**x*EA", "HL*5*2*I", "LIN*1*BP*Z", "SN1**5*QQ", "HL*6*2*I", "LIN*1*BP*W"]])
    assert said(body) == [
        "AK1*SH*9",
        *("AK2*856*0001", "AK3*SN1*11**8", "AK4*2**6*x", "AK3*SN1*14**8", "AK4*3**7*QQ", "AK3*HL*15**3", "AK5*E*5"),
        "AK9*E*1*1*1",
    ]
    known = {"x12:ZZ:ACME": Partner(units={"QQ": "EA"})}
    raw = body.encode()
    decided = Intake(FreshHome(), mappings(), known).take([Delivery(raw, "cli", AT)])[0].parts
    assert "AK4*3**7*QQ" not in said(body, decided=decided, partners=known)


def test_a_duplicate_and_a_conflict_could_be_read() -> None:
    """What people make of their content is said with other documents; a 997 that rejects them would bring them again."""
    first, other = interchange([[BEG, LINE]], code="850").encode(), interchange([[BEG, LINE.replace("24", "25")]], code="850").encode()
    *_, again, conflict = taken(first, first, other)
    assert [part.outcome for part in (*again, *conflict)] == ["duplicate", "conflict"]
    for raw, decided in ((first, again), (other, conflict)):
        assert said(raw, decided=decided) == ["AK1*PO*9", "AK2*850*0001", "AK5*A", "AK9*A*1*1*1"]


def test_what_is_not_supported_is_rejected_as_such() -> None:
    assert said(interchange([["BIG*20260105*77"]], code="810")) == ["AK1*IN*9", "AK2*810*0001", "AK5*R*1", "AK9*R*1*1*0*1"]


def test_acknowledgements_are_never_acknowledged() -> None:
    assert answered(interchange([ANSWER], code="997")) == []
    both = SOUND.replace("IEA*1*", "IEA*2*").replace(
        "IEA", "GS*FA*ACME*PLANT*20260105*0600*10*X*004010~ST*997*0001~AK1*PO*1~AK9*A*1*1*1~SE*4*0001~GE*1*10~IEA"
    )
    assert [s for s in said(both) if s.startswith("AK1")] == ["AK1*PO*9"]
    assert answered(both.replace("GS*FA", "GS*XX"))[0].body.count(b"AK1*") == 1  # a group of 997 under another name


def test_every_group_of_every_interchange_is_answered_by_its_own_numbers() -> None:
    two = SOUND.replace("IEA*1*", "IEA*2*").replace("IEA", "GS*SH*ACME*PLANT*20260105*0600*10*X*004010~GE*0*10~IEA")
    other = interchange([NOTICE], sender="OTHER")
    found = answered(two + other)
    assert [(one.to, one.control) for one in found] == [("x12:ZZ:ACME", 41), ("x12:ZZ:OTHER", 42)]
    assert [[s.elements[1:] for s in one.segments if s.tag == "AK1"] for one in x12.parse(found[0].body)] == [[("PO", "9")], [("SH", "10")]]
    assert b"AK1*SH*10~AK9*R*0*0*0~" in found[0].body  # a group without a set
    assert found[1].body.startswith(b"ISA*00*          *00*          *ZZ*PLANT          *ZZ*OTHER  ")
    assert b"*FA*PLANT*ACME*" in found[1].body  # GS02 and GS03 the other way round


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("GS*PO*", "GS*PURCHASE*", "segment 2 (GS), line 1: the group has no kind (GS01) or no number (GS06)"),
        ("*0600*9*X", "*0600*9A*X", "the group has no kind (GS01) or no number (GS06)"),
        ("ZZ*ACME ", "Z*ACME ", "the interchange does not say from whom and to whom it is"),
        ("ZZ*PLANT", "ZZ*     ", "the interchange does not say from whom and to whom it is"),
        ("ZZ*ACME ", "ZZ*A>ME ", "the interchange does not say from whom and to whom it is"),
    ],
)
def test_a_group_that_cannot_be_named_is_told_and_not_answered(old: str, new: str, reason: str) -> None:
    assert old in SOUND
    (answer,) = answered(SOUND.replace(old, new))
    assert (answer.body, answer.control, len(answer.unanswered)) == (b"", 0, 1)
    assert reason in answer.unanswered[0]


def test_bytes_in_which_no_group_can_be_told_have_no_answer() -> None:
    for body in (SOUND[SOUND.index("GS*") :], SOUND[:50], interchange([]).replace("GS*SH*ACME*PLANT*20260105*0600*9*X*004010~GE*0*9~", "")):
        assert answered(body) == []


def test_what_was_not_judged_is_not_answered() -> None:
    decided = taken(SOUND.encode())[0]
    with pytest.raises(Refused, match=r"part 2 \(X12 850 0002\) was not judged: drive the delivery again"):
        answered(SOUND, decided[:1])
    crashed = [PartOutcome(1, "unknown", decided[0].lines)]  # what intake makes of a mapping that fails
    with pytest.raises(Refused, match=r"part 1 .* was not judged"):
        answered(interchange([[BEG, LINE]], code="850"), crashed)


@pytest.mark.parametrize(
    ("gs08", "isa12", "expected"),
    [
        ("004010VICS", "00401", b"*U*00401*000000041*0*P*>~"),
        ("005010", "00501", b"*^*00501*000000041*0*P*>~"),
        ("003040", "00304", b"*U*00304*000000041*0*P*>~"),
        ("X", "00401", b"*U*00401*000000041*0*P*>~"),
    ],
)
def test_the_answer_has_the_release_of_what_it_answers(gs08: str, isa12: str, expected: bytes) -> None:
    (answer,) = answered(SOUND.replace("*X*004010", f"*X*{gs08}").replace("00401", isa12, 1))
    assert expected in answer.body


def test_delimiters_can_be_agreed_and_test_stays_test() -> None:
    (answer,) = answered(SOUND.replace("*0*P*>", "*0*T*>"), marks=Marks(element="|", segment="'", component=":"))
    assert answer.body.startswith(
        b"ISA|00|          |00|          |ZZ|PLANT          |ZZ|ACME           |260105|0607|U|00401|000000041|0|T|:'GS|FA|"
    )


def test_a_value_that_cannot_be_echoed_is_left_out() -> None:
    body = SOUND.replace("*", "|").replace("|24|EA", "|2*4|EA", 1)
    assert said(body)[1:4] == ["AK2*850*0001", "AK3*PO1*3**8", "AK4*2**6"]
    long = SOUND.replace("*24*", f"*{'x' * 120}*", 1)
    assert said(long)[3] == "AK4*2**6"


def test_what_stands_behind_element_99_has_no_place_in_ak4() -> None:
    far = SOUND.replace(LINE, LINE + "*" * 100 + "x\x07", 1)
    assert said(far)[1:4] == ["AK2*850*0001", "AK3*PO1*3**8", "AK5*R*5"]


def test_partners_of_one_character_are_answered() -> None:
    found = answered(SOUND.replace("ZZ*ACME ", "ZZ*A    ").replace("GS*PO*ACME*PLANT", "GS*PO*A*P"))
    assert (found[0].to, b"GS*FA*P*A*" in found[0].body) == ("x12:ZZ:A", True)


@given(st.data())
def test_whatever_was_received_the_answer_is_sound(data: st.DataObject) -> None:
    text = bytearray((SOUND + interchange([NOTICE])).encode())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(text) - 1))
        piece = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"~", b"*", b"~GS*", b"~ST*850*", b"~SE*", b"~ISA*", b">", b"\x00", b" "])
        )
        text[at : at + data.draw(st.integers(0, 6))] = piece
    check(bytes(text))


def check(body: bytes) -> None:
    """Each group that is not of acknowledgements is answered once or told as unanswered, and what is written is read as a fact each."""
    if not x12_text.looks_like(body):
        return
    groups = [
        g
        for i in x12.interchanges(body)
        for g in i.groups
        if g.gs[1] != "FA" and not (g.sets and all(s.code in ("997", "999") for s in g.sets))
    ]
    found = answered(body)
    written = [part for answer in found if answer.body for part in MAPPING.read(answer.body, Context("0" * 64))]
    assert all(isinstance(line, Line) for part in written for line in part.lines)
    assert len(written) + sum(len(answer.unanswered) for answer in found) == len(groups)


# -- the corpus ---------------------------------------------------------------------------------------------------------------------------


def test_every_file_of_the_corpus_is_answered(shared_corpus: Path) -> None:
    for path in files(shared_corpus / "x12"):
        check(path.read_bytes())


def test_we_answer_as_another_program_did(shared_corpus: Path) -> None:
    """bots answered the same orders: for each group that both took whole, the same AK1 to AK9. It says who by GS02 and GS03 alone."""
    theirs, ours = Groups(), Groups()
    for path in files(shared_corpus / "x12"):
        raw = path.read_bytes()
        if path.name.startswith("997_"):
            theirs |= groups_of(raw)
        elif path.name.startswith("850") and MAPPING.recognises(raw):
            for answer in answered(raw):
                ours |= groups_of(answer.body)
    both = {key for key in theirs if key in ours and ours[key][-1][1] == "A"}
    assert {key: ours[key] for key in both} == {key: theirs[key] for key in both}
    assert len(both) >= 10
    assert {ours[key][-1][1] for key in theirs.keys() & ours.keys() - both} <= {"P", "R"}  # blanket orders and releases, which bots takes


Groups = dict[tuple[str, ...], list[tuple[str, ...]]]


def groups_of(body: bytes) -> Groups:
    """AK1 to AK9 of each 997 by the codes of its group and AK1."""
    return {
        (one.group.gs[2], one.group.gs[3], *one.segments[0].elements): [s.elements for s in one.segments]
        for one in x12.parse(body)
        if one.code == "997" and one.group
    }
