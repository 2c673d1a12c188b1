"""Whose distribution a student learns: the bare base, or another and usually larger one with the same pieces."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fedpeft.base import Base, load_base
from fedpeft.base.placement import place
from fedpeft.errors import ScenarioError
from fedpeft.methods import Attached
from fedpeft.tasks import Batch, Task
from fedpeft.training.config import Distillation


class Teacher:
    """A frozen model that answers with logits.

    Parameters
    ----------
    wanted : Distillation
    task : Task
        The student's; the teacher reads the same batches.

    Raises
    ------
    ScenarioError
        When the teacher's pieces are not the student's.
    """

    def __init__(self, wanted: Distillation, task: Task[Any]) -> None:
        self._task = task
        self._model = None
        if wanted.teacher:
            base = _loaded(wanted.teacher, str(task.base.dtype).removeprefix("torch."), task.base.model.device)
            if _pieces(base) != _pieces(task.base):
                raise ScenarioError(
                    "training.distillation.teacher", wanted.teacher, f"a base with the pieces of {task.base.name}"
                )
            self._model = base.model

    @torch.no_grad()
    def logits(self, student: Attached, batch: Batch) -> Tensor:
        """Return the teacher's logits on a batch, shape (n, classes)."""
        if self._model is not None:
            return self._task.predict(self._model, batch)[0]
        active = student.active
        student.activate()
        logits, _ = self._task.predict(student.model, batch)
        student.activate(*active)
        return logits


def _pieces(base: Base) -> tuple[dict[str, int], int]:
    """Return a base's vocabulary, and how many logits it gives: some have more than they have pieces."""
    return base.tokenizer.get_vocab(), int(base.model.config.vocab_size)


@lru_cache(maxsize=1)
def _loaded(name: str, dtype: str, device: torch.device) -> Base:
    """Return a base that stays warm: every client of a process asks the same teacher, in every round."""
    base = load_base(name, dtype)
    place(base.model, device)
    return base
