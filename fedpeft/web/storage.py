"""A float32 graph whose matrices travel as int8: a quarter of the bytes, and the same words on every machine.

Per output channel (per row of an embedding table), with q and s in the file and w computed once when a session starts:

    s = max |w| / 127,   q = round(w / s),   w = s q        Cast, Mul: folded into a float32 constant by any onnxruntime

Weights are rounded, activations are not. Dynamic quantization is quicker in WebAssembly and takes half the memory, but
it rounds activations by the largest of a whole batch: how likely a word is then depends on the words tried beside it,
on how much of the text was read before, and on the machine (``docs/web.md`` has the figures). Here it does not.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fedpeft.export.quantize import Floats, channelwise

_SMALLEST = 4096
"""Numbers in a matrix below which it is not worth two nodes."""

_READERS = {"MatMul": 1, "FusedMatMul": 1, "Gemm": 1, "Gather": 0}
"""Nodes that read a weight, and which of their inputs it is."""


def store_in_int8(model: ir.Model) -> None:
    """Replace a graph's float32 matrices by int8 ones and the nodes that widen them, in place.

    Parameters
    ----------
    model : onnx_ir.Model
        Its sites without defaults: those would be taken for constants.
    """
    for weight in _matrices(model):
        numbers = weight.const_value.numpy()  # type: ignore[union-attr]  # only constants are among them
        levels, scales = _levels(numbers, by_row=_is_table(weight))
        held = ir.node("Cast", [_constant(model, f"{weight.name}.levels", levels)], {"to": int(ir.DataType.FLOAT)})
        wide = ir.node("Mul", [held.outputs[0], _constant(model, f"{weight.name}.scales", scales)])
        weight.replace_all_uses_with(wide.outputs[0])
        model.graph.insert_before(model.graph[0], [held, wide])
        model.graph.initializers.pop(str(weight.name))


def _matrices(model: ir.Model) -> list[ir.Value]:
    found: dict[str, ir.Value] = {}
    for node in model.graph:
        value = node.inputs[_READERS[node.op_type]] if node.op_type in _READERS else None
        tensor = value.const_value if value is not None else None
        if value is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        if len(tensor.shape) == 2 and tensor.size >= _SMALLEST:
            found[str(value.name)] = value
    return list(found.values())


def _is_table(weight: ir.Value) -> bool:
    """Say whether a matrix is stored (out, in): an embedding table, or a head that reads one transposed."""
    return any(node.op_type in ("Gather", "FusedMatMul") for node, _ in weight.uses())


def _levels(numbers: Floats, *, by_row: bool) -> tuple[np.ndarray, Floats]:
    levels, scales = channelwise(numbers if by_row else numbers.T)
    return (levels, scales[:, None]) if by_row else (np.ascontiguousarray(levels.T), scales)


def _constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    model.graph.register_initializer(value)
    return value
