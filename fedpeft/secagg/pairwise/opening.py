"""What the server computes at the end: the survivors' sum, from masked vectors, shares and seeds.

::

    Σ_{i∈U} x_i = Σ_{i∈U} y_i − Σ_{i∈U} PRG(b_i) − Σ_{i∈U, j∈N(i)∖U} ± PRG(seed_ij)    mod 2^bits

The masks of pairs inside U cancel. A secret b_i is interpolated from any t of its shares and held against the hash that
came with the contribution; when a share is wrong, others are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random

import numpy as np
from numpy.typing import NDArray

from fedpeft.secagg.pairwise.masks import add_masks, cut
from fedpeft.secagg.pairwise.packing import ring_dtype, unpack
from fedpeft.secagg.pairwise.shamir import WIDTH, combine

_TRIES = 256


def recover(shares: Mapping[int, int], threshold: int, right: Callable[[bytes], bool]) -> bytes | None:
    """Return the secret behind some shares, or None when no t of them that were tried give the right one.

    Parameters
    ----------
    shares : mapping of int to int
        Share by point.
    threshold : int
        t.
    right : callable
        Says whether it is the secret.
    """
    points = sorted(shares)
    if len(points) < threshold:
        return None
    order, chosen = Random(0), points[:threshold]  # noqa: S311 - which shares are tried first is no secret
    for _ in range(_TRIES if len(points) > threshold else 1):
        secret = combine(chosen, [shares[x] for x in chosen]).to_bytes(WIDTH, "big")
        if right(secret):
            return secret
        chosen = sorted(order.sample(points, threshold))
    return None


def open_sum(
    vectors: Iterable[bytes | memoryview], length: int, bits: int, masks: Iterable[tuple[bytes, int]]
) -> NDArray[np.uint64]:
    """Add packed vectors and take masks off.

    Parameters
    ----------
    vectors : iterable of bytes
        The survivors'.
    length, bits : int
        Of a vector.
    masks : iterable of (bytes, int)
        Mask keys with the signs with which they are in the sum.

    Returns
    -------
    ndarray of uint64, shape (length,)
    """
    total = np.zeros(length, ring_dtype(bits))
    for vector in vectors:
        total += unpack(vector, length, bits)
    add_masks(total, [(key, -sign) for key, sign in masks])
    cut(total, bits)
    return total.astype(np.uint64)
