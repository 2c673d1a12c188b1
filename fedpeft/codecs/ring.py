"""Numbers as integers of a ring, so that sums are exact, in any order, and can be masked.

With B bits, at most n clients and range c, a client has L = floor((2^B - 1) / n) levels of step s = 2c / L::

    q(x) = floor((clip(x, -c, c) + c) / s + u),    u ~ Uniform[0, 1)          stochastic rounding, E[s q(x)] = x + c
    decode(sum q_i, m) = s sum q_i - m c                                     the sum of m clients' numbers

No sum of n clients can wrap. The mean square error of a client's number is s^2 times f(1 - f), f the fractional
part, at most s^2 / 4 and s^2 / 6 on average (Alistarh et al. 2017, arXiv:1610.02132, for the rounding).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedpeft.adapters.schema import Vector
from fedpeft.errors import ScenarioError

Ring = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class RingCodec:
    """Quantization of numbers in [-range, range] into Z mod 2^bits.

    Parameters
    ----------
    bits : int
        Size of the ring, 8 to 32.
    range : float
        Largest magnitude that is not clipped.
    clients : int
        How many clients' integers may be summed.

    Raises
    ------
    ScenarioError
        When a client would have fewer than three levels.
    """

    bits: int
    range: float
    clients: int

    def __post_init__(self) -> None:
        if self.levels < 3:
            raise ScenarioError(
                "channel.bits",
                self.bits,
                f"at least {int(np.ceil(np.log2(3 * self.clients + 1)))} bits for {self.clients} clients",
                "raise channel.bits or lower federation.cohort or federation.panel",
            )

    @cached_property
    def levels(self) -> int:
        """Levels L that one client may use."""
        return int((2**self.bits - 1) // self.clients)

    @cached_property
    def step(self) -> float:
        """Distance between two levels."""
        return 2.0 * self.range / self.levels

    @cached_property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """The smallest unsigned integer that holds the ring."""
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16 if self.bits <= 16 else np.uint32)

    def encode(self, vector: Vector, rng: np.random.Generator) -> Ring:
        """Round a vector stochastically to levels 0 … L; values out of range are clipped."""
        scaled = (np.clip(vector.astype(np.float64), -self.range, self.range) + self.range) / self.step
        levels = np.floor(scaled + rng.random(vector.shape))
        return np.minimum(levels, self.levels).astype(self.dtype)

    def decode(self, total: NDArray[np.uint64], contributors: int) -> Vector:
        """Return the sum of the contributors' vectors from the sum of their integers."""
        return (total.astype(np.float64) * self.step - contributors * self.range).astype(np.float32)
