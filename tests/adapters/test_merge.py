"""An adapter goes into the weights as peft would put it there, and comes out to the bit."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForSequenceClassification

from fedpeft.adapters import Adapter, Schema
from fedpeft.adapters.merge import merge
from fedpeft.errors import AdapterError

from .models import BASE, IDS, logits, saved, tiny, trained

LM = {"task_type": "CAUSAL_LM"}
CONFIGS = {
    "lora": LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **LM),
    "rslora": LoraConfig(
        r=4, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2}, **LM
    ),
    "dora": LoraConfig(r=2, use_dora=True, target_modules=["q_proj", "up_proj"], **LM),
    "ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], **LM),
}
every = pytest.mark.parametrize("name", CONFIGS)
both = pytest.mark.parametrize("low_memory", [False, True])


def bits(model: nn.Module) -> dict[str, bytes]:
    kinds = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
    return {n: t.contiguous().view(kinds[t.dtype]).numpy().tobytes() for n, t in model.state_dict().items()}


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=48, n_positions=64, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0)
    return GPT2LMHeadModel(config).eval()


@every
@both
def test_a_merged_model_computes_what_pefts_merge_computes(name, low_memory, tmp_path):
    adapter, model = saved(CONFIGS[name], tmp_path)
    base = tiny()
    merged = merge(base, adapter, low_memory)
    theirs = PeftModel.from_pretrained(tiny(), tmp_path).merge_and_unload()
    assert sorted(merged.names) == sorted(
        n for n, t in base.state_dict().items() if not torch.equal(t, tiny().state_dict()[n])
    )
    for parameter, tensor in theirs.state_dict().items():
        torch.testing.assert_close(base.state_dict()[parameter], tensor, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits(base), logits(theirs), atol=1e-6, rtol=0)
    torch.testing.assert_close(logits(base), logits(model), atol=1e-5, rtol=0)


@every
@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_was_merged_comes_out_to_the_bit(name, low_memory, dtype, tmp_path):
    adapter, _ = saved(CONFIGS[name], tmp_path)
    base = tiny(dtype=dtype)
    before = bits(base)
    merged = merge(base, adapter, low_memory)
    assert bits(base) != before
    assert {t.dtype for t in base.state_dict().values()} == {dtype}
    merged.undo()
    assert bits(base) == before
    merged.undo()
    assert bits(base) == before


def test_a_dora_that_was_trained_here_is_merged_as_peft_would(tmp_path):
    """Its magnitudes carry the name of the live tensor, which peft's files shorten."""
    adapter, _ = saved(CONFIGS["dora"], tmp_path)
    tensors = {f"{n}.weight" if n.endswith("vector") else n: t for n, t in adapter.tensors().items()}
    assert len(set(tensors) - set(adapter.tensors())) == 4
    schema = Schema.of({name: tensor.shape for name, tensor in tensors.items()})
    ours, theirs = tiny(), tiny()
    merge(ours, replace(adapter, schema=schema, vector=schema.flatten(tensors)))
    merge(theirs, adapter)
    assert bits(ours) == bits(theirs) != bits(tiny())


extremes = st.floats(-(2.0**60), 2.0**60, width=32) | st.sampled_from([0.0, -0.0, 2.0**-140, 1.0])


@settings(max_examples=60, deadline=None)
@given(st.lists(extremes, min_size=6, max_size=6), st.lists(extremes, min_size=5, max_size=5))
def test_even_numbers_that_swallow_the_change_come_back(weights, factors):
    """Where W + D rounds W away, or IA3 multiplies by zero, subtraction and division restore nothing by themselves."""
    schema = Schema.of({"base_model.model.x.lora_A.weight": (1, 3), "base_model.model.x.lora_B.weight": (2, 1)})
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1}
    lora = Adapter(schema, torch.tensor(factors).numpy(), config, BASE)
    ia3 = Adapter(
        Schema.of({"base_model.model.x.ia3_l": (2, 1)}), torch.tensor(factors[:2]).numpy(), {"peft_type": "IA3"}, BASE
    )
    for adapter in (lora, ia3):
        for low_memory in (False, True):
            state = {"x.weight": torch.tensor(weights).reshape(2, 3)}
            before = state["x.weight"].numpy().tobytes()
            try:
                merge(state, adapter, low_memory).undo()
            except AdapterError as error:
                assert "NaN or infinity" in str(error)
            assert state["x.weight"].numpy().tobytes() == before


