"""An encoder as a graph: texts in, what a head reads of them, and what the adapter's own head makes of that.

    pooled = Σ_t m_t h_t / Σ_t m_t      or the architecture's own pooler
    logits = pooled head.weight + head.bias

==================================  ===================================================
in   ``input_ids``                  int64 (batch, length), padded on the right
in   ``attention_mask``             int64 (batch, length), 1 where there is text
out  ``logits``                     float32 (batch, classes); no classes without an adapter
out  ``pooled``                     float32 (batch, hidden)
==================================  ===================================================
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_ir as ir
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from fedpeft.base import Base
from fedpeft.device.manifest import EncoderFacts
from fedpeft.errors import BaseError
from fedpeft.export.encoder_head import BIAS, WEIGHT, Head
from fedpeft.export.encoder_pool import Pooled
from fedpeft.export.options import ExportOptions, Pooling
from fedpeft.export.torch_sites import Grafted, add_sites, linear_layers
from fedpeft.export.torch_trace import Traced, trace

_UNLIMITED = 1 << 20
"""Tokenizers without a limit of their own say an astronomical number."""


def trace_encoder(base: Base, options: ExportOptions) -> tuple[ir.Model, Grafted, EncoderFacts]:
    """Make the graph of an encoder with its sites and those of a head: without one, no adapter fills them.

    Parameters
    ----------
    base : Base
        With labels, or an encoder without a head. Its files are traced, not its model object, which may carry adapters.
    options : ExportOptions

    Returns
    -------
    model : onnx_ir.Model
        float32, its sites without defaults.
    graph : Grafted
    facts : EncoderFacts

    Raises
    ------
    BaseError
        When torch cannot trace it, or its head is not made of linear layers.
    ScenarioError
        When an option is not for traced graphs.
    """
    pooling, head = options.pooling, Head.of(base) if base.labels else None
    if pooling == "model" and head is None:
        raise BaseError(f"base {base.name} pooling", pooling, "'mean'", "there is no head that could read a pooler")
    if pooling == "model" and head is not None:
        head.require_linear()
    if pooling == "model" and head is not None and head.layers:
        # Biases of the head's inner layers have sites of their own, whatever else is wanted.
        options = replace(options, sites=options.sites | {"lora", "bias"})
    model = trace(base, f"encoder-{pooling}", lambda: _describe(base, head, pooling))
    graph = add_sites(model, options, "model", linear_layers(base.model), {head.last} if head else set())
    (pooled,) = model.graph.outputs
    hidden = pooled.shape[-1] if pooled.shape is not None else None
    if not isinstance(hidden, int):
        raise BaseError(f"base {base.name}", f"an output of shape {pooled.shape}", "one vector of fixed width per text")
    _add_head(model, graph, pooled, hidden)
    config = base.model.config
    return (
        model,
        graph,
        EncoderFacts(
            context=_context(base), vocabulary=config.vocab_size, hidden=hidden, pad=base.tokenizer.pad_token_id or 0
        ),
    )


def _describe(base: Base, head: Head | None, pooling: Pooling) -> Traced:
    settings: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    if head is None:
        model = AutoModel.from_pretrained(base.folder, **settings)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(base.folder, num_labels=base.labels, **settings)
        head.clear(model)
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[0, 5:] = 0
    ids = torch.where(mask.bool(), torch.full((2, 7), 1), base.tokenizer.pad_token_id or 0)
    dims = {0: "batch", 1: "length"}
    return Traced(Pooled(model, pooling), (ids, mask), (dims, dims), ["input_ids", "attention_mask"], ["pooled"])


def _add_head(model: ir.Model, graph: Grafted, pooled: ir.Value, hidden: int) -> None:
    weight = graph.site(WEIGHT, (hidden, "head.classes"))
    scores = graph.op("MatMul", [pooled, weight], "head/MatMul")
    logits = graph.op("Add", [scores, graph.site(BIAS, ("head.classes",))], "head/Add")
    logits.name, logits.type, logits.shape = "logits", pooled.type, ir.Shape(["batch", "head.classes"])
    node = pooled.producer()
    assert node is not None  # noqa: S101 - it is computed
    graph.put(model, node)
    model.graph.outputs.insert(0, logits)


def _context(base: Base) -> int:
    """Return the most tokens of a text: as many as there are positions, and as its tokenizer allows."""
    limits = [int(base.tokenizer.model_max_length)]
    positions = getattr(base.model.config, "max_position_embeddings", None)
    if positions:
        table = next((m for n, m in base.model.named_modules() if n.endswith("position_embeddings")), None)
        # RoBERTa counts its positions from behind the padding's.
        offset = getattr(table, "padding_idx", None)
        limits.append(positions - (0 if offset is None else offset + 1))
    found = [limit for limit in limits if 0 < limit < _UNLIMITED]
    return min(found, default=512)
