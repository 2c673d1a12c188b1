"""Fewer directions for the same change: the best approximation of a LoRA by one of lower rank.

With B = Q R and s Aᵀ = P T (thin QR), ``s B A = Q (R Tᵀ) Pᵀ``, and the SVD of the small middle matrix is the SVD of
the change. Dropping its smallest directions is the best that a rank allows (Eckart & Young 1936), and the squared
singular values dropped are the squared error. No matrix of the base's size is ever made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fedpeft.adapters.adapter import Adapter
from fedpeft.adapters.factors import Factors, Matrix, assemble, change_error, factors
from fedpeft.errors import AdapterError


class Spectrum(NamedTuple):
    """The singular value decomposition of one module's change: ``left @ diag(values) @ right``."""

    left: Matrix
    values: Matrix
    right: Matrix


@dataclass(frozen=True)
class Pruned:
    """A smaller adapter, and what it lost.

    Parameters
    ----------
    adapter : Adapter
    kept, of : int
        Numbers it holds, and held before.
    energy : float
        Share of the squared magnitude that was ranked and kept: of the numbers, or of the singular values.
    error : float
        Relative error of the change, ``||ΔW' − ΔW|| / ||ΔW||``; of the parameters for other methods than LoRA.
    """

    adapter: Adapter
    kept: int
    of: int
    energy: float
    error: float


@dataclass(frozen=True)
class Profile:
    """What a LoRA does to one module.

    Parameters
    ----------
    module : str
    rank : int
    scaling : float
    norm : float
        Frobenius norm of the change.
    share : float
        Of the squared norm of all changes.
    directions : int
        How many of its directions hold 90 % of its squared norm.
    """

    module: str
    rank: int
    scaling: float
    norm: float
    share: float
    directions: int


def profile(adapter: Adapter) -> list[Profile]:
    """Say what a LoRA changes, the most changed module first.

    Raises
    ------
    AdapterError
        When the adapter is not a plain LoRA.
    """
    found = []
    for module, part in factors(adapter).items():
        energy = _spectrum(part).values ** 2
        directions = int(np.count_nonzero(np.cumsum(energy) < 0.9 * energy.sum())) + 1
        found.append(Profile(module, part.rank, part.scaling, float(energy.sum()) ** 0.5, 0.0, directions))
    whole = sum(p.norm**2 for p in found) or 1.0
    return sorted((replace(p, share=p.norm**2 / whole) for p in found), key=lambda p: -p.norm)


def spectra(adapter: Adapter) -> dict[str, Spectrum]:
    """Return the singular values and directions of a LoRA's change by module, largest first."""
    return {module: _spectrum(part) for module, part in factors(adapter).items()}


def compress(adapter: Adapter, rank: int) -> Pruned:
    """Bring every module of a LoRA down to a rank; modules of that rank or less keep theirs.

    Raises
    ------
    AdapterError
        When the adapter is not a plain LoRA, or the rank is none.
    """
    if rank < 1:
        raise AdapterError("rank", rank, "1 or more")
    found = spectra(adapter)
    return _truncate(adapter, found, {module: min(rank, len(s.values)) for module, s in found.items()})


def prune_rank(adapter: Adapter, density: float) -> Pruned:
    """Drop the directions of a LoRA that matter least per number they cost, in whichever module they are.

    Parameters
    ----------
    adapter : Adapter
    density : float
        Share of the numbers that may stay, in (0, 1].

    Raises
    ------
    AdapterError
        When the adapter is not a plain LoRA, or too little may stay for a single direction.
    """
    if not 0.0 < density <= 1.0:
        raise AdapterError("density", density, "more than 0 and at most 1")
    found = spectra(adapter)
    # The values of a module fall and each costs the same there, so a prefix of this order is a rank per module.
    ranked = sorted(
        (-(float(value) ** 2) / _cost(s), module, i) for module, s in found.items() for i, value in enumerate(s.values)
    )
    costs = np.cumsum([_cost(found[module]) for _, module, _ in ranked])
    count = int(np.searchsorted(costs, density * adapter.schema.size, side="right"))
    ranks = dict.fromkeys(found, 0)
    for _, module, _ in ranked[:count]:
        ranks[module] += 1
    if not count:
        raise AdapterError("density", density, f"enough for one direction, {int(min(costs)) / adapter.schema.size:.3f}")
    return _truncate(adapter, found, ranks)


def _truncate(adapter: Adapter, found: Mapping[str, Spectrum], ranks: Mapping[str, int]) -> Pruned:
    parts = {}
    for module, (left, values, right) in found.items():
        root, rank = np.sqrt(values[: ranks[module]]), ranks[module]
        parts[module] = Factors(root[:, None] * right[:rank], left[:, :rank] * root)
    smaller = assemble(parts, adapter)
    whole = sum(float(s.values @ s.values) for s in found.values())
    kept = sum(float(s.values[: ranks[m]] @ s.values[: ranks[m]]) for m, s in found.items())
    error = change_error(smaller, [adapter], [1.0])
    return Pruned(smaller, smaller.schema.size, adapter.schema.size, kept / whole if whole else 1.0, error)


def _spectrum(part: Factors) -> Spectrum:
    left, upper = np.linalg.qr(part.scaling * part.b.astype(np.float64))
    right, lower = np.linalg.qr(part.a.astype(np.float64).T)
    inner, values, outer = np.linalg.svd(upper @ lower.T, full_matrices=False)
    return Spectrum(left @ inner, values, outer @ right.T)


def _cost(spectrum: Spectrum) -> int:
    """Return how many numbers one direction takes."""
    return int(spectrum.left.shape[0] + spectrum.right.shape[1])
