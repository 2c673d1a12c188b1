"""Finding a run by name, by path, or as the one that started last."""

import json
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
