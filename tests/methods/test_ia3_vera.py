"""IA3 and VeRA: outputs from peft's own models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import IA3Config, VeraConfig, get_peft_model
from peft.utils import set_peft_model_state_dict

from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.ia3 import IA3
from fedpeft.methods.vera import Vera
from tests.methods import tiny
from tests.methods.pefts import (
    BOTH,
    H,
    attach,
    logits,
    moved,
)


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
