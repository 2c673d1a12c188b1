"""The validation gate: how much of a private change is let through.

A private change P is used as ``share * P`` with the share in a short list that holds 0. The share with the lowest loss
on the person's validation text is taken, the smallest of equals; with 0 the person keeps what they had. The test text
has no say, and nobody is made worse off on the text the gate has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedpeft.adapters.schema import Vector
from fedpeft.data.windows import Windows
from fedpeft.methods import Attached
from fedpeft.training import evaluate
from fedpeft.training.keystrokes import Keystrokes


def scaled(attached: Attached, slot: str, vector: Vector, share: float) -> Vector:
    """Return a slot's parameters with its change to the base multiplied by ``share`` (LoRA: B alone)."""
    factor = np.where(attached.schemas[slot].mask(lambda name: "lora_B" in name), np.float32(share), 1)
    return (factor * vector).astype(np.float32)


def choose_share(
    attached: Attached,
    slot: str,
    vector: Vector,
    validation: Windows,
    shares: Sequence[float],
    keystrokes: Keystrokes,
) -> float:
    """Return the share of a trained slot that validation lets through.

    Parameters
    ----------
    attached : Attached
        With the wanted slots active; the slot's parameters are overwritten.
    slot : str
    vector : ndarray of float32
        What training gave.
    validation : Windows
        Without any, nothing is let through.
    shares : sequence of float
        To choose from, 0 among them.
    keystrokes : Keystrokes

    Returns
    -------
    float
    """
    if not validation.tokens:
        return 0.0

    def loss(share: float) -> float:
        attached.write(slot, scaled(attached, slot, vector, share))
        return evaluate(attached, validation, keystrokes).loss

    return min(sorted(shares), key=loss)
