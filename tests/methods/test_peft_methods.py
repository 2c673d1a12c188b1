"""LoRA, AdaLoRA, QLoRA, IA3 and VeRA: counts from closed forms, outputs from peft's own models."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import AdaLoraConfig, IA3Config, LoraConfig, VeraConfig, get_peft_model
from peft.utils import set_peft_model_state_dict

from fedpeft.base import load_base
from fedpeft.base.quantize import quantize
from fedpeft.codecs import RingCodec
from fedpeft.errors import ScenarioError
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.adalora import UNIT, AdaLora, Allocation
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.ia3 import IA3
from fedpeft.methods.layout import base_parameters
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Algebra, Method
from fedpeft.methods.qlora import QLora
from fedpeft.methods.vera import Vera
from tests.methods import tiny

BOTH = pytest.mark.parametrize("kind", tiny.KINDS)
H, F, KV, L = tiny.HIDDEN, tiny.WIDE, tiny.HIDDEN // 2, tiny.LAYERS

SIDES = {
    "llama": [(H, H), (H, KV), (H, KV), (H, H), (H, F), (H, F), (F, H)],
    "bert": [(H, H), (H, H), (H, H), (H, H), (H, F), (F, H)],
}
"""(in, out) of a layer's linear modules, written down here a second time."""

HEAD = {"llama": 0, "bert": H * tiny.LABELS + tiny.LABELS}

PARAMETERS = {
    "llama": 2 * tiny.VOCABULARY * H + L * (2 * H * H + 2 * H * KV + 3 * H * F + 2 * H) + H,
    "bert": (2 * tiny.VOCABULARY + 2) * H
    + 2 * H
    + L * (4 * (H * H + H) + 2 * H + H * F + F + F * H + H + 2 * H)
    + H * H
    + H,
}


def total(kind: str, one: Callable[[int, int], int]) -> int:
    return L * sum(one(i, o) for i, o in SIDES[kind])


CASES: dict[str, tuple[Method, Callable[[str], int]]] = {
    "lora": (Lora(rank=3), lambda k: total(k, lambda i, o: 3 * (i + o))),
    "lora, rsLoRA": (Lora(rank=4, rslora=True), lambda k: total(k, lambda i, o: 4 * (i + o))),
    "lora, DoRA": (Lora(rank=3, dora=True), lambda k: total(k, lambda i, o: 3 * (i + o) + o)),
    "lora, gaussian": (Lora(rank=3, init="gaussian"), lambda k: total(k, lambda i, o: 3 * (i + o))),
    "lora, orthogonal": (Lora(rank=3, init="orthogonal"), lambda k: total(k, lambda i, o: 3 * (i + o))),
    "lora, auto": (
        Lora(rank="auto", budget=0.1),
        lambda k: int(0.1 * PARAMETERS[k] / total(k, lambda i, o: i + o)) * total(k, lambda i, o: i + o),
    ),
    "lora, auto DoRA": (
        Lora(rank="auto", dora=True, budget=0.1),
        lambda k: (
            int((0.1 * PARAMETERS[k] - total(k, lambda i, o: o)) / total(k, lambda i, o: i + o))
            * total(k, lambda i, o: i + o)
            + total(k, lambda i, o: o)
        ),
    ),
    "adalora": (
        AdaLora(init_rank=4, target_rank=2, warmup=2, until=6, alpha=64),
        lambda k: total(k, lambda i, o: 4 * (i + o + 2)) + 1,
    ),
    "qlora": (QLora(rank=3), lambda k: total(k, lambda i, o: 3 * (i + o))),
    "ia3": (IA3(), lambda k: L * ((KV + KV if k == "llama" else H + H) + F)),
    "vera": (Vera(rank=20), lambda k: total(k, lambda i, o: o + 20)),
    "vera, d frozen": (Vera(rank=20, train_d=False), lambda k: total(k, lambda i, o: o)),
}
ALL = pytest.mark.parametrize("case", CASES)


