"""What a prompt cannot do is refused."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from fedpeft.errors import ScenarioError
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.lora import Lora
from fedpeft.methods.lora_prompt import LoraPrompt
from fedpeft.methods.p_tuning import PTuning
from fedpeft.methods.p_tuning_v2 import PTuningV2
from fedpeft.methods.prefix_tuning import PrefixTuning
from fedpeft.methods.prompt_tuning import PromptTuning
from tests.methods.prompted import (
    PLAIN,
    K,
    attached,
    generated,
    logits,
)
from tests.methods.tiny import LABELS, base_of, bert, llama


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "prompt_tuning", "length": 0}, "method.length: found 0, expected input should be greater than"),
        ({"name": "p_tuning", "encoder": "gru"}, "method.encoder: found 'gru', expected "),
        ({"name": "lora_prompt", "lora": {"rnk": 3}}, "method.lora.rnk: found 'rnk', expected a known field; did you"),
        ({"name": "lora_prefix", "prefix": {"length": -1}}, "method.prefix.length: found -1, expected "),
    ],
)
def test_a_mistake_in_the_table_is_named(settings, message):
    with pytest.raises(ScenarioError) as refused:
        parse_method(settings)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("method", "field", "message"),
    [
        (
            PromptTuning(length=128),
            "method.length",
            "found 128, expected less than 128; bert reads 128 positions in all",
        ),
        (PTuning(length=200), "method.length", "found 200"),
        (PrefixTuning(length=200), "method.length", "found 200"),
        (PTuningV2(length=200), "method.length", "found 200"),
        (PromptTuning(init_text="hello"), "method.init_text", "found 'hello', expected a base with a tokenizer"),
        (LoraPrompt(prompt=PromptTuning(length=200)), "method.prompt.length", "found 200"),
        (LoraPrompt(lora=Lora(targets=["quary"])), "method.lora.targets", "did you mean 'query'?"),
    ],
)
def test_what_the_base_cannot_have_is_refused(method, field, message):
    with pytest.raises(ScenarioError) as refused:
        Attached(base_of(bert()), method, None, seed=0)
    assert refused.value.field == field
    assert message in str(refused.value)


@PLAIN
def test_a_text_that_no_longer_fits_is_refused(method):
    own = attached("bert", method)
    fitting = torch.full((1, 128 - K), 7)
    assert logits(own.model, "bert", input_ids=fitting).shape == (1, LABELS)
    with pytest.raises(ScenarioError, match="at most 4 before a text of 124 tokens; the base has 128 positions"):
        logits(own.model, "bert", input_ids=torch.full((1, 124), 7))


@PLAIN
def test_a_cache_of_fixed_size_is_refused(method):
    own = attached("llama", method)
    with pytest.raises(ScenarioError, match="prompts and prefixes need a cache that grows"):
        generated(own.model, cache_implementation="static")


def test_a_text_of_no_tokens_is_no_start(monkeypatch):
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda _: lambda *_, **__: {"input_ids": []})
    with pytest.raises(ScenarioError, match="a text of at least one token"):
        Attached(base_of(llama()), PromptTuning(init_text=" "), None, seed=0)
