"""The gradient of one step, in as many passes as memory allows.

A batch is divided into parts of at most ``micro_batch`` examples. Each part's mean loss counts by its share of the
predictions, so the sum of the parts' gradients is the whole batch's, up to the order of addition. When memory runs out,
what was added is forgotten, chance is set back, the parts are halved and the batch is run again; they stay halved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fedpeft.base.placement import chance, set_chance
from fedpeft.errors import FedpeftError
from fedpeft.tasks import Batch, Task
from fedpeft.training.config import Training
from fedpeft.training.objective import Objective
from fedpeft.training.shared_logits import SharedLogits

_WORDS = ("can't allocate memory", "out of memory", "not enough memory")
"""What torch's allocators say in a RuntimeError that is no class of its own."""


class Steps:
    """Adds a batch's gradients to the trainables.

    Parameters
    ----------
    objective : Objective
    task : Task
    training : Training
    forget : callable
        Removes all gradients.
    lessons : iterator of SharedLogits, optional
        What is learnt beside, one for every step.
    """

    def __init__(
        self,
        objective: Objective,
        task: Task[Any],
        training: Training,
        forget: Callable[[], None],
        lessons: Iterator[SharedLogits] | None = None,
    ) -> None:
        self._objective, self._task, self._forget, self._lessons = objective, task, forget, lessons
        self._device = task.base.model.device
        self.micro = min(training.micro_batch or training.batch, training.batch)

    def backward(self, batch: Batch) -> tuple[float, int]:
        """Return the batch's mean cross-entropy, in nats, and how many predictions it has.

        Raises
        ------
        FedpeftError
            When there is not even memory for one example at a time.
        """
        was = chance(self._device)
        lesson = None if self._lessons is None else next(self._lessons)
        while True:
            try:
                return self._passes(batch, lesson)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._forget()
                if self.micro == 1:
                    remedy = "try checkpointing, chunk, a shorter data.window or base.precision = 'nf4'"
                    raise FedpeftError("memory", "none left", "enough for one example at a time", remedy) from error
            if self._device.type == "cuda":
                # The parts that follow are smaller: what was kept for larger ones would lie beside them.
                torch.cuda.empty_cache()
            set_chance(was, self._device)
            self.micro = (self.micro + 1) // 2

    def _passes(self, batch: Batch, lesson: SharedLogits | None) -> tuple[float, int]:
        total, entropy = self._task.predictions(batch), 0.0
        for start in range(0, len(batch.ids), self.micro):
            part = batch.rows(start, start + self.micro)
            if count := self._task.predictions(part):
                share = count / total
                entropy += share * self._objective.backward(part, share)
        if lesson is not None:
            for start in range(0, len(lesson), self.micro):
                some = lesson.rows(slice(start, start + self.micro))
                self._objective.learn(some, len(some) / len(lesson))
        return entropy, total


def out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(word in str(error).lower() for word in _WORDS)
