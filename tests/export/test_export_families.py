"""Llamas of other shapes, and adapters that peft itself saved."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from fedpeft.adapters import Adapter
from fedpeft.base import Base, load_base
from fedpeft.device import Runtime
from fedpeft.errors import BaseError
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def small_llama(**settings) -> LlamaConfig:
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 2048}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    return LlamaConfig(**{**shape, **heads, "bos_token_id": 1, "eos_token_id": 2, **settings})


def saved(model: PreTrainedModel, base: Base, folder: Path) -> Base:
    """Give a random model the builtin tokenizer and load it as a base."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return load_base(str(folder), "float32")


def difference(base: Base, model: torch.nn.Module, runtime: Runtime, adapter=None) -> float:
    ids = np.random.default_rng(0).integers(5, 2048, 50).tolist()
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    return float(np.abs(runtime.logits(ids, adapter) - theirs).max())


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_parameters": LLAMA3_ROPE},
        {"attention_bias": True, "mlp_bias": True},
        {"tie_word_embeddings": True, "num_key_value_heads": 4},
        {"head_dim": 32, "rms_norm_eps": 1e-3},
    ],
    ids=["scaled rope", "biases", "tied head", "wide heads"],
)
def test_llamas_of_other_shapes_are_exact(base, tmp_path, settings):
    torch.manual_seed(0)
    other = saved(LlamaForCausalLM(small_llama(**settings)), base, tmp_path / "model")
    export_base(other, tmp_path / "bundle", key=KEY)
    assert difference(other, other.model, Runtime(tmp_path / "bundle")) <= 1e-4


def test_pefts_own_files_with_patterns_rslora_and_some_layers_only_are_exact(base, tmp_path):
    torch.manual_seed(0)
    other = saved(LlamaForCausalLM(small_llama()), base, tmp_path / "model")
    manifest = export_base(other, tmp_path / "bundle", key=KEY)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        use_rslora=True,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"down_proj": 6},
        alpha_pattern={"layers.1.self_attn.v_proj": 3},
        layers_to_transform=[1],
        init_lora_weights=False,
    )
    model = get_peft_model(other.model, config)
    model.save_pretrained(tmp_path / "peft")
    adapter = Adapter.load(tmp_path / "peft", other.fingerprint)
    export_adapter(adapter, tmp_path / "ada", owner="ada", base=manifest, key=KEY)
    runtime = Runtime(tmp_path / "bundle")
    assert difference(other, model, runtime, runtime.load(tmp_path / "ada")) <= 1e-4
    assert difference(other, model, runtime) > 1e-2


def test_an_architecture_that_the_native_backend_does_not_write_is_refused_by_name(base, tmp_path):
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=2048, bos_token_id=1, eos_token_id=2)
    other = saved(GPT2LMHeadModel(config), base, tmp_path / "model")
    with pytest.raises(BaseError, match=r"architecture: found 'gpt2'.*llama"):
        export_base(other, tmp_path / "bundle", key=KEY, options=ExportOptions(backend="native"))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type.*dynamic",
        ),
        ({"hidden_act": "gelu"}, "hidden_act.*gelu"),
        ({"head_dim": 8}, "head_dim"),
    ],
)
def test_a_llama_the_graph_cannot_express_is_refused(base, tmp_path, settings, complaint):
    other = saved(LlamaForCausalLM(small_llama(**settings)), base, tmp_path / "model")
    with pytest.raises(BaseError, match=complaint):
        export_base(other, tmp_path / "bundle", key=KEY)
