"""Llama's kin are exact too: biases on queries, keys and values, norms of heads, and whatever adapters do to those."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fedpeft.base import Base, load_base
from fedpeft.device import Runtime
from fedpeft.errors import BaseError
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.export.fill import Ground
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))
IDS = np.random.default_rng(0).integers(5, 2048, 40).tolist()
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "vocab_size": 2048,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
KIN = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "qwen2 with a tied head": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=32)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None)),
}


def saved(model: PreTrainedModel, base: Base, folder: Path) -> str:
    """Give a random model the builtin tokenizer."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.1)
    model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return str(folder)


def logits(model: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS])).logits[0].numpy()


@pytest.mark.parametrize("kin", list(KIN))
def test_a_graph_is_exact_alone_and_with_adapters_that_meet_its_biases_and_norms(base, tmp_path, kin):
    name = saved(KIN[kin](), base, tmp_path / "model")
    other = load_base(name, "float32")
    options = ExportOptions(sites=frozenset({"lora", "scale", "bias"}))
    manifest = export_base(other, tmp_path / "bundle", key=KEY, options=options)
    runtime = Runtime(tmp_path / "bundle")
    assert np.abs(runtime.logits(IDS) - logits(other.model)).max() <= 1e-4
    for method in ({"name": "lora", "dora": True, "rank": 4}, {"name": "bitfit"}, {"name": "ia3"}):
        attached = Attached(load_base(name, "float32"), parse_method(method), None, seed=0)
        start = attached.initial[SHARED]
        vector = start + np.random.default_rng(1).normal(0, 0.1, start.size).astype(np.float32)
        attached.write(SHARED, vector)
        adapter = attached.adapter(SHARED, vector)
        export_adapter(adapter, tmp_path / "ada", owner="ada", base=manifest, key=KEY, ground=Ground(other))
        ours = runtime.logits(IDS, runtime.load(tmp_path / "ada"))
        assert np.abs(ours - logits(attached.model)).max() <= 2e-4
        assert np.abs(ours - runtime.logits(IDS)).max() > 1e-2


def test_attention_that_is_cut_off_is_refused(base, tmp_path):
    name = saved(MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=16)), base, tmp_path / "model")
    with pytest.raises(BaseError, match="sliding window"):
        export_base(load_base(name, "float32"), tmp_path / "bundle", key=KEY)


@pytest.mark.parametrize("variant", ["optional", "rows"])
def test_rows_of_different_lengths_share_buffers_with_what_they_remember(base, bare, tmp_path, variant):
    """Past and present are one buffer, as long as the context; every row goes on where its own text ends."""
    facts = export_base(base, tmp_path / "bundle", key=KEY, options=ExportOptions(variant)).decoder
    session = ort.InferenceSession(tmp_path / "bundle" / "model.onnx", _options())
    shape = (3, facts.kv_heads, facts.context, facts.head_dim)
    buffers = {
        f"{i}.{part}": ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
        for i in range(facts.layers)
        for part in ("key", "value")
    }
    addresses = {name: buffer.data_ptr() for name, buffer in buffers.items()}
    random = np.random.default_rng(1)
    rows = [random.integers(5, 2048, length).tolist() for length in (5, 17, 9)]

    def step(ids: np.ndarray) -> np.ndarray:
        mask = np.zeros((3, max(map(len, rows))), np.int64)
        for row, text in enumerate(rows):
            mask[row, : len(text)] = 1
        binding = session.io_binding()
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", mask)
        binding.bind_output("logits", "cpu")
        for name, buffer in buffers.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", buffer)
            binding.bind_ortvalue_output(f"present.{name}", buffer)
        session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()[0]

    padded = np.zeros((3, 17), np.int64)
    for row, text in enumerate(rows):
        padded[row, : len(text)] = text
    found = step(padded)
    ours = [found[row, len(text) - 1] for row, text in enumerate(rows)]
    for _ in range(6):
        for row, text in enumerate(rows):
            with torch.no_grad():
                theirs = bare(input_ids=torch.tensor([text])).logits[0, -1].numpy()
            assert np.abs(ours[row] - theirs).max() <= 1e-4
        for text in rows:
            text.append(int(random.integers(5, 2048)))
        ours = list(step(np.array([text[-1:] for text in rows]))[:, 0])
    assert {name: buffer.data_ptr() for name, buffer in buffers.items()} == addresses
    assert np.abs(buffers["0.key"].numpy()[0, :, : len(rows[0])]).min() > 0


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return options
