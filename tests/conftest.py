"""What many tests share: a quiet environment and one finished smoke run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

REPOSITORY = Path(__file__).resolve().parent.parent
LONGEST = (
    "tests/system",
    "tests/federation/deployed",
    "tests/web",
    "tests/compare",
    "tests/federation",
    "tests/export",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes longest first: workers take whole files, and the last of them should be short."""
    items.sort(
        key=lambda item: next((i for i, part in enumerate(LONGEST) if item.nodeid.startswith(part)), len(LONGEST))
    )


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the checkout's folder."""
    return REPOSITORY


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep converted bases of tests away from the user's cache."""
    os.environ["FEDPEFT_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run of ``simulations/smoke.toml``."""
    from fedpeft.federation import simulate
    from fedpeft.scenario import load_scenario

    runs = tmp_path_factory.mktemp("runs")
    return simulate(load_scenario(REPOSITORY / "simulations" / "smoke.toml"), runs, workers=2)
