"""A decoder's ONNX graph while it is being written, with a place for LoRA beside every linear layer.

    y = W x + B (A x),   A: [in, r],  B: [r, out]   (transposed: activations are rows)

A and B are graph inputs. :func:`add_defaults` makes them optional by giving them defaults of rank 0; it has
to be the last step, because graph rewriting and quantization fold or repack inputs that have a default. The
rank's dimension is named after its module: one name for all would demand one rank of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from fedpeft.device.manifest import Shape
from fedpeft.export.weights import Weights

OPSET, CONTRIB, IR_VERSION = 21, "com.microsoft", 10
FLOAT, INT32, INT64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64

Dimensions = Sequence[int | str]


class Graph:
    """Nodes in the order they run, reading a base's weights.

    Parameters
    ----------
    weights : Weights
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._tape = Tape()
        self._inputs: list[ir.Value] = []
        self._sites: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._constants: dict[str, ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Dimensions) -> ir.Value:
        """Add an input that every run must give."""
        self._inputs.append(_value(name, dtype, shape))
        return self._inputs[-1]

    def output(self, value: ir.Value, name: str, shape: Dimensions) -> None:
        """Make a float32 value an output."""
        value.name, value.type, value.shape = name, ir.TensorType(FLOAT), ir.Shape(shape)
        self._outputs.append(value)

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """Add a constant, or return the one of that name."""
        if name not in self._constants:
            self._constants[name] = self._tape.initializer(ir.tensor(np.ascontiguousarray(array), name=name))
        return self._constants[name]

    def weight(self, name: str, *, transposed: bool = False) -> ir.Value:
        """Add one of the base's tensors as a float32 constant; it is read when the graph is saved."""
        label = f"{name}.transposed" if transposed else name
        if label not in self._constants:
            shape = self.weights.shape(name)

            def read() -> ir.Tensor[Any]:
                array = self.weights.read(name)
                return ir.Tensor(np.ascontiguousarray(array.T if transposed else array), name=label)

            tensor = ir.LazyTensor(read, dtype=FLOAT, shape=ir.Shape(shape[::-1] if transposed else shape), name=label)
            self._constants[label] = self._tape.initializer(tensor)
        return self._constants[label]

    def op(self, kind: str, inputs: Sequence[ir.Value], name: str | None = None, **attributes: Any) -> ir.Value:
        """Add a standard node of one output."""
        return self._tape.op(kind, inputs, attributes, name=name)

    def contrib(
        self, kind: str, inputs: Sequence[ir.Value], outputs: int, name: str | None = None, **attributes: Any
    ) -> Sequence[ir.Value]:
        """Add one of onnxruntime's own nodes."""
        return self._tape.op_multi_out(kind, inputs, attributes, num_outputs=outputs, domain=CONTRIB, name=name)

    def linear(self, x: ir.Value, module: str) -> ir.Value:
        """Add a linear layer, its bias if it has one, and its LoRA site."""
        fan_out, fan_in = self.weights.shape(f"{module}.weight")
        y = self.op("MatMul", [x, self.weight(f"{module}.weight", transposed=True)], f"{module}/MatMul")
        if f"{module}.bias" in self.weights:
            y = self.op("Add", [y, self.weight(f"{module}.bias")], f"{module}/Add")
        down = self._site(f"{module}.lora_A.weight", (fan_in, f"{module}.rank"))
        up = self._site(f"{module}.lora_B.weight", (f"{module}.rank", fan_out))
        low = self.op("MatMul", [x, down], f"{module}.lora_A/MatMul")
        change = self.op("MatMul", [low, up], f"{module}.lora_B/MatMul")
        return self.op("Add", [y, change], f"{module}.lora/Add")

    def sites(self) -> dict[str, Shape]:
        """Return the LoRA inputs and their shapes; ``None`` for a rank."""
        return {
            str(value.name): tuple(d if isinstance(d, int) else None for d in value.shape or ())
            for value in self._sites
        }

    def model(self, name: str, metadata: dict[str, str]) -> ir.Model:
        """Finish the graph, without defaults for its LoRA inputs."""
        graph = ir.Graph(
            [*self._inputs, *self._sites],
            self._outputs,
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": OPSET, CONTRIB: 1},
            name=name,
        )
        model = ir.Model(graph, ir_version=IR_VERSION, producer_name="fedpeft")
        model.metadata_props.update(metadata)
        return model

    def _site(self, name: str, shape: Dimensions) -> ir.Value:
        self._sites.append(_value(name, FLOAT, shape))
        return self._sites[-1]


def add_defaults(model: ir.Model, sites: dict[str, Shape]) -> None:
    """Make the LoRA inputs optional: rank 0, which adds nothing. Nothing may rewrite the graph afterwards."""
    for value in model.graph.inputs:
        if value.name in sites:
            shape = value.shape
            empty = np.zeros([d or 0 for d in sites[value.name]], np.float32)
            value.const_value = ir.tensor(empty, name=value.name)
            model.graph.register_initializer(value)
            value.shape = shape  # registering it fixed the rank to 0


def _value(name: str, dtype: ir.DataType, shape: Dimensions) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
