"""The Llama family (Touvron et al. 2023, arXiv:2302.13971) as an ONNX graph with fused attention.

Per layer, with rms(x) = g x / sqrt(mean(x²) + eps):

    h <- h + o_proj(attention(rope(q_proj x), rope(k_proj x), v_proj x)),      x = rms(h)
    h <- h + down_proj(silu(gate_proj x) * up_proj x),                         x = rms(h)

onnxruntime's ``GroupQueryAttention`` turns q and k by tabulated angles, appends k and v to the past and
attends causally. Inputs and outputs are named as onnxruntime-genai names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from fedpeft.errors import BaseError
from fedpeft.export.graph import FLOAT, INT32, INT64, Graph
from fedpeft.export.places import embedding, linear, parallel, serial, shifted

_FIXED_ROPES = ("default", "linear", "llama3", "yarn")
"""Kinds whose angles do not depend on how long the text is, so that they can be tabulated."""


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a decoder."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    epsilon: float

    @classmethod
    def of(cls, config: Any) -> Dimensions:
        """Read the sizes from a Llama configuration.

        Raises
        ------
        BaseError
            When the configuration asks for what the graph cannot do.
        """
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        for field, value, expected in (
            ("hidden_act", config.hidden_act, ("silu",)),
            ("rope_type", (config.rope_parameters or {}).get("rope_type"), _FIXED_ROPES),
            ("quantization_config", getattr(config, "quantization_config", None), (None,)),
            ("sliding window", _window(config), (None,)),
            ("head_dim modulo 16", head_dim % 16, (0,)),
        ):
            if value not in expected:
                known = " or ".join(map(str, expected))
                raise BaseError(f"base {field}", value, known, "this base cannot be exported yet")
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads or config.num_attention_heads,
            head_dim,
            config.vocab_size,
            config.max_position_embeddings,
            config.rms_norm_eps,
        )


def write_llama(graph: Graph, config: Any) -> Dimensions:
    """Write a whole decoder.

    ==================================  ===================================================
    in   ``input_ids``                  int64 (batch, new)
    in   ``attention_mask``             int64 (batch, total), ones, then zeros for padding: never on the left
    in   ``past_key_values.i.key``      float32 (batch, kv_heads, past, head_dim)
    in   ``past_key_values.i.value``    the same
    out  ``logits``                     float32 (batch, new, vocabulary)
    out  ``present.i.key``              float32 (batch, kv_heads, present, head_dim)
    out  ``present.i.value``            the same
    ==================================  ===================================================

    ``present`` is ``max(past, total)``. So one buffer, as long as the context, can be bound as past and present at
    once: each row's new keys and values are written where its ones in the mask end, and nothing is copied.

    Raises
    ------
    BaseError
        When the configuration asks for what the graph cannot do, or a tensor is missing.
    """
    d = Dimensions.of(config)
    ids = graph.input("input_ids", INT64, ["batch", "new"])
    attention = _Attention(graph, d, config)
    h = embedding(graph, ids, "model.embed_tokens.weight")
    first = graph.weight("model.layers.0.input_layernorm.weight")
    x = _norm(graph, h, first, "model.layers.0/norm", d.epsilon)
    x = shifted(graph, x, "model.layers.0.input_layernorm", d.hidden)
    for i in range(d.layers):
        layer = f"model.layers.{i}"
        after = f"model.layers.{i + 1}.input_layernorm" if i + 1 < d.layers else "model.norm"
        h, x = _add_and_norm(graph, h, attention(x, i), f"{layer}.post_attention_layernorm", d)
        h, x = _add_and_norm(graph, h, _mlp(graph, x, f"{layer}.mlp", d.hidden), after, d)
    graph.output(_head(graph, x, tied=config.tie_word_embeddings), "logits", ["batch", "new", d.vocabulary])
    attention.finish()
    return d


class _Attention:
    """Attention in every layer, with the inputs the layers share."""

    def __init__(self, graph: Graph, d: Dimensions, config: Any) -> None:
        self._graph, self._d = graph, d
        self._present: list[tuple[str, ir.Value]] = []
        mask = graph.input("attention_mask", INT64, ["batch", "total"])
        axis = graph.constant("last_axis", np.array([1], np.int64))
        one = graph.constant("one", np.array([1], np.int64))
        read = graph.op("ReduceSum", [mask, axis], keepdims=0)
        self._last = graph.op("Cast", [graph.op("Sub", [read, one])], to=INT32)
        width = graph.op("Gather", [graph.op("Shape", [mask]), graph.constant("second", np.array(1, np.int64))])
        self._total = graph.op("Cast", [width], to=INT32)
        cosine, sine = _rotations(config, d.context)
        self._cosine, self._sine = graph.constant("cos_cache", cosine), graph.constant("sin_cache", sine)
        self._past = [[self._cache(i, part) for part in ("key", "value")] for i in range(d.layers)]

    def __call__(self, x: ir.Value, i: int) -> ir.Value:
        graph, d, module = self._graph, self._d, f"model.layers.{i}.self_attn"
        q, k, v = (linear(graph, x, f"{module}.{part}_proj") for part in "qkv")
        q, k = self._normed(q, f"{module}.q_norm", d.heads), self._normed(k, f"{module}.k_norm", d.kv_heads)
        mixed, *present = graph.contrib(
            "GroupQueryAttention",
            [q, k, v, *self._past[i], self._last, self._total, self._cosine, self._sine],
            3,
            f"{module}/GroupQueryAttention",
            num_heads=d.heads,
            kv_num_heads=d.kv_heads,
            scale=d.head_dim**-0.5,
            do_rotary=1,
            rotary_interleaved=0,
        )
        self._present += zip((f"present.{i}.key", f"present.{i}.value"), present, strict=True)
        return serial(graph, linear(graph, mixed, f"{module}.o_proj"), module, d.hidden)

    def finish(self) -> None:
        """Give out keys and values, after the logits."""
        for name, value in self._present:
            self._graph.output(value, name, ["batch", self._d.kv_heads, "present", self._d.head_dim])

    def _normed(self, x: ir.Value, norm: str, heads: int) -> ir.Value:
        """Normalize every head for itself, as Qwen3 does; without a norm of that name, nothing."""
        graph, d = self._graph, self._d
        if f"{norm}.weight" not in graph.weights:
            return x
        split = graph.constant(f"split_{heads}", np.array([0, 0, heads, d.head_dim], np.int64))
        joined = graph.constant(f"join_{heads}", np.array([0, 0, heads * d.head_dim], np.int64))
        each = graph.op("Reshape", [x, split])
        normed = _norm(graph, each, graph.weight(f"{norm}.weight"), f"{norm}/norm", d.epsilon)
        return graph.op("Reshape", [shifted(graph, normed, norm, d.head_dim), joined])

    def _cache(self, i: int, part: str) -> ir.Value:
        shape = ("batch", self._d.kv_heads, "past", self._d.head_dim)
        return self._graph.input(f"past_key_values.{i}.{part}", FLOAT, shape)


def _mlp(graph: Graph, x: ir.Value, module: str, hidden: int) -> ir.Value:
    gate, up = linear(graph, x, f"{module}.gate_proj"), linear(graph, x, f"{module}.up_proj")
    silu = graph.op("Mul", [gate, graph.op("Sigmoid", [gate])])
    y = linear(graph, graph.op("Mul", [silu, up]), f"{module}.down_proj")
    return parallel(graph, x, serial(graph, y, module, hidden), module, hidden)


def _norm(graph: Graph, x: ir.Value, weight: ir.Value, name: str, epsilon: float) -> ir.Value:
    return graph.op("SimplifiedLayerNormalization", [x, weight], name, axis=-1, epsilon=epsilon, stash_type=1)


def _add_and_norm(graph: Graph, h: ir.Value, change: ir.Value, norm: str, d: Dimensions) -> tuple[ir.Value, ir.Value]:
    """Return ``h + change`` and its norm, in one node."""
    normed, _, _, total = graph.contrib(
        "SkipSimplifiedLayerNormalization",
        [h, change, graph.weight(f"{norm}.weight")],
        4,
        f"{norm}/SkipSimplifiedLayerNormalization",
        epsilon=d.epsilon,
    )
    # The last norm is outside the layers, where nothing is trained.
    return total, normed if norm == "model.norm" else shifted(graph, normed, norm, d.hidden)


def _head(graph: Graph, x: ir.Value, *, tied: bool) -> ir.Value:
    """Score the vocabulary; a tied head reads the embedding table itself, so the file holds it once."""
    if not tied:
        return graph.op("MatMul", [x, graph.weight("lm_head.weight", transposed=True)], "lm_head/MatMul")
    table = graph.weight("model.embed_tokens.weight")
    return graph.contrib("FusedMatMul", [x, table], 1, "lm_head/FusedMatMul", transB=1)[0]


def _rotations(config: Any, context: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return cosine and sine of transformers' own angles, each of shape (context, head_dim / 2)."""
    rotary = LlamaRotaryEmbedding(config)
    angles = np.arange(context, dtype=np.float32)[:, None] * rotary.inv_freq.numpy()[None]
    scale = np.float32(rotary.attention_scaling)
    return np.cos(angles) * scale, np.sin(angles) * scale


def _window(config: Any) -> int | None:
    """Return how far back attention is cut off, None when it is not."""
    return getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
