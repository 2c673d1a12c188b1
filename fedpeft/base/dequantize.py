"""Write out the weights that a quantized base computes with, as plain linear layers.

    W~ = dequantize(quantize(W)),      merged: W~ + s B A

An adapter that was trained over W~ has learnt to make up for its rounding: added to the published W instead, it makes
up for errors that are not there. NF4 computes with exactly W~. int8 also rounds what comes in, token by token, which no
weight can repeat: merged, that small noise is gone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedpeft.base.base import Base
from fedpeft.base.load import DTYPES, load_base
from fedpeft.base.quantize import MARKS


def load_dequantized(name: str, held: tuple[str, str], dtype: str = "float32", root: Path | None = None) -> Base:
    """Load the weights that adapters were trained against on a quantized base.

    Parameters
    ----------
    name : str
        As of :func:`fedpeft.base.load_base`.
    held : (str, str)
        What the quantized base computed in, and what it was quantized to: both decide the rounding.
    dtype : {"float32", "bfloat16", "float16"}
        What the weights are wanted in.
    root : Path, optional

    Returns
    -------
    Base
        Not quantized; its fingerprint is the published one's, as adapters know it.

    Raises
    ------
    BaseError
        When the base cannot be loaded or quantized so.
    """
    base = load_base(name, held[0], root, precision=held[1])
    dequantize(base.model, DTYPES[dtype])
    return replace(base, precision="full")


@torch.no_grad()
def dequantize(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Replace a model's quantized layers by linear ones in place, and hold all of it in ``dtype``."""
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    packed = {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit | Linear8bitLt)}
    while packed:  # one at a time, as quantization does
        name, module = packed.popitem()
        weight = _weight(module).to(dtype)
        layer = nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
        layer.weight, layer.bias = nn.Parameter(weight, requires_grad=False), module.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    for mark in MARKS:
        if hasattr(model, mark):
            setattr(model, mark, False)
    nn.Module.to(model, dtype)


def _weight(module: nn.Module) -> Tensor:
    """Return what a quantized layer multiplies with; shape (out, in)."""
    from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
    from bitsandbytes.nn.modules import Params4bit

    found: Tensor
    weight = module.get_parameter("weight")
    if isinstance(weight, Params4bit):
        found = dequantize_4bit(weight.data, weight.quant_state)
        return found
    # The first forward pass moves rows and scales from the parameter to the layer's state.
    held = weight if weight.CB is not None else module.state  # type: ignore[attr-defined]
    found = int8_vectorwise_dequant(held.CB, held.SCB)  # type: ignore[union-attr, arg-type]
    return found
