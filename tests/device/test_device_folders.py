"""Finding a run by name, by path, or as the one that started last."""

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from fedpeft.device import find_run
from fedpeft.errors import RunError


def make(root: Path, **started: object) -> Path:
    for name, moment in started.items():
        (root / name).mkdir()
        (root / name / "run.json").write_text(json.dumps({"started": moment}))
    return root


def test_the_latest_run_is_the_one_that_started_last_in_any_time_zone(tmp_path):
    make(tmp_path, a="2025-11-22T10:00:00+00:00", b="2025-11-22T11:30:00+02:00", c="2025-11-22T09:45:00")
    assert find_run("latest", tmp_path) == tmp_path / "a"


def test_folders_without_a_readable_start_are_not_runs(tmp_path):
    make(tmp_path, good="2025-01-01T00:00:00", wrong="yesterday", odd=3)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "empty").mkdir()
    assert find_run("latest", tmp_path) == tmp_path / "good"


def stopped(root: Path, name: str, moment: str) -> Path:
    """Make a run that was stopped before it had a record."""
    (root / name).mkdir()
    (root / name / "scenario.json").write_text("{}")
    seconds = datetime.fromisoformat(moment).timestamp()
    os.utime(root / name / "scenario.json", (seconds, seconds))
    return root / name


@pytest.mark.parametrize(
    ("moment", "latest"), [("2025-01-02T12:00:01+00:00", "early"), ("2025-01-02T11:59:59+00:00", "good")]
)
def test_a_run_stopped_before_its_record_started_when_its_scenario_was_written(tmp_path, moment, latest):
    make(tmp_path, good="2025-01-02T12:00:00+00:00")
    early = stopped(tmp_path, "early", moment)
    assert find_run("latest", tmp_path) == tmp_path / latest
    assert find_run("early", tmp_path) == find_run(str(early), Path("elsewhere")) == early
    with pytest.raises(RunError, match="did you mean 'early'"):
        find_run("earli", tmp_path)


def test_the_record_of_a_run_tells_its_start_and_not_its_scenario_which_a_resume_writes_again(tmp_path):
    make(tmp_path, other="2025-01-03T00:00:00+00:00")
    resumed = stopped(tmp_path, "resumed", "2025-01-04T00:00:00+00:00")
    (resumed / "run.json").write_text(json.dumps({"started": "2025-01-02T00:00:00+00:00"}))
    assert find_run("latest", tmp_path) == tmp_path / "other"


def test_a_run_is_found_by_name_or_by_path(tmp_path):
    make(tmp_path, demo="2025-01-01T00:00:00")
    assert find_run("demo", tmp_path) == tmp_path / "demo"
    assert find_run(str(tmp_path / "demo"), Path("elsewhere")) == tmp_path / "demo"


def test_an_unknown_run_names_the_nearest(tmp_path):
    make(tmp_path, keyboard="2025-01-01T00:00:00")
    with pytest.raises(RunError, match="did you mean 'keyboard'"):
        find_run("keybord", tmp_path)


@pytest.mark.parametrize("name", ["latest", "demo"])
def test_without_runs_the_remedy_is_to_make_one(tmp_path, name):
    with pytest.raises(RunError, match="fedpeft simulate"):
        find_run(name, tmp_path / "runs")
