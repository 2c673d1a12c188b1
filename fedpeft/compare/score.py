"""How good a model is: loss and accuracies over examples, without what takes longer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from fedpeft.tasks import Encoded, Task
from fedpeft.tasks.keystrokes import ahead

_BATCH, _PROBED = 32, 8


@torch.no_grad()
def score(model: nn.Module, task: Task[Any], examples: Encoded) -> dict[str, float]:
    """Return ``loss`` (nats per prediction), ``perplexity``, ``top1`` and ``top3``."""
    loss, count, top1, top3 = 0.0, 0, 0, 0
    for batch in task.batches(examples, task.order(examples), _BATCH):
        logits, targets = task.predict(model, batch)
        rank = ahead(logits, targets).sum(dim=1)
        loss += float(F.cross_entropy(logits, targets, reduction="sum"))
        count, top1, top3 = count + len(targets), top1 + int((rank < 1).sum()), top3 + int((rank < 3).sum())
    mean = loss / max(count, 1)
    perplexity = math.exp(min(mean, 50.0))
    return {"loss": mean, "perplexity": perplexity, "top1": top1 / max(count, 1), "top3": top3 / max(count, 1)}


@torch.no_grad()
def probe(model: nn.Module, task: Task[Any], examples: Encoded) -> NDArray[np.float32]:
    """Return the logits of the few longest examples: what two models are compared by."""
    (batch,) = task.batches(examples, task.order(examples)[:_PROBED], _PROBED)
    logits: NDArray[np.float32] = task.predict(model, batch)[0].numpy()
    return logits
