"""The arithmetic of attainment and gain share."""

from __future__ import annotations

import pytest

from fedpeft.compare import Score
from fedpeft.compare.pareto import front
from tests.compare.conftest import row


def score(quality: float, loss: float = 1.0) -> Score:
    return Score(examples=10, quality=quality, loss=loss, perplexity=2.7)


def test_attainment_flatters_where_the_gain_share_does_not() -> None:
    placed = score(0.45).against(score(0.40), score(0.50))
    assert placed.attainment == pytest.approx(0.9)
    assert placed.gain_share == pytest.approx(0.5)


def test_a_method_may_be_worse_than_the_base_or_better_than_full() -> None:
    assert score(0.35).against(score(0.40), score(0.50)).gain_share == pytest.approx(-0.5)
    assert score(0.55).against(score(0.40), score(0.50)).gain_share == pytest.approx(1.5)


def test_where_full_fine_tuning_gains_nothing_there_is_no_share_of_its_gain() -> None:
    assert score(0.45).against(score(0.50), score(0.50)).gain_share is None
    assert score(0.45).against(score(0.50), score(0.45)).gain_share is None


def test_the_loss_has_a_share_of_its_own() -> None:
    placed = score(0.45, 3.2).against(score(0.40, 3.5), score(0.50, 3.0))
    assert placed.loss_share == pytest.approx(0.6)
    assert score(0.45, 3.2).against(score(0.40, 3.0), score(0.50, 3.5)).loss_share is None


def test_without_full_fine_tuning_there_is_neither() -> None:
    placed = score(0.45).against(score(0.40), None)
    assert placed.attainment is None and placed.gain_share is None


def test_the_front_holds_what_nothing_beats() -> None:
    rows = [row("a", 0.40, 100), row("b", 0.45, 200), row("c", 0.44, 300), row("d", 0.50, 900), row("e", 0.39, 100)]
    assert [r.method for r in front(rows)] == ["a", "b", "d"]


def test_of_equals_the_cheaper_is_on_the_front() -> None:
    assert [r.method for r in front([row("dear", 0.4, 200), row("cheap", 0.4, 100)])] == ["cheap"]
