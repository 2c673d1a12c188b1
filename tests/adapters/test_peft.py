"""peft opens what we save, and we open what peft saves."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from fedpeft.adapters import Adapter
from fedpeft.adapters.algebra import cat
from fedpeft.base import load_base
from fedpeft.methods.attached import PRIVATE, SHARED

IDS = torch.tensor([[1, 3, *range(400, 430), 2, 4, 600, 2]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits[0]


def base_model():
    return load_base("keyboard", "float32").model


@pytest.mark.parametrize("slot", [SHARED, PRIVATE])
def test_peft_opens_ours_and_computes_the_same(attached, shared, private, tmp_path, slot):
    adapter = {SHARED: shared, PRIVATE: private}[slot]
    adapter.save(tmp_path / slot)
    opened = PeftModel.from_pretrained(base_model(), tmp_path / slot)
    attached.write(slot, adapter.vector)
    attached.activate(slot)
    assert torch.equal(logits(opened), logits(attached.model))
    assert (logits(opened) - logits(base_model())).abs().max() > 0.01


def test_peft_opens_a_joined_adapter(attached, shared, private, tmp_path):
    cat([shared, private], [1.0, 1.0]).save(tmp_path / "both")
    attached.write(SHARED, shared.vector)
    attached.write(PRIVATE, private.vector)
    attached.activate(SHARED, PRIVATE)
    opened = PeftModel.from_pretrained(base_model(), tmp_path / "both")
    assert torch.allclose(logits(opened), logits(attached.model), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True, "lora_alpha": 3}, {"target_modules": ["q_proj", "o_proj"]}]
)
def test_we_open_pefts_and_peft_opens_it_again(tmp_path, options):
    config = LoraConfig(**{"r": 3, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options})
    model = get_peft_model(base_model(), config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.05)
    model.save_pretrained(tmp_path / "pefts")
    ours = Adapter.load(tmp_path / "pefts", "0" * 64)
    assert ours.config["r"] == 3
    ours.save(tmp_path / "ours")
    opened = PeftModel.from_pretrained(base_model(), tmp_path / "ours")
    assert torch.equal(logits(opened), logits(model.eval()))


def test_an_adapter_that_peft_saved_in_bfloat16_is_opened_in_float32(tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base_model(), config).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = Adapter.load(tmp_path, "0" * 64)
    assert loaded.vector.dtype == np.float32
    saved = {name: p for name, p in model.named_parameters() if "lora_" in name}
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A"
    assert np.array_equal(loaded.tensors()[f"{name}.weight"], saved[f"{name}.default.weight"].detach().float().numpy())
