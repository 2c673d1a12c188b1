"""The ServerApp, and the run it conducts: roll call, rounds, personalization, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedpeft.adapters.schema import Vector
from fedpeft.errors import FolderError
from fedpeft.federation.client import worker_at
from fedpeft.federation.cohort import Agreed, Roll, roll_call
from fedpeft.federation.fleet import bonds
from fedpeft.federation.folder import RUN, SCENARIO, RunFolder
from fedpeft.federation.handshake import begin_session, end_session
from fedpeft.federation.lateness import drawn
from fedpeft.federation.locate import run_folder_of, scenario_of
from fedpeft.federation.rounds import Rounds
from fedpeft.federation.session_keys import SessionKeys
from fedpeft.federation.study import score_people
from fedpeft.federation.trust import Trust
from fedpeft.federation.watcher import Silent, Watcher
from fedpeft.federation.worker import Worker
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import load_scenario
from fedpeft.scenario.validate import require_simulable

GLOBAL_ADAPTER = "adapters/global"


def conduct(grid: Grid, worker: Worker, folder: RunFolder, watcher: Watcher, engine: str) -> None:
    """Run a scenario to its end, from wherever its folder says it stands.

    Parameters
    ----------
    grid : Grid
        Reaches one node per client.
    worker : Worker
        The server's own.
    folder : RunFolder
    watcher : Watcher
    engine : str
        For the record.

    Raises
    ------
    FedpeftError
        When the run cannot go on; its folder can be resumed.
    """
    require_simulable(worker.scenario)
    with attempt(worker, folder, engine, "trained"):
        roll = roll_call(grid, len(worker.client_ids), agreed(worker))
        keys = simulated_keys(worker, roll, folder)
        end, roll = begin_session(grid, worker, roll, keys, folder.path.name, watcher)
        rounds = Rounds(grid, worker, roll, end, folder, watcher, late=drawn(worker.scenario))
        score_people(rounds, federate(rounds))


def federate(rounds: Rounds, afterwards: Callable[[Rounds, Vector], object] = lambda rounds, change: None) -> Vector:
    """Run what is left of the rounds, save the global adapter, end the session and return the published change.

    Parameters
    ----------
    rounds : Rounds
    afterwards : callable, optional
        What else is to be done in the session.
    """
    change, worker = rounds.run(), rounds.worker
    start = worker.attached.initial[SHARED]
    worker.attached.adapter(SHARED, start + change).save(rounds.folder.path / GLOBAL_ADAPTER)
    afterwards(rounds, change)
    end_session(rounds.grid, worker, rounds.roll, rounds.watcher)
    return change


@contextmanager
def attempt(worker: Worker, folder: RunFolder, engine: str, done: str) -> Iterator[None]:
    """Write what an attempt at a run is, how long it took and how it ended; ``done`` when nothing went wrong.

    Raises
    ------
    FolderError
        When the run began with another base.
    """
    start = time.monotonic()
    _same_base(worker, folder)
    folder.describe(worker.scenario, {**facts(worker), "engine": engine, "status": "running"})
    status = "interrupted"
    try:
        yield
        status = done
    finally:
        spent = folder.read(RUN, {}).get("seconds", 0.0) + time.monotonic() - start
        folder.update(seconds=round(spent, 3), status=status)


def _same_base(worker: Worker, folder: RunFolder) -> None:
    """Refuse to go on with another base than the run's: no client would answer, and its adapter fits the first one."""
    began = folder.read(RUN, {}).get("base", {}).get("fingerprint", worker.base.fingerprint)
    if began != worker.base.fingerprint:
        raise FolderError(
            f"base of run {folder.path.name}",
            worker.base.fingerprint[:12],
            f"{began[:12]}, with which it began",
            "bring the base back, or give the scenario another name",
        )


def simulated_keys(worker: Worker, roll: Roll, folder: RunFolder) -> SessionKeys | None:
    """Make every key of a simulation that is not there yet; None on the plain channel."""
    if not worker.scenario.secure:
        return None
    trust = Trust(folder.path)
    trust.enrol(roll.clients, worker.states)
    return trust.keys


def server_app() -> ServerApp:
    """Build the ServerApp for Flower's simulation runtime, which runs on Ray."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        folder = RunFolder(run_folder_of(context))
        path = scenario_of(context.run_config)
        folder.write(SCENARIO, load_scenario(path).model_dump(mode="json"))
        with folder.lock():
            conduct(grid, worker_at(str(path), str(folder.path)), folder, Silent(), "ray")

    return app


def facts(worker: Worker) -> dict[str, Any]:
    """Return what ``run.json`` says about base, method and federation."""
    base = worker.base
    return {
        "base": {
            "name": base.name,
            "fingerprint": base.fingerprint,
            "parameters": base.parameters,
            "float32_bytes": base.float32_bytes,
            "dtype": str(base.dtype).removeprefix("torch."),
            "device": str(base.model.device),
        },
        "adapter_parameters": worker.size,
        "schema_digest": worker.attached.schemas[SHARED].digest,
        "clients": len(worker.client_ids),
        **({"devices": worker.fleet.describe()} if worker.scenario.devices else {}),
        **({"budgets": worker.fleet.budgets} if worker.fleet.budgets else {}),
    }


def agreed(worker: Worker) -> Agreed:
    """Return what every client must hold alike."""
    digests = {"scenario": worker.scenario.digest, **bonds(worker.fleet.reference)}
    return Agreed(digests, tuple(kind.name for kind in worker.scenario.classes))
