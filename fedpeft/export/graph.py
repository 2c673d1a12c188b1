"""A decoder's ONNX graph while it is being written: nodes, the base's weights, and the inputs that adapters fill.

Those inputs, the sites, have no defaults here. :func:`add_defaults` makes them optional by giving them neutral ones; it
has to be the last step, because graph rewriting and quantization fold or repack inputs that have a default. A width
that the adapter chooses is a dimension named after its site: one name for all would demand one rank of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from fedpeft.device.manifest import Shape, Variant
from fedpeft.device.sites import neutral
from fedpeft.export.options import ALL_SITES
from fedpeft.export.weights import Tensors

OPSET, CONTRIB, IR_VERSION = 21, "com.microsoft", 10
FLOAT, INT32, INT64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64

Dimensions = Sequence[int | str]


class Graph:
    """Nodes in the order they run, reading a base's weights.

    Parameters
    ----------
    weights : Tensors
    variant : {"optional", "required", "rows"}
        With ``rows`` every site has a dimension in front, and each row of a batch an adapter of its own.
    sites : set of str
        Kinds of sites to make, see :mod:`~fedpeft.export.options`; the others are left out of the graph.
    """

    def __init__(
        self, weights: Tensors, variant: Variant = "optional", sites: frozenset[str] = frozenset(ALL_SITES)
    ) -> None:
        self.weights, self.rows, self._kinds = weights, variant == "rows", sites
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

    def site(self, name: str, shape: Dimensions) -> ir.Value:
        """Add an input that an adapter fills, of one row's shape, and return it ready to meet (batch, tokens, width).

        In the variant ``rows`` it has a dimension in front; a vector then gets one for the tokens.
        """
        given = _value(name, FLOAT, [f"{name}.rows", *shape] if self.rows else shape)
        self._sites.append(given)
        if self.rows and len(shape) == 1:
            return self.op("Unsqueeze", [given, self.constant("tokens_axis", np.array([1], np.int64))])
        return given

    def has(self, kind: str) -> bool:
        """Say whether sites of a kind are wanted."""
        return kind in self._kinds

    def sites(self) -> dict[str, Shape]:
        """Return the sites and one row's shapes; ``None`` for a width that the adapter chooses."""
        shapes = {str(value.name): value.shape or ir.Shape(()) for value in self._sites}
        return {
            name: tuple(d if isinstance(d, int) else None for d in shape[int(self.rows) :])
            for name, shape in shapes.items()
        }

    def model(self, name: str, metadata: dict[str, str]) -> ir.Model:
        """Finish the graph, without defaults for its sites."""
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


def add_defaults(model: ir.Model, sites: dict[str, Shape]) -> None:
    """Make sites optional: what they are then filled with changes nothing. Nothing may rewrite the graph afterwards.

    Parameters
    ----------
    model : onnx_ir.Model
    sites : dict
        One row's shapes by name.
    """
    for value in model.graph.inputs:
        if value.name in sites and value.shape is not None:
            shape, nothing = value.shape, neutral(value.name, sites[value.name])
            # One row stands for all.
            nothing = nothing.reshape((1,) * (len(shape) - nothing.ndim) + nothing.shape)
            value.const_value = ir.tensor(nothing, name=value.name)
            model.graph.register_initializer(value)
            value.shape = shape  # registering it fixed the free dimensions


def fix(model: ir.Model, values: Mapping[str, NDArray[np.float32]]) -> None:
    """Make sites part of the graph, filled for good.

    Parameters
    ----------
    model : onnx_ir.Model
    values : mapping of str to ndarray of float32
        By site.
    """
    for value in [one for one in model.graph.inputs if one.name in values]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(values[str(value.name)], name=value.name)
        value.shape = ir.Shape(values[str(value.name)].shape)
        model.graph.register_initializer(value)


def _value(name: str, dtype: ir.DataType, shape: Dimensions) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
