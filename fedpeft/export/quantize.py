"""A base's matrices in 4 or 8 bits, on the finished graph; what adapters compute stays float32.

Per block of 32 weights w along the input, with h = 2^(bits-1) and w* the one of largest magnitude (int4, int8):

    s = -w* / h,   q = clip(round(w / s) + h, 0, 2h - 1),   w ≈ s (q - h)

Per output channel (dynamic-int8), activations x being quantized as they come, per tensor, u in 0 … 255:

    s = max |w| / 127,   q = round(w / s),   W x ≈ s s_x (q · (u - z))

An embedding table that is the head too is held once in int4 and int8: ``GatherBlockQuantized`` and ``MatMulNBits`` read
the same bytes. In dynamic-int8 the head has its transpose beside it, which still is half of one in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fedpeft.device.manifest import Precision
from fedpeft.errors import BaseError

BLOCK = 32
CONTRIB = "com.microsoft"

Floats = NDArray[np.float32]
Array = NDArray[Any]


def quantize(model: ir.Model, precision: Precision) -> None:
    """Replace a graph's constant matrices, in place.

    Parameters
    ----------
    model : onnx_ir.Model
        Before its sites get defaults: those would be taken for constants.
    precision : {"float32", "int8", "int4", "dynamic-int8"}
        With float32 nothing happens.

    Raises
    ------
    BaseError
        For another precision.
    """
    if precision == "float32":
        return
    if precision not in _WRITERS:
        raise BaseError("export precision", precision, "float32, int8, int4 or dynamic-int8")
    rewrite = _WRITERS[precision](model)
    for node in list(model.graph):
        table = _constant(node, 0 if node.op_type == "Gather" else 1)
        if table is None or table.shape is None or len(table.shape) != 2:
            continue
        if node.op_type == "MatMul":
            rewrite.product(node, table, transposed=False)
        elif node.op_type == "FusedMatMul" and node.attributes["transB"].as_int():
            rewrite.product(node, table, transposed=True)
        elif node.op_type == "Gather" and table.dtype == ir.DataType.FLOAT:
            rewrite.lookup(node, table)
    _drop_unused(model)


def blockwise(weight: Floats, bits: int) -> tuple[NDArray[np.uint8], Floats]:
    """Quantize the rows of a matrix in blocks.

    Parameters
    ----------
    weight : ndarray of float32, shape (out, in)
    bits : {4, 8}

    Returns
    -------
    packed : ndarray of uint8, shape (out, blocks, 32 * bits / 8)
        Of two 4-bit numbers in a byte the first is the lower half.
    scales : ndarray of float32, shape (out, blocks)
    """
    half, blocks = 1 << (bits - 1), -(-weight.shape[1] // BLOCK)
    padded = np.zeros((len(weight), blocks * BLOCK), np.float32)
    padded[:, : weight.shape[1]] = weight
    grouped = padded.reshape(len(weight), blocks, BLOCK)
    peaks = np.take_along_axis(grouped, np.abs(grouped).argmax(-1, keepdims=True), -1)
    scales = (peaks / -half).astype(np.float32)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    levels = np.clip(np.rint(grouped * inverse) + half, 0, 2 * half - 1).astype(np.uint8)
    packed = levels[..., 0::2] | (levels[..., 1::2] << 4) if bits == 4 else levels
    return np.ascontiguousarray(packed), np.ascontiguousarray(scales[..., 0])


def channelwise(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Quantize each row of a matrix with one scale; (out, in) to (out, in) int8 and (out,) float32."""
    scales = (np.abs(weight).max(1) / 127).astype(np.float32)
    scales[scales == 0] = 1
    return np.rint(weight / scales[:, None]).astype(np.int8), scales


class _Writer:
    """Adds nodes and constants to a model; a constant that several nodes read is made once."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._made: dict[str, dict[str, ir.Value]] = {}

    def constants(
        self, source: ir.Value, label: str, make: Callable[[Floats], Mapping[str, Array]]
    ) -> dict[str, ir.Value]:
        """Return constants made of a weight, under names that tell what of it they are."""
        name = f"{source.name}.{label}"
        if name not in self._made:
            arrays = make(source.const_value.numpy())  # type: ignore[union-attr]  # only constants come here
            self._made[name] = {part: self._constant(f"{name}.{part}", array) for part, array in arrays.items()}
        return self._made[name]

    def _constant(self, name: str, array: Array) -> ir.Value:
        tensor = ir.tensor(np.ascontiguousarray(array), name=name)
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
        self._graph.register_initializer(value)
        return value

    def before(
        self,
        node: ir.Node,
        kind: str,
        inputs: list[ir.Value | None],
        domain: str = "",
        outputs: int = 1,
        **attributes: Any,
    ) -> list[ir.Value]:
        """Insert a node before another."""
        made = ir.node(kind, inputs, attributes=attributes, domain=domain, num_outputs=outputs)
        self._graph.insert_before(node, made)
        return list(made.outputs)

    def replace(self, node: ir.Node, value: ir.Value) -> None:
        """Let ``value`` take the place of a node's result."""
        old = node.outputs[0]
        value.type, value.shape = old.type, old.shape
        name = old.name
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)
        value.name = name


