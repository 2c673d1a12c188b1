"""The builtin base, and a tiny encoder with people to classify for."""

from pathlib import Path

import pytest

from fedpeft.base import Base, load_base
from fedpeft.data import load_labelled
from fedpeft.tasks.classification import Classification
from fedpeft.tasks.keystrokes import Keystrokes

from .encoder import publish_encoder, write_people


@pytest.fixture(scope="session")
def base() -> Base:
    """Return the builtin language model."""
    return load_base("keyboard", "float32")


@pytest.fixture(scope="session")
def keystrokes(base) -> Keystrokes:
    """Return the counter for the builtin tokenizer."""
    return Keystrokes(base.tokenizer, int(base.model.config.vocab_size))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny encoder."""
    return publish_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of labelled lines."""
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="session")
def classification(encoder, people) -> Classification:
    """Return the task on the tiny encoder: four people, four classes, 12 tokens."""
    federation = load_labelled(str(people))
    loaded = load_base(str(encoder), "float32", labels=len(federation.labels()))
    return Classification(loaded, federation, 12)
