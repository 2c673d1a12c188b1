"""The memory formula: which way it moves, and how far it is from what was measured."""

from __future__ import annotations

import pytest

from fedpeft.compare.estimate import RUNTIME, Thrift, growth, memory, weights
from fedpeft.compare.evidence import MEASURED, read_comparisons
from fedpeft.compare.row import Shape
from tests.compare.conftest import SHAPE, row

shape = Shape(**SHAPE)


def test_weights_are_counted_as_they_are_held() -> None:
    assert weights(shape, Thrift()) == 4 * shape.parameters
    assert weights(shape, Thrift("bfloat16")) == 2 * shape.parameters
    assert weights(shape, Thrift("bfloat16", "nf4")) < 0.4 * weights(shape, Thrift("bfloat16"))


@pytest.mark.parametrize("thrift", [Thrift("bfloat16"), Thrift(chunk=True), Thrift(checkpointing=True)])
def test_every_thrift_saves(thrift: Thrift) -> None:
    assert growth(shape, 1000, thrift) < growth(shape, 1000, Thrift())


def test_each_trained_number_takes_sixteen_bytes() -> None:
    assert growth(shape, 2000, Thrift()) - growth(shape, 1000, Thrift()) == 16_000


def test_where_it_was_measured_the_estimate_is_the_measurement() -> None:
    one = row("lora", 0.5, 303_104, trainable=151_552, peak_mb=68.0)
    expected = RUNTIME + 4 * shape.parameters + 68_000_000
    assert memory(shape, 151_552, Thrift(), one, shape) == pytest.approx(expected, abs=2)


@pytest.mark.skipif(not list(MEASURED.glob("*.json")), reason="nothing is shipped")
def test_the_bare_formula_is_within_a_factor_of_two_and_a_half_of_what_was_published() -> None:
    for comparison in read_comparisons():
        for each in comparison.rows:
            if each.peak_mb is not None:
                ratio = growth(comparison.shape, each.trainable, Thrift()) / (1e6 * each.peak_mb)
                assert 0.4 < ratio < 2.5, (comparison.name, each.method, ratio)
