"""Real processes that die at the worst moment: nothing finished is lost, nothing half-written is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.federation.test_resume import everything, numbers

FEDPEFT = ["-m", "fedpeft"]
SMOKE = ["simulate", "simulations/smoke.toml", "--runs"]
RESUME = [*FEDPEFT, "simulate", "--resume", "latest", "--runs"]


def start(repository: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, *map(str, arguments)]
    # A job that a shell put in the background ignores Ctrl-C, and so would its children.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=repository, text=True, preexec_fn=heeding, **pipes)  # noqa: PLW1509


def finish(repository: Path, *arguments: str | Path, code: int = 0) -> tuple[str, str]:
    """Run Python to its end, which must be the expected one, and return what it printed and what it complained."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def resume(repository: Path, runs: Path, name: str = "latest") -> dict[str, Any]:
    printed, _ = finish(repository, *FEDPEFT, "simulate", "--resume", name, "--runs", runs, "--json")
    figures: dict[str, Any] = json.loads(printed)
    return figures


def wait_for_folder(runs: Path) -> Path:
    """Wait until a run has a folder that says what it is."""
    for _ in range(30000):
        for scenario in runs.glob("*/scenario.json"):
            return scenario.parent
        time.sleep(0.002)
    raise AssertionError("the run never came")


def wait_for_round(runs: Path, round_: int) -> Path:
    """Wait until a run under way has finished a round."""
    for _ in range(1200):
        for metrics in runs.glob("*/metrics.jsonl"):
            if len(metrics.read_text().splitlines()) > round_:
                return metrics.parent
        time.sleep(0.05)
    raise AssertionError(f"round {round_} never came")


def test_a_run_stopped_three_times_in_three_ways_ends_in_the_same_bits(
    repository: Path, tmp_path: Path, smoke_run: Path
) -> None:
    # Killed before its roll call: it is the latest all the same.
    process = start(repository, *FEDPEFT, *SMOKE, tmp_path)
    run = wait_for_folder(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    assert not (run / "run.json").exists()
    _, complained = finish(repository, *FEDPEFT, "report", "latest", "--runs", tmp_path, code=2)
    assert "a run that has not begun" in complained
    assert f"`fedpeft simulate --resume {run}`" in complained
    # Ctrl-C before the first round.
    process = start(repository, *RESUME, tmp_path)
    wait_for_round(tmp_path, 0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume latest" in errors
    assert "Traceback" not in errors
    # Killed after the first round.
    process = start(repository, *RESUME, tmp_path)
    wait_for_round(tmp_path, 1)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert json.loads((run / "run.json").read_text())["status"] == "running"
    assert resume(repository, tmp_path)["rounds"] == 2
    assert numbers(run) == numbers(smoke_run)
    assert everything(run) == everything(smoke_run)


def test_a_disk_that_fills_up_stops_the_run_with_a_clear_line_and_the_run_can_be_resumed(
    repository: Path, tmp_path: Path, smoke_run: Path
) -> None:
    # The base graph (14 MB) is the first file beyond the limit; adapters and records fit.
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000));"
        "from fedpeft.cli import main; main(sys.argv[1:])"
    )
    _, complained = finish(repository, "-c", script, *SMOKE, tmp_path, code=2)
    assert "free some space" in complained
    (run,) = tmp_path.iterdir()
    assert not [path for path in run.rglob("*") if path.name.startswith((".draft", ".model", "tmp"))]
    resume(repository, tmp_path, run.name)
    assert everything(run) == everything(smoke_run)


def test_workers_do_not_outlive_a_killed_server(repository: Path, tmp_path: Path) -> None:
    process = start(repository, *FEDPEFT, *SMOKE, tmp_path)
    wait_for_round(tmp_path, 0)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.kill()
    process.communicate()
    assert children
    for _ in range(400):
        alive = [pid for pid in children if _running(pid)]
        if not alive:
            return
        time.sleep(0.05)
    raise AssertionError(f"workers {alive} still run")


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state != "Z"
