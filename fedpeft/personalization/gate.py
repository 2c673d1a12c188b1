"""The validation gate: how much of a private change is let through.

A private change P is used as ``share * P`` with the share in a short list that holds 0. The share with the lowest loss
on the person's validation text is taken, the smallest of equals; with 0 the person keeps what they had. The test text
has no say, and nobody is made worse off on the text the gate has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedpeft.adapters.schema import Vector
from fedpeft.methods import Attached
from fedpeft.tasks import Encoded, Task
from fedpeft.training.evaluate import mean_loss


def choose_share(
    attached: Attached,
    slot: str,
    start: Vector,
    trained: Vector,
    task: Task[Any],
    validation: Encoded,
    shares: Sequence[float],
) -> float:
    """Return the share of a trained change that validation lets through.

    Parameters
    ----------
    attached : Attached
        With the wanted slots active; the slot's parameters are overwritten.
    slot : str
    start, trained : ndarray of float32
        The slot before and after training.
    task : Task
    validation : Encoded
        Without any, nothing is let through.
    shares : sequence of float
        To choose from, 0 among them.

    Returns
    -------
    float
    """
    if not validation.tokens:
        return 0.0

    def loss(share: float) -> float:
        attached.write(slot, attached.share(slot, start, trained, share))
        return mean_loss(attached, task, validation)

    return min(sorted(shares), key=loss)
