"""Where no adapter of its own goes on top, the global one is fine-tuned: with the gate shut it is the global one."""

import numpy as np
import pytest

from fedpeft.base import load_base
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.personalization import personalize
from fedpeft.training import Training, evaluate, train

TRAINING = Training(steps=3, batch=4, learning_rate=5e-3)
SINGLE = {"dora": Lora(rank=2, dora=True), "ranks of their own": Lora(rank=2, rank_pattern={"v_proj": 3})}


@pytest.fixture(scope="module", params=SINGLE)
def alone(request) -> tuple[Attached, np.ndarray]:
    """Return a model with a shared adapter only, and a global adapter that does something."""
    method = SINGLE[request.param]
    assert method.private(4) is None
    made = Attached(load_base("keyboard", "float32"), method, None, seed=0)
    size = made.schemas[SHARED].size
    noise = np.random.default_rng(3).normal(0, 0.01, size).astype(np.float32)
    return made, made.initial[SHARED] + noise


def test_there_is_one_slot(alone):
    assert alone[0].slots == [SHARED]


def test_a_shut_gate_keeps_the_global_adapter_bit_for_bit(alone, task, own):
    attached, start = alone
    kept = personalize(attached, SHARED, start, task, own, TRAINING, [0.0], seed=0)
    assert kept.gate == 0.0
    assert np.array_equal(kept.vector, start)
    assert np.array_equal(attached.read(SHARED), start)


def test_an_open_gate_keeps_what_was_trained_from_the_global_adapter(alone, task, own):
    attached, start = alone
    attached.write(SHARED, start)
    train(attached, SHARED, task, own.train, TRAINING, seed=0)
    trained = attached.read(SHARED)
    kept = personalize(attached, SHARED, start, task, own, TRAINING, [1.0], seed=0)
    # θ_g + 1 (θ - θ_g) rounds once.
    np.testing.assert_allclose(kept.vector, trained, atol=1e-6)
    assert not np.array_equal(kept.vector, start)


def test_half_a_gate_is_half_the_way(alone, task, own):
    attached, start = alone
    whole = personalize(attached, SHARED, start, task, own, TRAINING, [1.0], seed=0).vector
    half = personalize(attached, SHARED, start, task, own, TRAINING, [0.5], seed=0).vector
    np.testing.assert_allclose(half - start, (whole - start) / 2, atol=1e-6)


def test_nobody_is_worse_off_on_the_text_the_gate_has_seen(alone, task, own):
    attached, start = alone
    attached.write(SHARED, start)
    before = evaluate(attached, task, own.validation).loss
    wild = TRAINING.model_copy(update={"learning_rate": 0.5})
    assert personalize(attached, SHARED, start, task, own, wild, [0.0, 0.5, 1.0], seed=0).gate == 0.0
    assert evaluate(attached, task, own.validation).loss == before
