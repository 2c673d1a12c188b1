"""How much memory a process that trains will take, counted from one step on shapes alone.

    memory = runtime + kernels + weights + optimizer + working

    weights    pages of the base's file that are read, and what packing makes of its linear layers
    optimizer  AdamW's two moments of every trained number: 8 bytes, or 2 and the scales in 8 bits
    working    the most that gradients, activations and logits hold at once: see :mod:`~fedpeft.training.tracked`
    kernels    room in which matrix kernels lay out their operands: 2 bytes for each number of the largest matrix
    runtime    the rest: what libraries allocate at their first step, their code, and gaps between blocks

``runtime`` and the 2 bytes are not counted but fitted to measured peaks of two bases, once and not per configuration:
see ``docs/performance.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedpeft.base import Base
from fedpeft.base.hollow import empty, hollow
from fedpeft.base.load import DTYPES
from fedpeft.methods import Attached, Method
from fedpeft.tasks import Batch, Task
from fedpeft.training.config import Training
from fedpeft.training.objective import Objective
from fedpeft.training.tracked import most_bytes
from fedpeft.training.trainer import checkpointed

STARTED = 420_000_000
"""Bytes of a process that has imported everything and loaded nothing."""
RUNTIME = 33_000_000
"""Bytes that training takes besides what is counted."""
_GRADIENT, _MOMENTS, _PACKED_MOMENTS, _LAID_OUT = 4, 8, 2, 2


@dataclass(frozen=True)
class Held:
    """What a base computes in, and what its linear layers are packed to.

    Parameters
    ----------
    dtype : {"float32", "bfloat16", "float16"}
    precision : {"full", "int8", "nf4"}
    """

    dtype: str
    precision: str


@dataclass(frozen=True)
class Footprint:
    """Bytes of one way to train.

    Parameters
    ----------
    kernels, weights, optimizer, working : int
        As the module says.
    """

    kernels: int
    weights: int
    optimizer: int
    working: int

    @property
    def growth(self) -> int:
        """Bytes above a process that has imported everything."""
        return RUNTIME + self.kernels + self.weights + self.optimizer + self.working

    @property
    def total(self) -> int:
        """Bytes of the process."""
        return STARTED + self.growth


class Rehearsal:
    """A method attached to a base of zeros, on which steps are counted.

    Parameters
    ----------
    task : Task
        Over the base in full, to which nothing is attached; it stays as it is.
    held : Held
        How the base is to be held.
    method : Method
    private : Method or None
        As of :class:`~fedpeft.methods.Attached`.
    """

    def __init__(self, task: Task[Any], held: Held, method: Method, private: Method | None = None) -> None:
        base = hollow(task.base, DTYPES[held.dtype], held.precision)
        self._weights = _weights(base)
        self._kernels = _LAID_OUT * max(p.numel() for p in base.model.parameters())
        own = None if private is None else private.over(held.precision)
        self._attached = Attached(base, method.over(held.precision), own, seed=0)
        self._task = task.over(base)
        for slot in self._attached.slots:  # what is trained need not be a part of the model, as prompts are not
            empty(self._attached.parameters(slot))
        empty(self._attached.model.parameters())

    def footprint(self, training: Training, slot: str, batch: Batch | None = None) -> Footprint:
        """Count one step.

        Parameters
        ----------
        training : Training
        slot : str
            Which is trained; with all slots before it active.
        batch : Batch, optional
            What is trained on at once; by default the task's fullest.
        """
        attached = self._attached
        slots = attached.slots
        attached.activate(*slots[: slots.index(slot) + 1])
        trained = attached.parameters(slot)
        numbers = sum(p.numel() for p in trained)
        batch = self._task.fullest(training.batch) if batch is None else batch
        micro = training.micro_batch or len(batch.ids)
        objective = Objective(attached, slot, self._task, training)
        with checkpointed(attached, training.checkpointing):
            working = most_bytes(lambda: objective.backward(batch.rows(0, micro)))
        for parameter in trained:
            parameter.grad = None
        if micro < len(batch.ids):  # the first part's gradients lie beside the second part's activations
            working += _GRADIENT * numbers
        each = _MOMENTS if training.optimizer == "adamw" else _PACKED_MOMENTS
        return Footprint(self._kernels, self._weights, each * numbers, working)


def _weights(base: Base) -> int:
    """Return the bytes of a base as it is held, tied weights once."""
    size = 0
    for parameter in dict.fromkeys(base.model.parameters()):
        size += parameter.nbytes
        packed = getattr(parameter, "quant_state", None)
        if packed is not None:
            size += packed.absmax.nbytes
    return size
