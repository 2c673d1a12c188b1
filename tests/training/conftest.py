"""The builtin base with two LoRAs, a task on it, some real text of one client, and a counter of keystrokes."""

from collections.abc import Callable

import numpy as np
import pytest
from torch import Tensor

from fedpeft.base import load_base
from fedpeft.data import Client, load_federation
from fedpeft.data.windows import Windows, windows
from fedpeft.methods import Attached
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.lora import Lora
from fedpeft.tasks.keystrokes import Keystrokes
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training, train


@pytest.fixture(scope="session")
def attach() -> Callable[..., Attached]:
    """Return a function that attaches two LoRAs to a newly loaded builtin base."""

    def make(dtype: str = "float32") -> Attached:
        return Attached(load_base("keyboard", dtype), Lora(rank=4), Lora(rank=2), seed=0)

    return make


@pytest.fixture(scope="session")
def _attached(attach) -> Attached:
    return attach()


@pytest.fixture
def attached(_attached) -> Attached:
    """Return the model with both slots at their start and the shared one active."""
    for slot in (SHARED, PRIVATE):
        _attached.write(slot, _attached.initial[slot])
    _attached.activate(SHARED)
    return _attached


@pytest.fixture(scope="session")
def task(_attached) -> NextWord:
    """Return next-word prediction on the builtin clients."""
    return NextWord(_attached.base, load_federation("keyboard"), 32)


@pytest.fixture(scope="session")
def text(_attached) -> Windows:
    """Return 11 windows of 32 tokens: what one person wrote last."""
    split = Client.of(load_federation("keyboard"), "user-05").split
    return windows(split.test, _attached.base.tokenizer, 32).head(11)


@pytest.fixture(scope="session")
def keystrokes(_attached) -> Keystrokes:
    """Return the counter for the builtin tokenizer."""
    return Keystrokes(_attached.base.tokenizer, int(_attached.base.model.config.vocab_size))


@pytest.fixture
def perturbed(attached) -> np.ndarray:
    """Return a shared adapter that does something, already written: at the start A has no gradient."""
    vector = np.random.default_rng(1).normal(0, 0.05, attached.schemas[SHARED].size).astype(np.float32)
    attached.write(SHARED, vector)
    return vector


@pytest.fixture
def gradients(attached, task, text, monkeypatch) -> Callable[..., dict[str, Tensor]]:
    """Return a function that takes one step and returns the gradients it saw, the values put back."""

    def take(keep: Callable[[str], bool] = lambda _: True, **options: object) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        before = attached.read(SHARED)

        def look(slot: str, step: int, total: int) -> None:
            named = attached.model.named_parameters()
            found.update({n: p.grad.clone() for n, p in named if p.grad is not None})

        with monkeypatch.context() as patched:
            patched.setattr(attached, "after_step", look)
            training = Training(steps=1, batch=len(text), clip_norm=1e30, **options)
            train(attached, SHARED, task, text, training, seed=0, keep=keep)
        attached.write(SHARED, before)
        return found

    return take
