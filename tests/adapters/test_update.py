"""Updates add up, in any order, to what a server needs and no more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedpeft.adapters import Update
from fedpeft.adapters.update import WEIGHT
from fedpeft.errors import ProtocolError

# Whole numbers, which float32 adds without rounding: the algebra shows without tolerances.
whole = st.integers(-1000, 1000).map(float)
updates = st.builds(
    lambda vector, weight, loss: Update(vector, {WEIGHT: weight, "loss": loss}),
    arrays(np.float32, 4, elements=st.integers(-1000, 1000)),
    whole,
    whole,
)


def equal(one: Update, other: Update) -> bool:
    return np.array_equal(one.vector, other.vector) and one.lanes == other.lanes


@settings(deadline=None)
@given(updates, updates, updates)
def test_adding_is_associative_and_commutative(a, b, c):
    assert equal((a + b) + c, a + (b + c))
    assert equal(a + b, b + a)


@settings(deadline=None)
@given(updates)
def test_a_zero_update_changes_nothing(update):
    assert equal(update + Update(np.zeros(4, np.float32), {WEIGHT: 0.0, "loss": 0.0}), update)


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(0, 999))
def test_the_mean_of_a_sum_is_numpys_weighted_average(clients, seed):
    rng = np.random.default_rng(seed)
    deltas = rng.normal(size=(clients, 50)).astype(np.float32)
    weights = rng.uniform(0.01, 1.0, clients)
    made = [Update.weighted(d, float(w), {"loss": 2.0 * w}) for d, w in zip(deltas, weights, strict=True)]
    total = made[0]
    for update in made[1:]:
        total = total + update
    assert total.vector.dtype == np.float32
    np.testing.assert_allclose(total.mean(), np.average(deltas.astype(np.float64), axis=0, weights=weights), atol=2e-6)
    assert total.lanes["loss"] / total.lanes[WEIGHT] == pytest.approx(2.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_must_never_be_sent(bad):
    fine = np.zeros(3, np.float32)
    with pytest.raises(ProtocolError, match=r"update: found 'NaN or infinity', .*lower .*learning.rate"):
        Update.weighted(np.array([0.0, bad, 0.0], np.float32), 1.0, {})
    with pytest.raises(ProtocolError, match="NaN or infinity"):
        Update.weighted(fine, 1.0, {"loss": bad})
    with pytest.raises(ProtocolError):
        Update.weighted(fine, bad, {})


def test_updates_of_different_kinds_do_not_add():
    update = Update(np.zeros(3, np.float32), {WEIGHT: 1.0})
    for other in (Update(np.zeros(4, np.float32), {WEIGHT: 1.0}), Update(np.zeros(3, np.float32), {"loss": 1.0})):
        with pytest.raises(ProtocolError, match=r"expected shape \(3,\) and equal lanes"):
            _ = update + other
