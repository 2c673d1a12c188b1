"""Fewer bits per number, with a bound on what each block loses, in files whose size is known."""

import json
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedpeft.adapters import Adapter, Schema
from fedpeft.adapters.factors import relative_error
from fedpeft.adapters.forms import open_packed
from fedpeft.adapters.layout import CONFIG, WEIGHTS
from fedpeft.adapters.quantize import QuantizedAdapter, predicted_bytes, quantize
from fedpeft.errors import AdapterError

from .lora import random_lora
from .models import BASE

shapes = st.dictionaries(
    st.text("abc.", min_size=1, max_size=5), st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=4
)
numbers = st.floats(-(2.0**100), 2.0**100, width=32)


@st.composite
def adapters(draw):
    schema = Schema.of(draw(shapes))
    return Adapter(schema, draw(arrays(np.float32, schema.size, elements=numbers)), {"peft_type": "X"}, BASE)


bits, blocks = st.sampled_from([8, 4]), st.sampled_from([0, 1, 5, 32])


@settings(max_examples=150, deadline=None)
@given(adapters(), bits, blocks)
def test_no_number_is_off_by_more_than_half_its_blocks_step(adapter, bits, block):
    quantized = quantize(adapter, bits, block)
    back = quantized.dequantize()
    highest = 2 ** (bits - 1) - 1
    assert np.abs(quantized.codes).max(initial=0) <= highest
    for name, before in adapter.tensors().items():
        after = back.tensors()[name].ravel().astype(np.float64)
        flat = before.ravel().astype(np.float64)
        width = block or (before.shape[-1] if before.ndim else 1)
        for start in range(0, flat.size, max(width, 1)):
            part = slice(start, start + width)
            # The scale is a bfloat16 rounded up: at most 2**-7 above the smallest that would do.
            step = max(np.abs(flat[part]).max() / highest * (1 + 2.0**-7), 2.0**-133)
            assert (np.abs(after[part] - flat[part]) <= step / 2 * (1 + 1e-6)).all()


@settings(max_examples=60, deadline=None)
@given(adapters(), bits, blocks)
def test_what_was_quantized_already_stays_as_it_is(adapter, bits, block):
    once = quantize(adapter, bits, block).dequantize()
    twice = quantize(once, bits, block).dequantize()
    np.testing.assert_allclose(twice.vector, once.vector, rtol=2.0**-6, atol=1e-37)


@settings(max_examples=40, deadline=None)
@given(adapter=adapters(), bits=bits, block=blocks)
def test_the_file_gives_back_every_code_and_has_the_predicted_size(adapter, bits, block, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    quantized = quantize(adapter, bits, block)
    quantized.save(folder)
    loaded = open_packed(folder, BASE)
    assert isinstance(loaded, QuantizedAdapter)
    assert np.array_equal(loaded.codes, quantized.codes)
    assert np.array_equal(loaded.scales, quantized.scales)
    assert (loaded.schema, loaded.bits, loaded.block) == (adapter.schema, bits, block)
    assert np.array_equal(Adapter.load(folder).vector, quantized.dequantize().vector)
    written = sum(path.stat().st_size for path in folder.iterdir())
    assert written == quantized.file_bytes == predicted_bytes(adapter, bits, block)


def test_a_folder_holds_one_form_private_and_beside_pefts_configuration(tmp_path):
    adapter = random_lora()
    for step, thing in enumerate((adapter, quantize(adapter, 8), quantize(adapter, 4), adapter)):
        thing.save(tmp_path / "one")
        names = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "one").iterdir()}
        form = ["float32", "int8", "int4", "float32"][step]
        assert names == {CONFIG: 0o600, WEIGHTS[form]: 0o600}
    assert json.loads((tmp_path / "one" / CONFIG).read_text())["peft_type"] == "LORA"


def test_more_bits_and_smaller_blocks_lose_less():
    rng = np.random.default_rng(0)
    schema = Schema.of({"base_model.model.q.lora_A.weight": (8, 256), "base_model.model.q.lora_B.weight": (256, 8)})
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}
    adapter = Adapter(schema, rng.normal(size=schema.size).astype(np.float32), config, BASE)
    errors = {
        b: relative_error(quantize(adapter, *b).dequantize(), adapter) for b in ((8, 32), (4, 8), (4, 32), (4, 0))
    }
    assert errors[8, 32] < 0.01 < errors[4, 8] < errors[4, 32] < errors[4, 0] < 0.25
    assert quantize(adapter, 8).file_bytes < 0.32 * adapter.file_bytes
    assert quantize(adapter, 4).file_bytes < 0.19 * adapter.file_bytes


@pytest.mark.parametrize(("bits", "block"), [(2, 32), (16, 32), (8, -1)])
def test_what_cannot_be_is_refused(bits, block):
    with pytest.raises(AdapterError, match="bits and block"):
        quantize(random_lora(), bits, block)


@pytest.mark.parametrize("kept", [0, 7, 50, -1])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_damaged_file_is_refused(bits, kept, tmp_path):
    quantized = quantize(random_lora(), bits)
    quantized.save(tmp_path)
    path = tmp_path / WEIGHTS[quantized.form]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(AdapterError, match=r"adapter folder .*expected a whole adapter_model\.int"):
        Adapter.load(tmp_path)


def test_a_scale_that_is_no_number_is_refused(tmp_path):
    quantized = quantize(random_lora(), 8)
    quantized.scales[0] = 0x7F80
    quantized.save(tmp_path)
    with pytest.raises(AdapterError, match="NaN or infinity"):
        Adapter.load(tmp_path)


def test_another_base_is_refused(tmp_path):
    quantize(random_lora(), 8).save(tmp_path)
    with pytest.raises(AdapterError, match="adapter base"):
        Adapter.load(tmp_path, "c" * 64)
