"""bfloat16 to the bit as torch has it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedpeft.codecs.bfloat16 import from_bfloat16, to_bfloat16

# Any finite float32 by its bits, and ties: those whose lower half is exactly one half of the last kept bit.
patterns = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1).map(lambda upper: (upper << 16) | 0x8000))
finite = patterns.map(lambda bits: float(np.uint32(bits).view(np.float32))).filter(np.isfinite)


def torchs(vector: np.ndarray) -> np.ndarray:
    return torch.from_numpy(vector).bfloat16().view(torch.uint16).numpy()


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, st.integers(0, 20), elements=finite))
def test_rounding_is_torchs_bit_for_bit(vector):
    assert np.array_equal(to_bfloat16(vector), torchs(vector))


@settings(max_examples=100, deadline=None)
@given(arrays(np.uint16, 10))
def test_reading_back_is_torchs_bit_for_bit(bits):
    theirs = torch.from_numpy(bits).view(torch.bfloat16).float().numpy()
    assert np.array_equal(from_bfloat16(bits).view(np.uint32), theirs.view(np.uint32))


@settings(max_examples=100, deadline=None)
@given(arrays(np.float32, 10, elements=finite))
def test_a_number_that_fits_stays_as_it_is(vector):
    rounded = to_bfloat16(vector)
    assert np.array_equal(to_bfloat16(from_bfloat16(rounded)), rounded)


@pytest.mark.parametrize(
    ("bits", "rounded"),
    [
        (0x3F80_8000, 0x3F80),  # a tie, down to even
        (0x3F81_8000, 0x3F82),  # a tie, up to even
        (0x3F80_8001, 0x3F81),  # just over
        (0x3F81_7FFF, 0x3F81),  # just under
        (0x0000_0001, 0x0000),  # the smallest subnormal
        (0x0000_8001, 0x0001),  # a subnormal that survives
        (0x807F_FFFF, 0x8080),  # a subnormal that becomes normal
        (0x8000_0000, 0x8000),  # minus zero
        (0x7F7F_FFFF, 0x7F80),  # the largest number rounds to infinity, as in torch
    ],
)
def test_the_corners(bits, rounded):
    vector = np.array([bits], np.uint32).view(np.float32)
    assert to_bfloat16(vector).tolist() == [rounded] == torchs(vector).tolist()


def test_strided_input_and_shape_are_respected():
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert np.array_equal(from_bfloat16(to_bfloat16(matrix[:, ::2])), matrix[:, ::2])
