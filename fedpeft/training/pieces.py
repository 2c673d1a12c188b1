"""A sum over predictions, a few at a time.

The logits of a part are computed again in the backward pass, so that the (predictions × vocabulary) matrix, the largest
of all on a small machine, never exists.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def summed(work: Callable[..., Tensor], size: int, head: nn.Module, hidden: Tensor, *told: Tensor) -> Tensor:
    """Return the sum of ``work`` over parts of at most ``size`` predictions.

    Parameters
    ----------
    work : callable
        From hidden states (m, d), the head and rows of what is told to a scalar.
    size : int
    head : nn.Module
        Makes logits of hidden states.
    hidden : Tensor, shape (n, d)
    *told : Tensor, shape (n, ...)
        What is known of each prediction.
    """
    parts = [
        checkpoint(work, hidden[i : i + size], head, *(t[i : i + size] for t in told), use_reentrant=False)
        for i in range(0, len(hidden), size)
    ]
    return torch.stack(parts).sum()
