"""Classifiers with heads of their own: stopped or not, in one process or in two, the same to the bit; heads stay home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpeft.adapters import Adapter
from fedpeft.device.folders import users
from fedpeft.federation.client import client_app
from fedpeft.federation.folder import PEOPLE, RUN
from fedpeft.federation.inprocess import resume, simulate
from fedpeft.federation.worker import Worker
from fedpeft.scenario import Scenario, parse_scenario

from .test_resume import Stops, everything, numbers

HEAD = "base_model.model.classifier.weight"


@pytest.fixture(scope="module")
def scenario(classes: dict[str, Any]) -> Scenario:
    return parse_scenario(classes)


@pytest.fixture(scope="module")
def finished(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run by two processes."""
    return simulate(scenario, tmp_path_factory.mktemp("runs"), engine="inprocess", workers=2)


def people(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / PEOPLE).read_text().splitlines()]


def test_it_runs_to_its_end_and_exports_everybodys_classifier(finished: Path) -> None:
    record = json.loads((finished / RUN).read_text())
    assert record["status"] == "finished"
    assert record["device"] == "exported"
    assert {row["client"] for row in people(finished)} | {"global"} == set(users(finished))
    assert json.loads((finished / "data.json").read_text())["classes"] == 4


def test_one_process_gives_the_numbers_of_two(finished: Path, scenario: Scenario, tmp_path: Path) -> None:
    run = simulate(scenario, tmp_path, engine="serial")
    assert numbers(run) == numbers(finished)
    assert everything(run) == everything(finished)
    assert any("/state/" in name for name in everything(run))


@pytest.mark.parametrize("stage", ["round 3", "personalize"])
def test_a_stopped_run_ends_bit_equal_to_an_uninterrupted_one(
    stage: str, finished: Path, scenario: Scenario, tmp_path: Path
) -> None:
    """A client of the broken-off round has already written its head; it starts again from the one before."""
    with pytest.raises(KeyboardInterrupt):
        simulate(scenario, tmp_path, Stops(stage), "serial")
    (run,) = tmp_path.iterdir()
    if stage == "round 3":
        assert list(run.glob("clients/*/state/round-3.safetensors"))
    resume(run, engine="serial")
    assert numbers(run) == numbers(finished)
    assert everything(run) == everything(finished)


def test_the_global_adapters_head_is_the_seeded_start_and_each_client_has_another(
    finished: Path, scenario: Scenario, tmp_path: Path
) -> None:
    shared = Adapter.load(finished / "adapters" / "global").tensors()
    worker = Worker(scenario, tmp_path)
    start = worker.attached.adapter("shared", worker.attached.initial["shared"]).tensors()
    assert np.array_equal(shared[HEAD], start[HEAD])
    assert any(not np.array_equal(shared[name], start[name]) for name in shared if "lora_" in name)
    rows = people(finished)
    heads = [Adapter.load(finished / "clients" / row["client"] / "personal").tensors()[HEAD] for row in rows]
    assert len(heads) == 3
    for i, head in enumerate(heads):
        assert not np.array_equal(head, shared[HEAD])
        assert not any(np.array_equal(head, other) for other in heads[:i])


def test_every_message_of_a_plain_run_is_as_long_as_the_adapter_without_its_head(
    classes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = parse_scenario(classes, ["channel.name=plain"])
    down, up = set(), set()

    def watch(message: Any, context: Any, call_next: Any) -> Any:
        answer = call_next(message, context)
        for content, found in ((message.content, down), (answer.content, up)):
            fields = {name: value for record in content.config_records.values() for name, value in record.items()}
            found |= {(name, len(value)) for name, value in fields.items() if isinstance(value, bytes)}
        return answer

    app = client_app([watch])
    monkeypatch.setattr("fedpeft.federation.inprocess.client_app", lambda: app)
    simulate(scenario, tmp_path, engine="serial")
    worker = Worker(scenario, tmp_path / "other")
    assert down == {("global", 2 * int(worker.public_mask.sum()))}
    assert up == {("payload", 2 * codec.length) for codec in (worker.train_codec(1), worker.tally_codec)}
    assert int(worker.public_mask.sum()) == worker.size - (4 * 32 + 4)


def test_heads_that_stay_at_home_learn_too(finished: Path) -> None:
    for row in people(finished):
        test = row["test"]
        assert test["global"]["loss"] < test["base"]["loss"]
        assert test["personal"]["keystrokes_saved"] == 0.0
    validation = [row["validation"]["loss"] for row in numbers(finished)]
    assert validation[-1] < validation[0]


def test_a_shared_head_is_averaged_and_costs_its_bytes(classes: dict[str, Any], finished: Path, tmp_path: Path) -> None:
    scenario = parse_scenario(classes, ["task.head=shared", "personalization.people=0"])
    run = simulate(scenario, tmp_path, engine="serial")
    start = Worker(scenario, tmp_path / "other").attached
    head = Adapter.load(run / "adapters" / "global").tensors()[HEAD]
    assert not np.array_equal(head, start.adapter("shared", start.initial["shared"]).tensors()[HEAD])
    assert not list(run.glob("clients/*/state"))
    rows = numbers(run)
    assert rows[-1]["validation"]["loss"] < rows[0]["validation"]["loss"]
    # A head moves ten times as far, and the automatic range has room for it.
    assert max(row["clipped"] for row in rows[1:]) == 0.0
    # Two bytes a number, up and down.
    for way in ("bytes_up", "bytes_down"):
        assert rows[1][way] - numbers(finished)[1][way] == pytest.approx(2 * (4 * 32 + 4), abs=16)
