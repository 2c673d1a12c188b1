"""The local trainer: a few AdamW steps on one client's examples, the same for one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fedpeft.methods import Attached
from fedpeft.seeds import stream
from fedpeft.tasks import Batch, Encoded, Task
from fedpeft.training.augment import augment
from fedpeft.training.config import Training
from fedpeft.training.objective import Objective
from fedpeft.training.optimizer import optimizer_for


@dataclass(frozen=True, slots=True)
class Trained:
    """What happened.

    Parameters
    ----------
    steps : int
        Optimizer steps taken.
    tokens : int
        Predictions trained on, repetitions counted.
    loss : float
        Mean cross-entropy over the steps, in nats per prediction.
    """

    steps: int
    tokens: int
    loss: float


def train(
    attached: Attached,
    slot: str,
    task: Task[Any],
    examples: Encoded,
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
    task : Task
    examples : Encoded
        At least one.
    training : Training
    seed : int
        Decides the order of the examples, and every other choice of chance.
    keep : callable
        Which of the slot's tensors are trained; all by default.

    Returns
    -------
    Trained
    """
    parameters = attached.parameters(slot, keep)
    optimizer = optimizer_for(parameters, attached.head, training)
    total = training.total_steps(len(examples))
    objective = Objective(attached, slot, task, training)
    # What an earlier call left behind when it was broken off.
    optimizer.zero_grad(set_to_none=True)
    losses, tokens = [], 0
    with _prepared(attached, training, seed):
        for step, batch in zip(range(total), _endless(task, examples, training, seed), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = training.rate(step, total) * group["factor"]
            entropy, count = objective.backward(batch)
            nn.utils.clip_grad_norm_(parameters, training.clip_norm)
            optimizer.step()
            attached.after_step(slot, step + 1, total)
            optimizer.zero_grad(set_to_none=True)
            # Numbers, not tensors: tiny live tensors between large freed ones make the heap grow without end.
            losses.append(entropy)
            tokens += count
    return Trained(total, tokens, float(np.mean(losses)))


@contextmanager
def _prepared(attached: Attached, training: Training, seed: int) -> Iterator[None]:
    """Seed what draws from torch's own generator, and switch checkpointing on and off again."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        if not training.checkpointing:
            yield
            return
        attached.model.gradient_checkpointing_enable({"use_reentrant": False})
        # transformers checkpoints in training mode only; the base's dropouts are zero (see Attached).
        attached.model.train()
        try:
            yield
        finally:
            attached.model.eval()
            attached.model.gradient_checkpointing_disable()


def _endless(task: Task[Any], examples: Encoded, training: Training, seed: int) -> Iterator[Batch]:
    """Shuffle anew for every pass, for ever."""
    order, chance = stream(seed, "order"), stream(seed, "augmentation")
    tokenizer = task.base.tokenizer
    blank = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.pad_token_id or 0
    while True:
        for batch in task.batches(examples, order.permutation(len(examples)), training.batch):
            if training.augmentation is None:
                yield batch
            else:
                yield augment(batch, task.replaceable(batch), training.augmentation, int(blank), chance)
