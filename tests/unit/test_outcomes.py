"""What intake says of a delivery."""

from collections.abc import Iterator

from hub.intake.delivery import LineOutcome, PartOutcome


class Counted(list[LineOutcome]):
    """Lines that count how often somebody goes through them."""

    times = 0

    def __iter__(self) -> Iterator[LineOutcome]:
        self.times += 1
        return super().__iter__()


def test_a_part_of_many_lines_is_summed_up_in_a_few_passes() -> None:
    lines = Counted(LineOutcome(str(n), "accepted", "erp:main", f"K{n}", n) for n in range(1000))
    assert PartOutcome(1, "canonical-json", lines).as_json()["facts"] == 1000
    assert lines.times < 10


def test_the_first_trouble_of_a_part_is_its_worst_line_with_a_reason() -> None:
    lines = [
        LineOutcome("1", "accepted", "erp:main"),
        LineOutcome("2", "conflict", "erp:main", reason="known with other content"),
        LineOutcome("3", "quarantined", "erp:main"),
        LineOutcome("4", "quarantined", "erp:main", reason="no quantity"),
    ]
    found = PartOutcome(1, "canonical-json", lines).as_json()
    assert (found["outcome"], found["reason"]) == ("quarantined", "no quantity")
