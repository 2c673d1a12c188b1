"""Sums in a ring: never wrapped, right on average, and no further off than the rounding."""

from math import ceil, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.codecs import RingCodec
from fedpeft.errors import ScenarioError

SIZE = 40


@st.composite
def codecs(draw) -> RingCodec:
    bits = draw(st.integers(8, 32))
    clients = draw(st.integers(1, min(200, (2**bits - 1) // 3)))
    return RingCodec(bits, draw(st.floats(1e-4, 1e3)), clients)


def vectors(codec: RingCodec, seed: int, spread: float = 1.3) -> np.ndarray:
    """One vector per client, some numbers out of range, and both ends of the range among them."""
    made = np.random.default_rng(seed).uniform(-spread, spread, (codec.clients, SIZE)) * codec.range
    made[:, 0], made[:, 1], made[:, 2] = codec.range, -codec.range, 0.0
    return made.astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(codecs(), st.integers(0, 999))
def test_the_decoded_sum_is_within_a_step_per_client_of_the_exact_clipped_sum(codec, seed):
    clients = vectors(codec, seed)
    rng = np.random.default_rng(seed)
    total = sum(codec.encode(v, rng).astype(np.uint64) for v in clients)
    exact = np.clip(clients.astype(np.float64), -codec.range, codec.range).sum(axis=0)
    decoded = codec.decode(total, codec.clients)
    assert decoded.dtype == np.float32
    rounding = np.abs(exact) * 2.0**-23 + 1e-12 * codec.range * codec.clients  # the result is float32
    assert (np.abs(decoded - exact) <= codec.clients * codec.step * (1 + 1e-9) + rounding).all()


@settings(max_examples=80, deadline=None)
@given(codecs(), st.integers(0, 999))
def test_a_client_never_exceeds_its_levels_and_a_full_cohort_never_wraps(codec, seed):
    rng = np.random.default_rng(seed)
    encoded = [codec.encode(v, rng) for v in vectors(codec, seed, spread=1e6)]
    assert {e.dtype for e in encoded} == {codec.dtype}
    assert max(int(e.max()) for e in encoded) <= codec.levels
    assert codec.clients * codec.levels < 2**codec.bits
    assert codec.levels <= np.iinfo(codec.dtype).max
    total = sum(e.astype(np.uint64) for e in encoded)
    assert np.array_equal(total % np.uint64(2**codec.bits), total)


@settings(max_examples=80, deadline=None)
@given(codecs(), st.integers(0, 999), st.randoms())
def test_the_order_of_arrival_does_not_change_one_bit(codec, seed, random):
    rng = np.random.default_rng(seed)
    encoded = [codec.encode(v, rng).astype(np.uint64) for v in vectors(codec, seed)]
    one = codec.decode(np.sum(encoded, axis=0, dtype=np.uint64), codec.clients)
    random.shuffle(encoded)
    assert np.array_equal(codec.decode(np.sum(encoded, axis=0, dtype=np.uint64), codec.clients), one)


@pytest.mark.parametrize(("bits", "clients"), [(8, 20), (8, 85), (10, 16), (16, 16)])
def test_rounding_is_right_on_average(bits, clients):
    codec = RingCodec(bits, 0.5, clients)
    vector = np.linspace(-0.5, 0.5, 97, dtype=np.float32)
    draws = 2000
    total = sum(codec.encode(vector, np.random.default_rng(seed)).astype(np.float64) for seed in range(draws))
    mean = total / draws * codec.step - codec.range
    # A Bernoulli mean is off by at most half a step over the root of the draws, five times that among 97 numbers.
    assert (np.abs(mean - vector) < 5 * codec.step / 2 / draws**0.5 + 1e-9).all()


def test_to_the_nearest_would_be_wrong_on_average_where_this_is_not():
    codec = RingCodec(8, 1.0, 50)
    vector = np.full(20_000, codec.step / 4 - 1.0, np.float32)
    decoded = codec.decode(codec.encode(vector, np.random.default_rng(0)).astype(np.uint64), 1)
    assert len(np.unique(decoded)) == 2
    assert abs(decoded.mean(dtype=np.float64) - vector[0]) < 0.02 * codec.step


@pytest.mark.parametrize(("bits", "clients"), [(8, 16), (10, 16), (12, 100), (16, 16)])
def test_the_mean_square_error_is_s2_f_times_1_minus_f(bits, clients):
    codec = RingCodec(bits, 1.0, clients)
    vector = np.random.default_rng(1).uniform(-1.0, 1.0, 200_000).astype(np.float32)
    decoded = codec.decode(codec.encode(vector, np.random.default_rng(2)).astype(np.uint64), 1)
    error = np.square(decoded.astype(np.float64) - vector)
    _, f = np.divmod((vector.astype(np.float64) + 1.0) / codec.step, 1.0)
    assert error.mean() == pytest.approx((codec.step**2 * f * (1 - f)).mean(), rel=0.02)
    assert error.mean() == pytest.approx(codec.step**2 / 6, rel=0.02)


def test_numbers_on_a_level_and_at_both_ends_come_back_exactly():
    codec = RingCodec(16, 1.0, 5)
    assert codec.levels == 13107
    vector = (np.arange(0, 13108, 13) * codec.step - 1.0).astype(np.float64)
    vector = np.concatenate([vector, [1.0, -1.0, 7.0, -7.0]])
    encoded = codec.encode(vector, np.random.default_rng(0))
    assert encoded[-4:].tolist() == [13107, 0, 13107, 0]
    assert np.abs(encoded[:-4].astype(int) - np.arange(0, 13108, 13)).max() <= 1  # float64 may fall just below a level
    assert (encoded[:-4] == np.arange(0, 13108, 13)).mean() > 0.99


def test_the_sum_of_fewer_clients_than_planned_is_decoded_for_those_there():
    codec = RingCodec(16, 1.0, 16)
    vector = np.full(3, 0.25, np.float32)
    encoded = codec.encode(vector, np.random.default_rng(0)).astype(np.uint64)
    for contributors in (1, 7, 16):
        decoded = codec.decode(encoded * np.uint64(contributors), contributors)
        assert np.abs(decoded - 0.25 * contributors).max() <= contributors * codec.step


def test_one_seed_rounds_one_way():
    codec = RingCodec(8, 1.0, 16)
    vector = np.random.default_rng(0).normal(size=500).astype(np.float32)
    once, again, other = (codec.encode(vector, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


@pytest.mark.parametrize(
    ("bits", "kind"), [(8, np.uint8), (9, np.uint16), (16, np.uint16), (17, np.uint32), (32, np.uint32)]
)
def test_the_wire_type_is_the_smallest_that_holds_the_ring(bits, kind):
    assert RingCodec(bits, 1.0, 4).dtype == kind


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 20), st.integers(1, 400_000))
def test_fewer_than_three_levels_are_refused_with_the_bits_that_would_do(bits, clients):
    if (2**bits - 1) // clients >= 3:
        assert RingCodec(bits, 1.0, clients).levels >= 3
        return
    needed = ceil(log2(3 * clients + 1))
    assert (2**needed - 1) // clients >= 3 > (2 ** (needed - 1) - 1) // clients
    with pytest.raises(ScenarioError) as refused:
        RingCodec(bits, 1.0, clients)
    assert str(refused.value) == (
        f"channel.bits: found {bits}, expected at least {needed} bits for {clients} clients; "
        "raise channel.bits or lower federation.cohort or federation.panel"
    )
