"""The gate lets through what helps on the person's own validation text, and nothing that hurts."""

import numpy as np
import pytest
import torch

from fedpeft.data.windows import IGNORED, Windows
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.personalization import personalize
from fedpeft.personalization.gate import choose_share
from fedpeft.training import Training, evaluate, train

SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]


def noise(attached, deviation: float, seed: int = 0) -> np.ndarray:
    size = attached.schemas[PRIVATE].size
    return np.random.default_rng(seed).normal(0, deviation, size).astype(np.float32)


def scaled(attached, slot: str, vector: np.ndarray, share: float) -> np.ndarray:
    return attached.share(slot, attached.initial[slot], vector, share)


def choose(attached, task, vector, text, shares) -> float:
    return choose_share(attached, PRIVATE, attached.initial[PRIVATE], vector, task, text, shares)


def loss(attached, task, vector, share, windows) -> float:
    attached.write(PRIVATE, scaled(attached, PRIVATE, vector, share))
    return evaluate(attached, task, windows).loss


def trained(attached, task, own) -> np.ndarray:
    """Return a private adapter that knows the validation text by heart."""
    train(attached, PRIVATE, task, own.validation, Training(steps=8, batch=5, learning_rate=5e-3), seed=0)
    return attached.read(PRIVATE)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0, 4.0])
def test_scaling_multiplies_the_change_to_the_base_and_nothing_else(attached, share):
    vector = noise(attached, 0.1)
    schema = attached.schemas[PRIVATE]
    before, after = schema.unflatten(vector), schema.unflatten(scaled(attached, PRIVATE, vector, share))
    for name in schema.names():
        if "lora_A" in name:
            assert np.array_equal(before[name], after[name])
            other = name.replace("lora_A", "lora_B")
            change = before[other].astype(np.float64) @ before[name].astype(np.float64)
            np.testing.assert_allclose(
                after[other].astype(np.float64) @ after[name].astype(np.float64), share * change, atol=1e-7
            )


def test_one_layer_answers_linearly_in_the_share(attached):
    """h(x; g) = h(x; 0) + g (h(x; 1) - h(x; 0))."""
    layer = attached.model.get_submodule("model.layers.0.self_attn.q_proj")
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 256)).astype(np.float32))
    vector, answers = noise(attached, 0.1), {}
    for share in SHARES:
        attached.write(PRIVATE, scaled(attached, PRIVATE, vector, share))
        with torch.no_grad():
            answers[share] = layer(x)
    whole = answers[1.0] - answers[0.0]
    assert whole.abs().max() > 0.1
    for share in SHARES:
        torch.testing.assert_close(answers[share], answers[0.0] + share * whole, atol=1e-4, rtol=0)


def test_a_share_of_0_is_the_global_adapter_bit_for_bit(attached, task, own):
    with_nothing = loss(attached, task, noise(attached, 0.5), 0.0, own.validation)
    attached.activate(SHARED)
    assert evaluate(attached, task, own.validation).loss == with_nothing


def test_a_private_adapter_that_hurts_is_shut_out(attached, task, own):
    vector = noise(attached, 0.5)
    losses = {share: loss(attached, task, vector, share, own.validation) for share in SHARES}
    assert min(losses, key=losses.get) == 0.0
    assert losses[1.0] > 1.1 * losses[0.0]
    assert choose(attached, task, vector, own.validation, SHARES) == 0.0


def test_the_share_with_the_lowest_loss_is_taken(attached, task, own):
    vector = trained(attached, task, own)
    losses = {share: loss(attached, task, vector, share, own.validation) for share in SHARES}
    assert min(losses, key=losses.get) > 0.0
    for shares in (SHARES, SHARES[::-1], [0.5, 0.0], [0.0]):
        best = min(shares, key=losses.get)
        assert choose(attached, task, vector, own.validation, shares) == best


def test_a_change_that_is_too_large_is_let_through_in_part(attached, task, own):
    vector = scaled(attached, PRIVATE, trained(attached, task, own), 4.0)
    share = choose(attached, task, vector, own.validation, SHARES)
    assert 0.0 < share < 1.0


def test_of_equals_the_smallest_share_is_taken(attached, task, own):
    unchanged = attached.initial[PRIVATE]  # B is zero: every share is the same
    assert choose(attached, task, unchanged, own.validation, [1.0, 0.5, 0.0]) == 0.0
    assert choose(attached, task, unchanged, own.validation, [1.0, 0.5]) == 0.5


def test_without_validation_text_nothing_is_let_through(attached, task, own):
    vector = trained(attached, task, own)
    empty = own.validation.head(0)
    unlabelled = Windows(own.validation.ids, np.full_like(own.validation.labels, IGNORED))
    for nothing in (empty, unlabelled):
        assert choose(attached, task, vector, nothing, [0.5, 1.0]) == 0.0


@pytest.mark.parametrize("slot", [PRIVATE, SHARED])
def test_personalizing_trains_chooses_and_leaves_the_choice_in_place(attached, task, own, slot):
    training = Training(steps=4, batch=4, learning_rate=5e-3)
    attached.activate(*((SHARED,) if slot == SHARED else (SHARED, PRIVATE)))
    others = attached.read(SHARED if slot == PRIVATE else PRIVATE)
    attached.write(slot, np.ones(attached.schemas[slot].size, np.float32))  # it starts from its own start, not this
    kept = personalize(attached, slot, attached.initial[slot], task, own, training, SHARES, seed=1)
    assert np.array_equal(attached.read(slot), kept.vector)
    assert np.array_equal(attached.read(SHARED if slot == PRIVATE else PRIVATE), others)
    # By hand:
    attached.write(slot, attached.initial[slot])
    train(attached, slot, task, own.train, training, seed=1)
    vector = attached.read(slot)
    share = choose_share(attached, slot, attached.initial[slot], vector, task, own.validation, SHARES)
    assert (kept.gate, kept.steps) == (share, 4)
    assert np.array_equal(kept.vector, scaled(attached, slot, vector, share))


@pytest.mark.parametrize("rate", [1e-4, 5e-3, 0.05, 0.5])
def test_nobody_is_worse_off_on_the_text_the_gate_has_seen(attached, task, own, rate):
    attached.activate(SHARED)
    before = evaluate(attached, task, own.validation).loss
    attached.activate(SHARED, PRIVATE)
    training = Training(steps=4, batch=4, learning_rate=rate)
    personalize(attached, PRIVATE, attached.initial[PRIVATE], task, own, training, SHARES, seed=0)
    assert evaluate(attached, task, own.validation).loss <= before


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_training_that_diverged_leaves_the_person_what_they_had(attached, task, own):
    """0 times NaN is NaN: a share of 0 must not be a product."""
    attached.activate(SHARED)
    before = evaluate(attached, task, own.validation).loss
    attached.activate(SHARED, PRIVATE)
    wild = Training(steps=3, batch=4, learning_rate=1e30)
    kept = personalize(attached, PRIVATE, attached.initial[PRIVATE], task, own, wild, SHARES, seed=0)
    assert kept.gate == 0.0
    assert np.isfinite(kept.vector).all()
    assert evaluate(attached, task, own.validation).loss == before
