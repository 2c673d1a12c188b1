"""Lanes: totals that are summed without any error."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.codecs import RingCodec
from fedpeft.codecs.lanes import LaneCodec
from fedpeft.errors import ProtocolError

NAMES = ("weight", "loss", "tokens")
numbers = st.one_of(
    st.floats(0.0, 2.0**32, exclude_max=True), st.integers(0, 2**32 - 1).map(float), st.floats(0.0, 1.0)
)


@st.composite
def cohorts(draw) -> tuple[LaneCodec, list[dict[str, float]]]:
    bits = draw(st.integers(8, 32))
    clients = draw(st.integers(1, min(30, (2**bits - 1) // 3)))
    lanes = [{name: draw(numbers) for name in NAMES} for _ in range(clients)]
    return LaneCodec(RingCodec(bits, 1.0, clients), NAMES), lanes


@settings(max_examples=100, deadline=None)
@given(cohorts())
def test_the_sum_of_a_full_cohort_is_exact(cohort):
    codec, clients = cohort
    encoded = [codec.encode(lanes) for lanes in clients]
    assert all(
        e.shape == (codec.size,) and e.dtype == codec.ring.dtype and e.max() <= codec.ring.levels for e in encoded
    )
    # As a channel opens it: modulo the ring.
    total = np.sum(encoded, axis=0, dtype=np.uint64) % np.uint64(2**codec.ring.bits)
    for name, value in codec.decode(total).items():
        fixed = sum(round(Fraction(lanes[name]) * 2**32) for lanes in clients)
        assert value == float(Fraction(fixed, 2**32))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_numbers_of_the_lanes_resolution_are_summed_without_loss(units):
    codec = LaneCodec(RingCodec(12, 1.0, len(units)), ["weight"])
    total = np.sum([codec.encode({"weight": u / 2**20}) for u in units], axis=0, dtype=np.uint64)
    assert codec.decode(total) == {"weight": sum(units) / 2**20}


@settings(max_examples=60, deadline=None)
@given(cohorts())
def test_digits_are_just_enough_for_64_bits(cohort):
    codec, _ = cohort
    assert codec.base ** (codec.digits - 1) < 2**64 <= codec.base**codec.digits
    assert codec.size == 3 * codec.digits


@pytest.mark.parametrize("bad", [-1.0, -1e-12, 2.0**32, 1e30, float("nan"), float("inf"), -float("inf")])
def test_a_number_out_of_range_is_refused_by_its_lane(bad):
    codec = LaneCodec(RingCodec(16, 1.0, 4), NAMES)
    with pytest.raises(ProtocolError, match=r"update lane loss: found .*expected a number in \[0, 2\^32\)"):
        codec.encode({"weight": 1.0, "loss": bad, "tokens": 0.0})


@pytest.mark.parametrize("lanes", [{}, {"weight": 1.0}, {"weight": 1.0, "loss": 0.0, "tokens": 1.0, "more": 1.0}])
def test_missing_and_unknown_lanes_are_refused(lanes):
    codec = LaneCodec(RingCodec(16, 1.0, 4), NAMES)
    with pytest.raises(ProtocolError, match=r"update lanes: found .*expected exactly \['loss', 'tokens', 'weight'\]"):
        codec.encode(lanes)
