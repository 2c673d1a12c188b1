"""The ServerApp of a deployed federation: the rounds of a simulation, with clients who may be late, wrong or away."""

from __future__ import annotations

import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedpeft.federation.client import worker_at
from fedpeft.federation.cohort import Roll, greet, wait_for_nodes
from fedpeft.federation.deployed.drain import Drain, UntilDrained
from fedpeft.federation.deployed.ending import told
from fedpeft.federation.deployed.handing_out import hand_out
from fedpeft.federation.deployed.link_grid import LinkGrid
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.folder import SCENARIO, RunFolder
from fedpeft.federation.server import agreed, attempt, federate
from fedpeft.federation.worker import Worker
from fedpeft.secagg.trust.registry import admitted

ENGINE, FINISHED = "deployed", "finished"
# Longer than an idle node's pace: who is there hears of it, who is not gets the adapter with the next run.
_HANDING_OUT = 120.0
SERVER_FOLDER, RUN_FOLDER, OPERATOR_FOLDER = "server-folder", "run-folder", "operator-folder"


def deployed_app() -> ServerApp:
    """Build the ServerApp that a server's supervisor submits; it goes on where the run's folder says it stands."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run = RunFolder(Path(str(context.run_config[RUN_FOLDER])))
        with run.lock(), told(run, context.run_id):
            server = ServerFolder(Path(str(context.run_config[SERVER_FOLDER])))
            drain = Drain(server.path)
            worker = worker_at(str(run.path / SCENARIO), str(run.path))
            with attempt(worker, run, ENGINE, FINISHED):
                operator = Path(str(context.run_config[OPERATOR_FOLDER]))
                keys = server.keys(operator) if worker.scenario.secure else None
                link = LinkGrid(grid, server.settings.deadline)
                roll = gather(link, worker, server, drain)
                rounds, change = federate(link, worker, roll, keys, run, UntilDrained(drain))
                if worker.scenario.enrolled:
                    hand_out(LinkGrid(grid, min(_HANDING_OUT, server.settings.deadline)), rounds, change)

    return app


def gather(link: LinkGrid, worker: Worker, server: ServerFolder, drain: Drain) -> Roll:
    """Call the roll of who is there: enrolled nodes only, each under its own name; who is wrong is left out.

    Raises
    ------
    RunError
        When fewer are there than a round may have.
    Drained
        When nothing new is to begin.
    """
    known = admitted(server.registry, time.time())
    clients = set(known.values() if worker.scenario.enrolled else worker.client_ids)
    names: dict[int, str] = {}

    def present() -> list[int]:
        drain.heed()
        found = {node: known.get(public, "") for node, public in link.nodes().items()}
        names.update({node: client for node, client in found.items() if client in clients})
        return sorted(names.keys() & found.keys())

    expected = len(clients & set(known.values()))
    least = worker.scenario.federation.minimum
    ids = wait_for_nodes(present, max(expected, least), least, server.settings.gathering)
    called = greet(link, ids, agreed(worker), names)
    called.skipped.update({names[node]: str(error) for node, error in called.refused.items() if node in names})
    return called.roll()
