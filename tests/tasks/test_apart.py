"""Examples in one row do not see each other, on every family of decoders; those that let them mix are refused."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    RecurrentGemmaConfig,
)

from fedpeft.errors import ScenarioError
from fedpeft.tasks import Batch
from fedpeft.tasks.apart import apart, reading, require_apart

TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OLDER = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = {
    "llama": LlamaConfig(**TINY),
    "qwen2": Qwen2Config(**TINY),
    "qwen3": Qwen3Config(**TINY, head_dim=8),
    "mistral": MistralConfig(**TINY, sliding_window=32),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gpt-neox": GPTNeoXConfig(**OLDER, intermediate_size=64),
}


def model_of(config: PreTrainedConfig, attention: str = "eager") -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_example_has_the_logits_that_it_has_alone(family, attention):
    model = model_of(FAMILIES[family], attention)
    require_apart(model, 32)
    lengths = ((7, 4, 11), (3, 19))
    ids = torch.randint(3, 64, (2, 24))
    positions = torch.zeros_like(ids)
    for row, own in enumerate(lengths):
        positions[row, : sum(own)] = torch.cat([torch.arange(length) for length in own])
    logits = model(**reading(Batch(ids, ids, positions=positions), torch.float32)).logits
    for row, own in enumerate(lengths):
        begin = 0
        for length in own:
            alone = model(input_ids=ids[row : row + 1, begin : begin + length]).logits[0]
            torch.testing.assert_close(logits[row, begin : begin + length], alone, rtol=1e-4, atol=1e-5)
            begin += length


def test_the_mask_lets_a_token_see_the_earlier_ones_of_its_example():
    (mask,) = apart(torch.tensor([[0, 1, 2, 0, 1, 0]]), torch.float32)[0]
    assert (mask == 0).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert mask.min() == torch.finfo(torch.float32).min


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (MistralConfig(**TINY, sliding_window=16), "expected data.window of at most 16; MistralForCausalLM sees no fur"),
        (BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4), "expected a base that takes masks and posit"),
        (FalconConfig(**OLDER, alibi=True), "expected a base that takes masks and positions; FalconForCausalLM: set da"),
        (RecurrentGemmaConfig(**{**TINY, "num_hidden_layers": 3}, lru_width=32), "RecurrentGemmaForCausalLM lets exam"),
    ],
)  # fmt: skip
def test_a_base_that_would_let_examples_mix_is_refused(config, complaint):
    with pytest.raises(ScenarioError, match=rf"data\.packing: found True, .*{complaint}"):
        require_apart(model_of(config), 32)


def test_a_base_that_uses_no_window_of_its_own_is_not_refused_for_having_one():
    require_apart(model_of(Qwen2Config(**TINY, sliding_window=16, use_sliding_window=False)), 32)
