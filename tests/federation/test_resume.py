"""A run that was stopped anywhere ends as if it had never been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedpeft.device import find_run
from fedpeft.errors import BaseError, FedpeftError, RunError
from fedpeft.federation import inprocess
from fedpeft.federation.checkpoint import FILE
from fedpeft.federation.folder import METRICS, PEOPLE, RUN, RunFolder
from fedpeft.federation.inprocess import resume, simulate
from fedpeft.federation.watcher import Silent
from fedpeft.scenario import Scenario, parse_scenario

from .conftest import TINY

_KEPT = ("adapters/**/*", "clients/*/p*/*", "clients/*/state/*")


class Stops(Silent):
    """Presses Ctrl-C when a stage is reached."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def stage(self, name: str, done: int, total: int) -> None:
        if name == self._stage:
            raise KeyboardInterrupt


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def numbers(run: Path) -> list[dict[str, Any]]:
    """Return a run's metrics without the seconds, which no two runs share."""
    rows = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def everything(run: Path) -> dict[str, bytes]:
    """Return the bytes of every adapter and score of a run, and of what clients keep for themselves."""
    wanted = [run / PEOPLE, *(path for part in _KEPT for path in sorted(run.glob(part)))]
    return {str(path.relative_to(run)): path.read_bytes() for path in wanted if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was never stopped."""
    return simulate(parse_scenario(TINY), tmp_path_factory.mktemp("whole"), engine="serial")


@pytest.mark.parametrize("stage", ["round 2", "validate 2", "wrong user"])
def test_a_stopped_run_ends_bit_equal_to_an_uninterrupted_one(
    stage: str, whole: Path, tiny: Scenario, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        simulate(tiny, tmp_path, Stops(stage), "serial")
    (run,) = tmp_path.iterdir()
    assert json.loads((run / RUN).read_text())["status"] == "interrupted"
    assert resume(run, engine="serial") == run
    assert json.loads((run / RUN).read_text())["status"] == "finished"
    assert numbers(run) == numbers(whole)
    assert everything(run) == everything(whole)


def test_ctrl_c_while_base_and_text_are_read_leaves_a_run_that_is_the_latest(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(inprocess, "worker_at", interrupted)
        simulate(tiny, tmp_path, engine="serial")
    (run,) = tmp_path.iterdir()
    assert not (run / RUN).exists()
    assert find_run("latest", tmp_path) == run


@pytest.mark.parametrize("seeds", [[], [3, 4]])
@pytest.mark.parametrize(
    ("base", "engine", "error"), [("keybord", "serial", BaseError), ("keyboard", "seriel", RunError)]
)
def test_a_run_that_cannot_begin_leaves_no_folder_that_would_be_the_latest(
    base: str, engine: str, error: type[FedpeftError], seeds: list[int], tmp_path: Path
) -> None:
    scenario = parse_scenario({**TINY, "base": {"name": base}, "seeds": seeds})
    with pytest.raises(error, match="did you mean"):
        simulate(scenario, tmp_path, engine=engine)
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_after_its_first_line_of_metrics_is_kept(tiny: Scenario, tmp_path: Path) -> None:
    class Fails(Silent):
        def round(self, row: dict[str, Any], rounds: int) -> None:
            raise RunError("panel", "a coffee break", "none")

    with pytest.raises(RunError, match="coffee"):
        simulate(tiny, tmp_path, Fails(), "serial")
    (run,) = tmp_path.iterdir()
    assert len(numbers(run)) == 1


def test_a_finished_run_resumes_to_itself(whole: Path) -> None:
    before = everything(whole)
    resume(whole)
    assert everything(whole) == before


def test_a_damaged_checkpoint_is_refused(tiny: Scenario, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        simulate(tiny, tmp_path, Stops("round 2"), "serial")
    (run,) = tmp_path.iterdir()
    content = (run / FILE).read_bytes()
    (run / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match="checkpoint"):
        resume(run, engine="serial")


def test_a_run_that_another_process_writes_is_refused(whole: Path) -> None:
    with RunFolder(whole).lock(), pytest.raises(RunError, match="in use"), RunFolder(whole).lock():
        pass


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"scenario\.json"):
        resume(tmp_path)
