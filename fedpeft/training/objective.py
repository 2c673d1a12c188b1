"""The loss of a batch: cross-entropy, in one piece or in chunks, and a teacher's word beside it.

    L = (1 - w) CE(z, y) + w T² KL(softmax(z_teacher / T) || softmax(z / T)) + the method's penalty

Chunked cross-entropy computes the logits of a few predictions at a time and again in the backward pass, so that
the (predictions × vocabulary) matrix, the largest of all on a small machine, never exists.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedpeft.methods import Attached
from fedpeft.tasks import Batch, Task
from fedpeft.training.adversarial import Perturbed
from fedpeft.training.config import Training
from fedpeft.training.lessons import lesson_loss
from fedpeft.training.pieces import summed
from fedpeft.training.shared_logits import SharedLogits
from fedpeft.training.teacher import Teacher


class Objective:
    """What is minimised for one slot.

    Parameters
    ----------
    attached : Attached
    slot : str
        Being trained; its method may add a penalty.
    task : Task
    training : Training
    """

    def __init__(self, attached: Attached, slot: str, task: Task[Any], training: Training) -> None:
        self._attached, self._slot, self._task, self._training = attached, slot, task, training
        taught = training.distillation
        self._teacher = Teacher(taught, task) if taught and not taught.logits else None
        self._own = 1 - taught.weight if taught and taught.logits else 1.0
        self._embedding = Perturbed(attached.model.get_input_embeddings())

    def backward(self, batch: Batch, share: float = 1.0) -> float:
        """Add a batch's gradients to the trainables.

        Parameters
        ----------
        batch : Batch
        share : float
            Of the step that this is; a batch may be taken in parts.

        Returns
        -------
        float
            Mean cross-entropy of the batch as it was read, noise included, in nats.
        """
        with self._in_precision():
            # Before the student: asking the bare base switches slots, and the teacher reads what nobody has disturbed.
            taught = None if self._teacher is None else self._teacher.logits(self._attached, batch)
            with self._embedding.noisy(self._shape(batch), self._training.noise):
                total, entropy = self._loss(batch, taught)
        (share * total).backward()
        wanted = self._training.adversarial
        if wanted is not None:
            with self._embedding.hooked(), self._in_precision():
                worst = self._embedding.worst(lambda: self._loss(batch, taught)[0], self._shape(batch), wanted)
            (share * worst).backward()
        return float(entropy.detach())

    def learn(self, lesson: SharedLogits, share: float) -> None:
        """Add the gradients of what a teacher said of public text.

        Parameters
        ----------
        lesson : SharedLogits
        share : float
            Of the step's lesson that this is.
        """
        with self._in_precision():
            loss = lesson_loss(self._attached, self._task, lesson, self._training.chunk)
        ((1 - self._own) * share * loss).backward()

    def _in_precision(self) -> AbstractContextManager[object]:
        if not self._training.autocast:
            return nullcontext()
        return torch.autocast(self._attached.model.device.type, torch.bfloat16)

    def _shape(self, batch: Batch) -> torch.Size:
        """Return the shape of a batch's embeddings."""
        width = cast(nn.Embedding, self._attached.model.get_input_embeddings()).embedding_dim
        return torch.Size([*batch.ids.shape, width])

    def _loss(self, batch: Batch, taught: Tensor | None) -> tuple[Tensor, Tensor]:
        training, attached = self._training, self._attached
        if training.chunk is not None:
            entropy = _chunked(attached, self._task, batch, training.chunk)
            total = self._own * entropy
        else:
            logits, targets = self._task.predict(attached.model, batch)
            entropy = F.cross_entropy(logits, targets)
            total = self._own * entropy
            if taught is not None and training.distillation is not None:
                part = training.distillation.weight
                total = (1 - part) * entropy + part * divergence(logits, taught, training.distillation.softness)
        penalty = attached.penalty(self._slot)
        return (total if penalty is None else total + penalty), entropy


def divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² times the mean Kullback–Leibler divergence from the teacher's distribution to the student's."""
    student = F.log_softmax(logits / temperature, dim=-1)
    wanted = F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, wanted, reduction="batchmean", log_target=True)


def _chunked(attached: Attached, task: Task[Any], batch: Batch, size: int) -> Tensor:
    found = task.features(attached.model, batch)
    assert found is not None  # noqa: S101 - the scenario refuses chunks for tasks without
    hidden, head, targets = found
    return summed(_sum, size, head, hidden, targets) / len(targets)


def _sum(hidden: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")
