"""Sites in a graph that torch traced: every linear layer is written anew, as the native backend writes it.

    MatMul(x, W) [+ b]   or   Gemm(x, W, b)    becomes    out_scale * (W (in_scale * x) + b + (in_scale * x) A B) + ...

Torch's exporter notes on each node which module it comes from, and names initializers after parameters; both are read
here, and what it did to a weight (transposed it, or not: GPT-2 keeps its matrices the other way round) is undone.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray
from torch import nn

from fedpeft.errors import BaseError, ScenarioError
from fedpeft.export.graph import Dimensions, Graph
from fedpeft.export.options import ExportOptions
from fedpeft.export.places import linear, shifted
from fedpeft.export.torch_trace import constant_matrix
from fedpeft.methods.layout import LINEAR

SUPPORTED = frozenset({"lora", "scale", "bias"})
"""Kinds of sites that can be added to any traced graph; bottlenecks and prompts need the architecture to be known."""

_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class _Linear:
    """A linear layer as it was traced."""

    module: str
    node: ir.Node
    weight: ir.Value
    flipped: bool
    bias: ir.Value | None
    output: ir.Value

    @property
    def array(self) -> NDArray[np.float32]:
        """The weight, shape (out, in)."""
        assert self.weight.const_value is not None  # noqa: S101 - it is an initializer
        array: NDArray[np.float32] = self.weight.const_value.numpy()
        return array if self.flipped else array.T

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight, (out, in)."""
        assert self.weight.shape is not None  # noqa: S101 - it is an initializer
        sizes = tuple(int(str(size)) for size in self.weight.shape)
        return sizes if self.flipped else sizes[::-1]


class _Initializers:
    """The weights and biases of traced linear layers, by their names in torch."""

    def __init__(self, found: Collection[_Linear]) -> None:
        self._weights = {f"{one.module}.weight": one for one in found}
        self._biases = {f"{one.module}.bias": one.bias for one in found if one.bias is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._weights or name in self._biases

    def shape(self, name: str) -> tuple[int, ...]:
        return self._weights[name].shape if name in self._weights else self.read(name).shape

    def read(self, name: str) -> NDArray[np.float32]:
        if name in self._weights:
            return self._weights[name].array
        value = self._biases[name].const_value
        assert value is not None  # noqa: S101 - it is an initializer
        array: NDArray[np.float32] = value.numpy()
        return array


def linear_layers(model: nn.Module) -> set[str]:
    """Return the names of a model's linear layers, those under an adapter by their own."""
    return {
        n.removesuffix(".base_layer") for n, m in model.named_modules() if isinstance(m, LINEAR) and ".lora_" not in n
    }


class Grafted(Graph):
    """Nodes and sites that are put into a graph which is there already."""

    def site(self, name: str, shape: Dimensions) -> ir.Value:
        """Add a site, or return the one of that name: some architectures run one layer several times."""
        for given in self._sites:
            if given.name == name:
                return given
        return super().site(name, shape)

    def input(self, name: str, dtype: ir.DataType, shape: Dimensions) -> ir.Value:
        """Return an input of the graph that is there, or add one."""
        for given in self._inputs:
            if given.name == name:
                return given
        return super().input(name, dtype, shape)

    @property
    def pending(self) -> list[ir.Node]:
        """The nodes that were made but not put anywhere yet."""
        return list(self._tape.nodes)

    def put(self, model: ir.Model, after: ir.Node) -> None:
        """Move the nodes made so far into a graph, behind one of its own."""
        taken = {node.name for node in model.graph}
        for i, node in enumerate(self.pending):
            if node.name in taken:  # a layer that the architecture runs several times
                node.name = f"{node.name}.{len(taken) + i}"
        model.graph.insert_after(after, self.pending)
        for value in self._tape.initializers:
            model.graph.register_initializer(value)
        known = {value.name for value in model.graph.inputs}
        model.graph.inputs.extend(value for value in self._sites if value.name not in known)
        self._tape = type(self._tape)()


def add_sites(
    model: ir.Model, options: ExportOptions, root: str, layers: Collection[str], leave: Collection[str] = ()
) -> Grafted:
    """Give every linear layer of a traced graph its sites.

    Parameters
    ----------
    model : onnx_ir.Model
        Changed in place.
    options : ExportOptions
    root : str
        Where the model hangs in the wrapper that was traced; names of sites do not hold it.
    layers : collection of str
        The linear layers that the model has in torch, to miss none.
    leave : collection of str
        Modules that are no layers of the network, such as the head of a language model.

    Returns
    -------
    Grafted
        With which more can be added; its ``sites()`` are all that were.

    Raises
    ------
    ScenarioError
        When a kind of sites, or rows of adapters, cannot be added here.
    BaseError
        When there is no linear layer, or one that runs was traced as something else.
    """
    if beyond := sorted(options.sites - SUPPORTED):
        remedy = f"leave {beyond[0]} out: this architecture is traced, and has {', '.join(sorted(SUPPORTED))}"
        raise ScenarioError("export.sites", beyond[0], "sites that any architecture can have", remedy)
    if options.variant == "rows":
        raise ScenarioError("export.variant", "rows", "optional or required", "this architecture is traced")
    found = [one for one in _linears(model, root) if one.module not in leave]
    if not found:
        raise BaseError("base", "a graph without linear layers", "an architecture of linear layers")
    running = {_module(node, root) for node in model.graph}
    if missed := sorted(running & set(layers) - set(leave) - {one.module for one in found}):
        raise BaseError(f"base layer {missed[0]}", "traced as something else", "a product with its weight")
    graph = Grafted(_Initializers(found), options.variant, options.sites)
    for one in found:
        x = one.node.inputs[0]
        assert x is not None  # noqa: S101 - a product has factors
        _replace(model, graph, one.output, linear(graph, x, one.module), one.node)
    for node, module in _norms(model, root):
        y = node.outputs[0]
        _replace(model, graph, y, shifted(graph, y, module, _size(node.inputs[1])), node)
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)  # the tracing machine's paths, in every node
    return graph


