"""The record on disk."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fedpeft.errors import RunError
from fedpeft.federation.checkpoint import FILE, Checkpoint
from fedpeft.federation.folder import RunFolder, environment
from fedpeft.scenario import parse_scenario


def test_a_checkpoint_comes_back_to_the_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    state = {"first": rng.normal(size=7).astype(np.float32), "second": rng.normal(size=7).astype(np.float32)}
    wrote = Checkpoint(3, rng.normal(size=7).astype(np.float32), state)
    wrote.write(tmp_path, "digest")
    read = Checkpoint.read(tmp_path, "digest", 7)
    assert read is not None
    assert read.round == 3
    assert np.array_equal(read.change, wrote.change)
    assert read.state.keys() == state.keys()
    assert all(np.array_equal(read.state[name], state[name]) for name in state)


def test_there_is_no_checkpoint_before_the_first(tmp_path: Path) -> None:
    assert Checkpoint.read(tmp_path, "digest", 7) is None


@pytest.mark.parametrize(
    ("digest", "size", "message"), [("other", 7, "another scenario"), ("digest", 8, "size 8")], ids=["scenario", "size"]
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, digest: str, size: int, message: str) -> None:
    Checkpoint(1, np.zeros(7, np.float32), {}).write(tmp_path, "digest")
    with pytest.raises(RunError, match=message):
        Checkpoint.read(tmp_path, digest, size)


def test_a_cut_off_checkpoint_is_refused(tmp_path: Path) -> None:
    Checkpoint(1, np.zeros(7, np.float32), {}).write(tmp_path, "digest")
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-5])
    with pytest.raises(RunError, match="whole checkpoint"):
        Checkpoint.read(tmp_path, "digest", 7)


def test_two_runs_begun_in_one_second_get_two_folders(tmp_path: Path) -> None:
    folders = {RunFolder.fresh(tmp_path, "x").path for _ in range(3)}
    assert len(folders) == 3


def test_the_record_holds_the_scenario_as_json_and_toml_and_the_machine(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    scenario = parse_scenario({"name": "x", "description": 'a "quoted" line\nand öne more'})
    folder.describe(scenario, {"status": "running"})
    assert json.loads((tmp_path / "scenario.json").read_text()) == scenario.model_dump(mode="json")
    assert parse_scenario(tomllib.loads((tmp_path / "scenario.toml").read_text())) == scenario
    assert folder.read("environment.json") == environment()
    started = folder.read("run.json")["started"]
    folder.describe(scenario, {"status": "running"})
    assert folder.read("run.json")["started"] == started
