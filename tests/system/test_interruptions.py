"""Real processes that die at the worst moment: nothing finished is lost, nothing half-written is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.federation.test_resume import everything, numbers

SIMULATE = [sys.executable, "-m", "fedpeft", "simulate"]


def start(repository: Path, runs: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [*SIMULATE, "simulations/smoke.toml", "--runs", str(runs), *more]
    return subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_round(runs: Path, round_: int) -> Path:
    """Wait until a run under way has finished a round."""
    for _ in range(1200):
        for metrics in runs.glob("*/metrics.jsonl"):
            if len(metrics.read_text().splitlines()) > round_:
                return metrics.parent
        time.sleep(0.05)
    raise AssertionError(f"round {round_} never came")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_stopped_after_a_round_is_resumed_to_the_same_bits(
    how: signal.Signals, repository: Path, tmp_path: Path, smoke_run: Path
) -> None:
    process = start(repository, tmp_path)
    run = wait_for_round(tmp_path, 1)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if how is signal.SIGKILL else 130)
    if how is signal.SIGINT:
        assert b"--resume latest" in errors
        assert b"Traceback" not in errors
    assert json.loads((run / "run.json").read_text())["status"] in ("running", "interrupted")
    resumed = subprocess.run(
        [*SIMULATE, "--resume", "latest", "--runs", str(tmp_path), "--json"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rounds"] == 2
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
    full = subprocess.run(
        [sys.executable, "-c", script, "simulate", "simulations/smoke.toml", "--runs", str(tmp_path)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr
    assert "free some space" in full.stderr
    (run,) = tmp_path.iterdir()
    assert not [path for path in run.rglob("*") if path.name.startswith((".draft", ".model", "tmp"))]
    resumed = subprocess.run(
        [*SIMULATE, "--resume", run.name, "--runs", str(tmp_path), "--json"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert everything(run) == everything(smoke_run)


def test_workers_do_not_outlive_a_killed_server(repository: Path, tmp_path: Path) -> None:
    process = start(repository, tmp_path)
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
