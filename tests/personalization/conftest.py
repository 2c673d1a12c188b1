"""A small person: the builtin base with a shared and a private adapter, and a little of their text."""

import numpy as np
import pytest

from fedpeft.base import load_base
from fedpeft.data import Client, load_federation
from fedpeft.data.windows import Windows, windows
from fedpeft.methods import Attached
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.lora import Lora
from fedpeft.tasks.keystrokes import Keystrokes


@pytest.fixture(scope="session")
def _attached() -> Attached:
    return Attached(load_base("keyboard", "float32"), Lora(rank=4), Lora(rank=2), seed=0)


@pytest.fixture
def attached(_attached) -> Attached:
    """Return the model with both slots active: a shared adapter that does something, the private one at its start."""
    size = _attached.schemas[SHARED].size
    _attached.write(SHARED, np.random.default_rng(3).normal(0, 0.02, size).astype(np.float32))
    _attached.write(PRIVATE, _attached.initial[PRIVATE])
    _attached.activate(SHARED, PRIVATE)
    return _attached


@pytest.fixture(scope="session")
def texts(_attached) -> dict[str, Windows]:
    """Return a few training and validation windows of one person."""
    split = Client.of(load_federation("keyboard"), "user-05").split
    return {
        part: windows(getattr(split, part), _attached.base.tokenizer, 32).head(5) for part in ("train", "validation")
    }


@pytest.fixture(scope="session")
def keystrokes(_attached) -> Keystrokes:
    """Return the counter for the builtin tokenizer."""
    return Keystrokes(_attached.base.tokenizer, int(_attached.base.model.config.vocab_size))