@both
def test_a_classifiers_head_is_merged_too(low_memory, tmp_path):
    def classifier() -> LlamaForSequenceClassification:
        torch.manual_seed(0)
        config = tiny().config
        config.num_labels, config.pad_token_id = 3, 0
        return LlamaForSequenceClassification(config).eval()

    model = trained(LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS"), model=classifier())
    model.save_pretrained(tmp_path)
    base = classifier()
    before = bits(base)
    merged = merge(base, Adapter.load(tmp_path, BASE), low_memory)
    assert "score.weight" in merged.names
    assert torch.equal(base.score.weight, model.base_model.model.score.modules_to_save["default"].weight)
    with torch.no_grad():
        torch.testing.assert_close(base(input_ids=IDS).logits, model(input_ids=IDS).logits, atol=1e-5, rtol=0)
    merged.undo()
    assert bits(base) == before


def test_a_with_block_ends_with_the_base(shared):
    base = tiny()
    before = logits(base)
    with merge(base, shared) as merged:
        assert len(merged.names) == 14
        assert not torch.equal(logits(base), before)
    assert torch.equal(logits(base), before)


def test_merges_come_out_in_the_reverse_order(shared, private):
    base = tiny()
    before = bits(base)
    with merge(base, shared, low_memory=True):
        between = bits(base)
        with merge(base, private, low_memory=True):
            assert bits(base) != between
        assert bits(base) == between
    assert bits(base) == before


def test_an_earlier_merge_does_not_come_out_from_under_a_later_one(shared, private):
    base = tiny()
    first, second = merge(base, shared), merge(base, private)
    with pytest.raises(AdapterError, match="undo later merges first"):
        first.undo()
    second.undo()
    first.undo()
    assert bits(base) == bits(tiny())


def test_other_owners_of_the_old_tensors_keep_them(shared):
    base = tiny()
    state = dict(base.state_dict())
    before = {n: t.clone() for n, t in state.items()}
    merge(base, shared)
    assert all(torch.equal(state[n], before[n]) for n in state)


def test_a_state_dict_is_merged_like_a_model(shared):
    base, state = tiny(), dict(tiny().state_dict())
    merge(base, shared)
    merged = merge(state, shared)
    assert all(torch.equal(t, base.state_dict()[n]) for n, t in state.items())
    merged.undo()
    assert all(torch.equal(t, tiny().state_dict()[n]) for n, t in state.items())


def test_low_memory_keeps_a_fraction(shared):
    whole, part = merge(tiny(), shared), merge(tiny(), shared, low_memory=True)
    base = tiny()
    assert whole.kept_bytes == sum(4 * base.get_parameter(n).numel() for n in whole.names)
    assert part.kept_bytes < 0.25 * whole.kept_bytes
    whole.undo()
    assert whole.kept_bytes == 0


def test_weights_that_changed_since_cannot_be_recomputed(shared):
    base = tiny()
    merged = merge(base, shared, low_memory=True)
    base.get_parameter(merged.names[0]).data[0, 0] += 1.0
    with pytest.raises(AdapterError, match=r"changed since the merge.*load the base again"):
        merged.undo()


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=3, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, **LM),
        LoraConfig(r=3, target_modules=["c_proj"], fan_in_fan_out=True, use_dora=True, **LM),
        IA3Config(target_modules=["c_attn", "c_proj"], feedforward_modules=["c_proj"], fan_in_fan_out=True, **LM),
    ],
)
def test_weights_that_lie_as_in_and_out_are_merged_turned(config, tmp_path):
    model = trained(config, model=gpt2())
    model.save_pretrained(tmp_path)
    adapter = Adapter.load(tmp_path, BASE)
    base, state = gpt2(), {n: t.clone() for n, t in gpt2().state_dict().items()}
    merge(base, adapter)
    torch.testing.assert_close(logits(base), logits(PeftModel.from_pretrained(gpt2(), tmp_path).merge_and_unload()))
    merged = merge({n: t for n, t in state.items() if n != "lm_head.weight"}, adapter)
    assert set(merged.names) <= set(state)


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (tiny(), {"config": {"peft_type": "PREFIX_TUNING"}}, r"found 'PREFIX_TUNING', expected a mergeable method"),
        (nn.Linear(2, 2), {}, r"base weight model\.layers\.0\.mlp\.down_proj\.weight: found 'absent'"),
    ],
)
def test_what_cannot_be_merged_is_refused(base, change, message, shared):
    with pytest.raises(AdapterError, match=message):
        merge(base, replace(shared, **change))


def test_a_method_without_weights_to_merge_is_refused(tmp_path):
    adapter, _ = saved(PrefixTuningConfig(num_virtual_tokens=3, **LM), tmp_path)
    with pytest.raises(AdapterError, match="run it beside the base"):
        merge(tiny(), adapter)


def test_a_weight_that_two_layers_share_is_refused(tmp_path):
    config = LoraConfig(r=2, target_modules=["lm_head"], **LM)
    trained(config).save_pretrained(tmp_path, save_embedding_layers=False)
    adapter = Adapter.load(tmp_path, BASE)
    merge(tiny(), adapter).undo()
    with pytest.raises(AdapterError, match=r"lm_head\.weight: found 'shared with model\.embed_tokens\.weight'"):
        merge(tiny(tied=True), adapter)
    with pytest.raises(AdapterError, match="shared with"):
        merge(dict(tiny(tied=True).state_dict()), adapter)


def test_a_base_of_other_shapes_or_integers_is_refused(shared):
    state = dict(tiny().state_dict())
    name = "model.layers.0.mlp.down_proj.weight"
    with pytest.raises(AdapterError, match=rf"base weight {name}: found \(31, 56\), expected shape \(32, 56\)"):
        merge({**state, name: state[name][:-1]}, shared)
    with pytest.raises(AdapterError, match=rf"base weight {name}: found 'torch.int8'.*dequantize the base first"):
        merge({**state, name: state[name].to(torch.int8)}, shared)


def test_a_merge_that_overflows_leaves_the_model_as_it_was(shared):
    base = tiny(dtype=torch.float16)
    before = bits(base)
    with pytest.raises(AdapterError, match="NaN or infinity"):
        merge(base, replace(shared, vector=shared.vector * 1e4))
    assert bits(base) == before
