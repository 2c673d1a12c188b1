"""What heads read of a text, and rankings of replies compare, and which of the encoder's modules that hangs on.

An encoder may have modules that compute what nobody reads: BERT's pooler, where the head reads the mean of the hidden
states. A method attaches to them all the same, and its numbers for them mean nothing: the graph has no such place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedpeft.base import Base
from fedpeft.export.encoder_head import Head
from fedpeft.export.options import Pooling
from fedpeft.tasks.classification import mean_pooled


class Pooled(nn.Module):
    """What a classifier's head reads.

    Parameters
    ----------
    model : nn.Module
        A sequence classifier or the encoder itself; with the pooling ``model`` without the last layer of its head.
    pooling : {"mean", "model"}
    """

    def __init__(self, model: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.model, self._pooling = model, pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return vectors of shape (batch, hidden)."""
        if self._pooling == "model":
            logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits
        encoder = getattr(self.model, str(self.model.base_model_prefix), self.model)
        hidden = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return mean_pooled(hidden, attention_mask)


def unread_modules(model: nn.Module, base: Base, pooling: Pooling) -> frozenset[str]:
    """Return the modules that have no say in what a head reads: those of no gradient.

    Parameters
    ----------
    model : nn.Module
        The base's, without adapters; its gradients are switched on.
    base : Base
    pooling : {"mean", "model"}
    """
    reads = Pooled(model.eval().float().requires_grad_(True), pooling)
    named = dict(model.named_parameters())
    ids = torch.full((1, 3), 1)
    found = torch.autograd.grad(reads(ids, torch.ones_like(ids)).sum(), list(named.values()), allow_unused=True)
    read = {name.rpartition(".")[0] for name, gradient in zip(named, found, strict=True) if gradient is not None}
    last = Head.of(base).last if base.labels else None
    return frozenset(
        name
        for name, module in model.named_modules()
        if name not in (*read, last) and list(module.parameters(recurse=False))
    )
