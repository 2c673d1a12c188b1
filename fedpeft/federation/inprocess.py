"""Run a scenario on this machine, from nothing to bundles that a device can open."""

from __future__ import annotations

import os
from pathlib import Path

from fedpeft.errors import RunError
from fedpeft.export.run import export_run
from fedpeft.federation.client import client_app, worker_at
from fedpeft.federation.folder import RUN, SCENARIO, RunFolder
from fedpeft.federation.grid import InProcessGrid
from fedpeft.federation.samples import write_samples
from fedpeft.federation.server import conduct
from fedpeft.federation.watcher import Silent, Watcher
from fedpeft.scenario import Scenario, load_scenario


def simulate(
    scenario: Scenario,
    runs: Path = Path("runs"),
    watcher: Watcher | None = None,
    workers: int | None = None,
) -> Path:
    """Run a scenario in this process and its forks.

    Parameters
    ----------
    scenario : Scenario
    runs : Path
        Where the run's folder is made.
    watcher : Watcher, optional
        Told what happens.
    workers : int, optional
        Processes that train clients; one per core by default. The numbers do not depend on it.

    Returns
    -------
    Path
        The run's folder: record, adapters, device bundles.
    """
    folder = RunFolder.fresh(runs, scenario.name)
    folder.write(SCENARIO, scenario.model_dump(mode="json"))
    return _continue(folder, scenario, watcher or Silent(), workers)


def resume(path: Path, watcher: Watcher | None = None, workers: int | None = None) -> Path:
    """Go on with an interrupted run from its last finished round; the end is as if it had never stopped.

    Raises
    ------
    RunError
        When the folder holds no run.
    """
    if not (path / SCENARIO).exists():
        raise RunError("run", str(path), f"a run folder with {SCENARIO}")
    return _continue(RunFolder(path), load_scenario(path / SCENARIO), watcher or Silent(), workers)


def _continue(folder: RunFolder, scenario: Scenario, watcher: Watcher, workers: int | None) -> Path:
    if not scenario.seeds:
        _one(folder, scenario, watcher, workers)
        return folder.path
    with folder.lock():
        folder.describe(scenario, {"seeds": scenario.seeds, "status": "running"})
        for seed in scenario.seeds:
            part = RunFolder(folder.path / "seeds" / str(seed))
            _one(part, scenario.with_seed(seed), watcher, workers)
        parts = [folder.read(f"seeds/{seed}/{RUN}") for seed in scenario.seeds]
        keep = {key: parts[0][key] for key in ("engine", "base", "adapter_parameters", "clients")}
        folder.update(**keep, seconds=sum(part["seconds"] for part in parts), status="finished")
    return folder.path


def _one(folder: RunFolder, scenario: Scenario, watcher: Watcher, workers: int | None) -> None:
    with folder.lock():
        if folder.read(RUN, {}).get("status") == "finished":
            return
        folder.write(SCENARIO, scenario.model_dump(mode="json"))
        config = {"scenario": str(folder.path.resolve() / SCENARIO), "run-folder": str(folder.path.resolve())}
        # Loaded before the fork, so that every process maps the same base.
        worker = worker_at(config["scenario"], config["run-folder"])
        clients = len(worker.client_ids)
        with InProcessGrid(client_app(), clients, config, workers or _cores()) as grid:
            conduct(grid, worker, folder, watcher, "inprocess")
        export_run(folder.path)
        write_samples(folder, scenario)
        folder.update(status="finished")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
