"""Quantized bases: the bytes are onnxruntime's own quantizer's, the graph computes with them, adapters stay exact."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from fedpeft.errors import ScenarioError
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.export.quantize import blockwise, channelwise
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))
QUANTIZED = ["int8", "int4", "dynamic-int8"]
IDS = np.random.default_rng(2).integers(5, 2048, (2, 30))


@pytest.fixture(scope="module")
def quantized(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    made = {p: export_base(base, folder / p, key=KEY, options=ExportOptions(precision=p)) for p in QUANTIZED}
    return folder, made


def session(path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(path, options)


def logits(run: ort.InferenceSession, facts, adapter=None) -> np.ndarray:
    feeds = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
    for i in range(facts.layers):
        for part in ("key", "value"):
            feeds[f"past_key_values.{i}.{part}"] = np.zeros((2, facts.kv_heads, 0, facts.head_dim), np.float32)
    options = ort.RunOptions()
    if adapter is not None:
        options.add_active_adapter(adapter)
    return run.run(["logits"], feeds, options)[0]


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_are_quantized_as_onnxruntime_does_it(bits):
    weight = np.random.default_rng(0).normal(size=(48, 80)).astype(np.float32)
    weight[3, 32:64] = 0
    product = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 80]), ("y", [1, 48]))]
    graph = helper.make_graph([product], "g", shapes[:1], shapes[1:], [numpy_helper.from_array(weight.T.copy(), "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    theirs = {t.name: numpy_helper.to_array(t) for t in quantizer.model.model.graph.initializer}
    packed, scales = blockwise(weight, bits)
    (codes,), (factors,) = ([a for n, a in theirs.items() if n.endswith(e)] for e in (f"Q{bits}", "scales"))
    assert np.array_equal(scales.ravel(), factors.ravel())
    ours, reference = (array.reshape(48, -1)[:, : 80 * bits // 8] for array in (packed, codes))
    # Ties may be rounded either way.
    assert np.mean(ours != reference) < 0.01


def test_channels_are_within_half_a_step():
    weight = np.random.default_rng(0).normal(size=(20, 33)).astype(np.float32)
    weight[7] = 0
    levels, scales = channelwise(weight)
    assert levels.dtype == np.int8
    assert np.abs(levels * scales[:, None] - weight).max() <= 0.501 * scales.max()
    assert np.all(levels[7] == 0)


@pytest.mark.parametrize("precision", QUANTIZED)
def test_a_quantized_base_is_near_the_base_and_much_smaller(base, exported, quantized, precision):
    folder, made = quantized
    ours = logits(session(folder / precision / "model.onnx"), made[precision].decoder)
    theirs = np.stack([exported.torch_logits(row, "base") for row in IDS.tolist()])
    spread = (theirs - theirs.mean(-1, keepdims=True)).std()
    assert 0 < np.sqrt(np.mean((ours - theirs) ** 2)) < 0.15 * spread
    size = sum(file.bytes for file in made[precision].files.values())
    assert size < {"int8": 0.32, "int4": 0.20, "dynamic-int8": 0.33}[precision] * base.float32_bytes


@pytest.mark.parametrize("precision", QUANTIZED)
def test_one_adapter_fits_every_precision_and_adds_what_it_adds_to_the_base(exported, quantized, tmp_path, precision):
    folder, made = quantized
    assert made[precision].base_fingerprint == exported.manifest.base_fingerprint
    assert made[precision].tensors == exported.manifest.tensors
    assert made[precision].precision == precision
    export_adapter(exported.adapters["rank 2"], tmp_path / "a", owner="a", base=made[precision], key=KEY)
    handle = ort.LoraAdapter()
    handle.Load(str(tmp_path / "a" / "adapter.onnx_adapter"))
    run = session(folder / precision / "model.onnx")
    change = logits(run, made[precision].decoder, handle) - logits(run, made[precision].decoder)
    with_it, without = (
        np.stack([exported.torch_logits(row, name) for row in IDS.tolist()]) for name in ("rank 2", "base")
    )
    theirs = with_it - without
    assert np.abs(change).max() > 1e-2
    assert np.corrcoef(change.ravel(), theirs.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_embedding_and_the_head_are_one_table(quantized, precision):
    folder, _ = quantized
    model = onnx.load(folder / precision / "model.onnx", load_external_data=False)
    readers = {
        n.op_type for n in model.graph.node if any("embed_tokens.weight" in i and "packed" in i for i in n.input)
    }
    assert readers == {"GatherBlockQuantized", "MatMulNBits"}
    large = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2]
    assert not [t.name for t in large if min(t.dims) > 64 and "cache" not in t.name]


@pytest.mark.parametrize("precision", QUANTIZED)
def test_no_product_with_an_adapter_is_quantized(quantized, precision):
    folder, _ = quantized
    model = onnx.load(folder / precision / "model.onnx", load_external_data=False)
    products = [n for n in model.graph.node if n.op_type == "MatMul"]
    assert len(products) == 2 * 7 * 4
    assert all("lora_" in n.name for n in products)


def test_a_precision_that_does_not_exist_is_refused_by_name():
    with pytest.raises(ScenarioError, match=r"export\.precision: found 'int5'"):
        ExportOptions(precision="int5")
