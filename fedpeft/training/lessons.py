"""Learn from shared logits beside one's own text.

    L = (1 - w) CE(own text) + w T² KL(p || softmax(z / T))        p as in :mod:`fedpeft.training.shared_logits`

In each step as many public windows are read as windows of one's own, drawn anew without repetition in a step. They
have passes of their own: a client that has little text still hears of everything the teacher knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fedpeft.base.tokenizer import vocabulary_hash
from fedpeft.methods import Attached
from fedpeft.seeds import stream
from fedpeft.tasks import Batch, Task
from fedpeft.training.config import Training
from fedpeft.training.pieces import summed
from fedpeft.training.shared_logits import SharedLogits, divergence_from, load


def lessons(task: Task[Any], training: Training, seed: int) -> Iterator[SharedLogits] | None:
    """Draw public windows for every step, for ever; None where a training has none.

    Parameters
    ----------
    task : Task
        Over the student's base.
    training : Training
    seed : int

    Raises
    ------
    ScenarioError
        When the file cannot be read or is not for this base.
    """
    if training.distillation is None or not training.distillation.logits:
        return None
    base = task.base
    shared = load(training.distillation.logits, vocabulary_hash(base.tokenizer), int(base.model.config.vocab_size))
    return _drawn(shared, training.batch, stream(seed, "lessons"))


def _drawn(shared: SharedLogits, count: int, chance: Any) -> Iterator[SharedLogits]:
    while True:
        yield shared.rows(torch.from_numpy(chance.choice(len(shared), min(count, len(shared)), replace=False)))


def lesson_loss(attached: Attached, task: Task[Any], lesson: SharedLogits, chunk: int | None) -> Tensor:
    """Return the mean divergence from a lesson, T² times it; in chunks of so many places where that is asked for."""
    found = task.features(attached.model, Batch(lesson.text.long(), lesson.text.long()))
    assert found is not None  # noqa: S101 - the scenario refuses lessons for tasks that write nothing
    hidden, head, _ = found
    told = [
        t.flatten(0, 1).to(hidden.device) for t in (lesson.pieces.long(), lesson.scores.float(), lesson.rest.float())
    ]

    def work(hidden: Tensor, head: nn.Module, *told: Tensor) -> Tensor:
        pieces, scores, rest = told
        return divergence_from(head(hidden).float(), pieces, scores, rest, lesson.origin.temperature)

    return (work(hidden, head, *told) if chunk is None else summed(work, chunk, head, hidden, *told)) / len(hidden)
