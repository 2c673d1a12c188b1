"""Fine-tune an adapter on one person's text, and choose how much of it to keep.

h = W x + s B_g A_g x + g s B_p A_p x        global frozen, private trained, g chosen by the gate

Where two adapters of a method do not add up, the global one is fine-tuned instead: θ_g + g (θ - θ_g).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpeft.adapters.schema import Vector
from fedpeft.methods import Attached
from fedpeft.personalization.gate import choose_share
from fedpeft.tasks import Splits, Task
from fedpeft.training import Training, train


@dataclass(frozen=True, slots=True)
class Personal:
    """A person's own adapter.

    Parameters
    ----------
    vector : ndarray of float32
        The trained slot, as far as the gate let it change.
    gate : float
        The share that was let through.
    steps : int
        Optimizer steps taken.
    """

    vector: Vector
    gate: float
    steps: int


def personalize(
    attached: Attached,
    slot: str,
    start: Vector,
    task: Task[Any],
    own: Splits[Any],
    training: Training,
    shares: Sequence[float],
    seed: int,
) -> Personal:
    """Train one slot on a person's text, behind the gate.

    Parameters
    ----------
    attached : Attached
        With the slots that shall count active, and their values written; the trained slot is left as chosen.
    slot : str
    start : ndarray of float32
        Where the slot starts from, and what a shut gate keeps.
    task : Task
    own : Splits
        The person's examples; the test split is not looked at.
    training : Training
    shares : sequence of float
        What the gate may choose from.
    seed : int

    Returns
    -------
    Personal
    """
    attached.write(slot, start)
    trained = train(attached, slot, task, own.train, training, seed, validation=own.validation)
    vector = attached.read(slot)
    if not np.isfinite(vector).all():
        # Training diverged, and 0 times NaN is NaN: the gate could not shut it out.
        vector = start
    share = choose_share(attached, slot, start, vector, task, own.validation, shares)
    kept = attached.share(slot, start, vector, share)
    attached.write(slot, kept)
    return Personal(kept, share, trained.steps)
