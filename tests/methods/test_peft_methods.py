"""LoRA, AdaLoRA, QLoRA, IA3 and VeRA: counts from closed forms, and what every method must do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedpeft.methods import Attached
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.method import Algebra
from tests.methods import tiny
from tests.methods.pefts import (
    ALL,
    BOTH,
    CASES,
    HEAD,
    attach,
    logits,
    model_of,
    moved,
    sha,
    train,
)


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