def model_of(kind: str, method: Method, dtype: torch.dtype = torch.float32):
    model = getattr(tiny, kind)(dtype=dtype)
    if method.precision != "full":
        quantize(model, method.precision, keep=("classifier.weight", "classifier.bias"))
        model.requires_grad_(False).eval()
    return model


def attach(kind: str, method: Method, private: Method | None = None, seed: int = 0, dtype=torch.float32) -> Attached:
    return Attached(tiny.base_of(model_of(kind, method, dtype)), method, private, seed)


def logits(model, kind: str) -> torch.Tensor:
    inputs = {name: t for name, t in tiny.batch(kind).items() if name != "labels"}
    with torch.no_grad():
        return model(**inputs).logits


def train(made: Attached, kind: str, slot: str = SHARED, steps: int = 8, rate: float | None = None) -> list[float]:
    """AdamW as the trainer does it, with the method's penalty and its word after each step."""
    parameters = made.parameters(slot)
    optimizer = torch.optim.AdamW(parameters, lr=rate or 3 * made.methods[slot].rate, weight_decay=0.0)
    losses = []
    made.model.train()
    torch.manual_seed(0)  # one of peft's types draws random numbers as it trains
    for step in range(steps):
        loss = made.model(**tiny.batch(kind)).loss
        losses.append(loss.item())
        penalty = made.penalty(slot)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        made.after_step(slot, step + 1, steps)
        optimizer.zero_grad()
    made.model.eval()
    return losses


