"""Bases to attach methods to; each is wrapped once, so each is loaded anew."""

from collections.abc import Callable

import pytest

from fedpeft.base import load_base
from fedpeft.methods import Attached
from fedpeft.methods.lora import Lora


@pytest.fixture(scope="session")
def attach() -> Callable[..., Attached]:
    """Return a function that loads the builtin base and attaches two LoRAs to it."""

    def make(
        method: Lora | None = None, private: Lora | None = None, seed: int = 0, dtype: str = "float32"
    ) -> Attached:
        return Attached(load_base("keyboard", dtype), method or Lora(rank=4), private or Lora(rank=2), seed)

    return make
