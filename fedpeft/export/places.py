"""The parts of a decoder that adapters change, each written with the sites that were asked for.

    linear      y = out_scale * (W (in_scale * x) + bias + (in_scale * x) A B) + bias_delta
    norm        y = rms(x) + bias_delta
    serial      y + f(y D + a) U + b                  behind attention and feed-forward
    parallel    y + f(x D + a) U + b                  beside feed-forward, x what that reads
    embedding   [table; soft_prompt][id]              ids from the vocabulary's size on

Activations are rows, so matrices are the transposes of torch's. f is part of a bottleneck's name: relu, gelu (the exact
one) or silu.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fedpeft.export.graph import Graph

ACTIVATIONS = ("relu", "gelu", "silu")


def linear(graph: Graph, x: ir.Value, module: str) -> ir.Value:
    """Add a linear layer, its bias if it has one, and its sites; (batch, tokens, in) to (batch, tokens, out)."""
    fan_out, fan_in = graph.weights.shape(f"{module}.weight")
    scaled = graph.has("scale")
    if scaled:
        x = graph.op("Mul", [x, graph.site(f"{module}.in_scale", (fan_in,))], f"{module}/InScale")
    y = graph.op("MatMul", [x, graph.weight(f"{module}.weight", transposed=True)], f"{module}/MatMul")
    if f"{module}.bias" in graph.weights:
        y = graph.op("Add", [y, graph.weight(f"{module}.bias")], f"{module}/Add")
    if graph.has("lora"):
        down = graph.site(f"{module}.lora_A.weight", (fan_in, f"{module}.rank"))
        up = graph.site(f"{module}.lora_B.weight", (f"{module}.rank", fan_out))
        low = graph.op("MatMul", [x, down], f"{module}.lora_A/MatMul")
        change = graph.op("MatMul", [low, up], f"{module}.lora_B/MatMul")
        y = graph.op("Add", [y, change], f"{module}.lora/Add")
    if scaled:
        y = graph.op("Mul", [y, graph.site(f"{module}.out_scale", (fan_out,))], f"{module}/OutScale")
    return shifted(graph, y, module, fan_out)


def shifted(graph: Graph, y: ir.Value, module: str, width: int) -> ir.Value:
    """Add the site for a change of a module's bias, whether it has one or not."""
    if not graph.has("bias"):
        return y
    return graph.op("Add", [y, graph.site(f"{module}.bias_delta", (width,))], f"{module}/BiasDelta")


def serial(graph: Graph, y: ir.Value, block: str, width: int) -> ir.Value:
    """Add the sites for bottlenecks behind a block."""
    for activation in ACTIVATIONS:
        if graph.has(f"serial_{activation}"):
            y = _bottleneck(graph, y, y, f"{block}.serial.{activation}", activation, width)
    return y


def parallel(graph: Graph, x: ir.Value, y: ir.Value, block: str, width: int) -> ir.Value:
    """Add the sites for bottlenecks beside a block that makes y from x."""
    for activation in ACTIVATIONS:
        if graph.has(f"parallel_{activation}"):
            y = _bottleneck(graph, x, y, f"{block}.parallel.{activation}", activation, width)
    return y


def embedding(graph: Graph, ids: ir.Value, table: str) -> ir.Value:
    """Add the embedding of token ids, and the site for a prompt; (batch, tokens) to (batch, tokens, hidden)."""
    vocabulary, hidden = graph.weights.shape(table)
    if not graph.has("prompt"):
        return graph.op("Gather", [graph.weight(table), ids], f"{table}/Gather")
    first = graph.constant("first_prompt_id", np.array(vocabulary, np.int64))
    words = graph.op("Min", [ids, graph.constant("last_word_id", np.array(vocabulary - 1, np.int64))])
    word = graph.op("Gather", [graph.weight(table), words], f"{table}/Gather")
    # A row of zeros in front is what ids of words read, so that there is something to read without a prompt too.
    zero = graph.constant("no_prompt", np.zeros((1, hidden), np.float32))
    prompt = graph.site("soft_prompt", ("soft_prompt.tokens", hidden))
    places = graph.op(
        "Max",
        [
            graph.op("Sub", [ids, graph.constant("last_word_id", np.array(vocabulary - 1, np.int64))]),
            graph.constant("zero_id", np.array(0, np.int64)),
        ],
    )
    if graph.rows:
        read = _rowwise(graph, prompt, zero, places, ids, hidden)
    else:
        padded = graph.op("Concat", [zero, prompt], "soft_prompt/Concat", axis=0)
        read = graph.op("Gather", [padded, places], "soft_prompt/Gather")
    is_word = graph.op("Unsqueeze", [graph.op("Less", [ids, first]), graph.constant("width_axis", np.array([2]))])
    return graph.op("Where", [is_word, word, read], "soft_prompt/Where")


def _rowwise(graph: Graph, prompt: ir.Value, zero: ir.Value, places: ir.Value, ids: ir.Value, hidden: int) -> ir.Value:
    """Look up each row's places in its own prompt."""
    axis = graph.constant("batch_axis", np.array([0], np.int64))
    rows = graph.op("Slice", [graph.op("Shape", [ids]), axis, graph.constant("one", np.array([1], np.int64))])
    rest = graph.constant("one_one", np.array([1, 1], np.int64))
    shape = graph.op("Concat", [rows, rest], axis=0)
    wide = graph.op("Expand", [prompt, shape], "soft_prompt/Expand")
    lead = graph.op("Expand", [graph.op("Unsqueeze", [zero, axis]), shape])
    padded = graph.op("Concat", [lead, wide], "soft_prompt/Concat", axis=1)
    where = graph.op("Unsqueeze", [places, graph.constant("width_axis", np.array([2]))])
    return graph.op("GatherND", [padded, where], "soft_prompt/GatherND", batch_dims=1)


def _bottleneck(graph: Graph, x: ir.Value, y: ir.Value, name: str, activation: str, width: int) -> ir.Value:
    size = f"{name}.size"
    down, shift = graph.site(f"{name}.down", (width, size)), graph.site(f"{name}.down_bias", (size,))
    up, bias = graph.site(f"{name}.up", (size, width)), graph.site(f"{name}.up_bias", (width,))
    inner = graph.op("Add", [graph.op("MatMul", [x, down], f"{name}.down/MatMul"), shift])
    if activation == "silu":
        inner = graph.op("Mul", [inner, graph.op("Sigmoid", [inner])])
    else:
        inner = graph.op({"relu": "Relu", "gelu": "Gelu"}[activation], [inner])
    change = graph.op("Add", [graph.op("MatMul", [inner, up], f"{name}.up/MatMul"), bias])
    return graph.op("Add", [y, change], f"{name}/Add")
