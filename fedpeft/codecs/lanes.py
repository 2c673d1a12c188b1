"""Lanes: a few named totals that travel with the vector and are summed exactly.

A lane is a non-negative number in fixed point, written as digits in base L + 1, one ring coordinate each. The
digits of n clients add up to at most n L, so they do not wrap, and the sum of the numbers is recovered exactly
from the sums of the digits. A rounding error in a weight would tilt the whole mean; here there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpeft.codecs.ring import Ring, RingCodec
from fedpeft.errors import ProtocolError

FRACTION_BITS = 32
WHOLE_BITS = 32
"""A lane holds numbers below 2^32 to a resolution of 2^-32."""


@dataclass(frozen=True)
class LaneCodec:
    """Named lanes on a ring.

    Parameters
    ----------
    ring : RingCodec
        Whose levels bound a digit.
    names : sequence of str
        The lanes, in order.
    """

    ring: RingCodec
    names: Sequence[str]

    @property
    def base(self) -> int:
        """How many values a digit has."""
        return self.ring.levels + 1

    @property
    def digits(self) -> int:
        """Ring coordinates per lane."""
        count, reach = 1, self.base
        while reach < 2 ** (FRACTION_BITS + WHOLE_BITS):
            count, reach = count + 1, reach * self.base
        return count

    @property
    def size(self) -> int:
        """Ring coordinates of all lanes."""
        return self.digits * len(self.names)

    def encode(self, lanes: Mapping[str, float]) -> Ring:
        """Write the lanes as digits, the least significant first.

        Raises
        ------
        ProtocolError
            When a lane is missing, unknown, negative, too large or not finite.
        """
        if lanes.keys() != set(self.names):
            raise ProtocolError("update lanes", sorted(lanes), f"exactly {sorted(self.names)}")
        coordinates = []
        for name in self.names:
            value = float(lanes[name])
            if not 0.0 <= value < 2.0**WHOLE_BITS:
                raise ProtocolError(f"update lane {name}", value, f"a number in [0, 2^{WHOLE_BITS})")
            remainder = round(value * 2**FRACTION_BITS)
            for _ in range(self.digits):
                remainder, digit = divmod(remainder, self.base)
                coordinates.append(digit)
        return np.array(coordinates, self.ring.dtype)

    def decode(self, total: NDArray[np.uint64]) -> dict[str, float]:
        """Return the sums of the lanes from the sums of their digits."""
        lanes = {}
        for name, digits in zip(self.names, total.reshape(len(self.names), self.digits), strict=True):
            whole = sum(int(digit) * self.base**place for place, digit in enumerate(digits))
            lanes[name] = whole / 2**FRACTION_BITS
        return lanes
