"""Masks: the keystream of AES-256-CTR, the same in every stretch, gone in the sum."""

import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.secagg.pairwise.masks import add_masks, cut
from fedpeft.secagg.pairwise.packing import pack, packed_size, ring_dtype, unpack


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("length", [1, 7, 1 << 15, (1 << 17) + 3])
def test_a_mask_is_the_plain_keystream(dtype, length):
    key = os.urandom(32)
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    expected = np.frombuffer(stream.update(bytes(length * np.dtype(dtype).itemsize)), dtype)
    found = np.zeros(length, dtype)
    add_masks(found, [(key, 1)])
    assert np.array_equal(found, expected)
    add_masks(found, [(key, -1)])
    assert not found.any()


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 32), st.integers(2, 7), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_pair_masks_cancel_in_the_sum(bits, clients, length, seed):
    rng = np.random.default_rng(seed)
    payloads = [rng.integers(0, 2**bits, length).astype(ring_dtype(bits)) for _ in range(clients)]
    keys = {(i, j): rng.bytes(32) for i in range(clients) for j in range(i)}
    total = np.zeros(length, ring_dtype(bits))
    for i, payload in enumerate(payloads):
        masked = payload.copy()
        add_masks(masked, [(keys[max(i, j), min(i, j)], 1 if i < j else -1) for j in range(clients) if j != i])
        cut(masked, bits)
        total += masked
    cut(total, bits)
    assert np.array_equal(total, np.sum(payloads, axis=0, dtype=np.uint64) % 2**bits)


@settings(max_examples=120, deadline=None)
@given(st.integers(4, 32), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_packing_has_no_gaps_and_comes_back(bits, length, seed):
    vector = np.random.default_rng(seed).integers(0, 2**bits, length, np.uint64).astype(ring_dtype(bits))
    data = pack(vector, bits)
    assert len(data) == packed_size(length, bits) == -(-length * bits // 8)
    assert np.array_equal(unpack(data, length, bits), vector)
    # Against the definition: one long integer, the least significant bit first.
    assert int.from_bytes(data, "little") == sum(int(v) << (bits * i) for i, v in enumerate(vector))


@pytest.mark.parametrize("bits", [5, 12, 20])
def test_packing_works_beyond_one_stretch(bits):
    vector = np.random.default_rng(0).integers(0, 2**bits, 70_001).astype(ring_dtype(bits))
    assert np.array_equal(unpack(pack(vector, bits), vector.size, bits), vector)
