"""The trainer is a plain loop of AdamW steps; here is the plain loop."""

import math

import numpy as np
import pytest
import torch

from fedpeft.data.windows import Windows
from fedpeft.methods import Attached
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.seeds import stream
from fedpeft.training import Training, train

BOTH = Training(steps=5, batch=4, learning_rate=2e-3, schedule="cosine", warmup=0.4, weight_decay=0.1, clip_norm=0.5)


def plain_loop(attached: Attached, slot: str, windows: Windows, training: Training, seed: int) -> list[float]:
    """Train as any tutorial would: the model's own loss, AdamW, whole rows."""
    rng = stream(seed, "order")
    parameters = [p for n, p in attached.model.named_parameters() if f".{slot}." in n]
    for parameter in attached.model.parameters():
        parameter.requires_grad_(any(parameter is p for p in parameters))
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    ids, labels = (torch.from_numpy(x.astype(np.int64)) for x in (windows.ids, windows.labels))
    losses: list[float] = []
    while len(losses) < training.steps:
        order = rng.permutation(len(windows))
        for start in range(0, len(order), training.batch):
            if len(losses) == training.steps:
                break
            rows = order[start : start + training.batch]
            optimizer.param_groups[0]["lr"] = training.rate(len(losses), training.steps)
            # transformers divides by the labelled positions and shifts the labels itself.
            loss = attached.model(input_ids=ids[rows], labels=labels[rows]).loss
            gradients = torch.autograd.grad(loss, parameters)
            norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient * min(1.0, training.clip_norm / norm)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("slots", [(SHARED,), (SHARED, PRIVATE)])
def test_it_is_the_plain_loop(attach, attached, task, text, slots):
    slot = slots[-1]
    reference = attach()
    for model in (attached, reference):
        # With B at zero the first gradient of A is zero and Adam would divide noise by noise.
        start = np.random.default_rng(1).normal(0, 0.05, model.schemas[slot].size).astype(np.float32)
        model.write(slot, start)
        model.activate(*slots)
    losses = plain_loop(reference, slot, text, BOTH, seed=7)
    trained = train(attached, slot, task, text, BOTH, seed=7)
    assert trained.steps == 5
    assert trained.loss == pytest.approx(np.mean(losses), rel=1e-5)
    ours, theirs = attached.read(slot) - start, reference.read(slot) - start
    assert np.linalg.norm(ours) > 0.01
    assert np.linalg.norm(ours - theirs) < 1e-3 * np.linalg.norm(theirs)


def test_equal_seeds_train_equally_and_others_do_not(attached, task, text):
    results = []
    for seed in (1, 1, 2):
        attached.write(SHARED, attached.initial[SHARED])
        trained = train(attached, SHARED, task, text, Training(steps=3, batch=4), seed=seed)
        results.append((attached.read(SHARED), trained))
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not np.array_equal(results[0][0], results[2][0])


def test_training_lowers_the_loss_on_its_own_text(attached, task, text):
    few, many = (Training(steps=steps, batch=11, learning_rate=5e-3) for steps in (1, 20))
    before = train(attached, SHARED, task, text, few, seed=0).loss
    train(attached, SHARED, task, text, many, seed=0)
    assert train(attached, SHARED, task, text, few, seed=0).loss < before - 0.3


@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_only_the_kept_tensors_move(attached, task, text, factor):
    schema = attached.schemas[SHARED]
    attached.write(SHARED, np.random.default_rng(1).normal(0, 0.05, schema.size).astype(np.float32))
    before, private = attached.read(SHARED), attached.read(PRIVATE)
    train(attached, SHARED, task, text, Training(steps=2, batch=4), seed=0, keep=lambda name: factor in name)
    moved = attached.read(SHARED) != before
    kept = schema.mask(lambda name: factor in name)
    assert not moved[~kept].any()
    assert moved[kept].mean() > 0.99
    assert np.array_equal(attached.read(PRIVATE), private)


@pytest.mark.parametrize(("trained_", "still"), [(SHARED, PRIVATE), (PRIVATE, SHARED)])
def test_the_other_active_slot_counts_and_stays(attached, task, text, trained_, still):
    attached.write(still, np.random.default_rng(1).normal(0, 0.2, attached.schemas[still].size).astype(np.float32))
    frozen = attached.read(still)
    alone, together = [], []
    for slots, found in (((trained_,), alone), ((SHARED, PRIVATE), together)):
        attached.activate(*slots)
        attached.write(trained_, attached.initial[trained_])
        found.append(train(attached, trained_, task, text, Training(steps=2, batch=4), seed=0).loss)
        found.append(attached.read(trained_))
    assert np.array_equal(attached.read(still), frozen)
    assert alone[0] != together[0]
    assert not np.array_equal(alone[1], together[1])


def test_a_pass_sees_every_window_once(attached, task, text):
    one = train(attached, SHARED, task, text, Training(epochs=1, batch=4), seed=0)
    two = train(attached, SHARED, task, text, Training(epochs=2, batch=4), seed=0)
    assert (one.steps, one.tokens) == (3, text.tokens)
    assert (two.steps, two.tokens) == (6, 2 * text.tokens)


def test_the_clip_bounds_what_a_gradient_can_do(attached, task, text):
    """SGD-like check through Adam's first step: its size does not depend on the gradient's, its sign does."""
    tiny = Training(steps=1, batch=11, learning_rate=1e-3, clip_norm=1e-12)
    train(attached, SHARED, task, text, tiny, seed=0)
    squeezed = np.abs(attached.read(SHARED) - attached.initial[SHARED]).max()
    attached.write(SHARED, attached.initial[SHARED])
    train(attached, SHARED, task, text, tiny.model_copy(update={"clip_norm": 1.0}), seed=0)
    free = np.abs(attached.read(SHARED) - attached.initial[SHARED]).max()
    # A gradient of norm 1e-12 is lost beside Adam's epsilon of 1e-8; an ordinary one moves by the rate.
    assert squeezed < 1e-6
    assert free == pytest.approx(1e-3, rel=0.02)


def test_afterwards_the_model_is_in_evaluation_mode_without_gradients(attached, task, text):
    train(attached, SHARED, task, text, Training(steps=1, batch=2), seed=0)
    assert not attached.model.training
    assert all(p.grad is None for p in attached.model.parameters())


def test_training_that_was_broken_off_leaves_nothing_to_the_next(attached, task, text, monkeypatch):
    """One process serves many clients, and one of them may fail."""

    def fail(*_: object) -> None:
        raise RuntimeError("battery empty")

    training, found = Training(steps=2, batch=4), []
    for broken in (False, True):
        attached.write(SHARED, attached.initial[SHARED])
        if broken:
            with monkeypatch.context() as patched, pytest.raises(RuntimeError):
                patched.setattr(attached, "after_step", fail)
                train(attached, SHARED, task, text, training, seed=9)
            attached.write(SHARED, attached.initial[SHARED])
        train(attached, SHARED, task, text, training, seed=0)
        found.append(attached.read(SHARED))
    assert np.array_equal(*found)
