"""A small federation that runs in a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedpeft.federation.client import worker_at
from fedpeft.federation.folder import SCENARIO, RunFolder
from fedpeft.federation.worker import Worker
from fedpeft.scenario import Scenario, parse_scenario

from ..tasks.encoder import publish_encoder, write_people

PEOPLE = Path(__file__).parent / "people"
"""Eight people who wrote 48 sentences each: a person of the builtin federation takes seconds to score."""

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"federation": str(PEOPLE), "clients": 4, "window": 32, "max_windows": 8},
    "method": {"name": "lora", "rank": 2},
    "training": {"steps": 1, "batch": 2},
    "federation": {"rounds": 2, "cohort": 4, "minimum": 3, "panel": 4, "panel_windows": 2},
    "personalization": {"people": 2, "rank": 2, "training": {"steps": 1, "batch": 2}},
    "samples": {"prompts": ["I am "], "people": 1, "tokens": 2},
}


@pytest.fixture
def tiny() -> Scenario:
    """Return a scenario of four clients and two rounds."""
    return parse_scenario(TINY)


@pytest.fixture
def folder(tmp_path: Path, tiny: Scenario) -> RunFolder:
    """Return a run folder that holds the tiny scenario."""
    made = RunFolder(tmp_path / "run")
    made.write(SCENARIO, tiny.model_dump(mode="json"))
    return made


@pytest.fixture
def config(folder: RunFolder) -> dict[str, str]:
    """Return the run configuration that both apps read."""
    return {"scenario": str(folder.path / SCENARIO), "run-folder": str(folder.path)}


@pytest.fixture
def worker(config: dict[str, str]) -> Worker:
    """Return this process's worker for the tiny scenario."""
    return worker_at(config["scenario"], config["run-folder"])


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the tables of a scenario in which four people classify texts, three a round, each with a head of their own."""
    folder = tmp_path_factory.mktemp("classes")
    return {
        "name": "classes",
        "task": {"kind": "classification", "head": "private"},
        "data": {"federation": str(write_people(folder / "people")), "window": 12},
        "base": {"name": str(publish_encoder(folder / "encoder")), "dtype": "float32"},
        "method": {"name": "lora", "rank": 2},
        "training": {"steps": 3, "batch": 8, "learning_rate": 5e-3},
        "federation": {"rounds": 3, "cohort": 3, "minimum": 3, "panel": 3},
        "channel": {"dropout": 0.0},  # of three nobody may vanish
        "personalization": {"people": 3, "training": {"steps": 3, "batch": 8}},
    }
