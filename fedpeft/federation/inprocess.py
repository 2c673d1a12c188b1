"""Run a scenario on this machine, from nothing to bundles that a device can open.

Three engines run the same apps: ``inprocess`` (forked workers on our own Grid), ``serial`` (the same in one process)
and ``ray`` (Flower's simulation runtime). One seed gives one result, in all of them to the bit.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from fedpeft.errors import AdapterError, BaseError, DataError, FedpeftError, RunError, nearest
from fedpeft.export.run import export_run, obstacle
from fedpeft.federation.client import client_app, worker_at
from fedpeft.federation.fitted import settled
from fedpeft.federation.folder import DATA, RUN, SCENARIO, RunFolder, cores
from fedpeft.federation.grid import InProcessGrid
from fedpeft.federation.ray import conduct_on_ray
from fedpeft.federation.samples import write_samples
from fedpeft.federation.server import conduct
from fedpeft.federation.watcher import Silent, Watcher
from fedpeft.federation.worker import Worker
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario, load_scenario
from fedpeft.scenario.validate import require_simulable
from fedpeft.tasks.chat import Chat
from fedpeft.tasks.next_word import NextWord

ENGINES = ("inprocess", "serial", "ray")


def simulate(
    scenario: Scenario,
    runs: Path = Path("runs"),
    watcher: Watcher | None = None,
    engine: str = "inprocess",
    workers: int | None = None,
) -> Path:
    """Run a scenario.

    Parameters
    ----------
    scenario : Scenario
    runs : Path
        Where the run's folder is made.
    watcher : Watcher, optional
        Told what happens.
    engine : {"inprocess", "serial", "ray"}
    workers : int, optional
        Processes that train clients; one per core by default. The numbers do not depend on it.

    Returns
    -------
    Path
        The run's folder: record, adapters, device bundles.

    Raises
    ------
    FedpeftError
        When the run cannot go on; what it has finished is kept and can be resumed. Of a run that could not even
        begin no folder stays.
    """
    runner = _Runner(watcher or Silent(), engine, workers)
    require_simulable(scenario)
    scenario = settled(scenario, workers or cores())
    folder = RunFolder.fresh(runs, scenario.name)
    folder.write(SCENARIO, scenario.model_dump(mode="json"))
    try:
        return runner.all_seeds(folder, scenario)
    except FedpeftError:
        folder.discard_blank()
        raise


def resume(path: Path, watcher: Watcher | None = None, engine: str = "inprocess", workers: int | None = None) -> Path:
    """Go on with an interrupted run from its last finished round; the end is as if it had never stopped.

    Raises
    ------
    RunError
        When the folder holds no run.
    """
    if not (path / SCENARIO).exists():
        raise RunError("run", str(path), f"a run folder with {SCENARIO}")
    scenario = load_scenario(path / SCENARIO)
    return _Runner(watcher or Silent(), engine, workers).all_seeds(RunFolder(path), scenario)


class _Runner:
    def __init__(self, watcher: Watcher, engine: str, workers: int | None) -> None:
        if engine not in ENGINES:
            raise RunError("engine", engine, "a known engine", nearest(engine, ENGINES))
        self._watcher, self._engine = watcher, engine
        self._workers = 1 if engine == "serial" else workers or cores()

    def all_seeds(self, folder: RunFolder, scenario: Scenario) -> Path:
        if not scenario.seeds:
            self._one(folder, scenario)
            return folder.path
        with folder.lock():
            folder.describe(scenario, {"seeds": scenario.seeds, "status": "running"})
            for seed in scenario.seeds:
                self._one(RunFolder(folder.path / "seeds" / str(seed)), scenario.with_seed(seed))
            parts = [folder.read(f"seeds/{seed}/{RUN}") for seed in scenario.seeds]
            alike = {key: parts[0][key] for key in ("engine", "base", "adapter_parameters", "clients")}
            folder.update(**alike, seconds=sum(part["seconds"] for part in parts), status="finished")
        return folder.path

    def _one(self, folder: RunFolder, scenario: Scenario) -> None:
        if folder.read(RUN, {}).get("status") == "finished":
            return
        with folder.lock():
            folder.write(SCENARIO, scenario.model_dump(mode="json"))
        # Loaded before the fork, so that every process shares the same bases.
        config = {key: str(folder.path.resolve() / name) for key, name in _CONFIG.items()}
        worker = worker_at(config["scenario"], config["run-folder"])
        if self._engine != "ray":
            worker.fleet.load()
        clients = len(worker.client_ids)
        if self._engine == "ray":
            conduct_on_ray(folder, clients, self._workers, self._watcher, gpus=_gpus(scenario, worker))
        else:
            # A process that is forked from one with a CUDA device cannot use that device.
            workers = self._workers if worker.attached.model.device.type == "cpu" else 1
            # One file often holds everybody's text; read before the fork it is read once. Faults are the roll call's.
            with suppress(DataError):
                worker.splits(worker.client_ids[0])
            with folder.lock(), InProcessGrid(client_app(), clients, config, workers) as grid:
                conduct(grid, worker, folder, self._watcher, self._engine)
        with folder.lock():
            hindered = obstacle(worker.base, worker.attached.config(SHARED)) or _export(folder, scenario)
            # Only a simulation may count what clients hold: here they all live on this machine.
            folder.write(DATA, worker.task.describe(worker.client_ids))
            folder.update(status="finished", device=hindered or "exported")


def _gpus(scenario: Scenario, worker: Worker) -> int:
    """Return how many GPUs Ray shares out among clients."""
    if worker.attached.model.device.type == "cpu":
        return 0
    if ":" in scenario.base.device:
        raise RunError("base.device", scenario.base.device, "cuda or auto", "Ray chooses each client's device itself")
    return torch.cuda.device_count()


def _export(folder: RunFolder, scenario: Scenario) -> str | None:
    """Write what devices get; return why not, where a trained adapter turns out to be none that they could run."""
    try:
        export_run(folder.path)
    except (AdapterError, BaseError) as error:
        # The training is done and kept: `fedpeft export` says the same again, and can be told otherwise.
        return str(error)
    if scenario.export.variant == "optional" and scenario.task.kind in (NextWord.kind, Chat.kind):
        write_samples(folder, scenario)
    return None


_CONFIG = {"scenario": SCENARIO, "run-folder": ""}