def moved(made: Attached, slot: str = SHARED, seed: int = 0, deviation: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (made.initial[slot] + deviation * rng.standard_normal(made.initial[slot].size)).astype(np.float32)


def sha(parameter: torch.Tensor) -> str:
    return sha256(parameter.detach().contiguous().view(torch.uint8).numpy().data).hexdigest()


# What every method must do


@ALL
@BOTH
def test_the_count_is_the_closed_form(case, kind):
    method, count = CASES[case]
    assert attach(kind, method).schemas[SHARED].size == count(kind) + HEAD[kind]


@ALL
@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_starts_from_the_base_learns_and_leaves_the_base_as_it_was(case, kind, dtype):
    method, _ = CASES[case]
    model = model_of(kind, method, dtype)
    bare, own = logits(model, kind), dict(model.named_parameters())
    before = {n: sha(p) for n, p in own.items()}
    made = Attached(tiny.base_of(model), method, None, 0)
    # DoRA divides by a norm and multiplies by it again, which rounds.
    close = 0.01 if dtype == torch.bfloat16 else 1e-6
    assert torch.allclose(logits(model, kind), bare, atol=close if "DoRA" in case else 0.0, rtol=0)
    assert {p.dtype for p in made.parameters(SHARED)} == {torch.float32}
    losses = train(made, kind)
    assert losses[-1] < losses[0] - 0.005
    assert np.isfinite(made.read(SHARED)).all()
    assert not torch.equal(logits(model, kind), bare)
    made.activate()
    assert torch.equal(logits(model, kind), bare)
    assert {n: sha(p) for n, p in own.items()} == before


@ALL
@BOTH
def test_what_is_read_elsewhere_computes_the_same(case, kind):
    method, _ = CASES[case]
    made, other = attach(kind, method), attach(kind, method)
    assert made.schemas[SHARED].digest == other.schemas[SHARED].digest
    assert np.array_equal(made.initial[SHARED], other.initial[SHARED])
    train(made, kind)
    other.write(SHARED, made.read(SHARED))
    assert torch.equal(logits(other.model, kind), logits(made.model, kind))


@ALL
def test_a_private_slot_is_of_its_own_and_starts_silent(case):
    method, _ = CASES[case]
    private = method.private(2)
    if private is None:
        assert case in ("lora, DoRA", "lora, auto DoRA", "adalora")
        return
    made = attach("llama", method, private)
    made.write(SHARED, moved(made))
    alone = logits(made.model, "llama")
    made.activate(SHARED, PRIVATE)
    assert torch.equal(logits(made.model, "llama"), alone)
    losses = train(made, "llama", PRIVATE)
    assert losses[-1] < losses[0]
    assert not torch.equal(logits(made.model, "llama"), alone)
    made.activate(SHARED)
    assert torch.equal(logits(made.model, "llama"), alone)


@ALL
@BOTH
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_a_first_change_is_that_share_of_it(case, kind, share):
    """In every place: the outputs of adapted modules, not the model's, which is not linear."""
    method, _ = CASES[case]
    made = attach(kind, method)
    train(made, kind)
    trained = made.read(SHARED)
    whole = made.changes(SHARED)
    made.write(SHARED, made.share(SHARED, made.initial[SHARED], trained, share))
    part = made.changes(SHARED)
    if method.averaging is not Algebra.NORM:
        for name, change in whole.items():
            torch.testing.assert_close(part[name], share * change, atol=1e-5, rtol=1e-4)
    if share == 1.0:
        np.testing.assert_allclose(made.read(SHARED), trained, atol=1e-6)


# LoRA

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


# AdaLoRA


def ada(**settings) -> AdaLora:
    return AdaLora(**{"init_rank": 4, "target_rank": 2, "warmup": 2, "until": 6, **settings})


def triplets(made: Attached) -> dict[str, dict[str, np.ndarray]]:
    """The tensors of each matrix, from the flat vector alone."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in made.schemas[SHARED].unflatten(made.read(SHARED)).items():
        module, _, part = name.rpartition(".")
        if part in ("P", "E", "Q", "importance"):
            found.setdefault(module, {})[part] = tensor.astype(np.float64)
    return found


def mask_of(made: Attached, budget: int) -> dict[str, np.ndarray]:
    """The public mask, computed a second time: the ``budget`` largest scores of all."""
    parts = triplets(made)
    modules = [n for n, _ in made.model.named_modules() if n in parts]
    joined = np.concatenate([parts[n]["importance"] for n in modules])
    kept = np.zeros(len(joined), bool)
    kept[sorted(range(len(joined)), key=lambda i: (-joined[i], i))[:budget]] = True
    return dict(zip(modules, kept.reshape(len(modules), -1), strict=True))


def with_steps(made: Attached, steps: float, seed: int = 0) -> np.ndarray:
    vector = moved(made, seed=seed)
    vector[made.schemas[SHARED].mask(lambda name: name == "allocation.steps")] = steps * UNIT
    return vector


@given(st.integers(1, 16), st.integers(1, 16), st.integers(0, 50), st.integers(1, 50), st.floats(0, 200))
@settings(max_examples=60, deadline=None)
def test_the_budget_falls_along_a_cubic(first, last, warmup, length, steps):
    first, last = max(first, last), min(first, last)
    allocation = Allocation(first, last, warmup, warmup + length)
    allocation.owners = [None] * 10
    with torch.no_grad():
        allocation.steps.fill_(steps * UNIT)
    if steps <= warmup:
        expected = 10.0 * first
    elif steps >= warmup + length:
        expected = 10.0 * last
    else:
        expected = 10 * (last + (first - last) * (1 - (steps - warmup) / length) ** 3)
    assert abs(allocation.budget() - expected) <= 0.51


@BOTH
def test_the_mask_is_a_function_of_the_vector_alone(kind):
    made, other = attach(kind, ada()), attach(kind, ada(), seed=3)
    count = len(SIDES[kind]) * L
    for steps, budget in ((2, 4 * count), (4, round(count * 2.25)), (6, 2 * count), (60, 2 * count)):
        vector = with_steps(made, steps)
        made.write(SHARED, vector)
        other.write(SHARED, vector)
        other.write(SHARED, vector)
        expected = mask_of(made, budget)
        assert sum(m.sum() for m in expected.values()) == budget
        for which in (made, other):
            x = torch.randn(1, 8, H, generator=torch.Generator().manual_seed(0))
            for name, change in which.changes(SHARED).items():
                if name not in expected or change.shape[-1] == 0:
                    continue
                part = triplets(made)[name]
                if part["Q"].shape[1] != H:
                    continue
                middle = np.diag(part["E"] * expected[name])
                by_hand = x.double().numpy() @ (part["P"] @ middle @ part["Q"]).T * 32 / 4
                np.testing.assert_allclose(change.double().numpy(), by_hand, atol=1e-4)
        assert torch.equal(logits(other.model, kind), logits(made.model, kind))


@BOTH
@pytest.mark.parametrize("steps", [0, 100])
def test_adalora_computes_what_pefts_own_layers_do(kind, steps):
    made = attach(kind, ada(alpha=8))
    made.write(SHARED, with_steps(made, steps))
    kept = mask_of(made, (4 if steps == 0 else 2) * len(SIDES[kind]) * L)
    fresh = getattr(tiny, kind)()
    if kind == "bert":
        tensors = made.schemas[SHARED].unflatten(made.read(SHARED))
        for name, tensor in tensors.items():
            if "classifier" in name:
                fresh.get_parameter(name.removeprefix("base_model.model.")).data = torch.from_numpy(tensor.copy())
    config = AdaLoraConfig(init_r=4, target_r=2, total_step=10, lora_alpha=8, target_modules=list(kept))
    own = get_peft_model(fresh, config)
    for name, part in triplets(made).items():
        layer = fresh.get_submodule(name)
        layer.lora_A["default"].data = torch.from_numpy(part["Q"]).float()
        layer.lora_B["default"].data = torch.from_numpy(part["P"]).float()
        layer.lora_E["default"].data = torch.from_numpy((part["E"] * kept[name])[:, None]).float()
    torch.testing.assert_close(logits(own.eval(), kind), logits(made.model, kind), atol=1e-5, rtol=1e-4)


@BOTH
def test_its_fold_is_a_lora_that_peft_opens(kind, tmp_path):
    from peft import PeftModel

    made = attach(kind, ada())
    vector = with_steps(made, 100)
    # One matrix gets nothing, another everything.
    schema = made.schemas[SHARED]
    names = sorted(triplets(made))
    vector[schema.mask(lambda name: name == f"{names[0]}.importance")] = -9
    vector[schema.mask(lambda name: name == f"{names[1]}.importance")] = 9
    made.write(SHARED, vector)
    adapter = made.folded(SHARED)
    ranks = adapter.config["rank_pattern"]
    assert names[0] not in ranks
    assert ranks[names[1]] == 4
    assert sum(ranks.values()) == 2 * len(SIDES[kind]) * L
    adapter.save(tmp_path)
    opened = PeftModel.from_pretrained(getattr(tiny, kind)(), str(tmp_path))
    torch.testing.assert_close(logits(opened.eval(), kind), logits(made.model, kind), atol=1e-5, rtol=1e-4)


def test_importance_is_the_papers_sensitivity_relative_to_the_mean():
    made = attach("llama", ada())
    made.write(SHARED, with_steps(made, 0))
    before = triplets(made)
    made.parameters(SHARED)
    made.model(**tiny.batch("llama")).loss.backward()
    own = made._slots[SHARED].parameters
    score = {
        name: np.abs(part["E"] * own[f"{name}.E"].grad.numpy())
        + np.abs(part["P"] * own[f"{name}.P"].grad.numpy()).mean(0)
        + np.abs(part["Q"] * own[f"{name}.Q"].grad.numpy()).mean(1)
        for name, part in before.items()
    }
    made.after_step(SHARED, 1, 1)
    mean = np.mean(list(score.values()))
    for name, part in triplets(made).items():
        expected = UNIT * (score[name] - mean) / (score[name] + mean)
        np.testing.assert_allclose(part["importance"] - before[name]["importance"], expected, atol=1e-7)
    assert made.schemas[SHARED].unflatten(made.read(SHARED))["allocation.steps"] == pytest.approx(UNIT)


def test_the_mean_of_clients_is_their_mean_importance_and_steps():
    made = attach("llama", ada())
    held = []
    for steps in (2, 4, 6):
        made.write(SHARED, made.initial[SHARED])
        train(made, "llama", steps=steps)
        held.append((made.read(SHARED), triplets(made)))
    made.write(SHARED, np.mean([v for v, _ in held], axis=0))
    for name, part in triplets(made).items():
        expected = np.mean([parts[name]["importance"] for _, parts in held], axis=0)
        np.testing.assert_allclose(part["importance"], expected, atol=1e-7)
    assert made.schemas[SHARED].unflatten(made.read(SHARED))["allocation.steps"] == pytest.approx(4 * UNIT)


def test_training_takes_ranks_away_down_to_the_target_and_the_loss_goes_on_falling():
    made = attach("llama", ada(alpha=64, target_rank=1, warmup=4, until=12))
    losses = train(made, "llama", steps=24, rate=0.01)
    assert losses[-1] < losses[12] < losses[0]
    kept = mask_of(made, len(SIDES["llama"]) * L)
    assert sorted({int(m.sum()) for m in kept.values()}) != [1]  # ranks differ: they went where they help
    steps = made.schemas[SHARED].unflatten(made.read(SHARED))["allocation.steps"]
    assert steps == pytest.approx(24 * UNIT, rel=1e-4)


def test_a_triplet_outside_the_mask_adds_nothing_but_hears_its_gradient():
    made = attach("llama", ada())
    vector = with_steps(made, 100)
    made.write(SHARED, vector)
    kept = mask_of(made, 2 * len(SIDES["llama"]) * L)
    name = next(n for n, m in kept.items() if not m.all())
    outside = int(np.flatnonzero(~kept[name])[0])
    made.parameters(SHARED)
    made.model(**tiny.batch("llama")).loss.backward()
    own = made._slots[SHARED].parameters
    assert own[f"{name}.E"].grad[outside] != 0
    assert not own[f"{name}.P"].grad[:, outside].any()
    bare = logits(made.model, "llama")
    with torch.no_grad():
        own[f"{name}.E"][outside] += 1.0
    assert torch.equal(logits(made.model, "llama"), bare)


def test_the_penalty_is_the_distance_from_orthonormal():
    made = attach("llama", ada(orthogonality=0.3))
    assert made.penalty(SHARED).item() == pytest.approx(0.0, abs=1e-9)
    made.write(SHARED, moved(made))
    expected = [
        np.square(p["P"].T @ p["P"] - np.eye(4)).sum() + np.square(p["Q"] @ p["Q"].T - np.eye(4)).sum()
        for p in triplets(made).values()
    ]
    assert made.penalty(SHARED).item() == pytest.approx(0.3 * np.mean(expected), rel=1e-5)
    assert attach("llama", ada(orthogonality=0)).penalty(SHARED) is None


def test_a_quantizing_channel_carries_the_bookkeeping():
    """Eight clients, 16 bits, the range that a scenario derives from the learning rate: scores keep their order."""
    made = attach("llama", ada(warmup=100, until=200))
    codec = RingCodec(16, 1e-3 * 10, 8)
    train(made, "llama", steps=10, rate=1e-3)
    change = made.read(SHARED) - made.initial[SHARED]
    schema, rng = made.schemas[SHARED], np.random.default_rng(0)
    summed = sum(codec.encode(change, rng).astype(np.uint64) for _ in range(8))
    received = codec.decode(summed, 8) / 8
    scores = schema.mask(lambda name: name.endswith("importance"))
    assert np.corrcoef(change[scores], received[scores])[0, 1] > 0.999
    steps = schema.mask(lambda name: name == "allocation.steps")
    assert received[steps] == pytest.approx(10 * UNIT, rel=0.01)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"init_rank": 2, "target_rank": 3}, "method.target_rank: found 3, expected at most init_rank = 2"),
        ({"warmup": 9, "until": 9}, "method.until: found 9, expected more than warmup = 9"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ScenarioError, match=message):
        parse_method({"name": "adalora", **fields})


# IA3 and VeRA


@BOTH
def test_ia3_computes_what_pefts_own_model_does(kind):
    made = attach(kind, IA3())
    made.write(SHARED, moved(made))
    inner = {"llama": ["down_proj"], "bert": ["layer.0.output.dense", "layer.1.output.dense"]}[kind]
    outer = {"llama": ["k_proj", "v_proj"], "bert": ["key", "value"]}[kind]
    fresh = getattr(tiny, kind)()
    own = get_peft_model(fresh, IA3Config(target_modules=[*outer, *inner], feedforward_modules=inner))
    tensors = {n: torch.from_numpy(t.copy()) for n, t in made.schemas[SHARED].unflatten(made.read(SHARED)).items()}
    for name in [n for n in tensors if "classifier" in n]:
        fresh.get_parameter(name.removeprefix("base_model.model.")).data = tensors.pop(name)
    assert not set_peft_model_state_dict(own, tensors).unexpected_keys
    assert torch.equal(logits(own.eval(), kind), logits(made.model, kind))


def test_named_modules_are_scaled_and_no_others():
    made = attach("llama", IA3(targets=["q_proj"], feedforward=["o_proj", "up_proj"]))
    shapes = {n.split(".")[-2]: s for n, s in made.schemas[SHARED].shapes}
    assert shapes == {"q_proj": (H, 1), "o_proj": (1, H), "up_proj": (1, H)}


@BOTH
@pytest.mark.parametrize("train_d", [True, False])
def test_vera_computes_what_pefts_own_model_does_from_the_saved_seed(kind, train_d):
    made = attach(kind, Vera(rank=10, train_d=train_d))
    made.write(SHARED, moved(made))
    saved = made.config(SHARED)
    config = VeraConfig(
        r=10,
        target_modules=saved["target_modules"],
        projection_prng_key=saved["projection_prng_key"],
        save_projection=False,
    )
    fresh = getattr(tiny, kind)()
    own = get_peft_model(fresh, config)
    tensors = {n: torch.from_numpy(t.copy()) for n, t in made.schemas[SHARED].unflatten(made.read(SHARED)).items()}
    for name in [n for n in tensors if "classifier" in n]:
        fresh.get_parameter(name.removeprefix("base_model.model.")).data = tensors.pop(name)
    assert not set_peft_model_state_dict(own, tensors).unexpected_keys
    assert torch.equal(logits(own.eval(), kind), logits(made.model, kind))


def test_other_projections_are_another_schema():
    one, other = (attach("llama", Vera(rank=10), seed=seed) for seed in (0, 1))
    assert one.schemas[SHARED].shapes == other.schemas[SHARED].shapes
    assert one.schemas[SHARED].digest != other.schemas[SHARED].digest
    assert np.array_equal(one.initial[SHARED], other.initial[SHARED])  # b and d start alike whatever the seed


def test_two_veras_over_one_pair_of_projections_add_up():
    method = Vera(rank=10)
    made = attach("llama", method, method.private(1))
    made.write(SHARED, moved(made))
    made.write(PRIVATE, moved(made, PRIVATE, seed=1))
    layer = made.model.model.layers[0].self_attn.q_proj
    x = torch.randn(3, H)
    changes = {}
    for slots in ((), (SHARED,), (PRIVATE,), (SHARED, PRIVATE)):
        made.activate(*slots)
        with torch.no_grad():
            changes[slots] = layer(x) - layer.base_layer(x)
    together = changes[SHARED,] + changes[PRIVATE,]
    torch.testing.assert_close(changes[SHARED, PRIVATE], together, atol=1e-5, rtol=1e-5)
