"""AdaLoRA: its budget, mask and importance, against the paper and peft's own layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import AdaLoraConfig, get_peft_model

from fedpeft.codecs import RingCodec
from fedpeft.errors import ScenarioError
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.adalora import UNIT, AdaLora, Allocation
from fedpeft.methods.attached import SHARED
from tests.methods import tiny
from tests.methods.pefts import (
    BOTH,
    SIDES,
    H,
    L,
    attach,
    logits,
    moved,
    train,
)


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
