"""Measure what averaging a method's parameters does to the change they make: a declared algebra is a claim to check.

Clients i hold θ_i = θ + d ε_i, ε_i ~ N(0, 1) around a common random θ. With C(θ) the change at every place
(:meth:`~fedpeft.methods.attachment.Attachment.changes`) the error of the mean is

    ||C(mean θ_i) - mean C(θ_i)|| / ||mean C(θ_i) - C(θ)||

It is rounding for a method that is linear (or affine) in its parameters. A multilinear method is linear in each of its
kinds of tensors while the others stand still, so it is measured kind by kind as well. What is neither is a norm or a
network, which this cannot tell apart. A set is linear in what it stacks; only a permutation shows that its mean is not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedpeft.adapters.schema import Vector
from fedpeft.methods.attached import Attached
from fedpeft.methods.method import Algebra

EXACT = 1e-5
"""The largest relative error that is rounding."""
_DEVIATION = 0.3


def measured_error(
    attached: Attached, slot: str, clients: int = 4, seed: int = 0, keep: Callable[[str], bool] = lambda _: True
) -> float:
    """Return the relative error of the mean of parameters against the mean of changes.

    Parameters
    ----------
    attached : Attached
        Its slot's values are put back afterwards.
    slot : str
    clients : int
        How many take part in the mean.
    seed : int
        Decides the point and the clients' parameters.
    keep : callable
        The tensors in which the clients differ; all by default.

    Returns
    -------
    float
        0 also when nothing that the clients differ in makes a change; NaN when the method shows no change anywhere.
    """
    rng = np.random.default_rng(seed)
    before, schema = attached.read(slot), attached.schemas[slot]

    def moved(vector: Vector) -> Vector:
        return np.asarray(vector + _DEVIATION * rng.standard_normal(schema.size), np.float32)

    try:
        # Not the seeded start itself: where a factor is zero, nothing of the other one shows.
        point, mask = moved(attached.initial[slot]), schema.mask(keep)
        held = [np.where(mask, moved(point), point) for _ in range(clients)]
        mean_of_changes = np.mean([_change(attached, slot, vector) for vector in held], axis=0)
        # Summed in float64: the rounding of a float32 sum is a change too.
        mean = np.asarray(np.mean(held, axis=0, dtype=np.float64), np.float32)
        change_of_mean = _change(attached, slot, mean)
        distance = float(np.linalg.norm(mean_of_changes - _change(attached, slot, point)))
        error = float(np.linalg.norm(change_of_mean - mean_of_changes))
    finally:
        attached.write(slot, before)
    return error / distance if distance else 0.0


def classify(attached: Attached, slot: str, clients: int = 4, seed: int = 0) -> frozenset[Algebra]:
    """Return the algebras that the measurement leaves possible; a set looks linear."""
    together = measured_error(attached, slot, clients, seed)
    if np.isnan(together):
        return frozenset({Algebra.UNKNOWN})
    if together < EXACT:
        return frozenset({Algebra.LINEAR, Algebra.SET})
    kinds = sorted({_kind(name) for name in attached.schemas[slot].names()})
    alone = [measured_error(attached, slot, clients, seed, _only(kind)) for kind in kinds]
    return frozenset({Algebra.MULTILINEAR} if max(alone) < EXACT else {Algebra.NORM, Algebra.NETWORK})


def _change(attached: Attached, slot: str, vector: Vector) -> np.ndarray:
    attached.write(slot, vector)
    changes = attached.changes(slot)
    parts = [changes[name].detach().double().cpu().numpy().ravel() for name in sorted(changes)]
    return np.concatenate(parts) if parts else np.full(1, np.nan)


def _only(kind: str) -> Callable[[str], bool]:
    return lambda name: _kind(name) == kind


def _kind(name: str) -> str:
    """Return what a tensor is called in its module: ``lora_A`` of ``...q_proj.lora_A.weight``."""
    return name.removesuffix(".weight").rpartition(".")[2]
