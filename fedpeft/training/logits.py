"""Logits where they are needed: at the positions that predict one of the person's own pieces.

In a chat only about half of the positions are labelled, and on small machines the vocabulary projection and its
softmax are the largest tensors of all. So the decoder runs on every position and the head on the labelled ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor

from fedpeft.data.windows import IGNORED, Windows


def labelled_logits(model: PeftModel, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Run a causal model and return the logits of the labelled positions.

    Parameters
    ----------
    model : PeftModel
        Around a causal language model without logit scaling after its head.
    ids, labels : Tensor of int64, shape (b, t)
        Labels are not shifted; ``IGNORED`` where nothing is predicted.

    Returns
    -------
    logits : Tensor of float32, shape (n, vocabulary)
    targets : Tensor of int64, shape (n,)
    """
    causal: Any = model.get_base_model()
    decoder = getattr(causal, causal.base_model_prefix)
    hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    counted = targets != IGNORED
    return causal.get_output_embeddings()(hidden[counted]).float(), targets[counted]


def batches(windows: Windows, order: np.ndarray, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (ids, labels) batches in the given order, cut to the longest row of each batch."""
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        ids, labels = windows.ids[rows], windows.labels[rows]
        # Right padding after the last label changes nothing under causal attention: leave it out.
        length = int(np.flatnonzero((labels != IGNORED).any(axis=0)).max(initial=1)) + 1
        yield (
            torch.from_numpy(ids[:, :length].astype(np.int64)),
            torch.from_numpy(labels[:, :length].astype(np.int64)),
        )
