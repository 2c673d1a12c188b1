"""Prompts and prefixes: what they train, and that nobody else notices them."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
import torch

from fedpeft.adapters import Adapter
from fedpeft.base.quantize import quantize
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.measure import classify
from tests.methods.prompted import (
    METHODS,
    ON,
    D,
    attached,
    logits,
    made,
)
from tests.methods.tiny import LABELS, base_of, batch


@ON
@METHODS
def test_it_trains_as_many_numbers_as_its_equation_says(method, size, kind):
    own = attached(kind, method)
    assert own.schemas[SHARED].size == size(kind) + (LABELS * (D + 1) if kind == "bert" else 0)
    assert {p.dtype for p in own.parameters(SHARED)} == {torch.float32}


@ON
@METHODS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_it_changes_the_answers_and_without_it_the_base_is_back_to_the_bit(method, size, kind, dtype):
    bare = logits(made(kind, dtype), kind)
    own = attached(kind, method, dtype=dtype, private=method.private(4))
    speaking = logits(own.model, kind)
    assert speaking.shape == bare.shape
    assert torch.isfinite(speaking).all()
    assert (speaking - bare).abs().max() > 1e-3
    own.activate()
    assert torch.equal(logits(own.model, kind), bare)


@ON
@METHODS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_few_steps_lower_the_loss_and_leave_the_base_as_it_was(method, size, kind, dtype):
    base = made(kind, dtype)
    weights = [p for n, p in base.named_parameters() if not n.startswith("classifier")]
    before = sha256(b"".join(p.float().numpy().tobytes() for p in weights)).hexdigest()
    own = Attached(base_of(base), method, method.private(4), seed=0)
    for slot in own.slots:
        own.activate(*own.slots[: own.slots.index(slot) + 1])
        optimizer = torch.optim.AdamW(own.parameters(slot), lr=3e-3)
        losses = []
        for _ in range(6):
            loss = own.model(**batch(kind)).loss
            losses.append(float(loss.detach()))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert losses[-1] < losses[0]
        assert not np.array_equal(own.read(slot), own.initial[slot])
    assert sha256(b"".join(p.float().numpy().tobytes() for p in weights)).hexdigest() == before


@ON
@pytest.mark.parametrize("precision", ["nf4", "int8"])
@METHODS
def test_it_works_over_a_quantized_base(method, size, kind, precision):
    model = made(kind)
    base = base_of(model)
    quantize(model, precision, keep=base.head)
    model.eval()  # the new layers too
    bare = logits(model, kind)
    own = Attached(base, method, None, seed=0)
    assert (logits(own.model, kind) - bare).abs().max() > 1e-3
    parameters = own.parameters(SHARED)
    own.model(**batch(kind)).loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)
    own.activate()
    assert torch.equal(logits(own.model, kind), bare)


@ON
@METHODS
def test_every_number_gets_a_gradient(method, size, kind):
    own = attached(kind, method)
    parameters = own.parameters(SHARED)
    own.model(**batch(kind)).loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in parameters)


@ON
@METHODS
def test_what_is_read_can_be_written_saved_and_loaded(method, size, kind, tmp_path):
    own, other = attached(kind, method), attached(kind, method, noise=0.0)
    own.adapter(SHARED, own.read(SHARED)).save(tmp_path / "adapter")
    loaded = Adapter.load(tmp_path / "adapter", own.base.fingerprint)
    assert loaded.schema == own.schemas[SHARED]
    other.write(SHARED, loaded.vector)
    assert np.array_equal(other.read(SHARED), own.read(SHARED))
    assert torch.equal(logits(other.model, kind), logits(own.model, kind))


@METHODS
def test_one_seed_makes_one_start(method, size):
    one, same, other = (attached("llama", method, seed, noise=0.0) for seed in (5, 5, 6))
    assert np.array_equal(one.initial[SHARED], same.initial[SHARED])
    assert not np.array_equal(one.initial[SHARED], other.initial[SHARED])
    assert one.schemas == same.schemas == other.schemas


@ON
@METHODS
def test_the_mean_means_what_the_method_declares(method, size, kind):
    assert method.averaging in classify(attached(kind, method, noise=0.0), SHARED)


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@METHODS
def test_the_backbone_alone_gives_one_state_per_token(method, size, mode):
    """What the trainer does: run the decoder without a cache, apply the head to some positions."""
    own = attached("llama", method)
    own.model.train(mode)
    ids = batch("llama")["input_ids"]
    decoder = own.model.model(input_ids=ids, use_cache=False)
    assert decoder.last_hidden_state.shape == (*ids.shape, D)
    assert decoder.past_key_values is None
    assert torch.equal(own.model.lm_head(decoder.last_hidden_state), own.model(input_ids=ids).logits)
