"""A scenario's ``[method]`` table: what it may say, and what is answered to a mistake."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fedpeft.errors import ScenarioError
from fedpeft.methods import METHODS, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Algebra


def test_lora_is_known_by_its_name_and_says_what_it_is():
    assert parse_method({"name": "lora"}) == Lora()
    assert METHODS["lora"] is Lora
    assert (Lora.algebra, Lora.mergeable) == (Algebra.MULTILINEAR, True)


def test_its_fields_become_pefts_configuration():
    settings = {"name": "lora", "rank": 3, "alpha": 7.5, "rslora": True, "targets": ["q_proj"]}
    config = parse_method(settings).peft_config()
    assert (config.r, config.lora_alpha, config.use_rslora, config.target_modules) == (3, 7.5, True, {"q_proj"})
    assert settings["name"] == "lora"  # the table itself is left as it was


def test_a_method_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Lora().rank = 3


@pytest.mark.parametrize(("alpha", "rslora", "scaling"), [(8.0, False, 2.0), (8.0, True, 4.0), (1.0, False, 0.25)])
def test_the_change_is_alpha_over_r_or_its_root_times_b_a(attach, alpha, rslora, scaling):
    """One layer alone: h(x) - W x = s B A x, in float64 from the definition."""
    made = attach(Lora(rank=4, alpha=alpha, rslora=rslora, targets=["q_proj"]))
    schema = made.schemas[SHARED]
    vector = np.random.default_rng(0).normal(size=schema.size).astype(np.float32)
    made.write(SHARED, vector)
    name = "base_model.model.model.layers.1.self_attn.q_proj"
    a, b = (torch.from_numpy(schema.unflatten(vector)[f"{name}.lora_{x}.weight"]).double() for x in "AB")
    layer = made.model.get_submodule(name)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(5, a.shape[1])))
    with torch.no_grad():
        change = layer(x.float()) - layer.base_layer(x.float())
    torch.testing.assert_close(change.double(), scaling * x @ a.T @ b.T, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "lorra"}, "method.name: found 'lorra', expected a known method; did you mean 'lora'?"),
        ({"name": "xyz"}, "method.name: found 'xyz', expected a known method; known: lora"),
        ({}, "method.name: found None, expected a known method; known: lora"),
        ({"name": "lora", "rnk": 3}, "method.rnk: found 'rnk', expected a known field; did you mean 'rank'?"),
        (
            {"name": "lora", "zzz": 3},
            "method.zzz: found 'zzz', expected a known field; known: alpha, rank, rslora, targets",
        ),
        ({"name": "lora", "rank": 0}, "method.rank: found 0, expected input should be greater than or equal to 1"),
        ({"name": "lora", "rank": 257}, "method.rank: found 257, expected input should be less than or equal to 256"),
        ({"name": "lora", "rank": 2.5}, "method.rank: found 2.5, expected input should be a valid integer"),
        ({"name": "lora", "alpha": 0}, "method.alpha: found 0, expected input should be greater than 0"),
        ({"name": "lora", "alpha": float("inf")}, "method.alpha: found inf, expected "),
        (
            {"name": "lora", "rslora": "perhaps"},
            "method.rslora: found 'perhaps', expected input should be a valid bool",
        ),
        ({"name": "lora", "targets": 3}, "method.targets: found 3, expected "),
        ({"name": "lora", "targets": "q_proj"}, "method.targets: found 'q_proj', expected "),
        ({"name": ["lora"]}, "method.name: found ['lora'], expected a known method"),
    ],
)
def test_a_mistake_is_named_with_its_field_value_and_remedy(settings, message):
    with pytest.raises(ScenarioError) as refused:
        parse_method(settings)
    assert str(refused.value).startswith(message)
