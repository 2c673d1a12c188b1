"""The share of a trained change, for methods whose outer factor alone is zero at the start.

A change ``U f(D x)`` is linear in U while D stands still. So a share of it is the share of U, with D as trained;
shrinking both would take more of the change away than was asked.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.methods.layout import HEADS


def outer_share(schema: Schema, start: Vector, trained: Vector, share: float, outer: Callable[[str], bool]) -> Vector:
    """Return the parameters that make ``share`` of a change.

    Parameters
    ----------
    schema : Schema
    start, trained : ndarray of float32, shape (schema.size,)
    share : float
        In [0, 1].
    outer : callable
        Which tensors the change is linear in. Where they are not zero at the start, everything is interpolated.
    """
    scaled = schema.mask(outer)
    if not start[scaled].any():
        start = np.where(scaled | schema.mask(_in_head), start, trained)
    return (start + np.float32(share) * (trained - start)).astype(np.float32)


def _in_head(name: str) -> bool:
    return any(f".{head}." in name for head in HEADS)
