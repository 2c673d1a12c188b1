from pathlib import Path

import pytest

from .synthetic import Truth, draw, write_run


@pytest.fixture(scope="session")
def truth() -> Truth:
    return draw(40)


@pytest.fixture
def run(tmp_path: Path, truth: Truth) -> Path:
    """A finished run folder, a fresh one for each test."""
    return write_run(tmp_path / "keyboard", truth, burnt=7)
