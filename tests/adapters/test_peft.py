"""peft opens what we save, and we open what peft saves: equal tensors, equal logits."""

import numpy as np
import pytest
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file

from fedpeft.adapters import Adapter
from fedpeft.adapters.algebra import cat, compose_error
from fedpeft.adapters.compress import compress, prune_rank
from fedpeft.adapters.factors import factors
from fedpeft.adapters.quantize import quantize

from .models import BASE, logits, saved, tiny, trained

LM = {"task_type": "CAUSAL_LM"}
CONFIGS = {
    "lora": LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **LM),
    "two layers' worth": LoraConfig(r=3, target_modules=["q_proj", "o_proj"], layers_to_transform=[1], **LM),
    "rslora": LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "v_proj"], **LM),
    "patterns": LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"layers.0.self_attn.q_proj": 2, "down_proj": 6},
        alpha_pattern={"v_proj": 5},
        **LM,
    ),
    "dora": LoraConfig(r=2, use_dora=True, target_modules=["q_proj", "up_proj"], **LM),
    "ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], **LM),
    "vera": VeraConfig(r=8, target_modules=["q_proj", "o_proj"], **LM),
    "loha": LoHaConfig(r=2, target_modules=["q_proj"], **LM),
    "prompt": PromptTuningConfig(num_virtual_tokens=3, **LM),
    "prefix": PrefixTuningConfig(num_virtual_tokens=3, **LM),
}
every_method = pytest.mark.parametrize("name", CONFIGS)


@every_method
def test_what_peft_saved_opens_here_and_there_again(name, tmp_path):
    adapter, model = saved(CONFIGS[name], tmp_path / "pefts")
    theirs = load_file(tmp_path / "pefts" / "adapter_model.safetensors")
    assert {n: t.tolist() for n, t in adapter.tensors().items()} == {n: t.tolist() for n, t in theirs.items()}
    adapter.save(tmp_path / "ours")
    ours = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)
    opened = PeftModel.from_pretrained(tiny(), tmp_path / "ours")
    assert torch.equal(logits(opened), logits(model))
    assert (logits(opened) - logits(tiny())).abs().max() > 1e-4


@every_method
@pytest.mark.parametrize("bits", [8, 4])
def test_every_method_can_be_quantized_and_opened_in_peft_again(name, bits, tmp_path):
    adapter, model = saved(CONFIGS[name], tmp_path / "pefts")
    quantize(adapter, bits).save(tmp_path / "small")
    Adapter.load(tmp_path / "small", BASE).save(tmp_path / "back")
    opened = PeftModel.from_pretrained(tiny(), tmp_path / "back")
    moved, near = logits(model) - logits(tiny()), logits(opened) - logits(model)
    assert 0 < near.norm() < {8: 0.03, 4: 0.5}[bits] * moved.norm()


@pytest.mark.parametrize("name", ["lora", "rslora", "patterns", "two layers' worth"])
def test_our_factors_are_pefts_delta_weights(name, tmp_path):
    adapter, model = saved(CONFIGS[name], tmp_path)
    found = factors(adapter)
    for module, part in found.items():
        layer = model.base_model.model.get_submodule(module)
        np.testing.assert_allclose(part.change(), layer.get_delta_weight("default").detach().numpy(), atol=1e-6)
    assert len(found) == sum(hasattr(m, "get_delta_weight") for m in model.modules())


PAIRS = [
    (("lora", "rslora"), (1.0, 1.0)),
    (("rslora", "patterns"), (0.7, -0.4)),
    (("patterns", "two layers' worth", "lora"), (-1.0, 0.5, 0.25)),
]


def added(names, weights, tmp_path):
    """Return the adapters, and the logits of a base to which peft's own weighted changes were added."""
    base, adapters = tiny(), []
    for seed, (name, weight) in enumerate(zip(names, weights, strict=True)):
        adapter, model = saved(CONFIGS[name], tmp_path / str(seed), seed)
        adapters.append(adapter)
        for module in factors(adapter):
            layer = model.base_model.model.get_submodule(module)
            base.get_submodule(module).weight.data += weight * layer.get_delta_weight("default")
    return adapters, logits(base)


@pytest.mark.parametrize(("names", "weights"), PAIRS)
def test_peft_opens_a_composition_and_computes_the_weighted_sum(names, weights, tmp_path):
    adapters, expected = added(names, weights, tmp_path)
    composed = cat(adapters, weights)
    composed.save(tmp_path / "composed")
    opened = PeftModel.from_pretrained(tiny(), tmp_path / "composed")
    np.testing.assert_allclose(logits(opened), expected, atol=2e-5)
    assert compose_error(adapters, weights) < 1e-7
    assert (logits(opened) - logits(tiny())).abs().max() > 0.01


def test_pefts_own_cat_is_the_same_where_it_can_join(tmp_path):
    model = trained(CONFIGS["lora"], 1)
    model.add_adapter("other", CONFIGS["lora"])
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if ".other." in name:
            parameter.data.normal_(0.0, 0.1)
    model.save_pretrained(tmp_path, selected_adapters=["default", "other"])
    model.add_weighted_adapter(["default", "other"], [0.6, 0.4], "both", combination_type="cat")
    model.set_adapter("both")
    ours = cat([Adapter.load(tmp_path, BASE), Adapter.load(tmp_path / "other", BASE)], [0.6, 0.4])
    ours.save(tmp_path / "ours")
    np.testing.assert_allclose(logits(PeftModel.from_pretrained(tiny(), tmp_path / "ours")), logits(model), atol=2e-5)


@pytest.mark.parametrize("name", ["lora", "patterns"])
def test_peft_opens_adapters_with_fewer_directions(name, tmp_path):
    adapter, _ = saved(CONFIGS[name], tmp_path / "whole")
    for number, smaller in enumerate((compress(adapter, 2).adapter, prune_rank(adapter, 0.4).adapter)):
        folder = tmp_path / str(number)
        smaller.save(folder)
        opened = PeftModel.from_pretrained(tiny(), folder)
        reference = tiny()
        for module, part in factors(smaller).items():
            reference.get_submodule(module).weight.data += torch.from_numpy(part.change()).float()
        np.testing.assert_allclose(logits(opened), logits(reference), atol=2e-5)


def test_an_adapter_that_peft_saved_in_bfloat16_is_opened_in_float32(tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj"], **LM)
    model = get_peft_model(tiny(), config).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = Adapter.load(tmp_path, BASE)
    assert loaded.vector.dtype == np.float32
    parameters = {name: p for name, p in model.named_parameters() if "lora_" in name}
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A"
    expected = parameters[f"{name}.default.weight"].detach().float().numpy()
    assert np.array_equal(loaded.tensors()[f"{name}.weight"], expected)
