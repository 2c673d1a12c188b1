"""How alike two texts are to an encoder: the cosine of what it pools, scaled to be a logit.

    s(x, y) = τ e(x)·e(y) / (‖e(x)‖ ‖e(y)‖),      τ = 20

Training and devices score with the same τ, so that a device's probabilities are those that were learnt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SCALE = 20.0


def scaled_cosines(context: NDArray[np.float32], replies: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the score of each reply to a context; shape (n,).

    Parameters
    ----------
    context : ndarray of float32, shape (d,)
    replies : ndarray of float32, shape (n, d)
    """
    lengths = np.linalg.norm(replies, axis=1) * np.linalg.norm(context)
    scores: NDArray[np.float32] = (SCALE * (replies @ context) / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scores
