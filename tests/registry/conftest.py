"""A run's folder as rounds leave it, without the rounds: a scenario, a record, scores, and an adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedpeft.base import load_base
from fedpeft.export import export_base
from fedpeft.scenario import parse_scenario
from tests.device.conftest import random_adapter
from tests.registry.bundles import KEY


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "runs" / "demo"
    base = export_base(load_base("keyboard"), folder.parent.parent / "base", key=KEY)
    random_adapter(base, 4, 0.05).save(folder / "adapters" / "global")
    scenario = parse_scenario({"name": "chat"})
    (folder / "scenario.json").write_text(json.dumps(scenario.model_dump(mode="json")))
    record = {"name": "demo", "started": "2026-11-22T10:00:00+00:00", "scenario": scenario.digest}
    (folder / "run.json").write_text(json.dumps(record))
    rows = [{"round": 0, "validation": {"top3": 0.3}}, {"round": 1, "validation": {"top3": 0.4, "loss": 3.0}}]
    rows += [{"round": 2, "validation": None, "unscored": "burnt"}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
