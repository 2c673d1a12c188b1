"""The local trainer: a few AdamW steps on one client's examples, the same for one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from fedpeft.base.heap import give_back
from fedpeft.base.placement import seeded
from fedpeft.methods import Attached
from fedpeft.seeds import stream
from fedpeft.tasks import Batch, Encoded, Task
from fedpeft.training.augment import augment
from fedpeft.training.config import Training
from fedpeft.training.lessons import lessons
from fedpeft.training.objective import Objective
from fedpeft.training.optimizer import optimizer_for
from fedpeft.training.steps import Steps
from fedpeft.training.stopping import Patience


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
    micro : int
        Examples that were in memory at once in the end; fewer than asked for when memory ran out.
    """

    steps: int
    tokens: int
    loss: float
    micro: int


def train(
    attached: Attached,
    slot: str,
    task: Task[Any],
    examples: Encoded,
    training: Training,
    seed: int,
    keep: Callable[[str], bool] = lambda _: True,
    validation: Encoded | None = None,
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
    validation : Encoded, optional
        Examples that ``training.patience`` looks at; without any it trains to the end.

    Returns
    -------
    Trained
    """
    parameters = attached.parameters(slot, keep)
    optimizer = optimizer_for(parameters, training, _factors(attached, slot, training))
    total = training.total_steps(len(examples))
    # What an earlier call left behind when it was broken off.
    optimizer.zero_grad(set_to_none=True)
    objective = Objective(attached, slot, task, training)
    steps = Steps(objective, task, training, optimizer.zero_grad, lessons(task, training, seed))
    patience = None
    if training.patience and validation is not None and validation.tokens:
        patience = Patience(attached, slot, task, validation, training.patience)
    each = training.steps_per_pass(len(examples))
    losses, tokens = [], 0
    with _prepared(attached, training, seed):
        for step, batch in zip(range(total), _endless(task, examples, training, seed), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = training.rate(step, total) * group["factor"]
            entropy, count = steps.backward(batch)
            nn.utils.clip_grad_norm_(parameters, training.clip_norm)
            optimizer.step()
            attached.after_step(slot, step + 1, total)
            optimizer.zero_grad(set_to_none=True)
            # Numbers, not tensors: tiny live tensors between large freed ones make the heap grow without end.
            losses.append(entropy)
            tokens += count
            if patience is not None and ((step + 1) % each == 0 or step + 1 == total) and patience.exhausted():
                break
    if patience is not None:
        patience.restore()
    return Trained(len(losses), tokens, float(np.mean(losses)), steps.micro)


def _factors(attached: Attached, slot: str, training: Training) -> dict[int, float]:
    """Return who learns at another rate: a head, and under LoRA+ the factor that starts at zero."""
    factors = dict.fromkeys(attached.head, training.head_factor)
    second = attached.methods[slot].second
    if training.lora_plus > 1 and second:
        named = attached.trainables(slot)
        factors |= {id(parameter): training.lora_plus for name, parameter in named.items() if second in name}
    return factors


@contextmanager
def _prepared(attached: Attached, training: Training, seed: int) -> Iterator[None]:
    """Seed what draws from torch's own generator, and save the memory that is to be saved."""
    with seeded(seed, attached.model.device):
        if training.checkpointing or training.chunk is not None or training.memory is not None:
            give_back()
        with checkpointed(attached, training.checkpointing):
            yield


@contextmanager
def checkpointed(attached: Attached, wanted: bool) -> Iterator[None]:
    """Compute activations again in the backward pass inside a ``with``, where that is wanted."""
    if not wanted:
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
