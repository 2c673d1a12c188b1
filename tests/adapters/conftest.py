"""Adapters of random numbers on a tiny Llama."""

import pytest
from peft import LoraConfig

from fedpeft.adapters import Adapter

from .models import saved


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """Return a LoRA of rank 4 in which no tensor is zero."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    return saved(config, tmp_path_factory.mktemp("shared"), 1)[0]


@pytest.fixture(scope="session")
def private(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """Return a rank-stabilized LoRA of rank 2 in which no tensor is zero."""
    config = LoraConfig(r=2, lora_alpha=3, use_rslora=True, target_modules="all-linear", task_type="CAUSAL_LM")
    return saved(config, tmp_path_factory.mktemp("private"), 2)[0]
