"""How long a client trains, and at what rate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedpeft.training import Training

schedules = st.sampled_from(["constant", "linear", "cosine"])


@pytest.mark.parametrize(
    ("settings", "windows", "steps"),
    [
        ({"steps": 7}, 1000, 7),
        ({"epochs": 1, "batch": 8}, 64, 8),
        ({"epochs": 1, "batch": 8}, 65, 9),
        ({"epochs": 2.5, "batch": 4}, 16, 10),
        ({"epochs": 0.01, "batch": 8}, 8, 1),
        ({"epochs": 3, "batch": 8, "max_steps": 10}, 64, 10),
        ({"epochs": 1, "batch": 8, "max_steps": 10}, 64, 8),
    ],
)
def test_steps_are_given_or_follow_from_passes_over_the_windows(settings, windows, steps):
    assert Training(**settings).total_steps(windows) == steps


@pytest.mark.parametrize("settings", [{}, {"steps": 3, "epochs": 1.0}])
def test_a_length_is_given_once(settings):
    with pytest.raises(ValidationError, match="exactly one of steps and epochs"):
        Training(**settings)


def test_the_schedules_are_their_closed_forms():
    def rates(schedule: str) -> list[float]:
        training = Training(steps=4, learning_rate=2.0, schedule=schedule)
        return [training.rate(step, 4) for step in range(4)]

    assert rates("constant") == [2.0] * 4
    assert rates("linear") == [2.0, 1.5, 1.0, 0.5]
    assert rates("cosine") == pytest.approx([1 + math.cos(math.pi * step / 4) for step in range(4)])


def test_the_warm_up_rises_in_equal_steps_to_the_peak():
    training = Training(steps=10, learning_rate=1.0, schedule="linear", warmup=0.4)
    assert [training.rate(step, 10) for step in range(10)] == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    )


@given(schedules, st.integers(1, 200), st.floats(0, 0.99))
def test_a_rate_is_positive_rises_then_never_rises_again_and_peaks_at_the_stated_one(schedule, total, warmup):
    training = Training(steps=total, learning_rate=0.01, schedule=schedule, warmup=warmup)
    rates = [training.rate(step, total) for step in range(total)]
    peak = rates.index(max(rates))
    assert all(0.0 < rate <= 0.01 * (1 + 1e-12) for rate in rates)
    assert max(rates) == pytest.approx(0.01)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("constant", [1.0, 1.0, 1.0]), ("linear", [1.0, 0.5, 0.1]), ("cosine", [1.0, 0.5, 0.02447])],
)
def test_over_a_run_the_rate_fades_and_nothing_else_changes(schedule, factors):
    training = Training(steps=4, batch=3, learning_rate=2.0, schedule="linear")
    for done, factor in zip((0.0, 0.5, 0.9), factors, strict=True):
        faded = training.faded(schedule, done)
        assert faded.learning_rate == pytest.approx(2.0 * factor, rel=1e-3)
        assert faded.model_copy(update={"learning_rate": 2.0}) == training
