"""Where things are in a transformer: the places that methods attach to, by the names two families give them.

``llama``: decoder layers with ``self_attn`` (``q_proj``, ``k_proj``, ``v_proj``, ``o_proj``) and ``mlp``: Llama, Qwen2,
Mistral, SmolLM2 and ``keyboard``. ``bert``: encoder layers with ``attention.self`` (``query``, ``key``, ``value``),
``attention.output.dense``, ``intermediate`` and ``output.dense``: BERT, RoBERTa, MiniLM.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, cast

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fedpeft.errors import ScenarioError, nearest

LINEAR = (nn.Linear, Conv1D)
HEADS = ("classifier", "score")


@dataclass(frozen=True)
class Layer:
    """One transformer layer's modules.

    Parameters
    ----------
    number : int
    query, key, value : nn.Module
        Linear projections of the attention's input.
    attention : nn.Module
        The linear whose output is the attention's, before the residual sum.
    feed_forward_in, feed_forward_out : nn.Module
        The input of the first is the feed-forward block's, the output of the second its result; they may be one.
    """

    number: int
    query: nn.Module
    key: nn.Module
    value: nn.Module
    attention: nn.Module
    feed_forward_in: nn.Module
    feed_forward_out: nn.Module


@dataclass(frozen=True)
class Layout:
    """A model's places and sizes.

    Parameters
    ----------
    backbone : nn.Module
        From token ids to the last hidden state.
    embedding : nn.Module
        The input embedding.
    layers : tuple of Layer
    hidden, heads, key_value_heads, head_size : int
    """

    backbone: nn.Module
    embedding: nn.Module
    layers: tuple[Layer, ...]
    hidden: int
    heads: int
    key_value_heads: int
    head_size: int


def layout(model: PreTrainedModel) -> Layout:
    """Find a model's places.

    Raises
    ------
    ScenarioError
        When the model is of neither family.
    """
    backbone = getattr(model, model.base_model_prefix, model)
    config: Any = model.config
    heads = int(getattr(config, "num_attention_heads", 0))
    layers = tuple(_layers(backbone))
    if not layers:
        raise ScenarioError(
            "method.name",
            f"a method for transformer layers on {config.model_type}",
            "a model of the Llama or BERT family",
            "lora and peft:NAME attach to any linear layer",
        )
    return Layout(
        backbone=backbone,
        embedding=model.get_input_embeddings(),
        layers=layers,
        hidden=int(config.hidden_size),
        heads=heads,
        key_value_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_size=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
    )


def _layers(backbone: nn.Module) -> Iterator[Layer]:
    decoder = getattr(backbone, "layers", None)
    encoder = getattr(getattr(backbone, "encoder", None), "layer", None)
    for number, layer in enumerate(cast(Any, decoder or encoder or ())):
        if hasattr(layer, "self_attn") and hasattr(layer, "mlp"):
            own = layer.self_attn
            yield Layer(number, own.q_proj, own.k_proj, own.v_proj, own.o_proj, layer.mlp, layer.mlp)
        elif hasattr(layer, "attention") and hasattr(layer, "intermediate"):
            own, dense = layer.attention.self, layer.attention.output.dense
            yield Layer(number, own.query, own.key, own.value, dense, layer.intermediate, layer.output.dense)


def linear_targets(model: nn.Module) -> list[str]:
    """Return the shortest names that match exactly the linear modules inside a model's numbered layers.

    Output heads, poolers and embeddings lie outside the layers and are left alone.
    """
    names = list(_linear_modules(model))
    inside = {name: match[1] for name in names if (match := re.fullmatch(r"(?:.*\.)?\d+\.(.+)", name))}
    outside = [f".{name}" for name in names if name not in inside]
    targets = set()
    for suffix in set(inside.values()):
        last = suffix.rsplit(".", 1)[-1]
        alone = {s for s in inside.values() if s.endswith(last)} == {suffix}
        short = last if alone and not any(name.endswith(f".{last}") for name in outside) else suffix
        targets.add(short)
    return sorted(targets)


def require_targets(model: nn.Module, targets: str | list[str], field: str = "method.targets") -> list[str]:
    """Return the names of the modules to adapt, ``all-linear`` spelt out.

    Raises
    ------
    ScenarioError
        For a name that no linear module has; it lists the ones that exist. peft would leave it out silently.
    """
    known = linear_targets(model)
    if targets == "all-linear":
        return known
    linear = [f".{name}" for name in _linear_modules(model)]
    wanted = [targets] if isinstance(targets, str) else list(targets)
    unknown = [t for t in wanted if not any(name.endswith(f".{t}") for name in linear)]
    if unknown or not wanted:
        value = unknown[0] if unknown else targets
        raise ScenarioError(field, value, "names of linear modules", _remedy(str(value), known))
    return wanted


def linears(model: nn.Module, targets: str | list[str]) -> dict[str, nn.Module]:
    """Return the linear modules that ``targets`` names, by their full name, in the model's order."""
    wanted = require_targets(model, targets)
    return {
        name: module
        for name, module in _linear_modules(model).items()
        if any(f".{name}".endswith(f".{t}") for t in wanted)
    }


def _linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the base's own linear modules by name, also where peft has already wrapped them."""
    found: dict[str, nn.Module] = {}
    wrapped: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(wrapped) and wrapped:
            continue
        if isinstance(module, BaseTunerLayer):
            found[name] = module.get_base_layer()
            wrapped += (f"{name}.",)
        elif isinstance(module, LINEAR):
            found[name] = module
    return {name: module for name, module in found.items() if isinstance(module, LINEAR)}


def features(module: nn.Module) -> tuple[int, int]:
    """Return a linear module's input and output width."""
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.nf)
    linear = cast(nn.Linear, module)
    return linear.in_features, linear.out_features


def base_parameters(model: PreTrainedModel) -> int:
    """Return how many numbers a base holds, tied ones once; neither its head nor adapters already on it count."""
    wide = {id(module.weight): features(module) for module in _linear_modules(model).values()}
    adapters = {
        id(parameter)
        for layer in model.modules()
        if isinstance(layer, BaseTunerLayer)
        for name, parameter in cast(nn.Module, layer).named_parameters()
        if not name.startswith("base_layer.")
    }
    backbone, output = getattr(model, model.base_model_prefix, model), model.get_output_embeddings()
    own = {id(p): p for part in (backbone, output) if part is not None for p in part.parameters()}
    # Quantized weights are packed: their own count is smaller.
    return sum(prod(wide.get(key, p.shape)) for key, p in own.items() if key not in adapters)


def require_rank(model: nn.Module, rank: int, targets: str | list[str], field: str = "method.rank") -> None:
    """Refuse a rank that no factor of a target can have.

    Raises
    ------
    ScenarioError
        Naming the narrowest module and its width.
    """
    widths = {name: min(features(module)) for name, module in linears(model, targets).items()}
    narrowest = min(widths, key=lambda name: widths[name])
    if rank > widths[narrowest]:
        raise ScenarioError(field, rank, f"at most {widths[narrowest]}", f"{narrowest} is {widths[narrowest]} wide")


def _remedy(name: str, known: list[str]) -> str:
    return f"{nearest(name, known)}; modules of this base: {', '.join(known)}"
