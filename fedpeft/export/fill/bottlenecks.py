"""Bottleneck adapters behind or beside a block; Compacter's sums of Kronecker products become the matrices they are.

down = Dᵀ,  down_bias = a,  up = s Uᵀ,  up_bias = s b;      D = Σ_i A_i ⊗ (s_i t_i) for a Compacter
"""

from __future__ import annotations

from collections.abc import Mapping
from re import compile as pattern

import numpy as np
from numpy.typing import NDArray

from fedpeft.adapters import Adapter
from fedpeft.errors import AdapterError
from fedpeft.export.fill.filling import Filling, Inputs, contiguous

_TENSOR = pattern(r"(?P<place>layers\.\d+\.(?:attention|feed_forward))\.(?P<part>.+)")
_BLOCKS = {"attention": "self_attn", "feed_forward": "mlp"}

Tensors = Mapping[str, NDArray[np.float32]]


def fill_bottlenecks(adapter: Adapter, form: str, activation: str, scale: float) -> Filling:
    """Fill the sites of plain bottlenecks.

    Parameters
    ----------
    adapter : Adapter
    form : {"serial", "parallel"}
    activation : str
    scale : float
        Before what they add.

    Raises
    ------
    AdapterError
        When a tensor belongs to no bottleneck.
    """
    inputs: Inputs = {}
    for place, parts in _places(adapter.tensors()).items():
        _require(place, parts, {"down.weight", "down.bias", "up.weight", "up.bias"})
        matrices = (parts["down.weight"].T, parts["up.weight"].T)
        inputs |= _named(place, form, activation, matrices, parts, scale)
    return Filling(inputs)


def fill_compacter(adapter: Adapter, activation: str) -> Filling:
    """Fill the same sites with a Compacter's.

    Raises
    ------
    AdapterError
        When a tensor belongs to no bottleneck, or the shared matrices are missing.
    """
    tensors = dict(adapter.tensors())
    rules = tensors.pop("shared.rules", None)
    if rules is None:
        raise AdapterError("adapter tensors", "no shared.rules", "a Compacter's shared matrices")
    inputs: Inputs = {}
    for place, parts in _places(tensors).items():
        _require(place, parts, {f"{side}.{part}" for side in ("down", "up") for part in ("left", "right", "bias")})
        matrices = tuple(_kronecker(rules, parts[f"{side}.left"], parts[f"{side}.right"]) for side in ("down", "up"))
        inputs |= _named(place, "serial", activation, (matrices[0], matrices[1]), parts, 1.0)
    return Filling(inputs)


def _kronecker(
    rules: NDArray[np.float32], left: NDArray[np.float32], right: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return ``Σ_i A_i ⊗ (s_i t_i)``, (read, write)."""
    inner = np.einsum("icr,ird->icd", left.astype(np.float64), right)
    whole: NDArray[np.float64] = np.sum([np.kron(r, product) for r, product in zip(rules, inner, strict=True)], axis=0)
    return whole


def _places(tensors: Tensors) -> dict[str, Inputs]:
    found: dict[str, Inputs] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise AdapterError(f"adapter tensor {name}", "an unknown tensor", "one of a bottleneck's")
        found.setdefault(match["place"], {})[match["part"]] = tensor
    return found


def _require(place: str, parts: Inputs, expected: set[str]) -> None:
    if parts.keys() != expected:
        raise AdapterError(f"adapter {place}", sorted(parts), ", ".join(sorted(expected)))


def _named(
    place: str,
    form: str,
    activation: str,
    matrices: tuple[NDArray[np.floating], NDArray[np.floating]],
    parts: Inputs,
    scale: float,
) -> Inputs:
    _, number, block = place.split(".")
    name = f"model.layers.{number}.{_BLOCKS[block]}.{form}.{activation}"
    return {
        f"{name}.down": contiguous(matrices[0]),
        f"{name}.down_bias": contiguous(parts["down.bias"]),
        f"{name}.up": contiguous(np.float32(scale) * matrices[1]),
        f"{name}.up_bias": contiguous(np.float32(scale) * parts["up.bias"]),
    }
