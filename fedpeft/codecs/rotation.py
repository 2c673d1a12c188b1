"""A seeded rotation that spreads every coordinate over many, so that none needs a range of its own.

    R = H D / √b in blocks of b coordinates,   D seeded signs,   H the Walsh-Hadamard matrix,   R^T R = 1

After it a vector's coordinates look Gaussian whatever they were, so heavy tails are neither clipped nor do they waste
the ring's levels (Suresh et al. 2017, arXiv:1611.00429). It is linear, so it is undone on the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedpeft.adapters.schema import Vector
from fedpeft.seeds import stream

_BLOCK = 1024


@dataclass(frozen=True)
class Rotation:
    """A rotation of vectors of one length.

    Parameters
    ----------
    seed : int
        The same on all clients of a round; it may be known to everybody.
    size : int
        Length of the vectors.
    """

    seed: int
    size: int

    @property
    def block(self) -> int:
        """Coordinates that are mixed with each other; a power of two."""
        return min(_BLOCK, 1 << max(0, self.size - 1).bit_length())

    @property
    def padded(self) -> int:
        """Length of a rotated vector: whole blocks."""
        return -(-self.size // self.block) * self.block

    def forward(self, vector: Vector) -> Vector:
        """Rotate a vector of shape (size,) into one of shape (padded,) and equal norm."""
        wide = np.zeros(self.padded, np.float32)
        wide[: self.size] = vector
        return _hadamard(wide * self._signs, self.block)

    def inverse(self, vector: Vector) -> Vector:
        """Rotate back and return the first ``size`` coordinates."""
        return (_hadamard(vector, self.block) * self._signs)[: self.size]

    @cached_property
    def _signs(self) -> NDArray[np.float32]:
        bits = stream(self.seed, "signs").integers(0, 2, self.padded, dtype=np.int8)
        return (2 * bits - 1).astype(np.float32)


def _hadamard(vector: Vector, block: int) -> Vector:
    """Apply the orthonormal Walsh-Hadamard matrix to each block."""
    mixed = vector.reshape(-1, block)
    half = 1
    while half < block:
        pairs = mixed.reshape(len(mixed), -1, 2, half)
        mixed = np.concatenate([pairs[:, :, :1] + pairs[:, :, 1:], pairs[:, :, :1] - pairs[:, :, 1:]], axis=2)
        half *= 2
    return (mixed.reshape(-1) / np.float32(np.sqrt(block))).astype(np.float32)