def _replace(model: ir.Model, graph: Grafted, old: ir.Value, new: ir.Value, node: ir.Node) -> None:
    """Put what was made behind a node, and let everything else read it instead of what it replaces."""
    if new is old:
        return
    made = graph.pending
    users = [(user, i) for user, i in old.uses() if user not in made]
    new.shape, new.type = old.shape, old.type
    graph.put(model, node)
    for user, i in users:
        user.replace_input_with(i, new)
    for i, output in enumerate(model.graph.outputs):
        if output is old:
            new.name, old.name = old.name, f"{old.name}.base"
            model.graph.outputs[i] = new


def _linears(model: ir.Model, root: str) -> Iterator[_Linear]:
    for node in list(model.graph):
        if (node.domain, node.op_type) not in {("", "MatMul"), ("", "Gemm")}:
            continue
        matrix, module = constant_matrix(node.inputs[1]), _module(node, root)
        if matrix is None or not module:
            continue
        weight, flipped = matrix
        if node.op_type == "Gemm":
            flipped ^= bool(node.attributes.get_int("transB", 0))
            yield _Linear(module, node, weight, flipped, (*node.inputs, None)[2], node.outputs[0])
            continue
        bias, output = _bias(node, module, root)
        yield _Linear(module, node, weight, flipped, bias, output)


def _bias(node: ir.Node, module: str, root: str) -> tuple[ir.Value | None, ir.Value]:
    """Return the bias that is added to a product, and where the sum is."""
    (product,) = node.outputs
    users = [user for user, _ in product.uses()]
    if len(users) == 1 and users[0].op_type == "Add" and _module(users[0], root) == module:
        other = [value for value in users[0].inputs if value is not product]
        if other and other[0] is not None and other[0].is_initializer():
            return other[0], users[0].outputs[0]
    return None, product


def _norms(model: ir.Model, root: str) -> Iterator[tuple[ir.Node, str]]:
    for node in list(model.graph):
        module = _module(node, root)
        if node.op_type == "LayerNormalization" and module:
            yield node, module


def _module(node: ir.Node, root: str) -> str:
    """Return the torch module that a node comes from, empty where it does not say."""
    scopes = node.metadata_props.get(_SCOPES)
    path = ast.literal_eval(scopes) if scopes else []
    return str(path[-2]).removeprefix(root).removeprefix(".") if len(path) > 1 else ""


def _size(value: ir.Value | None) -> int:
    assert value is not None and value.shape is not None  # noqa: S101 - a norm has a weight
    return int(str(value.shape[-1]))
