"""Prompts and prefixes are peft's: files in both directions, gradients, and the networks they are computed from."""

from __future__ import annotations

import peft
import pytest
import torch
from peft import PeftModel
from transformers import RobertaConfig, RobertaForSequenceClassification

from fedpeft.adapters import Adapter
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.prompts import VECTORS
from fedpeft.methods.reparameterised import Lstm, Mlp, Projection
from tests.methods.prompted import (
    CASES,
    COMPUTED,
    ON,
    PLAIN,
    D,
    K,
    W,
    attached,
    logits,
    made,
    opened_by_peft,
)
from tests.methods.tiny import LABELS, LAYERS, VOCABULARY, base_of, batch


@ON
@pytest.mark.parametrize("name", ["prompt_tuning", "prefix_tuning, plain", "p_tuning_v2"])
def test_peft_opens_ours_with_equal_answers(kind, name, tmp_path):
    own = attached(kind, CASES[name][0])
    theirs = opened_by_peft(kind, own.adapter(SHARED, own.read(SHARED)), tmp_path / "adapter")
    assert torch.equal(logits(theirs, kind), logits(own.model, kind))


@ON
@COMPUTED
def test_peft_opens_what_a_computed_prompt_amounts_to_with_equal_answers(kind, method, tmp_path):
    own = attached(kind, method)
    theirs = opened_by_peft(kind, own.folded(SHARED), tmp_path / "adapter")
    # An LSTM's last bit is another one when gradients are kept; from the folded values on all is equal.
    torch.testing.assert_close(logits(theirs, kind), logits(own.model, kind), rtol=0, atol=5e-7)
    assert own.folded(SHARED).config["task_type"] == {"llama": "CAUSAL_LM", "bert": "SEQ_CLS"}[kind]


@ON
@PLAIN
def test_ours_opens_what_peft_saved_with_equal_answers(kind, method, tmp_path):
    task = {"llama": "CAUSAL_LM", "bert": "SEQ_CLS"}[kind]
    config = {"prompt_tuning": peft.PromptTuningConfig, "p_tuning_v2": peft.PrefixTuningConfig}[method.name]
    torch.manual_seed(3)
    theirs = peft.get_peft_model(made(kind), config(task_type=task, num_virtual_tokens=K)).eval()
    theirs.save_pretrained(tmp_path)
    own = attached(kind, method)
    loaded = Adapter.load(tmp_path, own.base.fingerprint)
    assert loaded.schema == own.schemas[SHARED]
    own.write(SHARED, loaded.vector)
    assert torch.equal(logits(own.model, kind), logits(theirs, kind))


@ON
@PLAIN
def test_gradients_are_pefts(kind, method):
    own = attached(kind, method)
    for module in own.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    task, config = {"llama": "CAUSAL_LM", "bert": "SEQ_CLS"}[kind], own.adapter(SHARED, own.read(SHARED)).config
    known = {"PROMPT_TUNING": peft.PromptTuningConfig, "PREFIX_TUNING": peft.PrefixTuningConfig}[config["peft_type"]]
    theirs = peft.get_peft_model(made(kind), known(task_type=task, num_virtual_tokens=K)).eval()
    vectors = theirs.prompt_encoder["default"].embedding.weight
    (mine,) = own.parameters(SHARED, lambda name: name == VECTORS)
    vectors.data.copy_(mine.data)
    inputs = batch(kind)
    if kind == "llama":
        inputs["labels"][:, 0] = -100  # peft predicts the first token from the prompt, we do not
    else:
        theirs.base_model.classifier.modules_to_save["default"].load_state_dict(own.model.classifier.state_dict())
    own.model(**inputs).loss.backward()
    theirs(**inputs).loss.backward()
    torch.testing.assert_close(mine.grad, vectors.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Mlp(K, D, W), lambda: peft.PromptEncoder(peft.PromptEncoderConfig(**SHAPE))),
        (
            Lstm(K, D, W),
            lambda: peft.PromptEncoder(peft.PromptEncoderConfig(encoder_reparameterization_type="LSTM", **SHAPE)),
        ),
        (
            Projection(K, D, W, 2 * LAYERS * D),
            lambda: peft.PrefixEncoder(peft.PrefixTuningConfig(prefix_projection=True, **SHAPE)),
        ),
    ],
    ids=["mlp", "lstm", "projection"],
)
def test_a_computed_prompt_is_what_pefts_module_computes(ours, theirs):
    module = theirs()
    module.load_state_dict(ours.state_dict())  # strict: the names are peft's too
    torch.testing.assert_close(module(torch.arange(K)[None])[0], ours())


SHAPE = {
    "num_virtual_tokens": K,
    "token_dim": D,
    "num_transformer_submodules": 1,
    "num_layers": LAYERS,
    "num_attention_heads": 4,
    "encoder_hidden_size": W,
}


def roberta() -> RobertaForSequenceClassification:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=D,
        intermediate_size=2 * D,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=40,
        num_labels=LABELS,
        pad_token_id=1,
        attn_implementation="eager",
    )
    return RobertaForSequenceClassification(config).eval().requires_grad_(False)


@PLAIN
def test_an_encoder_whose_head_takes_the_first_position_answers_as_under_peft(method, tmp_path):
    own = Attached(base_of(roberta()), method, None, seed=1)
    own.adapter(SHARED, own.read(SHARED)).save(tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(roberta(), tmp_path / "adapter").eval()
    assert torch.equal(logits(theirs, "bert"), logits(own.model, "bert"))
