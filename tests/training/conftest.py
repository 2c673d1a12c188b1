"""The builtin base with two LoRAs, some real text of one client, and a counter of keystrokes."""

from collections.abc import Callable

import pytest

from fedpeft.base import load_base
from fedpeft.data import Client, load_federation
from fedpeft.data.windows import Windows, windows
from fedpeft.methods import Attached
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.lora import Lora
from fedpeft.tasks.keystrokes import Keystrokes


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
def text(_attached) -> Windows:
    """Return 11 windows of 32 tokens: what one person wrote last."""
    split = Client.of(load_federation("keyboard"), "user-05").split
    return windows(split.test, _attached.base.tokenizer, 32).head(11)


@pytest.fixture(scope="session")
def keystrokes(_attached) -> Keystrokes:
    """Return the counter for the builtin tokenizer."""
    return Keystrokes(_attached.base.tokenizer, int(_attached.base.model.config.vocab_size))
