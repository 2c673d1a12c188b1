"""What adding sites to a traced graph refuses, on graphs made for it."""

import numpy as np
import onnx_ir as ir
import pytest

from fedpeft.errors import BaseError, ScenarioError
from fedpeft.export.options import ExportOptions
from fedpeft.export.torch_sites import add_sites


def traced(kind: str = "MatMul", *, constant: bool = True) -> ir.Model:
    """A graph of one layer as torch's exporter leaves it: ``kind`` of an input and a weight."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 4]))
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    w = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([4, 3]))
    if constant:
        w.const_value = ir.tensor(array, name="w")
    scopes = {"pkg.torch.onnx.name_scopes": "['', 'model', 'model.layer', 'linear']"}
    node = ir.node(kind, [x, w], metadata_props=scopes)
    node.outputs[0].name = "y"
    node.outputs[0].type, node.outputs[0].shape = x.type, ir.Shape(["batch", 3])
    graph = ir.Graph(
        [x] if constant else [x, w],
        node.outputs,
        nodes=[node],
        initializers=[w] if constant else [],
        opset_imports={"": 21},
    )
    return ir.Model(graph, ir_version=10)


def test_a_linear_layer_gets_its_sites_and_keeps_the_name_of_its_output():
    model = traced()
    graph = add_sites(model, ExportOptions(), "model", {"layer"})
    assert graph.sites() == {"layer.lora_A.weight": (4, None), "layer.lora_B.weight": (None, 3)}
    assert [output.name for output in model.graph.outputs] == ["y"]
    assert {value.name for value in model.graph.inputs} == {"x", *graph.sites()}
    assert [kind for node in model.graph if (kind := node.op_type)].count("MatMul") == 3


def test_a_linear_layer_that_runs_but_was_not_found_is_named():
    model = traced()
    model.graph.append(
        ir.node(
            "Relu",
            [model.graph.outputs[0]],
            metadata_props={"pkg.torch.onnx.name_scopes": "['', 'model', 'model.other', 'fused']"},
        )
    )
    with pytest.raises(BaseError, match="base layer other"):
        add_sites(model, ExportOptions(), "model", {"layer", "other"})


def test_a_layer_that_is_to_be_left_has_no_sites():
    with pytest.raises(BaseError, match="without linear layers"):
        add_sites(traced(), ExportOptions(), "model", {"layer"}, {"layer"})


def test_a_product_of_two_inputs_is_no_linear_layer():
    with pytest.raises(BaseError, match="without linear layers"):
        add_sites(traced(constant=False), ExportOptions(), "model", set())


@pytest.mark.parametrize("kinds", ["prompt", "serial_relu"])
def test_sites_that_need_the_architecture_are_refused_before_anything_changes(kinds):
    model = traced()
    with pytest.raises(ScenarioError, match=kinds):
        add_sites(model, ExportOptions(sites=frozenset({"lora", kinds})), "model", {"layer"})
    assert len(model.graph) == 1
