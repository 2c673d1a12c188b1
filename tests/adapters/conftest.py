"""The builtin base in float32 with two adapters attached, and adapters made of random numbers."""

import numpy as np
import pytest

from fedpeft.adapters import Adapter
from fedpeft.base import load_base
from fedpeft.methods import Attached
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.lora import Lora


@pytest.fixture(scope="session")
def attached() -> Attached:
    """Return the base with a shared adapter of rank 4 and a private one of rank 2, rslora."""
    return Attached(load_base("keyboard", "float32"), Lora(rank=4, alpha=8.0), Lora(rank=2, alpha=3.0, rslora=True), 0)


@pytest.fixture(scope="session")
def shared(attached: Attached) -> Adapter:
    """Return a shared adapter in which no tensor is zero."""
    return _random(attached, SHARED, 1)


@pytest.fixture(scope="session")
def private(attached: Attached) -> Adapter:
    """Return a private adapter in which no tensor is zero."""
    return _random(attached, PRIVATE, 2)


def _random(attached: Attached, slot: str, seed: int) -> Adapter:
    vector = np.random.default_rng(seed).normal(0.0, 0.05, attached.schemas[slot].size).astype(np.float32)
    return attached.adapter(slot, vector)
