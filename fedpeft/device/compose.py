"""One adapter that does what several do together, each as strongly as its weight says.

With adapter i on and the others off, a site's output changes by f_i; composed, it changes by the sum of w_i f_i. For
what changes a weight by A B the sum is exact when ranks are put side by side,

    A = [A_1 | A_2 | …],   B = [w_1 B_1 ; w_2 B_2 ; …]

and so it is for the widths of bottlenecks in one place. Biases are summed. Scales multiply what the others add, and
soft prompts and prefixes cannot all come first: of several adapters at most one may have a soft prompt, at full weight,
and none a scale or a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from fedpeft.device.loaded import LoadedAdapter, from_values
from fedpeft.errors import FedpeftError

Part = tuple[float, NDArray[np.float32]]

_BESIDE = {".lora_A.weight": 1, ".down": 1, ".down_bias": 0}
"""Put side by side as they are, along this axis."""
_BELOW = {".lora_B.weight": 0, ".up": 0}
"""Put side by side, each times its weight."""
_SUMMED = (".bias_delta", ".up_bias")
_SCALES = (".in_scale", ".out_scale")


def compose(adapters: Sequence[LoadedAdapter], weights: Sequence[float]) -> LoadedAdapter:
    """Put adapters together.

    Parameters
    ----------
    adapters : sequence of LoadedAdapter
        Of one base.
    weights : sequence of float
        One each.

    Raises
    ------
    FedpeftError
        When there are none, a weight is missing or not finite, or a site cannot be composed.
    """
    if not adapters:
        raise FedpeftError("adapters", "none", "at least one")
    if len(weights) != len(adapters):
        raise FedpeftError("weights", f"{len(weights)} numbers", f"{len(adapters)}, one for each adapter")
    for weight in weights:
        if not isfinite(weight):
            raise FedpeftError("weights", weight, "finite numbers")
    if any(adapter.prefix for adapter in adapters):
        raise FedpeftError("adapters", "one with a prefix", "adapters without", "use it alone")
    parts: dict[str, list[Part]] = {}
    # Arrays are views of these, which do not keep them.
    held = [adapter.tensors() for adapter in adapters]
    for tensors, weight in zip(held, weights, strict=True):
        for name, value in tensors.items():
            parts.setdefault(name, []).append((weight, value.numpy()))
    if len(adapters) > 1 and (scales := [name for name in parts if name.endswith(_SCALES)]):
        raise FedpeftError(
            f"adapters {scales[0]}", "a scale", "adapters that only add", "use the one that scales alone"
        )
    arrays = {name: _together(name, found) for name, found in parts.items()}
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    owner = " + ".join(f"{weight:g} {adapter.owner}" for adapter, weight in zip(adapters, weights, strict=True))
    manifest = adapters[0].manifest.model_copy(
        update={
            "name": owner,
            "method": "composed",
            "precision": "float32",
            "files": {},
            "tensors": {name: array.shape for name, array in arrays.items()},
        }
    )
    composed = from_values(values, manifest)
    del held
    return composed


def parse_weights(text: str) -> Mapping[str, float]:
    """Read ``a=0.7,b=0.3``.

    Raises
    ------
    FedpeftError
        When it is something else.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = float("nan")
        if not name or not isfinite(weight) or name in weights:
            raise FedpeftError("compose", part.strip(), "different names with their weights, as in ada=0.7,bob=0.3")
        weights[name] = weight
    return weights


def _together(name: str, parts: Sequence[Part]) -> NDArray[np.float32]:
    ending = f".{name.removesuffix('.weight').rpartition('.')[2]}" + (".weight" if name.endswith(".weight") else "")
    if ending in _BESIDE:
        return np.ascontiguousarray(np.concatenate([array for _, array in parts], _BESIDE[ending]))
    if ending in _BELOW:
        return np.ascontiguousarray(np.concatenate([np.float32(w) * array for w, array in parts], _BELOW[ending]))
    if ending in _SUMMED:
        return np.asarray(sum(np.float32(w) * array for w, array in parts), np.float32)
    if len(parts) > 1 or parts[0][0] != 1:
        remedy = "it cannot be summed: use the adapter alone"
        raise FedpeftError(f"adapters {name}", [weight for weight, _ in parts], "one, of weight 1", remedy)
    return parts[0][1]
