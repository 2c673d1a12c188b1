"""A scenario's ``[method]`` table: what it may say, and what is answered to a mistake."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fedpeft.errors import ScenarioError
from fedpeft.methods import METHODS, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Algebra, known_methods

from .tiny import llama


def test_lora_is_known_by_its_name_and_says_what_it_is():
    assert parse_method({"name": "lora"}) == Lora()
    assert METHODS["lora"] is Lora
    assert (Lora.algebra, Lora.mergeable) == (Algebra.MULTILINEAR, True)


def test_its_fields_become_pefts_configuration():
    settings = {"name": "lora", "rank": 3, "alpha": 7.5, "rslora": True, "targets": ["q_proj"]}
    config = parse_method(settings).peft_config(llama())
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
    name = "model.layers.1.self_attn.q_proj"
    tensors = schema.unflatten(vector)
    a, b = (torch.from_numpy(tensors[f"base_model.model.{name}.lora_{x}.weight"]).double() for x in "AB")
    layer = made.model.get_submodule(name)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(5, a.shape[1])))
    with torch.no_grad():
        change = layer(x.float()) - layer.base_layer(x.float())
    torch.testing.assert_close(change.double(), scaling * x @ a.T @ b.T, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "lorra"}, "method.name: found 'lorra', expected a known method; did you mean 'lora'?"),
        ({"name": "zqzq"}, "method.name: found 'zqzq', expected a known method; known: "),
        ({}, "method.name: found None, expected a known method; "),
        ({"name": "lora", "rnk": 3}, "method.rnk: found 'rnk', expected a known field; did you mean 'rank'?"),
        ({"name": "lora", "zzz": 3}, "method.zzz: found 'zzz', expected a known field; known: alpha, alpha_pattern, "),
        ({"name": "lora", "rank": 0}, "method.rank: found 0, expected "),
        ({"name": "lora", "rank": 4097}, "method.rank: found 4097, expected "),
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


def test_every_method_file_is_found_and_a_remedy_lists_them_all():
    known = known_methods()
    assert {"lora", "houlsby", "prompt_tuning", "prefix_tuning"} <= set(known)
    with pytest.raises(ScenarioError) as refused:
        parse_method({"name": "zqzq"})
    assert refused.value.remedy == f"known: {', '.join(sorted(known))}"


def test_every_method_says_what_a_reader_must_know():
    for name, method in known_methods().items():
        assert method.name == name
        for said in (method.equation, method.source, method.sends, method.limits, method.__doc__):
            assert said
        assert method.tasks <= {"causal", "classification"}
        assert method.precision in {"full", "nf4", "int8"}
        assert all(field.description for field in method.model_fields.values())
