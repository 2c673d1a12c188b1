"""Arithmetic on adapters, exact where there is such a thing.

``cat`` stacks LoRA adapters along the rank: with A = [A1; A2] and B = [w1 s1 B1, w2 s2 B2] and scaling 1,
``B A = w1 s1 B1 A1 + w2 s2 B2 A2``; each number of B is rounded once. A module that an adapter does not change has
rank 0 there. Averaging A and B separately is not exact (see facts: .44 relative error), so a global and a private
adapter are joined this way. The sum of ranks can be brought back down with :mod:`~fedpeft.adapters.compress`.

Everything else of task arithmetic (Ilharco et al. 2023, arXiv:2212.04089) is ``cat`` under another name:

    add(a, b) = a + b    subtract(a, b) = a - b    scale(a, w) = w a    negate(a) = -a    mean(a_i) = Σ a_i / n

``linear`` adds parameters instead of changes. That is exact for methods whose change is linear in what they train
(Fourier coefficients, LoRA with a common frozen A, scales counted from 1): the caller, who knows the method, says so
by choosing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedpeft.adapters.adapter import Adapter
from fedpeft.adapters.factors import Factors, assemble, change_error, factors, lora_scaling
from fedpeft.adapters.schema import Vector
from fedpeft.errors import AdapterError

__all__ = ["add", "cat", "compose_error", "linear", "lora_scaling", "mean", "negate", "scale", "subtract"]


def cat(adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """Join LoRA adapters of one base into one whose change is the weighted sum of theirs.

    Parameters
    ----------
    adapters : sequence of Adapter
        Ranks, scalings and modules may differ; any plain LoRA will do, rsLoRA too.
    weights : sequence of float
        One per adapter; they may be negative and need not sum to 1.

    Returns
    -------
    Adapter
        In each module its rank is the sum of the ranks, its scaling 1.

    Raises
    ------
    AdapterError
        When an adapter is not a plain LoRA, or bases differ.
    """
    _check(adapters, weights)
    stacks: dict[str, list[Factors]] = {}
    for adapter, weight in zip(adapters, weights, strict=True):
        for module, part in factors(adapter).items():
            stacks.setdefault(module, []).append(replace(part, scaling=weight * part.scaling))
    return assemble({module: _stack(parts) for module, parts in stacks.items()}, adapters[0])


def add(*adapters: Adapter) -> Adapter:
    """Return the LoRA that changes what all of them change, added up."""
    return cat(adapters, [1.0] * len(adapters))


def subtract(adapter: Adapter, other: Adapter) -> Adapter:
    """Return the LoRA that undoes ``other``'s change in ``adapter``."""
    return cat([adapter, other], [1.0, -1.0])


def scale(adapter: Adapter, weight: float) -> Adapter:
    """Return a LoRA whose change is ``weight`` times as large; its rank does not grow."""
    return cat([adapter], [weight])


def negate(adapter: Adapter) -> Adapter:
    """Return the opposite of a LoRA: to forget what it learnt."""
    return scale(adapter, -1.0)


def mean(adapters: Sequence[Adapter]) -> Adapter:
    """Return the LoRA whose change is the mean of theirs."""
    return cat(adapters, [1.0 / max(len(adapters), 1)] * len(adapters))


def linear(adapters: Sequence[Adapter], weights: Sequence[float], origin: Vector | float = 0.0) -> Adapter:
    """Add parameters: ``origin + Σ w (v - origin)``.

    Exact for methods whose change is linear in their parameters, which the caller vouches for.

    Parameters
    ----------
    adapters : sequence of Adapter
        Of one schema and configuration.
    weights : sequence of float
    origin : ndarray or float
        The parameters that change nothing: 0 where changes are added, 1 where outputs are scaled (IA3), the
        common start where some tensors are frozen.

    Raises
    ------
    AdapterError
        When bases, schemas or configurations differ.
    """
    _check(adapters, weights)
    first = adapters[0]
    for adapter in adapters[1:]:
        first.schema.check(dict(adapter.schema.shapes))
        if adapter.schema.digest != first.schema.digest:
            raise AdapterError("adapter context", adapter.schema.context[:12], "one frozen context for all")
        for key in sorted(first.config.keys() | adapter.config.keys()):
            if adapter.config.get(key) != first.config.get(key):
                raise AdapterError(f"adapter {key}", adapter.config.get(key), f"{first.config.get(key)!r} in all")
    start = np.asarray(origin, np.float64)
    total = sum(w * (a.vector.astype(np.float64) - start) for a, w in zip(adapters, weights, strict=True))
    return replace(first, vector=np.asarray(start + total, np.float32))


def compose_error(adapters: Sequence[Adapter], weights: Sequence[float]) -> float:
    """Return the relative error of :func:`cat` against ``Σ w ΔW`` in float64: what rounding costs."""
    return change_error(cat(adapters, weights), adapters, weights)


def _stack(parts: Sequence[Factors]) -> Factors:
    sides = {(part.a.shape[1], part.b.shape[0]) for part in parts}
    if len(sides) > 1:
        raise AdapterError("adapter modules", sorted(sides), "one (in, out) for a module in all adapters")
    scaled = [part.scaling * part.b.astype(np.float64) for part in parts]
    return Factors(np.concatenate([part.a for part in parts]), np.concatenate(scaled, axis=1))


def _check(adapters: Sequence[Adapter], weights: Sequence[float]) -> None:
    if not adapters or len(adapters) != len(weights):
        raise AdapterError("adapter weights", len(weights), f"one for each of {len(adapters) or 'some'} adapters")
    if not np.isfinite(weights).all():
        raise AdapterError("adapter weights", list(weights), "finite numbers")
    for adapter in adapters:
        adapter.require_base(adapters[0].base)
