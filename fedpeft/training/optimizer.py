"""The local optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from fedpeft.training.config import Training


def optimizer_for(
    parameters: list[nn.Parameter], training: Training, factors: Mapping[int, float] | None = None
) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) over parameters, its state in 32 or 8 bits.

    Parameters
    ----------
    parameters : list of nn.Parameter
    training : Training
    factors : mapping of int to float, optional
        By ``id``, the multiple of the learning rate that a parameter learns at; 1 where not given. Groups carry it.
    """
    parts: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        parts.setdefault((factors or {}).get(id(parameter), 1.0), []).append(parameter)
    groups = [{"params": own, "factor": factor} for factor, own in parts.items()]
    if training.optimizer == "adamw8bit":
        from bitsandbytes.optim.adamw import AdamW8bit

        # By default bitsandbytes keeps small tensors in 32 bits, which would be every factor of an adapter.
        chosen = AdamW8bit(groups, lr=training.learning_rate, weight_decay=training.weight_decay, min_8bit_size=_BLOCK)
        return cast(torch.optim.Optimizer, chosen)
    return torch.optim.AdamW(groups, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)


# bitsandbytes scales its 8-bit state by blocks of 256; below that nothing is saved.
_BLOCK = 256