class _Blockwise(_Writer):
    """4 or 8 bits in blocks; onnxruntime quantizes activations to 8 bits as it multiplies (accuracy level 4)."""

    def __init__(self, model: ir.Model, bits: int) -> None:
        super().__init__(model)
        self._bits = bits

    def product(self, node: ir.Node, weight: ir.Value, *, transposed: bool) -> None:
        """Replace a product with a constant matrix, stored (in, out), or (out, in) if ``transposed``."""
        made = self._packed(weight, transposed)
        sizes = [int(d) for d in weight.shape or ()]  # type: ignore[arg-type]  # constants have fixed shapes
        wide, narrow = sizes if transposed else sizes[::-1]
        attributes = {"N": wide, "K": narrow, "bits": self._bits, "block_size": BLOCK, "accuracy_level": 4}
        inputs = [node.inputs[0], made["packed"], made["scales"]]
        self.replace(node, self.before(node, "MatMulNBits", inputs, CONTRIB, **attributes)[0])

    def lookup(self, node: ir.Node, table: ir.Value) -> None:
        """Replace a lookup of rows; a table whose rows do not end with a block is left alone."""
        width = int(table.shape[1])  # type: ignore[index, arg-type]
        if width % BLOCK:
            return
        made = self._packed(table, True)
        inputs = [made["packed"], node.inputs[1], made["columns"]]
        attributes = {"block_size": BLOCK, "bits": self._bits, "gather_axis": 0, "quantize_axis": 2}
        blocks = self.before(node, "GatherBlockQuantized", inputs, CONTRIB, **attributes)[0]
        flat = self.constants(table, "flat", lambda _: {"shape": np.array([0, 0, width], np.int64)})["shape"]
        self.replace(node, self.before(node, "Reshape", [blocks, flat])[0])

    def _packed(self, weight: ir.Value, transposed: bool) -> dict[str, ir.Value]:
        def make(array: Floats) -> dict[str, Array]:
            packed, scales = blockwise(array if transposed else array.T, self._bits)
            return {"packed": packed, "scales": scales, "columns": scales[..., None]}

        return self.constants(weight, f"int{self._bits}", make)


class _Dynamic(_Writer):
    """8 bits per output channel, activations quantized as they come; onnxruntime fuses the nodes of a product."""

    def __init__(self, model: ir.Model) -> None:
        super().__init__(model)
        self._inputs: dict[int, list[ir.Value]] = {}

    def product(self, node: ir.Node, weight: ir.Value, *, transposed: bool) -> None:
        """Replace a product with a constant matrix, stored (in, out), or (out, in) if ``transposed``."""

        def make(array: Floats) -> dict[str, Array]:
            levels, scales = channelwise(array if transposed else array.T)
            return {"levels": levels.T, "scales": scales, "zeros": np.zeros(len(scales), np.int8)}

        made, x = self.constants(weight, "columns8", make), node.inputs[0]
        if id(x) not in self._inputs:  # layers that read one input share its quantization
            self._inputs[id(x)] = self.before(node, "DynamicQuantizeLinear", [x], outputs=3)
        levels, scale, zero = self._inputs[id(x)]
        summed = self.before(node, "MatMulInteger", [levels, made["levels"], zero, made["zeros"]])
        cast = self.before(node, "Cast", [summed[0]], to=int(ir.DataType.FLOAT))
        factor = self.before(node, "Mul", [scale, made["scales"]])
        self.replace(node, self.before(node, "Mul", [cast[0], factor[0]])[0])

    def lookup(self, node: ir.Node, table: ir.Value) -> None:
        """Replace a lookup of rows."""

        def make(array: Floats) -> dict[str, Array]:
            levels, scales = channelwise(array)
            return {"levels": levels, "scales": scales[:, None]}

        made, ids = self.constants(table, "rows8", make), node.inputs[1]
        levels = self.before(node, "Gather", [made["levels"], ids])
        cast = self.before(node, "Cast", [levels[0]], to=int(ir.DataType.FLOAT))
        scales = self.before(node, "Gather", [made["scales"], ids])
        self.replace(node, self.before(node, "Mul", [cast[0], scales[0]])[0])


_WRITERS: dict[str, Callable[[ir.Model], _Blockwise | _Dynamic]] = {
    "int4": lambda model: _Blockwise(model, 4),
    "int8": lambda model: _Blockwise(model, 8),
    "dynamic-int8": _Dynamic,
}


def _constant(node: ir.Node, index: int) -> ir.Value | None:
    if node.op_type not in ("MatMul", "FusedMatMul", "Gather") or len(node.inputs) <= index:
        return None
    value = node.inputs[index]
    return value if value is not None and value.const_value is not None else None


def _drop_unused(model: ir.Model) -> None:
    """Remove constants that nothing reads any more."""
    read = {id(value) for node in model.graph for value in node.inputs}
    for name, value in list(model.graph.initializers.items()):
        if id(value) not in read and value not in model.graph.inputs:
            del model.graph.initializers[name]
