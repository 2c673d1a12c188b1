r"""Shamir's secret sharing (1979) over the field of p = 2^128 − 159, the largest prime of 128 bits.

A secret is a field element, drawn as such, so that secret and share both take 16 bytes and nothing is lost to a field
that is a little smaller than the bytes::

    f(x) = s + a_1 x + … + a_{t−1} x^{t−1} mod p,     share at x = 1 … h: f(x)
    s = Σ_i y_i Π_{j≠i} x_j / (x_j − x_i) mod p

Any t − 1 shares are independent of s.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

PRIME = 2**128 - 159
WIDTH = 16
"""Bytes of a secret and of a share."""


def draw(count: int) -> list[int]:
    """Draw field elements from the operating system's entropy."""
    data = os.urandom(WIDTH * count)
    found = [int.from_bytes(data[i : i + WIDTH], "big") for i in range(0, len(data), WIDTH)]
    # One in 2^120 is not below the prime.
    return [value if value < PRIME else draw(1)[0] for value in found]


def share(secret: int, threshold: int, holders: int) -> list[int]:
    """Return the shares at 1 … holders."""
    coefficients = [*draw(threshold - 1), secret]
    shares = []
    for x in range(1, holders + 1):
        value = 0
        for coefficient in coefficients:
            value = (value * x + coefficient) % PRIME
        shares.append(value)
    return shares


def combine(points: Sequence[int], shares: Sequence[int], at: int = 0) -> int:
    """Return the polynomial's value from as many of its points as its threshold.

    Parameters
    ----------
    points : sequence of int
        Distinct x.
    shares : sequence of int
        Their y.
    at : int, optional
        Where; the secret is at 0.
    """
    weights = _weights(tuple(points), at)
    return sum(w * y for w, y in zip(weights, shares, strict=True)) % PRIME


@lru_cache(maxsize=1024)
def _weights(points: tuple[int, ...], at: int) -> tuple[int, ...]:
    weights = []
    for x in points:
        above, below = 1, 1
        for other in points:
            if other != x:
                above, below = above * (other - at), below * (other - x)
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
