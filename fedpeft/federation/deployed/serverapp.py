"""The ServerApp of a deployed federation: the rounds of a simulation, with clients who may be late, wrong or away."""

from __future__ import annotations

import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedpeft.federation.client import worker_at
from fedpeft.federation.cohort import Roll, greet, wait_for_nodes
from fedpeft.federation.deployed.link_grid import LinkGrid
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.folder import SCENARIO, RunFolder
from fedpeft.federation.server import agreed, attempt, federate
from fedpeft.federation.watcher import Silent
from fedpeft.federation.worker import Worker
from fedpeft.secagg.trust.registry import admitted

ENGINE, FINISHED = "deployed", "finished"
SERVER_FOLDER, RUN_FOLDER, OPERATOR_FOLDER = "server-folder", "run-folder", "operator-folder"


def deployed_app() -> ServerApp:
    """Build the ServerApp that a server's supervisor submits; it goes on where the run's folder says it stands."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        server = ServerFolder(Path(str(context.run_config[SERVER_FOLDER])))
        run = RunFolder(Path(str(context.run_config[RUN_FOLDER])))
        with run.lock():
            worker = worker_at(str(run.path / SCENARIO), str(run.path))
            with attempt(worker, run, ENGINE, FINISHED):
                link = LinkGrid(grid, patience(worker, server))
                roll = gather(link, worker, server)
                operator = Path(str(context.run_config[OPERATOR_FOLDER]))
                keys = server.keys(operator) if worker.scenario.secure else None
                federate(link, worker, roll, keys, run, Silent())

    return app


def patience(worker: Worker, server: ServerFolder) -> float:
    """Return the seconds that a client has: what the scenario says, the server's own settings at most."""
    most = server.settings.deadline
    return min(most, worker.scenario.federation.deadline or most)


def gather(link: LinkGrid, worker: Worker, server: ServerFolder) -> Roll:
    """Call the roll of who is there: enrolled nodes only, each under its own name; who is wrong is left out.

    Raises
    ------
    RunError
        When fewer are there than a round may have.
    """
    known = admitted(server.registry, time.time())
    clients = set(worker.client_ids)
    names: dict[int, str] = {}

    def present() -> list[int]:
        found = {node: known.get(public, "") for node, public in link.nodes().items()}
        names.update({node: client for node, client in found.items() if client in clients})
        return sorted(names.keys() & found.keys())

    expected = len(clients & set(known.values()))
    least = worker.scenario.federation.minimum
    ids = wait_for_nodes(present, max(expected, least), least, server.settings.gathering)
    called = greet(link, ids, agreed(worker), names)
    called.skipped.update({names[node]: str(error) for node, error in called.refused.items() if node in names})
    return called.roll()
