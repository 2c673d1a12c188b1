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
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from fedpeft.errors import BaseError
from fedpeft.export.graph import FLOAT, INT32, INT64, Graph

_FIXED_ROPES = ("default", "linear", "llama3", "yarn")
"""Kinds whose angles do not depend on how long the text is, so that they can be tabulated."""


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a decoder."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    epsilon: float

    @classmethod
    def of(cls, config: LlamaConfig) -> Dimensions:
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
            ("head_dim modulo 16", head_dim % 16, (0,)),
        ):
            if value not in expected:
                known = " or ".join(map(str, expected))
                raise BaseError(f"base {field}", value, known, "this base cannot be exported yet")
        return cls(
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads or config.num_attention_heads,
            head_dim,
            config.vocab_size,
            config.max_position_embeddings,
            config.rms_norm_eps,
        )


def write_llama(graph: Graph, config: LlamaConfig) -> Dimensions:
    """Write a whole decoder.

    ==================================  ===================================================
    in   ``input_ids``                  int64 (batch, new)
    in   ``attention_mask``             int64 (batch, total), all ones: nothing is padded
    in   ``past_key_values.i.key``      float32 (batch, kv_heads, past, head_dim)
    in   ``past_key_values.i.value``    the same
    out  ``logits``                     float32 (batch, new, vocabulary)
    out  ``present.i.key``              float32 (batch, kv_heads, total, head_dim)
    out  ``present.i.value``            the same
    ==================================  ===================================================

    Raises
    ------
    BaseError
        When the configuration asks for what the graph cannot do, or a tensor is missing.
    """
    d = Dimensions.of(config)
    ids = graph.input("input_ids", INT64, ["batch", "new"])
    attention = _Attention(graph, d, config)
    table = graph.weight("model.embed_tokens.weight")
    h = graph.op("Gather", [table, ids], "model.embed_tokens/Gather")
    first = graph.weight("model.layers.0.input_layernorm.weight")
    x = graph.op(
        "SimplifiedLayerNormalization",
        [h, first],
        "model.layers.0/norm",
        axis=-1,
        epsilon=d.epsilon,
        stash_type=1,
    )
    for i in range(d.layers):
        layer = f"model.layers.{i}"
        after = f"model.layers.{i + 1}.input_layernorm" if i + 1 < d.layers else "model.norm"
        h, x = _add_and_norm(graph, h, attention(x, i), f"{layer}.post_attention_layernorm", d.epsilon)
        h, x = _add_and_norm(graph, h, _mlp(graph, x, f"{layer}.mlp"), after, d.epsilon)
    graph.output(_head(graph, x, tied=config.tie_word_embeddings), "logits", ["batch", "new", d.vocabulary])
    attention.finish()
    return d


class _Attention:
    """Attention in every layer, with the inputs the layers share."""

    def __init__(self, graph: Graph, d: Dimensions, config: LlamaConfig) -> None:
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
        q, k, v = (graph.linear(x, f"{module}.{part}_proj") for part in "qkv")
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
        return graph.linear(mixed, f"{module}.o_proj")

    def finish(self) -> None:
        """Give out keys and values, after the logits."""
        for name, value in self._present:
            self._graph.output(value, name, ["batch", self._d.kv_heads, "total", self._d.head_dim])

    def _cache(self, i: int, part: str) -> ir.Value:
        shape = ("batch", self._d.kv_heads, "past", self._d.head_dim)
        return self._graph.input(f"past_key_values.{i}.{part}", FLOAT, shape)


def _mlp(graph: Graph, x: ir.Value, module: str) -> ir.Value:
    gate, up = graph.linear(x, f"{module}.gate_proj"), graph.linear(x, f"{module}.up_proj")
    silu = graph.op("Mul", [gate, graph.op("Sigmoid", [gate])])
    return graph.linear(graph.op("Mul", [silu, up]), f"{module}.down_proj")


def _add_and_norm(graph: Graph, h: ir.Value, change: ir.Value, norm: str, epsilon: float) -> tuple[ir.Value, ir.Value]:
    """Return ``h + change`` and its norm, in one node."""
    normed, _, _, total = graph.contrib(
        "SkipSimplifiedLayerNormalization",
        [h, change, graph.weight(f"{norm}.weight")],
        4,
        f"{norm}/SkipSimplifiedLayerNormalization",
        epsilon=epsilon,
    )
    return total, normed


def _head(graph: Graph, x: ir.Value, *, tied: bool) -> ir.Value:
    """Score the vocabulary; a tied head reads the embedding table itself, so the file holds it once."""
    if not tied:
        return graph.op("MatMul", [x, graph.weight("lm_head.weight", transposed=True)], "lm_head/MatMul")
    table = graph.weight("model.embed_tokens.weight")
    return graph.contrib("FusedMatMul", [x, table], 1, "lm_head/FusedMatMul", transB=1)[0]


def _rotations(config: LlamaConfig, context: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return cosine and sine of transformers' own angles, each of shape (context, head_dim / 2)."""
    rotary = LlamaRotaryEmbedding(config)
    angles = np.arange(context, dtype=np.float32)[:, None] * rotary.inv_freq.numpy()[None]
    scale = np.float32(rotary.attention_scaling)
    return np.cos(angles) * scale, np.sin(angles) * scale
