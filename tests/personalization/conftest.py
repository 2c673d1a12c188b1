"""A small person: the builtin base with a shared and a private adapter, a task, and a little of their text."""

import numpy as np
import pytest

from fedpeft.base import load_base
from fedpeft.data import load_federation
from fedpeft.data.windows import Windows
from fedpeft.methods import Attached
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.lora import Lora
from fedpeft.tasks import Splits
from fedpeft.tasks.next_word import NextWord


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
def task(_attached) -> NextWord:
    """Return next-word prediction on the builtin clients."""
    return NextWord(_attached.base, load_federation("keyboard"), 32)


@pytest.fixture(scope="session")
def own(task) -> Splits[Windows]:
    """Return a few windows of one person; the test split must not be looked at."""
    found = task.splits("user-05")
    return Splits(found.train.head(5), found.validation.head(5), Unread(), found.messages)


class Unread:
    """Fails whoever looks at it."""

    def __getattr__(self, name: str) -> None:
        raise AssertionError(f"the test split was asked for its {name}")

    def __len__(self) -> int:
        raise AssertionError("the test split was counted")
