"""Fine-tune a private adapter on one person's text, and choose how much of it to keep.

h = W x + s B_g A_g x + g s B_p A_p x        global frozen, private trained, g chosen by the gate
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpeft.adapters.schema import Vector
from fedpeft.data.windows import Windows
from fedpeft.methods import Attached
from fedpeft.personalization.gate import choose_share, scaled
from fedpeft.training import Training, train
from fedpeft.training.keystrokes import Keystrokes


@dataclass(frozen=True, slots=True)
class Personal:
    """A person's own adapter.

    Parameters
    ----------
    vector : ndarray of float32
        The trained slot, scaled by the gate.
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
    train_windows: Windows,
    validation: Windows,
    training: Training,
    shares: Sequence[float],
    keystrokes: Keystrokes,
    seed: int,
) -> Personal:
    """Train one slot on a person's text from its starting values, behind the gate.

    Parameters
    ----------
    attached : Attached
        With the slots that shall count active, and their values written; the trained slot is left as chosen.
    slot : str
    train_windows, validation : Windows
    training : Training
    shares : sequence of float
        What the gate may choose from.
    keystrokes : Keystrokes
    seed : int

    Returns
    -------
    Personal
    """
    attached.write(slot, attached.initial[slot])
    trained = train(attached, slot, train_windows, training, seed)
    vector = attached.read(slot)
    if not np.isfinite(vector).all():
        # Training diverged, and 0 times NaN is NaN: the gate could not shut it out.
        vector = attached.initial[slot]
    share = choose_share(attached, slot, vector, validation, shares, keystrokes)
    kept = scaled(attached, slot, vector, share)
    attached.write(slot, kept)
    return Personal(kept, share, trained.steps)
