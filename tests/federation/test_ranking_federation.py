"""Reply ranking in a federation: engines agree, a private adapter lies on top, and devices get the two as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedpeft.adapters import Adapter
from fedpeft.device import Ranker
from fedpeft.device.folders import adapter_folder, base_folder, users
from fedpeft.federation.folder import PEOPLE, RUN
from fedpeft.federation.inprocess import simulate
from fedpeft.scenario import Scenario, parse_scenario

from ..tasks.encoder import publish_encoder, write_talkers
from .test_resume import everything, numbers


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("talk")
    return {
        "name": "talk",
        "task": {"kind": "reply_ranking"},
        "data": {"federation": str(write_talkers(folder / "people")), "window": 12},
        "base": {"name": str(publish_encoder(folder / "encoder")), "dtype": "float32"},
        "method": {"name": "lora", "rank": 2},
        "training": {"steps": 3, "batch": 8, "learning_rate": 5e-3},
        "federation": {"rounds": 2, "cohort": 3, "minimum": 3, "panel": 3},
        "channel": {"dropout": 0.0},  # of three nobody may vanish
        "personalization": {"people": 2, "rank": 2, "training": {"steps": 3, "batch": 8}},
    }


@pytest.fixture(scope="module")
def scenario(tables: dict[str, Any]) -> Scenario:
    return parse_scenario(tables)


@pytest.fixture(scope="module")
def finished(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run by two processes."""
    return simulate(scenario, tmp_path_factory.mktemp("runs"), engine="inprocess", workers=2)


def people(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / PEOPLE).read_text().splitlines()]


def test_it_runs_to_its_end_and_scores_each_person_on_their_own_replies(finished: Path) -> None:
    record = json.loads((finished / RUN).read_text())
    assert (record["status"], record["device"]) == ("finished", "exported")
    rows = people(finished)
    assert len(rows) == 2
    data = json.loads((finished / "data.json").read_text())
    for row in rows:
        assert 0 <= row["test"]["base"]["top1"] <= row["test"]["base"]["top3"] <= 1
        assert 10 <= row["test"]["base"]["tokens"] <= data["test"]["replies"]["most"]


def test_one_process_gives_the_numbers_of_two(finished: Path, scenario: Scenario, tmp_path: Path) -> None:
    run = simulate(scenario, tmp_path, engine="serial")
    assert numbers(run) == numbers(finished)
    assert everything(run) == everything(finished)


def test_the_shared_adapter_is_all_that_is_shared_and_a_persons_has_the_private_one_joined(finished: Path) -> None:
    shared = Adapter.load(finished / "adapters" / "global")
    assert all("lora_" in name for name in shared.tensors())
    for row in people(finished):
        private = Adapter.load(finished / "clients" / row["client"] / "private")
        personal = Adapter.load(finished / "clients" / row["client"] / "personal")
        assert private.schema.names() == shared.schema.names()
        assert personal.config["r"] == shared.config["r"] + private.config["r"]


def test_what_devices_get_ranks_as_the_person_and_not_as_the_base(finished: Path) -> None:
    ranker = Ranker(base_folder(finished))
    assert users(finished) == sorted({"global", *(row["client"] for row in people(finished))})
    said, replies = ["what about the card"], ["pin please", "song now", "rain the me", "money a new"]
    base = {one.reply: one.probability for one in ranker.rank(said, replies)}
    for owner in users(finished):
        mine = ranker.load(adapter_folder(finished, owner))
        found = {one.reply: one.probability for one in ranker.rank(said, replies, mine)}
        assert max(abs(found[reply] - base[reply]) for reply in replies) > 1e-4
