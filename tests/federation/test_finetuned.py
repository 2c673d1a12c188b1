"""A method whose private adapter joins no shared one: what a person keeps is the global adapter, fine-tuned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedpeft.adapters import Adapter
from fedpeft.cli.app import app
from fedpeft.federation.folder import PEOPLE, RUN
from fedpeft.federation.inprocess import resume, simulate
from fedpeft.federation.worker import Worker
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario, load_scenario, parse_scenario
from fedpeft.training import evaluate

from .test_resume import Stops, everything, numbers

HOUSE = ["method={name = 'houlsby', size = 4}", "channel.name=plain", "personalization.people=2"]


@pytest.fixture(scope="module")
def scenario(repository: Path) -> Scenario:
    return load_scenario(repository / "simulations" / "smoke.toml", HOUSE)


@pytest.fixture(scope="module")
def run(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(scenario, tmp_path_factory.mktemp("runs"), engine="serial")


def people(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / PEOPLE).read_text().splitlines()]


def test_there_is_no_slot_on_top(scenario: Scenario, tmp_path: Path) -> None:
    assert scenario.private_method is None
    assert Worker(scenario, tmp_path).attached.slots == [SHARED]


def test_personal_adapters_are_copies_of_the_global_one_that_went_on_learning(run: Path) -> None:
    shared = Adapter.load(run / "adapters" / "global")
    assert shared.config["method"]["name"] == "houlsby"
    rows = people(run)
    assert len(rows) == 2
    for row in rows:
        own = Adapter.load(run / "clients" / row["client"] / "personal", shared.base)
        private = Adapter.load(run / "clients" / row["client"] / "private", shared.base)
        assert own.schema == shared.schema
        assert np.array_equal(own.vector, private.vector)
        distance = np.linalg.norm(own.vector - shared.vector)
        if row["gate"] == 0.0:
            assert distance == 0.0
            assert row["test"]["personal"] == row["test"]["global"]
        else:
            assert 0.0 < distance < np.linalg.norm(shared.vector)
    assert any(row["gate"] > 0.0 for row in rows)


def test_a_strangers_adapter_takes_the_place_of_ones_own(run: Path, scenario: Scenario, tmp_path: Path) -> None:
    row = people(run)[0]
    worker = Worker(scenario, tmp_path)
    worker.attached.write(SHARED, Adapter.load(run / "clients" / row["wrong_user"] / "personal").vector)
    score = evaluate(worker.attached, worker.task, worker.splits(row["client"]).test).metrics()
    assert score == row["test"]["wrong_user"]


def test_its_bundles_are_exported_and_its_report_has_samples(run: Path) -> None:
    record = json.loads((run / RUN).read_text())
    assert (record["status"], record["device"]) == ("finished", "exported")
    assert (run / "samples.json").exists()
    ended = CliRunner().invoke(app, ["report", str(run)])
    assert ended.exit_code == 0, ended.output
    assert "Keystrokes" in ended.output
    page = (run / "report.html").read_text()
    assert "completed by different adapters" in page
    assert "houlsby" in page


def test_a_method_without_a_place_in_the_graph_ends_with_the_reason_and_a_report_without_samples(
    repository: Path, tmp_path: Path
) -> None:
    gated = ["method={name = 'unipelt'}", "channel.name=plain", "federation.rounds=1", "personalization.people=1"]
    run = simulate(load_scenario(repository / "simulations" / "smoke.toml", gated), tmp_path, engine="serial")
    record = json.loads((run / RUN).read_text())
    assert record["status"] == "finished"
    assert "gates depend on what they read" in record["device"]
    assert not (run / "device").exists()
    assert not (run / "samples.json").exists()
    ended = CliRunner().invoke(app, ["report", str(run)])
    assert ended.exit_code == 0, ended.output
    assert "completed by different adapters" not in (run / "report.html").read_text()


def test_a_classifiers_report_is_written_too(classes: dict, tmp_path: Path) -> None:
    run = simulate(parse_scenario(classes, ["federation.rounds=1"]), tmp_path, engine="serial")
    for options in ([], ["--markdown"], ["--json"]):
        ended = CliRunner().invoke(app, ["report", str(run), *options])
        assert ended.exit_code == 0, ended.output
        assert "Keystrokes" not in ended.output
        assert ("Accuracy" in ended.output) == (options != ["--json"])
    assert json.loads(ended.output)["task"] == "classification"


@pytest.mark.parametrize("stage", ["round 2", "wrong user"])
def test_a_stopped_run_ends_bit_equal_to_an_uninterrupted_one(
    stage: str, run: Path, scenario: Scenario, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        simulate(scenario, tmp_path, Stops(stage), "serial")
    (stopped,) = tmp_path.iterdir()
    resume(stopped, engine="serial")
    assert numbers(stopped) == numbers(run)
    assert everything(stopped) == everything(run)
