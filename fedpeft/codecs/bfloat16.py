"""bfloat16 as numpy lacks it: the upper half of a float32, rounded to nearest even."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpeft.adapters.schema import Vector


def to_bfloat16(vector: Vector) -> NDArray[np.uint16]:
    """Round finite float32 numbers to bfloat16 bit patterns of the same shape."""
    bits = vector.astype(np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def from_bfloat16(patterns: NDArray[np.uint16]) -> Vector:
    """Return the float32 numbers that bfloat16 bit patterns stand for."""
    return (patterns.astype(np.uint32) << np.uint32(16)).view(np.float32)
