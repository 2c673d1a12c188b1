"""The local trainer: a few AdamW steps on one client's windows, the same for one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedpeft.data.windows import Windows
from fedpeft.methods import Attached
from fedpeft.seeds import stream
from fedpeft.training.config import Training
from fedpeft.training.logits import batches, labelled_logits


@dataclass(frozen=True, slots=True)
class Trained:
    """What happened.

    Parameters
    ----------
    steps : int
        Optimizer steps taken.
    tokens : int
        Labelled pieces seen, repetitions counted.
    loss : float
        Mean loss over the steps, in nats per piece.
    """

    steps: int
    tokens: int
    loss: float


def train(
    attached: Attached,
    slot: str,
    windows: Windows,
    training: Training,
    seed: int,
    keep: Callable[[str], bool] = lambda _: True,
) -> Trained:
    """Train one slot in place; whatever else is active stays frozen.

    Parameters
    ----------
    attached : Attached
        With the wanted slots active and their starting values written.
    slot : str
        The slot to train.
    windows : Windows
        At least one.
    training : Training
    seed : int
        Decides the order of the windows.
    keep : callable
        Which of the slot's tensors are trained; all by default.

    Returns
    -------
    Trained
    """
    parameters = attached.parameters(slot, keep)
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)
    total = training.total_steps(len(windows))
    attached.model.train()
    losses, tokens = [], 0
    for step, (ids, labels) in zip(range(total), _endless(windows, training.batch, seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = training.rate(step, total)
        logits, targets = labelled_logits(attached.model, ids, labels)
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, training.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # Numbers, not tensors: tiny live tensors between large freed ones make the heap grow without end.
        losses.append(float(loss.detach()))
        tokens += len(targets)
    attached.model.eval()
    return Trained(total, tokens, float(np.mean(losses)))


def _endless(windows: Windows, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffle anew for every pass, for ever."""
    rng = stream(seed, "order")
    while True:
        yield from batches(windows, rng.permutation(len(windows)), size)
