"""Quantized bases are smaller, compute nearly the same, and let adapters learn, also after an evaluation."""

import copy

import bitsandbytes as bnb
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from fedpeft.base import load_base
from fedpeft.base.quantize import quantize
from fedpeft.errors import BaseError

IDS = torch.tensor([[1, 3, 300, 301, 302, 2, 7, 9, 400, 17, 18, 2]])
KINDS = {"nf4": bnb.nn.Linear4bit, "int8": bnb.nn.Linear8bitLt}


def bits(model: nn.Module, kind: type[nn.Module]) -> float:
    """Return how many bits a weight of the quantized layers takes, its scales included."""
    size = count = 0
    for layer in model.modules():
        if isinstance(layer, kind):
            count += layer.in_features * layer.out_features
            parts = [layer.weight.data]
            if kind is bnb.nn.Linear4bit:
                state = layer.weight.quant_state
                parts += [state.absmax, state.state2.absmax]
            else:
                parts += [s for s in (layer.weight.SCB, layer.state.SCB) if s is not None]
            size += sum(part.nbytes for part in parts)
    return 8 * size / count


@pytest.mark.parametrize(("precision", "most"), [("nf4", 4.3), ("int8", 8.2)])
@pytest.mark.parametrize(("name", "labels"), [("keyboard", None), ("minilm", 5)])
def test_quantized_weights_are_smaller(home, name, labels, precision, most):
    base = load_base(name, labels=labels, precision=precision)
    assert 4 < bits(base.model, KINDS[precision]) < most


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_all_linear_layers_are_quantized_but_the_output_the_embeddings_and_the_classifier(home, precision):
    writer, encoder = load_base("keyboard", precision=precision).model, load_base("minilm", labels=5).model
    quantize(encoder, precision, keep=("classifier.weight", "classifier.bias"))
    for model, spared in ((writer, "lm_head"), (encoder, "classifier")):
        linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        assert type(linear.pop(spared)) is nn.Linear
        assert {type(module) for module in linear.values()} == {KINDS[precision]}
        assert all(e.weight.is_floating_point() for e in model.modules() if isinstance(e, nn.Embedding))
    assert writer.lm_head.weight.data_ptr() == writer.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize(("precision", "far"), [("nf4", 0.15), ("int8", 0.03)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_quantized_base_computes_nearly_what_the_full_one_does(home, precision, far, dtype):
    full, quantized = load_base("keyboard", dtype), load_base("keyboard", dtype, precision=precision)
    with torch.no_grad():
        expected, found = (base.model(input_ids=IDS).logits for base in (full, quantized))
    assert found.dtype == expected.dtype == quantized.dtype
    distance = ((found - expected).float().norm() / expected.float().norm()).item()
    assert 0 < distance < far


@pytest.mark.parametrize("precision", ["nf4", "int8"])
@pytest.mark.parametrize(("name", "labels"), [("keyboard", None), ("minilm", 5)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_adapters_learn_after_an_evaluation_as_they_did_before_it(home, name, labels, dtype, precision):
    """The trap of bitsandbytes on CPUs with AVX512-BF16: after a pass without gradients there are none any more."""
    base = load_base(name, dtype, labels=labels, precision=precision)
    task = {"task_type": "SEQ_CLS"} if labels else {"task_type": "CAUSAL_LM"}
    torch.manual_seed(0)
    model = get_peft_model(base.model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **task))
    adapters = {n: p for n, p in model.named_parameters() if "lora_" in n}
    assert len(adapters) > 20
    start = copy.deepcopy(model.state_dict())

    def gradients():
        model.zero_grad()
        model(input_ids=IDS).logits.float().square().mean().backward()
        return {n: p.grad.clone() for n, p in adapters.items()}

    before = gradients()
    model.eval()
    with torch.no_grad():
        evaluated = model(input_ids=IDS).logits
    with torch.inference_mode():
        assert torch.equal(model(input_ids=IDS).logits, evaluated)
    after = gradients()
    for adapter, gradient in before.items():
        assert gradient.any(), adapter
        assert torch.equal(after[adapter], gradient), adapter
    torch.optim.SGD(adapters.values(), lr=1.0).step()
    assert all(not torch.equal(p, start[n]) for n, p in adapters.items())


def tiny_writer(heads: int, feed_forward: int) -> LlamaForCausalLM:
    torch.manual_seed(heads)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=6 * heads,
            head_dim=6,
            intermediate_size=feed_forward,
            num_hidden_layers=1,
            num_attention_heads=heads,
            num_key_value_heads=heads,
        )
    )


@settings(max_examples=15, deadline=None)
@given(
    heads=st.integers(1, 20),
    half=st.integers(1, 75),
    kind=st.sampled_from(["nf4", "int8"]),
    wide=st.booleans(),
)
def test_layers_of_any_even_shape_evaluate_as_they_train_and_pass_gradients_to_their_inputs(heads, half, kind, wide):
    """bitsandbytes' own evaluation takes only multiples of 32 and 64; the one chosen here takes them all."""
    model = tiny_writer(heads, 2 * half).to(torch.float32 if wide else torch.bfloat16)
    quantize(model, kind)
    model.eval().requires_grad_(False)
    states = torch.randn(2, 3, 6 * heads, dtype=model.dtype)

    def pass_with_gradients():
        inputs = states.clone().requires_grad_()
        logits = model(inputs_embeds=inputs).logits
        logits.float().square().sum().backward()
        return logits.detach(), inputs.grad

    logits, gradient = pass_with_gradients()
    assert gradient.any()
    with torch.no_grad():
        assert torch.equal(model(inputs_embeds=states).logits, logits)
    again = pass_with_gradients()
    assert torch.equal(again[0], logits)
    assert torch.equal(again[1], gradient)


def test_the_switch_that_keeps_gradients_alive_still_exists():
    """Setting an attribute that nobody reads would be silent: this fails when bitsandbytes renames it."""
    assert hasattr(bnb.nn.Linear4bit(64, 64), "support_avx512bf16_for_cpu")


def test_an_odd_number_of_inputs_is_refused_in_4_bits_and_fits_8():
    with pytest.raises(
        BaseError, match=r"an even number of inputs .*; model\.layers\.0\.mlp\.down_proj has an odd one; "
    ):
        quantize(tiny_writer(2, 77), "nf4")
    quantize(tiny_writer(2, 77), "int8")


def test_a_model_without_linear_layers_is_refused():
    empty = BertModel(BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=0, num_attention_heads=1))
    linear = [name for name, module in empty.named_modules() if isinstance(module, nn.Linear)]
    with pytest.raises(BaseError, match=r"base\.precision: found 'nf4', expected linear layers to quantize; BertModel"):
        quantize(empty, "nf4", keep=[f"{name}.weight" for name in linear])


def test_int8_says_nothing_at_every_step(home, caplog):
    base = load_base("keyboard", precision="int8")
    with torch.no_grad():
        base.model(input_ids=IDS)
    assert not caplog.records
