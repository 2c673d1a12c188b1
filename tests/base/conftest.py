"""Copies of the builtin base, to be damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedpeft.base.locate import BUILTIN


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return a folder of its own with the builtin base's files."""
    return Path(shutil.copytree(BUILTIN / "keyboard", tmp_path / "copied"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty ``$FEDPEFT_HOME``."""
    monkeypatch.setenv("FEDPEFT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def edit(copied: Path) -> Callable[[Callable[[bytes], bytes]], Path]:
    """Return a function that rewrites the copy's weights and returns the copy."""

    def rewrite(change: Callable[[bytes], bytes]) -> Path:
        weights = copied / "model.safetensors"
        weights.write_bytes(change(weights.read_bytes()))
        return copied

    return rewrite
