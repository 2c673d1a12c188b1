"""Joining adapters along the rank adds their changes exactly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.adapters import Adapter, Schema
from fedpeft.adapters.algebra import cat, lora_scaling
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
        (lora({**PLAIN, "use_dora": True}, 0), "adapter type: .*expected plain LORA adapters"),
        (lora(PLAIN, 0, {"base_model.model.layers.0.q_proj": (5, 7)}), "adapter modules: .*the same modules in all"),
        (lora({**PLAIN, "alpha_pattern": {"layers.0.q_proj": 64}}, 0), "alpha_pattern"),
        (lora({**PLAIN, "rank_pattern": {"layers.0.q_proj": 2}}, 0), "rank_pattern"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_cannot_be_joined_exactly_is_refused(other, message, first):
    pair = [other, lora(PLAIN, 1)] if first else [lora(PLAIN, 1), other]
    with pytest.raises(AdapterError, match=message):
        cat(pair, [1.0, 1.0])


def test_a_weight_per_adapter_is_needed():
    with pytest.raises(ValueError, match="zip"):
        cat([lora(PLAIN, 0), lora(PLAIN, 1)], [1.0])
