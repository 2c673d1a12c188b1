"""The trainer's switches under every registered method, on tiny models of both kinds."""

import numpy as np
import pytest

from fedpeft.methods.attached import SHARED
from fedpeft.methods.method import CAUSAL
from fedpeft.training import Training, train

from ..methods.test_every_method import CASES, attach, examples, method_for

# What adds nothing and what adds something of its own.
SAME = {"checkpointing": {"checkpointing": True}, "chunk": {"chunk": 5}}
OTHER = {
    "autocast": {"autocast": True},
    "adamw8bit": {"optimizer": "adamw8bit"},
    "fgm": {"adversarial": {"kind": "fgm"}},
    "pgd, checkpointed": {"adversarial": {"kind": "pgd", "steps": 2}, "checkpointing": True},
    "distillation": {"distillation": {"weight": 0.5}},
    "augmentation": {"augmentation": {"swap": 0.5, "drop": 0.2}},
}


def trained(name: str, kind: str, **options: object) -> np.ndarray:
    """Return a method's parameters after three steps from the same start."""
    method = method_for(name)
    task, attached = attach(method, kind)
    training = Training(steps=3, batch=6, learning_rate=1e-3, head_factor=1.0, **options)
    train(attached, SHARED, task, examples(kind, 1), training, seed=0)
    assert not attached.model.training
    return attached.read(SHARED)


def works(name: str, kind: str, options: dict[str, object]) -> bool:
    method = method_for(name)
    only_text = {"chunk", "distillation"} & options.keys()
    allowed = method.checkpointing or "checkpointing" not in options
    return kind in method.tasks and allowed and (kind == CAUSAL or not only_text)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_saves_memory_trains_what_is_trained_without(name, kind):
    plain = None
    for options in SAME.values():
        if works(name, kind, options):
            plain = trained(name, kind) if plain is None else plain
            start = attach(method_for(name), kind)[1].initial[SHARED]
            distance = np.linalg.norm(plain - start)
            assert distance > 0
            # Adam takes whole steps on the smallest gradients too: rounding shows in a few coordinates.
            assert np.linalg.norm(trained(name, kind, **options) - plain) < 0.02 * distance


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_other_switch_trains_something_else_and_nothing_breaks(name, kind):
    plain = trained(name, kind)
    for what, options in OTHER.items():
        if works(name, kind, options) and (what != "augmentation" or kind != CAUSAL):
            found = trained(name, kind, **options)
            assert np.isfinite(found).all(), what
            assert not np.array_equal(found, plain), what
