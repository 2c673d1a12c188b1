"""What ``make reliability`` and ``make soak`` left behind: every fault has its row, everything held, the page says it."""

from __future__ import annotations

from .faults import FAULTS
from .page import PAGE, page
from .record import OURS, SOAK, read


def test_every_fault_was_measured_and_no_round_was_lost_and_no_sum_wrong() -> None:
    rows = {row["fault"]: row for row in read(OURS)}
    assert list(rows) == [fault.name for fault in FAULTS]
    for name, row in rows.items():
        assert (row["lost_rounds"], row["wrong_sums"], row["unchecked"]) == (0, 0, 0), name
        assert row["rounds"] > 0, name


def test_the_soak_killed_much_and_lost_nothing() -> None:
    (row,) = read(SOAK)
    assert (row["wrong_sums"], row["lost_rounds"], row["unchecked"]) == (0, 0, 0)
    assert row["rounds"] >= 50
    assert row["kills"] >= 50


def test_the_page_is_the_one_that_the_results_make() -> None:
    assert PAGE.read_text() == page(), "python -m tests.reliability.page"
