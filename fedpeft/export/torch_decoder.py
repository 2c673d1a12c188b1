"""A decoder of any architecture, traced by torch: for those that no graph is written for by hand, such as GPT-2.

Inputs and outputs are named and shaped as the native graphs' (see :mod:`~fedpeft.export.llama`), so the same runtime
runs both. What differs: past and new keys are concatenated by the graph, which therefore knows no buffers that they
share, and a row's positions are counted from the length of the past, so rows are never padded.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache

from fedpeft.base import Base
from fedpeft.errors import BaseError
from fedpeft.export.llama import Dimensions
from fedpeft.export.options import ExportOptions
from fedpeft.export.torch_sites import Grafted, add_sites, linear_layers
from fedpeft.export.torch_trace import Traced, trace


def trace_decoder(base: Base, options: ExportOptions) -> tuple[ir.Model, Grafted, Dimensions]:
    """Make the graph of a decoder with its sites; see :func:`fedpeft.export.llama.write_llama` for its inputs.

    Parameters
    ----------
    base : Base
        Its files are traced, not its model object, which may carry adapters.
    options : ExportOptions

    Returns
    -------
    model : onnx_ir.Model
        float32, its sites without defaults.
    graph : Grafted
    dimensions : Dimensions

    Raises
    ------
    BaseError
        When torch cannot trace it, or it does not keep keys and values of every layer.
    ScenarioError
        When an option is not for traced graphs.
    """
    d = _dimensions(base)
    model = trace(base, "decoder", lambda: _describe(base, d))
    head = _head(base)
    graph = add_sites(model, options, "model", linear_layers(base.model), {head} if head else ())
    return model, graph, d


class _WithPast(nn.Module):
    """A language model that takes and gives keys and values as flat tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, past: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return logits (batch, new, vocabulary), and key and value of each layer."""
        cache = DynamicCache()
        for i, (key, value) in enumerate(past):
            cache.update(key, value, i)
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True)
        return out.logits, [(layer.keys, layer.values) for layer in out.past_key_values.layers]


def _describe(base: Base, d: Dimensions) -> Traced:
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32, attn_implementation="eager")
    shape, past = (2, d.kv_heads, 5, d.head_dim), {0: "batch", 2: "past"}
    arguments: tuple[Any, ...] = (
        torch.full((2, 3), 1),
        torch.ones(2, 8, dtype=torch.int64),
        [(torch.zeros(shape), torch.zeros(shape)) for _ in range(d.layers)],
    )
    names = [f"{i}.{part}" for i in range(d.layers) for part in ("key", "value")]
    return Traced(
        _WithPast(model),
        arguments,
        ({0: "batch", 1: "new"}, {0: "batch", 1: "total"}, [(past, past)] * d.layers),
        ["input_ids", "attention_mask", *(f"past_key_values.{name}" for name in names)],
        ["logits", *(f"present.{name}" for name in names)],
    )


@torch.no_grad()
def _dimensions(base: Base) -> Dimensions:
    """Read a decoder's sizes off the keys that it keeps of two tokens; configurations name them in too many ways."""
    config = base.model.config.get_text_config(decoder=True)
    cache = base.model(input_ids=torch.full((1, 2), 1), use_cache=True).past_key_values
    layers = getattr(cache, "layers", [])
    shapes = {
        tuple(t.shape)
        for layer in layers
        for t in (getattr(layer, "keys", None), getattr(layer, "values", None))
        if t is not None
    }
    context = getattr(config, "max_position_embeddings", None)
    if len(shapes) != 1 or len(layers) != config.num_hidden_layers or not context:
        found = f"{len(layers)} layers of {len(shapes)} shapes and a context of {context}"
        raise BaseError(f"base {base.name} cache", found, "keys and values of one shape in every layer, and a context")
    _, kv_heads, _, head_dim = shapes.pop()
    return Dimensions(
        layers=len(layers),
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=config.vocab_size,
        context=context,
        epsilon=0.0,
    )


def _head(base: Base) -> str | None:
    """Return the module that scores the vocabulary, which takes no adapter."""
    head = base.model.get_output_embeddings()
    return next((name for name, module in base.model.named_modules() if module is head), None)
