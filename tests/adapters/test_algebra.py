"""Joining adapters along the rank adds their changes exactly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.adapters import Adapter, Schema
from fedpeft.adapters.algebra import (
    add,
    cat,
    compose_error,
    linear,
    lora_scaling,
    mean,
    negate,
    scale,
    subtract,
)
from fedpeft.adapters.factors import change_error, change_norm, factors
from fedpeft.errors import AdapterError

BASE = "b" * 64
MODULES = {"base_model.model.layers.0.q_proj": (5, 7), "base_model.model.layers.1.down_proj": (6, 3)}  # (in, out)

configs = st.fixed_dictionaries(
    {
        "r": st.integers(1, 6),
        "lora_alpha": st.floats(0.5, 64.0),
        "use_rslora": st.booleans(),
    }
)
terms = st.lists(st.tuples(configs, st.floats(-2.0, 2.0), st.integers(0, 999)), min_size=1, max_size=4)


def lora(config: dict[str, object], seed: int, modules=MODULES) -> Adapter:
    rng = np.random.default_rng(seed)
    rank = config["r"]
    tensors = {}
    for module, (inputs, outputs) in modules.items():
        tensors[f"{module}.lora_A.weight"] = rng.normal(size=(rank, inputs)).astype(np.float32)
        tensors[f"{module}.lora_B.weight"] = rng.normal(size=(outputs, rank)).astype(np.float32)
    schema = Schema.of({name: t.shape for name, t in tensors.items()})
    return Adapter(schema, schema.flatten(tensors), {"peft_type": "LORA", **config}, BASE)


def changes(adapter: Adapter) -> dict[str, np.ndarray]:
    """Return s B A of every module in float64, by the definition."""
    alpha, rank = adapter.config["lora_alpha"], adapter.config["r"]
    scaling = alpha / rank**0.5 if adapter.config["use_rslora"] else alpha / rank
    parts = {name: tensor.astype(np.float64) for name, tensor in adapter.tensors().items()}
    return {m: scaling * parts[f"{m}.lora_B.weight"] @ parts[f"{m}.lora_A.weight"] for m in MODULES}


@settings(max_examples=100, deadline=None)
@given(terms)
def test_the_join_changes_the_base_by_the_weighted_sum(terms):
    adapters = [lora(config, seed) for config, _, seed in terms]
    weights = [weight for _, weight, _ in terms]
    joined = cat(adapters, weights)
    assert joined.config["r"] == sum(a.config["r"] for a in adapters)
    assert lora_scaling(joined.config) == 1.0
    assert joined.base == BASE
    for module, change in changes(joined).items():
        expected = sum(w * changes(a)[module] for a, w in zip(adapters, weights, strict=True))
        magnitude = sum(
            abs(w)
            * lora_scaling(a.config)
            * np.abs(a.tensors()[f"{module}.lora_B.weight"]).astype(np.float64)
            @ np.abs(a.tensors()[f"{module}.lora_A.weight"])
            for a, w in zip(adapters, weights, strict=True)
        )
        # The factor and its product with B are each rounded to float32 once, and nothing else is.
        assert (np.abs(change - expected) <= 2.0**-22 * magnitude + 1e-30).all()


def test_averaging_the_factors_instead_would_be_wrong():
    one, other = (lora({"r": 4, "lora_alpha": 4.0, "use_rslora": False}, seed) for seed in (1, 2))
    averaged = replace(one, vector=(one.vector + other.vector) / 2)
    for module, exact in changes(cat([one, other], [0.5, 0.5])).items():
        assert np.linalg.norm(changes(averaged)[module] - exact) > 0.2 * np.linalg.norm(exact)


def test_the_scaling_is_pefts():
    assert lora_scaling({"r": 4, "lora_alpha": 16}) == 4.0
    assert lora_scaling({"r": 4, "lora_alpha": 16, "use_rslora": True}) == 8.0


PLAIN = {"r": 2, "lora_alpha": 4.0, "use_rslora": False}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(lora(PLAIN, 0), base="c" * 64), "adapter base: found .*expected the base"),
        (lora({**PLAIN, "peft_type": "LOHA"}, 0), "adapter type: found 'LOHA', expected plain LORA adapters"),
        (lora({**PLAIN, "use_dora": True}, 0), "adapter use_dora: .*expected plain LORA adapters; its change depends"),
        (lora({**PLAIN, "modules_to_save": ["score"]}, 0), "adapter modules_to_save: .*whole layers travel with it"),
        (lora({**PLAIN, "bias": "all"}, 0), "adapter bias: found 'all'"),
        (lora({**PLAIN, "init_lora_weights": "pissa_niter_4"}, 0), "init_lora_weights: .*leaves the base as it was"),
        (lora(PLAIN, 0, {"base_model.model.layers.0.q_proj": (5, 8)}), r"adapter modules: .*one \(in, out\)"),
        (lora({**PLAIN, "rank_pattern": {"q_proj": 3}}, 0), "adapter rank of layers.0.q_proj: found 2, expected 3"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_cannot_be_joined_exactly_is_refused(other, message, first):
    pair = [other, lora(PLAIN, 1)] if first else [lora(PLAIN, 1), other]
    with pytest.raises(AdapterError, match=message):
        cat(pair, [1.0, 1.0])


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0], [], [1.0, float("nan")]])
def test_a_finite_weight_per_adapter_is_needed(weights):
    with pytest.raises(AdapterError, match="adapter weights"):
        cat([lora(PLAIN, 0), lora(PLAIN, 1)], weights)


def test_nothing_cannot_be_joined():
    with pytest.raises(AdapterError, match="adapter weights: found 0, expected one for each of some adapters"):
        mean([])


mixtures = st.lists(
    st.tuples(
        configs,
        st.floats(-2.0, 2.0).filter(lambda weight: abs(weight) > 1e-3),
        st.integers(0, 999),
        st.sets(st.sampled_from(sorted(MODULES)), min_size=1),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(mixtures)
def test_modules_that_an_adapter_does_not_change_count_as_zero(mixture):
    adapters = [lora(config, seed, {m: MODULES[m] for m in modules}) for config, _, seed, modules in mixture]
    weights = [weight for _, weight, _, _ in mixture]
    joined = factors(cat(adapters, weights))
    for module in MODULES:
        name = module.removeprefix("base_model.model.")
        terms = [(w, factors(a)[name]) for a, w in zip(adapters, weights, strict=True) if name in factors(a)]
        assert (name in joined) == bool(terms)
        if terms:
            assert joined[name].rank == sum(t.rank for _, t in terms)
            assert joined[name].scaling == 1.0
            expected = sum(w * t.change() for w, t in terms)
            size = sum(np.linalg.norm(w * t.change()) for w, t in terms)
            assert np.linalg.norm(joined[name].change() - expected) <= 2.0**-22 * size + 1e-30


@settings(max_examples=30, deadline=None)
@given(mixtures, st.floats(0.25, 4.0))
def test_joining_is_linear_in_the_weights(mixture, factor):
    adapters = [lora(config, seed, {m: MODULES[m] for m in modules}) for config, _, seed, modules in mixture]
    weights = [weight for _, weight, _, _ in mixture]
    scaled = factors(cat(adapters, [factor * w for w in weights]))
    for module, part in factors(cat(adapters, weights)).items():
        size = factor * np.linalg.norm(np.abs(part.b).astype(float) @ np.abs(part.a))
        assert np.linalg.norm(scaled[module].change() - factor * part.change()) <= 2.0**-22 * size


@settings(max_examples=60, deadline=None)
@given(mixtures)
def test_the_error_is_that_of_the_changes_themselves(mixture):
    adapters = [lora(config, seed, {m: MODULES[m] for m in modules}) for config, _, seed, modules in mixture]
    weights = [weight for _, weight, _, _ in mixture]
    result, wrong, whole = lora(PLAIN, 7), 0.0, 0.0
    for module in MODULES:
        name = module.removeprefix("base_model.model.")
        expected = sum(
            (w * factors(a)[name].change() for a, w in zip(adapters, weights, strict=True) if name in factors(a)),
            np.zeros(MODULES[module][::-1]),
        )
        wrong += np.linalg.norm(factors(result)[name].change() - expected) ** 2
        whole += np.linalg.norm(expected) ** 2
    assert change_error(result, adapters, weights) == pytest.approx((wrong / whole) ** 0.5, rel=1e-9)


def test_what_composing_rounds_is_a_ten_millionth():
    adapters = [lora({"r": r, "lora_alpha": 3.0, "use_rslora": r > 2}, r) for r in (1, 2, 3, 4)]
    assert compose_error(adapters, [0.7, -0.2, 1.3, 0.1]) < 1e-7


def test_a_module_may_have_its_own_rank_and_scaling():
    config = {"r": 2, "lora_alpha": 4.0, "use_rslora": True, "rank_pattern": {}, "alpha_pattern": {"down_proj": 9}}
    one = lora(config, 1)
    found = factors(one)
    assert found["layers.0.q_proj"].scaling == pytest.approx(4 / 2**0.5)
    assert found["layers.1.down_proj"].scaling == pytest.approx(9 / 2**0.5)
    assert compose_error([one, lora(PLAIN, 2)], [0.3, -1.0]) < 1e-7


def test_the_names_of_the_operations_say_what_they_do():
    one, other = lora(PLAIN, 1), lora({**PLAIN, "r": 3}, 2)
    a, b = (changes(x) for x in (one, other))
    for module in MODULES:
        for result, expected in (
            (add(one, other), a[module] + b[module]),
            (subtract(one, other), a[module] - b[module]),
            (scale(one, 0.3), 0.3 * a[module]),
            (negate(one), -a[module]),
            (mean([one, other]), (a[module] + b[module]) / 2),
        ):
            np.testing.assert_allclose(changes(result)[module], expected, atol=2e-5)
    assert scale(one, 3.0).config["r"] == one.config["r"]


def test_an_adapter_and_its_opposite_cancel():
    one = lora(PLAIN, 1)
    gone = add(one, negate(one))
    assert change_norm(gone) < 1e-6 * change_norm(one)
    assert change_error(gone, [one], [0.0]) == pytest.approx(change_norm(gone))


def test_linear_methods_add_their_parameters():
    schema = Schema.of({"x.spectrum": (3,)})
    config = {"peft_type": "FOURIERFT"}
    one, other = (Adapter(schema, np.array(v, np.float32), config, BASE) for v in ([1, 2, 3], [3, 0, -1]))
    assert linear([one, other], [0.5, 0.5]).vector.tolist() == [2, 1, 1]
    assert linear([one, other], [1.0, 1.0], origin=1.0).vector.tolist() == [3, 1, 1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Adapter(Schema.of({"y": (3,)}), np.zeros(3, np.float32), {}, BASE), "adapter tensor x"),
        (Adapter(Schema.of({"x": (3,)}, "c"), np.zeros(3, np.float32), {}, BASE), "adapter context"),
        (Adapter(Schema.of({"x": (3,)}), np.zeros(3, np.float32), {"scaling": 2}, BASE), "adapter scaling: found 2"),
        (Adapter(Schema.of({"x": (3,)}), np.zeros(3, np.float32), {}, "c" * 64), "adapter base"),
    ],
)
def test_parameters_that_mean_different_things_are_not_added(other, message):
    with pytest.raises(AdapterError, match=message):
        linear([Adapter(Schema.of({"x": (3,)}), np.zeros(3, np.float32), {}, BASE), other], [1.0, 1.0])
