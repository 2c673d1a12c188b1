"""A payload: the vector's integers, then the lanes, in one array."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.adapters import Update
from fedpeft.codecs import RingCodec, WireCodec
from fedpeft.errors import ProtocolError

NAMES = ("weight", "loss")


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 32), st.integers(1, 8), st.integers(0, 50), st.integers(0, 99))
def test_a_sum_of_payloads_is_the_payload_of_the_sum(bits, clients, size, seed):
    rng = np.random.default_rng(seed)
    codec = WireCodec(RingCodec(bits, 2.0, clients), size, NAMES)
    updates = [
        Update(rng.uniform(-2, 2, size).astype(np.float32), {"weight": 1 / (i + 1), "loss": 3.0 * i})
        for i in range(clients)
    ]
    payloads = [codec.encode(update, rng) for update in updates]
    assert all(p.shape == (codec.length,) and p.dtype == codec.ring.dtype for p in payloads)
    decoded = codec.decode(np.sum(payloads, axis=0, dtype=np.uint64), clients)
    exact = np.sum([u.vector for u in updates], axis=0, dtype=np.float64)
    assert decoded.vector.shape == (size,)
    assert (np.abs(decoded.vector - exact) <= clients * codec.ring.step + 1e-5).all()
    assert decoded.lanes["loss"] == sum(u.lanes["loss"] for u in updates)
    assert decoded.lanes["weight"] == pytest.approx(sum(u.lanes["weight"] for u in updates), abs=clients * 2.0**-33)


def test_the_length_is_the_vector_and_the_lanes():
    codec = WireCodec(RingCodec(16, 1.0, 16), 100, NAMES)
    assert codec.length == 100 + codec.lanes.size
    assert codec.lanes.size == 2 * 6  # base 4096: six digits of twelve bits
    assert WireCodec(RingCodec(16, 1.0, 16), 0, NAMES).length == codec.lanes.size


def test_joining_is_encoding_in_two_parts():
    codec = WireCodec(RingCodec(16, 1.0, 4), 5, NAMES)
    update = Update(np.linspace(-1, 1, 5, dtype=np.float32), {"weight": 1.0, "loss": 0.5})
    levels = codec.ring.encode(update.vector, np.random.default_rng(1))
    assert np.array_equal(codec.join(levels, update.lanes), codec.encode(update, np.random.default_rng(1)))


@pytest.mark.parametrize("shape", [(4,), (6,), (5, 1)])
def test_a_vector_of_another_length_is_refused(shape):
    codec = WireCodec(RingCodec(16, 1.0, 4), 5, NAMES)
    with pytest.raises(ProtocolError, match=r"update vector shape: found .*, expected \(5,\)"):
        codec.encode(Update(np.zeros(shape, np.float32), {"weight": 1.0, "loss": 0.0}), np.random.default_rng(0))
