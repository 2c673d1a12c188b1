"""Hold a base's linear layers in 4 or 8 bits while adapters over them train in full precision (QLoRA).

``nf4``: blocks of 64 weights are scaled by their largest and rounded to the quantiles of a normal distribution; the
scales are themselves held in 8 bits ("double quantization"): 4.13 bits a weight (Dettmers et al. 2023,
arXiv:2305.14314). ``int8``: rows of weights and of activations are rounded to 8 bits, and the few columns of
activations beyond 6 stay in 16 (Dettmers et al. 2022, arXiv:2208.07339). Gradients reach the inputs through both; the
weights themselves have none. Embeddings, the output head and a classifier are left as they are.

Quantized weights are private memory of each process, where a full base is mapped and shared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from torch import nn
from transformers import PreTrainedModel

from fedpeft.base.heap import drop_pages, mapped_weights
from fedpeft.errors import BaseError

BITS = {"int8": 8.0, "nf4": 4.13}
"""A quantized weight with its share of the scales: rows for int8, blocks of 64 with 8-bit scales for NF4."""

_OUTLIER = 6.0


def quantize(model: PreTrainedModel, precision: str, keep: Iterable[str] = ()) -> None:
    """Replace a model's linear layers in place.

    Parameters
    ----------
    model : PreTrainedModel
        Computes in the same precision afterwards as before.
    precision : {"nf4", "int8"}
    keep : iterable of str
        Parameters whose modules stay as they are, besides the output embedding.

    Raises
    ------
    BaseError
        When the model has no linear layer to quantize, or one with a shape that 4 bits do not fit.
    """
    make, mark = _KINDS[precision]
    linear = packable(model, keep)
    if not linear:
        raise BaseError(
            "base.precision", precision, f"linear layers to quantize; {type(model).__name__} has none", "use 'full'"
        )
    odd = next((name for name, module in linear.items() if module.in_features % 2), None)
    if precision == "nf4" and odd:
        # Two weights share a byte; rows that end within one are unpacked by code that is compiled for every shape.
        raise BaseError(
            "base.precision", precision, f"an even number of inputs to every layer; {odd} has an odd one", "use 'int8'"
        )
    mapped = mapped_weights()
    while linear:  # one at a time, so that the full weights of one layer at most lie beside the quantized ones
        name, module = linear.popitem()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, make(module))
        drop_pages(module.weight.detach(), mapped)
    # What peft asks, to choose adapter layers that know such weights.
    setattr(model, mark, True)


def packable(model: PreTrainedModel, keep: Iterable[str] = ()) -> dict[str, nn.Linear]:
    """Return the linear layers that quantization packs, by name; as :func:`quantize`."""
    kept = {name.rpartition(".")[0] for name in keep}
    output = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module is not output and name not in kept
    }


def _nf4(linear: nn.Linear) -> nn.Module:
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    layer = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=linear.weight.dtype,
        quant_type="nf4",
        device="meta",
    )
    layer.weight = Params4bit(linear.weight.data, quant_type="nf4", compress_statistics=True, module=layer)
    layer.bias = linear.bias
    # On processors with AVX512-BF16 the first forward pass without gradients would repack the weights into a form that
    # has no backward pass (and that not every shape fits): adapters then get no gradient, and nothing says so.
    layer.support_avx512bf16_for_cpu = False
    layer.to(linear.weight.device)
    return layer


def _int8(linear: nn.Linear) -> nn.Module:
    from bitsandbytes.nn.modules import Int8Params, Linear8bitLt

    # It says at every call that it casts its input to float16 before rounding it to 8 bits.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    layer = Linear8bitLt(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        has_fp16_weights=False,
        threshold=_OUTLIER,
        device="meta",
    )
    layer.weight = Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
    layer.bias = linear.bias
    layer.to(linear.weight.device)
    return layer


_KINDS: dict[str, tuple[Callable[[nn.Linear], nn.Module], str]] = {
    "nf4": (_nf4, "is_loaded_in_4bit"),
    "int8": (_int8, "is_loaded_in_8bit"),
}

MARKS = tuple(mark for _, mark in _KINDS.values())
"""Attributes by which a model says that it is quantized."""

PRECISIONS = ("full", *_KINDS)
"""How a base's linear layers may be held."""
