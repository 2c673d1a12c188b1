"""LoRA and QLoRA: outputs from peft's own models, starts, automatic ranks, and quantized bases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import set_peft_model_state_dict

from fedpeft.base import load_base
from fedpeft.base.quantize import quantize
from fedpeft.errors import ScenarioError
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.adalora import AdaLora
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.ia3 import IA3
from fedpeft.methods.layout import base_parameters
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Algebra
from fedpeft.methods.qlora import QLora
from fedpeft.methods.vera import Vera
from tests.methods import tiny
from tests.methods.pefts import (
    BOTH,
    HEAD,
    KV,
    PARAMETERS,
    attach,
    logits,
    moved,
    total,
    train,
)

PEFTS_OWN = {
    "plain": (Lora(rank=4, alpha=6), LoraConfig(r=4, lora_alpha=6)),
    "rslora": (Lora(rank=4, alpha=6, rslora=True), LoraConfig(r=4, lora_alpha=6, use_rslora=True)),
    "dora": (Lora(rank=4, dora=True), LoraConfig(r=4, lora_alpha=16, use_dora=True)),
    "patterns": (
        Lora(rank=4, rank_pattern={"o_proj": 7, "query": 7}, alpha_pattern={"o_proj": 3.5, "query": 3.5}),
        LoraConfig(
            r=4, lora_alpha=16, rank_pattern={"o_proj": 7, "query": 7}, alpha_pattern={"o_proj": 3.5, "query": 3.5}
        ),
    ),
    "targets": (Lora(rank=4), LoraConfig(r=4, lora_alpha=16)),
}


def patterns_for(kind: str, method: Lora) -> Lora:
    own = {"llama": "o_proj", "bert": "query"}[kind]
    kept = {f: {n: v for n, v in getattr(method, f).items() if n == own} for f in ("rank_pattern", "alpha_pattern")}
    return method.model_copy(update=kept)


@BOTH
@pytest.mark.parametrize("case", PEFTS_OWN)
def test_lora_computes_what_pefts_own_model_does(case, kind):
    method, config = PEFTS_OWN[case]
    made = attach(kind, patterns_for(kind, method))
    made.write(SHARED, moved(made))
    fresh = getattr(tiny, kind)()
    config.target_modules = set(made.config(SHARED)["target_modules"])
    own = get_peft_model(fresh, config)
    tensors = {n: torch.from_numpy(t.copy()) for n, t in made.schemas[SHARED].unflatten(made.read(SHARED)).items()}
    for name in [n for n in tensors if "classifier" in n]:
        fresh.get_parameter(name.removeprefix("base_model.model.")).data = tensors.pop(name)
    assert not set_peft_model_state_dict(own, tensors).unexpected_keys
    assert torch.equal(logits(own.eval(), kind), logits(made.model, kind))


@pytest.mark.parametrize(("init", "deviation"), [("default", 64**-0.5 / 3**0.5), ("gaussian", 1 / 8)])
def test_a_starts_with_the_deviation_that_init_names(init, deviation):
    made = attach("llama", Lora(rank=8, init=init, targets=["q_proj"]))
    tensors = made.schemas[SHARED].unflatten(made.initial[SHARED])
    a = np.concatenate([t.ravel() for n, t in tensors.items() if "lora_A" in n])
    assert a.std() == pytest.approx(deviation, rel=0.1)


def test_an_orthogonal_start_has_orthonormal_rows_and_is_silent_over_bfloat16_too():
    made = attach("llama", Lora(rank=8, init="orthogonal"), dtype=torch.bfloat16)
    for name, tensor in made.schemas[SHARED].unflatten(made.initial[SHARED]).items():
        if "lora_A" in name:
            assert np.allclose(tensor @ tensor.T, np.eye(8), atol=1e-5)
        else:
            assert not tensor.any()


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "eva", "corda", "loftq", "lora_ga", "mica"])
def test_a_start_that_would_move_the_base_is_refused_with_the_reason(init):
    with pytest.raises(ScenarioError, match=f"method.init: found '{init}', expected default, gaussian or orthogonal"):
        parse_method({"name": "lora", "init": init})


@BOTH
@pytest.mark.parametrize("budget", [0.05, 0.1, 0.17, 0.3])
def test_an_automatic_rank_is_the_largest_within_the_budget(kind, budget):
    model = getattr(tiny, kind)()
    assert base_parameters(model) == PARAMETERS[kind] == tiny.base_of(model).parameters
    rank = Lora(rank="auto", budget=budget).rank_on(model)
    one = total(kind, lambda i, o: i + o)
    assert rank * one <= budget * PARAMETERS[kind] < (rank + 1) * one


def test_an_automatic_rank_knows_the_builtin_base_and_its_quantized_form():
    full, nf4 = load_base("keyboard", "float32"), load_base("keyboard", "float32", precision="nf4")
    assert base_parameters(full.model) == base_parameters(nf4.model) == full.parameters
    made = Attached(full, Lora(rank="auto"), Lora(rank="auto").private(2), 0)
    assert base_parameters(full.model) == full.parameters  # adapters do not count
    share = made.schemas[SHARED].size / full.parameters
    assert 0.015 < share <= 0.02


def test_a_budget_below_rank_one_is_refused_with_what_it_would_take():
    with pytest.raises(
        ScenarioError, match=r"method\.budget: found 0\.0001, expected at least 0\.0\d+, which is rank 1"
    ):
        attach("llama", Lora(rank="auto", budget=1e-4))


def test_an_automatic_rank_never_passes_the_narrowest_side():
    assert Lora(rank="auto", budget=1.0).rank_on(tiny.llama()) == KV


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("rank", [8, "auto"])
def test_a_private_lora_has_the_scaling_of_the_shared_one(rank, rslora):
    method = Lora(rank=rank, alpha=12, rslora=rslora, budget=0.2)
    made = attach("llama", method, method.private(2))
    layer = made.model.model.layers[0].self_attn.q_proj
    assert layer.r[PRIVATE] == 2
    assert layer.r[SHARED] != 2
    assert layer.scaling[PRIVATE] == pytest.approx(layer.scaling[SHARED], rel=1e-6)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Lora(rank=40), "method.rank: found 40, expected at most 32; model.layers.0.self_attn.k_proj is 32 wide"),
        (Lora(rank_pattern={"q_prj": 2}), "method.rank_pattern: found 'q_prj', expected names of linear modules"),
        (Lora(alpha_pattern={"x": 2}), "method.alpha_pattern: found 'x', expected names of linear modules"),
        (Lora(rank="auto", rank_pattern={"q_proj": 2}), "method.rank: found 'auto', expected a number"),
        (Lora(targets=["q"]), "method.targets: found 'q', expected names of linear modules"),
        (Vera(targets=["q"]), "method.targets: found 'q', expected names of linear modules"),
        (IA3(targets=["q"]), "method.targets: found 'q', expected names of linear modules"),
        (IA3(feedforward=["q"]), "method.feedforward: found 'q', expected names of linear modules"),
        (AdaLora(init_rank=33), "method.init_rank: found 33, expected at most 32"),
        (QLora(), "base.precision: found 'full', expected nf4 or int8; leave it out, or use lora"),
    ],
)
def test_what_does_not_fit_the_base_is_named(method, message):
    with pytest.raises(ScenarioError) as refused:
        Attached(tiny.base_of(tiny.llama()), method, None, 0)
    assert str(refused.value).startswith(message)


def test_settings_change_what_averaging_means():
    assert Lora().averaging is Algebra.MULTILINEAR
    assert Lora(dora=True).averaging is Algebra.NORM
    assert Vera(train_d=False).averaging is Algebra.LINEAR
    assert IA3().averaging is IA3.algebra is Algebra.LINEAR


# QLoRA


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_over_a_quantized_base_gradients_flow_after_an_evaluation(kind, dtype, precision):
    model = getattr(tiny, kind)(dtype=dtype)
    quantize(model, precision, keep=("classifier.weight", "classifier.bias"))
    model.requires_grad_(False).eval()
    method = QLora(rank=4)
    made = Attached(tiny.base_of(model), method, method.private(2), 0)
    assert made.schemas[SHARED].size == 4 * total(kind, lambda i, o: i + o) + HEAD[kind]
    logits(model, kind)
    made.activate(SHARED, PRIVATE)
    for slot in (SHARED, PRIVATE, SHARED):
        before = made.read(slot)
        losses = train(made, kind, slot)
        assert losses[-1] < losses[0]
        assert (made.read(slot) != before).mean() > 0.95
        logits(model, kind)
    assert all(torch.isfinite(change).all() and change.any() for change in made.changes(SHARED).values())


def test_the_quantized_layers_are_pefts_own():
    made = attach("llama", QLora(rank=2))
    assert type(made.model.model.layers[0].self_attn.q_proj).__module__ == "peft.tuners.lora.bnb"
