"""Methods whose numbers are vectors as they are: IA3's scales and BitFit's biases.

in_scale = l_ff of a feed-forward layer,   out_scale = l of any other;   bias_delta = b
"""

from __future__ import annotations

from fedpeft.adapters import Adapter
from fedpeft.errors import AdapterError
from fedpeft.export.fill.filling import Filling, Inputs, contiguous, module_of
from fedpeft.export.fill.ground import Ground

_SCALE, _BIAS = ".ia3_l", ".bias"


def fill_ia3(adapter: Adapter, _ground: Ground | None) -> Filling:
    """Fill the sites of IA3; a row scales what a layer reads, a column what it gives.

    Raises
    ------
    AdapterError
        When a tensor is no scale.
    """
    inputs: Inputs = {}
    for name, scale in adapter.tensors().items():
        module = module_of(name, _SCALE)
        if scale.ndim != 2 or 1 not in scale.shape:
            raise AdapterError(f"adapter tensor {name}", scale.shape, "a row or a column")
        side = "in_scale" if scale.shape[0] == 1 else "out_scale"
        inputs[f"{module}.{side}"] = contiguous(scale.ravel())
    return Filling(inputs)


def fill_biases(adapter: Adapter) -> Filling:
    """Fill the sites of BitFit, in linear layers and norms."""
    return Filling(
        {f"{module_of(name, _BIAS)}.bias_delta": contiguous(bias) for name, bias in adapter.tensors().items()}
    )
